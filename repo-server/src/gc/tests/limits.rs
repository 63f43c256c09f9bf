//! How much goes at once.

use std::time::Duration;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcRequest, LargeDelete};

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, Table};
use crate::settings::Percent;
use crate::testing::{Tree, World, tree};

/// The most pages that a manifest names.
const MOST_PAGES: u32 = 130_000;

/// Pages that one batch of a test adds.
const AT_ONCE: usize = 50_000;

/// G7: a pack counts with all its bytes until the last of its blobs has gone. Counting what went on top of it
/// would let the share grow with each run, until nothing is left.
#[test]
fn the_share_of_a_day_does_not_grow_with_what_goes() {
    let mut world = World::new();
    world.upkeep.gc.max_daily = Percent::new(50).unwrap();
    world.upkeep.gc.daily_floor_bytes = 0;
    world.upkeep.gc.repack_below = Percent::new(0).unwrap();
    world.crash();
    let content = |file: u8| vec![[&[file], [7; 10_000].as_slice()].concat()];
    let all: Tree = (0..40).map(|file| (format!("{file:02}"), content(file))).collect();
    let some: Tree = all.clone().into_iter().take(2).collect();
    let gone = world.push("n", &all);
    let kept = world.push("n", &some);
    let stored = world.store.totals().unwrap().stored_bytes;
    world.forget(gone);
    let went = |runs: u32| {
        let reports = (0..runs).map(|_| world.gc(Delays::Skip));
        reports.map(|report| report.pages.bytes + report.chunks.bytes).sum::<u64>()
    };

    let plan = |large| {
        let request = GcRequest { delays: Delays::Skip, large, ..GcRequest::default() };
        world.gc_as(request).unwrap().stopped
    };
    let (planned, allowed) = (plan(LargeDelete::Refuse), plan(LargeDelete::Allow));
    let first_day = went(12);

    assert_eq!(
        (planned, allowed),
        (world.gc(Delays::Skip).stopped, None),
        "a plan tells that the run will stop"
    );

    assert!(first_day > stored / 4 && first_day <= stored / 2, "{first_day} of {stored}");
    assert!(alarm::is_up(&world.store, AlarmCode::LargeDelete).unwrap());
    world.clock.advance(Duration::from_secs(24 * 60 * 60));
    assert!(went(1) > 0);
    assert_eq!(world.read(kept).unwrap(), some);
}

/// The ids of so many pages.
fn page_ids(count: u32) -> Vec<ChunkId> {
    let id = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        ChunkId::from_bytes(id)
    };
    (0..count).map(id).collect()
}

/// G9: a manifest with more pages than one batch takes out could never be purged.
#[test]
fn a_manifest_of_too_many_pages_is_refused() {
    let world = World::new();
    let client = world.begin("n");
    let commit = |count| {
        let pages: Vec<_> = page_ids(count).into_iter().map(|id| (id, 1)).collect();
        world.commit(&client, &pages).unwrap_err()
    };

    let (largest, too_large) = (commit(MOST_PAGES), commit(MOST_PAGES + 1));

    assert!(matches!(largest, ServerError::MissingChunks { .. }), "{largest:?}");
    assert!(matches!(too_large, ServerError::BadRequest { code: "too_many_pages", .. }), "{too_large:?}");
}

/// G9: what the largest manifest names is taken out of use in one batch, and queued.
#[test]
fn the_pages_of_the_largest_manifest_go_in_one_batch() {
    let world = World::new();
    world.push("n", &tree(&["x"]));
    let page = world.id_of(BlobKind::Page, &world.page(&tree(&["x"])));
    let row = world.store.chunk_rows([&page]).unwrap()[0].unwrap();
    let pages = page_ids(MOST_PAGES);
    for pages in pages.chunks(AT_ONCE) {
        let mut batch = Batch::new();
        for id in pages {
            batch.put(Table::Chunk, *id.as_bytes(), row.encode());
        }
        world.store.commit(batch).unwrap();
    }
    let (queued, counts) = (world.count(Table::Idle), pages.iter().map(|id| (*id, 1)).collect());

    world.store.account(|ledger| ledger.uncount(&counts)).unwrap();

    assert_eq!(world.count(Table::Idle) - queued, pages.len());
}
