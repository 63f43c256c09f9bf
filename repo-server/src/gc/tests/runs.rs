//! Effects of a run, and its cost.

use std::time::Duration;

use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcRequest, Held, LargeDelete, RunMode};

use super::whole::{count, faults, leftovers};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::Table;
use crate::session::TTL;
use crate::snapshot;
use crate::testing::{Tree, World, tree};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A tree of `files` files whose content is about `len` bytes that do not compress.
fn big_tree(seed: u64, files: u64, len: usize) -> Tree {
    let content = |file: u64| {
        let mut state = (seed << 20 | file).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes
    };
    (0..files).map(|file| (format!("{seed}-{file:04}"), vec![content(file)])).collect()
}

/// G9, G5: what is forgotten stays readable until its delay is over, and is gone after.
#[test]
fn a_forgotten_snapshot_goes_when_its_delay_is_over_and_its_objects_after_theirs() {
    let mut world = World::new();
    let kept = world.push("a", &tree(&["shared", "kept"]));
    let gone = world.push("a", &tree(&["shared", "gone"]));
    world.forget(gone);

    let early = world.gc(Delays::Wait);
    assert_eq!(world.read(gone).unwrap(), tree(&["shared", "gone"]));
    world.clock.advance(168 * HOUR);
    let due = world.gc(Delays::Wait);

    assert_eq!((early.purged, due.purged), (vec![], vec![gone]));
    assert_eq!((due.pages.count, due.chunks.count), (1, 1));
    assert!(matches!(world.read(gone), Err(ServerError::NoSnapshot(_))));
    assert_eq!(world.read(kept).unwrap(), tree(&["shared", "kept"]));
    assert_eq!(faults(&world), [""; 0]);
    assert_eq!(world.objects("snapshots").len(), 1, "a purged snapshot's object goes at once");
    world.clock.advance(24 * HOUR);
    world.crash();
    world.gc(Delays::Wait);
    assert_eq!(leftovers(&world), [""; 0]);
    assert_eq!(world.read(kept).unwrap(), tree(&["shared", "kept"]));
}

/// G1: with nothing forgotten there is nothing to take.
#[test]
fn a_run_over_a_repository_without_garbage_changes_nothing_that_matters() {
    let world = World::new();
    let snapshots = ["one", "two", "three"].map(|text| (world.push("a", &tree(&[text, "all"])), text));
    world.gc(Delays::Skip);
    let (rows, before) = (world.rows(), world.index.changes());

    let report = world.gc(Delays::Skip);

    assert_eq!((report.pages.count, report.chunks.count, report.deleted.count), (0, 0, 0));
    assert_eq!(world.rows(), rows);
    assert_eq!(world.index.changes() - before, 1, "only the epoch");
    for (id, text) in snapshots {
        assert_eq!(world.read(id).unwrap(), tree(&[text, "all"]));
    }
}

/// G2: what a push left behind that never ended is taken once its session is over, and not before.
#[test]
fn what_a_dead_push_sent_goes_after_its_session() {
    let world = World::new();
    let client = world.begin("a");
    world.send(&client, BlobKind::Chunk, b"orphan").unwrap();
    world.flush().unwrap();

    let report = world.gc(Delays::Skip);
    assert_eq!((report.chunks.count, report.pinned.len()), (0, 1));
    assert_eq!(report.pinned[0].session, client.id);
    assert_eq!(report.pinned[0].holds.count, 1);
    // The session is not ended yet: on a full disk that is impossible before a run has made space.
    world.clock.advance(TTL);
    let report = world.gc(Delays::Skip);

    assert_eq!((report.chunks.count, report.pinned.len()), (1, 0));
    assert_eq!(leftovers(&world), [""; 0]);
    assert_eq!(world.count(Table::Idle), 0);
}

/// X8: commit and delete of a snapshot cost what is new in it, not what it holds.
#[test]
fn a_snapshot_that_shares_99_pages_of_100_touches_the_rows_of_one() {
    let world = World::new();
    let page_of_files = |n: u32| (0..100).map(|file| (format!("{n:03}-{file}"), n)).collect::<Vec<_>>();
    let trees: Vec<Tree> = (0..101)
        .map(|n| {
            let files = page_of_files(n).into_iter();
            files.map(|(name, _)| (name.clone(), vec![name.into_bytes()])).collect()
        })
        .collect();
    let commit = |client: &_, trees: Vec<&Tree>| {
        let pages: Vec<_> = trees
            .into_iter()
            .map(|tree| {
                world.send_missing(client, tree).unwrap();
                let page = world.page(tree);
                (world.send(client, BlobKind::Page, &page).unwrap(), page.len())
            })
            .collect();
        world.flush().unwrap();
        let before = world.index.changes();
        let id = world.commit(client, &pages).unwrap();
        (id, world.index.changes() - before)
    };
    let (first, _) = commit(&world.begin("a"), trees[..100].iter().collect());
    let (second, committed) = commit(&world.begin("a"), trees[1..].iter().collect());
    // Small packs are merged, and the packs that were new are looked at: that is of the pushes.
    world.gc(Delays::Skip);
    world.gc(Delays::Skip);
    world.forget(second);
    let (before, rows) = (world.index.changes(), world.rows().len());

    let report = world.gc(Delays::Skip);

    let deleted = world.index.changes() - before;
    println!("rows changed: commit {committed}, delete {deleted}, of {rows} rows");
    assert_eq!((report.pages.count, report.chunks.count), (1, 100));
    // A page counts the manifests that name it: 100 of them. Then there is what only this one had.
    assert_eq!(rows, 101 * 101);
    assert!(committed <= 100 + 10, "{committed}");
    assert!(deleted <= 100 + 5 * 101, "{deleted}");
    assert_eq!(world.read(first).unwrap().len(), 10_000);
    assert_eq!(faults(&world), [""; 0]);
}

/// G4: what is left of a thin pack moves, and reads as before.
#[test]
fn a_thin_pack_is_repacked_and_goes() {
    let world = World::new();
    let all = big_tree(1, 40, 100_000);
    let some: Tree = all.clone().into_iter().take(5).collect();
    let gone = world.push("a", &all);
    let kept = world.push("a", &some);
    let before = world.store.totals().unwrap().stored_bytes;
    world.forget(gone);

    let report = world.gc(Delays::Skip);

    assert_eq!(report.chunks.count, 35);
    assert_eq!(report.repacked.count, 1, "{report:?}");
    assert!(report.copied_bytes < 600_000, "{report:?}");
    let after = world.store.totals().unwrap().stored_bytes;
    assert!(after < before / 4, "{before} {after}");
    assert_eq!(world.read(kept).unwrap(), some);
    assert_eq!(faults(&world), [""; 0]);
    assert_eq!(leftovers(&world), [""; 0]);
}

/// X7: whoever has read a row, and then looks for the pack that it named, finds where it is by now.
#[test]
fn a_row_that_is_moved_while_somebody_looks_for_its_pack_is_found_again() {
    let mut world = World::new();
    let all = big_tree(1, 40, 100_000);
    let some: Tree = all.clone().into_iter().take(5).collect();
    let gone = world.push("a", &all);
    world.push("a", &some);
    let of = |tree: &Tree| world.id_of(BlobKind::Chunk, &tree.values().next_back().unwrap()[0]);
    let (moved, dropped) = (of(&some), of(&all));
    let read = world.store.chunk_rows([&moved, &dropped]).unwrap();
    world.forget(gone);
    assert_eq!(world.gc(Delays::Skip).repacked.count, 1);
    // The known old pack would help by chance.
    world.crash();
    let domain = world.store.domain(&"c".parse().unwrap());

    let row = |id, row| world.store.row_of(&domain, id, row).unwrap();

    let now = world.store.chunk_rows([&moved]).unwrap()[0];
    assert_ne!(now.unwrap().pack, read[0].unwrap().pack);
    assert_eq!((row(&moved, read[0]), row(&dropped, read[1])), (now, None));
}

#[test]
fn repacking_keeps_to_its_bytes_and_the_next_run_goes_on() {
    let world = World::new();
    let mut kept = Vec::new();
    for seed in 1..=3 {
        let all = big_tree(seed, 20, 50_000);
        let some: Tree = all.clone().into_iter().take(3).collect();
        let gone = world.push("a", &all);
        kept.push((world.push("a", &some), some));
        world.forget(gone);
    }
    let request = GcRequest {
        mode: RunMode::Apply,
        delays: Delays::Skip,
        max_copy_bytes: Some(200_000),
        ..GcRequest::default()
    };

    let first = world.gc_as(request.clone()).unwrap();
    let second = world.gc_as(request.clone()).unwrap();
    let third = world.gc_as(request.clone()).unwrap();
    let last = world.gc_as(request).unwrap();

    let repacked = [&first, &second, &third, &last].map(|report| report.repacked.count);
    assert_eq!(repacked, [1, 1, 1, 0]);
    assert!(first.stopped.is_some() && last.stopped.is_none());
    for (id, tree) in kept {
        assert_eq!(world.read(id).unwrap(), tree);
    }
    assert_eq!(faults(&world), [""; 0]);
}

/// G4: each push leaves at least two small packs; years of them must not be years of small packs.
#[test]
fn many_small_packs_are_merged() {
    let world = World::new();
    let pushes: Vec<_> = (0..20)
        .map(|n| {
            let tree = tree(&[&format!("hour {n}"), "the same"]);
            (world.push("a", &tree), tree)
        })
        .collect();
    assert_eq!(world.count(Table::Pack), 40);

    world.gc(Delays::Skip);

    assert_eq!(world.count(Table::Pack), 2);
    for (id, tree) in pushes {
        assert_eq!(world.read(id).unwrap(), tree);
    }
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
}

/// G7: a mistake does not empty a repository in one run.
#[test]
fn more_than_a_days_share_stops_the_run_until_somebody_says_so() {
    let mut world = World::new();
    world.upkeep.gc.daily_floor_bytes = 1000;
    world.crash();
    let kept = world.push("a", &big_tree(1, 1, 50_000));
    let gone = world.push("a", &big_tree(2, 40, 50_000));
    world.forget(gone);

    let refused = world.gc(Delays::Skip);

    assert!(refused.stopped.is_some(), "{refused:?}");
    assert!(refused.chunks.bytes < 2_000_000, "{refused:?}");
    assert!(alarm::is_up(&world.store, AlarmCode::LargeDelete).unwrap());
    assert_eq!(faults(&world), [""; 0]);
    world.clock.advance(HOUR);
    let again = world.gc(Delays::Skip);
    assert!(again.stopped.is_some() && again.chunks.count == 0, "the day is not over: {again:?}");
    let request = GcRequest {
        mode: RunMode::Apply,
        delays: Delays::Skip,
        large: LargeDelete::Allow,
        ..GcRequest::default()
    };
    let allowed = world.gc_as(request).unwrap();

    assert_eq!(allowed.stopped, None);
    assert_eq!(refused.chunks.count + allowed.chunks.count, 40);
    assert!(!alarm::is_up(&world.store, AlarmCode::LargeDelete).unwrap());
    assert_eq!(world.read(kept).unwrap(), big_tree(1, 1, 50_000));
}

#[test]
fn a_plan_tells_what_a_run_does_and_changes_nothing() {
    let world = World::new();
    world.push("a", &tree(&["kept", "shared"]));
    let gone = world.push("a", &tree(&["gone", "shared"]));
    let dead = world.begin("b");
    world.send(&dead, BlobKind::Chunk, b"orphan").unwrap();
    world.flush().unwrap();
    world.expire();
    world.forget(gone);
    let plan = |delays| world.gc_as(GcRequest { delays, ..GcRequest::default() }).unwrap();
    // The first look at the clock is written down.
    plan(Delays::Wait);
    let before = world.index.changes();

    let (waiting, planned) = (plan(Delays::Wait), plan(Delays::Skip));

    assert_eq!(world.index.changes(), before);
    assert_eq!((waiting.purged.len(), waiting.chunks.count), (0, 1), "the orphan only");
    assert_eq!(waiting.waiting[0].object, format!("snapshot {gone}"));
    let done = world.gc(Delays::Skip);
    assert_eq!(planned.purged, done.purged);
    assert_eq!((planned.pages, planned.chunks), (done.pages, done.chunks));
    assert_eq!((done.pages.count, done.chunks.count), (1, 2));
}

#[test]
fn what_a_snapshot_alone_holds_is_what_its_going_frees() {
    let world = World::new();
    let kept = world.push("a", &tree(&["kept", "shared"]));
    let gone = world.push("a", &tree(&["gone for good", "shared"]));
    let freed = |ids: &[_]| {
        let found: Vec<_> = ids.iter().map(|id| snapshot::get(&world.store, *id).unwrap()).collect();
        let gone = world.wait(snapshot::references_of_idle_pages(&world.store)).unwrap();
        let all: Vec<_> = found.iter().collect();
        world.wait(snapshot::freed(&world.store, &all, &gone)).unwrap()
    };
    let (one, other, both) = (freed(&[gone]), freed(&[kept]), freed(&[kept, gone]));

    assert!(both.bytes() > one.bytes() + other.bytes(), "the shared chunk goes with both");
    world.forget(gone);
    let report = world.gc(Delays::Skip);
    assert_eq!(report.pages.bytes + report.chunks.bytes, one.bytes());
    assert_eq!(freed(&[kept]).bytes(), both.bytes() - one.bytes());
}

#[test]
fn a_snapshot_is_brought_back_until_it_is_purged() {
    let world = World::new();
    let kept = world.push("a", &tree(&["x"]));
    let other = world.push("a", &tree(&["y"]));
    world.forget(other);
    snapshot::undelete(&world.store, other).unwrap();
    world.clock.advance(1000 * HOUR);
    world.gc(Delays::Wait);
    assert_eq!(world.read(other).unwrap(), tree(&["y"]));

    world.forget(other);
    world.gc(Delays::Skip);

    let refused = snapshot::undelete(&world.store, other).unwrap_err();
    assert!(matches!(refused, ServerError::NoSnapshot(id) if id == other), "{refused:?}");
    assert_eq!(world.read(kept).unwrap(), tree(&["x"]));
}

#[test]
fn a_protected_snapshot_is_not_forgotten_and_says_so_on_the_site() {
    let world = World::new();
    let id = world.push("a", &tree(&["x"]));
    world.wait(snapshot::protect(&world.store, &world.server.in_flight, id, "audit".to_owned())).unwrap();
    world
        .wait(snapshot::protect(&world.store, &world.server.in_flight, id, "audit of 2026".to_owned()))
        .unwrap();

    let refused = snapshot::forget(&world.store, &[id]).unwrap_err();

    assert!(matches!(refused, ServerError::Refused { code: "protected", .. }), "{refused:?}");
    world.gc(Delays::Skip);
    assert_eq!(world.objects("protections").len(), 1, "the first one was replaced");
    snapshot::unprotect(&world.store, id).unwrap();
    world.gc(Delays::Skip);
    assert_eq!(world.objects("protections").len(), 0);
    world.forget(id);
    let refused = world
        .wait(snapshot::protect(&world.store, &world.server.in_flight, id, "late".to_owned()))
        .unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "going", .. }), "{refused:?}");
    world.gc(Delays::Skip);
    assert_eq!(world.objects("protections").len(), 0, "what was announced and not needed goes");
}

#[test]
fn a_reason_that_a_terminal_or_a_table_cannot_show_is_refused() {
    let world = World::new();
    let id = world.push("a", &tree(&["x"]));

    for reason in ["", "two\nlines", "\u{1b}[31mred", &"x".repeat(1001)] {
        let refused = world
            .wait(snapshot::protect(&world.store, &world.server.in_flight, id, reason.to_owned()))
            .unwrap_err();
        assert!(
            matches!(refused, ServerError::BadRequest { code: "bad_reason", .. }),
            "{reason:?}: {refused:?}"
        );
    }

    assert_eq!(world.objects("protections").len(), 0);
    world.wait(snapshot::protect(&world.store, &world.server.in_flight, id, "ä".repeat(500))).unwrap();
}

/// G3: a chunk that nobody needed any more, and that somebody asks for again, stays.
#[test]
fn an_idle_chunk_is_revived_by_the_question_for_it() {
    let world = World::new();
    let keeps_open = world.begin("other");
    let gone = world.push("a", &tree(&["x"]));
    world.forget(gone);
    world.gc(Delays::Skip);
    let id = world.id_of(BlobKind::Chunk, b"x");
    let client = world.begin("a");
    assert_eq!(world.have(&client, &[id]).unwrap(), [Held::Here], "the other session held it");
    crate::session::abort(&world.server.sessions, keeps_open.id, |_| true).unwrap();

    let report = world.gc(Delays::Skip);

    assert_eq!(report.chunks.count, 0);
    let back = world.commit_tree(&client, &tree(&["x"])).unwrap();
    world.gc(Delays::Skip);
    assert_eq!(world.read(back).unwrap(), tree(&["x"]));
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
    assert_eq!((count(&world, BlobKind::Chunk), count(&world, BlobKind::Page)), (1, 1));
}

/// G8: a count that cannot be right stops the collector.
#[test]
fn a_wrong_count_stops_everything_that_trusts_counts() {
    let world = World::new();
    let gone = world.push("a", &tree(&["x"]));
    world.push("a", &tree(&["y"]));
    let id = world.id_of(BlobKind::Chunk, b"x");
    let row = world.store.chunk_rows([&id]).unwrap()[0].unwrap();
    let wrong = crate::rows::ChunkRow { references: 0, ..row };
    let mut batch = crate::index::Batch::new();
    batch.put(Table::Chunk, *id.as_bytes(), wrong.encode());
    world.store.commit(batch).unwrap();
    world.forget(gone);
    let apply = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };

    let stopped = world.gc_as(apply.clone()).unwrap_err();
    let refused = world.gc_as(apply).unwrap_err();

    assert!(matches!(stopped, ServerError::Counts { .. }), "{stopped:?}");
    assert!(matches!(refused, ServerError::Refused { code: "counts_differ", .. }), "{refused:?}");
    assert_eq!(crate::health::alarms(&world.store).unwrap()[0].code, "counts_differ");
}
