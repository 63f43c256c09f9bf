use format_spec::manifest::Totals;
use format_spec::snapshot::{ManifestRef, SnapshotState};
use format_spec::{FORMAT_VERSION, ManifestId};

use super::*;
use crate::index::{Batch, Table};
use crate::testing::World;

const ALL: PartLimit = PartLimit { snapshots: 1_000, len: 1 << 20 };

/// The snapshot of the commit with this number, of cluster `a` or `b` in turn.
fn put(world: &World, number: u64) -> SnapshotId {
    let seed = u8::try_from(number).unwrap();
    let snapshot = Snapshot {
        version: FORMAT_VERSION,
        id: SnapshotId::new(1_700_000_000_000 - number, [seed; 10]),
        cluster: if number.is_multiple_of(2) { "a" } else { "b" }.parse().unwrap(),
        created_ms: 1_700_000_000_000,
        state: SnapshotState::Complete,
        manifests: vec![ManifestRef {
            node: "n".parse().unwrap(),
            id: ManifestId::from_bytes([seed; 32]),
            totals: Totals::default(),
            push: None,
            origin: None,
        }],
        number: Some(number),
        shrunk: None,
        about: None,
    };
    let mut batch = Batch::new();
    batch.put(Table::Snapshot, *snapshot.id.as_bytes(), snapshot.encode());
    world.store.commit(batch).unwrap();
    snapshot.id
}

fn remove(world: &World, id: SnapshotId) {
    let mut batch = Batch::new();
    batch.delete(Table::Snapshot, *id.as_bytes());
    world.store.commit(batch).unwrap();
}

/// The ids of one part, and where the next begins.
fn ids(world: &World, after: Option<&str>, limit: PartLimit) -> (Vec<SnapshotId>, Option<String>) {
    let after = after.map(|after| after.parse().unwrap());
    let found = part(&world.store, None, after, limit, Some, |info| info).unwrap();
    (found.snapshots.iter().map(|snapshot| snapshot.id).collect(), found.next)
}

/// All ids, asked for part by part, and how many parts there were.
fn all_by(world: &World, limit: PartLimit) -> (Vec<SnapshotId>, usize) {
    let (mut all, mut next, mut parts) = (Vec::new(), None::<String>, 0);
    loop {
        let (ids, rest) = ids(world, next.as_deref(), limit);
        all.extend(ids);
        parts += 1;
        match rest {
            Some(rest) => next = Some(rest),
            None => return (all, parts),
        }
    }
}

#[test]
fn a_list_that_is_asked_for_in_parts_is_the_whole_list() {
    let world = World::new();
    let put: Vec<SnapshotId> = (1..=7).map(|number| put(&world, number)).collect();
    let parts = |snapshots, len| all_by(&world, PartLimit { snapshots, len });

    assert_eq!(parts(1_000, 1 << 20), (put.clone(), 1));
    assert_eq!(parts(3, 1 << 20), (put.clone(), 3));
    assert_eq!(parts(7, 1 << 20), (put.clone(), 1));
    assert_eq!(parts(1_000, 1), (put, 7), "one is told however long it is");
    let of_a = part(&world.store, Some(&"a".parse().unwrap()), None, ALL, Some, |info| info).unwrap();
    assert_eq!((of_a.snapshots.len(), of_a.next), (3, None));
}

#[test]
fn snapshots_that_come_and_go_between_two_parts_move_no_other() {
    let world = World::new();
    let put_first: Vec<SnapshotId> = (1..=4).map(|number| put(&world, number)).collect();
    let two = PartLimit { snapshots: 2, ..ALL };
    let (first, next) = ids(&world, None, two);
    assert_eq!(first, put_first[..2]);

    remove(&world, put_first[0]);
    remove(&world, put_first[1]);
    let new = put(&world, 9);

    let (rest, end) = ids(&world, next.as_deref(), ALL);
    assert_eq!((rest, end), (vec![put_first[2], put_first[3], new], None));
}

#[test]
fn a_place_that_no_answer_named_is_refused() {
    for text in ["", "1", ".", "x.y", "-1.01a22ddf-d99b-76b1-b050-0e6917ee0c72"] {
        assert!(text.parse::<ListPlace>().is_err(), "{text}");
    }
}
