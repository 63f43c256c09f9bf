//! A model of a disk that forgets, for tests. Not a disk.
//!
//! [`SimDisk`] keeps two views of every file and folder: what programs see, and what would survive a
//! power cut. Only a sync moves the first into the second. Every step of [`Disk`] is counted, and a
//! fault can be armed for the n-th step, so a test can walk through an operation and break it
//! at each step in turn.
//!
//! The model is harsher than real file systems: an unsynced name may be lost while a later one in
//! the same folder survives, a name may survive without the content of its file, and what is inside
//! a synced folder is lost if the folder's own name was not synced. As on Linux, a failed file sync
//! marks the data as clean, so that a second sync succeeds and saves nothing; a failed folder sync
//! turns the file system read-only. There are no symlinks, no permissions and no renames between folders.

mod state;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::disk::{Disk, DiskFile, Entry, FileName, Folder, TemporaryName};
use super::error::Step;
use state::{Change, InodeId, State};

/// Fault at the armed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SimFault {
    /// The process stops: this step and all later ones fail and change nothing, until
    /// [`SimDisk::restart_process`] or [`SimDisk::cut_power`].
    Stop,
    /// The step fails with EIO.
    InputOutput,
    /// The step fails with ENOSPC.
    NoSpace,
    /// A write takes half of its bytes; any other step is as usual.
    ShortWrite,
}

/// Changes without a sync that survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survivors {
    /// No unsynced change: the disk is as of the last syncs.
    Synced,
    /// All names, but no content: the empty files that late allocation leaves.
    Names,
    /// Everything, as if the kernel had written it all back in time.
    Everything,
    /// Each name or not, and torn content; the number decides.
    Seeded(u64),
}

/// A sync that the disk acknowledges without doing it, to prove that a test would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The content of files is not synced.
    FileSync,
    /// The names in folders are not synced.
    FolderSync,
    /// The step with this number, counted from 0, is not done if it is a sync.
    SyncAt(usize),
}

/// The simulated disk. Clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// A disk with the folder `path` on it, durably, and nothing else.
    pub(crate) fn with_folder(path: &Path) -> Self {
        let disk = Self { state: Arc::new(Mutex::new(State::new())) };
        disk.lock().add_folders(path);
        disk
    }

    /// Lets one write take at most `bytes` bytes, so that even small content needs several.
    pub(crate) fn limit_writes(&self, bytes: usize) {
        self.lock().write_limit = bytes.max(1);
    }

    /// Makes the disk lie about one kind of sync from now on.
    pub(crate) fn tell_lies(&self, lie: Lie) {
        self.lock().lie = Some(lie);
    }

    /// Arms `fault` for the step that follows after `after` more steps.
    pub(crate) fn arm(&self, after: usize, fault: SimFault) {
        let mut state = self.lock();
        state.fault = Some((state.steps.len().saturating_add(after), fault));
    }

    /// The steps that were started so far, in order. A step that fails counts; those after a
    /// [`SimFault::Stop`] do not.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    /// Starts the process again on a machine that stayed up: nothing is forgotten, open files and
    /// folders are closed, and no fault is armed.
    pub(crate) fn restart_process(&self) {
        self.lock().restart();
    }

    /// Cuts the power and starts the machine again: of what was not synced, only `survivors` are
    /// left, open files and folders are closed, and no fault is armed.
    pub(crate) fn cut_power(&self, survivors: Survivors) {
        self.lock().cut_power(survivors);
    }

    /// The content of the file at `path` as programs see it, or `None` if there is none.
    /// Counts as no step.
    pub(crate) fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock().peek(path)
    }

    /// The names in the folder `path` as programs see them, sorted. Counts as no step.
    pub(crate) fn peek_names(&self, path: &Path) -> Vec<String> {
        self.lock().peek_names(path)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere must not hide its message behind a poisoned lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("steps", &self.lock().steps.len()).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn Folder>> {
        let mut state = self.lock();
        state.plain_step(Step::OpenFolder)?;
        let inode = state.find(path).ok_or(Errno::NOENT)?;
        state.folder(inode)?;
        Ok(Box::new(SimHandle {
            disk: self.clone(),
            inode,
            boot: state.boot,
            offset: 0,
            sync: Step::SyncFolder,
        }))
    }
}

/// An open file or folder, valid until the next restart.
struct SimHandle {
    disk: SimDisk,
    inode: InodeId,
    boot: u64,
    offset: usize,
    /// Step that its sync counts as.
    sync: Step,
}

impl SimHandle {
    /// Takes one step, and returns the state to do it in and the fault to do it with.
    fn step(&self, step: Step) -> io::Result<(MutexGuard<'_, State>, Option<SimFault>)> {
        let mut state = self.disk.lock();
        if state.boot != self.boot {
            return Err(Errno::BADF.into());
        }
        let fault = state.step(step)?;
        Ok((state, fault))
    }

    /// Takes one step that has no way to fail by half.
    fn plain_step(&self, step: Step) -> io::Result<MutexGuard<'_, State>> {
        let (state, fault) = self.step(step)?;
        state::refuse(fault)?;
        Ok(state)
    }

    fn rename(
        &self,
        from: &TemporaryName,
        to: &FileName,
        check: impl FnOnce(&state::FolderNode) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.plain_step(Step::Rename)?;
        state.writable()?;
        let folder = state.folder(self.inode)?;
        check(folder)?;
        let inode = folder.lookup(from.as_str())?;
        folder.change(Change::Move { from: from.as_str().to_owned(), to: to.as_str().to_owned(), inode });
        Ok(())
    }

    fn open(&self, inode: InodeId, sync: Step) -> Box<dyn DiskFile> {
        Box::new(Self { disk: self.disk.clone(), inode, boot: self.boot, offset: 0, sync })
    }
}

impl Folder for SimHandle {
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)> {
        let mut state = self.plain_step(Step::CreateTemporary)?;
        state.writable()?;
        let name = TemporaryName::numbered(state.next_number());
        let inode = state.add_file();
        state.folder(self.inode)?.change(Change::Add { name: name.as_str().to_owned(), inode });
        Ok((name, self.open(inode, Step::SyncTemporary)))
    }

    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.rename(from, to, |folder| {
            if folder.lookup(to.as_str()).is_ok() { Err(Errno::EXIST.into()) } else { Ok(()) }
        })
    }

    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.rename(from, to, |_| Ok(()))
    }

    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.plain_step(Step::OpenFile)?;
        let inode = state.folder(self.inode)?.lookup(name.as_str())?;
        Ok(self.open(inode, Step::SyncFile))
    }

    fn make_folder(&self, name: &FileName) -> io::Result<()> {
        let mut state = self.plain_step(Step::MakeFolder)?;
        state.writable()?;
        if state.folder(self.inode)?.lookup(name.as_str()).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let inode = state.add_folder();
        state.folder(self.inode)?.change(Change::Add { name: name.as_str().to_owned(), inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.plain_step(Step::Remove)?;
        state.writable()?;
        let inode = state.folder(self.inode)?.lookup(name)?;
        state.file(inode)?;
        state.folder(self.inode)?.change(Change::Remove { name: name.to_owned() });
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.plain_step(Step::ListFolder)?;
        state.entries(self.inode)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.step(self.sync)?;
        state.sync_folder(self.inode, fault)
    }
}

impl DiskFile for SimHandle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (mut state, fault) = self.step(Step::Write)?;
        let written = state.append(self.inode, bytes, fault)?;
        Ok(written)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = {
            let mut state = self.plain_step(Step::Read)?;
            state.file(self.inode)?.read(self.offset, into)
        };
        self.offset = self.offset.saturating_add(read);
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.step(self.sync)?;
        state.sync_file(self.inode, fault)
    }
}
