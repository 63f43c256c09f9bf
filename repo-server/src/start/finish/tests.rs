use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcRequest, Repair};

use super::*;
use crate::index::{Batch, Index, KeyRange, Row, Rows, Table};
use crate::operation;
use crate::rows::ChunkRow;
use crate::rules::Rule;
use crate::session::Pusher;
use crate::settings::{Amount, SpaceSettings};
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::hooked::HookedSite;
use crate::site::layout::snapshot_object;
use crate::site::{ObjectName, Op, StoreSite};
use crate::snapshot;
use crate::snapshot::series::Smaller;
use crate::space::{BALLAST, Room, Space, Volume};
use crate::start::compare::settle_once;
use crate::store::Parts;
use crate::testing::{Client, Tree, Watched, World, tree};

/// A server that died between the object of a snapshot and its batch.
struct CutOff {
    world: World,
    client: Client,
    content: Tree,
    /// The snapshot whose object is there.
    id: SnapshotId,
}

impl CutOff {
    fn new() -> Self {
        Self::on(World::new())
    }

    fn on(world: World) -> Self {
        let (client, content) = (world.begin("n"), tree(&["a", "b"]));
        world.send_missing(&client, &content).unwrap();
        world.send(&client, BlobKind::Page, &world.page(&content)).unwrap();
        world.flush().unwrap();
        let mut cut = Self { world, client, content, id: SnapshotId::new(0, [0; 10]) };
        cut.commit_without_its_batch();
        cut.id = cut.on_site()[0];
        cut
    }

    /// A commit that is refused its batch: its announcement was the last one that the index took.
    fn commit_without_its_batch(&self) {
        let before = self.on_site().len();
        self.world.clock.advance(Duration::from_millis(5));
        self.world.index.fail_after(1);
        self.world.commit_tree(&self.client, &self.content).unwrap_err();
        self.world.index.heal();
        assert_eq!(self.on_site().len(), before + 1);
    }

    /// Snapshots with an object.
    fn on_site(&self) -> Vec<SnapshotId> {
        let names = self.world.objects("snapshots");
        names.iter().map(|name| name.strip_prefix("snapshots/").unwrap().parse().unwrap()).collect()
    }

    fn listed(&self) -> Vec<SnapshotId> {
        snapshot::list(&self.world.store, None).unwrap().into_iter().map(|found| found.id).collect()
    }

    /// Result of an attempt to complete it.
    fn finish(&self) -> Result<Finish, ServerError> {
        let (id, session) = (self.id, self.client.id);
        self.world.wait(self.world.server.waiting(move |server| finish(server, id, session)))
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        self.world.expire();
        self.world.gc(Delays::Skip);
        assert_eq!((self.listed(), self.on_site()), (vec![], vec![]));
        for area in ["manifests", "packs"] {
            assert_eq!(self.world.objects(area), Vec::<String>::new());
        }
    }
}

fn rows(index: &Watched, table: Table) -> Vec<Row> {
    index.scan(table, &KeyRange::all(), NonZeroUsize::MAX).unwrap().rows
}

/// S1: the loss of the batch of the very last commit takes no snapshot; without the rule the collector does.
#[test]
fn a_commit_whose_batch_is_lost_is_made_again() {
    for removed in [None, Some(Rule::CutCommitsAreFinished)] {
        let CutOff { mut world, id, content, .. } = CutOff::new();
        world.crash();
        removed.into_iter().for_each(|rule| world.store.rules.remove(rule));
        world.wait(settle_once(&world.server));
        world.gc(Delays::Skip);

        match removed {
            None => assert_eq!(world.read(id).unwrap(), content),
            Some(_) => assert!(world.objects("snapshots").is_empty(), "the collector took nothing"),
        }
    }
}

/// S4: the row that is made is the one that the commit would have made, and who asks again is told of it.
#[test]
fn the_batch_is_the_same_and_the_client_that_asks_again_is_told_of_it() {
    let mut cut = CutOff::new();
    // State after the whole batch: a world without an interruption.
    let whole = World::new();
    whole.push("n", &cut.content);
    let tables = [Table::Chunk, Table::Pack, Table::Doomed, Table::Idle, Table::Damaged, Table::Mark];
    let counts = |index: &Watched| tables.map(|table| rows(index, table).len());

    cut.world.restart();

    assert_eq!(cut.listed(), [cut.id]);
    assert_eq!(counts(&cut.world.index), counts(&whole.index));
    let references = |index: &Watched| {
        let rows = rows(index, Table::Chunk).into_iter();
        rows.map(|row| (row.key, ChunkRow::decode(&row.value).unwrap().references)).collect::<Vec<_>>()
    };
    assert_eq!(references(&cut.world.index), references(&whole.index));
    assert_eq!(cut.world.server.sessions.count(), 0);
    let again = cut.world.commit(&cut.client, &[]).unwrap();
    assert_eq!((again, cut.listed()), (cut.id, vec![cut.id]));
    assert_eq!(cut.finish().unwrap(), Finish::Impossible("its session has ended".to_owned()));
}

/// S1, S4: of the attempts of one session it is the last that may have been acknowledged, in this process or in the one
/// before.
#[test]
fn of_two_attempts_of_a_session_the_last_one_counts() {
    for restarts in [false, true] {
        let mut cut = CutOff::new();
        if restarts {
            cut.world.crash();
        }
        cut.commit_without_its_batch();
        let last = *cut.on_site().iter().find(|id| **id != cut.id).unwrap();
        assert_eq!(cut.on_site().len(), 2);

        cut.world.restart();
        cut.world.gc(Delays::Skip);

        assert_eq!((cut.listed(), cut.on_site()), (vec![last], vec![last]));
        assert_eq!(cut.world.read(last).unwrap(), cut.content);
    }
}

/// S1, S4: the acknowledged attempt is the one that is there if its batch is lost, and not one that failed before it.
#[test]
fn an_acknowledged_attempt_whose_batch_is_lost_is_made_again_and_no_other() {
    let site = HookedSite::new();
    let mut cut = CutOff::on(World::on(Arc::<HookedSite>::clone(&site)));
    cut.world.clock.advance(Duration::from_millis(5));
    let before_the_batch = Arc::new(Mutex::new(None));
    let (index, kept) = (cut.world.index.clone(), Arc::clone(&before_the_batch));
    site.before(Op::Put, "snapshots/", async move { *kept.lock().unwrap() = Some(index.copy()) });
    let acknowledged = cut.world.commit_tree(&cut.client, &cut.content).unwrap();
    assert_ne!(acknowledged, cut.id);

    cut.world.crash_over(before_the_batch.lock().unwrap().take().unwrap());
    cut.world.wait(settle_once(&cut.world.server));
    cut.world.gc(Delays::Skip);

    assert_eq!(cut.listed(), [acknowledged]);
    assert_eq!(cut.world.read(acknowledged).unwrap(), cut.content);
}

/// S4: who asks again while the first attempt is under way waits for it.
#[test]
fn two_requests_for_one_commit_make_one_attempt() {
    let world = World::new();
    let (client, content) = (world.begin("n"), tree(&["a"]));
    world.send_missing(&client, &content).unwrap();
    let page = world.page(&content);
    let id = world.send(&client, BlobKind::Page, &page).unwrap();
    let body = world.manifest(&client, &[(id, page.len())]);
    let commit = || snapshot::commit(&world.server, client.id, body.clone(), Smaller::Suspect, ());

    let (one, other) = world.wait(async { tokio::join!(commit(), commit()) });

    assert_eq!(one.unwrap().id, other.unwrap().id);
    assert_eq!(world.objects("snapshots").len(), 1);
}

/// L2, L4: a session that is over commits nothing, also in this way.
#[test]
fn a_commit_of_a_session_that_is_over_is_not_finished() {
    let ends: [fn(&CutOff); 3] = [
        |cut| cut.world.expire(),
        |cut| session::abort(&cut.world.server.sessions, cut.client.id, |_| true).unwrap(),
        |cut| drop(cut.world.begin_after("n", Some(cut.client.id)).unwrap()),
    ];
    for end in ends {
        let mut cut = CutOff::new();
        end(&cut);
        cut.world.restart();
        assert_eq!(cut.listed(), []);
        cut.assert_nothing_is_left();
    }
}

/// S3: what is not whole is not listed.
#[test]
fn a_commit_of_which_something_is_missing_is_not_finished() {
    let lose_manifest = |cut: &mut CutOff| {
        let name = ObjectName::new(&cut.world.objects("manifests")[0]).unwrap();
        cut.world.wait(cut.world.site.delete(&name)).unwrap();
    };
    let lose_page = |cut: &mut CutOff| {
        let mut batch = Batch::new();
        let page = cut.world.id_of(BlobKind::Page, &cut.world.page(&cut.content));
        batch.delete(Table::Chunk, *page.as_bytes());
        cut.world.index.commit(batch).unwrap();
    };
    // Its object says that it is another one.
    let change_name = |cut: &mut CutOff| {
        let bytes = cut.world.wait(cut.world.site.get(&snapshot_object(&cut.id))).unwrap();
        cut.id = SnapshotId::new(1, [9; 10]);
        cut.world.wait(cut.world.site.put_new(&snapshot_object(&cut.id), bytes)).unwrap();
    };
    // Its object is of another cluster than its session.
    let change_owner = |cut: &mut CutOff| {
        let (cluster, node) = ("other".parse().unwrap(), "n".parse().unwrap());
        cut.client.id = session::open(&cut.world.server.sessions, Pusher { cluster, node }, None).unwrap().id;
    };
    type Loss = fn(&mut CutOff);
    let losses: [(Loss, &str); 4] = [
        (lose_manifest, "is missing from the site"),
        (lose_page, "1 of its pages"),
        (change_name, "snapshot"),
        (change_owner, "snapshot"),
    ];
    for (lose, why) in losses {
        let mut cut = CutOff::new();
        lose(&mut cut);

        let Finish::Impossible(told) = cut.finish().unwrap() else { panic!("it was finished") };

        assert!(told.contains(why), "{told}");
        assert_eq!(cut.listed(), []);
    }
}

/// A site that does not answer is no reason to give anything up: nothing is collected, and it is done later.
#[test]
fn what_cannot_be_read_now_is_finished_later() {
    let site = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
    let mut cut = CutOff::on(World::on(Arc::<FaultySite>::clone(&site)));
    site.arm(Fault { op: Some(Op::Get), after: 0, kind: FaultKind::Refuse(Refusal::Unavailable) });

    cut.world.restart();

    assert_eq!((site.fired().len(), cut.listed()), (1, vec![]));
    site.heal();
    cut.world.gc(Delays::Skip);
    assert_eq!(cut.world.read(cut.id).unwrap(), cut.content);
}

/// S3: a commit that no batch takes is given up: it keeps neither others from being finished nor sessions open.
#[test]
fn a_commit_that_is_over_a_limit_is_given_up() {
    let mut cut = CutOff::new();
    let other = CutOff { client: cut.world.begin("m"), ..CutOff::new() };
    let other = CutOff { world: cut.world, ..other };
    other.commit_without_its_batch();
    cut.world = other.world;

    cut.world.index.refuse_as_too_large();
    cut.world.restart();

    assert_eq!(cut.listed().len(), 1, "one of two can be finished");
    assert!(crate::health::alarms(&cut.world.store).unwrap().is_empty());
    cut.world.expire();
    cut.world.gc(Delays::Skip);
    assert_eq!((cut.on_site(), cut.world.server.sessions.count()), (cut.listed(), 0));
}

/// S1: until what was left is settled, no session ends by its time: a cut commit needs it. One that cannot be read holds
/// up no other.
#[test]
fn no_session_ends_before_what_was_left_is_settled() {
    for op in [Op::List, Op::Get] {
        let site = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
        let mut cut = CutOff::on(World::on(Arc::<FaultySite>::clone(&site)));
        let other = CutOff { client: cut.world.begin("m"), ..CutOff::new() };
        let other = CutOff { world: cut.world, ..other };
        other.commit_without_its_batch();
        cut.world = other.world;
        let refuse =
            || site.arm(Fault { op: Some(op), after: 0, kind: FaultKind::Refuse(Refusal::Unavailable) });
        refuse();
        cut.world.restart();
        assert_eq!(cut.listed().len(), usize::from(op == Op::Get), "one of two could be read");
        cut.world.clock.advance(session::TTL);

        refuse();
        cut.world.wait(crate::background::end_sessions(&cut.world.server));
        assert_eq!((site.fired().len(), cut.listed().len()), (2, usize::from(op == Op::Get)));
        cut.world.wait(crate::background::end_sessions(&cut.world.server));
        cut.world.gc(Delays::Skip);

        assert_eq!((cut.listed().len(), cut.on_site().len()), (2, 2), "{op:?}");
        assert_eq!(cut.world.read(cut.id).unwrap(), cut.content);
    }
}

/// A plan and an audit are no time for it.
#[test]
fn a_plan_and_an_audit_leave_it_as_it_is() {
    let mut cut = CutOff::new();
    cut.world.crash();
    let doomed = cut.world.doomed();

    cut.world.gc_as(GcRequest::default()).unwrap();
    let audited = cut.world.wait(operation::run_unheard(
        &cut.world.server,
        format_spec::wire::AuditRequest { repair: Repair::No },
    ));

    assert!(audited.unwrap().is_sound());
    assert_eq!((cut.listed(), cut.on_site()), (vec![], vec![cut.id]));
    assert_eq!(cut.world.doomed(), doomed);
}

/// S4: who asks again is told of it also when the server was down for days.
#[test]
fn who_asks_again_after_days_is_told_of_it() {
    let mut cut = CutOff::new();
    cut.world.clock.advance(Duration::from_secs(48 * 3600));
    cut.world.restart();
    session::expire(&cut.world.server.sessions).unwrap();

    assert_eq!(cut.world.commit(&cut.client, &[]).unwrap(), cut.id);
}

/// An index that takes nothing as long as a file is there, as one on a disk that the ballast fills.
struct FullBeside(Watched, PathBuf);

impl Index for FullBeside {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.0.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.0.multi_get(table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        self.0.scan(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        if self.1.exists() {
            return Err(IndexError::Full { free_bytes: 0, reserve_bytes: 1 });
        }
        self.0.commit(batch)
    }
}

struct OnlyBallast(PathBuf);

impl Volume for OnlyBallast {
    fn room(&self) -> std::io::Result<Room> {
        let free_bytes = if self.0.exists() { 0 } else { 256 << 20 };
        Ok(Room::of_bytes(free_bytes, 1 << 40))
    }
}

/// On a full disk the ballast makes room for it: else nothing could be collected any more.
#[test]
fn it_is_finished_on_a_full_disk_as_well() {
    let mut cut = CutOff::new();
    let folder = tempfile::tempdir().unwrap();
    let ballast = folder.path().join(BALLAST);
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let none = SpaceSettings { ballast: Amount::Bytes(0), refuse_below: Amount::Bytes(0) };
    let space = Space::on(Box::new(OnlyBallast(ballast.clone())), folder.path(), none);
    let parts = Parts { site: Arc::clone(&cut.world.site), ..Parts::default() };
    let index = FullBeside(cut.world.index.clone(), ballast);

    cut.world.server = parts.over(index).with_space(space).serve();
    cut.world.store = Arc::clone(&cut.world.server.store);
    assert!(cut.world.wait(settle_once(&cut.world.server)));

    assert_eq!(cut.listed(), [cut.id]);
    cut.world.gc(Delays::Skip);
}

/// G12: an index that is older than the site is told, and nothing is made in it.
#[test]
fn nothing_is_finished_in_an_index_that_is_behind() {
    let mut cut = CutOff::new();
    let old = cut.world.index.copy();
    cut.world.restart();
    cut.world.push("m", &tree(&["c"]));

    cut.world.crash_over(old);
    cut.world.wait(settle_once(&cut.world.server));

    assert_eq!(cut.listed(), []);
    assert_eq!(cut.on_site().len(), 2);
}
