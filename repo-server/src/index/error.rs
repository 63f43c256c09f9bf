//! Errors of an index, and the action that the caller can take.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use format_spec::ErrorClass;

use super::{Engine, Table};
use crate::durable::DurableError;

/// An engine's own error. Only shown: nothing may depend on which engine is behind the trait.
pub(super) type EngineError = Box<dyn Error + Send + Sync>;

/// A call to an open index failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum IndexError {
    /// The first precondition that did not hold. Nothing changed.
    #[error("precondition on key {} of table `{table}` does not hold", Hex(key))]
    Precondition { table: Table, key: Vec<u8> },
    /// A key, a value or a whole batch is over a limit, or a key is empty. Nothing changed.
    #[error("{what} of {len} bytes is not within 1 to {limit}")]
    TooLarge { what: &'static str, len: usize, limit: usize },
    /// The disk is nearly full: commits are refused while engines still have room to work. Nothing changed.
    #[error("the index refuses commits: {free_bytes} bytes are free, {reserve_bytes} are reserved")]
    Full { free_bytes: u64, reserve_bytes: u64 },
    /// Rows could not be read.
    #[error("read table `{table}` of the index")]
    Read { table: Table, source: EngineError },
    /// The batch may or may not be on disk, and no later commit can be trusted.
    #[error("commit to the index")]
    Commit(#[source] EngineError),
}

impl IndexError {
    /// True if the process must end at once, without running destructors.
    ///
    /// A failed write or fsync cannot be retried: the kernel may have dropped the pages, and a
    /// destructor could still complete on disk what the caller was told had failed.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Commit(_))
    }

    /// Action that the caller can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Precondition { .. } => ErrorClass::Conflict,
            Self::TooLarge { .. } => ErrorClass::Bug,
            Self::Full { .. } | Self::Read { .. } | Self::Commit(_) => ErrorClass::Unavailable,
        }
    }

    pub(super) fn read(table: Table, source: impl Into<EngineError>) -> Self {
        Self::Read { table, source: source.into() }
    }

    pub(super) fn commit(source: impl Into<EngineError>) -> Self {
        Self::Commit(source.into())
    }
}

/// An index could not be opened. Nothing is served from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum OpenError {
    /// This program was built without the engine.
    #[error("this build lacks the index engine `{engine}`: build with the cargo feature `{engine}`")]
    NotBuilt { engine: Engine },
    /// The folder was made by another engine.
    #[error("the index in {} was made by engine `{found}`, not by `{wanted}`", dir.display())]
    OtherEngine { dir: PathBuf, found: Engine, wanted: Engine },
    /// There is no index, and none may be made.
    #[error("no index in {}: rebuild it", dir.display())]
    Missing { dir: PathBuf },
    /// Another process, or another handle of this one, has it open.
    #[error("the index in {} is in use by another process", dir.display())]
    InUse { dir: PathBuf },
    /// The file that says which engine made it cannot be understood.
    #[error("{} is damaged or from another version: rebuild the index", path.display())]
    Marker { path: PathBuf },
    /// A file or folder could not be made or read.
    #[error("prepare {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A file or folder could not be found or flushed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The engine refuses its files.
    #[error("open the index in {} with engine `{engine}`", dir.display())]
    Engine { dir: PathBuf, engine: Engine, source: EngineError },
}

impl OpenError {
    /// Action that the caller can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotBuilt { .. } | Self::OtherEngine { .. } => ErrorClass::Usage,
            Self::Missing { .. } => ErrorClass::NotFound,
            Self::InUse { .. } => ErrorClass::Conflict,
            Self::Engine { source, .. } if is_full(source.as_ref()) => ErrorClass::Unavailable,
            Self::Marker { .. } | Self::Engine { .. } => ErrorClass::Integrity,
            Self::Io { .. } | Self::Durable(_) => ErrorClass::Unavailable,
        }
    }
}

/// True if an engine's error comes from a full disk.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|error| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    })
}

/// A name that is no index engine's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown index engine `{name}`: use `fjall` or `sled`")]
pub struct UnknownEngine {
    /// The name that was given.
    pub name: String,
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
