//! Requests beside the collector, and beside each other: what is read while it moves, what is put while
//! nobody waits for it any more, what two forget at once.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use format_spec::SnapshotId;
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, ForgetRequest, GcRequest, Held, RunMode};
use tokio::sync::Notify;

use super::whole::{faults, leftovers};
use crate::error::ServerError;
use crate::index::{Batch, Index, IndexError, KeyRange, Rows, Table};
use crate::operation;
use crate::pack;
use crate::rows::Epoch;
use crate::server::Server;
use crate::session;
use crate::settings::Percent;
use crate::site::hooked::HookedSite;
use crate::site::layout::pack_object;
use crate::site::{ObjectName, Op, Site};
use crate::snapshot;
use crate::snapshot::series::Smaller;
use crate::stats;
use crate::store::Parts;
use crate::sync::lock;
use crate::testing::{Watched, World, tree};

fn hooked() -> (Arc<HookedSite>, World) {
    let site = HookedSite::new();
    let world = World::on(Arc::<HookedSite>::clone(&site));
    (site, world)
}

/// A snapshot of `three`, which the next run repacks, and the pack in which it still lies.
fn thin_pack(world: &mut World) -> (SnapshotId, ObjectName) {
    world.upkeep.gc.repack_below = Percent::new(90).unwrap();
    world.crash();
    let thin = world.push("n", &tree(&["three", "four", "five times five"]));
    let kept = world.push("n", &tree(&["three"]));
    world.forget(thin);
    let id = world.id_of(BlobKind::Chunk, b"three");
    let row = world.store.chunk_rows([&id]).unwrap()[0].unwrap();
    (kept, pack_object(&world.store.pack_row(row.pack).unwrap().id))
}

async fn collect(server: &Arc<Server>) {
    let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
    operation::run_unheard(server, request).await.unwrap();
}

/// A request whose put of an object below `area` has begun, and whose client goes away; then the collector
/// runs, and the put ends: once the collector is through, unless it waits for what is on its way.
fn client_leaves<T>(
    site: &HookedSite,
    world: &World,
    area: &str,
    request: impl Future<Output = T>,
    then: impl FnOnce(),
) {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes_on) = (Arc::clone(&begun), Arc::clone(&go_on));
    site.before(Op::Put, area, async move {
        begins.notify_one();
        goes_on.notified().await;
    });
    world.wait(async {
        tokio::select! {
            _ = request => panic!("it waits for the put"),
            () = begun.notified() => {}
        }
        then();
        let server = Arc::clone(&world.server);
        let collects = tokio::spawn(async move { collect(&server).await });
        while world.server.in_flight.is_empty() && !collects.is_finished() {
            tokio::task::yield_now().await;
        }
        go_on.notify_one();
        collects.await.unwrap();
        while site.is_putting() || !world.server.in_flight.is_empty() {
            tokio::task::yield_now().await;
        }
        collect(&world.server).await;
    });
}

/// S7, G6: an object that is on its way when its client goes away is seen to land, or goes.
#[test]
fn a_commit_whose_client_leaves_leaves_no_object_behind() {
    let (site, world) = hooked();
    let client = world.begin("n");
    let content = tree(&["a"]);
    world.send_missing(&client, &content).unwrap();
    let page = world.page(&content);
    let id = world.send(&client, BlobKind::Page, &page).unwrap();
    let body = world.manifest(&client, &[(id, page.len())]);
    let commit = snapshot::commit(&world.server, client.id, body, Smaller::Suspect, ());

    client_leaves(&site, &world, "snapshots", commit, || {
        session::abort(&world.server.sessions, client.id, |_| true).unwrap();
    });

    assert_eq!((leftovers(&world), world.count(Table::Snapshot)), (vec![], 0));
    assert_eq!((faults(&world), world.doomed()), (vec![], vec![]));
}

/// S7, G6: the same holds for the object that says that a snapshot is protected.
#[test]
fn a_protection_whose_client_leaves_holds_if_the_site_says_so() {
    let (site, world) = hooked();
    let id = world.push("n", &tree(&["a"]));
    let protect = snapshot::protect(&world.store, &world.server.in_flight, id, "audit".to_owned());

    client_leaves(&site, &world, "protections", protect, || {});

    assert_eq!(world.objects("protections").len(), 1);
    let marks = snapshot::marks(&world.store).unwrap();
    assert!(marks.get(&id).is_some_and(|mark| mark.protection.is_some()));
}

/// G4: whoever has looked up where a blob lies finds it, also if it moves before it is read.
#[test]
fn a_restore_reads_what_is_repacked_between_the_look_at_its_row_and_the_read() {
    let (site, mut world) = hooked();
    let (kept, pack) = thin_pack(&mut world);
    let server = Arc::clone(&world.server);
    site.before(Op::GetRanges, pack.as_str(), async move { collect(&server).await });

    let read = world.read(kept);

    assert!(!site.is_waiting());
    assert!(!world.objects("packs").contains(&pack.as_str().to_owned()), "it was repacked");
    assert_eq!(read.unwrap(), tree(&["three"]));
}

/// Two snapshots of one node that share a page, of which the next run purges the first. The page lies in a pack
/// that the run writes anew.
fn one_goes(world: &mut World) -> (SnapshotId, ObjectName) {
    world.upkeep.gc.repack_below = Percent::new(90).unwrap();
    world.crash();
    let contents = [tree(&["stays"]), tree(&["goes", "with it", "and this as well"])];
    let client = world.begin("n");
    contents.iter().for_each(|content| world.send_missing(&client, content).unwrap());
    let send = |content| {
        let page = world.page(content);
        (world.send(&client, BlobKind::Page, &page).unwrap(), page.len())
    };
    let pages = contents.each_ref().map(send);
    let both = world.commit(&client, &pages).unwrap();
    let one = world.begin("n");
    world.have(&one, &[pages[0].0]).unwrap();
    let kept = world.commit(&one, &pages[..1]).unwrap();
    world.forget(both);
    let row = world.store.chunk_rows([&pages[0].0]).unwrap()[0].unwrap();
    (kept, pack_object(&world.store.pack_row(row.pack).unwrap().id))
}

/// A pack that is deleted during the count is not treated as damage.
#[test]
fn stats_beside_a_run_count_what_is_still_there() {
    for (op, area) in [(Op::Get, "manifests"), (Op::GetRanges, "packs")] {
        let (site, mut world) = hooked();
        let (kept, pages) = one_goes(&mut world);
        let server = Arc::clone(&world.server);
        site.before(op, area, async move { collect(&server).await });

        let report =
            world.wait(operation::run_unheard(&world.server, stats::Stats { cluster: None })).unwrap();

        assert!(!site.is_waiting(), "{op:?}");
        assert!(!world.objects("packs").contains(&pages.as_str().to_owned()), "it was rewritten");
        let counted: Vec<u64> = report.nodes.iter().map(|node| node.snapshots).collect();
        assert_eq!((counted, &report.not_counted), (vec![1], &vec![]), "{op:?}: {report:?}");
        let after =
            world.wait(operation::run_unheard(&world.server, stats::Stats { cluster: None })).unwrap();
        assert_eq!(report.snapshots.last(), after.snapshots.last());
        assert!(matches!(after.snapshots.as_slice(), [only] if only.id == kept), "{after:?}");
    }
}

/// Twin: what is gone and should be there is damage still.
#[test]
fn stats_name_a_snapshot_that_is_listed_and_has_no_manifest() {
    let (site, world) = hooked();
    let id = world.push("n", &tree(&["a"]));
    let manifest = ObjectName::new(&world.objects("manifests")[0]).unwrap();
    world.wait(site.delete(&manifest)).unwrap();

    let report = world.wait(operation::run_unheard(&world.server, stats::Stats { cluster: None })).unwrap();

    assert!(report.snapshots.is_empty() && report.nodes.is_empty(), "{report:?}");
    assert!(matches!(report.not_counted.as_slice(), [lost] if lost.id == id), "{report:?}");
}

/// An index in which something happens once, after rows of chunks were read.
struct HookedIndex {
    inner: Watched,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Index for HookedIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let found = self.inner.multi_get(table, keys);
        let hook = lock(&self.hook).take_if(|_| table == Table::Chunk);
        if let Some(hook) = hook {
            hook();
        }
        found
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        self.inner.scan(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        self.inner.commit(batch)
    }
}

/// X7: a row that was read just before its blob moved names a pack that has no row any more. That is not
/// taken for a damaged index.
#[test]
fn a_question_between_whose_two_looks_at_the_index_a_blob_moves_is_answered() {
    let mut world = World::new();
    let (_, pack) = thin_pack(&mut world);
    let id = world.id_of(BlobKind::Chunk, b"three");
    let (index, site) = (world.index.clone(), Arc::clone(&world.site));
    let world = Arc::new(Mutex::new(world));
    let collector = Arc::clone(&world);
    let hook = move || {
        lock(&collector).gc(Delays::Skip);
    };
    let hooked = HookedIndex { inner: index, hook: Mutex::new(Some(Box::new(hook))) };
    // A restarted server has no row of a pack in memory.
    let server = Parts { site, ..Parts::default() }.over(hooked).serve();
    let domain = server.domain(&"c".parse().unwrap());

    let have = pack::have(&domain, Epoch::default(), &[id]);

    assert!(!lock(&world).objects("packs").contains(&pack.as_str().to_owned()), "it was repacked");
    assert_eq!(have.unwrap(), [Held::Here]);
}

/// G9: two that forget at once do not each take the other's snapshot for the one that stays.
#[test]
fn two_that_forget_at_once_leave_a_complete_snapshot() {
    let world = World::new();
    let (one, other) = (world.push("n", &tree(&["a"])), world.push("n", &tree(&["b"])));
    let forget = |id| {
        let request = ForgetRequest { mode: RunMode::Apply, snapshots: vec![id], ..ForgetRequest::default() };
        operation::run_unheard(&world.server, request)
    };

    let (first, second) = world.wait(async { tokio::join!(forget(one), forget(other)) });

    assert!(first.is_ok(), "{first:?}");
    let refused = second.unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "last_complete", .. }), "{refused:?}");
    let marks = snapshot::marks(&world.store).unwrap();
    assert!(marks.get(&one).is_some_and(|mark| mark.tombstone.is_some()));
    assert!(marks.get(&other).is_none_or(|mark| mark.tombstone.is_none()));
}
