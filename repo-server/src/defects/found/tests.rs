use std::ops::Range;
use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::snapshot::Snapshot;
use format_spec::wire::{
    Delays, ForgetRequest, RetentionPolicy, RunMode, Verdict, VerifyLevel, VerifyReport,
};

use super::*;
use crate::defects::{due, walked};
use crate::operation;
use crate::rows::{ChunkRow, PackRow};
use crate::session;
use crate::site::ObjectName;
use crate::site::layout::{manifest_object, pack_object};
use crate::site::worn::WornSite;
use crate::snapshot;
use crate::testing::{Tree, World, tree};
use crate::verify::name_the_hurt;

const FILES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A repository with a snapshot of three files, on a disk that can wear out.
fn pushed() -> (Arc<WornSite>, World, format_spec::SnapshotId, Tree) {
    let site = WornSite::new();
    let world = World::on(Arc::<WornSite>::clone(&site));
    let files = tree(&FILES);
    let snapshot = world.push("n", &files);
    (site, world, snapshot, files)
}

fn codes(world: &World) -> Vec<String> {
    crate::health::alarms(&world.store).unwrap().into_iter().map(|alarm| alarm.code).collect()
}

fn row(world: &World, id: ChunkId) -> ChunkRow {
    world.store.chunk_rows([&id]).unwrap().remove(0).unwrap()
}

fn chunk(world: &World, name: &str) -> ChunkId {
    world.id_of(BlobKind::Chunk, name.as_bytes())
}

/// Which of the three files' chunks are in quarantine.
fn in_quarantine(world: &World) -> Vec<&'static str> {
    let is_damaged = |name: &&str| row(world, chunk(world, name)).health == Health::Damaged;
    FILES.into_iter().filter(is_damaged).collect()
}

/// The pack that a chunk lies in, and where.
fn place(world: &World, name: &str) -> (ObjectName, Range<u64>) {
    let row = row(world, chunk(world, name));
    (pack_object(&world.store.pack_row(row.pack).unwrap().id), row.range())
}

/// Changes the bytes of an object.
fn change(world: &World, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = world.wait(world.site.get(name)).unwrap().to_vec();
    change(&mut bytes);
    world.wait(world.site.delete(name)).unwrap();
    world.wait(world.site.put_new(name, bytes.into())).unwrap();
}

/// Flips a bit in the blob of a chunk.
fn flip(world: &World, name: &str) {
    let (pack, range) = place(world, name);
    change(world, &pack, |bytes| bytes[usize::try_from(range.start).unwrap() + 3] ^= 1);
}

fn is_shown_damaged(world: &World, id: format_spec::SnapshotId) -> bool {
    let found: Snapshot = snapshot::get(&world.store, id).unwrap();
    objects::all(&world.store).unwrap().against(&found).is_some()
}

fn verify(world: &World, level: VerifyLevel) -> VerifyReport {
    world.wait(operation::run_unheard(&world.server, format_spec::wire::VerifyRequest::from(level))).unwrap()
}

/// G10: a restore that meets a damaged blob puts it in quarantine, once, and the next push heals it.
#[test]
fn what_a_restore_finds_damaged_is_healed_by_the_next_push() {
    let (_, world, snapshot, files) = pushed();
    flip(&world, "beta");

    world.read(snapshot).unwrap_err();

    assert_eq!((in_quarantine(&world), codes(&world)), (vec!["beta"], vec!["damaged_blobs".to_owned()]));
    let commits = world.index.commits();
    world.read(snapshot).unwrap_err();
    assert_eq!(world.index.commits(), commits, "the second request writes nothing");
    world.push("n", &files);
    assert_eq!((in_quarantine(&world), codes(&world)), (vec![], vec![]));
    assert_eq!(world.read(snapshot).unwrap(), files);
}

/// The twin: a restore of sound bytes writes nothing.
#[test]
fn a_restore_of_what_is_sound_writes_nothing() {
    let (_, world, snapshot, files) = pushed();
    let commits = world.index.commits();

    assert_eq!(world.read(snapshot).unwrap(), files);

    assert_eq!((world.index.commits(), codes(&world)), (commits, vec![]));
}

/// G9: a policy does not count a snapshot that needs what a restore found damaged, with no check in between, and also
/// after a crash.
#[test]
fn a_policy_does_not_count_what_a_restore_found_damaged() {
    let (_, mut world, old, _) = pushed();
    let new = world.push("n", &tree(&["alpha", "beta", "gamma", "delta"]));
    flip(&world, "delta");
    world.read(new).unwrap_err();
    assert!(!is_shown_damaged(&world, new), "nobody has looked which snapshots need it");
    world.crash();
    let policy = Some(RetentionPolicy { minimum: Some(1), keep_last: Some(1), ..RetentionPolicy::default() });
    let request = ForgetRequest { mode: RunMode::Plan, policy, ..ForgetRequest::default() };

    let plan = world.wait(operation::run_unheard(&world.server, request)).unwrap();

    assert!(is_shown_damaged(&world, new) && !is_shown_damaged(&world, old));
    assert!(plan.snapshots.iter().all(|line| line.verdict == Verdict::Keep), "{plan:?}");
    assert_eq!(due(&world.store).unwrap(), None);
}

/// G9: more that becomes damaged while snapshots are looked through leaves another walk due.
#[test]
fn a_walk_is_over_only_for_what_was_damaged_when_it_began() {
    let (_, world, snapshot, _) = pushed();
    flip(&world, "beta");
    world.read(snapshot).unwrap_err();
    let begun = due(&world.store).unwrap();
    flip(&world, "alpha");
    world.read(snapshot).unwrap_err();

    walked(&world.store, begun).unwrap();

    assert!(begun.is_some() && due(&world.store).unwrap() > begun);
    world.wait(world.server.waiting(name_the_hurt)).unwrap();
    assert_eq!(due(&world.store).unwrap(), None);
}

/// G10: a restore that finds a pack missing puts all of it in quarantine, also what it did not ask for.
#[test]
fn a_missing_pack_is_in_quarantine_as_a_whole() {
    let (_, world, snapshot, files) = pushed();
    let (pack, _) = place(&world, "alpha");
    world.wait(world.site.delete(&pack)).unwrap();

    world.read(snapshot).unwrap_err();

    assert_eq!(in_quarantine(&world), FILES);
    world.push("n", &files);
    assert_eq!(world.read(snapshot).unwrap(), files);
    assert_eq!(codes(&world), Vec::<String>::new());
}

/// P2: a manifest that a restore finds damaged is remembered, once.
#[test]
fn a_damaged_manifest_is_remembered_by_the_restore_that_meets_it() {
    let (_, world, id, _) = pushed();
    let found = snapshot::get(&world.store, id).unwrap();
    let name = manifest_object(&found.manifests[0].id);
    change(&world, &name, |bytes| bytes[40] ^= 1);

    world.read(id).unwrap_err();

    assert!(is_shown_damaged(&world, id));
    assert_eq!(codes(&world), ["damaged_objects"]);
    let commits = world.index.commits();
    world.read(id).unwrap_err();
    assert_eq!(world.index.commits(), commits, "the second request writes nothing");
}

/// G10: the collector puts in quarantine what it finds damaged on its way, and copies what is sound beside it.
#[test]
fn the_collector_remembers_damage_and_goes_on_beside_it() {
    let (_, world, snapshot, _) = pushed();
    let thin = world.push("m", &tree(&["delta", "epsilon", "zeta", "eta", "theta"]));
    world.forget(thin);
    let number = row(&world, chunk(&world, "beta")).pack;
    packs::note(&world.store, number).unwrap();
    flip(&world, "beta");

    let report = world.gc(Delays::Skip);

    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(in_quarantine(&world), ["beta"]);
    assert!(codes(&world).contains(&"damaged_blobs".to_owned()));
    assert_ne!(row(&world, chunk(&world, "alpha")).pack, number, "what is sound has left");
    world.read(snapshot).unwrap_err();
    world.push("n", &tree(&FILES));
    assert_eq!(world.read(snapshot).unwrap(), tree(&FILES));
}

/// G10: around a place that the disk does not give, everything else is served; the blob there is damaged.
#[test]
fn a_bad_sector_hurts_one_blob_in_a_restore() {
    let (site, world, snapshot, files) = pushed();
    let (pack, range) = place(&world, "beta");
    site.wear_out(pack.as_str(), range.start..range.start + 1);

    let error = world.read(snapshot).unwrap_err();

    assert_eq!(error.class(), format_spec::ErrorClass::Integrity, "{error}");
    assert_eq!(in_quarantine(&world), ["beta"]);
    world.push("n", &files);
    assert_eq!(world.read(snapshot).unwrap(), files);
}

/// G10: a check names the file that a bad sector hurts, and no other, as damaged.
#[test]
fn a_bad_sector_hurts_one_blob_in_a_check() {
    let site = WornSite::new();
    let world = World::on(Arc::<WornSite>::clone(&site));
    let contents: Vec<Vec<u8>> = (0..4_u8).map(|n| vec![n; 20_000]).collect();
    let files: Tree =
        contents.iter().enumerate().map(|(n, content)| (n.to_string(), vec![content.clone()])).collect();
    let snapshot = world.push("n", &files);
    let ids: Vec<ChunkId> = contents.iter().map(|content| world.id_of(BlobKind::Chunk, content)).collect();
    let hurt = row(&world, ids[2]);
    let pack = pack_object(&world.store.pack_row(hurt.pack).unwrap().id);
    let middle = u64::from(hurt.offset) + 10_000;
    site.wear_out(pack.as_str(), middle..middle + 1);

    let report = verify(&world, VerifyLevel::Read);

    assert_eq!((report.counts.unreadable, report.quarantined), (0, 1), "{report:?}");
    let named: std::collections::BTreeSet<&str> =
        report.findings.iter().flat_map(|finding| &finding.files).map(|file| file.path.as_str()).collect();
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["data/2"], "{report:?}");
    assert!(is_shown_damaged(&world, snapshot));
    world.push("n", &files);
    assert_eq!(world.read(snapshot).unwrap(), files);
}

/// G10: a pack that cannot be read at all is damaged, if the rest of the site is there.
#[test]
fn a_pack_that_gives_nothing_is_damaged() {
    let (site, world, snapshot, files) = pushed();
    let (pack, _) = place(&world, "beta");
    site.wear_out(pack.as_str(), 0..u64::MAX);

    let report = verify(&world, VerifyLevel::Read);

    assert_eq!((report.counts.unreadable, report.quarantined), (0, 3), "{report:?}");
    world.push("n", &files);
    assert_eq!(world.read(snapshot).unwrap(), files);
}

/// G10: a site that gives nothing at all proves nothing against what is on it, however its disk words that.
#[test]
fn a_site_that_is_away_proves_nothing() {
    type Away = fn(&WornSite);
    let ways: [Away; 3] = [
        |site| site.wear_out("", 0..u64::MAX),
        |site| site.wear_out("packs", 0..u64::MAX),
        |site| site.set_bare(true),
    ];
    for away in ways {
        let (site, world, snapshot, files) = pushed();
        away(&site);

        world.read(snapshot).unwrap_err();
        verify(&world, VerifyLevel::Read);
        let _ = world.gc_as(format_spec::wire::GcRequest { mode: RunMode::Apply, ..Default::default() });

        assert_eq!(in_quarantine(&world), Vec::<&str>::new());
        let is_bare = world.wait(world.site.len(&crate::site::layout::descriptor_object())).is_err();
        assert_eq!(codes(&world).contains(&"site_incomplete".to_owned()), is_bare, "{:?}", codes(&world));
        assert!(!codes(&world).iter().any(|code| code.starts_with("damaged")), "{:?}", codes(&world));
        site.mend();
        site.set_bare(false);
        assert_eq!(world.read(snapshot).unwrap(), files);
    }
}

/// A transient failure of one read is no damage: the second attempt decides.
#[test]
fn a_site_that_does_not_answer_once_hurts_nothing() {
    use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
    for refusal in [Refusal::Unreadable, Refusal::Unavailable] {
        let site = Arc::new(FaultySite::new(Arc::new(crate::site::StoreSite::memory())));
        let world = World::on(Arc::<FaultySite>::clone(&site));
        let snapshot = world.push("n", &tree(&FILES));
        for after in 0..4 {
            site.arm(Fault { op: Some(crate::site::Op::GetRanges), after, kind: FaultKind::Refuse(refusal) });
            let _ = world.read(snapshot);
            site.heal();
        }
        assert_eq!((in_quarantine(&world), codes(&world)), (vec![], vec![]));
    }
}

/// P8: on a full disk damage is served as such all the same, and is written down once there is room.
#[test]
fn damage_that_could_not_be_written_down_is_when_it_is_met_again() {
    let (_, mut world, snapshot, _) = pushed();
    flip(&world, "beta");
    world.index.fail_after(0);
    let error = world.read(snapshot).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert_eq!((in_quarantine(&world), codes(&world)), (vec![], vec![]));
    world.index.heal();
    world.crash();

    world.read(snapshot).unwrap_err();

    assert_eq!(in_quarantine(&world), ["beta"]);
}

/// A push is refused nothing by damage, and a session is granted as always.
#[test]
fn pushes_go_on_beside_damage() {
    let (_, world, snapshot, _) = pushed();
    flip(&world, "beta");
    world.read(snapshot).unwrap_err();
    let pusher = session::Pusher { cluster: "c".parse().unwrap(), node: "n".parse().unwrap() };
    session::open(&world.server.sessions, pusher, None).unwrap();
}

/// The packs of pages are the other kind: a damaged page is in quarantine as well.
#[test]
fn a_damaged_page_is_in_quarantine_by_the_restore_that_meets_it() {
    let (_, world, snapshot, files) = pushed();
    let page = world.id_of(BlobKind::Page, &world.page(&files));
    let at = row(&world, page);
    let pack: PackRow = (*world.store.pack_row(at.pack).unwrap()).clone();
    change(&world, &pack_object(&pack.id), |bytes| bytes[usize::try_from(at.offset).unwrap() + 3] ^= 1);

    world.read(snapshot).unwrap_err();

    assert_eq!(row(&world, page).health, Health::Damaged);
    world.push("n", &files);
    assert_eq!(world.read(snapshot).unwrap(), files);
}
