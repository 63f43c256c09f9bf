//! The rules of the protocol, each of which can be taken away.

use crate::state::Set;

/// One rule. With it taken away, the thing it says is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A session's row holds the epoch at its grant, and nothing idle since then or later is dropped.
    GrantRecordsStart,
    /// A session that adopts another takes over the smaller start.
    AdoptHandsStartOn,
    /// Being told that an idle blob is here makes it idle anew.
    HaveRevives,
    /// The batch that revives finds the row still there, or the answer is "missing".
    RevivalChecksRow,
    /// To ask about a page that waits is to be told "missing": the chunks that it needs are not pinned.
    WaitingPageIsMissing,
    /// Sending what is here already makes it idle anew.
    SendRevives,
    /// Storing a page makes the chunks that it refers to idle anew.
    PageRevives,
    /// The batch that adds a page's row finds all of its chunks there.
    PageBatchChecksChunks,
    /// A page whose chunks are gone is left out of that batch, which goes on with the others.
    PageBatchLeavesOut,
    /// The collector's batch looks at the count again.
    DropChecksCount,
    /// The collector's batch finds the row idle since the same epoch.
    DropChecksIdle,
    /// The collector's batch looks at the open sessions again.
    DropChecksSessions,
    /// An item of the queue is found stale again in the batch that takes it off.
    StaleChecksRows,
    /// The batch that moves rows to a new pack moves only those that lie where they were copied from.
    SwitchChecksRows,
    /// That batch queues the idle rows among them, because the item of their old pack is stale now.
    SwitchQueuesIdle,
    /// The step that removes the last count of a row queues the row.
    UncountQueues,
    /// Before an object is put, its name is doomed.
    Intents,
    /// A name that is on its way is not deleted.
    FlyingIsLetBe,
    /// A name is still doomed when its object is deleted, not only when the list was read.
    DeleteChecksDoom,
    /// Doomed snapshots are deleted before manifests and packs.
    SnapshotsGoFirst,
    /// While a doomed snapshot cannot go yet, the packs that were doomed by then stay as well.
    PacksWaitForSnapshots,
    /// The batch with the intent of a snapshot finds every page there.
    IntentChecksPages,
    /// The batch that commits finds the session as it was granted.
    CommitChecksSession,
    /// The batch that commits finds every page there.
    CommitChecksPages,
    /// A commit that was cut off is finished only while its session is as it was granted.
    FinishChecksSession,
}

impl Rule {
    /// Every rule.
    pub(crate) const ALL: [Self; 25] = [
        Self::GrantRecordsStart,
        Self::AdoptHandsStartOn,
        Self::HaveRevives,
        Self::RevivalChecksRow,
        Self::WaitingPageIsMissing,
        Self::SendRevives,
        Self::PageRevives,
        Self::PageBatchChecksChunks,
        Self::PageBatchLeavesOut,
        Self::DropChecksCount,
        Self::DropChecksIdle,
        Self::DropChecksSessions,
        Self::StaleChecksRows,
        Self::SwitchChecksRows,
        Self::SwitchQueuesIdle,
        Self::UncountQueues,
        Self::Intents,
        Self::FlyingIsLetBe,
        Self::DeleteChecksDoom,
        Self::SnapshotsGoFirst,
        Self::PacksWaitForSnapshots,
        Self::IntentChecksPages,
        Self::CommitChecksSession,
        Self::CommitChecksPages,
        Self::FinishChecksSession,
    ];
}

/// The rules that hold in a run.
#[derive(Debug, Clone)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// All of them.
    pub(crate) fn all() -> Self {
        Self(Rule::ALL.to_vec())
    }

    /// All but these.
    pub(crate) fn without(rules: &[Rule]) -> Self {
        Self(Rule::ALL.into_iter().filter(|rule| !rules.contains(rule)).collect())
    }

    /// True if `rule` holds.
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.0.contains(&rule)
    }
}

/// Parts of a run, and their numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// The page that each pusher wants to commit.
    pub(crate) pushes: [usize; 2],
    /// The chunks that each page refers to.
    pub(crate) refers: [Set; 2],
    /// Sessions that each pusher may open.
    pub(crate) opens: [u8; 2],
    /// Permission for a pusher to adopt the other's session.
    pub(crate) adoption: Part,
    /// Permission for pushers to ask about pages, too.
    pub(crate) asks_pages: Part,
    /// Runs of the collector.
    pub(crate) runs: u8,
    /// Repacks.
    pub(crate) repacks: u8,
    /// Crashes of the server.
    pub(crate) crashes: u8,
    /// How small the steps are.
    pub(crate) grain: Grain,
    /// Content of the repository at the start.
    pub(crate) start: &'static [Start],
}

/// Participation of a part in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Takes,
    DoesNotTake,
}

/// How small the steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Each write is a step of its own.
    Fine,
    /// An object is put in the step that writes its intent. Until it is put nothing but a crash and the
    /// collector's deletes can tell the difference.
    Coarse,
}

/// A repository to start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The empty repository.
    Empty,
    /// One snapshot, of page 0.
    Snapshot,
    /// Page 0 and its chunks, of a push that ended before it committed.
    Idle,
    /// All chunks, in one pack, of a push that ended before it sent a page.
    Chunks,
}
