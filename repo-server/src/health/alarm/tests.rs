use std::time::Duration;

use super::*;
use crate::testing::World;

const CODE: AlarmCode = AlarmCode::Overdue;

fn two(world: &World) {
    let wanted = ["c/a:/x", "c/b:/x"].map(|subject| (subject.to_owned(), format!("{subject} is late")));
    keep_only(&world.store, CODE, &wanted).unwrap();
}

fn ask(subject: Option<&str>, for_seconds: Option<u64>) -> AcknowledgeRequest {
    let subject = subject.map(str::to_owned);
    AcknowledgeRequest { code: CODE.name().to_owned(), subject, reason: "a repair".to_owned(), for_seconds }
}

#[track_caller]
fn acknowledged(world: &World) -> Vec<bool> {
    crate::health::alarms(&world.store).unwrap().iter().map(|alarm| alarm.acknowledged.is_some()).collect()
}

/// A1: an acknowledgement is of one alarm, outlives a restart, and ends with the alarm.
#[test]
fn an_acknowledged_alarm_stays_known_until_it_is_over() {
    let mut world = World::new();
    two(&world);

    let known = acknowledge(&world.store, &ask(Some("c/a"), None)).unwrap();
    assert_eq!((known.subject.as_deref(), known.severity), (Some("c/a:/x"), Severity::Critical));
    world.crash();
    let changed = [("c/a:/x", "another text"), ("c/b:/x", "c/b:/x is late")];
    keep_only(&world.store, CODE, &changed.map(|(of, text)| (of.to_owned(), text.to_owned()))).unwrap();
    assert_eq!(acknowledged(&world), [true, false]);

    keep_only(&world.store, CODE, &[]).unwrap();
    assert_eq!(crate::health::alarms(&world.store).unwrap(), []);
    two(&world);
    assert_eq!(acknowledged(&world), [false, false], "it came up again");
}

#[test]
fn an_acknowledgement_with_an_end_counts_until_then() {
    let world = World::new();
    two(&world);
    acknowledge(&world.store, &ask(Some("c/b:/x"), Some(3600))).unwrap();
    assert_eq!(acknowledged(&world), [false, true]);

    world.clock.advance(Duration::from_secs(3600));

    assert_eq!(acknowledged(&world), [false, false]);
}

#[test]
fn an_acknowledgement_that_fits_none_or_several_is_refused() {
    let world = World::new();
    two(&world);

    let refused = |subject| acknowledge(&world.store, &ask(subject, None)).unwrap_err();
    assert_eq!(refused(None).code(), "ambiguous_alarm");
    assert_eq!(refused(Some("/x")).code(), "ambiguous_alarm");
    assert_eq!(refused(Some("c/c")).code(), "no_such_alarm");
    let no_line = AcknowledgeRequest { reason: "two\nlines".to_owned(), ..ask(Some("c/a"), None) };
    assert_eq!(acknowledge(&world.store, &no_line).unwrap_err().code(), "bad_reason");
    assert_eq!(acknowledged(&world), [false, false]);
}

/// Codes that begin alike are not taken for each other, and each code has a severity that a client knows.
#[test]
fn every_code_is_its_own() {
    let world = World::new();
    for code in AlarmCode::ALL {
        raise(&world.store, code, "up").unwrap();
        assert_eq!(AlarmCode::of_name(code.name()), Some(code));
    }
    for code in AlarmCode::ALL {
        clear(&world.store, code).unwrap();
        assert!(!is_up(&world.store, code).unwrap(), "{code:?}");
    }
    assert_eq!(crate::health::alarms(&world.store).unwrap(), []);
}

/// Rows of earlier builds have a text and a moment only.
#[test]
fn an_alarm_of_an_earlier_build_is_read() {
    let world = World::new();
    let mut batch = Batch::new();
    batch.put(
        Table::Meta,
        b"alarm/suspect_snapshot".to_vec(),
        br#"{"message":"less","since_ms":0}"#.to_vec(),
    );
    world.store.commit(batch).unwrap();

    let alarm = crate::health::alarms(&world.store).unwrap().remove(0);
    assert_eq!((alarm.code.as_str(), alarm.subject, alarm.acknowledged), ("suspect_snapshot", None, None));
    keep_only(&world.store, AlarmCode::SuspectSnapshot, &[]).unwrap();
    assert_eq!(crate::health::alarms(&world.store).unwrap(), []);
}
