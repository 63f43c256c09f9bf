//! The shapes of what is shown are compared with text files next to this one.

use format_spec::SnapshotId;

use super::*;

fn text(what: &impl Show) -> String {
    let mut out = Vec::new();
    what.text(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(what: &impl Serialize) -> String {
    serde_json::to_string_pretty(what).unwrap() + "\n"
}

fn verified(findings: Vec<Finding>) -> Verified {
    let report =
        VerifyReport { snapshots: 3, pages: 40, references: 5_000, packs: 6, bytes_read: 7 << 20, findings };
    Verified::new(VerifyLevel::Read, report)
}

fn damage() -> Finding {
    Finding {
        object: "pack:00".to_owned(),
        problem: "is not on the site".to_owned(),
        snapshots: vec![SnapshotId::new(1_700_000_000_000, [7; 10])],
    }
}

#[test]
fn a_status_has_its_shape() {
    let status = ServerStatus(Status {
        server: "astacus-server 1.2.3".to_owned(),
        repository: format_spec::RepositoryId::new(1_700_000_000_000, [7; 10]),
        engine: "fjall".to_owned(),
        snapshots: 3,
        packs: 12,
        chunks: 123_456,
        stored_bytes: 5 << 30,
        open_sessions: 1,
        alarms: Vec::new(),
    });

    assert_eq!(text(&status), include_str!("status.txt"));
    assert_eq!(json(&status), include_str!("status.json"));
}

#[test]
fn a_sound_repository_takes_one_line_and_is_no_news() {
    let verified = verified(Vec::new());

    assert_eq!(text(&verified), include_str!("sound.txt"));
    assert_eq!((verified.is_news(), verified.verdict().exit_code()), (false, 0));
}

#[test]
fn a_damaged_repository_has_its_shape_and_its_exit_code() {
    let verified = verified(vec![damage()]);

    assert_eq!(text(&verified), include_str!("damaged.txt"));
    assert_eq!(json(&verified), include_str!("damaged.json"));
    assert_eq!((verified.is_news(), verified.verdict().exit_code()), (true, 13));
}
