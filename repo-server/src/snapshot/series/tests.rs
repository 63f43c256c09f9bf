use format_spec::manifest::{Manifest, Totals};
use format_spec::{EntryPath, FORMAT_VERSION, ManifestId};

use super::*;
use crate::server::Server;
use crate::snapshot::get;
use crate::testing::{World, tree};

const HOUR_MS: u64 = 60 * 60 * 1000;
const NOW_MS: u64 = 1_700_000_000_000;

fn origin(root: &str) -> Origin {
    Origin::of(&Manifest {
        version: FORMAT_VERSION,
        cluster: "c".parse().unwrap(),
        node: "n".parse().unwrap(),
        roots: vec![EntryPath::new(root.as_bytes().to_vec()).unwrap()],
        pages: Vec::new(),
        totals: Totals::default(),
        problems: Vec::new(),
        tool: String::new(),
        host: String::new(),
        push: None,
        series: None,
        about: None,
        roots_are: None,
    })
}

/// A snapshot of `root` with so many files and bytes, which is nowhere yet.
fn draft(root: &str, at_ms: u64, files: u64, bytes: u64) -> Snapshot {
    let totals = Totals { files, bytes, ..Totals::default() };
    let seed = u8::try_from(files % 251).unwrap();
    Snapshot {
        version: FORMAT_VERSION,
        id: SnapshotId::new(at_ms, [seed; 10]),
        cluster: "c".parse().unwrap(),
        created_ms: at_ms,
        state: SnapshotState::Complete,
        manifests: vec![ManifestRef {
            node: "n".parse().unwrap(),
            id: ManifestId::from_bytes([seed; 32]),
            totals,
            push: None,
            origin: Some(origin(root)),
        }],
        number: None,
        shrunk: None,
        about: None,
    }
}

fn put(store: &Store, snapshot: &Snapshot) {
    let mut batch = Batch::new();
    batch.put(Table::Snapshot, *snapshot.id.as_bytes(), snapshot.encode());
    store.commit(batch).unwrap();
}

/// Gives a snapshot its place, and lists it.
fn placed(server: &Server, mut snapshot: Snapshot, smaller: Smaller) -> Snapshot {
    place(&server.store, &mut snapshot, server.next_commit(), smaller).unwrap();
    put(&server.store, &snapshot);
    snapshot
}

/// S9: whatever clocks tell, commits have an order, also those of the next process.
#[test]
fn commits_are_numbered_and_go_on_after_a_restart() {
    let mut world = World::new();
    let place =
        |world: &World, at_ms| placed(&world.server, draft("etc", at_ms, 1, 1), Smaller::Suspect).number;

    assert_eq!(place(&world, NOW_MS), Some(1));
    assert_eq!(place(&world, NOW_MS - 5000 * HOUR_MS), Some(2));
    world.restart();
    assert_eq!(place(&world, NOW_MS + 9000 * HOUR_MS), Some(3));
    let listed = list(&world.store, None).unwrap();
    assert_eq!(listed.iter().map(|listed| listed.number.unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
}

/// S9: a clock that is put right by a little makes no time run backwards; one that jumped is left as it is, and the
/// order is that of the numbers.
#[test]
fn a_time_is_not_before_the_last_one_of_its_series_unless_the_clock_jumped() {
    let world = World::new();
    let time = |root, at_ms| placed(&world.server, draft(root, at_ms, 1, 1), Smaller::Suspect).created_ms;

    assert_eq!(time("etc", NOW_MS), NOW_MS);
    assert_eq!(time("etc", NOW_MS - HOUR_MS / 2), NOW_MS, "an hour is no jump");
    assert_eq!(time("var", NOW_MS - HOUR_MS / 2), NOW_MS - HOUR_MS / 2, "another series");
    assert_eq!(time("etc", NOW_MS - 2 * HOUR_MS), NOW_MS - 2 * HOUR_MS, "a jump");
}

/// S10: with the volume not mounted, or most of it gone, all there is left of it is the snapshot before.
#[test]
fn a_snapshot_that_holds_much_less_than_the_one_before_is_suspect() {
    let many = 64 << 20;
    for (before, now, suspect) in [
        ((1, 1), (0, 0), true),
        ((0, 0), (0, 0), false),
        ((200, 5), (100, 5), false),
        ((201, 5), (100, 5), true),
        // Few files come and go.
        ((150, 5), (60, 5), false),
        ((3, 2 * many + 2), (3, many), true),
        ((3, 2 * many), (3, many), false),
        ((3, many), (3, 1), false),
    ] {
        let world = World::new();
        let of = |at_ms, (files, bytes), smaller| {
            placed(&world.server, draft("etc", at_ms, files, bytes), smaller).shrunk
        };
        assert_eq!(of(NOW_MS, before, Smaller::Suspect), None);

        assert_eq!(of(NOW_MS + 2, now, Smaller::Meant), None, "{before:?} {now:?}");
        world.store.parts.index.commit(delete(&world, NOW_MS + 2)).unwrap();
        let shrunk = of(NOW_MS + 1, now, Smaller::Suspect);
        assert_eq!(shrunk.is_some(), suspect, "{before:?} {now:?}");
        assert!(shrunk.is_none_or(|shrunk| (shrunk.files, shrunk.bytes) == before));
    }
}

fn delete(world: &World, at_ms: u64) -> Batch {
    let mut batch = Batch::new();
    for snapshot in list(&world.store, None).unwrap() {
        if snapshot.created_ms == at_ms {
            batch.delete(Table::Snapshot, *snapshot.id.as_bytes());
        }
    }
    batch
}

/// The one it is compared with is the last that was neither suspect nor partial, of the same folders.
#[test]
fn suspicion_goes_on_until_somebody_accepts_it() {
    let world = World::new();
    let of = |at_ms, files, smaller| placed(&world.server, draft("etc", at_ms, files, 0), smaller).shrunk;
    let first = placed(&world.server, draft("etc", NOW_MS, 1000, 0), Smaller::Suspect).id;
    placed(&world.server, draft("var", NOW_MS, 5, 0), Smaller::Suspect);

    assert_eq!(of(NOW_MS + 1, 10, Smaller::Suspect).map(|shrunk| shrunk.since), Some(first));
    assert_eq!(of(NOW_MS + 2, 11, Smaller::Suspect).map(|shrunk| shrunk.since), Some(first));
    watch_suspects(&world.store).unwrap();
    let alarm = crate::health::alarms(&world.store).unwrap().pop().unwrap();
    assert_eq!(alarm.code, "suspect_snapshot");
    for part in ["11 files", "node `n` (/etc)", "had 1000", "--accept-smaller"] {
        assert!(alarm.message.contains(part), "{}", alarm.message);
    }

    assert_eq!(of(NOW_MS + 3, 12, Smaller::Meant), None);
    watch_suspects(&world.store).unwrap();
    assert_eq!(crate::health::alarms(&world.store).unwrap(), []);
    assert_eq!(of(NOW_MS + 4, 10, Smaller::Suspect), None, "the smaller one is what counts now");
}

/// Snapshots of earlier builds say nothing of folders, numbers or suspicions.
#[test]
fn what_earlier_builds_left_falls_into_series_by_its_manifests() {
    let world = World::new();
    let id = world.push("n", &tree(&["content"]));
    let snapshot = get(&world.store, id).unwrap();
    let mut old = Snapshot { number: None, ..snapshot.clone() };
    old.manifests[0].origin = None;
    put(&world.store, &old);
    assert_ne!(old.series(), snapshot.series());

    world.wait(world.store.waiting(note_origins)).unwrap();

    let noted = get(&world.store, id).unwrap();
    assert_eq!((noted.series(), noted.number), (snapshot.series(), None));
    assert_eq!(noted.manifests, snapshot.manifests);
}

/// A manifest that cannot be read leaves its snapshot in a series of its own, where it takes nobody's place.
#[test]
fn a_snapshot_whose_manifest_is_lost_has_a_series_of_its_own() {
    let world = World::new();
    let mut old = draft("etc", NOW_MS, 1, 1);
    old.manifests[0].origin = None;
    put(&world.store, &old);
    let new = placed(&world.server, draft("etc", NOW_MS + 1, 1, 1), Smaller::Suspect);

    world.wait(world.store.waiting(note_origins)).unwrap();

    let listed = list(&world.store, None).unwrap();
    let series = by_series(&listed);
    assert_eq!(series.len(), 2);
    assert_eq!(series[&new.series()].iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), [new.id]);
}
