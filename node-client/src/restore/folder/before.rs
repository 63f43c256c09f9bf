//! Content of a folder before the restore.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::leftover::is_temporary;

/// Which file, folder or link a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    dev: u64,
    ino: u64,
}

impl Inode {
    /// Inode of an open file.
    pub(crate) fn of_file(file: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|stat| Self::of(&stat))
    }

    /// Inode of a name; a link is not followed.
    pub(crate) fn of_name(folder: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Self::of(&stat))
    }

    /// Inode from a stat.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }
}

/// The names that were in a folder before this restore made one there, less those that it has replaced.
///
/// Only these may be replaced: two names of a snapshot that the target takes for one must not replace each
/// other. Memory: the names of one folder that was there before.
#[derive(Debug, Default)]
pub(crate) struct Before(Mutex<HashMap<Vec<u8>, Inode>>);

impl Before {
    /// Current content of the open folder. Names of unfinished files are no part of it: those of dead
    /// restores are removed, and counted in `removed`.
    pub(super) fn list(folder: BorrowedFd<'_>, removed: &mut u64) -> io::Result<Self> {
        let mut names = HashMap::new();
        for_each_name(folder, |name| {
            if is_temporary(name.to_bytes()) {
                *removed += u64::from(remove_leftover(folder, name));
            } else if let Ok(inode) = Inode::of_name(folder, name.to_bytes()) {
                names.insert(name.to_bytes().to_vec(), inode);
            }
        })?;
        Ok(Self(Mutex::new(names)))
    }

    /// True if there is nothing to replace.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// True if exactly this name was there, and has not been replaced.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// True if `inode`, which has this name now, was there before, under this spelling or another. The next
    /// call for it returns false.
    pub(crate) fn take(&self, name: &[u8], inode: Inode) -> bool {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.remove(name).is_some() {
            return true;
        }
        let other = names.iter().find(|(_, there)| **there == inode).map(|(name, _)| name.clone());
        other.is_some_and(|name| names.remove(&name).is_some())
    }
}

/// Calls `visit` for each name but `.` and `..`.
pub(in crate::restore) fn for_each_name(
    folder: BorrowedFd<'_>,
    mut visit: impl FnMut(&CStr),
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(32 << 10);
    // Files that a visitor removes must not change the list: all names come first.
    let mut names = Vec::new();
    let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.iter().for_each(|name| visit(name));
    Ok(())
}

/// Removes what a restore left unfinished, unless its restore lives: then it is locked. Whether it was removed.
fn remove_leftover(folder: BorrowedFd<'_>, name: &CStr) -> bool {
    let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let unlink = || rustix::fs::unlinkat(folder, name, AtFlags::empty()).is_ok();
    match FileType::from_raw_mode(stat.st_mode) {
        // A link cannot be locked. It has this name for a moment only, and a caller that misses it reports
        // that.
        FileType::Symlink => unlink(),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return false };
            let is_dead = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            is_dead && Inode::of_file(&file) == Inode::of_name(folder, name.to_bytes()) && unlink()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_replaced_once_under_whatever_spelling() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("readme"), "").unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        let folder = std::fs::File::open(dir.path()).unwrap();
        let inode = Inode::of_name(&folder, b"readme").unwrap();
        let mut removed = 0;
        let before = Before::list(folder.as_fd(), &mut removed).unwrap();

        assert!(before.has(b"readme") && !before.has(b"Readme"));
        assert!(before.take(b"Readme", inode), "another spelling of what was there");
        assert!(!before.take(b"readme", inode) && !before.take(b"Readme", inode));
        assert!(before.take(b"other", inode) && before.is_empty());
    }
}
