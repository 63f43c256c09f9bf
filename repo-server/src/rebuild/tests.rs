mod copies;
mod pages;

use std::collections::BTreeMap;
use std::sync::Arc;

use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::pack::{PackBuilder, SealedPack};
use format_spec::wire::{AuditReport, Repair};
use format_spec::{ChunkId, PackId};

use super::RebuildReport;
use super::fill::fill_from_site;
use crate::checkpoint::{self, When};
use crate::error::ServerError;
use crate::index::Table;
use crate::rows::{ChunkRow, DoomedKey, Epoch, Live, Totals};
use crate::session::{self, Pusher};
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::layout::pack_object;
use crate::site::{Area, ObjectName, Op, Prefix};
use crate::world::World;

/// Rows of an index as they are with any numbers for packs.
#[derive(Debug, PartialEq, Eq)]
struct Rows {
    chunks: BTreeMap<Vec<u8>, (PackId, ChunkRow)>,
    packs: BTreeMap<PackId, (u64, BlobKind, String, Live)>,
    snapshots: Vec<(Vec<u8>, Vec<u8>)>,
    manifests: Vec<(Vec<u8>, Vec<u8>)>,
    totals: Totals,
}

fn rows(world: &World) -> Rows {
    let packs: BTreeMap<_, _> = world.packs().into_iter().collect();
    let chunk = |(key, value): (Vec<u8>, Vec<u8>)| {
        let row = ChunkRow::decode(&value).unwrap();
        let anywhere = ChunkRow { pack: crate::rows::PackNumber(0), idle_since: Epoch(0), ..row };
        (key, (packs[&row.pack].id, anywhere))
    };
    let pack =
        |row: &crate::rows::PackRow| (row.id, (row.len, row.kind, row.domain.as_str().to_owned(), row.live));
    Rows {
        chunks: world.rows(Table::Chunk).into_iter().map(chunk).collect(),
        packs: packs.values().map(pack).collect(),
        snapshots: world.rows(Table::Snapshot),
        manifests: world.rows(Table::Manifest),
        totals: Totals { next_pack: 0, ..world.store.totals().unwrap() },
    }
}

async fn world() -> World {
    let world = World::new();
    world.push("n", &["alpha", "beta"]).await;
    world.push("m", &["beta", "gamma"]).await;
    world.push("n", &["alpha", "beta", "delta"]).await;
    world
}

/// A rebuild from the site of `world`.
async fn rebuilt(world: &World) -> (World, RebuildReport) {
    let anew = World::over(world.site());
    let report = anew.store.blocking(fill_from_site).await.unwrap();
    (anew, report)
}

async fn audit(world: &World, repair: Repair) -> AuditReport {
    crate::audit::run(&world.server, repair, Arc::new(|_, _| {})).await.unwrap()
}

async fn objects(world: &World, area: Area) -> Vec<ObjectName> {
    let listed = world.site().list(&Prefix::area(area)).await.unwrap();
    listed.into_iter().map(|object| object.name).collect()
}

async fn flip(world: &World, name: &ObjectName) {
    let len = world.site().get(name).await.unwrap().len();
    flip_at(world, name, len / 2).await;
}

async fn flip_at(world: &World, name: &ObjectName, at: usize) {
    change(world, name, |bytes| bytes[at] ^= 1).await;
}

/// Changes an object on the site behind everybody's back.
async fn change(world: &World, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = world.site().get(name).await.unwrap().to_vec();
    change(&mut bytes);
    world.site().delete(name).await.unwrap();
    world.site().put_new(name, bytes.into()).await.unwrap();
}

/// Stores a pack of chunks past the index, and returns its name.
async fn strange_pack(world: &World, contents: &[&str], salt: u8) -> PackId {
    let sealed = sealed_pack(world, contents, salt);
    world.site().put_new(&pack_object(&sealed.id), sealed.bytes).await.unwrap();
    sealed.id
}

/// A pack of chunks that is stored nowhere.
fn sealed_pack(world: &World, contents: &[&str], salt: u8) -> SealedPack {
    let store = &world.store;
    let cluster = "c".parse().unwrap();
    let domain = store.domain(&cluster);
    let mut pack = PackBuilder::new(1, store.id(), cluster, [salt; 32]);
    for content in contents {
        let plain = content.repeat(50).into_bytes();
        let id = domain.key.id_of(BlobKind::Chunk, &plain);
        let plain_len = u32::try_from(plain.len()).unwrap();
        let info = BlobInfo { kind: BlobKind::Chunk, id, plain_len, compression: Compression::Raw };
        let mut blob = Vec::new();
        domain.sealer.seal(&info, &plain, &mut blob);
        pack.append(&info, &blob, Vec::new());
    }
    pack.seal(&store.keys)
}

fn doomed(world: &World) -> Vec<String> {
    let name = |(key, _): (Vec<u8>, Vec<u8>)| DoomedKey::decode(&key).unwrap().name.to_string();
    world.rows(Table::Doomed).into_iter().map(name).collect()
}

/// G11, X8: after a rebuild every row and every count is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_rebuilt_as_it_was() {
    let world = world().await;

    let (anew, report) = rebuilt(&world).await;

    assert_eq!(rows(&anew), rows(&world));
    assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.snapshots, report.packs, report.packs_of_checkpoints), (3, 6, 0));
    assert_eq!(audit(&anew, Repair::No).await.findings, []);
    assert_eq!(doomed(&anew), Vec::<String>::new());
    anew.push("n", &["alpha", "epsilon"]).await;
    assert_eq!(audit(&anew, Repair::No).await.findings, []);
}

/// G11: a checkpoint is a shortcut to what the site says, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_give_the_same_index_whole_or_damaged_or_of_packs_that_are_gone() {
    let world = World::new();
    world.push("n", &["alpha", "beta"]).await;
    checkpoint::run(&world.server, When::Now).await.unwrap();
    world.push("m", &["beta", "gamma"]).await;

    let (anew, report) = rebuilt(&world).await;
    assert_eq!(rows(&anew), rows(&world));
    assert_eq!((report.packs_of_checkpoints, report.packs), (2, 4));
    let heads = objects(&world, Area::Heads).await;
    assert_eq!(doomed(&anew), [heads[0].to_string()], "the next ones cover all packs");

    flip(&world, &heads[0]).await;
    let (anew, report) = rebuilt(&world).await;
    assert_eq!(rows(&anew), rows(&world));
    assert_eq!((report.packs_of_checkpoints, report.notes.len(), report.found), (0, 1, 0));

    flip(&world, &heads[0]).await;
    for pack in objects(&world, Area::Packs).await {
        world.site().delete(&pack).await.unwrap();
    }
    let (anew, report) = rebuilt(&world).await;
    assert_eq!((report.packs, report.packs_of_checkpoints, report.chunks), (0, 0, 0));
    assert_eq!(anew.rows(Table::Chunk), []);
}

/// Unreferenced blobs get rows, and the collector's queue leads to them.
#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_pack_is_taken_in_and_left_to_the_collector() {
    let world = world().await;
    let orphan = strange_pack(&world, &["nobody", "needs"], 1).await;

    let (anew, report) = rebuilt(&world).await;

    assert!(report.is_sound());
    let row = anew.row(world.chunk("nobody")).unwrap();
    assert_eq!((row.references, row.idle_since), (0, Epoch(0)));
    assert!(anew.packs().iter().any(|(_, pack)| pack.id == orphan && pack.live.blobs == 2));
    assert_eq!(audit(&anew, Repair::No).await.findings, [], "an item of the queue leads to it");
}

/// P3: of two copies the one in the pack that comes first by name is taken, in whatever order they are read.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_in_two_packs_has_one_row_and_a_pack_without_any_is_doomed() {
    for salts in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
        let world = World::new();
        world.push("n", &["alpha", "beta"]).await;
        checkpoint::run(&world.server, When::Now).await.unwrap();
        let mut copies = Vec::new();
        for salt in salts {
            copies.push(strange_pack(&world, &["alpha", "beta"], salt).await);
        }
        copies.extend(
            world.packs().into_iter().filter(|(_, row)| row.kind == BlobKind::Chunk).map(|(_, row)| row.id),
        );
        copies.sort();

        let (anew, report) = rebuilt(&world).await;

        let row = anew.row(world.chunk("alpha")).unwrap();
        assert_eq!(anew.store.pack_row(row.pack).unwrap().id, copies[0]);
        assert_eq!((report.packs, report.dead_packs, report.chunks), (2, 3, 3));
        let dead: Vec<String> = doomed(&anew).into_iter().filter(|name| name.starts_with("packs/")).collect();
        assert_eq!(dead, copies[1..].iter().map(|id| pack_object(id).to_string()).collect::<Vec<_>>());
        assert_eq!(audit(&anew, Repair::No).await.findings, []);
    }
}

/// X7, S3: where a pack of chunks is lost, its chunks and the pages that refer to them are asked for again, and what
/// was owed to those pages is counted when they come.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_of_chunks_costs_the_pages_that_need_it_until_they_are_pushed_again() {
    let world = World::new();
    let hurt = world.push("n", &["alpha", "beta"]).await;
    world.push("m", &["gamma"]).await;
    let pack = world.store.pack_row(world.row(world.chunk("alpha")).unwrap().pack).unwrap().id;
    world.site().delete(&pack_object(&pack)).await.unwrap();

    let (anew, report) = rebuilt(&world).await;

    assert_eq!(report.found, 2, "{:?}", report.findings);
    assert!(report.findings[0].problem.starts_with("2 chunks"), "{:?}", report.findings);
    assert_eq!(report.findings[1].snapshots, [hurt]);
    assert_eq!((report.snapshots, report.packs, report.dead_packs), (2, 2, 0));
    assert_eq!(
        (report.notes.len(), doomed(&anew)),
        (1, Vec::new()),
        "the pages are kept: the pack may turn up"
    );
    let known = audit(&anew, Repair::No).await;
    assert_eq!(known.findings.len(), 1);
    assert!(known.findings[0].problem.contains("is lost"), "{known:?}");
    assert_eq!(crate::health::alarms(&anew.store).unwrap(), []);

    anew.push("n", &["alpha", "beta"]).await;

    assert_eq!(audit(&anew, Repair::No).await.findings, []);
    let rows = anew.rows(Table::Chunk).into_iter();
    let page = rows.map(|(_, value)| ChunkRow::decode(&value).unwrap());
    let counts: Vec<u64> = page.filter(|row| row.kind == BlobKind::Page).map(|row| row.references).collect();
    assert!(counts.contains(&2), "the old snapshot and the new one: {counts:?}");
}

/// The twin: an audit sees what is owed when the index does not say it, and says it.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_mends_what_is_owed_to_a_lost_page() {
    let world = World::new();
    world.push("n", &["alpha"]).await;
    let page = world
        .rows(Table::Chunk)
        .into_iter()
        .find(|(_, value)| ChunkRow::decode(value).unwrap().kind == BlobKind::Page);
    let page = ChunkId::from_bytes(page.unwrap().0.try_into().unwrap());
    let pack = world.store.pack_row(world.row(page).unwrap().pack).unwrap().id;
    world.site().delete(&pack_object(&pack)).await.unwrap();
    let (anew, _) = rebuilt(&world).await;
    let mut batch = crate::index::Batch::new();
    crate::catalog::lost_pages::set(&mut batch, &page, 0);
    anew.index().commit(batch).unwrap();

    let mended = audit(&anew, Repair::Yes).await;

    assert_eq!((mended.found, mended.mended), (1, 1), "{mended:?}");
    assert_eq!(crate::catalog::lost_pages::counts(&anew.store, [&page]).unwrap(), [1]);
}

/// Lost data of snapshots is reported, and the snapshots are still listed.
#[tokio::test(flavor = "multi_thread")]
async fn missing_manifests_and_damaged_snapshots_are_named() {
    let world = world().await;
    let manifests = objects(&world, Area::Manifests).await;
    world.site().delete(&manifests[0]).await.unwrap();
    flip(&world, &manifests[1]).await;
    let snapshots = objects(&world, Area::Snapshots).await;
    let moved = ObjectName::new("snapshots/01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    let bytes = world.site().get(&snapshots[0]).await.unwrap();
    world.site().put_new(&moved, bytes).await.unwrap();
    flip(&world, &snapshots[1]).await;

    let (anew, report) = rebuilt(&world).await;

    let named = |name: &str| report.findings.iter().any(|lost| lost.object.contains(name));
    assert!(named(moved.as_str()) && named(snapshots[1].as_str()), "{report:?}");
    assert_eq!(anew.rows(Table::Snapshot).len(), 2);
    let hurt = report.findings.iter().filter(|lost| lost.object.starts_with("manifest:"));
    assert!(hurt.clone().count() >= 1 && hurt.clone().all(|lost| lost.snapshots.len() == 1), "{report:?}");
    assert!(
        audit(&anew, Repair::No).await.findings.iter().all(|found| found.object.starts_with("manifest:"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_site_are_noted_and_left_alone() {
    let world = world().await;
    let odd = ["packs/aa/short", "snapshots/yesterday", "manifests/none", "heads/other"];
    for name in odd {
        world.site().put_new(&ObjectName::new(name).unwrap(), "x".into()).await.unwrap();
    }
    let hex = "ab".repeat(32);
    let alone = ObjectName::new(&format!("manifests/{hex}")).unwrap();
    world.site().put_new(&alone, "x".into()).await.unwrap();
    let broken = ObjectName::new(&format!("packs/ab/{hex}")).unwrap();
    world.site().put_new(&broken, vec![0; 65_536].into()).await.unwrap();

    let (anew, report) = rebuilt(&world).await;

    assert_eq!(report.notes.len(), 4, "{:?}", report.notes);
    assert_eq!(
        report.findings.iter().map(|lost| lost.object.clone()).collect::<Vec<_>>(),
        [format!("pack:{hex}")]
    );
    assert_eq!(rows(&anew), rows(&world));
    assert_eq!(doomed(&anew), Vec::<String>::new());
    for name in [alone, broken] {
        world.site().get(&name).await.unwrap();
    }
}

/// L1: tokens after a rebuild are greater than those before.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_go_on_far_above_where_they_were() {
    let world = world().await;
    let pusher = || Pusher { cluster: "c".parse().unwrap(), node: "n".parse().unwrap() };
    let before = session::open(&world.server.sessions, pusher(), None).unwrap().row.token;

    let (anew, _) = rebuilt(&world).await;

    let after = session::open(&anew.server.sessions, pusher(), None).unwrap().row.token;
    assert!(after > before + 1_000_000_000, "{before} {after}");
    assert_eq!(anew.index().get(Table::Meta, Epoch::KEY).unwrap(), Some(Epoch(1).encode()));
}

/// A listing that fails, or an object that cannot be had now, ends the rebuild: nothing is guessed.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_does_not_answer_ends_the_rebuild() {
    let world = world().await;
    let mut ended = 0;
    for op in [Op::List, Op::GetRanges, Op::Get] {
        for after in 0..3 {
            let site = Arc::new(FaultySite::new(world.site()));
            site.arm(Fault { op: Some(op), after, kind: FaultKind::Refuse(Refusal::Unavailable) });
            let anew = World::over(Arc::<FaultySite>::clone(&site));

            let error = anew.store.blocking(fill_from_site).await.unwrap_err();

            assert!(matches!(error, ServerError::Site(_)), "{op:?} {after}: {error}");
            assert_eq!(anew.index().get(Table::Meta, Totals::KEY).unwrap(), None);
            ended += 1;
        }
    }
    assert_eq!(ended, 9);
}

/// G11: a site whose snapshots are gone, and whose manifests are there, was rebuilt in part, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_a_cluster_without_snapshots_are_a_loss() {
    let world = world().await;
    for snapshot in objects(&world, Area::Snapshots).await {
        world.site().delete(&snapshot).await.unwrap();
    }

    let (_, report) = rebuilt(&world).await;

    assert_eq!((report.snapshots, report.found, report.is_sound()), (0, 3, false), "{report:?}");
    assert!(report.findings.iter().all(|lost| lost.problem.contains("cluster `c`")), "{report:?}");
}

/// P4: a snapshot's object that claims to be huge is damaged, and takes no memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_too_long_is_not_read() {
    let world = world().await;
    let snapshot = objects(&world, Area::Snapshots).await.remove(0);
    world.site().delete(&snapshot).await.unwrap();
    world.site().put_new(&snapshot, vec![0; (1 << 20) + 1].into()).await.unwrap();

    let (_, report) = rebuilt(&world).await;

    let found = report.findings.iter().find(|lost| lost.object == snapshot.as_str()).unwrap();
    assert!(found.problem.contains("more than the maximum of 1048576"), "{found:?}");
}
