//! Files and links on disk. A name appears only when all that belongs to it is there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use format_spec::Entry;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::direct::{self, Gather, Handles};
use super::folder::{Existing, FolderCache, Target};
use super::layout::TargetPath;
use crate::error::ClientError;

/// What the names of unfinished files start with.
pub(super) const TEMPORARY: &str = ".astacus-tmp-";

/// Makes names that nothing else has: a random number for the run, and a count.
pub(super) struct TemporaryNames {
    run: u64,
    next: AtomicU64,
}

impl TemporaryNames {
    /// The names of a new run.
    pub(super) fn new() -> Result<Self, ClientError> {
        let no_random = |_| ClientError::Worker("the system gives no random numbers");
        Ok(Self { run: getrandom::u64().map_err(no_random)?, next: AtomicU64::new(0) })
    }

    fn next(&self) -> String {
        format!("{TEMPORARY}{:016x}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where and how everything is written.
pub(super) struct Writer {
    pub(super) target: Target,
    pub(super) attributes: Attributes,
    pub(super) names: TemporaryNames,
}

/// A folder that still gets files. Its attributes are set when the last thing in it is done,
/// because a read-only folder takes no files and every new name changes its time.
pub(super) struct FolderJob {
    pub(super) at: TargetPath,
    pub(super) entry: Option<Entry>,
    pub(super) parent: Option<Arc<FolderJob>>,
}

/// A file that is being restored. The last of its holders finishes it.
pub(super) struct FileJob {
    pub(super) at: TargetPath,
    pub(super) entry: Entry,
    pub(super) folder: Arc<FolderJob>,
    /// Bytes of its chunks; not set until the plan has checked the whole file.
    pub(super) data_len: OnceLock<u64>,
    written: AtomicU64,
    temporary: Mutex<Option<Arc<Temporary>>>,
}

impl FileJob {
    /// A file of which nothing is there yet.
    pub(super) fn new(at: TargetPath, entry: Entry, folder: Arc<FolderJob>) -> Self {
        Self {
            at,
            entry,
            folder,
            data_len: OnceLock::new(),
            written: AtomicU64::new(0),
            temporary: Mutex::new(None),
        }
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finished {
    /// It has its name.
    Restored,
    /// It was given up before; nothing of it is there.
    Abandoned,
}

/// A file without its final name, removed when it is dropped.
struct Temporary {
    file: OwnedFd,
    /// For large files, where the file system can.
    direct: Option<OwnedFd>,
    folder: Arc<OwnedFd>,
    name: String,
    /// Set once the name is gone, or belongs to the finished file.
    done: OnceLock<()>,
}

impl Temporary {
    fn handles(&self) -> Option<Handles<'_>> {
        let direct = self.direct.as_ref()?;
        Some(Handles { cached: &self.file, direct })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.done.get().is_none() {
            // Nothing to do about a failure here: the restore has failed already, and says why.
            let _ = rustix::fs::unlinkat(&*self.folder, &*self.name, AtFlags::empty());
        }
    }
}

/// Does something with a name in a folder.
type OnName<'a> = &'a dyn Fn(&OwnedFd, &[u8]) -> Result<(), Errno>;

impl Writer {
    /// Writes checked bytes into a file, or gathers them: what is gathered is written out by
    /// [`flush`](Self::flush), or when the next bytes do not continue it.
    pub(super) fn write(
        &self,
        job: &FileJob,
        cache: &mut FolderCache,
        gather: &mut Gather,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), ClientError> {
        let temporary = self.temporary(job, cache)?;
        let written = match temporary.handles() {
            Some(handles) => gather.add(handles, offset, bytes),
            None => write_all(&temporary.file, bytes, offset),
        };
        written.map_err(|error| self.target.disk("write", &job.at, error))?;
        let len = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        job.written.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Writes out what was gathered for a file. To be called before the file is put down.
    pub(super) fn flush(
        &self,
        job: &FileJob,
        cache: &mut FolderCache,
        gather: &mut Gather,
    ) -> Result<(), ClientError> {
        if job.entry.size < direct::FROM_LEN {
            return Ok(());
        }
        match self.temporary(job, cache)?.handles() {
            Some(handles) => gather.flush(handles).map_err(|error| self.target.disk("write", &job.at, error)),
            None => Ok(()),
        }
    }

    /// Gives a file its attributes and its name, or removes what is there of one that was given up.
    pub(super) fn finish(&self, job: FileJob, cache: &mut FolderCache) -> Result<Finished, ClientError> {
        let written = job.written.load(Ordering::Relaxed);
        let done = match job.data_len.get() {
            Some(data_len) if *data_len == written => {
                self.publish(&job, cache)?;
                Finished::Restored
            }
            // Given up by the plan, or by the failure of another thread that holds its rest.
            _ => Finished::Abandoned,
        };
        let FileJob { folder, temporary, .. } = job;
        drop(temporary);
        self.release(folder)?;
        Ok(done)
    }

    fn publish(&self, job: &FileJob, cache: &mut FolderCache) -> Result<(), ClientError> {
        let disk = |action| move |error: Errno| self.target.disk(action, &job.at, error.into());
        let temporary = self.temporary(job, cache)?;
        if job.data_len.get() != Some(&job.entry.size) {
            rustix::fs::ftruncate(&temporary.file, job.entry.size).map_err(disk("set the length of"))?;
        }
        self.attributes.apply(temporary.file.as_fd(), &job.entry).map_err(disk("set attributes of"))?;
        let (_, name) = job.at.split();
        let folder = &*temporary.folder;
        rustix::fs::renameat(folder, &*temporary.name, folder, name).map_err(disk("rename to"))?;
        let _ = temporary.done.set(());
        Ok(())
    }

    /// The file behind `job`, made by the first who needs it.
    fn temporary(&self, job: &FileJob, cache: &mut FolderCache) -> Result<Arc<Temporary>, ClientError> {
        let mut slot = job.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(temporary) = &*slot {
            return Ok(Arc::clone(temporary));
        }
        let folder = cache.of(&self.target, job.at.split().0)?;
        let name = self.names.next();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*folder, &*name, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|error| self.target.disk("create", &job.at, error.into()))?;
        let direct = self.open_direct(job, &folder, &name, &file)?;
        let temporary = Arc::new(Temporary { file, direct, folder, name, done: OnceLock::new() });
        *slot = Some(Arc::clone(&temporary));
        Ok(temporary)
    }

    /// A handle that writes past the page cache, for a large file. The file has its length from the
    /// start then: writes that make a file longer wait for each other.
    fn open_direct(
        &self,
        job: &FileJob,
        folder: &OwnedFd,
        name: &str,
        file: &OwnedFd,
    ) -> Result<Option<OwnedFd>, ClientError> {
        let size = job.entry.size;
        let Some(direct) = (size >= direct::FROM_LEN).then(|| direct::open(folder, name)).flatten() else {
            return Ok(None);
        };
        let disk = |error: Errno| self.target.disk("set the length of", &job.at, error.into());
        rustix::fs::ftruncate(file, size).map_err(disk)?;
        Ok(Some(direct))
    }

    /// Gives up a hold on a folder. The last one sets its attributes, and goes on with its parent.
    pub(super) fn release(&self, folder: Arc<FolderJob>) -> Result<(), ClientError> {
        let mut next = Some(folder);
        while let Some(job) = next.take().and_then(Arc::into_inner) {
            if let Some(entry) = &job.entry {
                let disk = |error: Errno| self.target.disk("set attributes of", &job.at, error.into());
                let handle = self.target.folder_itself(job.at.as_bytes())?;
                self.attributes.apply(handle.as_fd(), entry).map_err(disk)?;
            }
            next = job.parent;
        }
        Ok(())
    }

    /// Waits until everything is on stable storage.
    pub(super) fn sync(&self) -> Result<(), ClientError> {
        let disk = |error: Errno| self.target.disk("sync", &TargetPath::default(), error.into());
        rustix::fs::syncfs(self.target.handle()).map_err(disk)
    }

    /// Makes a symbolic link with its attributes.
    pub(super) fn symlink(
        &self,
        at: &TargetPath,
        entry: &Entry,
        cache: &mut FolderCache,
    ) -> Result<(), ClientError> {
        let to = entry.target.as_deref().unwrap_or_default();
        let attributes = |folder: &OwnedFd, name: &[u8]| self.attributes.apply_to_link(folder, name, entry);
        self.make(at, cache, "link", &attributes, &|folder, name| rustix::fs::symlinkat(to, folder, name))
    }

    /// Makes `at` one more name of the file at `leader`.
    pub(super) fn hard_link(
        &self,
        at: &TargetPath,
        leader: &TargetPath,
        cache: &mut FolderCache,
    ) -> Result<(), ClientError> {
        let (leader_folder, leader_name) = leader.split();
        let from = self.target.folder(leader_folder)?;
        self.make(at, cache, "hard-link", &|_, _| Ok(()), &|folder, name| {
            rustix::fs::linkat(&from, leader_name, folder, name, AtFlags::empty())
        })
    }

    /// Makes a name with `create`, over what has that name if that may be.
    fn make(
        &self,
        at: &TargetPath,
        cache: &mut FolderCache,
        action: &'static str,
        complete: OnName<'_>,
        create: OnName<'_>,
    ) -> Result<(), ClientError> {
        let (folder, name) = at.split();
        let folder = cache.of(&self.target, folder)?;
        let made = match create(&folder, name) {
            Err(Errno::EXIST) if self.target.existing == Existing::Replace => {
                let temporary = self.names.next();
                let replaced = create(&folder, temporary.as_bytes())
                    .and_then(|()| complete(&folder, temporary.as_bytes()))
                    .and_then(|()| rustix::fs::renameat(&*folder, &*temporary, &*folder, name));
                // Also after success: renaming one of two names of a file to the other does nothing.
                let _ = rustix::fs::unlinkat(&*folder, &*temporary, AtFlags::empty());
                replaced
            }
            made => made.and_then(|()| complete(&folder, name)),
        };
        made.map_err(|error| self.target.disk(action, at, error.into()))
    }
}

pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += u64::try_from(written).expect("a length fits in 64 bits");
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "write/tests.rs"]
mod tests;
