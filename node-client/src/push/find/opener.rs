//! Opens what the list names, relative to open folders, without following any link.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use format_spec::EntryPath;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::list::FoundFile;
use crate::identity::Source;
use crate::push::freeze::Freeze;
use crate::push::guest::{self, FOLDER, READ};
use crate::push::select::roots::{Opened, Root};
use crate::push::stat::Stat;

/// Opens files of the roots. The folders on the way to the last one stay open: neighbours are cheap.
pub(crate) struct Opener<'a> {
    roots: &'a [Root],
    freeze: &'a Freeze,
    /// The folders from the root down to the last one.
    folders: Vec<(EntryPath, OwnedFd)>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(roots: &'a [Root], freeze: &'a Freeze) -> Self {
        Self { roots, freeze, folders: Vec::new() }
    }

    /// Opens the content of `found` for reading.
    pub(crate) fn open(&mut self, found: &FoundFile) -> Result<OwnedFd, Errno> {
        match found.source {
            Source::Link | Source::Copy => self.freeze.open(&found.stat.identity),
            Source::Path => self.open_path(&found.path),
        }
    }

    /// Stat of a name at this moment.
    pub(crate) fn look(&mut self, path: &EntryPath) -> Result<Stat, Errno> {
        let (_, name) = path.split_last().ok_or(Errno::NOENT)?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Stat::of_name(self.folder_of(path)?, &name)
    }

    fn open_path(&mut self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let (_, name) = path.split_last().ok_or(Errno::NOENT)?;
        guest::open(self.folder_of(path)?, name, READ)
    }

    /// The folder that contains the file at `path`.
    fn folder_of(&mut self, path: &EntryPath) -> Result<&OwnedFd, Errno> {
        let (parent, _) = path.split_last().ok_or(Errno::NOENT)?;
        let root = self.root_of(path)?;
        if root.path != *path {
            return self.folder(&parent, root);
        }
        let Opened::File(within, _) = root.open()? else { return Err(Errno::NOTDIR) };
        // No other file of a root is in the open folders.
        self.folders = vec![(path.clone(), within)];
        self.folders.last().map(|(_, folder)| folder).ok_or(Errno::NOENT)
    }

    /// The root that contains `path`. Roots are in path order, and none contains another.
    fn root_of(&self, path: &EntryPath) -> Result<&'a Root, Errno> {
        let behind = self.roots.partition_point(|root| root.path <= *path);
        let root = behind.checked_sub(1).and_then(|last| self.roots.get(last));
        root.filter(|root| path.below(&root.path).is_some()).ok_or(Errno::NOENT)
    }

    fn folder(&mut self, path: &EntryPath, root: &Root) -> Result<&OwnedFd, Errno> {
        while self.folders.last().is_some_and(|(open, _)| path.below(open).is_none()) {
            self.folders.pop();
        }
        if self.folders.is_empty() {
            let Opened::Folder(folder) = root.open()? else { return Err(Errno::NOTDIR) };
            self.folders.push((root.path.clone(), folder));
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
