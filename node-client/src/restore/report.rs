//! Report of a restore, for people and scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::manifest::Manifest;
use format_spec::snapshot::SnapshotState;
use format_spec::{Entry, EntryPath, ErrorClass, NodeName, SnapshotId};
use serde::Serialize;

use super::attributes::{NotSet, Note};
use super::delete::{NotRemoved, Removed};
use super::failed::{DamagedPage, Failed, Found};
use super::filter::Filter;
use super::mixed::{Mixed, Names};
use super::plan::Step;
use super::select::PassedOver;
use super::work::Work;
use super::{Prepared, RestoreOptions, Unset};
use crate::error::EXIT_PARTIAL;

/// A name that was wanted, and that the snapshot does not have as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path on the node it comes from.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The names with problems in the manifest that exist in the snapshot all the same.
pub(super) struct Present<'a> {
    problems: BTreeSet<&'a EntryPath>,
    there: BTreeSet<EntryPath>,
}

impl<'a> Present<'a> {
    /// None yet.
    pub(super) fn of(manifest: &'a Manifest) -> Self {
        let problems = manifest.problems.iter().map(|problem| &problem.path).collect();
        Self { problems, there: BTreeSet::new() }
    }

    /// Looks at the next step of the plan.
    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::EnterFolder { path, entry: Some(_), .. }
            | Step::Link { path, .. }
            | Step::Owe { path, .. }
            | Step::BeginFile { entry: Entry { path, .. }, .. }
            | Step::Symlink { entry: Entry { path, .. }, .. } => {
                if self.problems.contains(path) {
                    self.there.insert(path.clone());
                }
            }
            Step::Skip { path } | Step::Lose { path, .. } => {
                self.there.remove(path);
            }
            Step::EnterFolder { .. }
            | Step::LeaveFolder
            | Step::Chunk { .. }
            | Step::EndFile { .. }
            | Step::AbandonFile
            | Step::Mark { .. } => {}
        }
    }

    /// The names.
    pub(super) fn there(self) -> BTreeSet<EntryPath> {
        self.there
    }
}

/// Names that were not restored as they should have been.
#[derive(Default)]
pub(super) struct Flaws {
    /// Names that were skipped.
    pub(super) skipped: Vec<EntryPath>,
    /// Names that the manifest has problems with, and that it holds all the same.
    pub(super) there: BTreeSet<EntryPath>,
    /// Names that hold mixtures.
    pub(super) mixed: Mixed,
    /// How many entries of the manifest were seen.
    pub(super) entries: u64,
    /// Names that were removed from the target because the snapshot lacks them.
    pub(super) removed: Removed,
}

/// Report of a restore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Node of the files.
    pub node: NodeName,
    /// Regular files restored, each hard link counted.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Those of the files that were in the target already with this content, and were not fetched.
    pub unchanged: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Bytes that came over the network for it, as compressed.
    pub bytes_fetched: u64,
    /// Files that were wanted and are missing: they could not be read when they were pushed.
    pub skipped: Vec<Skipped>,
    /// Files, folders and links that are restored and lack something: when they were pushed, their attributes could not be
    /// stored, a folder could not be listed, or a file had become shorter.
    pub incomplete: Vec<Skipped>,
    /// The first ten thousand files, folders and links that were wanted and are not restored.
    pub failed: Vec<Failed>,
    /// How many names were not restored because stored bytes are damaged or lost.
    pub damaged_count: u64,
    /// How many names were not restored because the target cannot have them.
    pub not_made_count: u64,
    /// Pages of the manifest that could not be read: what they name is not restored.
    pub damaged_pages: Vec<DamagedPage>,
    /// How many entries those pages held, if it is known.
    pub lost_entries: Option<u64>,
    /// Patterns of `--path` that fitted nothing.
    pub unmatched: Vec<String>,
    /// Patterns of `--exclude` that fitted nothing.
    pub unmatched_excludes: Vec<String>,
    /// The first thousand attributes that restored files do not have.
    pub warnings: Vec<Note>,
    /// How many names lack which attributes.
    pub not_set: NotSet,
    /// Unfinished files of restores that were killed, which this one removed.
    pub leftovers_removed: u64,
    /// The first ten thousand names that `--delete` removed, by their paths below the target.
    pub removed: Vec<String>,
    /// How many names `--delete` removed.
    pub removed_count: u64,
    /// The first ten thousand names that `--delete` should have removed, and that are there.
    pub not_removed: Vec<NotRemoved>,
    /// How many such names.
    pub not_removed_count: u64,
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
    /// Partial if anything that was wanted is not restored or is torn.
    pub state: SnapshotState,
    /// How long it took.
    pub seconds: f64,
}

impl RestoreReport {
    pub(super) fn new(prepared: &Prepared<'_>, work: &Work<'_>, flaws: Flaws, seconds: f64) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Flaws { skipped, there, mixed: Mixed { fuzzy, torn }, entries, removed } = flaws;
        let Prepared { snapshot, node, passed_over, manifest, filter, .. } = prepared;
        let (incomplete, skipped) = problems(manifest, filter, skipped, &there, &torn);
        let found = work.failures.take();
        let (warnings, not_set) = work.writer.attributes.notes.take();
        let lost_entries = lost_entries(manifest, entries, &found);
        let failed = found.names();
        let Found { damaged: damaged_count, not_made: not_made_count, pages: damaged_pages, .. } = found;
        let mut report = Self {
            snapshot: *snapshot,
            node: node.clone(),
            files: count(&work.tally.files),
            folders: count(&work.tally.folders),
            symlinks: count(&work.tally.symlinks),
            unchanged: count(&work.tally.unchanged),
            bytes: count(&work.tally.bytes),
            bytes_fetched: count(&work.tally.bytes_fetched),
            skipped,
            incomplete,
            failed,
            damaged_count,
            not_made_count,
            damaged_pages,
            lost_entries,
            unmatched: filter.idle_paths(),
            unmatched_excludes: filter.idle_excludes(),
            warnings,
            not_set,
            leftovers_removed: count(&work.writer.target.leftovers),
            removed: removed.names,
            removed_count: removed.count,
            not_removed: removed.left,
            not_removed_count: removed.left_count,
            fuzzy: fuzzy.text(),
            fuzzy_count: fuzzy.count,
            torn: torn.text(),
            torn_count: torn.count,
            passed_over: passed_over.clone(),
            state: SnapshotState::Complete,
            seconds,
        };
        if report.lacks_something() {
            report.state = SnapshotState::Partial;
        }
        report
    }

    fn lacks_something(&self) -> bool {
        let failed = self.damaged_count + self.not_made_count + self.not_removed_count > 0
            || !self.damaged_pages.is_empty();
        let lacks = !self.skipped.is_empty() || !self.incomplete.is_empty();
        failed || lacks || !self.unmatched.is_empty() || self.torn_count > 0
    }

    /// True if stored bytes are damaged or lost.
    pub fn is_damaged(&self) -> bool {
        self.damaged_count > 0 || !self.damaged_pages.is_empty()
    }

    /// The exit code of a program that ends with this: that of damage, if there is any; else whether anything is
    /// missing.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            _ if self.is_damaged() => ErrorClass::Integrity.exit_code(),
            SnapshotState::Partial => EXIT_PARTIAL,
            SnapshotState::Complete => 0,
        }
    }

    /// The same, for a restore with these options.
    pub fn exit_code_of(&self, options: &RestoreOptions) -> u8 {
        let is_partial = options.unset == Unset::IsPartial && self.not_set.lacks(options.setuid);
        match self.exit_code() {
            0 if is_partial => EXIT_PARTIAL,
            code => code,
        }
    }

    /// True if there is nothing to report: nothing was restored, and nothing failed.
    pub(super) fn is_empty(&self) -> bool {
        let made = self.files + self.folders + self.symlinks;
        made + self.damaged_count + self.not_made_count == 0
            && self.skipped.is_empty()
            && self.damaged_pages.is_empty()
    }
}

/// How many entries damaged pages held: those that the manifest counts and that were not seen.
fn lost_entries(manifest: &Manifest, seen: u64, found: &Found) -> Option<u64> {
    let totals = &manifest.totals;
    let all = totals.files + totals.folders + totals.symlinks;
    all.checked_sub(seen).filter(|lost| *lost > 0 && !found.pages.is_empty())
}

/// Incomplete and missing files: the problems of the manifest, and the skipped names. A torn file is a problem of the
/// manifest as well, and is there.
fn problems(
    manifest: &Manifest,
    filter: &Filter,
    passed: Vec<EntryPath>,
    there: &BTreeSet<EntryPath>,
    torn: &Names,
) -> (Vec<Skipped>, Vec<Skipped>) {
    let known = manifest.problems.iter().filter(|problem| filter.covers(&problem.path));
    let known = known.filter(|problem| !torn.first.contains(&problem.path));
    let known = known.map(|problem| (problem.path.clone(), problem.reason.clone()));
    let (incomplete, mut missing): (BTreeMap<_, _>, BTreeMap<_, _>) =
        known.partition(|(path, _)| there.contains(path));
    for path in passed {
        missing.entry(path).or_insert_with(|| "it was unreadable when it was pushed".to_owned());
    }
    let told = |names: BTreeMap<EntryPath, String>| {
        names.into_iter().map(|(path, reason)| Skipped { path: path.to_string(), reason }).collect()
    };
    (told(incomplete), told(missing))
}
