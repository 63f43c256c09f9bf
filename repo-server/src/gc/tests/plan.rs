//! Report of a plan: each idle row once, with little memory, exactly as a run then does it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use format_spec::ChunkId;
use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::wire::{Amount, Delays, Frame, GcReport, GcRequest, Held};

use super::whole::{faults, leftovers};
use crate::defects::blobs::{self, Place};
use crate::gc::plan::{AT_ONCE, Idle, Since};
use crate::gc::{Run, Tell};
use crate::index::{Batch, Index, Table};
use crate::operation::Progress;
use crate::pack;
use crate::rows::{ChunkRow, Epoch, Health, IdleKey, PackNumber};
use crate::session;
use crate::settings::Percent;
use crate::site::layout::pack_object;
use crate::testing::{Client, Hears, Read, World};

/// Shows each idle row to `visit`.
fn show(world: &World, since: Since, visit: impl FnMut(Idle)) -> GcReport {
    let mut run = Run {
        server: Arc::clone(&world.server),
        store: Arc::clone(&world.store),
        request: GcRequest::default(),
        report: GcReport::default(),
        progress: Progress::unheard(),
        now_ms: 0,
        tell: Tell::WhatIsHeld,
    };
    world.inside(|| run.for_each_idle_row(since, visit)).unwrap();
    run.report
}

fn shown(world: &World, since: Since) -> Vec<ChunkId> {
    let mut shown = Vec::new();
    show(world, since, |(id, _)| shown.push(id));
    shown.sort_unstable();
    shown
}

fn row(world: &World, id: ChunkId) -> ChunkRow {
    world.store.chunk_rows([&id]).unwrap()[0].unwrap()
}

/// The idle rows that there are, from the table of all rows.
fn idle(world: &World) -> Vec<Idle> {
    let rows = world.rows().into_iter().map(|id| (id, row(world, id)));
    rows.filter(|(_, row)| row.is_idle()).collect()
}

fn amount<'a>(rows: impl IntoIterator<Item = &'a Idle>) -> Amount {
    let mut amount = Amount::default();
    for (_, row) in rows {
        amount.add(row.stored_len.into());
    }
    amount
}

fn plan(world: &World) -> GcReport {
    world.gc_as(GcRequest { delays: Delays::Skip, ..GcRequest::default() }).unwrap()
}

/// The report shows each existing row, and as kept those rows that are idle since a session's start.
#[track_caller]
fn check(world: &World) {
    let idle = idle(world);
    let ids = |from: Epoch, before: Epoch| -> Vec<ChunkId> {
        let of = idle.iter().filter(|(_, row)| row.idle_since >= from && row.idle_since < before);
        of.map(|(id, _)| *id).collect()
    };
    let end = Epoch(u64::MAX);
    assert_eq!(shown(world, Since::EVER), ids(Epoch(0), end));
    for epoch in (0..=world.store.epoch().unwrap().0).map(Epoch) {
        assert_eq!(shown(world, Since { from: epoch, before: None }), ids(epoch, end));
        assert_eq!(shown(world, Since { from: Epoch(0), before: Some(epoch) }), ids(Epoch(0), epoch));
    }
    let report = plan(world);
    let sessions = world.server.sessions.rows();
    let held = |start: Epoch| amount(idle.iter().filter(|(_, row)| row.idle_since >= start));
    let expected: Vec<_> = sessions.iter().map(|(id, row)| (*id, held(row.start))).collect();
    let pinned: Vec<_> = report.pinned.into_iter().map(|pinning| (pinning.session, pinning.holds)).collect();
    assert_eq!(pinned, expected);
    let oldest = sessions.iter().map(|(_, row)| row.start).min().unwrap_or(end);
    assert_eq!(report.chunks, amount(idle.iter().filter(|(_, row)| row.idle_since < oldest)));
}

/// Sends chunks in a pack of their own.
fn send<const N: usize>(world: &World, client: &Client, texts: [&str; N]) -> [ChunkId; N] {
    let ids = texts.map(|text| world.send(client, BlobKind::Chunk, text.as_bytes()).unwrap());
    world.flush().unwrap();
    ids
}

fn count(world: &World, id: ChunkId) {
    let counted = world.store.account(|ledger| ledger.count(&[(id, 1)].into()));
    counted.unwrap().unwrap();
}

fn uncount(world: &World, id: ChunkId) {
    world.store.account(|ledger| ledger.uncount(&[(id, 1)].into())).unwrap();
}

fn damage(world: &World, id: ChunkId) {
    let damage = (id, Place::of(&row(world, id)), "rotten".to_owned());
    assert_eq!(blobs::mark(&world.store, &[damage]).unwrap(), 1);
}

/// True if the queue leads to a row both through its pack and by itself.
fn items(world: &World, id: ChunkId) -> (bool, bool) {
    let ChunkRow { kind, idle_since: since, pack: number, .. } = row(world, id);
    let has = |item: IdleKey| world.index.get(Table::Idle, &item.encode()).unwrap().is_some();
    (has(IdleKey::Pack { kind, since, number }), has(IdleKey::Row { kind, since, id }))
}

/// G2: whichever items of the queue lead to a row, and wherever it was moved, it is told of once.
#[test]
fn an_idle_row_is_counted_once_whatever_leads_to_it() {
    let mut world = World::new();
    world.upkeep.gc.repack_below = Percent::new(90).unwrap();
    world.crash();
    let client = world.begin("holder");
    // The first of its pack, and alone in the next: at the same place in both.
    let [healed, moved, revived, _] = send(&world, &client, ["healed", "moved", "revived", "other"]);
    assert_eq!(items(&world, moved), (true, false), "new");
    check(&world);
    damage(&world, healed);
    send(&world, &client, ["healed"]);
    assert_eq!((row(&world, healed).health, items(&world, healed)), (Health::Sound, (true, true)));
    check(&world);

    assert_eq!(world.gc(Delays::Skip).repacked.count, 1);
    assert_eq!(items(&world, moved), (false, true), "moved by repack");
    check(&world);

    let [both, counted, late, _] = send(&world, &client, ["both", "counted", "late", "fresh"]);
    for id in [both, counted, late] {
        count(&world, id);
    }
    uncount(&world, both);
    assert_eq!(items(&world, both), (true, true), "in use for a while, within an epoch");
    check(&world);
    let second = world.begin("second");
    assert_eq!(world.have(&second, &[revived, both]).unwrap(), [Held::Here; 2]);
    assert_eq!((row(&world, revived).idle_since, items(&world, revived)), (Epoch(1), (false, true)));
    check(&world);
    damage(&world, counted);
    damage(&world, late);
    send(&world, &client, ["counted", "late"]);
    uncount(&world, counted);
    assert_eq!(items(&world, counted), (true, true), "healed while in use, and idle in that epoch");
    check(&world);
    world.gc(Delays::Skip);
    uncount(&world, late);
    assert_eq!((row(&world, late).idle_since, items(&world, late)), (Epoch(2), (false, true)));
    check(&world);

    session::abort(&world.server.sessions, client.id, |_| true).unwrap();
    check(&world);
    plan_then_run(&world);
    session::abort(&world.server.sessions, second.id, |_| true).unwrap();
    check(&world);
    plan_then_run(&world);
    assert_eq!((world.rows(), faults(&world), leftovers(&world)), (vec![], vec![], vec![]));
}

#[track_caller]
fn plan_then_run(world: &World) {
    let planned = plan(world);
    let done = world.gc(Delays::Skip);
    assert!(done.chunks.count > 0, "{done:?}");
    assert_eq!((planned.pages, planned.chunks), (done.pages, done.chunks));
}

/// A pack whose directory cannot be read shows nothing: what the queue leads to otherwise is told of, and goes.
#[test]
fn a_pack_that_cannot_be_read_hides_nothing_that_goes() {
    let world = World::new();
    let client = world.begin("n");
    let [both, _] = send(&world, &client, ["both", "only by its pack"]);
    count(&world, both);
    uncount(&world, both);
    let pack = world.store.pack_row(row(&world, both).pack).unwrap();
    world.wait(world.site.delete(&pack_object(&pack.id))).unwrap();
    session::abort(&world.server.sessions, client.id, |_| true).unwrap();

    let report = show(&world, Since::EVER, |_| {});
    assert_eq!((shown(&world, Since::EVER), report.problems.len()), (vec![both], 1));
    plan_then_run(&world);
    assert_eq!(world.rows().len(), 1);
}

/// Chunks of one pack: so many, in one request.
fn send_many(world: &World, client: &Client, many: usize) {
    let domain = world.server.domain(&"c".parse().unwrap());
    let frame = |n: usize| {
        let payload = Bytes::from(format!("content {n}"));
        let id = domain.keys.key.id_of(BlobKind::Chunk, &payload);
        let plain_len = u32::try_from(payload.len()).unwrap();
        let info = BlobInfo { kind: BlobKind::Chunk, id, plain_len, compression: Compression::Raw };
        Frame { info, payload }
    };
    let frames: Vec<Frame> = (0..many).map(frame).collect();
    let start = client.row.start;
    let take_in = move || pack::take_in(&domain, start, &frames).map(drop);
    world.wait(async { tokio::task::spawn_blocking(take_in).await }).unwrap().unwrap();
    world.flush().unwrap();
}

/// Idle rows that the queue leads to by an item each. They are in no pack that there is.
fn queue_many(world: &World, kind: BlobKind, many: usize) {
    let mut batch = Batch::new();
    for n in 0..many {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&u64::try_from(n).unwrap().to_be_bytes());
        id[31] = u8::from(kind == BlobKind::Page);
        let id = ChunkId::from_bytes(id);
        let (pack, health, compression) = (PackNumber(1 << 20), Health::Sound, Compression::Raw);
        let (references, since) = (0, Epoch(0));
        let row = ChunkRow {
            pack,
            offset: 0,
            stored_len: 1,
            plain_len: 1,
            kind,
            compression,
            health,
            references,
            idle_since: since,
        };
        batch.put(Table::Chunk, *id.as_bytes(), row.encode());
        batch.put(Table::Idle, IdleKey::Row { kind, since, id }.encode(), Vec::new());
    }
    world.store.commit(batch).unwrap();
}

/// A queue of any length is read in pieces, and what a piece leads to is shown before the next one is read.
#[test]
fn a_plan_holds_a_piece_of_the_queue_at_a_time() {
    let piece = NonZeroUsize::get(AT_ONCE);
    let mut world = World::new();
    let client = world.begin("n");
    send_many(&world, &client, 2 * piece + 1);
    for kind in [BlobKind::Page, BlobKind::Chunk] {
        queue_many(&world, kind, 2 * piece + 1);
    }
    let [read, seen, held, items, pieces] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&read), Arc::clone(&seen), Arc::clone(&held), Arc::clone(&items));
    let counted = Arc::clone(&pieces);
    let hears: Hears = Arc::new(move |how, table, rows| {
        let (read, seen, held, items) = &counters;
        match (how, table) {
            (Read::Get, Table::Chunk) => {
                let read = read.fetch_add(rows, Ordering::SeqCst) + rows;
                held.fetch_max(read - seen.load(Ordering::SeqCst), Ordering::SeqCst);
                counted.fetch_add(1, Ordering::SeqCst);
            }
            (_, Table::Idle) => {
                items.fetch_max(rows, Ordering::SeqCst);
                counted.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    });
    world.crash_and_overhear(hears);

    show(&world, Since::EVER, |_| {
        seen.fetch_add(1, Ordering::SeqCst);
    });

    let [read, seen, held, items, pieces] =
        [read, seen, held, items, pieces].map(|counter| counter.load(Ordering::SeqCst));
    assert_eq!((seen, read), (6 * piece + 3, 6 * piece + 3), "each once, with one look at each");
    assert!(held <= piece && items <= piece, "{held} rows and {items} items were in memory at once");
    assert!(pieces < 50, "rows are looked up in groups: {pieces} calls");
}
