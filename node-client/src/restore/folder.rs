//! Folders beneath the target, by handle.
//!
//! Every folder is opened relative to the target's own handle, and no symbolic link is followed on the way:
//! neither a restored one, nor an earlier one, nor one that is swapped in meanwhile.

mod before;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::Entry;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::failed::{Obstacle, Why, ends_all};
use super::layout::TargetPath;
use crate::beneath::open_beneath;
use crate::error::ClientError;

pub(super) use before::{Before, Inode, for_each_name};

/// Handling of existing content in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The target must be empty or missing.
    Refuse,
    /// Folders are merged; files and links of the same name are replaced, each at once.
    Replace,
}

/// A folder that still gets files. It is ended when the last thing in it is done: a read-only folder takes no
/// files, and every new name changes its time.
#[derive(Debug)]
pub(super) struct FolderJob {
    pub(super) at: TargetPath,
    pub(super) parent: Option<Arc<FolderJob>>,
    /// Which folder it is.
    pub(super) inode: Inode,
    /// Content before the restore.
    pub(super) before: Before,
    pub(super) ending: Ending,
}

/// Attributes of a folder after its content is complete.
#[derive(Debug)]
pub(super) enum Ending {
    /// The attributes that it was pushed with.
    Pushed(Entry),
    /// Attributes that it had before.
    Kept(Was),
    /// Nothing is known of it.
    Bare,
}

/// Attributes that a restore changes on an existing folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Was {
    mode: Mode,
    modified: Timespec,
}

impl Was {
    /// Present values of the folder.
    pub(super) fn of(stat: &Stat) -> Self {
        let modified =
            Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
        Self { mode: Mode::from_raw_mode(stat.st_mode), modified }
    }

    /// Puts it back. Who may not do that could not have changed more than the time.
    pub(super) fn put_back(&self, folder: BorrowedFd<'_>) {
        let Ok(now) = rustix::fs::fstat(folder) else { return };
        if Mode::from_raw_mode(now.st_mode) != self.mode {
            let _ = rustix::fs::fchmod(folder, self.mode);
        }
        let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: kept, last_modification: self.modified };
        let _ = rustix::fs::futimens(folder, &times);
    }
}

/// Role of a folder of the manifest in the restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It was asked for.
    Wanted,
    /// It is on the way to a chosen one.
    OnTheWay,
}

/// The folder that everything is restored beneath.
pub(super) struct Target {
    handle: OwnedFd,
    path: PathBuf,
    pub(super) existing: Existing,
    /// Earlier stat, unless this restore made it.
    was: Option<Stat>,
    before: Before,
    /// Unfinished files of dead restores that were removed.
    pub(super) leftovers: AtomicU64,
}

impl Target {
    /// Opens the target, or makes it and the folders above it. Unfinished files that a dead restore left in
    /// it are removed.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it is not empty and must be, [`ClientError::Disk`].
    pub(super) fn open(path: &Path, existing: Existing) -> Result<Self, ClientError> {
        let disk = |action| move |source| ClientError::Disk { action, path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from);
        let (handle, was) = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).map_err(disk("create"))?;
                (open().map_err(disk("open"))?, None)
            }
            opened => {
                let handle = opened.map_err(disk("open"))?;
                let was = rustix::fs::fstat(&handle).map_err(io::Error::from).map_err(disk("look at"))?;
                (handle, Some(was))
            }
        };
        let mut removed = 0;
        let before = Before::list(handle.as_fd(), &mut removed).map_err(disk("list"))?;
        if existing == Existing::Refuse && !before.is_empty() {
            let hint = "choose another folder, or --into-existing to replace files there";
            return Err(ClientError::Usage(format!("`{}` is not empty: {hint}", path.display())));
        }
        let leftovers = AtomicU64::new(removed);
        Ok(Self { handle, path: path.to_owned(), existing, was, before, leftovers })
    }

    /// The target's own handle.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Stat of the target before, unless this restore made it.
    pub(super) fn was(&self) -> Option<&Stat> {
        self.was.as_ref()
    }

    /// Users other than root who can write to the target, for people; `None` if there are none, or if this
    /// restore made it.
    pub(super) fn other_writer(&self) -> Option<String> {
        let was = self.was.as_ref()?;
        let mode = Mode::from_raw_mode(was.st_mode);
        match was.st_uid {
            // In a sticky folder users can rename only their own files.
            0 if mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX) => {
                Some("can be written to by every user".to_owned())
            }
            0 => None,
            owner => Some(format!("belongs to user {owner}")),
        }
    }

    /// The target itself, which contains all folders. To be asked for once.
    pub(super) fn top(&mut self) -> Result<FolderJob, ClientError> {
        let inode = Inode::of_file(&self.handle).map_err(|error| self.error("look at", &[], error.into()))?;
        let ending = self.was.as_ref().map_or(Ending::Bare, |was| Ending::Kept(Was::of(was)));
        let before = std::mem::take(&mut self.before);
        Ok(FolderJob { at: TargetPath::default(), parent: None, inode, before, ending })
    }

    /// A handle of the folder at `at` that names can be made, renamed and removed in.
    pub(super) fn folder(&self, at: &[u8]) -> Result<OwnedFd, Obstacle> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(self.handle(), at, flags)
            .map_err(|error| self.obstacle("open its folder", at, error.into()))
    }

    /// A handle of the folder at `at` that attributes can be set with.
    pub(super) fn folder_itself(&self, at: &[u8]) -> Result<OwnedFd, Obstacle> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(self.handle(), at, flags).map_err(|error| self.obstacle("open folder", at, error.into()))
    }

    /// Makes the folder at `at` in `parent`, closed to other users until its attributes are set, or uses the
    /// existing one. `entry` is its pushed entry, `None` for a parent of a pushed root.
    pub(super) fn make_folder(
        &self,
        at: TargetPath,
        entry: Option<(Entry, Choice)>,
        parent: &Arc<FolderJob>,
        cache: &mut FolderCache,
    ) -> Result<FolderJob, Obstacle> {
        if at.is_target() {
            return self.enter_target(entry, parent);
        }
        let (above, name) = at.split();
        let above = cache.of(self, above)?;
        let mode = if entry.is_none() { Mode::from_raw_mode(0o755) } else { Mode::RWXU };
        let ending = match rustix::fs::mkdirat(&*above, name, mode) {
            Ok(()) => entry.map_or(Ending::Bare, |(entry, _)| Ending::Pushed(entry)),
            Err(Errno::EXIST) => {
                let was = self.adopt(&at, &above, parent)?;
                let parent = Some(Arc::clone(parent));
                return self.take_over(at, was, entry, parent);
            }
            Err(error) => return Err(self.obstacle("create the folder", at.as_bytes(), error.into())),
        };
        let inode = Inode::of_name(&*above, name);
        let inode =
            inode.map_err(|error| self.obstacle("look at the folder", at.as_bytes(), error.into()))?;
        let parent = Some(Arc::clone(parent));
        Ok(FolderJob { at, parent, inode, before: Before::default(), ending })
    }

    /// The target as the root that is stripped: it gets the attributes of the root only if this restore made it.
    fn enter_target(
        &self,
        entry: Option<(Entry, Choice)>,
        parent: &Arc<FolderJob>,
    ) -> Result<FolderJob, Obstacle> {
        let ending = match entry {
            Some((entry, _)) if self.was.is_none() => Ending::Pushed(entry),
            _ => Ending::Bare,
        };
        let (at, inode) = (TargetPath::default(), parent.inode);
        // The parent, which is the same folder, knows its earlier content.
        Ok(FolderJob { at, parent: Some(Arc::clone(parent)), inode, before: Before::default(), ending })
    }

    /// Takes a folder that was there before this restore, and makes sure that we can write in it.
    fn adopt(&self, at: &TargetPath, above: &OwnedFd, parent: &FolderJob) -> Result<Stat, Obstacle> {
        let obstacle = |error: Errno| self.obstacle("use the folder", at.as_bytes(), error.into());
        let (_, name) = at.split();
        let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(obstacle)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Obstacle::Name(Why::not_made(
                "a file with this name exists and is not a folder".to_owned(),
            )));
        }
        if self.existing == Existing::Refuse || !parent.names_before().take(name, Inode::of(&stat)) {
            return Err(Obstacle::Name(Why::not_made(SAME_NAME.to_owned())));
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !mode.contains(Mode::RWXU) && !is_root() {
            let folder = self.folder_itself(at.as_bytes())?;
            rustix::fs::fchmod(&folder, mode | Mode::RWXU).map_err(obstacle)?;
        }
        Ok(stat)
    }

    fn take_over(
        &self,
        at: TargetPath,
        was: Stat,
        entry: Option<(Entry, Choice)>,
        parent: Option<Arc<FolderJob>>,
    ) -> Result<FolderJob, Obstacle> {
        let folder = self.folder_itself(at.as_bytes())?;
        let mut removed = 0;
        let before = Before::list(folder.as_fd(), &mut removed)
            .map_err(|error| self.obstacle("list the folder", at.as_bytes(), error))?;
        self.leftovers.fetch_add(removed, Ordering::Relaxed);
        let ending = match entry {
            Some((entry, Choice::Wanted)) => Ending::Pushed(entry),
            _ => Ending::Kept(Was::of(&was)),
        };
        Ok(FolderJob { at, parent, inode: Inode::of(&was), before, ending })
    }

    /// Obstacle for a failure at `at`: for all names, if the next would fail as well.
    pub(super) fn obstacle(&self, action: &'static str, at: &[u8], error: io::Error) -> Obstacle {
        if ends_all(&error) {
            return Obstacle::All(self.error(action, at, error));
        }
        Obstacle::name(action, &error)
    }

    /// The error of something that failed at `at`, and ends the restore.
    pub(super) fn error(&self, action: &'static str, at: &[u8], source: io::Error) -> ClientError {
        ClientError::Disk { action, path: self.path.join(OsStr::from_bytes(at)), source }
    }
}

/// Why one of two names of a snapshot was not restored.
pub(super) const SAME_NAME: &str = "the target treats its name as equal to another restored name";

impl FolderJob {
    /// The names that were in this folder before. The stripped root is the same folder as the target.
    pub(super) fn names_before(&self) -> &Before {
        match &self.parent {
            Some(target) if self.at.is_target() => target.names_before(),
            _ => &self.before,
        }
    }
}

/// True if this process may change the owner of files.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The folder that a thread used last: files come folder by folder.
#[derive(Default)]
pub(super) struct FolderCache {
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

impl FolderCache {
    /// The handle of the folder at `at`, as [`Target::folder`].
    pub(super) fn of(&mut self, target: &Target, at: &[u8]) -> Result<Arc<OwnedFd>, Obstacle> {
        if let Some((path, handle)) = &self.last
            && path == at
        {
            return Ok(Arc::clone(handle));
        }
        let handle = Arc::new(target.folder(at)?);
        self.last = Some((at.to_vec(), Arc::clone(&handle)));
        Ok(handle)
    }
}

#[cfg(test)]
#[path = "folder/tests.rs"]
mod tests;
