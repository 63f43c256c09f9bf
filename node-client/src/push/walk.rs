//! The walk: every name below the roots, in path order, without following a link.
//!
//! Folders are opened relative to the folder they lie in, so a rename in mid-walk cannot lead
//! elsewhere. Memory: one sorted list of names per level.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use format_spec::{Entry, EntryKind, EntryPath};
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::exclude::Excludes;
use super::roots::Root;
use super::stat::Stat;
use super::xattr;

/// Bytes that one call for names may fill.
const LISTING_LEN: usize = 64 << 10;

/// Whether the walk enters other file systems that are mounted below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// It does.
    Enter,
    /// A mount point is an empty folder.
    Skip,
}

/// One thing that the walk came across.
#[derive(Debug)]
pub(crate) enum Step {
    /// A regular file, not opened yet.
    File(FoundFile),
    /// A folder or a symbolic link: all there is to know of it.
    Plain(Entry),
    /// Something that has no content to keep.
    Skipped(EntryPath),
    /// Something that should have been there, or been readable.
    Problem(EntryPath, String),
}

/// A regular file and where it lies.
#[derive(Debug)]
pub(crate) struct FoundFile {
    pub(crate) path: EntryPath,
    pub(crate) folder: Arc<OwnedFd>,
    pub(crate) stat: Stat,
}

impl FoundFile {
    /// Opens it for reading; whatever took its place in the meantime is not waited for, nor followed.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let name = self.path.components().last().unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, name, flags, Mode::empty())
    }
}

/// The receiver of the steps has gone: end the walk.
#[derive(Debug)]
pub(crate) struct Gone;

/// Walks one root after the other and hands each step to `sink`.
pub(crate) fn walk(
    roots: &[Root],
    excludes: &Excludes,
    mounts: Mounts,
    sink: impl FnMut(Step) -> Result<(), Gone>,
) -> Result<(), Gone> {
    let mut walker = Walker { excludes, mounts, sink, buffer: Vec::with_capacity(LISTING_LEN) };
    roots.iter().try_for_each(|root| walker.root(root))
}

struct Walker<'a, F> {
    excludes: &'a Excludes,
    mounts: Mounts,
    sink: F,
    buffer: Vec<u8>,
}

/// A folder that is being gone through.
struct Level {
    path: EntryPath,
    folder: Arc<OwnedFd>,
    names: Names,
    next: usize,
}

impl<F: FnMut(Step) -> Result<(), Gone>> Walker<'_, F> {
    fn root(&mut self, root: &Root) -> Result<(), Gone> {
        let opened = open_folder(rustix::fs::CWD, root.folder.as_os_str().as_encoded_bytes());
        let mut levels = Vec::new();
        let device = match opened.and_then(|folder| Ok((Stat::of_file(&folder)?.identity.dev, folder))) {
            Ok((device, folder)) => {
                levels.extend(self.enter(root.path.clone(), folder)?);
                device
            }
            Err(error) => return self.problem(root.path.clone(), "cannot be opened", error),
        };
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.get(level.next) else {
                levels.pop();
                continue;
            };
            level.next += 1;
            let below = self.name(level, name, device)?;
            levels.extend(below);
        }
        Ok(())
    }

    /// Deals with one name; a folder comes back as the level to go through next.
    fn name(&mut self, level: &Level, name: &CStr, device: u64) -> Result<Option<Level>, Gone> {
        let path = match level.path.join(name.to_bytes()) {
            Ok(path) => path,
            Err(error) => {
                let reason = format!("a name in it cannot be kept: {error}");
                (self.sink)(Step::Problem(level.path.clone(), reason))?;
                return Ok(None);
            }
        };
        if self.excludes.matches(&path) {
            return Ok(None);
        }
        let stat = match Stat::of_name(&level.folder, name) {
            Ok(stat) => stat,
            Err(error) => return self.problem(path, "cannot be looked at", error).map(|()| None),
        };
        match stat.kind {
            FileType::Directory if self.mounts == Mounts::Skip && stat.identity.dev != device => {
                let xattrs = xattr::of_name(&level.folder, name).unwrap_or_default();
                (self.sink)(Step::Plain(stat.entry(path, EntryKind::Folder, xattrs)))?;
            }
            FileType::Directory => return self.folder(level, name, path),
            FileType::RegularFile => {
                (self.sink)(Step::File(FoundFile { path, folder: Arc::clone(&level.folder), stat }))?;
            }
            FileType::Symlink => self.symlink(level, name, path, &stat)?,
            _ => (self.sink)(Step::Skipped(path))?,
        }
        Ok(None)
    }

    fn folder(&mut self, level: &Level, name: &CStr, path: EntryPath) -> Result<Option<Level>, Gone> {
        match open_folder(&level.folder, name.to_bytes()) {
            Ok(folder) => self.enter(path, folder),
            Err(error) => {
                // What is known of a folder that may not be entered is kept all the same.
                if let Ok(stat) = Stat::of_name(&level.folder, name)
                    && stat.kind == FileType::Directory
                {
                    (self.sink)(Step::Plain(stat.entry(path.clone(), EntryKind::Folder, Vec::new())))?;
                }
                self.problem(path, "cannot be opened", error).map(|()| None)
            }
        }
    }

    /// Reports an open folder and lists it.
    fn enter(&mut self, path: EntryPath, folder: OwnedFd) -> Result<Option<Level>, Gone> {
        let about = Stat::of_file(&folder).and_then(|stat| Ok((stat, xattr::of_file(&folder)?)));
        match about {
            Ok((stat, xattrs)) => {
                (self.sink)(Step::Plain(stat.entry(path.clone(), EntryKind::Folder, xattrs)))?;
            }
            Err(error) => self.problem(path.clone(), "cannot be looked at", error)?,
        }
        match Names::list(&folder, &mut self.buffer) {
            Ok(names) => Ok(Some(Level { path, folder: Arc::new(folder), names, next: 0 })),
            Err(error) => self.problem(path, "cannot be listed", error).map(|()| None),
        }
    }

    fn symlink(&mut self, level: &Level, name: &CStr, path: EntryPath, stat: &Stat) -> Result<(), Gone> {
        let target = rustix::fs::readlinkat(&level.folder, name, Vec::new());
        let about = target.and_then(|target| Ok((target, xattr::of_name(&level.folder, name)?)));
        match about {
            Ok((target, xattrs)) => {
                let mut entry = stat.entry(path, EntryKind::Symlink, xattrs);
                entry.target = Some(target.into_bytes());
                (self.sink)(Step::Plain(entry))
            }
            Err(error) => self.problem(path, "cannot be read", error),
        }
    }

    fn problem(&mut self, path: EntryPath, what: &str, error: Errno) -> Result<(), Gone> {
        (self.sink)(Step::Problem(path, reason(what, error)))
    }
}

/// Why something is missing from a snapshot, for people.
pub(crate) fn reason(what: &str, error: Errno) -> String {
    match error {
        Errno::NOENT | Errno::STALE => "vanished".to_owned(),
        Errno::LOOP | Errno::NOTDIR => "was replaced by something else while it was pushed".to_owned(),
        error => format!("{what}: {error}"),
    }
}

fn open_folder(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// The names in a folder, sorted by bytes, in two allocations.
struct Names {
    /// Each name with its NUL.
    bytes: Vec<u8>,
    ranges: Vec<(usize, usize)>,
}

impl Names {
    fn list(folder: &OwnedFd, buffer: &mut Vec<u8>) -> Result<Self, Errno> {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        let mut listing = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(name) = listing.next() {
            let name = name?;
            let name = name.file_name().to_bytes_with_nul();
            if name != b".\0" && name != b"..\0" {
                ranges.push((bytes.len(), bytes.len() + name.len()));
                bytes.extend_from_slice(name);
            }
        }
        ranges.sort_unstable_by(|a, b| bytes.get(a.0..a.1).cmp(&bytes.get(b.0..b.1)));
        Ok(Self { bytes, ranges })
    }

    fn get(&self, index: usize) -> Option<&CStr> {
        let (start, end) = *self.ranges.get(index)?;
        CStr::from_bytes_with_nul(self.bytes.get(start..end)?).ok()
    }
}

#[cfg(test)]
#[path = "walk/tests.rs"]
mod tests;
