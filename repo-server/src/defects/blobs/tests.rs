use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::key::BlobKind;
use format_spec::wire::Delays;

use super::*;
use crate::catalog::quarantine::COUNT_KEY;
use crate::health::alarm::AlarmCode;
use crate::index::Batch;
use crate::rows::ChunkRow;
use crate::session;
use crate::testing::{Client, Hears, Read, World};

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// Three chunks in quarantine that only a session in progress holds.
fn damaged() -> (World, Client) {
    let world = World::new();
    let client = world.begin("n");
    for text in TEXTS {
        send(&world, &client, text).unwrap();
    }
    assert_eq!(mark_all(&world), 3);
    (world, client)
}

fn send(world: &World, client: &Client, text: &str) -> Result<(), ServerError> {
    world.send(client, BlobKind::Chunk, text.as_bytes())?;
    world.flush()
}

fn mark_all(world: &World) -> u64 {
    let ids = world.rows();
    let rows = world.store.chunk_rows(&ids).unwrap();
    let damage = |(id, row): (ChunkId, Option<ChunkRow>)| (id, Place::of(&row.unwrap()), "bad".to_owned());
    let damage: Vec<_> = ids.into_iter().zip(rows).map(damage).collect();
    mark(&world.store, &damage).unwrap()
}

/// How many damaged blobs the alarm tells of.
fn told(world: &World) -> Option<usize> {
    let alarms = crate::health::alarms(&world.store).unwrap();
    let alarm = alarms.into_iter().find(|alarm| alarm.code == AlarmCode::DamagedBlobs.name())?;
    alarm.message.split(' ').find_map(|word| word.parse().ok())
}

fn is_right(world: &World) -> bool {
    let count = world.count(Table::Damaged);
    told(world) == (count > 0).then_some(count)
}

/// Lets scans of the table be counted.
fn count_scans(world: &mut World) -> Arc<AtomicU64> {
    let scans = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&scans);
    let hears: Hears = Arc::new(move |read, table, _| {
        if (read, table) == (Read::Scan, Table::Damaged) {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    });
    world.crash_and_overhear(hears);
    scans
}

/// G10: each pack says how many are left, and costs the same however many there are.
#[test]
fn the_alarm_counts_down_as_blobs_are_healed_and_nothing_is_scanned() {
    let (mut world, client) = damaged();
    assert_eq!(told(&world), Some(3));
    let scans = count_scans(&mut world);

    let left = TEXTS.map(|text| {
        send(&world, &client, text).unwrap();
        told(&world)
    });

    assert_eq!(left, [Some(2), Some(1), None]);
    assert_eq!(scans.load(Ordering::Relaxed), 0);
}

/// G10: what is damaged and goes is counted no more.
#[test]
fn the_alarm_goes_when_the_collector_drops_what_is_damaged() {
    let (mut world, client) = damaged();
    send(&world, &client, TEXTS[0]).unwrap();
    session::abort(&world.server.sessions, client.id, |_| true).unwrap();
    let scans = count_scans(&mut world);
    assert_eq!(told(&world), Some(2));

    let dropped = world.gc(Delays::Skip).chunks.count;

    assert_eq!((dropped, told(&world)), (3, None));
    assert_eq!(scans.load(Ordering::Relaxed), 0);
    assert!(is_right(&world));
}

/// G10: wherever a process dies, the next one tells the right number.
#[test]
fn the_alarm_is_right_after_a_death_at_any_commit() {
    type Work = fn(&World, &Client) -> bool;
    let works: [(&str, Work); 3] = [
        ("heal", |world, client| TEXTS.iter().all(|text| send(world, client, text).is_ok())),
        ("drop", |world, client| {
            let request = format_spec::wire::GcRequest {
                mode: format_spec::wire::RunMode::Apply,
                delays: Delays::Skip,
                ..Default::default()
            };
            session::abort(&world.server.sessions, client.id, |_| true).is_ok()
                && world.gc_as(request).is_ok()
        }),
        ("clear", |world, _| {
            let ids = world.rows();
            let rows = world.store.chunk_rows(&ids).unwrap();
            let good: Vec<_> = ids.into_iter().zip(rows.iter().flatten().map(Place::of)).collect();
            clear(&world.store, &good[..2]).is_ok() && clear(&world.store, &good).is_ok()
        }),
    ];
    for (what, work) in works {
        let (world, client) = damaged();
        let before = world.index.commits();
        assert!(work(&world, &client), "{what}");
        let commits = world.index.commits() - before;
        assert!(commits >= 2 && told(&world).is_none(), "{what}: {commits}");
        for cut in 0..commits {
            let (mut world, client) = damaged();
            world.index.fail_after(cut);
            assert!(!work(&world, &client), "{what} notices cut {cut}");
            world.index.heal();
            world.crash();
            assert!(is_right(&world), "{what}, cut {cut} of {commits}: {:?}", told(&world));
        }
    }
}

/// G10: what is known of a blob already is not counted twice, nor taken twice from the count.
#[test]
fn a_blob_is_counted_once() {
    let (world, client) = damaged();

    assert_eq!((mark_all(&world), told(&world)), (0, Some(3)));
    send(&world, &client, TEXTS[0]).unwrap();
    send(&world, &client, TEXTS[0]).unwrap();
    assert_eq!(told(&world), Some(2));
    assert_eq!((mark_all(&world), told(&world)), (1, Some(3)));
    assert!(is_right(&world));
}

/// G10: an index in which nobody has counted is counted by the first that changes something.
#[test]
fn blobs_that_were_never_counted_are_counted_with_the_first_change() {
    let (world, client) = damaged();
    let mut batch = Batch::new();
    batch.delete(Table::Meta, COUNT_KEY);
    world.store.commit(batch).unwrap();

    send(&world, &client, TEXTS[0]).unwrap();

    assert_eq!(told(&world), Some(2));
}
