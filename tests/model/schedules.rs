//! Data losses that other programs had, as schedules of this protocol: each goes well here, and has a twin
//! without what guards it, which must go wrong.

use stateright::Model;

use crate::client::Push::{self, Ask, Commit, Expire, FindPage, Intend, Open, Revive, Send, SendPage};
use crate::collector::{self, Collect};
use crate::explore::{Action, FENCED, Gc, PROMISED, WHOLE};
use crate::rules::{Grain, Part, Rule, Rules, Scope, Start};
use crate::state::{Kind, Listed, Set, State};
use crate::store::Store;

/// The pusher that is in danger, and the other one.
const SLOW: usize = 0;
const OTHER: usize = 1;

const SCOPE: Scope = Scope {
    pushes: [3, 2],
    refers: [Set::of([0]), Set::of([0])],
    opens: [1, 1],
    adoption: Part::DoesNotTake,
    asks_pages: Part::DoesNotTake,
    runs: 1,
    repacks: 0,
    crashes: 0,
    grain: Grain::Coarse,
    start: &[Start::Empty],
};

/// A schedule as it is played, and which properties it broke.
struct Play {
    gc: Gc,
    state: State,
    broken: Vec<&'static str>,
}

impl Play {
    fn of(rules: &[Rule], scope: Scope, start: Start) -> Self {
        let gc = Gc::new(Rules::without(rules), scope);
        let state = gc.start(start).normal();
        Self { gc, state, broken: Vec::new() }
    }

    /// Takes a step, if it can be taken.
    fn may(&mut self, action: Action) -> bool {
        let Some(next) = self.gc.next_state(&self.state, action) else { return false };
        self.state = next;
        for property in self.gc.properties() {
            if !(property.condition)(&self.gc, &self.state) && !self.broken.contains(&property.name) {
                self.broken.push(property.name);
            }
        }
        true
    }

    fn does(&mut self, action: Action) {
        assert!(self.may(action), "{action:?} cannot be done in {:?}", self.state);
    }

    fn push(&mut self, who: usize, steps: &[Push]) {
        steps.iter().for_each(|step| self.does(Action::Push(who, *step)));
    }

    fn collect(&mut self, steps: &[Collect]) {
        steps.iter().for_each(|step| self.does(Action::Collect(*step)));
    }

    /// Seals, puts and indexes the open pack.
    fn store(&mut self, kind: Kind) {
        self.does(Action::Store(Store::Seal(kind)));
        self.does(Action::Store(Store::Index(kind)));
    }

    /// The collector drops the row of `blob`, if it finds it and may.
    fn drops(&mut self, blob: usize) -> bool {
        let finds = collector::steps(&self.state).into_iter();
        let mut finds = finds.filter(|step| matches!(step, Collect::Find(_, Some(found)) if *found == blob));
        if !finds.any(|find| self.may(Action::Collect(find))) {
            return false;
        }
        self.collect(&[Collect::Apply]);
        self.state.rows[blob].is_none()
    }

    /// The rest of the run: every object on the list that can go.
    fn deletes(&mut self) {
        self.collect(&[Collect::Turn]);
        while self.may(Action::Collect(Collect::Delete)) {}
    }

    /// A commit, as far as it gets.
    fn commits(&mut self, who: usize) {
        for step in [FindPage, Intend, Commit] {
            if !self.may(Action::Push(who, step)) {
                return;
            }
        }
    }

    /// True if a snapshot of `page` is listed.
    fn lists(&self, page: usize) -> bool {
        self.state.snapshots.iter().any(|one| one.listed == Listed::Yes && one.page == page)
    }
}

/// Proxmox Backup Server before 3.4, PSA-2025-00019-1: a collection runs, a snapshot appears that is based on
/// another, and that one is pruned before the collection came to it.
fn pruned_base(without: &[Rule]) -> Play {
    let mut play = Play::of(without, SCOPE, Start::Snapshot);
    play.collect(&[Collect::Start]);
    play.push(SLOW, &[Open, Ask(0), SendPage]);
    play.collect(&[Collect::Forget(0), Collect::Purge(0)]);
    let unguarded = without.contains(&Rule::GrantRecordsStart);
    assert_eq!(play.drops(2), unguarded, "the page of the base is idle since the session's start");
    play.collect(&[Collect::Turn]);
    assert_eq!(play.drops(0), unguarded, "so the chunk is counted still");
    play.store(Kind::Page);
    play.commits(SLOW);
    play.deletes();
    play
}

/// S1: what PBS lost.
#[test]
fn a_snapshot_whose_base_is_pruned_during_a_run_is_whole() {
    let play = pruned_base(&[]);

    assert!(play.lists(3));
    assert_eq!(play.broken, [""; 0]);
}

/// With one guard less the client is told of it before its commit; with one more it is lost.
#[test]
fn without_the_start_of_a_session_a_snapshot_loses_its_base() {
    let refused = pruned_base(&[Rule::GrantRecordsStart]);
    let lost = pruned_base(&[Rule::GrantRecordsStart, Rule::PageBatchChecksChunks]);

    assert!(!refused.lists(3));
    assert_eq!(refused.broken, [PROMISED]);
    assert!(lost.lists(3));
    assert!(lost.broken.contains(&WHOLE), "{:?}", lost.broken);
}

/// Duplicacy: of two backups of one id, the one that ends first satisfies the gate of the collection, and
/// what the other one relies on is deleted.
fn two_of_one_id(without: &[Rule]) -> Play {
    let refers = [Set::of([0]), Set::of([1])];
    let mut play = Play::of(without, Scope { refers, ..SCOPE }, Start::Chunks);
    play.push(SLOW, &[Open, Ask(1)]);
    assert_eq!(play.may(Action::Push(SLOW, Revive)), !without.contains(&Rule::HaveRevives));
    play.push(OTHER, &[Open, Send(0), SendPage]);
    play.store(Kind::Page);
    play.commits(OTHER);
    assert!(play.lists(2), "the other one has ended, whole");
    play.push(SLOW, &[SendPage]);
    play.collect(&[Collect::Start, Collect::Turn]);
    assert_eq!(play.drops(1), without.contains(&Rule::HaveRevives));
    play.store(Kind::Page);
    play.commits(SLOW);
    play.deletes();
    play
}

/// S1: what Duplicacy lost.
#[test]
fn of_two_pushes_of_one_node_the_slower_one_keeps_what_it_relies_on() {
    let play = two_of_one_id(&[]);

    assert!(play.lists(3));
    assert_eq!(play.broken, [""; 0]);
}

#[test]
fn without_revival_the_slower_push_loses_what_it_relies_on() {
    let refused = two_of_one_id(&[Rule::HaveRevives, Rule::PageRevives]);
    let lost = two_of_one_id(&[Rule::HaveRevives, Rule::PageRevives, Rule::PageBatchChecksChunks]);

    assert!(!refused.lists(3));
    assert_eq!(refused.broken, [PROMISED]);
    assert!(lost.lists(3));
    assert!(lost.broken.contains(&WHOLE), "{:?}", lost.broken);
}

/// Quay and Harbor: a blob is uploaded and acknowledged, collected, and then named by a manifest.
fn collected_upload(without: &[Rule]) -> Play {
    let mut play = Play::of(without, SCOPE, Start::Empty);
    play.push(SLOW, &[Open, Send(0)]);
    play.store(Kind::Chunk);
    play.collect(&[Collect::Start, Collect::Turn]);
    assert_eq!(play.drops(0), without.contains(&Rule::GrantRecordsStart));
    play.deletes();
    play.push(SLOW, &[SendPage]);
    if play.broken.is_empty() {
        play.store(Kind::Page);
        play.commits(SLOW);
    }
    play
}

/// S1: what Quay lost.
#[test]
fn what_was_sent_is_there_for_the_manifest_whatever_is_collected_in_between() {
    let play = collected_upload(&[]);

    assert!(play.lists(3));
    assert_eq!(play.broken, [""; 0]);
}

#[test]
fn without_the_start_of_a_session_what_was_sent_is_gone() {
    let play = collected_upload(&[Rule::GrantRecordsStart]);

    assert!(!play.lists(3));
    assert_eq!(play.broken, [PROMISED]);
}

/// A client that was stopped past the end of its lease comes back to a commit that was under way.
fn stopped(without: &[Rule]) -> Play {
    let mut play = Play::of(without, SCOPE, Start::Empty);
    play.push(SLOW, &[Open, Send(0)]);
    play.store(Kind::Chunk);
    play.push(SLOW, &[SendPage]);
    play.store(Kind::Page);
    play.push(SLOW, &[FindPage, Intend, Expire]);
    play.collect(&[Collect::Start]);
    assert!(play.drops(3), "nobody holds the page any more");
    play.collect(&[Collect::Turn]);
    assert!(play.drops(0), "nor its chunk");
    play.push(SLOW, &[Commit]);
    play.deletes();
    play
}

/// L2, S3: it is refused, and nothing of its snapshot is listed.
#[test]
fn a_client_that_was_stopped_past_its_lease_commits_nothing() {
    let play = stopped(&[]);

    assert!(!play.lists(3));
    assert_eq!(play.broken, [""; 0]);
}

#[test]
fn without_the_fence_a_client_that_was_stopped_commits_what_is_gone() {
    let fenced_by_pages = stopped(&[Rule::CommitChecksSession]);
    let lost = stopped(&[Rule::CommitChecksSession, Rule::CommitChecksPages]);

    assert!(!fenced_by_pages.lists(3), "its pages are gone, so it is refused for that");
    assert!(lost.lists(3));
    assert!(lost.broken.contains(&WHOLE) && lost.broken.contains(&FENCED), "{:?}", lost.broken);
}
