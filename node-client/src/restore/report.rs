//! What a restore did, for people and scripts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::manifest::Manifest;
use format_spec::snapshot::SnapshotState;
use format_spec::{EntryPath, NodeName, SnapshotId};
use serde::Serialize;

use super::attributes::Note;
use super::filter::Filter;
use super::work::Work;

/// A file that was wanted and is not in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path on the node it comes from.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Whose files.
    pub node: NodeName,
    /// Regular files restored, each hard link counted.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Bytes that came over the network for it, as compressed.
    pub bytes_fetched: u64,
    /// Files that were wanted and could not be read when they were pushed.
    pub skipped: Vec<Skipped>,
    /// Attributes that restored files do not have.
    pub warnings: Vec<Note>,
    /// Partial if anything was skipped: the process exits with 3 then.
    pub state: SnapshotState,
    /// How long it took.
    pub seconds: f64,
}

impl RestoreReport {
    pub(super) fn new(
        snapshot: SnapshotId,
        node: NodeName,
        work: &Work<'_>,
        manifest: &Manifest,
        filter: &Filter,
        skipped: Vec<EntryPath>,
        seconds: f64,
    ) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let skipped = skipped_files(manifest, filter, skipped);
        Self {
            snapshot,
            node,
            files: count(&work.tally.files),
            folders: count(&work.tally.folders),
            symlinks: count(&work.tally.symlinks),
            bytes: count(&work.tally.bytes),
            bytes_fetched: count(&work.tally.bytes_fetched),
            state: if skipped.is_empty() { SnapshotState::Complete } else { SnapshotState::Partial },
            skipped,
            warnings: work.writer.attributes.notes.take(),
            seconds,
        }
    }

    /// Whether nothing was restored or skipped.
    pub(super) fn is_empty(&self) -> bool {
        self.files + self.folders + self.symlinks == 0 && self.skipped.is_empty()
    }
}

/// What is missing: what the manifest says, and the names that were passed over.
fn skipped_files(manifest: &Manifest, filter: &Filter, passed: Vec<EntryPath>) -> Vec<Skipped> {
    let known = manifest.problems.iter().filter(|problem| filter.covers(&problem.path));
    let mut skipped: BTreeMap<EntryPath, String> =
        known.map(|problem| (problem.path.clone(), problem.reason.clone())).collect();
    for path in passed {
        skipped.entry(path).or_insert_with(|| "it was unreadable when it was pushed".to_owned());
    }
    skipped.into_iter().map(|(path, reason)| Skipped { path: path.to_string(), reason }).collect()
}
