//! Schedules by which other systems lost data beside their collectors, and what each rule is there for.
//!
//! Each schedule has a twin without the rules that guard it, which must lose: what was acknowledged cannot be
//! read, or what was promised is not there.

use std::sync::Arc;

use bytes::Bytes;
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, Held};
use tokio::sync::Semaphore;

use super::whole::{faults, leftovers};
use crate::error::ServerError;
use crate::gc::delete::TOGETHER;
use crate::index::{Batch, Table};
use crate::operation;
use crate::rows::{DoomedKey, DoomedKind, DoomedRow};
use crate::rules::Rule;
use crate::server::Server;
use crate::session;
use crate::site::{Listed, ObjectName, Prefix, Put, Site, SiteFuture, StoreSite};
use crate::snapshot;
use crate::snapshot::series::Smaller;
use crate::testing::{World, tree};

fn without(world: &World, rules: &[Rule]) {
    for rule in rules {
        world.store.rules.remove(*rule);
    }
}

/// Guards of a push beside the collector: pins, and behind them two checks in batches.
const GUARDS: [Rule; 3] = [Rule::DropOnlyBeforeSessions, Rule::PageFindsItsChunks, Rule::CommitFindsItsPages];

/// Proxmox PSA-2025-00019-1: a push relies on snapshot S0 without asking, S0 goes while the collector runs,
/// and the push commits S1 with what was S0's.
fn proxmox(world: &World) -> Result<bool, ServerError> {
    let content = tree(&["a", "b"]);
    let s0 = world.push("n", &content);
    let client = world.begin("n");
    world.forget(s0);
    world.gc(Delays::Skip);
    world.gc(Delays::Skip);
    let page = world.page(&content);
    let id = world.id_of(BlobKind::Page, &page);
    let s1 = world.commit(&client, &[(id, page.len())])?;
    world.gc(Delays::Skip);
    Ok(world.read(s1).is_ok_and(|read| read == content))
}

/// G2: the schedule of Proxmox PSA-2025-00019-1 loses nothing.
#[test]
fn a_snapshot_based_on_one_that_goes_beside_the_collector_is_whole() {
    let world = World::new();
    assert!(proxmox(&world).unwrap());
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
}

#[test]
fn without_pins_the_schedule_of_proxmox_is_refused_and_without_checks_it_loses() {
    let world = World::new();
    without(&world, &[Rule::DropOnlyBeforeSessions]);
    assert!(matches!(proxmox(&world), Err(ServerError::MissingChunks { .. })));

    let world = World::new();
    without(&world, &GUARDS);
    assert!(!proxmox(&world).unwrap(), "acknowledged, and gone");
}

/// Duplicacy: two pushes of one node at once. The second ends after the collector has condemned what the
/// first relies on, which opens the gate for good.
fn duplicacy(world: &World) -> Result<bool, ServerError> {
    let old = tree(&["shared"]);
    let s0 = world.push("n", &old);
    let first = world.begin("n");
    let id = world.id_of(BlobKind::Chunk, b"shared");
    assert_eq!(world.have(&first, &[id])?, [Held::Here]);
    world.forget(s0);
    world.gc(Delays::Skip);
    world.push("n", &tree(&["something else"]));
    world.gc(Delays::Skip);
    let page = world.page(&old);
    let page_id = world.send(&first, BlobKind::Page, &page)?;
    let s1 = world.commit(&first, &[(page_id, page.len())])?;
    world.gc(Delays::Skip);
    Ok(world.read(s1).is_ok_and(|read| read == old))
}

/// G2: every session counts, not only the newest of a node.
#[test]
fn two_pushes_of_one_node_both_keep_what_they_were_told_is_here() {
    let world = World::new();
    assert!(duplicacy(&world).unwrap());
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
}

#[test]
fn without_pins_the_schedule_of_duplicacy_is_refused_and_without_checks_it_loses() {
    let world = World::new();
    without(&world, &[Rule::DropOnlyBeforeSessions]);
    assert!(matches!(duplicacy(&world), Err(ServerError::UnknownChunks { .. })));

    let world = World::new();
    without(&world, &GUARDS);
    assert!(!duplicacy(&world).unwrap(), "acknowledged, and gone");
}

/// Quay and Harbor: a blob is uploaded and acknowledged, the collector runs, the manifest comes after.
fn quay(world: &World) -> Result<bool, ServerError> {
    let content = tree(&["blob"]);
    let client = world.begin("n");
    world.send(&client, BlobKind::Chunk, b"blob")?;
    world.flush()?;
    world.gc(Delays::Skip);
    world.gc(Delays::Skip);
    let s1 = world.commit_tree(&client, &content)?;
    world.gc(Delays::Skip);
    Ok(world.read(s1).is_ok_and(|read| read == content))
}

/// G2, G3: what was uploaded is pinned until its session ends.
#[test]
fn what_was_uploaded_outlives_the_collector_until_its_manifest_comes() {
    let world = World::new();
    assert!(quay(&world).unwrap());
    assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]));
}

#[test]
fn without_pins_the_schedule_of_quay_is_refused_and_without_checks_it_loses() {
    let world = World::new();
    without(&world, &[Rule::DropOnlyBeforeSessions]);
    assert!(matches!(quay(&world), Err(ServerError::UnknownChunks { .. })));

    let world = World::new();
    without(&world, &GUARDS);
    assert!(!quay(&world).unwrap(), "acknowledged, and gone");
}

/// The same for the page: stored, collected, then named by a manifest.
fn quay_with_a_page(world: &World) -> Result<bool, ServerError> {
    let content = tree(&["blob"]);
    let client = world.begin("n");
    world.send_missing(&client, &content)?;
    let page = world.page(&content);
    let id = world.send(&client, BlobKind::Page, &page)?;
    world.flush()?;
    world.gc(Delays::Skip);
    world.gc(Delays::Skip);
    let s1 = world.commit(&client, &[(id, page.len())])?;
    world.gc(Delays::Skip);
    Ok(world.read(s1).is_ok_and(|read| read == content))
}

/// S2, G2
#[test]
fn a_page_outlives_the_collector_until_its_manifest_comes() {
    let world = World::new();
    assert!(quay_with_a_page(&world).unwrap());
}

#[test]
fn without_pins_and_checks_the_schedule_of_quay_loses() {
    let world = World::new();
    without(&world, &[Rule::DropOnlyBeforeSessions]);
    assert!(matches!(quay_with_a_page(&world), Err(ServerError::MissingChunks { .. })));

    let world = World::new();
    without(&world, &GUARDS);
    assert!(!quay_with_a_page(&world).unwrap(), "acknowledged, and gone");
}

/// A question about what has been idle for long: it must stay from the answer on.
fn told_of_old_garbage(world: &World) -> Result<bool, ServerError> {
    let content = tree(&["old"]);
    let holds = world.begin("other");
    let died = world.begin("n");
    world.send_missing(&died, &content)?;
    world.flush()?;
    session::abort(&world.server.sessions, died.id, |_| true)?;
    world.gc(Delays::Skip);
    let client = world.begin("n");
    let id = world.id_of(BlobKind::Chunk, b"old");
    assert_eq!(world.have(&client, &[id])?, [Held::Here]);
    session::abort(&world.server.sessions, holds.id, |_| true)?;
    world.gc(Delays::Skip);
    let s1 = world.commit_tree(&client, &content)?;
    Ok(world.read(s1).is_ok_and(|read| read == content))
}

/// G3
#[test]
fn what_a_session_is_told_is_here_stays_even_if_it_was_garbage() {
    assert!(told_of_old_garbage(&World::new()).unwrap());
}

#[test]
fn without_revival_a_promise_is_broken() {
    let world = World::new();
    without(&world, &[Rule::HereRevives]);
    assert!(matches!(told_of_old_garbage(&world), Err(ServerError::UnknownChunks { .. })));
}

/// A push that takes over from one that died relies on what that one was told.
fn adopted(world: &World) -> Result<bool, ServerError> {
    let content = tree(&["x"]);
    let first = world.begin("n");
    world.send_missing(&first, &content)?;
    let page = world.page(&content);
    let id = world.send(&first, BlobKind::Page, &page)?;
    world.flush()?;
    world.gc(Delays::Skip);
    let second = world.begin_after("n", Some(first.id))?;
    world.gc(Delays::Skip);
    let s1 = world.commit(&second, &[(id, page.len())])?;
    Ok(world.read(s1).is_ok_and(|read| read == content))
}

/// L4, G2: what the old session pinned stays pinned.
#[test]
fn who_adopts_a_session_is_given_its_pins() {
    assert!(adopted(&World::new()).unwrap());
}

#[test]
fn without_the_old_start_an_adopted_session_has_lost_its_pins() {
    let world = World::new();
    without(&world, &[Rule::AdoptedStart]);
    assert!(matches!(adopted(&world), Err(ServerError::MissingChunks { .. })));
}

/// G1: a row that is counted stays, whatever the queue says. The twin drops it.
#[test]
fn a_counted_row_is_never_dropped_and_the_twin_that_does_loses() {
    let schedule = |world: &World| {
        let client = world.begin("n");
        let content = tree(&["x"]);
        world.send_missing(&client, &content).unwrap();
        let id = world.commit_tree(&client, &content).unwrap();
        // The packs of this push are in the queue as new ones, and no session is open.
        world.gc(Delays::Skip);
        world.read(id).is_ok_and(|read| read == content)
    };

    assert!(schedule(&World::new()));
    let world = World::new();
    without(&world, &[Rule::DropOnlyUncounted]);
    assert!(!schedule(&world));
}

/// A site that holds up puts and deletes of some names until it is told to go on.
struct Gate {
    inner: Arc<dyn Site>,
    held: &'static str,
    /// How many deletes wait as well, and what lets them go on.
    deletes: Semaphore,
    entered: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new(held: &'static str) -> Arc<Self> {
        let inner = Arc::new(StoreSite::memory());
        let [deletes, entered, open] = [1000, 0, 0].map(Semaphore::new);
        Arc::new(Self { inner, held, deletes, entered, open })
    }

    async fn pass(&self, name: &ObjectName) {
        if name.as_str().starts_with(self.held) {
            self.entered.add_permits(1);
            self.open.acquire().await.unwrap().forget();
        }
    }

    /// Waits until something is held up.
    async fn somebody_waits(&self) {
        self.entered.acquire().await.unwrap().forget();
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Site for Gate {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        Box::pin(async move {
            self.pass(name).await;
            self.inner.put_new(name, bytes).await
        })
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        self.inner.get(name)
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [std::ops::Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        self.inner.get_ranges(name, ranges)
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        self.inner.len(name)
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        self.inner.list(prefix)
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        Box::pin(async move {
            if self.deletes.available_permits() == 0 {
                self.entered.add_permits(1);
            }
            self.deletes.acquire().await.unwrap().forget();
            self.inner.delete(name).await
        })
    }
}

/// A client is stopped in the middle of its commit, past its lease; the collector runs; it goes on.
fn stopped_past_its_lease(rules: &[Rule]) -> Result<bool, ServerError> {
    let gate = Gate::new("manifests/");
    let world = World::on(Arc::<Gate>::clone(&gate));
    without(&world, rules);
    let content = tree(&["x"]);
    let client = world.begin("n");
    world.send_missing(&client, &content)?;
    let page = world.page(&content);
    let id = world.send(&client, BlobKind::Page, &page)?;
    world.flush()?;
    let body = world.manifest(&client, &[(id, page.len())]);
    let committed = world.wait(async {
        let server = Arc::clone(&world.server);
        let commit =
            tokio::spawn(
                async move { snapshot::commit(&server, client.id, body, Smaller::Suspect, ()).await },
            );
        gate.somebody_waits().await;
        world.expire();
        collect(&world.server).await;
        collect(&world.server).await;
        gate.open.add_permits(1);
        commit.await.unwrap()
    })?;
    Ok(world.read(committed.id).is_ok_and(|read| read == content))
}

async fn collect(server: &Arc<Server>) {
    use format_spec::wire::{GcRequest, RunMode};
    let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
    operation::run_unheard(server, request).await.unwrap();
}

/// L2, G2: whoever wakes up after its lease changes nothing.
#[test]
fn a_commit_that_is_stopped_past_its_lease_is_refused() {
    let refused = stopped_past_its_lease(&[]).unwrap_err();
    assert!(matches!(refused, ServerError::SessionOver(_)), "{refused:?}");
}

#[test]
fn without_the_fence_a_late_commit_is_refused_by_the_counts_and_without_both_it_loses() {
    let told = stopped_past_its_lease(&[Rule::CommitIsFenced]).unwrap_err();
    assert!(matches!(told, ServerError::MissingChunks { .. }), "{told:?}");

    let lost = stopped_past_its_lease(&[Rule::CommitIsFenced, Rule::CommitFindsItsPages]);
    assert!(!lost.unwrap(), "acknowledged, and gone");
}

/// G6: a pack that is on its way while the collector runs is let be.
#[test]
fn an_object_on_its_way_is_not_deleted() {
    let gate = Gate::new("packs/");
    let world = World::on(Arc::<Gate>::clone(&gate));
    let client = world.begin("n");
    world.send(&client, BlobKind::Chunk, b"x").unwrap();
    world.wait(async {
        let domain = world.server.domain(&client.row.cluster);
        let flush = tokio::spawn(async move { crate::pack::flush(&domain, BlobKind::Chunk).await });
        gate.somebody_waits().await;
        assert_eq!(world.count(Table::Doomed), 1, "it was announced");
        collect(&world.server).await;
        assert_eq!(world.count(Table::Doomed), 1, "and is let be");
        gate.open.add_permits(100);
        flush.await.unwrap().unwrap();
    });
    assert_eq!(world.count(Table::Doomed), 0);
    let id = world.commit_tree(&client, &tree(&["x"])).unwrap();
    assert_eq!(world.read(id).unwrap(), tree(&["x"]));
}

/// The collector has read the list of doomed objects; one of them lands before its turn comes.
fn lands_meanwhile(rules: &[Rule]) -> bool {
    let gate = Gate::new("packs/");
    let world = World::on(Arc::<Gate>::clone(&gate));
    without(&world, rules);
    let mut batch = Batch::new();
    // More than are looked at together, with names before any that a pack has.
    for number in 0..=TOGETHER {
        let name = ObjectName::new(&format!("packs/0/{number}")).unwrap();
        let key = DoomedKey { kind: DoomedKind::Pack, name };
        batch.put(Table::Doomed, key.encode(), DoomedRow::NOW.encode());
    }
    world.store.commit(batch).unwrap();
    let client = world.begin("n");
    world.send(&client, BlobKind::Chunk, b"needed").unwrap();
    world.wait(async {
        let domain = world.server.domain(&client.row.cluster);
        let flush = tokio::spawn(async move { crate::pack::flush(&domain, BlobKind::Chunk).await });
        gate.somebody_waits().await;
        gate.deletes.forget_permits(1000);
        let server = Arc::clone(&world.server);
        let collects = tokio::spawn(async move { collect(&server).await });
        gate.somebody_waits().await;
        gate.open.add_permits(100);
        flush.await.unwrap().unwrap();
        gate.deletes.add_permits(1000);
        collects.await.unwrap();
    });
    let committed = world.commit_tree(&client, &tree(&["needed"]));
    committed.is_ok_and(|committed| world.read(committed).is_ok())
}

/// G6: the row of a doomed object is read again when its turn comes. The twin deletes what landed.
#[test]
fn what_lands_while_the_collector_deletes_stays() {
    assert!(lands_meanwhile(&[]));
    assert!(!lands_meanwhile(&[Rule::LookAgainBeforeDelete]));
}
