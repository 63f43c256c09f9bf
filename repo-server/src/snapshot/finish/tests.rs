use std::num::NonZeroUsize;

use format_spec::key::BlobKind;
use format_spec::wire::Delays;

use super::*;
use crate::index::row::ChunkRow;
use crate::index::{Batch, Index, KeyRange, Row, Table};
use crate::rules::Rule;
use crate::session::Pusher;
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::{ObjectName, Op, StoreSite};
use crate::snapshot;
use crate::testing::{Client, Tree, Watched, World, tree};
use crate::witness::look_at_start;

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
        snapshot::list(&self.world.repository, None).unwrap().into_iter().map(|found| found.id).collect()
    }

    /// What an attempt to finish it says.
    fn finish(&self) -> Result<Finish, ServerError> {
        self.world.wait(finish(&self.world.repository, self.id, self.client.id))
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
        removed.into_iter().for_each(|rule| world.repository.rules.remove(rule));
        world.wait(look_at_start(&world.repository));
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
    // What the batch would have left: a world in which it is not cut off.
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
    assert_eq!(cut.world.repository.sessions.count(), 0);
    let again = cut.world.commit(&cut.client, &[]).unwrap();
    assert_eq!((again, cut.listed()), (cut.id, vec![cut.id]));
    assert_eq!(cut.finish().unwrap(), Finish::Impossible("its session is over".to_owned()));
}

/// S4: of two attempts of one session one makes a snapshot.
#[test]
fn of_two_attempts_of_a_session_one_counts() {
    let mut cut = CutOff::new();
    cut.commit_without_its_batch();
    assert_eq!(cut.on_site().len(), 2);

    cut.world.restart();
    cut.world.gc(Delays::Skip);

    assert_eq!(cut.listed().len(), 1);
    assert_eq!(cut.on_site(), cut.listed());
    assert_eq!(cut.world.read(cut.listed()[0]).unwrap(), cut.content);
}

/// L2, L4: a session that is over commits nothing, also in this way.
#[test]
fn a_commit_of_a_session_that_is_over_is_not_finished() {
    let ends: [fn(&CutOff); 3] = [
        |cut| cut.world.expire(),
        |cut| session::abort(&cut.world.repository, cut.client.id).unwrap(),
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
        cut.client.id = session::open(&cut.world.repository, Pusher { cluster, node }, None).unwrap().id;
    };
    type Loss = fn(&mut CutOff);
    let losses: [(Loss, &str); 4] = [
        (lose_manifest, "is not on the site"),
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

/// G12: an index that is older than the site is told, and nothing is made in it.
#[test]
fn nothing_is_finished_in_an_index_that_is_behind() {
    let mut cut = CutOff::new();
    let old = cut.world.index.copy();
    cut.world.restart();
    cut.world.push("m", &tree(&["c"]));

    cut.world.crash_over(old);
    cut.world.wait(look_at_start(&cut.world.repository));

    assert_eq!(cut.listed(), []);
    assert_eq!(cut.on_site().len(), 2);
}
