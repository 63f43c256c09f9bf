//! The folder of an index: made whole or not at all, by one engine, open in one process at a time.
//!
//! ```text
//! DIR/lock         held while the index is open
//! DIR/db/engine    the name of the engine that made it
//! DIR/db/data/     the engine's files
//! DIR/db.new/      a creation that was cut short; removed by the next one
//! ```
//! `db` appears by one rename, complete and flushed. So an engine never finds its own half-made files,
//! which neither fjall nor sled could go on from, and an index without its marker cannot be. (A whole
//! folder is published here, filled by an engine; [`crate::durable`] publishes files of known bytes.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::{Engine, OpenError};

const LOCK: &str = "lock";
const DATABASE: &str = "db";
const UNFINISHED: &str = "db.new";
const MARKER: &str = "engine";
const DATA: &str = "data";

/// What the marker says before the name of the engine. The number is the version of this layout.
const MARKER_PREFIX: &str = "astacus index 2 ";

/// How often a lock is looked at before it is taken to be somebody's, and between two looks: a quarter of a second.
const LOCK_LOOKS: u32 = 50;
const LOCK_POLL: Duration = Duration::from_millis(5);

/// What to do when there is no index yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make an empty one.
    Create,
    /// Answer [`OpenError::Missing`].
    Refuse,
}

/// The folder of an index, claimed for this handle until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// The lock goes with the last copy of this file descriptor, however the process ends.
    _lock: File,
}

/// Locks a file that nobody else has locked. A lock may outlive its holder for a moment: a child that the process
/// starts has all its files from the fork to the exec.
fn lock_patiently(file: &File) -> Result<(), Errno> {
    for _ in 0..LOCK_LOOKS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            #[expect(clippy::disallowed_methods, reason = "the system tells nobody when a lock is free")]
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_POLL),
            locked => return locked,
        }
    }
    Err(Errno::WOULDBLOCK)
}

impl Folder {
    /// Claims `dir` for one handle, and makes it if it may be made.
    pub(super) fn claim(dir: &Path, missing: Missing) -> Result<Self, OpenError> {
        if missing == Missing::Create {
            create_dir_durably(dir)?;
        } else if !exists(dir)? {
            return Err(OpenError::Missing { dir: dir.to_owned() });
        }
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).at(&path)?;
        match lock_patiently(&lock) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::InUse { dir: dir.to_owned() }),
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
        if !exists(&database)? {
            if missing == Missing::Refuse {
                return Err(OpenError::Missing { dir: self.dir.clone() });
            }
            self.create(engine, &database, create)?;
        }
        self.check_marker(engine, &database)?;
        // A page that an earlier process failed to write may look clean and still not be on disk.
        sync_tree(&database)?;
        Ok(database.join(DATA))
    }

    fn create(
        &self,
        engine: Engine,
        database: &Path,
        create: impl FnOnce(&Path) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let unfinished = self.dir.join(UNFINISHED);
        if exists(&unfinished)? {
            fs::remove_dir_all(&unfinished).at(&unfinished)?;
        }
        let data = unfinished.join(DATA);
        fs::create_dir_all(&data).at(&data)?;
        create(&data)?;
        let marker = unfinished.join(MARKER);
        let mut file = File::create_new(&marker).at(&marker)?;
        writeln!(file, "{MARKER_PREFIX}{engine}").at(&marker)?;
        sync_tree(&unfinished)?;
        renameat_with(CWD, &unfinished, CWD, database, RenameFlags::NOREPLACE)
            .map_err(io::Error::from)
            .at(database)?;
        sync(&self.dir)
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

/// Removes what an index consists of, durably, and leaves the folder.
pub(super) fn discard(dir: &Path) -> Result<(), OpenError> {
    if !exists(dir)? {
        return Ok(());
    }
    let folder = Folder::claim(dir, Missing::Create)?;
    for part in [DATABASE, UNFINISHED] {
        let path = folder.dir.join(part);
        if exists(&path)? {
            fs::remove_dir_all(&path).at(&path)?;
        }
    }
    sync(dir)
}

/// Flushes every file and folder at and below `path`, the deepest first.
///
/// A file that vanishes meanwhile needs no flush: an engine that was closed a moment ago in this
/// process may still be removing a journal that it no longer needs.
pub(super) fn sync_tree(path: &Path) -> Result<(), OpenError> {
    if fs::symlink_metadata(path).at(path)?.is_dir() {
        for entry in fs::read_dir(path).at(path)? {
            match sync_tree(&entry.at(path)?.path()) {
                Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                synced => synced?,
            }
        }
    }
    sync(path)
}

fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).at(path)
}

/// Makes `dir` and what is missing above it, each flushed into its parent.
fn create_dir_durably(dir: &Path) -> Result<(), OpenError> {
    if exists(dir)? {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    create_dir_durably(parent)?;
    fs::create_dir(dir).at(dir)?;
    sync(dir)?;
    sync(parent)
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
