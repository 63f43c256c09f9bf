//! The rules that the records of a manifest keep, and what it says when one does not.

use std::fmt;

use crate::entry::{Entry, EntryKind};
use crate::error::FormatError;
use crate::id::ChunkId;
use crate::path::EntryPath;

/// A record that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The page that it is on; none if it is that the pages stop.
    pub page: Option<ChunkId>,
    /// The entry that it is about; none for content of which nobody knows the file.
    pub path: Option<EntryPath>,
    /// The rule.
    pub kind: FaultKind,
}

/// A rule that is broken. Its text goes on after the path of the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// It comes before the last entry, or again.
    #[error("is not in path order")]
    Order,
    /// A field of it breaks a rule by itself.
    #[error("breaks a rule of entries: {0}")]
    Fields(FormatError),
    /// It is not a folder, but a root is inside it.
    #[error("is not a folder, but a root is inside it")]
    HoldsRoot,
    /// It lies in no root.
    #[error("is inside no root")]
    OutsideRoots,
    /// There is no folder that it lies in, or something that is no folder.
    #[error("has a parent that is not a folder of this manifest")]
    NoFolder,
    /// It is a file of a link group that has a first name already.
    #[error("is the first name of a link group that has one already")]
    SecondFirst,
    /// It is a link of a file that did not come before it.
    #[error("is a link of a file that did not come before it")]
    NoFirst,
    /// Content that follows no file.
    #[error("content of a file that has no entry")]
    NoEntry,
    /// Something else follows before its content has an end.
    #[error("has no end")]
    NoEnd,
    /// Its extents are shorter than its size, or longer.
    #[error("has a size of {size} bytes, and extents of {covered}")]
    Size {
        /// Size in its entry, in bytes.
        size: u64,
        /// Bytes that its extents cover, up to the record at which this was found.
        covered: u64,
    },
    /// Its extents do not have its digest.
    #[error("has other extents than its digest says")]
    Digest,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "`{path}` {}", self.kind),
            None => fmt::Display::fmt(&self.kind, f),
        }
    }
}

impl std::error::Error for Fault {}

/// Checks all fields by themselves: the rules of a page, and what no file system could take.
pub(super) fn check_fields(entry: &Entry) -> Result<(), FaultKind> {
    entry.check().map_err(FaultKind::Fields)?;
    let unusable = |name: &[u8]| name.is_empty() || name.contains(&0);
    let why = match entry.kind {
        _ if entry.xattrs.iter().any(|xattr| unusable(&xattr.name)) => "an extended attribute without a name",
        EntryKind::File if i64::try_from(entry.size).is_err() => "a size over the limit of any file",
        _ => return Ok(()),
    };
    Err(FaultKind::Fields(FormatError::malformed("entry", why)))
}
