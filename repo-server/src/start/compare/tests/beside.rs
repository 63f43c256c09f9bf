//! Commits, purges and crashes beside a look, none of which is a loss.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use super::*;
use crate::catalog::Flight;
use crate::index::{IndexError, Rows};
use crate::site::layout::snapshot_object;
use crate::snapshot;
use crate::snapshot::series::Smaller;
use crate::store::Parts;
use crate::sync::lock;

/// An index in which something happens once, just after the first read of what a look reads.
struct Interrupted {
    inner: Watched,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Interrupted {
    fn after<T>(&self, table: Table, read: T) -> T {
        if matches!(table, Table::Doomed | Table::Snapshot) {
            let then = lock(&self.then).take();
            then.into_iter().for_each(|then| then());
        }
        read
    }
}

impl Index for Interrupted {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.after(table, self.inner.get(table, key))
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.after(table, self.inner.multi_get(table, keys))
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        self.after(table, self.inner.scan(table, range, limit))
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        self.inner.commit(batch)
    }
}

/// G12: a commit that lands between the looks has been doomed in the first one, or has a row in the second.
#[test]
fn a_commit_that_lands_between_two_reads_is_no_loss() {
    let world = World::new();
    let id = world.push("n", &tree(&["a"]));
    let landed = snapshot::get(&world.store, id).unwrap();
    // Back to the moment just before its batch: the object is there, its name is doomed, there is no row.
    let flight = Flight::announce(&world.store, &world.server.in_flight, snapshot::objects(&landed)).unwrap();
    let mut batch = Batch::new();
    batch.delete(Table::Snapshot, *id.as_bytes());
    world.index.commit(batch).unwrap();
    let index = world.index.clone();
    let lands = move || {
        let mut batch = Batch::new();
        batch.put(Table::Snapshot, *id.as_bytes(), landed.encode());
        flight.land(&mut batch);
        index.commit(batch).unwrap();
        drop(flight);
    };
    let then: Box<dyn FnOnce() + Send> = Box::new(lands);
    let index = Interrupted { inner: world.index.clone(), then: Mutex::new(Some(then)) };
    let looks = Parts { site: Arc::clone(&world.site), ..Parts::default() }.over(index).serve();

    let behind = world.wait(async {
        let lease = looks.leases.try_acquire(TEST).unwrap();
        look(&looks, &lease).await.unwrap()
    });

    assert_eq!(behind, None);
    assert_eq!(world.count(Table::Snapshot), 1, "it landed beside the look");
    assert_eq!(world.count(Table::Doomed), 0);
}

/// G12: at no moment of a commit is it taken for a loss.
#[test]
fn looks_beside_a_commit_raise_no_alarm() {
    let world = World::new();
    let client = world.begin("n");
    let content = tree(&["a"]);
    world.send_missing(&client, &content).unwrap();
    let page = world.page(&content);
    let id = world.send(&client, format_spec::key::BlobKind::Page, &page).unwrap();
    let body = world.manifest(&client, &[(id, page.len())]);

    world.wait(async {
        let server = Arc::clone(&world.server);
        let commits =
            tokio::spawn(
                async move { snapshot::commit(&server, client.id, body, Smaller::Suspect, ()).await },
            );
        let lease = world.server.leases.try_acquire(TEST).unwrap();
        loop {
            let is_done = commits.is_finished();
            assert_eq!(look(&world.server, &lease).await.unwrap(), None);
            if is_done {
                break;
            }
        }
        commits.await.unwrap().unwrap();
    });
}

/// G12, S3: wherever a commit is cut off, what it leaves is doomed or gets its row.
#[test]
fn a_commit_that_a_crash_cuts_off_is_no_loss() {
    let (mut finished, mut cuts) = (0, 0);
    loop {
        let mut world = World::new();
        let client = world.begin("n");
        world.send_missing(&client, &tree(&["a"])).unwrap();
        world.index.fail_after(cuts);
        let done = world.commit_tree(&client, &tree(&["a"]));
        world.index.heal();
        world.restart();

        assert_eq!((looked(&world), alarms(&world.store)), (None, vec![]), "cut at commit {cuts}");

        finished += usize::from(done.is_err()) * world.count(Table::Snapshot);
        world.gc(Delays::Skip);
        assert_eq!(world.objects("snapshots").len(), world.count(Table::Snapshot));
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert_eq!(finished, 1, "one cut is between the object and its batch");
}

/// G12, G9: a snapshot that is going, was brought back, is purged or waits for its delete is none that was lost.
#[test]
fn a_purge_that_is_cut_anywhere_is_no_loss() {
    let (mut purged, mut cuts) = (0, 0);
    loop {
        let mut world = World::new();
        let back = world.push("n", &tree(&["a"]));
        let gone = world.push("n", &tree(&["b"]));
        world.forget(back);
        world.forget(gone);
        assert_eq!(looked(&world), None);
        snapshot::undelete(&world.store, back).unwrap();
        assert_eq!(looked(&world), None);
        world.index.fail_after(cuts);
        let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
        let done = world.gc_as(request);
        world.index.heal();
        world.crash();

        assert_eq!((looked(&world), alarms(&world.store)), (None, vec![]), "cut at commit {cuts}");

        let doomed = world.server.in_flight.is_empty() && world.count(Table::Doomed) > 0;
        purged += usize::from(doomed && world.objects("snapshots").len() == 2);
        if done.is_ok() {
            assert_eq!(world.objects("snapshots"), [snapshot_object(&back).as_str()]);
            break;
        }
        cuts += 1;
    }
    assert!(purged > 0, "no cut was between a purge and its delete");
}
