//! What a push did.

use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::manifest::{Problem, Totals};
use format_spec::snapshot::SnapshotState;
use format_spec::wire::{Committed, Durability};
use format_spec::{ClusterName, NodeName, SnapshotId};
use serde::Serialize;

/// A push that ended with a snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct PushReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Complete, or partial if there are problems.
    pub state: SnapshotState,
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// Node that was pushed.
    pub node: NodeName,
    /// Server time of the commit, RFC 3339 in UTC.
    pub created: String,
    /// How safe the snapshot is.
    pub durability: Durability,
    /// Regular files, each hard link counted.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of file content, each inode once.
    pub bytes: u64,
    /// Files that were not read, because nothing of them had changed since the last push.
    pub unchanged: u64,
    /// Sockets, devices and pipes that were passed over.
    pub skipped: u64,
    /// Bytes of files that were read.
    pub bytes_read: u64,
    /// Chunks cut from what was read, and pages.
    pub chunks: u64,
    /// Those of them that were sent.
    pub chunks_sent: u64,
    /// Bytes that were sent: compressed, with their frames.
    pub bytes_sent: u64,
    /// Bytes that the repository grew by.
    pub bytes_stored: u64,
    /// How often the push was run: more than once if the server restarted meanwhile.
    pub attempts: u32,
    /// Time from start to acknowledgement.
    pub seconds: f64,
    /// How many files vanished or could not be read whole.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<ProblemReport>,
}

/// A file that the snapshot should hold and does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemReport {
    /// Its absolute path; bytes that are no text are escaped.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Counts of one attempt, added to by several threads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    chunks: AtomicU64,
    unchanged: AtomicU64,
    bytes_read: AtomicU64,
    chunks_sent: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_stored: AtomicU64,
}

impl Tally {
    pub(super) fn read(&self, chunks: u64, bytes: u64) {
        self.chunks.fetch_add(chunks, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn unchanged(&self) {
        self.unchanged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, chunks: u64, bytes: u64, stored: u64) {
        self.chunks_sent.fetch_add(chunks, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_stored.fetch_add(stored, Ordering::Relaxed);
    }

    /// Files that were not read, and bytes that were.
    #[cfg(test)]
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.unchanged.load(Ordering::Relaxed), self.bytes_read.load(Ordering::Relaxed))
    }

    /// The report on an attempt that ended with `committed`. Attempts and time are for the caller.
    pub(super) fn report(
        &self,
        committed: &Committed,
        node: &NodeName,
        totals: &Totals,
        problems: &[Problem],
    ) -> PushReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let snapshot = &committed.snapshot;
        let problem = |problem: &Problem| ProblemReport {
            path: format!("/{}", problem.path),
            reason: problem.reason.clone(),
        };
        PushReport {
            snapshot: snapshot.id,
            state: snapshot.state,
            cluster: snapshot.cluster.clone(),
            node: node.clone(),
            created: snapshot.created.clone(),
            durability: committed.durability,
            files: totals.files,
            folders: totals.folders,
            symlinks: totals.symlinks,
            bytes: totals.bytes,
            unchanged: count(&self.unchanged),
            skipped: totals.skipped,
            bytes_read: count(&self.bytes_read),
            chunks: count(&self.chunks),
            chunks_sent: count(&self.chunks_sent),
            bytes_sent: count(&self.bytes_sent),
            bytes_stored: count(&self.bytes_stored),
            attempts: 1,
            seconds: 0.0,
            problem_count: totals.problems,
            problems: problems.iter().map(problem).collect(),
        }
    }
}
