//! Report of a push, for people and programs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use format_spec::manifest::{Fallback, MAX_FALLBACKS, Moment, Problem, PushStats, Totals};
use format_spec::snapshot::{Shrunk, SnapshotState};
use format_spec::wire::{Committed, Durability};
use format_spec::{ClusterName, EntryPath, NodeName, SnapshotId};
use serde::Serialize;

use super::freeze::Frozen;
use super::select::left_out::LeftOutBy;
use crate::progress::Fate;

/// Files that are named for each reason of a fallback.
const NAMED: usize = 10;

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
    /// Sockets, devices and pipes that were skipped.
    pub skipped: u64,
    /// Outcomes of the files, and bytes; stored in the snapshot.
    #[serde(flatten)]
    pub stats: PushStats,
    /// Bytes of file content for each byte that the repository grew by; absent if it did not grow.
    pub dedup_ratio: Option<f64>,
    /// Chunks cut from what was read, and pages.
    pub chunks: u64,
    /// Those of them that were sent.
    pub chunks_sent: u64,
    /// The first files behind each reason in `fallbacks`.
    pub fallback_files: BTreeMap<String, Vec<String>>,
    /// How often the push was run: more than once if the server restarted meanwhile.
    pub attempts: u32,
    /// Time from start to acknowledgement.
    pub seconds: f64,
    /// How the files of each file system were frozen.
    pub frozen: Vec<Frozen>,
    /// Warnings about the pushed files.
    pub warnings: Vec<String>,
    /// Exclusions, for each pattern that has some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutBy>,
    /// Patterns of excludes and classes that matched nothing, each behind its flag, or its file and line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// If the snapshot is suspect: the one before it in its series, which held more than twice as much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Shrunk>,
    /// How many files vanished, could not be read whole, or are no state of themselves.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<ProblemReport>,
}

/// Warning in a push to a server whose clock jumped.
const CLOCK_JUMPED: &str =
    "the server's clock jumped, so the time of the snapshot may be wrong: see `astacus-admin status`";

/// A file that the snapshot should hold and does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemReport {
    /// Its absolute path; bytes that are no text are escaped.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Outcome of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was not known.
    New,
    /// It was known, and read whole.
    Whole,
    /// Only its end is new.
    Appended,
    /// Its content is that of the last push.
    Unchanged,
    /// Its content comes from a push that was cut short, as far as that got.
    Resumed,
}

impl From<Kind> for Fate {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::New => Self::New,
            Kind::Whole => Self::Changed,
            Kind::Appended => Self::Appended,
            Kind::Unchanged => Self::Unchanged,
            Kind::Resumed => Self::Resumed,
        }
    }
}

/// Counts of one attempt, added to by several threads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    files: [AtomicU64; 5],
    gone: AtomicU64,
    chunks: AtomicU64,
    bytes_read: AtomicU64,
    bytes_hashed: AtomicU64,
    chunks_sent: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_stored: AtomicU64,
    fallbacks: Mutex<BTreeMap<String, Reason>>,
    moment: Mutex<Moment>,
}

/// The files behind one reason for a fallback.
#[derive(Debug, Default)]
struct Reason {
    files: u64,
    named: Vec<String>,
}

impl Tally {
    pub(super) fn file(&self, kind: Kind) {
        self.count(kind).fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, kind: Kind) -> &AtomicU64 {
        let [new, whole, appended, unchanged, resumed] = &self.files;
        match kind {
            Kind::New => new,
            Kind::Whole => whole,
            Kind::Appended => appended,
            Kind::Unchanged => unchanged,
            Kind::Resumed => resumed,
        }
    }

    pub(super) fn gone(&self, files: u64) {
        self.gone.fetch_add(files, Ordering::Relaxed);
    }

    /// Bytes came from a file.
    pub(super) fn read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A chunk was cut from what was read, and hashed.
    pub(super) fn chunk(&self, len: usize) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
        self.bytes_hashed.fetch_add(u64::try_from(len).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes of a known chunk were read and hashed.
    pub(super) fn compared(&self, bytes: u64) {
        self.read(bytes);
        self.bytes_hashed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A page was made.
    pub(super) fn page(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    /// The file at `path` cost more than it should have.
    pub(super) fn fallback(&self, why: &str, path: &EntryPath) {
        tracing::debug!(%path, why, "not the short way");
        let mut fallbacks = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
        if !fallbacks.contains_key(why) && fallbacks.len() >= MAX_FALLBACKS {
            return;
        }
        let reason = fallbacks.entry(why.to_owned()).or_default();
        reason.files += 1;
        if reason.named.len() < NAMED {
            reason.named.push(format!("/{path}"));
        }
    }

    /// A later state of the file at `path` was stored than that which was frozen.
    pub(super) fn moved_on(&self, why: &str, path: &EntryPath) {
        self.moment().moved_on += 1;
        self.fallback(why, path);
    }

    /// The file at `path` was written to during each reading, which its owner's log repairs.
    pub(super) fn fuzzy(&self, why: &str, path: &EntryPath) {
        self.moment().fuzzy += 1;
        self.fallback(why, path);
    }

    /// A file was written to during each reading.
    pub(super) fn torn(&self) {
        self.moment().torn += 1;
    }

    /// The names in the folder at `path` changed again and again while it was frozen.
    pub(super) fn restless(&self, why: &str, path: &EntryPath) {
        self.moment().restless += 1;
        self.fallback(why, path);
    }

    /// Records the time from the first frozen file to the last.
    pub(super) fn frozen_in(&self, time: Duration) {
        self.moment().freeze_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }

    fn moment(&self) -> MutexGuard<'_, Moment> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sent(&self, chunks: u64, bytes: u64, stored: u64) {
        self.chunks_sent.fetch_add(chunks, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_stored.fetch_add(stored, Ordering::Relaxed);
    }

    /// The counts so far.
    pub(super) fn stats(&self) -> PushStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = |kind| get(self.count(kind));
        let fallbacks = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
        let fallback =
            |(reason, of): (&String, &Reason)| Fallback { reason: reason.clone(), files: of.files };
        PushStats {
            unchanged: of(Kind::Unchanged),
            appended: of(Kind::Appended),
            whole: of(Kind::Whole),
            new: of(Kind::New),
            gone: get(&self.gone),
            resumed: of(Kind::Resumed),
            bytes_read: get(&self.bytes_read),
            bytes_hashed: get(&self.bytes_hashed),
            bytes_sent: get(&self.bytes_sent),
            bytes_stored: get(&self.bytes_stored),
            fallbacks: fallbacks.iter().map(fallback).collect(),
            moment: Some(*self.moment()),
        }
    }

    /// The report on an attempt that ended with `committed`. What is not counted is for the caller.
    pub(super) fn report(
        &self,
        committed: &Committed,
        node: &NodeName,
        totals: &Totals,
        problems: &[Problem],
    ) -> PushReport {
        let snapshot = &committed.snapshot;
        let problem = |problem: &Problem| ProblemReport {
            path: format!("/{}", problem.path),
            reason: problem.reason.clone(),
        };
        let stats = self.stats();
        let fallbacks = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
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
            skipped: totals.skipped,
            dedup_ratio: ratio(totals.bytes, stats.bytes_stored),
            stats,
            chunks: self.chunks.load(Ordering::Relaxed),
            chunks_sent: self.chunks_sent.load(Ordering::Relaxed),
            fallback_files: fallbacks.iter().map(|(why, of)| (why.clone(), of.named.clone())).collect(),
            attempts: 1,
            seconds: 0.0,
            frozen: Vec::new(),
            warnings: committed.clock_jumped.then(|| CLOCK_JUMPED.to_owned()).into_iter().collect(),
            left_out: Vec::new(),
            unmatched: Vec::new(),
            suspect: snapshot.suspect,
            problem_count: totals.problems,
            problems: problems.iter().map(problem).collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "a ratio for people needs few digits")]
fn ratio(bytes: u64, stored: u64) -> Option<f64> {
    (stored > 0).then(|| bytes as f64 / stored as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S9: whoever pushes hears at once that the snapshot may bear a wrong time.
    #[test]
    fn a_push_warns_when_the_clock_of_the_server_jumped() {
        let warnings = |clock_jumped: bool| {
            let committed = serde_json::json!({
                "snapshot": {
                    "id": "018bcfe5-6800-7707-8707-070707070707", "cluster": "c", "nodes": ["n"],
                    "created": "2042-01-01T00:00:00Z", "state": "complete", "files": 0, "bytes": 0, "problems": 0,
                },
                "manifest": format!("manifest:{}", "0".repeat(64)),
                "durability": "local",
                "clock_jumped": clock_jumped,
            });
            let committed: Committed = serde_json::from_value(committed).unwrap();
            let node = "n".parse().unwrap();
            Tally::default().report(&committed, &node, &Totals::default(), &[]).warnings
        };

        assert_eq!(warnings(true), [CLOCK_JUMPED]);
        assert_eq!(warnings(false), Vec::<String>::new());
    }
}
