//! Blobs in two packs, one of which is damaged.

use std::cmp::Ordering;

use format_spec::wire::{Delays, GcRequest, LargeDelete, RunMode};

use super::*;
use crate::defects::blobs::{self, Place};
use crate::rows::{DamagedRow, Health};
use crate::site::layout::pack_object;

/// Where a copy's name comes, seen from that of the pack which holds the other one.
const ORDERS: [Ordering; 2] = [Ordering::Less, Ordering::Greater];

/// A repository with one pack of chunks, and the name of that: one with room for names on both sides.
async fn world_of(contents: &[&str]) -> (World, PackId) {
    loop {
        let world = World::new();
        world.push("n", contents).await;
        let pack = pack_of(&world, contents[0]);
        if (0x40..0xc0).contains(&pack.as_bytes()[0]) {
            return (world, pack);
        }
    }
}

fn pack_of(world: &World, content: &str) -> PackId {
    world.store.pack_row(world.row(world.chunk(content)).unwrap().pack).unwrap().id
}

/// Stores copies in one more pack whose name comes before or after that of `other`.
async fn copies(world: &World, contents: &[&str], order: Ordering, other: PackId) -> PackId {
    let salt = (0..=u8::MAX).find(|salt| sealed_pack(world, contents, *salt).id.cmp(&other) == order);
    strange_pack(world, contents, salt.unwrap()).await
}

/// Damages the bytes of a chunk in a pack whose first blob it is, or as the index of `world` places it.
async fn rot(world: &World, pack: PackId, content: &str) {
    let row = world.row(world.chunk(content)).unwrap();
    let is_indexed = world.store.pack_row(row.pack).unwrap().id == pack;
    let at = if is_indexed { row.offset } else { first_offset(world, pack).await };
    flip_at(world, &pack_object(&pack), usize::try_from(at).unwrap() + 20).await;
}

async fn first_offset(world: &World, pack: PackId) -> u32 {
    let len = world.site().len(&pack_object(&pack)).await.unwrap();
    crate::pack::read_directory(&world.store, &pack, len).await.unwrap().entries[0].offset
}

async fn is_readable(world: &World, content: &str) -> bool {
    let domain = world.store.domain(&"c".parse().unwrap());
    crate::pack::read_blobs(&world.store, &domain, vec![world.chunk(content)]).await.is_ok()
}

async fn collect(world: &World) {
    let (mode, delays, large) = (RunMode::Apply, Delays::Skip, LargeDelete::Allow);
    let request = GcRequest { mode, delays, large, ..GcRequest::default() };
    crate::gc::run(&world.server, request, &|_, _| {}).await.unwrap();
}

fn alarms(world: &World) -> usize {
    crate::health::alarms(&world.store).unwrap().len()
}

/// G11, G10: what was healed stays healed, whatever the packs are called, and also when the collector does at once
/// what it may.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_heal_the_good_copy_is_taken() {
    for round in 0..20 {
        let (world, pack) = world_of(&["alpha", "beta"]).await;
        rot(&world, pack, "alpha").await;
        let row = world.row(world.chunk("alpha")).unwrap();
        let damage = (world.chunk("alpha"), Place::of(&row), "rotten".to_owned());
        blobs::mark(&world.store, &[damage]).unwrap();
        world.push("n", &["alpha", "beta"]).await;

        let (anew, report) = rebuilt(&world).await;

        assert!(report.is_sound(), "{report:?}");
        assert_eq!(rows(&anew), rows(&world), "round {round}");
        collect(&anew).await;
        assert!(is_readable(&anew, "alpha").await && is_readable(&anew, "beta").await, "round {round}");
        assert_eq!(audit(&anew, Repair::No).await.findings, []);
    }
}

/// P2: the copy that opens is taken, and the pack that holds it is not doomed; the rest of the other pack stays.
#[tokio::test(flavor = "multi_thread")]
async fn the_copy_that_opens_is_taken_whatever_its_pack_is_called() {
    for order in ORDERS {
        let (world, pack) = world_of(&["alpha", "beta"]).await;
        let good = copies(&world, &["alpha"], order, pack).await;
        rot(&world, pack, "alpha").await;

        let (anew, report) = rebuilt(&world).await;

        assert!(report.is_sound(), "{report:?}");
        assert_eq!((pack_of(&anew, "alpha"), pack_of(&anew, "beta")), (good, pack), "{order:?}");
        assert_eq!(anew.row(anew.chunk("alpha")).unwrap().health, Health::Sound);
        assert_eq!((doomed(&anew), report.dead_packs, report.chunks), (Vec::new(), 0, 3));
        assert!(is_readable(&anew, "alpha").await && is_readable(&anew, "beta").await);
        assert_eq!((anew.rows(Table::Damaged), alarms(&anew)), (Vec::new(), 0));
        assert_eq!(audit(&anew, Repair::No).await.findings, []);
    }
}

/// G10: with no good copy the blob is in quarantine, every pack is kept, and the next push heals it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_which_no_copy_opens_is_in_quarantine_and_a_finding() {
    for order in ORDERS {
        let (world, pack) = world_of(&["alpha", "beta"]).await;
        let other = copies(&world, &["alpha"], order, pack).await;
        rot(&world, other, "alpha").await;
        rot(&world, pack, "alpha").await;

        let (anew, report) = rebuilt(&world).await;

        let alpha = anew.chunk("alpha");
        assert_eq!((report.found, report.findings[0].object.clone()), (1, alpha.to_string()), "{report:?}");
        assert_eq!(anew.row(alpha).unwrap().health, Health::Damaged);
        let [(key, value)] = anew.rows(Table::Damaged).try_into().unwrap();
        assert_eq!(key, alpha.as_bytes());
        assert_eq!(DamagedRow::decode(&value).unwrap().cluster, "c");
        assert_eq!(alarms(&anew), 1);
        assert_eq!(doomed(&anew), Vec::<String>::new(), "{order:?}");
        assert_eq!(pack_of(&anew, "beta"), pack);
        assert_eq!(audit(&anew, Repair::No).await.findings, []);

        anew.push("n", &["alpha", "beta"]).await;

        assert!(is_readable(&anew, "alpha").await);
        assert_eq!((anew.rows(Table::Damaged), alarms(&anew)), (Vec::new(), 0));
    }
}

/// The one good copy of three is used, also if the other two were tried before.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_copy_ends_what_two_damaged_ones_began() {
    for (of_bad, of_good) in ORDERS.into_iter().flat_map(|bad| ORDERS.map(|good| (bad, good))) {
        let (world, pack) = world_of(&["alpha", "beta"]).await;
        let bad = copies(&world, &["alpha"], of_bad, pack).await;
        let good = copies(&world, &["alpha", "gamma"], of_good, pack).await;
        rot(&world, bad, "alpha").await;
        rot(&world, pack, "alpha").await;

        let (anew, report) = rebuilt(&world).await;

        assert!(report.is_sound(), "{report:?}");
        assert_eq!(pack_of(&anew, "alpha"), good);
        assert!(is_readable(&anew, "alpha").await && is_readable(&anew, "beta").await);
        assert_eq!((anew.rows(Table::Damaged), alarms(&anew)), (Vec::new(), 0));
        assert!(!doomed(&anew).contains(&pack_object(&good).to_string()));
    }
}

/// A copy that cannot be read now is not taken for damaged: the rebuild ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_had_ends_the_rebuild() {
    let (world, pack) = world_of(&["alpha", "beta"]).await;
    copies(&world, &["alpha"], Ordering::Less, pack).await;
    let packs = objects(&world, Area::Packs).await.len();
    let mut after = 0;
    loop {
        let site = Arc::new(FaultySite::new(world.site()));
        let kind = FaultKind::Refuse(Refusal::Unavailable);
        site.arm(Fault { op: Some(Op::GetRanges), after, kind });
        let anew = World::over(site);
        match anew.store.blocking(fill_from_site).await {
            Err(error) => assert!(matches!(error, ServerError::Site(_)), "{after}: {error}"),
            Ok(report) => break assert!(report.is_sound()),
        }
        after += 1;
    }
    assert_eq!(after, packs + 1, "the ends of all packs, and a copy");
}
