//! What a restore did, for people and scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::manifest::Manifest;
use format_spec::snapshot::SnapshotState;
use format_spec::{EntryPath, NodeName, SnapshotId};
use serde::Serialize;

use super::attributes::Note;
use super::filter::Filter;
use super::plan::Mixture;
use super::select::PassedOver;
use super::work::Work;

/// A file that was wanted and is not in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path on the node it comes from.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// How many names of files that are not settled states a report gives; it counts all.
const MAX_NAMED: usize = 1000;

/// The names whose content was written to while it was read.
#[derive(Default)]
pub(super) struct Mixed {
    fuzzy: Names,
    torn: Names,
}

impl Mixed {
    /// One more.
    pub(super) fn add(&mut self, path: EntryPath, mixture: Mixture) {
        match mixture {
            Mixture::Fuzzy => self.fuzzy.add(path),
            Mixture::Torn => self.torn.add(path),
        }
    }
}

/// The first of many names.
#[derive(Default)]
struct Names {
    first: BTreeSet<EntryPath>,
    count: u64,
}

impl Names {
    fn add(&mut self, path: EntryPath) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.insert(path);
        }
    }

    fn text(&self) -> Vec<String> {
        self.first.iter().map(EntryPath::to_string).collect()
    }
}

/// What was not restored as it should have been.
pub(super) struct Flaws {
    /// Names that were passed over.
    pub(super) skipped: Vec<EntryPath>,
    /// Names that hold mixtures.
    pub(super) mixed: Mixed,
    /// A snapshot that is newer than the one that was taken.
    pub(super) passed_over: Option<PassedOver>,
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
    /// Files that were wanted and are missing: they could not be read when they were pushed.
    pub skipped: Vec<Skipped>,
    /// Attributes that restored files do not have.
    pub warnings: Vec<Note>,
    /// The first thousand restored files that their owner wrote to while they were pushed, and that its own log
    /// repairs.
    pub fuzzy: Vec<String>,
    /// How many such files.
    pub fuzzy_count: u64,
    /// The first thousand restored files that are mixtures of states, and that nothing is known to repair.
    pub torn: Vec<String>,
    /// How many such files.
    pub torn_count: u64,
    /// A newer snapshot, if `latest` does not stand for the newest.
    pub passed_over: Option<PassedOver>,
    /// Partial if anything was skipped or is torn: the process exits with 3 then.
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
        flaws: Flaws,
        seconds: f64,
    ) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Flaws { skipped, mixed: Mixed { fuzzy, torn }, passed_over } = flaws;
        let skipped = skipped_files(manifest, filter, skipped, &torn);
        let is_complete = skipped.is_empty() && torn.count == 0;
        Self {
            snapshot,
            node,
            files: count(&work.tally.files),
            folders: count(&work.tally.folders),
            symlinks: count(&work.tally.symlinks),
            bytes: count(&work.tally.bytes),
            bytes_fetched: count(&work.tally.bytes_fetched),
            state: if is_complete { SnapshotState::Complete } else { SnapshotState::Partial },
            skipped,
            warnings: work.writer.attributes.notes.take(),
            fuzzy: fuzzy.text(),
            fuzzy_count: fuzzy.count,
            torn: torn.text(),
            torn_count: torn.count,
            passed_over,
            seconds,
        }
    }

    /// Whether nothing was restored or skipped.
    pub(super) fn is_empty(&self) -> bool {
        self.files + self.folders + self.symlinks == 0 && self.skipped.is_empty()
    }
}

/// What is missing: what the manifest says, and the names that were passed over. A torn file is a problem of the
/// manifest as well, and is there.
fn skipped_files(manifest: &Manifest, filter: &Filter, passed: Vec<EntryPath>, torn: &Names) -> Vec<Skipped> {
    let known = manifest.problems.iter().filter(|problem| filter.covers(&problem.path));
    let known = known.filter(|problem| !torn.first.contains(&problem.path));
    let mut skipped: BTreeMap<EntryPath, String> =
        known.map(|problem| (problem.path.clone(), problem.reason.clone())).collect();
    for path in passed {
        skipped.entry(path).or_insert_with(|| "it was unreadable when it was pushed".to_owned());
    }
    skipped.into_iter().map(|(path, reason)| Skipped { path: path.to_string(), reason }).collect()
}
