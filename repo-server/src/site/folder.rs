//! Writing to a site in a folder of this machine.
//!
//! Writes do not use `object_store`, whose local put omits steps of [`durable::publish`]. Reads do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::durable::{self, Disk, DurableError, EntryKind, FileName, Published};

use super::{Area, ObjectName, Op, Put, SiteError};

/// The writing half of a folder site. All calls block.
#[derive(Debug)]
pub(super) struct FolderWriter {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Folders below the root that are durable because this process made them so.
    made: Mutex<HashSet<PathBuf>>,
}

impl FolderWriter {
    /// Writes to the folder `root`, which is left as it is.
    pub(super) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self { disk, root, made: Mutex::default() }
    }

    /// Makes the names of objects durable that a dead process left: what is listed may be counted on from now on.
    /// Those of their folders were synced before there was an object in them.
    pub(super) fn settle(&self) -> Result<(), SiteError> {
        self.in_each_folder(|dir| durable::settle_folder(self.disk.as_ref(), dir))
    }

    /// Removes the temporary files that a dead process left.
    pub(super) fn sweep(&self) -> Result<(), SiteError> {
        self.in_each_folder(|dir| durable::sweep_temporaries(self.disk.as_ref(), dir).map(drop))
    }

    pub(super) fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, SiteError> {
        let failed = |error| write_error(Op::Put, name, error);
        let (dir, file) = self.place(name).map_err(failed)?;
        match durable::publish(self.disk.as_ref(), &dir, &file, bytes).map_err(failed)? {
            Published::New => Ok(Put::Stored),
            Published::AlreadyThere => Ok(Put::AlreadyThere),
        }
    }

    pub(super) fn delete(&self, name: &ObjectName) -> Result<(), SiteError> {
        let (folders, last) = name.split();
        let dir = folders.fold(self.root.clone(), |dir, folder| dir.join(folder));
        let removed = durable::remove(self.disk.as_ref(), &dir, &file_name(last));
        removed.map(drop).map_err(|error| write_error(Op::Delete, name, error))
    }

    /// The folder and the file of an object; makes the folder if it is not there.
    fn place(&self, name: &ObjectName) -> Result<(PathBuf, FileName), DurableError> {
        let (folders, last) = name.split();
        let mut dir = self.root.clone();
        for folder in folders {
            let inner = dir.join(folder);
            if !self.is_made(&inner) {
                durable::make_folder(self.disk.as_ref(), &dir, &file_name(folder))?;
                self.lock_made().insert(inner.clone());
            }
            dir = inner;
        }
        Ok((dir, file_name(last)))
    }

    fn is_made(&self, dir: &Path) -> bool {
        self.lock_made().contains(dir)
    }

    fn lock_made(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        // A set of paths cannot be left half changed.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something in each folder of objects.
    fn in_each_folder(&self, work: impl Fn(&Path) -> Result<(), DurableError>) -> Result<(), SiteError> {
        let is_area = |name: &String| Area::ALL.iter().any(|area| area.as_str() == name);
        let areas = self.subfolders(&self.root).map_err(|error| self.open_error(error))?;
        let mut folders: Vec<PathBuf> =
            areas.into_iter().filter(is_area).map(|name| self.root.join(name)).collect();
        while let Some(dir) = folders.pop() {
            let inner =
                work(&dir).and_then(|()| self.subfolders(&dir)).map_err(|error| self.open_error(error))?;
            folders.extend(inner.into_iter().map(|name| dir.join(name)));
        }
        Ok(())
    }

    fn open_error(&self, error: DurableError) -> SiteError {
        match error {
            DurableError::Fatal { .. } => SiteError::Fatal { source: error.into() },
            other => SiteError::Open { path: self.root.clone(), source: other.into() },
        }
    }

    fn subfolders(&self, dir: &Path) -> Result<Vec<String>, DurableError> {
        let entries = durable::entries(self.disk.as_ref(), dir)?;
        let folders = entries.into_iter().filter(|entry| entry.kind == EntryKind::Folder);
        Ok(folders.filter_map(|entry| entry.name.into_string().ok()).collect())
    }
}

fn file_name(segment: &str) -> FileName {
    segment.parse().expect("a segment of an object name is a valid file name")
}

fn write_error(op: Op, name: &ObjectName, error: DurableError) -> SiteError {
    match error {
        DurableError::Differs { .. } => SiteError::Differs { name: name.clone() },
        DurableError::Full { .. } => SiteError::Full { name: name.clone(), source: error.into() },
        DurableError::Fatal { .. } => SiteError::Fatal { source: error.into() },
        DurableError::Failed { .. } => SiteError::unavailable(op, name, error),
    }
}
