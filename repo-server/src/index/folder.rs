//! The folder of an index: made whole or not at all, by one engine, open in one process at a time.
//!
//! ```text
//! DIR/lock         held while the index is open
//! DIR/db/engine    the name of the engine that made it
//! DIR/db/data/     the engine's files
//! DIR/db.new/      a creation or a removal that was cut short; removed by the next one
//! ```
//! `db` appears by one rename, complete and flushed, and goes by one. So an engine never finds its own
//! half-made files, which neither fjall nor sled could go on from, and an index without its marker cannot be.
//! (A whole folder is published here, filled by an engine; [`crate::durable`] publishes files of known bytes.)

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Engine, OpenError};
use crate::durable::{self, Disk, lock_patiently};

const LOCK: &str = "lock";
const DATABASE: &str = "db";
const UNFINISHED: &str = "db.new";
const MARKER: &str = "engine";
const DATA: &str = "data";

/// Start of the marker, before the name of the engine. The number is the version of this layout.
const MARKER_PREFIX: &str = "astacus index 2 ";

/// Action if there is no index yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make an empty one.
    Create,
    /// Answer [`OpenError::Missing`].
    Refuse,
}

/// The folder of an index, claimed for this handle until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// The lock ends with the last copy of this file descriptor, however the process ends.
    _lock: File,
}

impl Folder {
    /// Claims `dir` for one handle, and makes it if it may be made. `disk` does what is synced here.
    pub(super) fn claim(disk: Arc<dyn Disk>, dir: &Path, missing: Missing) -> Result<Self, OpenError> {
        match missing {
            Missing::Create => fs::create_dir_all(dir).at(dir)?,
            Missing::Refuse if !exists(dir)? => return Err(OpenError::Missing { dir: dir.to_owned() }),
            Missing::Refuse => {}
        }
        let dir = dir.canonicalize().at(dir)?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).at(&path)?;
        match lock_patiently(&lock) {
            Ok(()) => Ok(Self { dir, disk, _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::InUse { dir }),
            Err(error) => Err(OpenError::Io { path, source: error.into() }),
        }
    }

    /// The folder of the engine's files, all of them flushed, made with `create` if there is no index.
    ///
    /// `create` fills an empty folder and closes what it made.
    pub(super) fn database(
        &self,
        engine: Engine,
        missing: Missing,
        create: impl FnOnce(&Path) -> Result<(), OpenError>,
    ) -> Result<PathBuf, OpenError> {
        let database = self.dir.join(DATABASE);
        if exists(&database)? {
            self.check_marker(engine, &database)?;
            // A page that an earlier process failed to write may look clean and still not be on disk.
            self.sync_tree(&database)?;
        } else if missing == Missing::Refuse {
            return Err(OpenError::Missing { dir: self.dir.clone() });
        } else {
            self.create(engine, &database, create)?;
        }
        // Also if the folder existed: its maker may have died before this.
        durable::sync_folder(self.disk.as_ref(), &self.dir)?;
        if let Some(above) = self.dir.parent() {
            durable::settle_folder(self.disk.as_ref(), above)?;
        }
        let data = database.join(DATA);
        data.canonicalize().at(&data)
    }

    /// Flushes every file and folder at and below `path`.
    pub(super) fn sync_tree(&self, path: &Path) -> Result<(), OpenError> {
        Ok(durable::sync_tree(self.disk.as_ref(), &path.canonicalize().at(path)?)?)
    }

    fn create(
        &self,
        engine: Engine,
        database: &Path,
        create: impl FnOnce(&Path) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let unfinished = self.unfinished()?;
        let data = unfinished.join(DATA);
        fs::create_dir_all(&data).at(&data)?;
        create(&data)?;
        let marker = unfinished.join(MARKER);
        fs::write(&marker, format!("{MARKER_PREFIX}{engine}\n")).at(&marker)?;
        self.sync_tree(&unfinished)?;
        rename(&unfinished, database)
    }

    /// Where a new index is made, or an old one removed: nothing is there.
    fn unfinished(&self) -> Result<PathBuf, OpenError> {
        let unfinished = self.dir.join(UNFINISHED);
        if exists(&unfinished)? {
            fs::remove_dir_all(&unfinished).at(&unfinished)?;
        }
        Ok(unfinished)
    }

    fn check_marker(&self, wanted: Engine, database: &Path) -> Result<(), OpenError> {
        let path = database.join(MARKER);
        let text = fs::read_to_string(&path).map_err(|_| OpenError::Marker { path: path.clone() })?;
        let found = text
            .strip_prefix(MARKER_PREFIX)
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|name| name.parse::<Engine>().ok())
            .ok_or(OpenError::Marker { path })?;
        if found != wanted {
            return Err(OpenError::OtherEngine { dir: self.dir.clone(), found, wanted });
        }
        Ok(())
    }
}

/// Removes the files of an index, durably, and leaves the folder. After an interruption the index is gone or
/// whole.
pub(super) fn discard(disk: Arc<dyn Disk>, dir: &Path) -> Result<(), OpenError> {
    if !exists(dir)? {
        return Ok(());
    }
    let folder = Folder::claim(disk, dir, Missing::Create)?;
    let database = folder.dir.join(DATABASE);
    let unfinished = folder.unfinished()?;
    if exists(&database)? {
        rename(&database, &unfinished)?;
    }
    durable::sync_folder(folder.disk.as_ref(), &folder.dir)?;
    folder.unfinished().map(drop)
}

fn rename(from: &Path, to: &Path) -> Result<(), OpenError> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from).at(to)
}

fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().at(path)
}

/// Says which path an operating system's error is about.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, OpenError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests;
