//! A disk whose n-th call of a kind fails, and that forgets at a power cut whatever was not synced.
//!
//! Files lie on the disk of this machine. What a sync would have made durable is kept as a list of what is
//! not durable yet, and a power cut takes that back: a name that was given, a name that was removed, the
//! content of a file. A sync that failed, or only said that it was done, leaves its part on the list for
//! good, as a kernel does that has dropped the pages: no later sync brings them back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use repo_server::durable::{Disk, DiskFile, Entry, FileName, Folder, RealDisk, TemporaryName};
use rustix::io::Errno;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    OpenFolder,
    ListFolder,
    MakeFolder,
    Create,
    Write,
    SyncFile,
    Rename,
    Remove,
    SyncFolder,
}

impl Call {
    /// Calls of a running server; folders are listed at its start.
    pub(crate) const WORKING: [Self; 8] = [
        Self::OpenFolder,
        Self::MakeFolder,
        Self::Create,
        Self::Write,
        Self::SyncFile,
        Self::Rename,
        Self::Remove,
        Self::SyncFolder,
    ];

    pub(crate) const SYNCS: [Self; 2] = [Self::SyncFile, Self::SyncFolder];
}

/// Effect of the failing call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It does nothing, and says why.
    Refuses(Errno),
    /// It does nothing, and says that it is done.
    Lies,
}

/// The call that fails: of its kind the one with this number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    pub(crate) at: usize,
    pub(crate) failure: Failure,
}

/// Effect of the failed call on data after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stake {
    Something,
    /// It was the sync of a folder with nothing new in it.
    Nothing,
}

/// Durability after the next sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Loose,
    Lost,
}

/// Meaning of a name before it was changed.
enum Before {
    Absent,
    File(Vec<u8>),
}

/// A change of a name that is not durable.
struct Change {
    dir: PathBuf,
    name: String,
    before: Before,
    fate: Fate,
}

#[derive(Default)]
struct State {
    calls: BTreeMap<Call, usize>,
    fault: Option<Fault>,
    fired: Option<Stake>,
    changes: Vec<Change>,
    /// Files whose content is not durable.
    contents: BTreeMap<PathBuf, Fate>,
}

/// The disk. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FailingDisk(Arc<Mutex<State>>);

impl FailingDisk {
    /// From now on calls are counted, and this one fails.
    pub(crate) fn arm(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        state.calls.clear();
        (state.fault, state.fired) = (fault, None);
    }

    /// The stake at the moment of the fault, if it fired.
    pub(crate) fn fired(&self) -> Option<Stake> {
        self.lock().fired
    }

    /// Calls since the disk was armed.
    pub(crate) fn calls(&self) -> BTreeMap<Call, usize> {
        self.lock().calls.clone()
    }

    /// Takes back whatever is not durable, the newest first. Nobody may be at work.
    pub(crate) fn cut_power(&self) {
        let mut state = self.lock();
        for Change { dir, name, before, .. } in std::mem::take(&mut state.changes).into_iter().rev() {
            let path = dir.join(name);
            match before {
                Before::Absent if path.is_dir() => std::fs::remove_dir_all(&path).expect("it is ours"),
                Before::Absent if path.exists() => std::fs::remove_file(&path).expect("it is ours"),
                Before::File(content) if dir.exists() => std::fs::write(&path, content).expect("it is ours"),
                Before::Absent | Before::File(_) => {}
            }
        }
        for (path, _) in std::mem::take(&mut state.contents) {
            if path.exists() {
                std::fs::write(&path, []).expect("it is ours");
            }
        }
    }

    /// Counts a call; `Err` is what it answers instead of being done.
    fn call(&self, call: Call, stake: impl FnOnce(&mut State) -> Stake) -> Result<(), io::Result<()>> {
        let mut state = self.lock();
        let number = state.calls.entry(call).or_default();
        let at = *number;
        *number += 1;
        let Some(fault) = state.fault.filter(|fault| fault.call == call && fault.at == at) else {
            return Ok(());
        };
        let stake = stake(&mut state);
        state.fired = Some(stake);
        Err(match fault.failure {
            Failure::Refuses(errno) => Err(errno.into()),
            Failure::Lies => Ok(()),
        })
    }

    /// A call that is no sync: it only fails aloud.
    fn plain(&self, call: Call) -> io::Result<()> {
        self.call(call, |_| Stake::Something).or_else(|answer| answer)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let fail = |state: &mut State| {
            state.contents.insert(path.to_owned(), Fate::Lost);
            Stake::Something
        };
        if let Err(answer) = self.call(Call::SyncFile, fail) {
            return answer;
        }
        let mut state = self.lock();
        if state.contents.get(path) == Some(&Fate::Loose) {
            state.contents.remove(path);
        }
        Ok(())
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        let fail = |state: &mut State| {
            let mut stake = Stake::Nothing;
            for change in state.changes.iter_mut().filter(|change| change.dir == dir) {
                change.fate = Fate::Lost;
                stake = Stake::Something;
            }
            stake
        };
        if let Err(answer) = self.call(Call::SyncFolder, fail) {
            return answer;
        }
        self.lock().changes.retain(|change| change.dir != dir || change.fate == Fate::Lost);
        Ok(())
    }

    fn changed(&self, dir: &Path, name: &str, before: Before) {
        let (dir, name) = (dir.to_owned(), name.to_owned());
        self.lock().changes.push(Change { dir, name, before, fate: Fate::Loose });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for FailingDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailingDisk").finish_non_exhaustive()
    }
}

impl Disk for FailingDisk {
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn Folder>> {
        self.plain(Call::OpenFolder)?;
        let inner = RealDisk.open_folder(path)?;
        Ok(Box::new(FailingFolder { disk: self.clone(), dir: path.to_owned(), inner }))
    }
}

struct FailingFolder {
    disk: FailingDisk,
    dir: PathBuf,
    inner: Box<dyn Folder>,
}

impl FailingFolder {
    fn file(&self, name: &str, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile { disk: self.disk.clone(), path: self.dir.join(name), inner })
    }

    /// The file `from` is called `to` now, in place of what had that name before.
    fn renamed(&self, from: &TemporaryName, to: &FileName, before: Before) {
        self.disk.changed(&self.dir, to.as_str(), before);
        let mut state = self.disk.lock();
        let to = self.dir.join(to.as_str());
        match state.contents.remove(&self.dir.join(from.as_str())) {
            Some(fate) => state.contents.insert(to, fate),
            None => state.contents.remove(&to),
        };
    }
}

impl Folder for FailingFolder {
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)> {
        self.disk.plain(Call::Create)?;
        let (name, file) = self.inner.create_temporary()?;
        self.disk.lock().contents.insert(self.dir.join(name.as_str()), Fate::Loose);
        let file = self.file(name.as_str(), file);
        Ok((name, file))
    }

    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.disk.plain(Call::Rename)?;
        self.inner.rename_new(from, to)?;
        self.renamed(from, to, Before::Absent);
        Ok(())
    }

    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.disk.plain(Call::Rename)?;
        let before = std::fs::read(self.dir.join(to.as_str())).map_or(Before::Absent, Before::File);
        self.inner.rename_over(from, to)?;
        self.renamed(from, to, before);
        Ok(())
    }

    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(name.as_str(), self.inner.open_file(name)?))
    }

    fn make_folder(&self, name: &FileName) -> io::Result<()> {
        self.disk.plain(Call::MakeFolder)?;
        self.inner.make_folder(name)?;
        self.disk.changed(&self.dir, name.as_str(), Before::Absent);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.plain(Call::Remove)?;
        let path = self.dir.join(name);
        let content = std::fs::read(&path);
        self.inner.remove(name)?;
        if self.disk.lock().contents.remove(&path).is_none() {
            self.disk.changed(&self.dir, name, Before::File(content?));
        }
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        self.disk.plain(Call::ListFolder)?;
        self.inner.entries()
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.dir)
    }
}

struct FailingFile {
    disk: FailingDisk,
    path: PathBuf,
    inner: Box<dyn DiskFile>,
}

impl DiskFile for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.plain(Call::Write)?;
        // In two pieces, so that a write can fail with half of a file written.
        let half = bytes.len().div_ceil(2).max(256).min(bytes.len());
        self.inner.write(bytes.get(..half).unwrap_or(bytes))
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_file(&self.path)
    }
}
