//! The index: small rows that say which chunk lies where, and which packs, snapshots, manifests and
//! sessions there are.
//!
//! An [`Index`] is an ordered map from keys to values in a closed set of [`Table`]s. Engines differ in
//! speed and size; what they promise does not, and `conformance` checks every line of it:
//!
//! | id | promise |
//! |---|---|
//! | X1 | a batch is there after a kill or a power cut once [`Index::commit`] has returned `Ok` |
//! | X2 | a batch is there whole or not at all: after a crash, after an error, and to a concurrent reader |
//! | X3 | a batch is applied only if all its preconditions hold at that moment; commits run one after the other |
//! | X4 | what a reader is shown is durable already |
//! | X5 | keys, values, batches and answers have limits, checked before anything changes |
//! | X6 | a folder is opened only by the engine that made it, and by one process at a time |
//!
//! All calls block, on disk at times for long: async code calls them from `spawn_blocking`. Reads never
//! wait for a commit to reach the disk with fjall, but do with sled. Everything in the index can be
//! rebuilt from one site and the keyring, so an engine's defect costs time, never data.

mod batch;
#[cfg(test)]
mod conformance;
mod error;
mod fjall;
mod folder;
mod memory;
mod range;
#[cfg(feature = "sled")]
mod sled;
mod space;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

pub use batch::{Batch, MAX_BATCH_WEIGHT, MAX_KEY_LEN, MAX_VALUE_LEN, Precondition};
pub use error::{IndexError, OpenError, UnknownEngine};
pub use memory::MemoryIndex;
pub use range::{KeyRange, MAX_SCAN_BYTES, Row, Rows};
pub(crate) use space::RESERVE_MIN;

pub(crate) use folder::{Missing, lock_patiently};

use crate::durable::{Disk, RealDisk};

/// The tables of an index. Names and tags are stored, so they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Where each chunk lies, and how often it is referred to.
    Chunk,
    /// Packs, by number: id, lengths, kind and live blobs.
    Pack,
    /// Snapshots and their state.
    Snapshot,
    /// Manifests and what they refer to.
    Manifest,
    /// Open sessions and what they pin.
    Session,
    /// Counters and facts about the repository itself.
    Meta,
    /// Decisions about snapshots after their commit.
    Mark,
    /// The collector's queue.
    Idle,
    /// Objects that are to be deleted.
    Doomed,
    /// Blobs whose stored bytes are not what was written.
    Damaged,
}

impl Table {
    /// Every table, in the order of their tags.
    pub const ALL: [Self; 10] = [
        Self::Chunk,
        Self::Pack,
        Self::Snapshot,
        Self::Manifest,
        Self::Session,
        Self::Meta,
        Self::Mark,
        Self::Idle,
        Self::Doomed,
        Self::Damaged,
    ];

    /// The name under which engines with named tables store it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Pack => "pack",
            Self::Snapshot => "snapshot",
            Self::Manifest => "manifest",
            Self::Session => "session",
            Self::Meta => "meta",
            Self::Mark => "mark",
            Self::Idle => "idle",
            Self::Doomed => "doomed",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An ordered map of small rows with atomic, durable, conditional writes. See the module for X1 to X6.
///
/// Any number of threads may call any method at any time.
pub trait Index: Send + Sync {
    /// The value of `key` in `table`, or `None`.
    ///
    /// # Errors
    /// [`IndexError::Read`]: the row could not be read; nothing is known about it.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// The values of `keys`, in their order, all as of one moment. A key may appear more than once.
    ///
    /// Much faster than as many [`get`](Self::get)s. Sorted keys are a little faster still.
    ///
    /// # Errors
    /// [`IndexError::Read`]: a row could not be read; nothing is known about any.
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError>;

    /// The first rows of `range`, in key order, all as of one moment: at most `limit`, and no more
    /// after [`MAX_SCAN_BYTES`]. [`Rows::rest`] is what to scan next; each answer has its own moment.
    ///
    /// # Errors
    /// [`IndexError::Read`]: a row could not be read; none are returned.
    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError>;

    /// Applies `batch` whole, if all its preconditions hold, and returns once it is safe from a power cut.
    ///
    /// Preconditions see the index as it was before the batch. A batch without changes only checks.
    ///
    /// # Errors
    /// - [`IndexError::Precondition`]: the first one that did not hold. Nothing changed.
    /// - [`IndexError::TooLarge`], [`IndexError::Full`], [`IndexError::Read`]: nothing changed.
    /// - [`IndexError::Commit`]: the batch may or may not be on disk, and no later commit can be
    ///   trusted. [`IndexError::is_fatal`] is true: the process must end without running destructors,
    ///   and the next one finds the batch whole or not at all.
    fn commit(&self, batch: Batch) -> Result<(), IndexError>;
}

/// A kind of index that keeps its rows in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// The default, for repositories of any size.
    #[default]
    Fjall,
    /// For small repositories; only in builds with the cargo feature `sled`.
    Sled,
}

impl Engine {
    const ALL: [Self; 2] = [Self::Fjall, Self::Sled];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        Self::ALL
            .into_iter()
            .find(|engine| engine.name() == name)
            .ok_or_else(|| UnknownEngine { name: name.to_owned() })
    }
}

/// Opens the index in `dir`, and creates it if there is none. The name of `dir` is durable then; those of folders
/// above it are the caller's to sync.
///
/// Everything found is flushed to disk before it is read, so nothing is served that an earlier failed
/// write left only in memory. A creation that was cut short is started again.
///
/// # Errors
/// See [`OpenError`]. Nothing is served; a retry does no harm.
pub fn open(engine: Engine, dir: &Path) -> Result<Arc<dyn Index>, OpenError> {
    open_on(Arc::new(RealDisk), engine, dir, Missing::Create)
}

/// Opens the index in `dir`, which must be there.
///
/// For a repository that is known to have one: a lost index must be rebuilt, not replaced by an empty one.
///
/// # Errors
/// See [`OpenError`], most of all [`OpenError::Missing`].
pub fn open_existing(engine: Engine, dir: &Path) -> Result<Arc<dyn Index>, OpenError> {
    open_on(Arc::new(RealDisk), engine, dir, Missing::Refuse)
}

/// Removes the index in `dir`, whatever its state, for good. An index that is in use is kept.
///
/// # Errors
/// [`OpenError::InUse`], [`OpenError::Io`], [`OpenError::Durable`].
pub fn discard(dir: &Path) -> Result<(), OpenError> {
    folder::discard(Arc::new(RealDisk), dir)
}

/// Opens the index in `dir`, with another disk to sync the folders and what is found in them; the engine's own
/// syncs are of this machine's.
///
/// # Errors
/// The errors of [`open`] and [`open_existing`].
pub(crate) fn open_on(
    disk: Arc<dyn Disk>,
    engine: Engine,
    dir: &Path,
    missing: Missing,
) -> Result<Arc<dyn Index>, OpenError> {
    match engine {
        Engine::Fjall => Ok(Arc::new(fjall::FjallIndex::open(disk, dir, missing)?)),
        #[cfg(feature = "sled")]
        Engine::Sled => Ok(Arc::new(sled::SledIndex::open(disk, dir, missing)?)),
        #[cfg(not(feature = "sled"))]
        Engine::Sled => Err(OpenError::NotBuilt { engine }),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::copy_tree;
