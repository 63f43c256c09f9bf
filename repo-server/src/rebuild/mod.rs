//! A rebuild: index, counts and snapshots from the site and the master key, after the server's disk is lost.
//!
//! This is the one place where a listing of the site says what there is. A listing that fails ends the
//! rebuild. In order:
//!
//! 1. Packs: their directories, from checkpoints and from the ends of the packs that those do not cover. A blob
//!    that lies in two packs, as a heal leaves it and a repack, is read: it is taken from where it opens, and of two
//!    that open from the pack whose name comes first. If none opens it is in quarantine. A pack of
//!    which nothing is taken is doomed, after a while.
//! 2. Snapshots: opened, and compared with their names.
//! 3. Counts: by the code of the audit. A page that refers to a chunk which is in no pack gets no row (X7):
//!    clients that have it are asked to send it again. Pages that manifests name and no pack has are *owed*.
//! 4. Rows of packs, the queue of unreferenced data, totals, epoch 1. Fencing tokens restart at the current
//!    time in milliseconds: the last granted token is not on the site. No counter that started at 1 can have
//!    reached that number, unless an earlier rebuild ran with a clock set ahead.
//!
//! Not recovered, because the site does not have it: sessions, the deletion of snapshots that were not purged
//! (they are listed again), known damage of blobs without a second copy, and the times of pack checks.
//!
//! Until it is done the data folder holds the file `rebuilding`; a server refuses to start there, and a new
//! rebuild starts from the beginning. Nothing on the site changes.

mod copies;
mod counts;
mod fill;
mod folder;
mod packs;
mod pages;
mod snapshots;
#[cfg(test)]
mod tests;

use format_spec::{RepositoryId, SnapshotId};
use serde::Serialize;

#[cfg(test)]
pub(crate) use fill::fill_from_site;
pub use folder::{Plan, RebuildError, run};

/// Findings and notes that a report lists, each.
const LISTED: usize = 1000;

/// Something that a snapshot needs and the site does not have, or not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The object, by its id or name.
    pub object: String,
    /// Description of the problem.
    pub problem: String,
    /// The affected snapshots, as far as known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
}

/// Report of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RebuildReport {
    /// The repository.
    pub repository: RepositoryId,
    /// Packs in the index.
    pub packs: u64,
    /// Packs whose directories came from checkpoints.
    pub packs_of_checkpoints: u64,
    /// Unreferenced packs, which will be deleted.
    pub dead_packs: u64,
    /// Chunks and pages in the index.
    pub chunks: u64,
    /// Bytes of all packs in the index.
    pub stored_bytes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// How many things are lost. At most 1,000 are listed.
    pub found: u64,
    /// The first of them. The repository can still be used.
    pub findings: Vec<Lost>,
    /// Notes about objects that were skipped.
    pub notes: Vec<String>,
}

impl RebuildReport {
    /// True if all data of snapshots is present.
    pub fn is_sound(&self) -> bool {
        self.found == 0
    }

    fn new(repository: RepositoryId) -> Self {
        Self {
            repository,
            packs: 0,
            packs_of_checkpoints: 0,
            dead_packs: 0,
            chunks: 0,
            stored_bytes: 0,
            snapshots: 0,
            found: 0,
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn find(&mut self, object: impl ToString, problem: impl ToString, snapshots: Vec<SnapshotId>) {
        let lost = Lost { object: object.to_string(), problem: problem.to_string(), snapshots };
        tracing::warn!(object = lost.object, problem = lost.problem, "unrecoverable object");
        self.found += 1;
        if self.findings.len() < LISTED {
            self.findings.push(lost);
        }
    }

    fn note(&mut self, note: String) {
        tracing::warn!(note, "note");
        if self.notes.len() < LISTED {
            self.notes.push(note);
        }
    }
}
