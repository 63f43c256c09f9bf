//! Conditions that an entry must fulfil before it is processed.

use format_spec::{Entry, EntryKind, EntryPath, FormatError};

use crate::error::ClientError;

/// Checks the conditions on any single entry.
pub(super) fn check_entry(entry: &Entry) -> Result<(), ClientError> {
    let nul = |bytes: &[u8]| bytes.is_empty() || bytes.contains(&0);
    let why = match entry.kind {
        _ if entry.mode > 0o7777 => "its mode has unknown bits",
        _ if entry.mtime.nanos >= 1_000_000_000 => "its time has too many nanoseconds",
        _ if entry.xattrs.iter().any(|xattr| nul(&xattr.name)) => "an extended attribute without a name",
        EntryKind::File if i64::try_from(entry.size).is_err() => "its size is over the limit of any file",
        EntryKind::Symlink if entry.target.as_deref().is_none_or(nul) => "a symbolic link without a target",
        EntryKind::HardLink if entry.link_group.is_none() => "a hard link without its group",
        _ => return Ok(()),
    };
    Err(broken(&entry.path, why))
}

/// The folder that `path` lies in.
pub(super) fn parent_of(path: &EntryPath) -> Option<EntryPath> {
    let slash = path.as_bytes().iter().rposition(|byte| *byte == b'/')?;
    let parent = path.as_bytes().get(..slash)?;
    Some(EntryPath::new(parent.to_vec()).expect("a part of a path has the grammar of a path"))
}

pub(super) fn malformed(why: &str) -> FormatError {
    FormatError::Malformed { what: "manifest", why: why.to_owned() }
}

/// The error for an entry that breaks a rule.
pub(super) fn broken(path: &dyn std::fmt::Display, why: &str) -> ClientError {
    ClientError::Format { what: format!("`{path}` cannot be restored"), source: malformed(why) }
}
