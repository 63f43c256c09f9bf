//! Owner, mode, extended attributes and times: what is set, what is left out, and what is said then.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use format_spec::path::Printable;
use format_spec::{Entry, EntryKind, Timestamp};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::folder::is_root;

/// The attribute that gives a program powers of root, as the setuid bit does.
const CAPABILITY: &[u8] = b"security.capability";
const SET_ID: u32 = 0o6000;
/// How many notes a report names.
const MAX_NOTES: usize = 1000;

/// What becomes of the powers that a restored program would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setuid {
    /// Regular files lose setuid and setgid bits and file capabilities.
    Drop,
    /// They stay.
    Keep,
}

/// Something that a restored file does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Its path on the node it comes from.
    pub path: String,
    /// What is missing, and why.
    pub note: String,
}

/// The notes of one restore; the first thousand of them.
#[derive(Default)]
pub(super) struct Notes(Mutex<Vec<Note>>);

impl Notes {
    /// Adds a note.
    pub(super) fn add(&self, entry: &Entry, note: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTES {
            notes.push(Note { path: entry.path.to_string(), note });
        }
    }

    /// All of them.
    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sets attributes, and notes what it leaves out.
pub(super) struct Attributes {
    setuid: Setuid,
    owners: bool,
    pub(super) notes: Notes,
}

impl Attributes {
    /// Owners are set when this process may.
    pub(super) fn new(setuid: Setuid) -> Self {
        Self { setuid, owners: is_root(), notes: Notes::default() }
    }

    /// Sets all attributes of an open file or folder. Times come last, for the rest changes none.
    pub(super) fn apply(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
        let owned = self.own(entry, |uid, gid| rustix::fs::fchown(file, uid, gid));
        for xattr in &entry.xattrs {
            if self.drops(entry, &xattr.name) {
                self.notes.add(entry, "its file capabilities were left out".to_owned());
                continue;
            }
            let set = rustix::fs::fsetxattr(file, &*xattr.name, &xattr.value, XattrFlags::empty());
            self.note_xattr(entry, &xattr.name, set);
        }
        rustix::fs::fchmod(file, self.mode(entry, owned))?;
        rustix::fs::futimens(file, &times(entry.mtime))
    }

    /// Sets the attributes of the symbolic link `name` in `folder`; it is not followed.
    pub(super) fn apply_to_link(&self, folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        self.own(entry, |uid, gid| rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW));
        for xattr in &entry.xattrs {
            let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            let set = rustix::fs::lsetxattr(&*path, &*xattr.name, &xattr.value, XattrFlags::empty());
            self.note_xattr(entry, &xattr.name, set);
        }
        rustix::fs::utimensat(folder, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether it has the owner that it should have.
    fn own(&self, entry: &Entry, chown: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>) -> bool {
        // The highest number stands for "leave it" in the system call, and for nobody in a file system.
        if !self.owners || entry.uid == u32::MAX || entry.gid == u32::MAX {
            return false;
        }
        match chown(Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))) {
            Ok(()) => true,
            Err(error) => {
                let owner = format!("{}:{}", entry.uid, entry.gid);
                self.notes.add(entry, format!("its owner {owner} could not be set: {error}"));
                false
            }
        }
    }

    fn mode(&self, entry: &Entry, owned: bool) -> Mode {
        let set_id = entry.kind != EntryKind::Folder && entry.mode & SET_ID != 0;
        if !set_id {
            return Mode::from_raw_mode(entry.mode);
        }
        // Without its owner, a setuid program would run as us.
        if self.setuid == Setuid::Keep && owned == self.owners {
            return Mode::from_raw_mode(entry.mode);
        }
        self.notes.add(entry, "its setuid and setgid bits were left out".to_owned());
        Mode::from_raw_mode(entry.mode & !SET_ID)
    }

    fn drops(&self, entry: &Entry, xattr: &[u8]) -> bool {
        self.setuid == Setuid::Drop && entry.kind != EntryKind::Folder && xattr == CAPABILITY
    }

    fn note_xattr(&self, entry: &Entry, name: &[u8], set: Result<(), Errno>) {
        if let Err(error) = set {
            let name = Printable(name);
            self.notes.add(entry, format!("its attribute {name} could not be set: {error}"));
        }
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}
