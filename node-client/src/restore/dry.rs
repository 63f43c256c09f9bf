//! Plan of a restore, without writing.

use std::collections::BTreeSet;

use format_spec::snapshot::SnapshotState;
use format_spec::{ErrorClass, NodeName, SnapshotId};
use serde::Serialize;
use tokio::runtime::Handle;

use super::delete::{self, Extra, NotRemoved, Pages, Removed};
use super::failed::{DamagedPage, Failures};
use super::plan::Step;
use super::select::PassedOver;
use super::{Hooks, PassNumber, Prepared, RestoreOptions};
use crate::api::Api;
use crate::error::{ClientError, EXIT_PARTIAL};

/// How many names a report gives; it counts all.
const MAX_NAMED: usize = 10_000;

/// A kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedKind {
    /// A folder.
    Folder,
    /// A file, or a further name of one.
    File,
    /// A symbolic link.
    Symlink,
}

/// A name that a restore would make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PlannedName {
    /// Its path on the node it comes from.
    pub path: String,
    /// Kind of the name.
    pub kind: PlannedKind,
}

/// Plan of a restore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DryRun {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Node of the files.
    pub node: NodeName,
    /// Regular files, each hard link counted.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// The first ten thousand names.
    pub names: Vec<PlannedName>,
    /// Files that were wanted and that the snapshot has no content of.
    pub skipped_count: u64,
    /// Names that were wanted and that a damaged page leaves without content.
    pub damaged_count: u64,
    /// Pages of the manifest that could not be read. Damaged chunks are not looked for.
    pub damaged_pages: Vec<DamagedPage>,
    /// Patterns of `--path` that fitted nothing.
    pub unmatched: Vec<String>,
    /// The first ten thousand names that `--delete` would remove, by their paths below the target.
    pub to_remove: Vec<String>,
    /// How many names `--delete` would remove.
    pub to_remove_count: u64,
    /// The first ten thousand names that `--delete` should remove and would not.
    pub not_removed: Vec<NotRemoved>,
    /// How many names `--delete` should remove and would not.
    pub not_removed_count: u64,
    /// A newer snapshot, if `latest` does not stand for the newest.
    pub passed_over: Option<PassedOver>,
    /// Partial if the restore would lack something.
    pub state: SnapshotState,
}

impl DryRun {
    /// How many names.
    pub fn count(&self) -> u64 {
        self.files + self.folders + self.symlinks
    }

    /// The exit code of a program that ends with this, as that of the restore.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            _ if self.damaged_count > 0 || !self.damaged_pages.is_empty() => {
                ErrorClass::Integrity.exit_code()
            }
            SnapshotState::Partial => EXIT_PARTIAL,
            SnapshotState::Complete => 0,
        }
    }
}

/// Finds out what [`run`](super::run) would make. Reads the manifest and its pages, and looks neither at chunks nor,
/// unless names may go from it, at the target.
///
/// # Errors
/// The errors of [`run`](super::run), without those of the target.
pub fn dry_run(
    api: &Api,
    runtime: &Handle,
    options: &RestoreOptions,
    hooks: &Hooks<'_>,
) -> Result<DryRun, ClientError> {
    let pace = options.pace();
    let prepared = Prepared::new(api, runtime, options, hooks, &pace)?;
    let planner = prepared.planner();
    let (mut plan, failures, mut entries) = (Plan::default(), Failures::default(), 0);
    prepared.pass(planner, PassNumber::First(&mut entries, &failures), &mut |step| {
        plan.step(step);
        Ok(())
    })?;
    let damaged_pages = failures.take().pages;
    let pages = if damaged_pages.is_empty() { Pages::Sound } else { Pages::Damaged };
    let removed = match (options.extra, delete::refusal(&prepared, options, pages)) {
        (Extra::Stays, _) => Removed::default(),
        (Extra::Goes, Some(refused)) => refused,
        (Extra::Goes, None) => delete::would_remove(&prepared, options)?,
    };
    let Prepared { snapshot, node, passed_over, filter, .. } = prepared;
    let unmatched = filter.idle_paths();
    if plan.is_empty() && damaged_pages.is_empty() && !options.paths.is_empty() {
        return Err(super::nothing_matches(options));
    }
    let lacks = plan.skipped + plan.damaged + removed.left_count > 0
        || !damaged_pages.is_empty()
        || !unmatched.is_empty();
    Ok(DryRun {
        snapshot,
        node,
        files: plan.files,
        folders: plan.folders,
        symlinks: plan.symlinks,
        bytes: plan.bytes,
        names: plan.names.into_iter().collect(),
        skipped_count: plan.skipped,
        damaged_count: plan.damaged,
        damaged_pages,
        unmatched,
        to_remove: removed.names,
        to_remove_count: removed.count,
        not_removed: removed.left,
        not_removed_count: removed.left_count,
        passed_over,
        state: if lacks { SnapshotState::Partial } else { SnapshotState::Complete },
    })
}

/// The steps, counted.
#[derive(Default)]
struct Plan {
    files: u64,
    folders: u64,
    symlinks: u64,
    bytes: u64,
    skipped: u64,
    damaged: u64,
    names: BTreeSet<PlannedName>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.files + self.folders + self.symlinks + self.skipped + self.damaged == 0
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::EnterFolder { path, entry: Some(_), .. } => {
                self.folders += 1;
                self.name(path.to_string(), PlannedKind::Folder);
            }
            Step::Symlink { entry, .. } => {
                self.symlinks += 1;
                self.name(entry.path.to_string(), PlannedKind::Symlink);
            }
            Step::BeginFile { entry, .. } => {
                self.files += 1;
                self.bytes += entry.size;
                self.name(entry.path.to_string(), PlannedKind::File);
            }
            Step::Link { path, .. } | Step::Owe { path, .. } => {
                self.files += 1;
                self.name(path.to_string(), PlannedKind::File);
            }
            Step::Skip { .. } => self.skipped += 1,
            Step::Lose { .. } => self.damaged += 1,
            Step::EnterFolder { .. }
            | Step::LeaveFolder
            | Step::Chunk { .. }
            | Step::EndFile { .. }
            | Step::AbandonFile
            | Step::Mark { .. } => {}
        }
    }

    fn name(&mut self, path: String, kind: PlannedKind) {
        if self.names.len() < MAX_NAMED {
            self.names.insert(PlannedName { path, kind });
        }
    }
}
