//! Runs the steps of a plan: folders and links at once, files through threads that fetch, check and
//! write while the plan goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use format_spec::key::DomainKey;
use format_spec::wire::Frame;
use format_spec::{Entry, EntryPath};

use super::batch::{Batch, Batcher, Piece};
use super::direct::Gather;
use super::fetch::{Fetcher, Opener, Plaintexts, is_about_blobs};
use super::folder::FolderCache;
use super::layout::TargetPath;
use super::plan::Step;
use super::report::Mixed;
use super::write::{FileJob, Finished, FolderJob, Writer};
use super::{OnProgress, Progress};
use crate::error::ClientError;

/// Threads that fetch, check and write: while one waits for the server another computes, and a
/// third is in the kernel.
const WORKERS: usize = 4;
/// Batches that wait for a worker.
const QUEUE: usize = 4;

type FileBatch = Batch<Arc<FileJob>>;

/// What was done so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) files: AtomicU64,
    pub(super) folders: AtomicU64,
    pub(super) symlinks: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) bytes_fetched: AtomicU64,
}

/// What all threads of a restore share.
pub(super) struct Work<'a> {
    pub(super) fetcher: Fetcher<'a>,
    pub(super) domain: &'a DomainKey,
    pub(super) writer: Writer,
    pub(super) tally: Tally,
    pub(super) total: Progress,
    pub(super) progress: OnProgress<'a>,
    stop: AtomicBool,
    failure: Mutex<Option<ClientError>>,
}

impl<'a> Work<'a> {
    /// The work of one restore, before anything is done.
    pub(super) fn new(
        fetcher: Fetcher<'a>,
        domain: &'a DomainKey,
        writer: Writer,
        total: Progress,
        progress: OnProgress<'a>,
    ) -> Self {
        Self {
            fetcher,
            domain,
            writer,
            tally: Tally::default(),
            total,
            progress,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Runs what `plan` hands to the executor, and then all that had to wait for files.
    ///
    /// # Errors
    /// The first failure of any thread. No temporary name is left then.
    pub(super) fn run(
        &self,
        plan: impl FnOnce(&mut Executor<'_, 'a>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let later = std::thread::scope(|scope| {
            let (sender, receiver) = bounded(QUEUE);
            for _ in 0..WORKERS {
                let receiver = receiver.clone();
                scope.spawn(move || self.worker(&receiver));
            }
            // Only workers hold it from here on: when they are gone, sending fails.
            drop(receiver);
            let mut executor = Executor::new(self, sender);
            let planned = plan(&mut executor).and_then(|()| executor.flush());
            if let Err(error) = planned {
                self.fail(error);
            }
            executor.later
        });
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        self.finish(later)
    }

    fn worker(&self, batches: &Receiver<FileBatch>) {
        let worked = Opener::new(self.domain).and_then(|mut opener| {
            let (mut cache, mut gather) = (FolderCache::default(), Gather::new());
            batches.iter().try_for_each(|batch| self.batch(batch, &mut opener, &mut cache, &mut gather))
        });
        if let Err(error) = worked {
            self.fail(error);
        }
    }

    fn fail(&self, error: ClientError) {
        // The reason first: whoever sees the switch may add a lesser one.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::SeqCst);
    }

    fn batch(
        &self,
        batch: FileBatch,
        opener: &mut Opener<'_>,
        cache: &mut FolderCache,
        gather: &mut Gather,
    ) -> Result<(), ClientError> {
        if self.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        let frames = self.fetch(&batch)?;
        let fetched = frames.iter().map(|frame| u64::try_from(frame.payload.len()).unwrap_or(0)).sum();
        self.tally.bytes_fetched.fetch_add(fetched, Ordering::Relaxed);
        let frames = frames.into_iter().map(Some).collect();
        let Batch { uses, pieces, ids } = batch;
        let mut plaintexts = Plaintexts::new(opener, frames, uses);
        for Piece { file, extents } in pieces {
            for placed in &extents {
                let damaged = || {
                    let id = ids.get(placed.slot).copied().expect("the batch knows its own slots");
                    ClientError::Corrupt { id, path: file.entry.path.to_string() }
                };
                let plain = plaintexts.of(placed).and_then(Result::ok).ok_or_else(damaged)?;
                self.writer.write(&file, cache, gather, placed.offset, plain)?;
                self.tally.bytes.fetch_add(placed.len.into(), Ordering::Relaxed);
            }
            if !extents.is_empty() {
                self.writer.flush(&file, cache, gather)?;
            }
            self.put_down(file, cache)?;
        }
        self.report();
        Ok(())
    }

    /// The frames of a batch. If the server cannot give them, the error names a chunk and a file.
    fn fetch(&self, batch: &FileBatch) -> Result<Vec<Frame>, ClientError> {
        let error = match self.fetcher.frames(&batch.ids) {
            Err(error) if is_about_blobs(&error) => error,
            done => return done,
        };
        let mut frames = Vec::with_capacity(batch.ids.len());
        for (slot, frame) in self.fetcher.each_frame(&batch.ids)?.into_iter().enumerate() {
            match (frame, batch.ids.get(slot), batch.user_of(slot)) {
                (Ok(frame), ..) => frames.push(frame),
                (Err(cause), Some(id), Some(file)) => {
                    let cause: &dyn std::error::Error = &cause;
                    tracing::debug!(cause, chunk = %id, "the server cannot give a chunk");
                    return Err(ClientError::Corrupt { id: *id, path: file.entry.path.to_string() });
                }
                _ => return Err(error),
            }
        }
        Ok(frames)
    }

    /// Gives up a hold on a file, and finishes the file if it was the last.
    fn put_down(&self, file: Arc<FileJob>, cache: &mut FolderCache) -> Result<(), ClientError> {
        let Some(job) = Arc::into_inner(file) else { return Ok(()) };
        let (size, data_len) = (job.entry.size, job.data_len.get().copied().unwrap_or(0));
        if self.writer.finish(job, cache)? == Finished::Restored {
            self.tally.files.fetch_add(1, Ordering::Relaxed);
            self.tally.bytes.fetch_add(size.saturating_sub(data_len), Ordering::Relaxed);
        }
        Ok(())
    }

    fn report(&self) {
        (self.progress)(Progress {
            files: self.tally.files.load(Ordering::Relaxed),
            bytes: self.tally.bytes.load(Ordering::Relaxed),
            ..self.total
        });
    }

    /// Makes hard links and lets go of folders, now that every file has its name.
    fn finish(&self, later: Later) -> Result<(), ClientError> {
        let mut cache = FolderCache::default();
        for link in later.links {
            self.writer.hard_link(&link.at, &link.leader, &mut cache)?;
            self.tally.files.fetch_add(1, Ordering::Relaxed);
            self.writer.release(link.folder)?;
        }
        for folder in later.leaders.into_iter().chain(later.owed.into_values()) {
            self.writer.release(folder)?;
        }
        self.report();
        Ok(())
    }
}

/// A hard link that is made once all files are there.
struct LinkJob {
    at: TargetPath,
    leader: TargetPath,
    folder: Arc<FolderJob>,
}

/// What has to wait for files.
#[derive(Default)]
struct Later {
    links: Vec<LinkJob>,
    /// Folders with a first name of a link group: they stay open, for links are made from there.
    leaders: Vec<Arc<FolderJob>>,
    /// Folders of names whose content comes in a second pass.
    owed: HashMap<TargetPath, Arc<FolderJob>>,
}

/// Takes the steps of a plan, on the thread that plans.
pub(super) struct Executor<'w, 'a> {
    work: &'w Work<'a>,
    batches: Sender<FileBatch>,
    batcher: Batcher<Arc<FileJob>>,
    cache: FolderCache,
    folders: Vec<Arc<FolderJob>>,
    /// The target itself, for what lies in no folder of the manifest.
    target: Arc<FolderJob>,
    later: Later,
    skipped: Vec<EntryPath>,
    mixed: Mixed,
}

impl<'w, 'a> Executor<'w, 'a> {
    fn new(work: &'w Work<'a>, batches: Sender<FileBatch>) -> Self {
        let target = Arc::new(FolderJob { at: TargetPath::default(), entry: None, parent: None });
        Self {
            work,
            batches,
            batcher: Batcher::new(),
            cache: FolderCache::default(),
            folders: Vec::new(),
            target,
            later: Later::default(),
            skipped: Vec::new(),
            mixed: Mixed::default(),
        }
    }

    /// Runs the next step.
    pub(super) fn step(&mut self, step: Step) -> Result<(), ClientError> {
        match step {
            Step::EnterFolder { at, entry } => self.enter(at, entry),
            Step::LeaveFolder => match self.folders.pop() {
                Some(folder) => self.work.writer.release(folder),
                None => Ok(()),
            },
            Step::Symlink { at, entry } => {
                self.work.tally.symlinks.fetch_add(1, Ordering::Relaxed);
                self.work.writer.symlink(&at, &entry, &mut self.cache)
            }
            Step::BeginFile { at, entry } => {
                self.begin(at, entry);
                Ok(())
            }
            Step::Chunk { offset, id, len } => {
                let full = self.batcher.chunk(offset, id, len);
                self.send(full)
            }
            Step::EndFile { data_len } => {
                if let Some(file) = self.batcher.file() {
                    let _ = file.data_len.set(data_len);
                }
                self.end_file()
            }
            Step::AbandonFile => self.end_file(),
            Step::Skip { path } => {
                self.skipped.push(path);
                Ok(())
            }
            Step::Mark { path, mixture } => {
                self.mixed.add(path, mixture);
                Ok(())
            }
            Step::Link { at, leader } => {
                let folder = self.folder();
                self.later.links.push(LinkJob { at, leader, folder });
                Ok(())
            }
            Step::Owe { at } => {
                let folder = self.folder();
                self.later.owed.insert(at, folder);
                Ok(())
            }
        }
    }

    /// The names that were passed over because their content was unreadable.
    pub(super) fn take_skipped(&mut self) -> Vec<EntryPath> {
        std::mem::take(&mut self.skipped)
    }

    /// The names whose content is a mixture of states.
    pub(super) fn take_mixed(&mut self) -> Mixed {
        std::mem::take(&mut self.mixed)
    }

    fn folder(&self) -> Arc<FolderJob> {
        Arc::clone(self.folders.last().unwrap_or(&self.target))
    }

    fn enter(&mut self, at: TargetPath, entry: Option<Entry>) -> Result<(), ClientError> {
        self.work.writer.target.make_folder(&at, entry.is_none(), &mut self.cache)?;
        if entry.is_some() {
            self.work.tally.folders.fetch_add(1, Ordering::Relaxed);
        }
        let parent = Some(self.folder());
        self.folders.push(Arc::new(FolderJob { at, entry, parent }));
        Ok(())
    }

    fn begin(&mut self, at: TargetPath, entry: Entry) {
        let owed = self.later.owed.get(&at).map(Arc::clone);
        let folder = owed.unwrap_or_else(|| self.folder());
        if entry.link_group.is_some() {
            self.later.leaders.push(Arc::clone(&folder));
        }
        self.batcher.begin(Arc::new(FileJob::new(at, entry, folder)));
    }

    fn end_file(&mut self) -> Result<(), ClientError> {
        let full = self.batcher.end();
        self.send(full)
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        let rest = self.batcher.finish();
        self.send(rest)
    }

    /// Hands a batch to the workers. If they stopped, one of them knows why.
    fn send(&mut self, batch: Option<FileBatch>) -> Result<(), ClientError> {
        let Some(batch) = batch else { return Ok(()) };
        let stopped = ClientError::Worker("restore");
        if self.work.stop.load(Ordering::SeqCst) || self.batches.send(batch).is_err() {
            return Err(stopped);
        }
        Ok(())
    }
}
