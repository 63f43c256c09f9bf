//! Opens what the list names, relative to open folders, without following any link.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use format_spec::EntryPath;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::freeze::{Freeze, Source};
use super::list::FoundFile;
use super::roots::Root;
use super::stat::Stat;

/// How a file is opened: whatever took its place in the meantime is not waited for, nor followed.
pub(super) const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// How a folder is opened.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens files of the roots. The folders on the way to the last one stay open: neighbours are cheap.
pub(super) struct Opener<'a> {
    roots: &'a [Root],
    freeze: &'a Freeze,
    /// The folders from the root down to the last one.
    folders: Vec<(EntryPath, OwnedFd)>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(roots: &'a [Root], freeze: &'a Freeze) -> Self {
        Self { roots, freeze, folders: Vec::new() }
    }

    /// Opens the content of `found` for reading.
    pub(super) fn open(&mut self, found: &FoundFile) -> Result<OwnedFd, Errno> {
        match found.source {
            Source::Link | Source::Copy => self.freeze.open(&found.stat.identity),
            Source::Path => self.open_path(&found.path),
        }
    }

    /// What a name stands for at this moment.
    pub(super) fn look(&mut self, path: &EntryPath) -> Result<Stat, Errno> {
        let (parent, name) = path.split_last().ok_or(Errno::NOENT)?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Stat::of_name(self.folder(&parent)?, &name)
    }

    fn open_path(&mut self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let (parent, name) = path.split_last().ok_or(Errno::NOENT)?;
        let folder = self.folder(&parent)?;
        rustix::fs::openat(folder, name, READ, Mode::empty())
    }

    fn folder(&mut self, path: &EntryPath) -> Result<&OwnedFd, Errno> {
        while self.folders.last().is_some_and(|(open, _)| path.below(open).is_none()) {
            self.folders.pop();
        }
        if self.folders.is_empty() {
            let root = self.roots.iter().find(|root| path.below(&root.path).is_some());
            let root = root.ok_or(Errno::NOENT)?;
            self.folders.push((root.path.clone(), root.open()?));
        }
        let (last, _) = self.folders.last().ok_or(Errno::NOENT)?;
        let below = path.below(last).unwrap_or_default().to_vec();
        for name in below.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let (last, folder) = self.folders.last().ok_or(Errno::NOENT)?;
            let opened = rustix::fs::openat(folder, name, FOLDER, Mode::empty())?;
            let path = last.join(name).map_err(|_| Errno::NAMETOOLONG)?;
            self.folders.push((path, opened));
        }
        self.folders.last().map(|(_, folder)| folder).ok_or(Errno::NOENT)
    }
}
