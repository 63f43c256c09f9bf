//! The walk: every name below the roots, in path order, without following a link.
//!
//! Folders are opened relative to the folder they lie in, so a rename in mid-walk cannot lead
//! elsewhere. Memory: one sorted list of names per level.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use format_spec::{EntryKind, EntryPath};
use rustix::fs::{FileType, Mode, RawDir};
use rustix::io::Errno;

use super::freeze::{Held, is_base};
use super::globs::Globs;
use super::list::{FoundFile, Step};
use super::roots::Root;
use super::source::FOLDER;
use super::stat::Stat;
use super::stop::Stopped;
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

/// How often a name is looked at again when it stands for something else each time.
const LOOKS: u32 = 8;

/// What decides over, and hears of, what the walk finds.
pub(crate) trait Visitor {
    /// A regular file. Returns how it is kept until it is read, or `None` if its name stands for
    /// something else by now.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn hold(&mut self, at: Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped>;

    /// The next step, in path order.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn step(&mut self, step: Step) -> Result<(), Stopped>;
}

/// A name in an open folder.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a OwnedFd,
    pub(crate) name: &'a CStr,
    pub(crate) path: &'a EntryPath,
}

/// Walks one root after the other and hands each step to `visitor`.
pub(crate) fn walk(
    roots: &[Root],
    excludes: &Globs,
    mounts: Mounts,
    visitor: &mut dyn Visitor,
) -> Result<(), Stopped> {
    let mut walker = Walker { excludes, mounts, visitor, buffer: Vec::with_capacity(LISTING_LEN) };
    roots.iter().try_for_each(|root| walker.root(root))
}

struct Walker<'a> {
    excludes: &'a Globs,
    mounts: Mounts,
    visitor: &'a mut dyn Visitor,
    buffer: Vec<u8>,
}

/// A folder that is being gone through.
struct Level {
    path: EntryPath,
    folder: OwnedFd,
    names: Names,
    next: usize,
}

impl Walker<'_> {
    fn root(&mut self, root: &Root) -> Result<(), Stopped> {
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
    fn name(&mut self, level: &Level, name: &CStr, device: u64) -> Result<Option<Level>, Stopped> {
        let path = match level.path.join(name.to_bytes()) {
            Ok(path) => path,
            Err(error) => {
                let reason = format!("a name in it cannot be kept: {error}");
                self.visitor.step(Step::Problem(level.path.clone(), reason))?;
                return Ok(None);
            }
        };
        if self.excludes.matches(&path) {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            let stat = match Stat::of_name(&level.folder, name) {
                Ok(stat) => stat,
                Err(error) => return self.problem(path, "cannot be looked at", error).map(|()| None),
            };
            match stat.kind() {
                FileType::Directory if self.mounts == Mounts::Skip && stat.identity.dev != device => {
                    let xattrs = xattr::of_name(&level.folder, name).unwrap_or_default();
                    self.visitor.step(Step::Plain(stat.entry(path, EntryKind::Folder, xattrs)))?;
                }
                FileType::Directory => return self.folder(level, name, path),
                FileType::RegularFile => {
                    let place = Place { folder: &level.folder, name, path: &path };
                    let Some(held) = self.visitor.hold(place, stat)? else { continue };
                    let Held { stat, source, not_frozen, xattrs } = held;
                    self.visitor.step(Step::File(FoundFile { path, stat, source, not_frozen, xattrs }))?;
                }
                FileType::Symlink => self.symlink(level, name, path, &stat)?,
                _ => self.visitor.step(Step::Skipped(path))?,
            }
            return Ok(None);
        }
        self.visitor.step(Step::Problem(path, "was replaced again and again".to_owned()))?;
        Ok(None)
    }

    fn folder(&mut self, level: &Level, name: &CStr, path: EntryPath) -> Result<Option<Level>, Stopped> {
        match open_folder(&level.folder, name.to_bytes()) {
            Ok(folder) => self.enter(path, folder),
            Err(error) => {
                // What is known of a folder that may not be entered is kept all the same.
                if let Ok(stat) = Stat::of_name(&level.folder, name)
                    && stat.kind() == FileType::Directory
                {
                    self.visitor.step(Step::Plain(stat.entry(
                        path.clone(),
                        EntryKind::Folder,
                        Vec::new(),
                    )))?;
                }
                self.problem(path, "cannot be opened", error).map(|()| None)
            }
        }
    }

    /// Reports an open folder and lists it.
    fn enter(&mut self, path: EntryPath, folder: OwnedFd) -> Result<Option<Level>, Stopped> {
        let names = Names::list(&folder, &mut self.buffer);
        // Second names of a push, this one or another, are no data.
        if names.as_ref().is_ok_and(|names| is_base(names.iter())) {
            return Ok(None);
        }
        let about = Stat::of_file(&folder).and_then(|stat| Ok((stat, xattr::of_file(&folder)?)));
        match about {
            Ok((stat, xattrs)) => {
                self.visitor.step(Step::Plain(stat.entry(path.clone(), EntryKind::Folder, xattrs)))?;
            }
            Err(error) => self.problem(path.clone(), "cannot be looked at", error)?,
        }
        match names {
            Ok(names) => Ok(Some(Level { path, folder, names, next: 0 })),
            Err(error) => self.problem(path, "cannot be listed", error).map(|()| None),
        }
    }

    fn symlink(&mut self, level: &Level, name: &CStr, path: EntryPath, stat: &Stat) -> Result<(), Stopped> {
        let target = rustix::fs::readlinkat(&level.folder, name, Vec::new());
        let about = target.and_then(|target| Ok((target, xattr::of_name(&level.folder, name)?)));
        match about {
            Ok((target, xattrs)) => {
                let mut entry = stat.entry(path, EntryKind::Symlink, xattrs);
                entry.target = Some(target.into_bytes());
                self.visitor.step(Step::Plain(entry))
            }
            Err(error) => self.problem(path, "cannot be read", error),
        }
    }

    fn problem(&mut self, path: EntryPath, what: &str, error: Errno) -> Result<(), Stopped> {
        self.visitor.step(Step::Problem(path, reason(what, error)))
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
    rustix::fs::openat(at, name, FOLDER, Mode::empty())
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

    /// Without their NULs.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().filter_map(|(start, end)| self.bytes.get(*start..end.checked_sub(1)?))
    }

    fn get(&self, index: usize) -> Option<&CStr> {
        let (start, end) = *self.ranges.get(index)?;
        CStr::from_bytes_with_nul(self.bytes.get(start..end)?).ok()
    }
}

#[cfg(test)]
#[path = "walk/tests.rs"]
mod tests;
