//! State of real folders after a power cut, for tests of code that works on them beside [`Disk`], as a
//! database engine does.
//!
//! [`ShadowDisk`] is the disk of this machine, and remembers of each file and folder what it held when it was last
//! synced through it. As harsh as [`SimDisk`](super::sim::SimDisk): a name leads to nothing if what it names was
//! never synced, and what is inside a synced folder is lost if the folder's own name was not synced.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Disk, DiskFile, Entry, FileName, Folder, RealDisk, TemporaryName};

/// A file or folder, however it is called. A number may be used again for a later one, with another birth.
type Inode = (u64, SystemTime);

/// Synced state of a file or a folder.
#[derive(Debug, Clone)]
enum Synced {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, Inode>),
}

/// Fate of names that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// They are lost.
    Synced,
    /// They are there, and lead to as much as was synced of what they name.
    All,
}

#[derive(Default)]
struct State {
    /// Folders below which files are watched.
    settled: Vec<PathBuf>,
    synced: HashMap<Inode, Synced>,
    /// The syncs so far.
    syncs: Vec<PathBuf>,
    /// The sync that is acknowledged and not done.
    left_out: Option<usize>,
    /// Path whose syncs have no effect, although they are acknowledged.
    left_out_path: Option<PathBuf>,
    /// The sync at which the process stops.
    stop: Option<usize>,
}

/// A disk that remembers what was synced. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct ShadowDisk(Arc<Mutex<State>>);

impl ShadowDisk {
    /// A disk that acknowledges the sync number `left_out` without doing it, and on which the process stops before
    /// the sync number `stop`: that one and all later ones fail.
    pub(crate) fn new(left_out: Option<usize>, stop: Option<usize>) -> Self {
        let disk = Self::default();
        disk.lock().left_out = left_out;
        disk.lock().stop = stop;
        disk
    }

    /// Watched paths that were synced so far, in order.
    pub(crate) fn syncs(&self) -> Vec<PathBuf> {
        self.lock().syncs.clone()
    }

    /// Starts the process again: it does not stop any more.
    pub(crate) fn restart_process(&self) {
        self.lock().stop = None;
    }

    /// From now on acknowledges syncs of `path` without doing them.
    #[cfg(feature = "sled")]
    pub(crate) fn leave_out(&self, path: &Path) {
        self.lock().left_out_path = Some(path.to_owned());
    }

    /// Makes all that is at and below `path` durable, as if an earlier process had synced it, and watches it from
    /// then on.
    pub(crate) fn settle(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.settled.push(path.to_owned());
        state.settle(path)
    }

    /// Writes to `to`, which must not be there, what a power cut now would leave of `from`, whose own name is taken
    /// to be durable.
    pub(crate) fn cut_power(&self, from: &Path, to: &Path, names: Names) -> io::Result<()> {
        let state = self.lock();
        match names {
            Names::Synced => state.write_synced(inode(from)?, to),
            Names::All => state.write_named(from, to),
        }
    }

    fn sync(&self, path: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        if !state.settled.iter().any(|settled| path.starts_with(settled)) {
            return sync();
        }
        let number = state.syncs.len();
        if state.stop.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the process has stopped"));
        }
        state.syncs.push(path.to_owned());
        if state.left_out == Some(number) || state.left_out_path.as_deref() == Some(path) {
            return Ok(());
        }
        sync()?;
        let synced = now(path)?;
        state.synced.insert(inode(path)?, synced);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file that is open to its owner only, as all files of a repository are.
fn write_closed(to: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    file.write_all(content)
}

impl State {
    fn settle(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            fs::read_dir(path)?.try_for_each(|entry| self.settle(&entry?.path()))?;
        }
        self.synced.insert(inode(path)?, now(path)?);
        Ok(())
    }

    fn write_synced(&self, inode: Inode, to: &Path) -> io::Result<()> {
        match self.synced.get(&inode) {
            None => Ok(()),
            Some(Synced::File(content)) => write_closed(to, content),
            Some(Synced::Folder(entries)) => {
                fs::create_dir(to)?;
                entries.iter().try_for_each(|(name, inode)| self.write_synced(*inode, &to.join(name)))
            }
        }
    }

    fn write_named(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from.is_dir() {
            fs::create_dir(to)?;
            let mut entries = fs::read_dir(from)?;
            return entries.try_for_each(|entry| {
                let name = entry?.file_name();
                self.write_named(&from.join(&name), &to.join(&name))
            });
        }
        match self.synced.get(&inode(from)?) {
            Some(Synced::File(content)) => write_closed(to, content),
            _ => write_closed(to, b""),
        }
    }
}

fn now(path: &Path) -> io::Result<Synced> {
    if !path.is_dir() {
        return Ok(Synced::File(fs::read(path)?));
    }
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), inode(&entry.path())?))
    };
    Ok(Synced::Folder(fs::read_dir(path)?.map(entry).collect::<io::Result<_>>()?))
}

fn inode(path: &Path) -> io::Result<Inode> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.ino(), metadata.created()?))
}

impl fmt::Debug for ShadowDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowDisk").field("syncs", &self.lock().syncs.len()).finish_non_exhaustive()
    }
}

impl Disk for ShadowDisk {
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn Folder>> {
        let inner = RealDisk.open_folder(path)?;
        Ok(Box::new(ShadowFolder { disk: self.clone(), path: path.to_owned(), inner }))
    }
}

struct ShadowFolder {
    disk: ShadowDisk,
    path: PathBuf,
    inner: Box<dyn Folder>,
}

impl ShadowFolder {
    fn file(&self, name: &str, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(ShadowFile { disk: self.disk.clone(), path: self.path.join(name), inner })
    }
}

impl Folder for ShadowFolder {
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)> {
        let (name, file) = self.inner.create_temporary()?;
        let file = self.file(name.as_str(), file);
        Ok((name, file))
    }

    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.inner.rename_new(from, to)
    }

    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.inner.rename_over(from, to)
    }

    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(name.as_str(), self.inner.open_file(name)?))
    }

    fn make_folder(&self, name: &FileName) -> io::Result<()> {
        self.inner.make_folder(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        self.inner.entries()
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.path, || self.inner.sync())
    }
}

/// An open file, which keeps the name that it was opened by until it is closed.
struct ShadowFile {
    disk: ShadowDisk,
    path: PathBuf,
    inner: Box<dyn DiskFile>,
}

impl DiskFile for ShadowFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.path, || self.inner.sync())
    }
}
