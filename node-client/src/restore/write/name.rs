//! How something gets its name: for exactly the inode that was made, and never in the place of anything that this
//! restore has made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use crate::error::ClientError;
use crate::leftover::TEMPORARY;
use crate::restore::attributes::by_handle;
use crate::restore::failed::{Obstacle, Why};
use crate::restore::folder::{Before, Existing, Inode, SAME_NAME};

/// Makes names that nothing else has: a random number for the run, and a count.
pub(in crate::restore) struct TemporaryNames {
    run: u64,
    next: AtomicU64,
}

impl TemporaryNames {
    /// The names of a new run.
    pub(in crate::restore) fn new() -> Result<Self, ClientError> {
        let no_random = |_| ClientError::Worker("the system gives no random numbers");
        Ok(Self { run: getrandom::u64().map_err(no_random)?, next: AtomicU64::new(0) })
    }

    pub(super) fn next(&self) -> String {
        format!("{TEMPORARY}{:016x}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// A name that is removed when this is dropped, unless it was given up.
pub(super) struct Named {
    folder: Arc<OwnedFd>,
    name: Option<String>,
}

impl Named {
    pub(super) fn new(folder: &Arc<OwnedFd>, name: String) -> Self {
        Self { folder: Arc::clone(folder), name: Some(name) }
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The name is removed, or belongs to something finished.
    fn give_up(&mut self) {
        self.name = None;
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // A failure here is ignored: the next restore into this folder removes the file.
            let _ = rustix::fs::unlinkat(&*self.folder, &**name, AtFlags::empty());
        }
    }
}

/// A name that something is to have.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) folder: &'a Arc<OwnedFd>,
    pub(super) name: &'a [u8],
    /// Content of the folder before.
    pub(super) before: &'a Before,
    pub(super) existing: Existing,
}

/// Why something did not get its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The system says no.
    System(Errno),
    /// Something has the name that was not there before.
    Taken,
    /// The name stands for something that another process put there.
    Swapped,
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl Refused {
    /// The obstacle, where `obstacle` converts a refusal of the system.
    pub(super) fn obstacle(self, obstacle: impl FnOnce(Errno) -> Obstacle) -> Obstacle {
        let why = match self {
            Self::System(error) => return obstacle(error),
            Self::Taken => SAME_NAME,
            Self::Swapped => "another process replaced it during the restore",
        };
        Obstacle::Name(Why::not_made(why.to_owned()))
    }
}

impl Place<'_> {
    /// Gives the name to what is open as `file`, which may have no name at all.
    pub(super) fn link(&self, file: &OwnedFd, inode: Inode, names: &TemporaryNames) -> Result<(), Refused> {
        match link_handle(file, self.folder, self.name) {
            Err(Errno::EXIST) => {}
            made => return Ok(made?),
        }
        // One of two names of a file: it has this name already.
        if self.look()? == inode {
            self.before.take(self.name, inode);
            return Ok(());
        }
        self.make_way()?;
        let temporary = Named::new(self.folder, names.next());
        lock(file.as_fd());
        link_handle(file, self.folder, temporary.name().as_bytes())?;
        self.replace(temporary, inode)
    }

    /// Gives the name to `inode`, which has another name in the same folder.
    pub(super) fn rename(&self, temporary: Named, inode: Inode) -> Result<(), Refused> {
        check(self.folder, temporary.name().as_bytes(), inode)?;
        let flags = RenameFlags::NOREPLACE;
        let (folder, from) = (&**self.folder, temporary.name());
        match rustix::fs::renameat_with(folder, from, folder, self.name, flags) {
            Ok(()) => self.done(temporary, inode),
            Err(Errno::EXIST) => {
                self.make_way()?;
                self.replace(temporary, inode)
            }
            // The file system cannot rename without replacing.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.rename_by_link(temporary, inode),
            Err(error) => Err(error.into()),
        }
    }

    fn rename_by_link(&self, temporary: Named, inode: Inode) -> Result<(), Refused> {
        let folder = &**self.folder;
        match rustix::fs::linkat(folder, temporary.name(), folder, self.name, AtFlags::empty()) {
            // The temporary name is removed when it is dropped.
            Ok(()) => return check(self.folder, self.name, inode),
            Err(Errno::EXIST) => self.make_way()?,
            // This file system has no hard links either: the best way is to look first.
            Err(_) => match self.look() {
                Ok(_) => self.make_way()?,
                Err(Refused::System(Errno::NOENT)) => {}
                Err(other) => return Err(other),
            },
        }
        self.replace(temporary, inode)
    }

    /// Renames over whatever has the name.
    fn replace(&self, temporary: Named, inode: Inode) -> Result<(), Refused> {
        check(self.folder, temporary.name().as_bytes(), inode)?;
        let folder = &**self.folder;
        rustix::fs::renameat(folder, temporary.name(), folder, self.name)?;
        self.done(temporary, inode)
    }

    fn done(&self, mut temporary: Named, inode: Inode) -> Result<(), Refused> {
        temporary.give_up();
        check(self.folder, self.name, inode)
    }

    /// Allows replacing the file with this name only if it existed before this restore.
    fn make_way(&self) -> Result<(), Refused> {
        let there = self.look()?;
        if self.existing == Existing::Replace && self.before.take(self.name, there) {
            return Ok(());
        }
        Err(Refused::Taken)
    }

    fn look(&self) -> Result<Inode, Refused> {
        Ok(Inode::of_name(&**self.folder, self.name)?)
    }
}

/// Fails unless the name stands for `inode`.
fn check(folder: &OwnedFd, name: &[u8], inode: Inode) -> Result<(), Refused> {
    match Inode::of_name(folder, name) {
        Ok(there) if there == inode => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(Refused::Swapped),
        Err(error) => Err(error.into()),
    }
}

/// Keeps other restores from taking the file for a leftover.
pub(super) fn lock(file: BorrowedFd<'_>) {
    // Where files cannot be locked, no other restore can lock it either, and leaves it alone.
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
}

fn link_handle(file: &OwnedFd, folder: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::linkat(CWD, by_handle(file), folder, name, AtFlags::SYMLINK_FOLLOW)
}
