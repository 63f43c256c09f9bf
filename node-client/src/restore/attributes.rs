//! Owner, mode, extended attributes and times: what is set, what is left out or refused, and what is said then.
//! None of that keeps a file from being restored.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use format_spec::path::Printable;
use format_spec::{Entry, EntryKind, Timestamp};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::folder::is_root;

/// The attribute that gives a program powers of root, as the setuid bit does.
const CAPABILITY: &[u8] = b"security.capability";
const SET_ID: u32 = 0o6000;
/// How many notes a report names.
const MAX_NOTES: usize = 1000;

/// Handling of setuid, setgid and capabilities of restored programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setuid {
    /// Regular files lose setuid and setgid bits and file capabilities.
    Drop,
    /// They stay.
    Keep,
}

/// Owner of restored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// To those whom they were pushed of, where the restore runs as root; else to its user.
    AsPushed,
    /// To the user who restores.
    Ours,
    /// To this user and group, by their numbers. Only root can give files away.
    Of(u32, u32),
}

/// Something that a restored file does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Its path on the node it comes from.
    pub path: String,
    /// Missing attribute and reason.
    pub note: String,
}

/// How many names do not have something that they were pushed with, by what it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NotSet {
    /// Owner or group.
    pub owners: u64,
    /// Mode.
    pub modes: u64,
    /// Time of the last change.
    pub times: u64,
    /// Extended attributes.
    pub attributes: u64,
    /// Setuid and setgid bits and file capabilities, which come back only when asked for.
    pub powers: u64,
}

impl NotSet {
    /// True if every name has all attributes.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// True if a name lacks a requested attribute: setuid and setgid bits and file capabilities count only
    /// with [`Setuid::Keep`].
    pub fn lacks(&self, setuid: Setuid) -> bool {
        let powers = if setuid == Setuid::Keep { self.powers } else { 0 };
        !Self { powers, ..*self }.is_none()
    }
}

/// Kind of a missing attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Owner,
    Mode,
    Time,
    Attribute,
    Power,
}

/// The notes of one restore; the first thousand of them, and how many there are of each kind.
#[derive(Default)]
pub(super) struct Notes(Mutex<(Vec<Note>, NotSet)>);

impl Notes {
    fn add(&self, kind: Kind, entry: &Entry, note: String) {
        self.count(kind);
        self.say(entry, note);
    }

    fn count(&self, kind: Kind) {
        let (_, not_set) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match kind {
            Kind::Owner => &mut not_set.owners,
            Kind::Mode => &mut not_set.modes,
            Kind::Time => &mut not_set.times,
            Kind::Attribute => &mut not_set.attributes,
            Kind::Power => &mut not_set.powers,
        };
        *count += 1;
    }

    /// No attribute of a name could be set.
    pub(super) fn add_all(&self, entry: &Entry, note: String) {
        [Kind::Mode, Kind::Time].into_iter().for_each(|kind| self.count(kind));
        self.say(entry, note);
    }

    /// Adds a note about something that is not an attribute of its own.
    pub(super) fn say(&self, entry: &Entry, note: String) {
        let (notes, _) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTES {
            notes.push(Note { path: entry.path.to_string(), note });
        }
    }

    /// All of them.
    pub(super) fn take(&self) -> (Vec<Note>, NotSet) {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sets attributes, and notes what it leaves out or cannot set.
pub(super) struct Attributes {
    setuid: Setuid,
    owners: Owners,
    /// True if this process may give files away.
    is_root: bool,
    pub(super) notes: Notes,
}

/// Owner of something restored, compared with the pushed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    AsPushed,
    /// To us, as to give files away takes root.
    ByUs,
    /// To whom the options say, or it could not be given.
    ByAnother,
}

impl Attributes {
    /// Owners are set when this process may.
    pub(super) fn new(setuid: Setuid, owners: Owners) -> Self {
        Self { setuid, owners, is_root: is_root(), notes: Notes::default() }
    }

    /// Sets all attributes of an open file or folder. Times come last, for the rest changes none.
    pub(super) fn apply(&self, file: BorrowedFd<'_>, entry: &Entry) {
        let owned = self.own(entry, |uid, gid| rustix::fs::fchown(file, uid, gid));
        for xattr in &entry.xattrs {
            if self.drops(entry, &xattr.name) {
                self.notes.add(
                    Kind::Power,
                    entry,
                    "file capabilities not restored (use --keep-setuid)".to_owned(),
                );
                continue;
            }
            let set = rustix::fs::fsetxattr(file, &*xattr.name, &xattr.value, XattrFlags::empty());
            self.note_xattr(entry, &xattr.name, set);
        }
        let mode = self.mode(entry, owned);
        if let Err(error) = rustix::fs::fchmod(file, mode) {
            let mode = mode.as_raw_mode();
            self.notes.add(Kind::Mode, entry, format!("mode {mode:o} could not be set: {error}"));
        }
        self.note_time(entry, rustix::fs::futimens(file, &times(entry.mtime)));
    }

    /// Sets the attributes of a symbolic link, by its own handle: another process may give its name away.
    pub(super) fn apply_to_link(&self, link: BorrowedFd<'_>, entry: &Entry) {
        self.own(entry, |uid, gid| rustix::fs::chownat(link, "", uid, gid, AtFlags::EMPTY_PATH));
        let path = by_handle(link);
        for xattr in &entry.xattrs {
            let set = rustix::fs::setxattr(&*path, &*xattr.name, &xattr.value, XattrFlags::empty());
            self.note_xattr(entry, &xattr.name, set);
        }
        let set = rustix::fs::utimensat(CWD, &*path, &times(entry.mtime), AtFlags::empty());
        self.note_time(entry, set);
    }

    /// Gives it its owner, with `chown`.
    fn own(&self, entry: &Entry, chown: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>) -> Owned {
        let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uid, gid) = match self.owners {
            Owners::Of(uid, gid) => (uid, gid),
            Owners::Ours => return Owned::ByAnother,
            Owners::AsPushed if !self.is_root => {
                if (entry.uid, entry.gid) != ours {
                    self.notes.count(Kind::Owner);
                }
                return Owned::ByUs;
            }
            Owners::AsPushed => (entry.uid, entry.gid),
        };
        // The highest number means "keep it" in the system call, and is no user of a file system.
        if uid == u32::MAX || gid == u32::MAX {
            return Owned::ByAnother;
        }
        match chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            Ok(()) if self.owners == Owners::AsPushed => Owned::AsPushed,
            Ok(()) => Owned::ByAnother,
            Err(error) => {
                self.notes.add(
                    Kind::Owner,
                    entry,
                    format!("its owner {uid}:{gid} could not be set: {error}"),
                );
                Owned::ByAnother
            }
        }
    }

    fn mode(&self, entry: &Entry, owned: Owned) -> Mode {
        let set_id = entry.kind != EntryKind::Folder && entry.mode & SET_ID != 0;
        if !set_id {
            return Mode::from_raw_mode(entry.mode);
        }
        // A program whose owner is another now would run as that one.
        if self.setuid == Setuid::Keep && owned != Owned::ByAnother {
            return Mode::from_raw_mode(entry.mode);
        }
        self.notes.add(Kind::Power, entry, "setuid/setgid bits not restored (use --keep-setuid)".to_owned());
        Mode::from_raw_mode(entry.mode & !SET_ID)
    }

    fn drops(&self, entry: &Entry, xattr: &[u8]) -> bool {
        self.setuid == Setuid::Drop && entry.kind != EntryKind::Folder && xattr == CAPABILITY
    }

    fn note_xattr(&self, entry: &Entry, name: &[u8], set: Result<(), Errno>) {
        if let Err(error) = set {
            let name = Printable(name);
            let note = format!("attribute {name} could not be set: {error}");
            self.notes.add(Kind::Attribute, entry, note);
        }
    }

    fn note_time(&self, entry: &Entry, set: Result<(), Errno>) {
        if let Err(error) = set {
            self.notes.add(Kind::Time, entry, format!("modification time could not be set: {error}"));
        }
    }
}

/// A path that leads to exactly what is open, whatever became of its names.
pub(super) fn by_handle(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format_spec::EntryPath;

    fn entry(uid: u32, gid: u32) -> Entry {
        Entry {
            path: EntryPath::new(b"f".to_vec()).unwrap(),
            kind: EntryKind::File,
            mode: 0o600,
            uid,
            gid,
            mtime: Timestamp { seconds: 1, nanos: 2 },
            size: 0,
            xattrs: Vec::new(),
            target: None,
            link_group: None,
        }
    }

    /// Only root can change owners: for other users, files with another owner are counted, not named.
    #[test]
    fn owners_that_an_ordinary_user_cannot_set_are_counted() {
        let attributes = Attributes { is_root: false, ..Attributes::new(Setuid::Drop, Owners::AsPushed) };
        let file = tempfile::tempfile().unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());

        for (uid, gid) in [(uid, gid), (uid + 1, gid), (uid, gid + 1)] {
            attributes.apply(file.as_fd(), &entry(uid, gid));
        }

        let (notes, not_set) = attributes.notes.take();
        assert_eq!((notes, not_set), (Vec::new(), NotSet { owners: 2, ..NotSet::default() }));
    }

    /// Files of procfs take no mode: that is a note, and no error.
    #[test]
    fn whatever_cannot_be_set_is_a_note() {
        let attributes = Attributes { is_root: true, ..Attributes::new(Setuid::Drop, Owners::AsPushed) };
        let file = std::fs::File::open("/proc/self/status").unwrap();

        attributes.apply(file.as_fd(), &entry(1, 1));

        let (notes, not_set) = attributes.notes.take();
        assert!(not_set.modes == 1 && !notes.is_empty(), "{notes:?}");
    }

    /// A setuid program that belongs to another than it did would run as that one.
    #[test]
    fn files_can_be_given_to_another_or_kept_and_lose_their_powers_then() {
        let file = tempfile::tempfile().unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let program = Entry { mode: 0o4711, ..entry(uid + 1, gid) };

        for owners in [Owners::Ours, Owners::Of(uid, gid)] {
            let attributes = Attributes::new(Setuid::Keep, owners);
            attributes.apply(file.as_fd(), &program);

            let stat = rustix::fs::fstat(&file).unwrap();
            assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (uid, gid, 0o711), "{owners:?}");
            let (_, not_set) = attributes.notes.take();
            assert_eq!(not_set, NotSet { powers: 1, ..NotSet::default() }, "{owners:?}");
        }
    }
}
