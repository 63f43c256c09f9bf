//! Errors of a site.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use format_spec::ErrorClass;
use rustix::io::Errno;

use super::ObjectName;

/// The cause of a failure, of a type that only the kind of site knows.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// Answers of a disk that concern the file that is read: a bad sector, a wrong checksum of the file system, data that
/// the drive has given up, a damaged inode, rights that are wrong.
const OF_ONE_FILE: [Errno; 6] =
    [Errno::IO, Errno::BADMSG, Errno::NODATA, Errno::UCLEAN, Errno::ACCESS, Errno::ISDIR];

/// Error number of the operating system, if it is among the causes of an error.
fn disk_errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error) {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}

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
    #[error("object `{name}` exists on the site with different content")]
    Differs { name: ObjectName },

    /// A range is empty or reaches beyond the object.
    #[error("bytes {start} to {end} of object `{name}` were requested, but it has {len}")]
    OutOfRange { name: ObjectName, start: u64, end: u64, len: u64 },

    /// The site has no space left; nothing was stored.
    #[error("no space left to store object `{name}`")]
    Full { name: ObjectName, source: Cause },

    /// The disk can no longer be trusted: the process must end and acknowledge nothing more.
    #[error("the disk of the site failed")]
    Fatal { source: Cause },

    /// The disk of the site does not return the bytes of this one object, such as those in a bad sector. The
    /// whole site may be affected: a check of other objects decides.
    #[error("the disk cannot read object `{name}`")]
    Unreadable { name: ObjectName, source: Cause },

    /// The operation failed and may work later. A put or a delete may have happened or not.
    #[error("{op} `{target}`")]
    Unavailable { op: Op, target: String, source: Cause },

    /// The site could not be opened.
    #[error("open the site in `{}`", path.display())]
    Open { path: PathBuf, source: Cause },
}

impl SiteError {
    /// True if the process must end, without retrying and without acknowledging anything.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal { .. })
    }

    /// True if the request was refused for lack of space, with nothing stored.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Action that the caller can take.
    ///
    /// An object that is missing, too short or different is damage: its name came from an index or
    /// a manifest. A caller to whom absence is an answer matches on the variant.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } | Self::Differs { .. } | Self::OutOfRange { .. } => ErrorClass::Integrity,
            Self::Full { .. }
            | Self::Fatal { .. }
            | Self::Unreadable { .. }
            | Self::Unavailable { .. }
            | Self::Open { .. } => ErrorClass::Unavailable,
        }
    }

    /// True if the error is about this one object, and not about the site. Only then can it prove anything
    /// against the object.
    pub(crate) fn is_of_object(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::OutOfRange { .. } | Self::Unreadable { .. })
    }

    /// The failure of a read of `name`: of the object, if the disk says so, and else of the site.
    pub(crate) fn unread(op: Op, name: &ObjectName, source: impl Into<Cause>) -> Self {
        let source = source.into();
        match disk_errno(source.as_ref()) {
            Some(errno) if OF_ONE_FILE.contains(&errno) => Self::Unreadable { name: name.clone(), source },
            _ => Self::unavailable(op, name, source),
        }
    }

    /// The failure of `op` on `target`, to be tried again later.
    pub fn unavailable(op: Op, target: impl fmt::Display, source: impl Into<Cause>) -> Self {
        Self::Unavailable { op, target: target.to_string(), source: source.into() }
    }
}
