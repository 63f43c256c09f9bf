use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::wire::AuditFinding;
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::*;
use crate::defects::blobs::{self, Place};
use crate::index::{Batch, Table};
use crate::lease::{TEST, Upkeep};
use crate::rows::{Epoch, IdleKey, PackRow};
use crate::site::Op;
use crate::site::hooked::HookedSite;
use crate::site::layout::manifest_object;
use crate::world::World;

async fn audit(world: &World, repair: Repair) -> AuditReport {
    run(&world.server, repair, Arc::new(|_, _| {})).await.unwrap()
}

fn alarms(world: &World) -> usize {
    crate::health::alarms(&world.store).unwrap().len()
}

/// Two snapshots that share chunks.
async fn world() -> World {
    let world = World::new();
    world.push("n", &["alpha", "beta"]).await;
    world.push("m", &["beta", "gamma"]).await;
    world
}

fn pages(world: &World) -> Vec<ChunkId> {
    let rows = world.rows(Table::Chunk).into_iter();
    let ids = rows.map(|(key, _)| ChunkId::from_bytes(key.try_into().unwrap()));
    ids.filter(|id| world.row(*id).unwrap().kind == BlobKind::Page).collect()
}

/// X8: what pushes count is what manifests and pages name.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_nothing_wrong_with_what_pushes_counted() {
    let world = world().await;

    let report = audit(&world, Repair::No).await;

    assert_eq!(report.findings, []);
    assert_eq!((report.manifests, report.packs, report.rows, report.references), (2, 4, 5, 6));
    assert_eq!((report.found, report.changed, alarms(&world)), (0, 0, 0));
    assert!(!world.scratch().join("tmp").exists(), "a small sort needs no file");
}

/// X8: a count that is too high, or too low, of a chunk or a page, is found and mended.
#[tokio::test(flavor = "multi_thread")]
async fn counts_that_differ_are_found_raise_an_alarm_and_are_mended() {
    let world = world().await;
    let (low, high, page) = (world.chunk("beta"), world.chunk("gamma"), pages(&world)[0]);
    world.tamper(low, |row| row.references = 0);
    world.tamper(high, |row| row.references = 7);
    world.tamper(page, |row| row.references = 2);

    let told = audit(&world, Repair::No).await;
    let still_told = audit(&world, Repair::No).await;

    assert_eq!((told.found, told.mended, told.is_sound(), alarms(&world)), (3, 0, false, 1));
    assert_eq!(told.findings, still_told.findings);
    let about = |id: ChunkId| told.findings.iter().find(|found| found.object == id.to_string()).unwrap();
    assert_eq!(about(low).problem, "its count is 0, but 2 pages refer to it");
    assert_eq!(about(high).problem, "its count is 7, but 1 pages refer to it");
    assert_eq!(about(page).problem, "its count is 2, but 1 manifests name it");

    let mended = audit(&world, Repair::Yes).await;
    assert_eq!((mended.found, mended.mended, mended.is_sound(), alarms(&world)), (3, 3, true, 0));
    let references = [low, high, page].map(|id| world.row(id).unwrap().references);
    assert_eq!(references, [2, 1, 1]);
    assert_eq!(audit(&world, Repair::No).await.findings, []);
}

/// X8: what nothing names counts nothing, and the collector's queue leads to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_is_mended_to_nothing_is_idle_since_now_and_queued() {
    let world = world().await;
    let (id, alone) = (world.chunk("delta"), ChunkId::from_bytes([9; 32]));
    let some = world.row(world.chunk("alpha")).unwrap();
    let in_use = crate::rows::ChunkRow { references: 3, ..some };
    let idle = crate::rows::ChunkRow { references: 0, idle_since: Epoch(4), ..some };
    world.put(Table::Chunk, *id.as_bytes(), in_use.encode());
    world.put(Table::Chunk, *alone.as_bytes(), idle.encode());
    world.put(Table::Meta, Epoch::KEY, Epoch(6).encode());

    let report = audit(&world, Repair::Yes).await;

    // The two rows also make a pack and the totals differ.
    assert_eq!((report.found, report.mended), (4, 4), "{:#?}", report.findings);
    let row = world.row(id).unwrap();
    assert_eq!((row.references, row.idle_since), (0, Epoch(6)));
    let item = |since, id| IdleKey::Row { kind: BlobKind::Chunk, since: Epoch(since), id }.encode();
    let queue = world.rows(Table::Idle).into_iter().map(|(key, _)| key);
    let rows = queue.filter(|key| matches!(IdleKey::decode(key), Some(IdleKey::Row { .. })));
    assert_eq!(rows.collect::<Vec<_>>(), [item(4, alone), item(6, id)]);
    assert_eq!(audit(&world, Repair::No).await.findings, []);
}

/// A row in no use to which an item of its pack leads is not lost; one of another epoch does not lead to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_of_the_pack_and_of_the_very_epoch_leads_to_a_row() {
    let world = World::new();
    world.push("n", &["alpha"]).await;
    let id = world.chunk("alpha");
    let page = pages(&world)[0];
    world.tamper(id, |row| row.idle_since = Epoch(3));
    let row = world.row(id).unwrap();
    let idle_row = crate::rows::ChunkRow { references: 0, ..row };
    let other = ChunkId::from_bytes([1; 32]);
    world.put(Table::Chunk, *other.as_bytes(), idle_row.encode());
    let item = |since| IdleKey::Pack { kind: BlobKind::Chunk, since: Epoch(since), number: row.pack };

    world.put(Table::Idle, item(2).encode(), Vec::new());
    let without = audit(&world, Repair::No).await;
    world.put(Table::Idle, item(3).encode(), Vec::new());
    let with = audit(&world, Repair::No).await;

    let leaked = |report: &AuditReport| report.findings.iter().any(|found| found.problem.contains("queue"));
    assert!(leaked(&without) && !leaked(&with), "{:#?}", with.findings);
    assert!(world.row(page).is_some());
}

/// X7: rows that name what is not there are found, and left open: no count makes them right.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_name_no_pack_or_no_place_and_ids_without_rows_are_found() {
    let world = world().await;
    let (lost, page) = (world.chunk("alpha"), pages(&world)[0]);
    world.tamper(lost, |row| row.pack = crate::rows::PackNumber(99));
    world.tamper(page, |row| row.offset += 1);
    let mut batch = Batch::new();
    batch.delete(Table::Chunk, *world.chunk("gamma").as_bytes());
    world.index().commit(batch).unwrap();

    let report = audit(&world, Repair::Yes).await;

    let open = |text: &str| {
        let is_open = |found: &&AuditFinding| found.state == AuditState::Open && found.problem.contains(text);
        report.findings.iter().filter(is_open).map(|found| found.object.clone()).collect::<Vec<_>>()
    };
    assert_eq!(open("pack number 99"), [lost.to_string()]);
    assert_eq!(open("not at its place"), [page.to_string()]);
    let mut without_row = open("has no row");
    without_row.retain(|object| *object != lost.to_string());
    assert_eq!(without_row, [world.chunk("gamma").to_string()]);
    assert!(!report.is_sound());
    assert_eq!(alarms(&world), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_packs_and_totals_say_is_compared_and_mended() {
    let world = world().await;
    let (number, row) = world.packs().remove(0);
    let (right, totals) = (row.live, world.store.totals().unwrap());
    let live = Live { blobs: right.blobs + 1, ..right };
    world.put(Table::Pack, number.key(), PackRow { live, ..row }.encode());
    let wrong = Totals { next_pack: 2, chunks: 99, stored_bytes: 5, packs: 1 };
    world.put(Table::Meta, Totals::KEY, wrong.encode());

    let first = audit(&world, Repair::Yes).await;
    // Only now it is known which packs are old.
    let second = audit(&world, Repair::Yes).await;

    assert!(first.is_sound() && second.is_sound(), "{first:#?} {second:#?}");
    assert_eq!(world.store.totals().unwrap(), totals);
    assert_eq!(world.packs()[0].1.live, right);
    assert_eq!(audit(&world, Repair::No).await.findings, []);
}

/// X8: a push that comes while the counts are compared is exempt, also where it counts up what was there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_push_changes_meanwhile_is_exempt() {
    let world = Arc::new(world().await);
    let wrong = world.chunk("alpha");
    world.tamper(wrong, |row| row.references = 5);
    let (pusher, is_pushed) = (Arc::clone(&world), AtomicBool::new(false));
    let push = move |_, _| {
        if !is_pushed.swap(true, Ordering::SeqCst) {
            Handle::current().block_on(pusher.push("k", &["beta", "delta"]));
        }
    };

    let report = run(&world.server, Repair::Yes, Arc::new(push)).await.unwrap();

    assert_eq!((report.found, report.mended), (1, 1), "{:#?}", report.findings);
    assert_eq!(report.changed, 3, "a new chunk, a new page, and a chunk with one more reference");
    let counts = ["alpha", "beta", "delta"].map(|chunk| world.row(world.chunk(chunk)).unwrap().references);
    assert_eq!(counts, [1, 3, 1]);
    assert_eq!(audit(&world, Repair::No).await.findings, []);
}

/// The twin: without the note, the push would be taken for a difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_noted_is_taken_for_a_difference() {
    let world = Arc::new(world().await);
    let (changer, is_done) = (Arc::clone(&world), AtomicBool::new(false));
    let change = move |_, _| {
        if !is_done.swap(true, Ordering::SeqCst) {
            changer.tamper(changer.chunk("beta"), |row| row.references += 1);
        }
    };

    let report = run(&world.server, Repair::No, Arc::new(change)).await.unwrap();

    assert_eq!(report.found, 1);
}

/// A site, and a world over it.
fn hooked() -> (Arc<HookedSite>, Arc<World>) {
    let site = HookedSite::new();
    let world = World::over(Arc::<HookedSite>::clone(&site));
    (site, Arc::new(world))
}

fn references(world: &World, chunks: &[&str]) -> Vec<u64> {
    chunks.iter().map(|chunk| world.row(world.chunk(chunk)).unwrap().references).collect()
}

/// X8, G8: a page that is healed moves to a pack that the audit does not look into. What it refers to is
/// exempt as well, and not found to count too much.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_refers_to_that_is_healed_meanwhile_is_not_counted_down() {
    let (site, world) = hooked();
    world.push("n", &["alpha", "beta"]).await;
    let page = pages(&world)[0];
    let at = Place::of(&world.row(page).unwrap());
    blobs::mark(&world.store, &[(page, at, "rotten".to_owned())]).unwrap();
    let pusher = Arc::clone(&world);
    site.before(Op::GetRanges, "packs/", async move {
        pusher.push("n", &["alpha", "beta"]).await;
    });

    let report = audit(&world, Repair::Yes).await;

    assert!(!site.is_waiting());
    assert_ne!(Place::of(&world.row(page).unwrap()), at, "the push has healed it");
    assert_eq!(references(&world, &["alpha", "beta"]), [1, 1], "{:#?}", report.findings);
    assert_eq!(audit(&world, Repair::No).await.findings, []);
}

/// G8: a wrong count that cannot be mended now, as its row changes, keeps the collector stopped.
#[tokio::test(flavor = "multi_thread")]
async fn the_alarm_stays_while_a_wrong_count_is_exempt() {
    let (site, world) = hooked();
    world.push("n", &["alpha", "beta"]).await;
    world.tamper(world.chunk("alpha"), |row| row.references = 0);
    audit(&world, Repair::No).await;
    let pusher = Arc::clone(&world);
    site.before(Op::GetRanges, "packs/", async move {
        pusher.push("m", &["alpha", "gamma"]).await;
    });

    audit(&world, Repair::Yes).await;

    assert!(!site.is_waiting());
    assert_eq!((references(&world, &["alpha"]), alarms(&world)), (vec![1], 1), "two pages refer to it");
    audit(&world, Repair::Yes).await;
    assert_eq!((references(&world, &["alpha"]), alarms(&world)), (vec![2], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_beside_more_changes_than_it_remembers_gives_up_and_the_next_one_does_not() {
    let world = Arc::new(world().await);
    world.tamper(world.chunk("alpha"), |row| row.references = 5);
    let (noter, is_done) = (Arc::clone(&world), AtomicBool::new(false));
    let note = move |_, _| {
        if !is_done.swap(true, Ordering::SeqCst) {
            let id = |n: u64| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&n.to_le_bytes());
                ChunkId::from_bytes(id)
            };
            let ids: Vec<ChunkId> = (0..1_000_001).map(id).collect();
            noter.store.listener.note(&ids);
        }
    };

    let busy = run(&world.server, Repair::Yes, Arc::new(note)).await.unwrap_err();

    assert!(matches!(busy, ServerError::Busy { .. }), "{busy}");
    assert_eq!(world.row(world.chunk("alpha")).unwrap().references, 5, "nothing was mended on a guess");
    assert_eq!(audit(&world, Repair::Yes).await.mended, 1);
}

/// An unreadable manifest may name any chunk: no count is lowered, but one that is too low is raised.
#[tokio::test(flavor = "multi_thread")]
async fn counts_are_only_raised_while_something_cannot_be_read() {
    let world = world().await;
    let low = world.chunk("beta");
    world.tamper(low, |row| row.references = 1);
    let manifest = world.rows(Table::Manifest).remove(0).0;
    let manifest = format_spec::ManifestId::from_bytes(manifest.try_into().unwrap());
    world.site().delete(&manifest_object(&manifest)).await.unwrap();

    let report = audit(&world, Repair::Yes).await;

    assert_eq!(world.row(low).unwrap().references, 2);
    assert_eq!((report.unexplained, report.found, report.mended), (1, 2, 1), "{:#?}", report.findings);
    assert!(pages(&world).iter().all(|page| world.row(*page).unwrap().references == 1));
    assert!(report.findings.iter().any(|found| found.object == manifest.to_string()));
    let up = crate::health::alarms(&world.store).unwrap();
    assert_eq!(up.iter().map(|alarm| alarm.code.as_str()).collect::<Vec<_>>(), ["damaged_objects"]);
}

/// The same holds for a pack of pages whose directory is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_pack_of_pages_lowers_nothing() {
    let world = world().await;
    let is_pages = |(_, row): &(_, PackRow)| row.kind == BlobKind::Page;
    let (_, pack) = world.packs().into_iter().find(is_pages).unwrap();
    world.site().delete(&crate::site::layout::pack_object(&pack.id)).await.unwrap();

    let report = audit(&world, Repair::Yes).await;

    assert_eq!((report.found, report.mended, report.unexplained), (1, 0, 2), "{:#?}", report.findings);
    assert_eq!(report.findings[0].object, pack.id.to_string());
    assert_eq!(["alpha", "beta"].map(|chunk| world.row(world.chunk(chunk)).unwrap().references), [1, 2]);
}

/// Audits and other upkeep exclude each other.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_upkeep_runs_beside_an_audit() {
    let world = Arc::new(world().await);
    let (looker, was_free) = (Arc::clone(&world), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&was_free);
    let look = move |_, _| {
        seen.fetch_or(looker.server.leases.try_acquire::<Upkeep>(TEST).is_ok(), Ordering::SeqCst);
    };

    run(&world.server, Repair::No, Arc::new(look)).await.unwrap();

    assert!(!was_free.load(Ordering::SeqCst));
    assert!(world.server.leases.try_acquire::<Upkeep>(TEST).is_ok());
}

/// Audits that waited would each take a thread from those that the one before them needs to end.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_beside_other_upkeep_is_refused_at_once_and_takes_no_thread() {
    let world = world().await;
    let _lease = world.server.leases.try_acquire::<Upkeep>(TEST).unwrap();

    let answer = run(&world.server, Repair::No, Arc::new(|_, _| {})).now_or_never();

    let refused = answer.expect("it does not wait").unwrap_err();
    assert!(matches!(refused, ServerError::Busy { .. }), "{refused:?}");
}
