use format_spec::manifest::{Manifest, Totals};
use format_spec::snapshot::{ManifestRef, Origin};
use format_spec::{EntryPath, FORMAT_VERSION, ManifestId, SnapshotId};

use super::*;
use crate::operation;
use crate::settings::{Choices, Freshness};
use crate::testing::World;

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A snapshot of `node` that is committed now.
fn commit(world: &World, node: &str, state: SnapshotState) {
    let now_ms = world.store.parts.clock.unix_ms();
    let number = world.server.next_commit();
    let origin = Origin::of(&Manifest {
        version: FORMAT_VERSION,
        cluster: "c".parse().unwrap(),
        node: node.parse().unwrap(),
        roots: vec![EntryPath::new(b"data".to_vec()).unwrap()],
        pages: Vec::new(),
        totals: Totals::default(),
        problems: Vec::new(),
        tool: String::new(),
        host: String::new(),
        push: None,
        series: None,
        about: None,
        roots_are: None,
    });
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_le_bytes());
    let snapshot = Snapshot {
        version: FORMAT_VERSION,
        id: SnapshotId::new(now_ms, random),
        cluster: "c".parse().unwrap(),
        created_ms: now_ms,
        state,
        manifests: vec![ManifestRef {
            node: node.parse().unwrap(),
            id: ManifestId::from_bytes([1; 32]),
            totals: Totals::default(),
            push: None,
            origin: Some(origin),
        }],
        number: Some(number),
        shrunk: None,
        about: None,
    };
    let mut batch = Batch::new();
    batch.put(Table::Snapshot, *snapshot.id.as_bytes(), snapshot.encode());
    world.store.commit(batch).unwrap();
}

fn nightly(world: &World, node: &str, nights: u32) {
    for _ in 0..nights {
        commit(world, node, SnapshotState::Complete);
        world.clock.advance(DAY);
    }
}

fn choose(world: &World, freshness: Freshness) {
    world.server.choose(Choices { freshness, ..Choices::default() });
}

fn scope(node: Option<&str>, series: Option<&str>) -> SeriesScope {
    let node = node.map(|node| node.parse().unwrap());
    SeriesScope { cluster: "c".parse().unwrap(), node, series: series.map(str::to_owned) }
}

fn say(world: &World, node: Option<&str>, series: Option<&str>, expect: Expectation) {
    set(&world.server, &FreshnessRule { scope: scope(node, series), expect }).unwrap();
}

/// Codes and subjects of the alarms that are up.
#[track_caller]
fn alarms(world: &World) -> Vec<String> {
    look(&world.server).unwrap();
    let told =
        |alarm: format_spec::wire::Alarm| format!("{} {}", alarm.code, alarm.subject.unwrap_or_default());
    crate::health::alarms(&world.store).unwrap().into_iter().map(told).collect()
}

#[test]
fn what_is_usual_goes_by_the_median_of_the_last_intervals() {
    let hours = |moments: &[u64]| {
        let moments: Vec<u64> = moments.iter().map(|hour| hour * HOUR_MS).collect();
        usual(&moments).map(|age| age.as_secs() / 3600)
    };
    assert_eq!(hours(&[]), None);
    assert_eq!(hours(&[0, 24]), None, "two tell of one interval");
    assert_eq!(hours(&[0, 24, 48]), Some(37));
    assert_eq!(hours(&[0, 1, 2, 3]), Some(26), "a node may be switched off for a day");
    assert_eq!(hours(&[0, 168, 336]), Some(253));
    assert_eq!(hours(&[0, 24, 48, 72, 500, 524]), Some(37), "one gap changes nothing");
    assert_eq!(hours(&[0, 1, 2, 3, 24, 48, 72, 96, 120]), Some(37), "old intervals count no more");
}

/// A2: a node that stops pushing raises an alarm by its own history, and the next good snapshot ends it.
#[test]
fn a_node_that_stopped_pushing_is_overdue_until_it_pushes_again() {
    let world = World::new();
    nightly(&world, "n", 3);
    assert_eq!(alarms(&world), Vec::<String>::new());

    world.clock.advance(DAY);
    assert_eq!(alarms(&world), ["overdue c/n:/data"]);
    commit(&world, "n", SnapshotState::Partial);
    assert_eq!(alarms(&world), ["overdue c/n:/data"], "a partial one is no backup");
    commit(&world, "n", SnapshotState::Complete);
    assert_eq!(alarms(&world), Vec::<String>::new());
}

/// A2: what an operator expects is overdue although nothing was ever pushed, and what is retired never is.
#[test]
fn an_expected_series_without_a_snapshot_is_overdue_and_a_retired_one_is_not() {
    let world = World::new();
    choose(&world, Freshness { expect: vec![(scope(Some("m"), None), DAY)], ..Freshness::default() });
    assert_eq!(alarms(&world), ["overdue c/m"]);
    say(&world, Some("m"), None, Expectation::Retired);
    assert_eq!(alarms(&world), ["overdue c/m"], "the configuration expects it still");
    choose(&world, Freshness::default());
    assert_eq!(alarms(&world), Vec::<String>::new());

    nightly(&world, "old", 3);
    world.clock.advance(DAY * 30);
    assert_eq!(alarms(&world), ["overdue c/old:/data"]);
    say(&world, Some("old"), None, Expectation::Retired);
    assert_eq!(alarms(&world), Vec::<String>::new());
    say(&world, Some("old"), None, Expectation::Usual);
    assert_eq!(alarms(&world), ["overdue c/old:/data"]);
}

#[test]
fn the_most_specific_rule_says_how_old_a_snapshot_may_be() {
    let world = World::new();
    nightly(&world, "n", 1);
    let limit = || {
        let series = report(&world.server).unwrap().series.remove(0);
        (series.max_age_seconds.unwrap_or(0) / 3600, series.max_age_source)
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(limit(), (0, None), "one snapshot tells nothing");

    choose(&world, Freshness { max_age: Some(hours(9)), ..Freshness::default() });
    assert_eq!(limit(), (9, Some(AgeSource::All)));
    let expect = vec![(scope(Some("n"), None), hours(8)), (scope(None, None), hours(7))];
    choose(&world, Freshness { max_age: Some(hours(9)), expect, ..Freshness::default() });
    assert_eq!(limit(), (8, Some(AgeSource::Configured)));
    say(&world, None, None, Expectation::MaxAgeSeconds(6 * 3600));
    assert_eq!(limit(), (8, Some(AgeSource::Configured)), "a node is more specific than a cluster");
    say(&world, Some("n"), None, Expectation::MaxAgeSeconds(5 * 3600));
    assert_eq!(limit(), (5, Some(AgeSource::Set)));
    say(&world, None, Some("/data"), Expectation::MaxAgeSeconds(4 * 3600));
    assert_eq!(limit(), (4, Some(AgeSource::Set)));
    say(&world, None, Some("/other"), Expectation::MaxAgeSeconds(3 * 3600));
    assert_eq!(limit().0, 4);
}

/// A3: a series of which no snapshot is complete any more is told.
#[test]
fn partial_snapshots_in_a_row_raise_an_alarm_until_one_is_complete() {
    let world = World::new();
    commit(&world, "n", SnapshotState::Complete);
    for _ in 0..2 {
        commit(&world, "n", SnapshotState::Partial);
    }
    assert_eq!(alarms(&world), Vec::<String>::new());

    commit(&world, "n", SnapshotState::Partial);
    assert_eq!(alarms(&world), ["partial_again c/n:/data"]);
    commit(&world, "n", SnapshotState::Complete);
    assert_eq!(alarms(&world), Vec::<String>::new());
}

/// A2: ages go by the server's clock, so nothing new is said while that is wrong.
#[test]
fn a_clock_that_jumped_makes_nothing_overdue() {
    let world = World::new();
    nightly(&world, "n", 3);
    alarm::raise(&world.store, AlarmCode::ClockJumped, "it did").unwrap();
    world.clock.advance(DAY * 365);

    assert_eq!(alarms(&world), ["clock_jumped "]);
}

#[test]
fn bytes_that_nobody_reads_back_raise_an_alarm() {
    let world = World::new();
    world.push("n", &crate::testing::tree(&["content"]));
    choose(&world, Freshness { verify_within: Some(DAY), ..Freshness::default() });
    assert_eq!(alarms(&world), Vec::<String>::new());

    world.clock.advance(DAY);
    assert_eq!(alarms(&world), ["not_verified "]);

    let request = format_spec::wire::VerifyRequest::from(format_spec::wire::VerifyLevel::Read);
    world.wait(operation::run_unheard(&world.server, request)).unwrap();
    world.clock.advance(crate::catalog::COUNT_EVERY);
    assert_eq!(alarms(&world), Vec::<String>::new());
}

/// X5: a name of any length is a subject that the index takes.
#[test]
fn a_rule_with_a_long_name_raises_its_alarm() {
    let world = World::new();
    let long = format!("/{}", "\u{e4}".repeat(4000));
    choose(&world, Freshness { expect: vec![(scope(None, Some(&long)), DAY)], ..Freshness::default() });

    let [alarm] = alarms(&world).try_into().unwrap();
    assert!(alarm.starts_with("overdue c:/\u{e4}") && alarm.len() < 256, "{alarm}");
    let too_long = FreshnessRule { scope: scope(None, Some(&long)), expect: Expectation::Retired };
    assert_eq!(set(&world.server, &too_long).unwrap_err().code(), "bad_rule");
}

#[test]
fn more_alarms_than_anybody_reads_are_counted() {
    let many = (0..MOST_ALARMS + 7).map(|n| (format!("{n:04}"), "late".to_owned())).collect();
    let told = bounded(many);
    assert_eq!(told.len(), MOST_ALARMS);
    assert_eq!(told.last().unwrap().1, "8 more series have this alarm");
}
