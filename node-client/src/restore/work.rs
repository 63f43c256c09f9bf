//! Runs the steps of a plan: folders and links at once, files through threads that fetch, check and write
//! meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Receiver;
use format_spec::key::DomainKey;
use format_spec::wire::Frame;
use format_spec::{Entry, EntryPath};

use super::batch::{Batch, Batcher, Piece};
use super::compare::Compare;
use super::direct::Gather;
use super::failed::{Failures, Obstacle, Why};
use super::fetch::{Fetcher, Opener, Plaintexts};
use super::folder::{FolderCache, FolderJob, Inode};
use super::layout::TargetPath;
use super::write::{Ended, FileJob, Finished, Writer};
use super::{OnProgress, Progress};
use crate::api::Asked;
use crate::error::{ClientError, chain};

pub(super) type FileBatch = Batch<Arc<FileJob>>;

/// Next task of a worker.
pub(super) enum Task {
    /// It fetches chunks, and writes them to their files.
    Fetch(FileBatch),
    /// It looks whether a file is in the target already, and fetches it if not.
    Compare(Compare),
}

/// Counts of the work so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) files: AtomicU64,
    /// Those of the files that were there already.
    pub(super) unchanged: AtomicU64,
    pub(super) folders: AtomicU64,
    pub(super) symlinks: AtomicU64,
    /// Bytes of files that have their names.
    pub(super) bytes: AtomicU64,
    /// Bytes that were written, or found to be there.
    pub(super) bytes_done: AtomicU64,
    pub(super) bytes_fetched: AtomicU64,
}

/// State that all threads of a restore share.
pub(super) struct Work<'a> {
    pub(super) fetcher: Fetcher<'a>,
    pub(super) domain: &'a DomainKey,
    pub(super) writer: Writer,
    pub(super) tally: Tally,
    pub(super) failures: Failures,
    pub(super) total: Progress,
    pub(super) progress: OnProgress<'a>,
    /// Outcome of the first name of each link group.
    leaders: Mutex<HashMap<TargetPath, Result<Inode, Why>>>,
    stop: AtomicBool,
    failure: Mutex<Option<ClientError>>,
}

/// For each chunk that was asked for, what came, or why nothing did.
type Fetched = (Vec<Option<Frame>>, Vec<Option<Why>>);

/// Buffers that a worker keeps from task to task.
struct Tools<'a> {
    opener: Opener<'a>,
    cache: FolderCache,
    gather: Gather,
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
            failures: Failures::default(),
            total,
            progress,
            leaders: Mutex::default(),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Takes the error that has ended all work.
    pub(super) fn take_failure(&self) -> Option<ClientError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// True if an error has ended all work.
    pub(super) fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Works until there are no more tasks. After a failure that ends all, files are only put down.
    pub(super) fn worker(&self, tasks: &Receiver<Task>) {
        let opener = match Opener::new(self.domain) {
            Ok(opener) => opener,
            Err(error) => return self.fail(error),
        };
        let mut tools = Tools { opener, cache: FolderCache::default(), gather: Gather::new() };
        for task in tasks {
            match task {
                Task::Fetch(batch) => self.batch(batch, &mut tools),
                Task::Compare(compare) => self.compare(compare, &mut tools),
            }
        }
    }

    pub(super) fn fail(&self, error: ClientError) {
        // The reason is set first: a thread that sees the switch may add a lesser one.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Takes a file as it is in the target, or fetches it.
    fn compare(&self, compare: Compare, tools: &mut Tools<'_>) {
        if !self.has_stopped() && compare.is_same(self.domain) {
            return self.keep(compare);
        }
        let Compare { job, extents, .. } = compare;
        let mut batcher = Batcher::new();
        batcher.begin(job);
        for (offset, id, len) in extents {
            if let Some(batch) = batcher.chunk(offset, id, len) {
                self.batch(batch, tools);
            }
        }
        let rest = [batcher.end(), batcher.finish()];
        rest.into_iter().flatten().for_each(|batch| self.batch(batch, tools));
    }

    /// Takes a file of the target for restored.
    fn keep(&self, compare: Compare) {
        let inode = compare.old.inode();
        compare.old.give_attributes(&self.writer.attributes, &compare.job.entry);
        let Some(job) = Arc::into_inner(compare.job) else { return };
        let (_, name) = job.at.split();
        job.folder.names_before().take(name, inode);
        self.tally.unchanged.fetch_add(1, Ordering::Relaxed);
        self.tally.bytes_done.fetch_add(job.entry.size, Ordering::Relaxed);
        self.became(&job.at, &job.entry, Finished::Restored(inode));
        self.report();
        self.check(self.writer.release(job.folder));
    }

    fn batch(&self, batch: FileBatch, tools: &mut Tools<'_>) {
        let Batch { uses, pieces, chunks } = batch;
        let is_wanted = pieces.iter().any(|piece| !piece.file.has_failed()) && !self.has_stopped();
        let fetched = is_wanted.then(|| self.check(self.fetch(&chunks))).flatten();
        let (frames, refused) = fetched.unwrap_or_default();
        let Tools { opener, cache, gather } = tools;
        let mut plaintexts = Plaintexts::new(opener, frames, uses);
        for piece in pieces {
            if !piece.file.has_failed() && !self.has_stopped() {
                let written = self.piece(&piece, &chunks, &refused, &mut plaintexts, cache, gather);
                if let Err(obstacle) = written {
                    gather.forget();
                    match obstacle {
                        Obstacle::Name(why) => piece.file.fail(why),
                        Obstacle::All(error) => self.fail(error),
                    }
                }
            }
            self.check(self.put_down(piece.file, cache));
        }
        self.report();
    }

    /// Returns the result, unless the error ends the restore.
    fn check<T>(&self, result: Result<T, ClientError>) -> Option<T> {
        result.map_err(|error| self.fail(error)).ok()
    }

    /// Writes what a batch has of one file.
    fn piece(
        &self,
        piece: &Piece<Arc<FileJob>>,
        chunks: &[Asked],
        refused: &[Option<Why>],
        plaintexts: &mut Plaintexts<'_, '_>,
        cache: &mut FolderCache,
        gather: &mut Gather,
    ) -> Result<(), Obstacle> {
        let Piece { file, extents } = piece;
        for placed in extents {
            let plain = match plaintexts.of(placed) {
                Some(Ok(plain)) => plain,
                Some(Err(error)) => {
                    let id = chunks.get(placed.slot).expect("the batch knows its own slots").id;
                    let why = format!("a chunk came back with other bytes: {error}");
                    return Err(Obstacle::Name(Why::chunk(id, why)));
                }
                None => {
                    let why = refused.get(placed.slot).cloned().flatten();
                    let unknown = || Why::damaged("the server did not send one of its chunks");
                    return Err(Obstacle::Name(why.unwrap_or_else(unknown)));
                }
            };
            self.writer.write(file, cache, gather, placed.offset, plain)?;
            self.tally.bytes_done.fetch_add(placed.len.into(), Ordering::Relaxed);
        }
        if extents.is_empty() { Ok(()) } else { self.writer.flush(file, cache, gather) }
    }

    /// The chunks that are asked for, and for each that the server cannot give, why.
    fn fetch(&self, chunks: &[Asked]) -> Result<Fetched, ClientError> {
        let (mut frames, mut refused) = (Vec::new(), Vec::new());
        for (frame, chunk) in self.fetcher.each_frame(chunks)?.into_iter().zip(chunks) {
            match frame {
                Ok(frame) => {
                    let len = u64::try_from(frame.payload.len()).unwrap_or(0);
                    self.tally.bytes_fetched.fetch_add(len, Ordering::Relaxed);
                    frames.push(Some(frame));
                    refused.push(None);
                }
                Err(error) => {
                    frames.push(None);
                    refused.push(Some(Why::chunk(chunk.id, chain(&error))));
                }
            }
        }
        Ok((frames, refused))
    }

    /// Gives up a hold on a file, and finishes the file if it was the last.
    fn put_down(&self, file: Arc<FileJob>, cache: &mut FolderCache) -> Result<(), ClientError> {
        let Some(job) = Arc::into_inner(file) else { return Ok(()) };
        let Ended { at, entry, finished } = self.writer.finish(job, cache)?;
        self.became(&at, &entry, finished);
        Ok(())
    }

    fn became(&self, at: &TargetPath, entry: &Entry, finished: Finished) {
        let leader = match finished {
            Finished::Restored(inode) => {
                self.tally.files.fetch_add(1, Ordering::Relaxed);
                self.tally.bytes.fetch_add(entry.size, Ordering::Relaxed);
                Ok(inode)
            }
            Finished::Abandoned => Err(Why::damaged("its content is not known")),
            Finished::Failed(why) => {
                self.failures.add(&entry.path, why.clone());
                Err(why)
            }
        };
        if entry.link_group.is_some() {
            self.leads(at.clone(), leader);
        }
    }

    /// Remembers what links of the file at `at` are made of.
    pub(super) fn leads(&self, at: TargetPath, leader: Result<Inode, Why>) {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner).insert(at, leader);
    }

    /// Tells how far the restore is.
    pub(super) fn report(&self) {
        (self.progress)(Progress {
            files: self.tally.files.load(Ordering::Relaxed),
            bytes: self.tally.bytes_done.load(Ordering::Relaxed),
            ..self.total
        });
    }

    /// Makes hard links, unless an error has ended the restore, and releases folders, now that every file has
    /// its name.
    pub(super) fn finish(&self, later: Later) -> Result<(), ClientError> {
        let mut cache = FolderCache::default();
        for link in later.links {
            if !self.has_stopped() {
                match self.link(&link, &mut cache) {
                    Ok(()) => drop(self.tally.files.fetch_add(1, Ordering::Relaxed)),
                    Err(Obstacle::Name(why)) => self.failures.add(&link.path, why),
                    Err(Obstacle::All(error)) => self.fail(error),
                }
            }
            self.writer.release(link.folder)?;
        }
        later.folders.into_iter().try_for_each(|folder| self.writer.release(folder))
    }

    fn link(&self, link: &LinkJob, cache: &mut FolderCache) -> Result<(), Obstacle> {
        let leader = self.leaders.lock().unwrap_or_else(PoisonError::into_inner).get(&link.leader).cloned();
        let unknown = || Err(Why::damaged("its content is not known"));
        let inode = leader.unwrap_or_else(unknown).map_err(|why| Obstacle::Name(why.of_link()))?;
        self.writer.hard_link(&link.at, (&link.leader, inode), &link.folder, cache)
    }
}

/// Work that has to wait for files.
#[derive(Default)]
pub(super) struct Later {
    pub(super) links: Vec<LinkJob>,
    /// Folders with a first name of a link group, for links are made from there, and those that were never left,
    /// the innermost first.
    pub(super) folders: Vec<Arc<FolderJob>>,
}

/// A hard link that is made once all files are there.
pub(super) struct LinkJob {
    pub(super) at: TargetPath,
    pub(super) path: EntryPath,
    pub(super) leader: TargetPath,
    pub(super) folder: Arc<FolderJob>,
}
