//! Folders beneath the target, by handle.
//!
//! Every folder is opened relative to the target's own handle, and no symbolic link is followed on
//! the way, whoever made it and whenever: neither one that was restored, nor one that was there, nor
//! one that is swapped in while we run.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::layout::TargetPath;
use crate::error::ClientError;

/// How often a path is looked up again when somebody renames folders meanwhile.
const RACES: u32 = 16;

/// What becomes of what is in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The target must be empty or missing.
    Refuse,
    /// Folders are merged; files and links of the same name are replaced, each at once.
    Replace,
}

/// The folder that everything is restored beneath.
pub(super) struct Target {
    handle: OwnedFd,
    path: PathBuf,
    pub(super) existing: Existing,
}

impl Target {
    /// Opens the target, or makes it and the folders it lies in.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it is not empty and must be, [`ClientError::Disk`].
    pub(super) fn open(path: &Path, existing: Existing) -> Result<Self, ClientError> {
        let disk = |action| move |source| ClientError::Disk { action, path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(disk("create"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from);
        let handle = open().map_err(disk("open"))?;
        if existing == Existing::Refuse && !is_empty(handle.as_fd()).map_err(disk("list"))? {
            let hint = "choose another folder, or --into-existing to replace files there";
            return Err(ClientError::Usage(format!("`{}` is not empty: {hint}", path.display())));
        }
        Ok(Self { handle, path: path.to_owned(), existing })
    }

    /// The target's own handle.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// A handle of the folder at `at` that names can be made, renamed and removed in.
    pub(super) fn folder(&self, at: &[u8]) -> Result<OwnedFd, ClientError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(self.handle(), at, flags).map_err(|source| self.disk_at("open folder", at, source))
    }

    /// A handle of the folder at `at` that attributes can be set with.
    pub(super) fn folder_itself(&self, at: &[u8]) -> Result<OwnedFd, ClientError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(self.handle(), at, flags).map_err(|source| self.disk_at("open folder", at, source))
    }

    /// Makes the folder at `at`, open to nobody else until its attributes come; its parent exists.
    /// A bare one is a parent of a pushed root: nothing is known of it.
    pub(super) fn make_folder(
        &self,
        at: &TargetPath,
        bare: bool,
        cache: &mut FolderCache,
    ) -> Result<(), ClientError> {
        if at.is_target() {
            return Ok(());
        }
        let (parent, name) = at.split();
        let parent = cache.of(self, parent)?;
        let mode = if bare { Mode::from_raw_mode(0o755) } else { Mode::RWXU };
        match rustix::fs::mkdirat(&*parent, name, mode) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if self.existing == Existing::Replace => self.adopt(at, &parent),
            Err(error) => Err(self.disk("create folder", at, error.into())),
        }
    }

    /// Takes a folder that is there already, and makes sure that we can write in it.
    fn adopt(&self, at: &TargetPath, parent: &OwnedFd) -> Result<(), ClientError> {
        let disk = |error: Errno| self.disk("use folder", at, error.into());
        let (_, name) = at.split();
        let stat = rustix::fs::statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_err(disk)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            let path = self.show(at);
            return Err(ClientError::Usage(format!("`{}` is in the way: not a folder", path.display())));
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        if mode.contains(Mode::RWXU) || is_root() {
            return Ok(());
        }
        let folder = self.folder_itself(at.as_bytes())?;
        rustix::fs::fchmod(&folder, mode | Mode::RWXU).map_err(disk)
    }

    /// The path of `at` for people.
    pub(super) fn show(&self, at: &TargetPath) -> PathBuf {
        self.path.join(OsStr::from_bytes(at.as_bytes()))
    }

    /// The error of something that failed at `at`.
    pub(super) fn disk(&self, action: &'static str, at: &TargetPath, source: io::Error) -> ClientError {
        self.disk_at(action, at.as_bytes(), source)
    }

    fn disk_at(&self, action: &'static str, at: &[u8], source: io::Error) -> ClientError {
        ClientError::Disk { action, path: self.path.join(OsStr::from_bytes(at)), source }
    }
}

/// Whether this process may give files away.
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
    pub(super) fn of(&mut self, target: &Target, at: &[u8]) -> Result<Arc<OwnedFd>, ClientError> {
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

/// Opens the folder at `path` below `root`.
fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.is_empty() { &b"."[..] } else { path };
    for _ in 0..RACES {
        match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // An old kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return walk_beneath(root, path, flags),
            done => return done.map_err(io::Error::from),
        }
    }
    walk_beneath(root, path, flags)
}

/// The same, one component at a time.
fn walk_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let walk = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = rustix::fs::openat(root, ".", walk, Mode::empty())?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        folder = rustix::fs::openat(&folder, name, walk, Mode::empty())?;
    }
    Ok(rustix::fs::openat(&folder, ".", flags, Mode::empty())?)
}

fn is_empty(folder: BorrowedFd<'_>) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[path = "folder/tests.rs"]
mod tests;
