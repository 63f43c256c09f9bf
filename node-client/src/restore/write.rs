//! Files and links on disk. A name appears only when all that belongs to it is there.
//!
//! A file has no name at all until it is whole, where the file system can do that; else, and while it takes the
//! place of another, a temporary one that is locked.

mod name;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use format_spec::Entry;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, by_handle};
use super::direct;
use super::direct::{Gather, Handles, write_all};
use super::failed::{Obstacle, Why};
use super::folder::{Ending, FolderCache, FolderJob, Inode, Target};
use super::layout::TargetPath;
use crate::error::ClientError;

pub(super) use name::TemporaryNames;
use name::{Named, Place, Refused, lock};

/// Where and how everything is written.
pub(super) struct Writer {
    pub(super) target: Target,
    pub(super) attributes: Attributes,
    names: TemporaryNames,
    /// True while files without a name are believed to be possible.
    nameless: AtomicBool,
}

/// A file that is being restored. The last of its holders finishes it.
pub(super) struct FileJob {
    pub(super) at: TargetPath,
    pub(super) entry: Entry,
    pub(super) folder: Arc<FolderJob>,
    /// Bytes of its chunks; not set until the plan has checked the whole file.
    pub(super) data_len: OnceLock<u64>,
    /// Why it cannot be restored.
    failed: OnceLock<Why>,
    written: AtomicU64,
    temporary: Mutex<Option<Arc<Temporary>>>,
}

impl FileJob {
    /// A file without any content yet.
    pub(super) fn new(at: TargetPath, entry: Entry, folder: Arc<FolderJob>) -> Self {
        Self {
            at,
            entry,
            folder,
            data_len: OnceLock::new(),
            failed: OnceLock::new(),
            written: AtomicU64::new(0),
            temporary: Mutex::new(None),
        }
    }

    /// Gives it up. The first reason counts.
    pub(super) fn fail(&self, why: Why) {
        let _ = self.failed.set(why);
    }

    /// True if the work was abandoned.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }
}

/// A file whose last hold was given up.
pub(super) struct Ended {
    pub(super) at: TargetPath,
    pub(super) entry: Entry,
    pub(super) finished: Finished,
}

/// Outcome of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finished {
    /// It has its name.
    Restored(Inode),
    /// It was given up by the plan, which knows why; nothing of it is there.
    Abandoned,
    /// It cannot be restored; nothing of it is there.
    Failed(Why),
}

/// A file without its final name. What there is of it is removed when it is dropped.
struct Temporary {
    file: OwnedFd,
    inode: Inode,
    /// For large files, where the file system can.
    direct: Option<OwnedFd>,
    folder: Arc<OwnedFd>,
    /// Until the file has its own, where it needs one.
    named: Mutex<Option<Named>>,
}

impl Temporary {
    fn handles(&self) -> Option<Handles<'_>> {
        let direct = self.direct.as_ref()?;
        Some(Handles { cached: &self.file, direct })
    }
}

impl Writer {
    /// A writer into `target`.
    pub(super) fn new(target: Target, attributes: Attributes) -> Result<Self, ClientError> {
        let handles = rustix::fs::statat(rustix::fs::CWD, by_handle(target.handle()), AtFlags::empty());
        let nameless = AtomicBool::new(handles.is_ok());
        Ok(Self { target, attributes, names: TemporaryNames::new()?, nameless })
    }

    /// Writes checked bytes into a file, or gathers them: what is gathered is written out by
    /// [`flush`](Self::flush), or when the next bytes do not continue it.
    pub(super) fn write(
        &self,
        job: &FileJob,
        cache: &mut FolderCache,
        gather: &mut Gather,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Obstacle> {
        let temporary = self.temporary(job, cache)?;
        let written = match temporary.handles() {
            Some(handles) => gather.add(handles, offset, bytes),
            None => write_all(&temporary.file, bytes, offset),
        };
        written.map_err(|error| self.target.obstacle("write", job.at.as_bytes(), error))?;
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
    ) -> Result<(), Obstacle> {
        if job.entry.size < direct::FROM_LEN {
            return Ok(());
        }
        let temporary = self.temporary(job, cache)?;
        let flushed = temporary.handles().map_or(Ok(()), |handles| gather.flush(handles));
        flushed.map_err(|error| self.target.obstacle("write", job.at.as_bytes(), error))
    }

    /// Gives a file its attributes and its name, or removes what is there of one that was given up.
    ///
    /// # Errors
    /// Only those that end the restore.
    pub(super) fn finish(&self, job: FileJob, cache: &mut FolderCache) -> Result<Ended, ClientError> {
        let written = job.written.load(Ordering::Relaxed);
        let finished = match (job.failed.get(), job.data_len.get()) {
            (Some(why), _) => Finished::Failed(why.clone()),
            (None, Some(data_len)) if *data_len == written => match self.publish(&job, cache) {
                Ok(inode) => Finished::Restored(inode),
                Err(Obstacle::Name(why)) => Finished::Failed(why),
                Err(Obstacle::All(error)) => return Err(error),
            },
            // Given up by the plan, or by the failure of another thread that holds its rest.
            _ => Finished::Abandoned,
        };
        let FileJob { at, entry, folder, temporary, .. } = job;
        drop(temporary);
        self.release(folder)?;
        Ok(Ended { at, entry, finished })
    }

    fn publish(&self, job: &FileJob, cache: &mut FolderCache) -> Result<Inode, Obstacle> {
        let temporary = self.temporary(job, cache)?;
        if job.data_len.get() != Some(&job.entry.size) {
            self.set_len(job, &temporary.file)?;
        }
        self.attributes.apply(temporary.file.as_fd(), &job.entry);
        let (_, name) = job.at.split();
        let place = self.place(&temporary.folder, name, &job.folder);
        let inode = temporary.inode;
        let named = temporary.named.lock().unwrap_or_else(PoisonError::into_inner).take();
        let published = match named {
            Some(named) => place.rename(named, inode),
            None => place.link(&temporary.file, inode, &self.names),
        };
        published.map_err(|refused| self.refusal("give it its name", &job.at, refused))?;
        Ok(inode)
    }

    fn place<'a>(&self, folder: &'a Arc<OwnedFd>, name: &'a [u8], job: &'a FolderJob) -> Place<'a> {
        Place { folder, name, before: job.names_before(), existing: self.target.existing }
    }

    fn refusal(&self, action: &'static str, at: &TargetPath, refused: Refused) -> Obstacle {
        refused.obstacle(|error| self.target.obstacle(action, at.as_bytes(), error.into()))
    }

    /// The file behind `job`, made by the first who needs it.
    fn temporary(&self, job: &FileJob, cache: &mut FolderCache) -> Result<Arc<Temporary>, Obstacle> {
        let mut slot = job.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(temporary) = &*slot {
            return Ok(Arc::clone(temporary));
        }
        let obstacle = |error: Errno| self.target.obstacle("create", job.at.as_bytes(), error.into());
        let folder = cache.of(&self.target, job.at.split().0)?;
        let (file, named) = self.create(&folder).map_err(obstacle)?;
        let inode = Inode::of_file(&file).map_err(obstacle)?;
        let direct = self.open_direct(job, &file)?;
        let temporary = Arc::new(Temporary { file, inode, direct, folder, named: Mutex::new(named) });
        *slot = Some(Arc::clone(&temporary));
        Ok(temporary)
    }

    /// Makes an empty file: without a name where that can be had, else with a temporary one.
    fn create(&self, folder: &Arc<OwnedFd>) -> Result<(OwnedFd, Option<Named>), Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        if self.nameless.load(Ordering::Relaxed) {
            let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
            match rustix::fs::openat(&**folder, ".", flags, mode) {
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                    self.nameless.store(false, Ordering::Relaxed);
                }
                made => return made.map(|file| (file, None)),
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let named = Named::new(folder, self.names.next());
            let file = rustix::fs::openat(&**folder, named.name(), flags, mode)?;
            lock(file.as_fd());
            // Before it was locked, another restore may have taken it for a leftover.
            if rustix::fs::fstat(&file)?.st_nlink > 0 {
                return Ok((file, Some(named)));
            }
        }
    }

    /// A handle that writes past the page cache, for a large file. The file has its length from the
    /// start then: writes that make a file longer wait for each other.
    fn open_direct(&self, job: &FileJob, file: &OwnedFd) -> Result<Option<OwnedFd>, Obstacle> {
        let is_large = job.entry.size >= direct::FROM_LEN;
        let Some(direct) = is_large.then(|| direct::open(file)).flatten() else { return Ok(None) };
        self.set_len(job, file)?;
        Ok(Some(direct))
    }

    fn set_len(&self, job: &FileJob, file: &OwnedFd) -> Result<(), Obstacle> {
        let obstacle = |error: Errno| self.target.obstacle("set its length", job.at.as_bytes(), error.into());
        rustix::fs::ftruncate(file, job.entry.size).map_err(obstacle)
    }

    /// Gives up a hold on a folder. The last one sets its attributes, and continues with its parent.
    ///
    /// # Errors
    /// Only those that end the restore.
    pub(super) fn release(&self, folder: Arc<FolderJob>) -> Result<(), ClientError> {
        let mut next = Some(folder);
        while let Some(job) = next.take().and_then(Arc::into_inner) {
            match self.end(&job) {
                Ok(()) => {}
                Err(Obstacle::All(error)) => return Err(error),
                Err(Obstacle::Name(why)) => {
                    if let Ending::Pushed(entry) = &job.ending {
                        self.attributes.notes.add_all(entry, format!("its attributes were not set: {why}"));
                    }
                }
            }
            next = job.parent;
        }
        Ok(())
    }

    fn end(&self, job: &FolderJob) -> Result<(), Obstacle> {
        if matches!(job.ending, Ending::Bare) {
            return Ok(());
        }
        let handle = self.target.folder_itself(job.at.as_bytes())?;
        // A user who may rename folders there could swap the file.
        if Inode::of_file(&handle) != Ok(job.inode) {
            return Err(Refused::Swapped.obstacle(|error| self.target.obstacle("look", &[], error.into())));
        }
        match &job.ending {
            Ending::Pushed(entry) => self.attributes.apply(handle.as_fd(), entry),
            Ending::Kept(was) => was.put_back(handle.as_fd()),
            Ending::Bare => {}
        }
        Ok(())
    }

    /// Waits until everything is on stable storage.
    pub(super) fn sync(&self) -> Result<(), ClientError> {
        rustix::fs::syncfs(self.target.handle()).map_err(|error| self.target.error("sync", &[], error.into()))
    }

    /// Makes a symbolic link with its attributes.
    pub(super) fn symlink(
        &self,
        at: &TargetPath,
        entry: &Entry,
        in_folder: &FolderJob,
        cache: &mut FolderCache,
    ) -> Result<(), Obstacle> {
        let obstacle = |error: Errno| self.target.obstacle("make a link", at.as_bytes(), error.into());
        let (folder, name) = at.split();
        let folder = cache.of(&self.target, folder)?;
        let to = entry.target.as_deref().unwrap_or_default();
        let temporary = self.names.next();
        rustix::fs::symlinkat(to, &*folder, &*temporary).map_err(obstacle)?;
        let temporary = Named::new(&folder, temporary);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat(&*folder, temporary.name(), flags, Mode::empty()).map_err(obstacle)?;
        let made = rustix::fs::readlinkat(&link, "", Vec::new()).map_err(obstacle)?;
        if made.as_bytes() != to {
            return Err(self.refusal("make a link", at, Refused::Swapped));
        }
        self.attributes.apply_to_link(link.as_fd(), entry);
        let inode = Inode::of_file(&link).map_err(obstacle)?;
        let renamed = self.place(&folder, name, in_folder).rename(temporary, inode);
        renamed.map_err(|refused| self.refusal("make a link", at, refused))
    }

    /// Makes `at` one more name of `inode`, which this restore put at `leader`.
    pub(super) fn hard_link(
        &self,
        at: &TargetPath,
        leader: (&TargetPath, Inode),
        in_folder: &FolderJob,
        cache: &mut FolderCache,
    ) -> Result<(), Obstacle> {
        let obstacle = |error: Errno| self.target.obstacle("make a hard link", at.as_bytes(), error.into());
        let (leader, inode) = leader;
        let (leader_folder, leader_name) = leader.split();
        let from = self.target.folder(leader_folder)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&from, leader_name, flags, Mode::empty()).map_err(obstacle)?;
        if Inode::of_file(&file).map_err(obstacle)? != inode {
            return Err(self.refusal("make a hard link", at, Refused::Swapped));
        }
        let (folder, name) = at.split();
        let folder = cache.of(&self.target, folder)?;
        let linked = self.place(&folder, name, in_folder).link(&file, inode, &self.names);
        linked.map_err(|refused| self.refusal("make a hard link", at, refused))
    }
}

#[cfg(test)]
#[path = "write/tests.rs"]
mod tests;
