//! Packs whose header or footer is damaged: what lies where in them is known from the index.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use format_spec::SnapshotId;
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, FindingCounts, GcReport, VerifyLevel};

use super::whole::{faults, leftovers};
use crate::health::alarm::{self, AlarmCode};
use crate::index::{KeyRange, Table};
use crate::pack::read_directory;
use crate::rows::{PackNumber, PackRow};
use crate::site::layout::pack_object;
use crate::testing::{Read, Tree, World, tree};
use crate::verify;

fn packs(world: &World, kind: BlobKind) -> Vec<PackRow> {
    let mut packs = Vec::new();
    let take = |key: &[u8], value: &[u8]| {
        assert!(PackNumber::from_key(key).is_some());
        packs.extend(PackRow::decode(value).filter(|row| row.kind == kind));
        Ok(())
    };
    world.store.for_each_row(Table::Pack, &KeyRange::all(), take).unwrap();
    packs
}

/// Flips a bit of a pack's footer, or of what else `at` says.
fn damage(world: &World, pack: &PackRow, at: impl Fn(usize) -> usize) {
    let name = pack_object(&pack.id);
    let mut bytes = world.wait(world.site.get(&name)).unwrap().to_vec();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    world.wait(world.site.delete(&name)).unwrap();
    world.wait(world.site.put_new(&name, bytes.into())).unwrap();
}

fn in_footer(len: usize) -> usize {
    len - 40
}

fn check(world: &World) -> FindingCounts {
    let checks = verify::run(&world.server, VerifyLevel::Read.into(), &|_, _| {});
    world.wait(checks).unwrap().counts
}

fn is_up(world: &World, code: AlarmCode) -> bool {
    alarm::is_up(&world.store, code).unwrap()
}

fn contents() -> Tree {
    tree(&["one", "two", "three"])
}

/// A snapshot whose three chunks lie in one pack.
fn pushed() -> (World, SnapshotId) {
    let world = World::new();
    let snapshot = world.push("n", &contents());
    // The collector has looked at what came in.
    world.gc(Delays::Skip);
    assert_eq!((packs(&world, BlobKind::Chunk).len(), packs(&world, BlobKind::Page).len()), (1, 1));
    (world, snapshot)
}

#[track_caller]
fn assert_all_is_well(world: &World, snapshot: SnapshotId) {
    assert_eq!(world.read(snapshot).unwrap(), contents());
    assert_eq!((faults(world), leftovers(world)), (vec![], vec![]));
    assert_eq!(check(world), FindingCounts::default());
    for pack in [packs(world, BlobKind::Chunk), packs(world, BlobKind::Page)].concat() {
        world.wait(read_directory(&world.store, &pack.id, pack.len)).unwrap();
    }
    assert!(!is_up(world, AlarmCode::DamagedObjects) && !is_up(world, AlarmCode::DamagedBlobs));
}

/// G4, G11: the blobs of a pack whose footer is damaged get a new one, before the index is lost as well.
#[test]
fn a_pack_whose_footer_a_check_found_damaged_is_written_anew() {
    for kind in [BlobKind::Chunk, BlobKind::Page] {
        for at in [in_footer, |_| 20] {
            let (world, snapshot) = pushed();
            damage(&world, &packs(&world, kind)[0], at);
            // No check has run, and little of it is dead.
            assert_eq!(world.gc(Delays::Skip).repacked.count, 0, "{kind:?}");
            assert_eq!(check(&world).corrupt, 1, "{kind:?}");
            assert!(is_up(&world, AlarmCode::DamagedObjects));

            let report = world.gc(Delays::Skip);

            assert_eq!((report.problems.clone(), report.repacked.count), (vec![], 1), "{kind:?}");
            assert_all_is_well(&world, snapshot);
        }
    }
}

/// G1, G8: the new footer of a pack of pages says what the pages refer to: all goes when the snapshot does.
#[test]
fn what_pages_refer_to_is_counted_as_before() {
    let (world, snapshot) = pushed();
    for kind in [BlobKind::Chunk, BlobKind::Page] {
        damage(&world, &packs(&world, kind)[0], in_footer);
    }
    check(&world);
    assert_eq!(world.gc(Delays::Skip).repacked.count, 2);
    assert_all_is_well(&world, snapshot);

    world.forget(snapshot);
    world.gc(Delays::Skip);
    world.gc(Delays::Skip);

    assert_eq!(world.objects("packs"), [""; 0]);
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
}

/// G4: a blob that cannot be opened is not copied, and holds up its pack until a check has found it.
#[test]
fn damage_in_the_pack_gets_no_new_name() {
    for kind in [BlobKind::Chunk, BlobKind::Page] {
        let (world, snapshot) = pushed();
        let pack = packs(&world, kind).remove(0);
        damage(&world, &pack, in_footer);
        check(&world);
        damage(&world, &pack, |_| 80);

        let report = world.gc(Delays::Skip);

        assert_eq!(report.problems.len(), 1, "{report:?}");
        let left = packs(&world, kind).into_iter().find(|found| found.id == pack.id).unwrap();
        assert_eq!(left.live.blobs, 1, "the damaged blob stays where it is");
        assert!(world.read(snapshot).is_err());
    }
}

/// How many rows of chunks a run looks through, one after the other.
fn rows_looked_through(world: &mut World) -> (GcReport, usize) {
    let rows = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&rows);
    world.crash_and_overhear(Arc::new(move |read, table, count| {
        if (read, table) == (Read::Scan, Table::Chunk) {
            heard.fetch_add(count, Ordering::Relaxed);
        }
    }));
    let report = world.gc(Delays::Skip);
    (report, rows.load(Ordering::Relaxed))
}

/// G10: what is sound is saved at once, what is in quarantine waits for its content, and costs no run anything.
#[test]
fn sound_blobs_leave_beside_damaged_ones() {
    let (mut world, snapshot) = pushed();
    let pack = packs(&world, BlobKind::Chunk).remove(0);
    damage(&world, &pack, in_footer);
    damage(&world, &pack, |_| 80);
    check(&world);

    let (report, rows) = rows_looked_through(&mut world);
    assert_eq!((report.problems.clone(), report.repacked.count), (vec![], 1), "{report:?}");
    assert!(rows > 0);
    assert_eq!(packs(&world, BlobKind::Chunk).len(), 2);
    let left = packs(&world, BlobKind::Chunk).into_iter().find(|row| row.id == pack.id).unwrap();
    assert_eq!(left.live.blobs, 1, "the damaged one");
    let (report, rows) = rows_looked_through(&mut world);
    assert_eq!((report.repacked.count, rows), (0, 0), "{report:?}");
    assert!(is_up(&world, AlarmCode::DamagedObjects));

    world.push("n", &contents());
    world.gc(Delays::Skip);

    assert_all_is_well(&world, snapshot);
}
