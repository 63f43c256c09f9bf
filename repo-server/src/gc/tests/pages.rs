//! Where a run finds what the pages refer to that go, and what that costs.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::key::BlobKind;
use format_spec::wire::{Delays, ForgetRequest, Repair, RunMode};
use format_spec::{ChunkId, SnapshotId};

use super::whole::{faults, leftovers};
use crate::audit;
use crate::error::ServerError;
use crate::forget;
use crate::pack::{self, Pages};
use crate::rows::{ChunkRow, PackRow};
use crate::settings::Percent;
use crate::site::faulty::FaultySite;
use crate::site::hooked::HookedSite;
use crate::site::layout::pack_object;
use crate::site::{Op, Site, StoreSite};
use crate::testing::{Tree, World};

/// Chunks that all pages refer to: a page is just below the length at which it might be cut in two.
const SHARED: u32 = 400;

/// A tree of one page, which refers to what all others do, to some of it twice, and to one chunk that is its own.
fn tree_of(page: u32) -> Tree {
    let shared = (0..SHARED).chain([0]).map(|n| format!("shared {n}").into_bytes());
    let chunks = shared.chain([format!("own {page}").into_bytes()]).collect();
    Tree::from([(format!("{page:05}"), chunks)])
}

fn page_of(world: &World, page: u32) -> ChunkId {
    world.id_of(BlobKind::Page, &world.page(&tree_of(page)))
}

fn own_chunk(world: &World, page: u32) -> ChunkId {
    world.id_of(BlobKind::Chunk, format!("own {page}").as_bytes())
}

/// Pushes so many pages, which come to lie in one pack, as one snapshot.
fn push(world: &World, pages: Range<u32>) -> SnapshotId {
    let client = world.begin("n");
    let pages: Vec<_> = pages
        .map(|page| {
            let tree = tree_of(page);
            world.send_missing(&client, &tree).unwrap();
            let page = world.page(&tree);
            (page, tree)
        })
        .collect();
    let sent = pages.iter().map(|(page, _)| {
        let id = world.send(&client, BlobKind::Page, page).unwrap();
        (id, page.len())
    });
    world.commit(&client, &sent.collect::<Vec<_>>()).unwrap()
}

fn row(world: &World, id: ChunkId) -> Option<ChunkRow> {
    world.store.chunk_rows([&id]).unwrap()[0]
}

fn pack_of(world: &World, page: u32) -> PackRow {
    let number = row(world, page_of(world, page)).unwrap().pack;
    world.store.find_pack_row(number).unwrap().unwrap()
}

fn wanted(world: &World, pages: Range<u32>) -> Pages {
    pages.map(|page| page_of(world, page)).map(|id| (id, row(world, id).unwrap())).collect()
}

/// Changes a pack on the site behind everybody's back.
fn change(world: &World, pack: &PackRow, change: impl FnOnce(&mut Vec<u8>)) {
    let name = pack_object(&pack.id);
    let mut bytes = world.wait(world.site.get(&name)).unwrap().to_vec();
    change(&mut bytes);
    world.wait(world.site.delete(&name)).unwrap();
    world.wait(world.site.put_new(&name, bytes.into())).unwrap();
}

fn flip(world: &World, pack: &PackRow, at: u64) {
    change(world, pack, |bytes| bytes[usize::try_from(at).unwrap()] ^= 1);
}

fn damage_footer(world: &World, pack: &PackRow) {
    flip(world, pack, pack.len - 100);
    let read = world.wait(pack::read_directory(&world.store, &pack.id, pack.len));
    assert!(matches!(read, Err(ServerError::Damaged { .. })), "{read:?}");
}

fn damage_page(world: &World, page: u32) {
    let at = row(world, page_of(world, page)).unwrap().range().start + 50;
    flip(world, &pack_of(world, page), at);
}

/// A repository whose packs are never thin, so that a run only drops what goes.
fn world_on(site: Arc<dyn Site>) -> World {
    let mut world = World::on(site);
    world.upkeep.gc.repack_below = Percent::new(0).unwrap();
    world.crash();
    world
}

fn hooked() -> (Arc<HookedSite>, World) {
    let site = HookedSite::new();
    let world = world_on(Arc::<HookedSite>::clone(&site));
    (site, world)
}

fn assert_an_audit_finds_nothing(world: &World) {
    let report = world.wait(audit::run(&world.server, Repair::No, Arc::new(|_, _| {}))).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((faults(world), leftovers(world)), (vec![], vec![]));
}

/// G1: a page says of itself what the footer of its pack says of it.
#[test]
fn pages_refer_to_what_the_footer_of_their_pack_says() {
    let (site, world) = hooked();
    push(&world, 0..10);
    let pack = pack_of(&world, 0);
    let directory = world.wait(pack::read_directory(&world.store, &pack.id, pack.len)).unwrap();
    assert_eq!(directory.entries.len(), 10);
    let ask = |pages: &Pages| {
        let before = site.bytes_read();
        let found = world.wait(pack::references_of(&world.store, &pack, pages)).unwrap();
        assert!(found.problem.is_none(), "{:?}", found.problem);
        (found.known, site.bytes_read() - before)
    };
    let (all, of_footer) = ask(&wanted(&world, 0..10));

    assert_eq!(all.len(), 10);
    assert!(of_footer >= pack.len - pack.blob_bytes - (64 << 10), "{of_footer}");
    for page in 0..10 {
        let (of_one, bytes) = ask(&wanted(&world, page..page + 1));
        let id = page_of(&world, page);
        let entry = directory.entries.iter().find(|entry| entry.id == id).unwrap();
        assert!(entry.references.contains(&own_chunk(&world, page)) && entry.references.len() == 401);
        assert_eq!((of_one.len(), &of_one[&id], &all[&id]), (1, &entry.references, &entry.references));
        assert_eq!(bytes, u64::from(entry.stored_len));
    }
}

/// G1: a page that is neither where its row says nor in the footer is never taken for one without references.
#[test]
fn a_page_that_is_not_in_its_pack_is_a_problem() {
    let (_, world) = hooked();
    push(&world, 0..10);
    let (pack, id) = (pack_of(&world, 0), page_of(&world, 99));
    let row = row(&world, page_of(&world, 0)).unwrap();
    for offset in [row.offset, u32::try_from(pack.len).unwrap()] {
        let pages = Pages::from([(id, ChunkRow { offset, ..row })]);

        let found = world.wait(pack::references_of(&world.store, &pack, &pages)).unwrap();

        assert!(found.known.is_empty() && found.problem.is_some(), "{found:?}");
    }
}

/// G1: what is counted for a page is uncounted with it, and nothing else of its pack is read.
#[test]
fn one_page_of_many_goes_without_a_look_at_the_others() {
    let (site, world) = hooked();
    let gone = push(&world, 0..40);
    let kept = push(&world, 1..40);
    world.gc(Delays::Skip);
    let (pack, page) = (pack_of(&world, 0), row(&world, page_of(&world, 0)).unwrap());
    world.forget(gone);
    let before = site.bytes_read();

    let report = world.gc(Delays::Skip);

    let (read, footer) = (site.bytes_read() - before, pack.len - pack.blob_bytes);
    println!("read {read} bytes of a pack of {}, whose footer has about {footer}", pack.len);
    assert_eq!((report.pages.count, report.chunks.count, report.problems), (1, 1, vec![]));
    assert_eq!(read, u64::from(page.stored_len));
    assert!(read * 30 < footer, "{read} {footer}");
    assert_eq!(world.read(kept).unwrap().len(), 39);
    assert_an_audit_finds_nothing(&world);
}

/// G1: what pages refer to is not lost with the footer of their pack.
#[test]
fn pages_of_a_pack_with_a_damaged_footer_go_with_their_chunks() {
    let (_, world) = hooked();
    let gone = push(&world, 0..10);
    let kept = push(&world, 10..12);
    world.gc(Delays::Skip);
    let pack = pack_of(&world, 0);
    damage_footer(&world, &pack);
    world.forget(gone);

    let report = world.gc(Delays::Skip);

    assert_eq!((report.pages.count, report.chunks.count, report.problems), (10, 10, vec![]));
    assert!(!world.objects("packs").contains(&pack_object(&pack.id).as_str().to_owned()));
    assert_eq!(world.read(kept).unwrap().len(), 2);
    assert_an_audit_finds_nothing(&world);
}

/// G1: the footer answers for a page that cannot be read any more.
#[test]
fn a_damaged_page_goes_by_the_footer_of_its_pack() {
    let (_, world) = hooked();
    let gone = push(&world, 0..10);
    let kept = push(&world, 1..10);
    world.gc(Delays::Skip);
    damage_page(&world, 0);
    world.forget(gone);

    let report = world.gc(Delays::Skip);

    assert_eq!((report.pages.count, report.chunks.count, report.problems), (1, 1, vec![]));
    assert_eq!(world.read(kept).unwrap().len(), 9);
    assert_an_audit_finds_nothing(&world);
}

/// G1: a page of which nobody says what it refers to stays, with all that it may refer to, and is told.
#[test]
fn a_damaged_page_of_a_pack_with_a_damaged_footer_stays_alone() {
    let (_, world) = hooked();
    let gone = [push(&world, 0..10), push(&world, 10..20)];
    let kept = push(&world, 20..22);
    world.gc(Delays::Skip);
    let pack = pack_of(&world, 0);
    damage_footer(&world, &pack);
    damage_page(&world, 3);
    gone.into_iter().for_each(|id| world.forget(id));

    let reports = [world.gc(Delays::Skip), world.gc(Delays::Skip)];

    assert_eq!(
        reports.each_ref().map(|report| (report.pages.count, report.chunks.count)),
        [(19, 19), (0, 0)]
    );
    for report in reports {
        assert!(matches!(&report.problems[..], [one] if one.contains(&pack.id.to_string())), "{report:?}");
    }
    let left = [page_of(&world, 3), own_chunk(&world, 3)].map(|id| row(&world, id).map(|row| row.references));
    assert_eq!(left, [Some(0), Some(1)]);
    assert_eq!(world.read(kept).unwrap().len(), 2);
    let report = world.wait(audit::run(&world.server, Repair::No, Arc::new(|_, _| {}))).unwrap();
    assert!(report.findings.iter().any(|found| found.object == pack.id.to_string()), "{report:?}");
}

/// G1: of a pack that was cut short, the pages that are still there go.
#[test]
fn pages_of_a_pack_without_its_end_go_if_they_are_not_cut_off() {
    let (_, world) = hooked();
    let gone = push(&world, 0..10);
    let kept = push(&world, 10..12);
    world.gc(Delays::Skip);
    let (pack, pages) = (pack_of(&world, 0), wanted(&world, 0..10));
    let last = pages.values().map(ChunkRow::range).max_by_key(|range| range.start).unwrap();
    change(&world, &pack, |bytes| bytes.truncate(usize::try_from(last.end - 1).unwrap()));
    world.forget(gone);

    let report = world.gc(Delays::Skip);

    assert_eq!((report.pages.count, report.chunks.count, report.problems.len()), (9, 9, 1), "{report:?}");
    let left: Vec<_> = pages.keys().filter_map(|id| row(&world, *id)).map(|row| row.range()).collect();
    assert_eq!(left, [last]);
    assert_eq!(world.read(kept).unwrap().len(), 2);
}

/// A pack that is lost is asked for twice, however many of its pages go; and another one once, to see whether the site
/// is there.
#[test]
fn a_lost_pack_is_not_asked_for_again_and_again() {
    let faulty = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
    let world = world_on(Arc::<FaultySite>::clone(&faulty));
    let gone = push(&world, 0..10);
    world.gc(Delays::Skip);
    world.wait(world.site.delete(&pack_object(&pack_of(&world, 0).id))).unwrap();
    world.forget(gone);
    let before = faulty.calls().len();

    let report = world.gc(Delays::Skip);

    let reads = faulty.calls().into_iter().skip(before).filter(|op| *op == Op::GetRanges).count();
    assert_eq!((report.pages.count, report.problems.len(), reads), (0, 1, 3), "{report:?}");
}

/// G9: what goes with a snapshot is told as well where a footer is damaged, and never in part.
#[test]
fn what_a_snapshot_frees_is_known_beside_a_damaged_footer() {
    let (_, world) = hooked();
    let snapshots = [push(&world, 0..10), push(&world, 10..20)].to_vec();
    push(&world, 20..22);
    let frees = || {
        let (mode, snapshots) = (RunMode::Plan, snapshots.clone());
        let request = ForgetRequest { mode, snapshots, ..ForgetRequest::default() };
        world.wait(forget::run(&world.server, request)).unwrap().frees_bytes
    };
    let before = frees();
    damage_footer(&world, &pack_of(&world, 0));

    assert!(before.is_some());
    assert_eq!(frees(), before);
    damage_page(&world, 3);
    assert_eq!(frees(), None);
}

/// Memory of a run: what pages of one pack refer to is uncounted before the packs after it are read.
#[test]
fn pages_go_before_all_packs_are_read() {
    let (site, world) = hooked();
    let gone: Vec<SnapshotId> = (0..14).map(|n| push(&world, n * 30..n * 30 + 30)).collect();
    world.gc(Delays::Skip);
    let (first, last) = (page_of(&world, 0), pack_object(&pack_of(&world, 400).id));
    assert!(row(&world, first).unwrap().pack < row(&world, page_of(&world, 400)).unwrap().pack);
    gone.into_iter().for_each(|id| world.forget(id));
    let has_gone = Arc::new(AtomicBool::new(false));
    let (seen, store) = (Arc::clone(&has_gone), Arc::clone(&world.store));
    site.before(Op::GetRanges, last.as_str(), async move {
        let is_gone = store.chunk_rows([&first]).unwrap() == [None];
        seen.store(is_gone, Ordering::SeqCst);
    });

    let report = world.gc(Delays::Skip);

    assert!(!site.is_waiting() && has_gone.load(Ordering::SeqCst));
    assert_eq!((report.pages.count, report.problems), (420, vec![]));
    assert_an_audit_finds_nothing(&world);
}
