//! What can go wrong on a site.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use format_spec::ErrorClass;

use super::ObjectName;

/// The cause of a failure, of a type that only the kind of site knows.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// One operation of a [`Site`](super::Site).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Site::put_new`](super::Site::put_new).
    Put,
    /// [`Site::get`](super::Site::get).
    Get,
    /// [`Site::get_ranges`](super::Site::get_ranges).
    GetRanges,
    /// [`Site::len`](super::Site::len).
    Len,
    /// [`Site::list`](super::Site::list).
    List,
    /// [`Site::delete`](super::Site::delete).
    Delete,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "store",
            Self::Get => "read",
            Self::GetRanges => "read ranges of",
            Self::Len => "look up",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

/// Why a site did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum SiteError {
    /// There is no such object.
    #[error("object `{name}` is not on the site")]
    NotFound { name: ObjectName },

    /// The name is taken by other bytes; nothing was stored.
    #[error("object `{name}` is on the site with other content")]
    Differs { name: ObjectName },

    /// A range is empty or reaches beyond the object.
    #[error("bytes {start} to {end} of object `{name}` were asked for; it has {len}")]
    OutOfRange { name: ObjectName, start: u64, end: u64, len: u64 },

    /// The site has no space left; nothing was stored.
    #[error("no space left to store object `{name}`")]
    Full { name: ObjectName, source: Cause },

    /// The disk can no longer be trusted: the process must end and acknowledge nothing more.
    #[error("the disk of the site failed")]
    Fatal { source: Cause },

    /// The operation failed and may work later. A put or a delete may have happened or not.
    #[error("{op} `{target}`")]
    Unavailable { op: Op, target: String, source: Cause },

    /// The site could not be opened.
    #[error("open the site in `{}`", path.display())]
    Open { path: PathBuf, source: Cause },
}

impl SiteError {
    /// Whether the process must end, without retrying and without acknowledging anything.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal { .. })
    }

    /// Whether the request was refused for lack of space, with nothing stored.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// What the caller can do about it.
    ///
    /// An object that is missing, too short or different is damage: its name came from an index or
    /// a manifest. A caller to whom absence is an answer matches on the variant.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } | Self::Differs { .. } | Self::OutOfRange { .. } => ErrorClass::Integrity,
            Self::Full { .. } | Self::Fatal { .. } | Self::Unavailable { .. } | Self::Open { .. } => {
                ErrorClass::Unavailable
            }
        }
    }

    /// The failure of `op` on `target`, to be tried again later.
    pub(crate) fn unavailable(op: Op, target: impl fmt::Display, source: impl Into<Cause>) -> Self {
        Self::Unavailable { op, target: target.to_string(), source: source.into() }
    }
}
