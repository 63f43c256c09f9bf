//! The rules that keep the collector from taking what is needed, by name.
//!
//! The server always keeps all of them. Tests of this crate remove one or two at a time, and show that data is
//! lost or a promise broken then: so each rule is known to be there for something, and each test to bite.

/// A rule of the collector and of those who run beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// G1: a row is dropped only while its count is zero.
    DropOnlyUncounted,
    /// G2: a row is dropped only if it is idle since before the start of every open session.
    DropOnlyBeforeSessions,
    /// G3: the answer "here" is given only for chunks that are then kept.
    HereRevives,
    /// X7: a page is added only in a batch that finds all its chunks.
    PageFindsItsChunks,
    /// S2: a manifest is committed only in a batch that finds all its pages.
    CommitFindsItsPages,
    /// L2: a commit is applied only while its session is as it was granted.
    CommitIsFenced,
    /// L4: who adopts a session is given its start.
    AdoptedStart,
    /// G6: an object that landed meanwhile is not deleted.
    LookAgainBeforeDelete,
    /// G5: no pack is deleted while a snapshot that may need it is still to be.
    SnapshotsBeforePacks,
    /// G12: nothing is taken by an index that is older than the site.
    SiteIsWitness,
    /// X9: a batch of the ledger is applied only if the rows that it read are as they were read.
    RowsAreAsRead,
    /// S1: a commit whose snapshot object is on the site is completed.
    CutCommitsAreFinished,
}

/// Which rules are kept.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    removed: std::sync::Mutex<std::collections::HashSet<Rule>>,
}

impl Rules {
    /// True if a rule is active.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests remove rules")]
    pub(crate) const fn keep(&self, _rule: Rule) -> bool {
        true
    }

    /// True if a rule is active.
    #[cfg(test)]
    pub(crate) fn keep(&self, rule: Rule) -> bool {
        !crate::sync::lock(&self.removed).contains(&rule)
    }

    /// From now on the rule is not kept.
    #[cfg(test)]
    pub(crate) fn remove(&self, rule: Rule) {
        crate::sync::lock(&self.removed).insert(rule);
    }
}
