//! Runs the steps of a plan, on the thread that plans. The content of an unusable folder is skipped, and each
//! name of it is recorded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Sender, bounded};
use format_spec::{ChunkId, Entry, EntryPath};

use super::batch::Batcher;
use super::compare::{Compare, Old};
use super::failed::{Obstacle, Why};
use super::folder::{Choice, FolderCache, FolderJob};
use super::layout::TargetPath;
use super::mixed::Mixed;
use super::plan::{Lost, Step};
use super::work::{FileBatch, Later, LinkJob, Task, Work};
use super::write::FileJob;
use crate::error::ClientError;

/// Threads that fetch, check and write: while one waits for the server another computes, and a
/// third is in the kernel.
const WORKERS: usize = 4;
/// Tasks that wait for a worker.
const QUEUE: usize = 4;

/// A folder of the manifest.
#[derive(Clone)]
enum Spot {
    /// It is there.
    Made(Arc<FolderJob>),
    /// It cannot be had, nor anything in it.
    Missing(Why),
}

/// The file whose chunks come.
enum Current {
    /// None, or one whose chunks the batcher gathers.
    Batched,
    /// One that may be in the target already.
    Compared(Compare),
    /// One that cannot be restored.
    PassedOver,
}

/// Takes the steps.
pub(super) struct Executor<'w, 'a> {
    work: &'w Work<'a>,
    tasks: Sender<Task>,
    batcher: Batcher<Arc<FileJob>>,
    current: Current,
    cache: FolderCache,
    folders: Vec<Spot>,
    /// The target itself, for names in no folder of the manifest.
    target: Arc<FolderJob>,
    later: Later,
    /// Folders of names whose content comes in a second pass.
    owed: HashMap<TargetPath, Spot>,
    skipped: Vec<EntryPath>,
    mixed: Mixed,
}

impl<'a> Work<'a> {
    /// Runs what `plan` hands to the executor, and then all that had to wait for files. What fails for one name
    /// only is in `failures`.
    ///
    /// # Errors
    /// The first failure of any thread that ends all. Whole files are kept, with the attributes of the
    /// folders around them; no temporary name is left then.
    pub(super) fn run(
        &self,
        top: FolderJob,
        plan: impl FnOnce(&mut Executor<'_, 'a>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let top = Arc::new(top);
        let later = std::thread::scope(|scope| {
            let (sender, receiver) = bounded(QUEUE);
            for _ in 0..WORKERS {
                let receiver = receiver.clone();
                scope.spawn(move || self.worker(&receiver));
            }
            // Only workers hold it from here on: when they have ended, sending fails.
            drop(receiver);
            let mut executor = Executor::new(self, Arc::clone(&top), sender);
            let planned = plan(&mut executor).and_then(|()| executor.flush());
            if let Err(error) = planned {
                self.fail(error);
            }
            executor.into_later()
        });
        let finished = self.finish(later).and_then(|()| self.writer.release(top));
        if let Err(error) = finished {
            self.fail(error);
        }
        self.report();
        self.take_failure().map_or(Ok(()), Err)
    }
}

impl<'w, 'a> Executor<'w, 'a> {
    /// An executor that has done nothing.
    pub(super) fn new(work: &'w Work<'a>, target: Arc<FolderJob>, tasks: Sender<Task>) -> Self {
        Self {
            work,
            tasks,
            batcher: Batcher::new(),
            current: Current::Batched,
            cache: FolderCache::default(),
            folders: Vec::new(),
            target,
            later: Later::default(),
            owed: HashMap::new(),
            skipped: Vec::new(),
            mixed: Mixed::default(),
        }
    }

    /// Runs the next step.
    ///
    /// # Errors
    /// The error that ends the restore.
    pub(super) fn step(&mut self, step: Step) -> Result<(), ClientError> {
        match step {
            Step::EnterFolder { at, path, entry } => self.enter(at, &path, entry),
            Step::LeaveFolder => match self.folders.pop() {
                Some(Spot::Made(folder)) => self.work.writer.release(folder),
                Some(Spot::Missing(_)) | None => Ok(()),
            },
            Step::Symlink { at, entry } => self.symlink(&at, &entry),
            Step::BeginFile { at, entry } => self.begin(at, entry),
            Step::Chunk { offset, id, len } => self.chunk(offset, id, len),
            Step::EndFile { data_len } => self.end_file(Some(data_len)),
            Step::AbandonFile => self.end_file(None),
            Step::Skip { path } => {
                self.skipped.push(path);
                Ok(())
            }
            Step::Lose { path, lost } => {
                let why = match lost {
                    Lost::Content => "a page with its list of chunks is damaged",
                    Lost::Leader => "a page that names the file that it is a link of is damaged",
                };
                self.work.failures.add(&path, Why::damaged(why));
                Ok(())
            }
            Step::Mark { path, mixture } => {
                self.mixed.add(path, mixture);
                Ok(())
            }
            Step::Link { at, path, leader } => {
                match self.spot() {
                    Spot::Made(folder) => self.later.links.push(LinkJob { at, path, leader, folder }),
                    Spot::Missing(why) => self.work.failures.add(&path, why.of_content()),
                }
                Ok(())
            }
            Step::Owe { at, .. } => {
                let spot = self.spot();
                self.owed.insert(at, spot);
                Ok(())
            }
        }
    }

    /// The names that were skipped because their content was unreadable.
    pub(super) fn take_skipped(&mut self) -> Vec<EntryPath> {
        std::mem::take(&mut self.skipped)
    }

    /// The names whose content is a mixture of states.
    pub(super) fn take_mixed(&mut self) -> Mixed {
        std::mem::take(&mut self.mixed)
    }

    /// Remaining work when all steps are done, or an error has ended the restore.
    pub(super) fn into_later(self) -> Later {
        let Self { mut later, folders, owed, .. } = self;
        let unfinished = folders.into_iter().rev().chain(owed.into_values());
        later.folders.extend(unfinished.filter_map(|spot| match spot {
            Spot::Made(folder) => Some(folder),
            Spot::Missing(_) => None,
        }));
        later
    }

    /// Hands over what the batcher has.
    pub(super) fn flush(&mut self) -> Result<(), ClientError> {
        let rest = self.batcher.finish();
        self.send_batch(rest)
    }

    /// The folder that was entered last.
    fn spot(&self) -> Spot {
        self.folders.last().cloned().unwrap_or_else(|| Spot::Made(Arc::clone(&self.target)))
    }

    /// Remembers that a name failed, unless everything has.
    fn failed(&self, path: &EntryPath, obstacle: Obstacle) -> Result<Why, ClientError> {
        match obstacle {
            Obstacle::All(error) => Err(error),
            Obstacle::Name(why) => {
                self.work.failures.add(path, why.clone());
                Ok(why)
            }
        }
    }

    fn enter(
        &mut self,
        at: TargetPath,
        path: &EntryPath,
        entry: Option<(Entry, Choice)>,
    ) -> Result<(), ClientError> {
        let is_known = entry.is_some();
        if let Some((entry, _)) = entry.as_ref().filter(|_| at.is_target()) {
            self.note_kept_target(entry);
        }
        let made = match self.spot() {
            Spot::Made(parent) => self.work.writer.target.make_folder(at, entry, &parent, &mut self.cache),
            Spot::Missing(why) => Err(Obstacle::Name(why.of_content())),
        };
        let spot = match made {
            Ok(folder) => {
                self.work.tally.folders.fetch_add(u64::from(is_known), Ordering::Relaxed);
                Spot::Made(Arc::new(folder))
            }
            Err(obstacle) => Spot::Missing(self.failed(path, obstacle)?),
        };
        self.folders.push(spot);
        Ok(())
    }

    /// A target that was there before keeps what it had, also as the root that is stripped.
    fn note_kept_target(&self, entry: &Entry) {
        let writer = &self.work.writer;
        let Some(was) = writer.target.was() else { return };
        let mode = was.st_mode & 0o7777;
        if (mode, was.st_uid, was.st_gid) != (entry.mode, entry.uid, entry.gid) {
            let kept = format!("the target folder existed and keeps mode {mode:o} and owner {}", was.st_uid);
            let pushed = format!("pushed as {:o} and {}:{}", entry.mode, entry.uid, entry.gid);
            writer.attributes.notes.say(entry, format!("{kept}:{}; it was {pushed}", was.st_gid));
        }
    }

    fn symlink(&mut self, at: &TargetPath, entry: &Entry) -> Result<(), ClientError> {
        let made = match self.spot() {
            Spot::Made(folder) => self.work.writer.symlink(at, entry, &folder, &mut self.cache),
            Spot::Missing(why) => Err(Obstacle::Name(why.of_content())),
        };
        match made {
            Ok(()) => drop(self.work.tally.symlinks.fetch_add(1, Ordering::Relaxed)),
            Err(obstacle) => drop(self.failed(&entry.path, obstacle)?),
        }
        Ok(())
    }

    fn begin(&mut self, at: TargetPath, entry: Entry) -> Result<(), ClientError> {
        let owed = self.owed.get(&at).cloned();
        let folder = match owed.unwrap_or_else(|| self.spot()) {
            Spot::Made(folder) => folder,
            Spot::Missing(why) => {
                let why = self.failed(&entry.path, Obstacle::Name(why.of_content()))?;
                if entry.link_group.is_some() {
                    self.work.leads(at, Err(why));
                }
                self.current = Current::PassedOver;
                return Ok(());
            }
        };
        if entry.link_group.is_some() {
            self.later.folders.push(Arc::clone(&folder));
        }
        let old = Old::find(&self.work.writer.target, &at, &entry, &folder, &mut self.cache);
        let job = Arc::new(FileJob::new(at, entry, folder));
        self.current = match old {
            Some(old) => Current::Compared(Compare { job, old, extents: Vec::new() }),
            None => {
                self.batcher.begin(job);
                Current::Batched
            }
        };
        Ok(())
    }

    fn chunk(&mut self, offset: u64, id: ChunkId, len: u32) -> Result<(), ClientError> {
        match &mut self.current {
            Current::PassedOver => Ok(()),
            Current::Batched => {
                let full = self.batcher.chunk(offset, id, len);
                self.send_batch(full)
            }
            Current::Compared(compare) => {
                compare.extents.push((offset, id, len));
                if compare.is_too_long() { self.give_up_comparing() } else { Ok(()) }
            }
        }
    }

    /// The file has more chunks than are kept in memory: it is fetched.
    fn give_up_comparing(&mut self) -> Result<(), ClientError> {
        if let Current::Compared(Compare { job, extents, .. }) =
            std::mem::replace(&mut self.current, Current::Batched)
        {
            self.batcher.begin(job);
            for (offset, id, len) in extents {
                let full = self.batcher.chunk(offset, id, len);
                self.send_batch(full)?;
            }
        }
        Ok(())
    }

    /// All chunks of the file came, and its digest fits; or it is given up.
    fn end_file(&mut self, data_len: Option<u64>) -> Result<(), ClientError> {
        let set = |job: &FileJob| data_len.map(|data_len| job.data_len.get_or_init(|| data_len)).is_some();
        match std::mem::replace(&mut self.current, Current::Batched) {
            Current::PassedOver => Ok(()),
            Current::Batched => {
                let _ = self.batcher.file().map(|job| set(job));
                let full = self.batcher.end();
                self.send_batch(full)
            }
            Current::Compared(compare) => match set(&compare.job) {
                true => self.send(Task::Compare(compare)),
                false => match Arc::into_inner(compare.job) {
                    Some(job) => self.work.writer.release(job.folder),
                    None => Ok(()),
                },
            },
        }
    }

    fn send_batch(&mut self, batch: Option<FileBatch>) -> Result<(), ClientError> {
        batch.map_or(Ok(()), |batch| self.send(Task::Fetch(batch)))
    }

    /// Hands a task to the workers. If they stopped, one of them knows why.
    fn send(&mut self, task: Task) -> Result<(), ClientError> {
        let stopped = ClientError::Worker("restore");
        if self.work.has_stopped() || self.tasks.send(task).is_err() {
            return Err(stopped);
        }
        Ok(())
    }
}
