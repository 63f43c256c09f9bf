//! The collector where something is damaged, lost or full.

use std::sync::Arc;
use std::time::Duration;

use format_spec::key::BlobKind;
use format_spec::wire::{
    Delays, FindingCounts, ForgetReport, ForgetRequest, Held, Repair, RetentionPolicy, RunMode, Verdict,
    VerifyLevel,
};
use format_spec::{ChunkId, SnapshotId};

use super::whole::{faults, leftovers};
use crate::defects::blobs::{self, Place};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::operation;
use crate::rows::{ChunkRow, Health};
use crate::session;
use crate::settings::Percent;
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::layout::{manifest_object, pack_object};
use crate::site::{Op, StoreSite};
use crate::snapshot;
use crate::testing::{World, tree};

fn row(world: &World, id: ChunkId) -> Option<ChunkRow> {
    world.store.chunk_rows([&id]).unwrap()[0]
}

/// G3, G10: a damaged chunk that nothing needs is sent again. It stays as any other that was just sent.
#[test]
fn a_chunk_that_is_healed_stays_for_the_session_that_sent_it() {
    let world = World::new();
    let (holder, died) = (world.begin("holder"), world.begin("died"));
    let id = world.send(&died, BlobKind::Chunk, b"precious").unwrap();
    world.flush().unwrap();
    session::abort(&world.server.sessions, died.id, |_| true).unwrap();
    // The next sessions begin in a later epoch than that in which the chunk became idle.
    world.gc(Delays::Skip);
    session::abort(&world.server.sessions, holder.id, |_| true).unwrap();
    let client = world.begin("n");
    let at = Place::of(&row(&world, id).unwrap());
    blobs::mark(&world.store, &[(id, at, "rotten".to_owned())]).unwrap();
    assert_eq!(world.have(&client, &[id]).unwrap(), [Held::Missing]);
    world.send(&client, BlobKind::Chunk, b"precious").unwrap();
    world.flush().unwrap();

    world.gc(Delays::Skip);

    assert_eq!(row(&world, id).map(|row| row.health), Some(Health::Sound));
    let committed = world.commit_tree(&client, &tree(&["precious"])).unwrap();
    assert_eq!(world.read(committed).unwrap(), tree(&["precious"]));
    assert_eq!(faults(&world), [""; 0]);
}

/// P8: what may go goes from a full site, also when there is no room for repacking, which goes on later.
#[test]
fn a_run_that_cannot_repack_deletes_all_the_same() {
    for refusal in [Refusal::Full, Refusal::Unavailable] {
        let faulty = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
        let mut world = World::on(Arc::<FaultySite>::clone(&faulty));
        world.upkeep.gc.repack_below = Percent::new(90).unwrap();
        world.crash();
        let dead = world.push("n", &tree(&["one", "two"]));
        let thin = world.push("n", &tree(&["three", "four", "five times five"]));
        let kept = world.push("n", &tree(&["three"]));
        world.forget(dead);
        world.forget(thin);
        let before = world.objects("packs").len();
        faulty.arm(Fault { op: Some(Op::Put), after: 0, kind: FaultKind::Refuse(refusal) });

        let report = world.gc(Delays::Skip);

        assert_eq!(faulty.fired().len(), 1);
        assert_eq!((report.problems.len(), report.repacked.count), (1, 0), "{report:?}");
        assert!(report.deleted.count > 0 && world.objects("packs").len() < before, "{report:?}");
        assert_eq!(world.gc(Delays::Skip).problems, [""; 0]);
        assert_eq!(world.read(kept).unwrap(), tree(&["three"]));
        assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
    }
}

/// Three snapshots, oldest first; the manifest of the first is lost.
fn with_a_lost_manifest() -> (World, [SnapshotId; 3]) {
    let world = World::new();
    let snapshots = ["a", "b", "c"].map(|text| {
        world.clock.advance(Duration::from_secs(1));
        world.clock.advance(Duration::from_secs(1));
        world.push("n", &tree(&[text]))
    });
    let found = snapshot::get(&world.store, snapshots[0]).unwrap();
    let manifest = manifest_object(&found.manifests[0].id);
    world.wait(world.site.delete(&manifest)).unwrap();
    (world, snapshots)
}

/// G9: a snapshot whose manifest is lost can be forgotten; what that frees is not known.
#[test]
fn a_snapshot_whose_manifest_is_lost_is_forgotten_by_name() {
    let (world, [lost, ..]) = with_a_lost_manifest();
    let request = ForgetRequest { mode: RunMode::Apply, snapshots: vec![lost], ..ForgetRequest::default() };

    let report = world.wait(operation::run_unheard(&world.server, request)).unwrap();

    assert_eq!((report.snapshots[0].frees_bytes, report.frees_bytes), (None, None));
    let marks = snapshot::marks(&world.store).unwrap();
    assert!(marks.get(&lost).is_some_and(|mark| mark.tombstone.is_some()));
}

/// G9: one lost manifest keeps no policy from being applied.
#[test]
fn a_policy_is_applied_beside_a_lost_manifest() {
    let (world, [lost, old, new]) = with_a_lost_manifest();
    let policy = RetentionPolicy { keep_last: Some(1), minimum: Some(1), ..RetentionPolicy::default() };
    let request = ForgetRequest { mode: RunMode::Apply, policy: Some(policy), ..ForgetRequest::default() };

    let report = world.wait(operation::run_unheard(&world.server, request)).unwrap();

    let frees = |id| {
        let line = report.snapshots.iter().find(|line| line.id == id).unwrap();
        (line.verdict, line.frees_bytes.is_some())
    };
    assert_eq!(frees(lost), (Verdict::Forget, false));
    assert_eq!(frees(old), (Verdict::Forget, true));
    assert_eq!(frees(new).0, Verdict::Keep);
}

/// G9: what a page in no use referred to is not known any more. That tells less of what goes, and stops nothing.
#[test]
fn a_snapshot_is_forgotten_beside_a_lost_pack_of_pages() {
    let world = World::new();
    let holder = world.begin("holder");
    let [gone, old, _] = ["a", "b", "c"].map(|text| world.push("n", &tree(&[text])));
    let page = world.id_of(BlobKind::Page, &world.page(&tree(&["a"])));
    world.forget(gone);
    let report = world.gc(Delays::Skip);
    assert_eq!((report.purged, report.pinned[0].session), (vec![gone], holder.id));
    let pack = world.store.pack_row(row(&world, page).unwrap().pack).unwrap();
    world.wait(world.site.delete(&pack_object(&pack.id))).unwrap();
    let request = ForgetRequest { mode: RunMode::Apply, snapshots: vec![old], ..ForgetRequest::default() };

    let report = world.wait(operation::run_unheard(&world.server, request)).unwrap();

    assert!(report.frees_bytes.is_some_and(|bytes| bytes > 0), "{report:?}");
    let marks = snapshot::marks(&world.store).unwrap();
    assert!(marks.get(&old).is_some_and(|mark| mark.tombstone.is_some()));
}

/// G8, G9: a snapshot whose manifest is lost is purged. What it alone needed stays counted until an audit.
#[test]
fn a_snapshot_whose_manifest_is_lost_is_purged_and_an_audit_finds_what_it_held() {
    let (world, [lost, old, new]) = with_a_lost_manifest();
    world.forget(lost);

    let report = world.gc(Delays::Skip);

    assert_eq!((report.purged, report.chunks.count), (vec![lost], 0));
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].contains(&lost.to_string()), "{:?}", report.problems);
    let mended = world
        .wait(operation::run_unheard(&world.server, format_spec::wire::AuditRequest { repair: Repair::Yes }))
        .unwrap();
    assert_eq!((mended.found, mended.mended), (1, 1), "{:#?}", mended.findings);
    let report = world.gc(Delays::Skip);
    assert_eq!((report.pages.count, report.chunks.count), (1, 1));
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
    assert_eq!(world.read(old).unwrap(), tree(&["b"]));
    assert_eq!(world.read(new).unwrap(), tree(&["c"]));
}

fn check(world: &World) -> FindingCounts {
    let checks =
        operation::run_unheard(&world.server, format_spec::wire::VerifyRequest::from(VerifyLevel::Read));
    world.wait(checks).unwrap().counts
}

fn knows_of_objects(world: &World) -> bool {
    alarm::is_up(&world.store, AlarmCode::DamagedObjects).unwrap()
}

fn forget(world: &World, request: ForgetRequest) -> Result<ForgetReport, ServerError> {
    world.wait(operation::run_unheard(&world.server, ForgetRequest { mode: RunMode::Apply, ..request }))
}

/// Two snapshots, oldest first; the manifest of the second is lost.
fn with_a_newest_that_is_lost() -> (World, [SnapshotId; 2]) {
    let world = World::new();
    let snapshots = ["good", "lost"].map(|text| {
        world.clock.advance(Duration::from_secs(1));
        world.push("n", &tree(&[text]))
    });
    let found = snapshot::get(&world.store, snapshots[1]).unwrap();
    world.wait(world.site.delete(&manifest_object(&found.manifests[0].id))).unwrap();
    (world, snapshots)
}

/// G9: a snapshot that is known to be lost takes no restorable one's place.
#[test]
fn a_policy_keeps_the_newest_that_restores_beside_a_damaged_one() {
    for is_known in [true, false] {
        let (world, [good, lost]) = with_a_newest_that_is_lost();
        if is_known {
            assert_eq!(check(&world).missing, 1);
        }
        assert_eq!(knows_of_objects(&world), is_known);
        let policy = RetentionPolicy { keep_last: Some(1), minimum: Some(1), ..RetentionPolicy::default() };

        let report =
            forget(&world, ForgetRequest { policy: Some(policy), ..ForgetRequest::default() }).unwrap();
        world.gc(Delays::Skip);

        let line = |id| report.snapshots.iter().find(|line| line.id == id).unwrap();
        assert_eq!(line(lost).verdict, Verdict::Keep);
        assert_eq!(line(lost).reasons.concat().contains("damaged"), is_known, "{report:?}");
        // No check had run: its memory serves this purpose.
        assert_eq!(world.read(good).is_ok(), is_known);
    }
}

/// G9: only its id lets a damaged snapshot go, and never the last one that restores.
#[test]
fn a_damaged_snapshot_goes_by_name_and_the_good_one_does_not() {
    let (world, [good, lost]) = with_a_newest_that_is_lost();
    check(&world);
    let named = |id| ForgetRequest { snapshots: vec![id], ..ForgetRequest::default() };

    let refused = forget(&world, named(good)).unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "last_complete", .. }), "{refused:?}");
    forget(&world, named(lost)).unwrap();
    assert_eq!(world.gc(Delays::Skip).purged, [lost]);

    assert!(!knows_of_objects(&world), "nothing needs it");
    assert_eq!(world.read(good).unwrap(), tree(&["good"]));
    let refused = forget(&world, named(good)).unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "last_complete", .. }), "{refused:?}");
}

/// G9: where nothing else is left, what is left of a damaged snapshot is the last there is.
#[test]
fn the_last_snapshot_is_not_let_go_because_it_is_damaged() {
    let (world, [good, lost]) = with_a_newest_that_is_lost();
    world.forget(good);
    world.gc(Delays::Skip);
    check(&world);

    let named = ForgetRequest { snapshots: vec![lost], ..ForgetRequest::default() };
    let refused = forget(&world, named).unwrap_err();

    assert!(matches!(refused, ServerError::Refused { code: "last_complete", .. }), "{refused:?}");
}

/// G9: nor does one whose pages are lost, until the next push has brought them back.
#[test]
fn a_policy_keeps_the_newest_that_restores_beside_one_with_lost_pages() {
    for is_known in [true, false] {
        let world = World::new();
        let [good, lost] = ["good", "lost"].map(|text| {
            world.clock.advance(Duration::from_secs(1));
            world.push("n", &tree(&[text]))
        });
        let page = world.id_of(BlobKind::Page, &world.page(&tree(&["lost"])));
        let pack = world.store.pack_row(row(&world, page).unwrap().pack).unwrap();
        world.wait(world.site.delete(&pack_object(&pack.id))).unwrap();
        if is_known {
            check(&world);
        }
        let policy = RetentionPolicy { keep_last: Some(1), minimum: Some(1), ..RetentionPolicy::default() };
        let request = ForgetRequest { policy: Some(policy), ..ForgetRequest::default() };

        forget(&world, request.clone()).unwrap();
        world.gc(Delays::Skip);

        assert_eq!((world.read(good).is_ok(), world.read(lost).is_ok()), (is_known, false));
        if is_known {
            world.clock.advance(Duration::from_secs(1));
            let newest = world.push("n", &tree(&["lost"]));
            let report = forget(&world, request).unwrap();
            let going = report.snapshots.iter().filter(|line| line.verdict == Verdict::Forget);
            assert_eq!(going.map(|line| line.id).collect::<Vec<_>>(), [good, lost]);
            assert_eq!(world.read(newest).unwrap(), tree(&["lost"]));
        }
    }
}
