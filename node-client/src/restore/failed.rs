//! Names that a restore could not restore, and why. All else is restored.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use format_spec::{ChunkId, EntryPath};
use rustix::io::Errno;
use serde::Serialize;

use crate::error::{ClientError, chain};

/// How many names a report gives; it counts all.
const MAX_NAMED: usize = 10_000;

/// Why a name was not restored, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedFor {
    /// Stored bytes that it needs are damaged or lost.
    Damaged,
    /// The target cannot have it.
    NotMade,
}

/// A file, folder or link that was wanted and is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Its path on the node it comes from.
    pub path: String,
    /// Why, for programs.
    pub why: FailedFor,
    /// The first damaged chunk of it, if it is known.
    pub object: Option<String>,
    /// Why, for people.
    pub reason: String,
}

/// A page of a manifest that could not be read: the names of its entries are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedPage {
    /// The page.
    pub object: String,
    /// Why, for people.
    pub reason: String,
}

/// Why a name was not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    cause: FailedFor,
    object: Option<ChunkId>,
    reason: String,
}

impl Why {
    /// This chunk of it did not come back as it was pushed.
    pub(super) fn chunk(id: ChunkId, reason: String) -> Self {
        Self { cause: FailedFor::Damaged, object: Some(id), reason }
    }

    /// Something that it needs is damaged.
    pub(super) fn damaged(reason: &str) -> Self {
        Self { cause: FailedFor::Damaged, object: None, reason: reason.to_owned() }
    }

    /// The target cannot have it.
    pub(super) fn not_made(reason: String) -> Self {
        Self { cause: FailedFor::NotMade, object: None, reason }
    }

    /// The reason for a hard link of what failed for this.
    pub(super) fn of_link(&self) -> Self {
        let reason = format!("the file that it is a link of was not restored: {}", self.reason);
        Self { reason, ..self.clone() }
    }

    /// The reason for the content of a folder that failed for this.
    pub(super) fn of_content(&self) -> Self {
        let reason = format!("its folder was not restored: {}", self.reason);
        Self { reason, ..self.clone() }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Obstacle of a restore.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// One name cannot be restored; the restore continues.
    Name(Why),
    /// No other name can be restored either.
    All(ClientError),
}

impl Obstacle {
    /// The target refused to do something with one name.
    pub(super) fn name(action: &str, error: &io::Error) -> Self {
        Self::Name(Why::not_made(format!("{action}: {error}")))
    }
}

impl From<ClientError> for Obstacle {
    fn from(error: ClientError) -> Self {
        Self::All(error)
    }
}

/// True if the next name would fail for the same reason: no space, no memory, no handles, no device.
pub(super) fn ends_all(error: &io::Error) -> bool {
    const ALL: [Errno; 7] =
        [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NODEV, Errno::NXIO];
    ALL.iter().any(|all| error.raw_os_error() == Some(all.raw_os_error()))
}

/// Collects what failed, from several threads.
#[derive(Default)]
pub(super) struct Failures(Mutex<Found>);

/// The first names that failed, and how many did.
#[derive(Default)]
pub(super) struct Found {
    first: BTreeMap<EntryPath, Why>,
    pub(super) damaged: u64,
    pub(super) not_made: u64,
    pub(super) pages: Vec<DamagedPage>,
}

impl Found {
    /// The names, in path order.
    pub(super) fn names(&self) -> Vec<Failed> {
        let failed = |(path, why): (&EntryPath, &Why)| Failed {
            path: path.to_string(),
            why: why.cause,
            object: why.object.map(|id| id.to_string()),
            reason: why.reason.clone(),
        };
        self.first.iter().map(failed).collect()
    }
}

impl Failures {
    /// True if names of the snapshot are not known.
    pub(super) fn has_damaged_pages(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).pages.is_empty()
    }

    /// One more name.
    pub(super) fn add(&self, path: &EntryPath, why: Why) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match why.cause {
            FailedFor::Damaged => found.damaged += 1,
            FailedFor::NotMade => found.not_made += 1,
        }
        if found.first.len() < MAX_NAMED {
            found.first.insert(path.clone(), why);
        }
    }

    /// One more page.
    pub(super) fn add_page(&self, id: ChunkId, error: &ClientError) {
        let page = DamagedPage { object: id.to_string(), reason: chain(error) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pages.push(page);
    }

    /// All of it.
    pub(super) fn take(&self) -> Found {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
