//! Verify: reads all that a snapshot needs and checks it, as a restore would, without writing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use format_spec::assemble::{Assembler, Depth, Ending, Fault, Part, Roots};
use format_spec::key::DomainKey;
use format_spec::manifest::Manifest;
use format_spec::{ChunkId, ClusterName, EntryKind, EntryPath, Extent, NodeName, SnapshotId};
use serde::Serialize;
use tokio::runtime::Handle;

use super::batch::{Batch, Batcher};
use super::fetch::{Fetcher, Opener, Plaintexts};
use super::filter::Filter;
use super::select::{Latest, NodeChoice, Partial, PassedOver};
use super::series::SeriesChoice;
use super::{Hooks, OnProgress, Progress, pages, select};
use crate::api::{Api, wait_for};
use crate::cancel::Cancel;
use crate::error::{ClientError, chain};
use crate::list::of_cluster;
use crate::named::{Among, SnapshotChoice, by_part};
use crate::pace::Pace;

const WORKERS: usize = 4;
const QUEUE: usize = 4;
/// How many damaged things a report names; it counts all.
const MAX_DAMAGE: usize = 10_000;

/// Options of a check.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Which snapshot.
    pub snapshot: SnapshotChoice,
    /// Cluster that the snapshot is of; `None` for any.
    pub cluster: Option<ClusterName>,
    /// Node of the files, for `latest`. If the node is named, only its share is checked.
    pub node: NodeChoice,
    /// Which series of the node `latest` is of; without it, the only one that can be meant.
    pub series: Option<SeriesChoice>,
    /// Which snapshots `latest` may be.
    pub among: Among,
    /// Permission for `latest` to be partial. One that is named is checked either way.
    pub partial: Partial,
}

/// Something in a snapshot that is not as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// Node of the affected files.
    pub node: NodeName,
    /// The file, if it is about one.
    pub path: Option<String>,
    /// The chunk or page, if it is about one.
    pub object: Option<String>,
    /// Description of the problem.
    pub problem: String,
}

/// Report of a check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Nodes of the files.
    pub nodes: Vec<NodeName>,
    /// Files that were checked, links of one file counted once.
    pub files: u64,
    /// Bytes of chunks that were read back and have the right id.
    pub bytes: u64,
    /// Extents whose chunk was read back and has the right id.
    pub chunks: u64,
    /// Pages.
    pub pages: u64,
    /// Bytes that came over the network for it, as compressed.
    pub bytes_fetched: u64,
    /// Files that the snapshot says it lacks: not damage.
    pub unreadable: u64,
    /// The first ten thousand things that are wrong.
    pub problems: Vec<Damage>,
    /// How many things are wrong.
    pub problem_count: u64,
    /// A newer snapshot, if `latest` does not stand for the newest.
    pub passed_over: Option<PassedOver>,
    /// How long it took.
    pub seconds: f64,
}

impl VerifyReport {
    /// True if everything is as it was pushed. If not, the process exits with the code of
    /// [`ErrorClass::Integrity`](format_spec::ErrorClass::Integrity).
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }
}

/// Reads every page and every chunk that a snapshot needs, and checks ids, lengths, sizes and
/// digests. Damage does not end it: it stands in the report.
///
/// # Errors
/// Only those that prevent it: no such snapshot or node, an unreachable server.
pub fn verify(
    api: &Api,
    runtime: &Handle,
    options: &VerifyOptions,
    hooks: &Hooks<'_>,
) -> Result<VerifyReport, ClientError> {
    let start = hooks.clock.elapsed();
    let (Latest { id: snapshot, passed_over }, nodes) = find(api, (runtime, &hooks.cancel), options)?;
    let (pace, clock) = (Pace::unlimited(), hooks.clock);
    let fetcher = Fetcher { api, runtime, snapshot, cancel: &hooks.cancel, pace: &pace, clock };
    let domain = super::domain_key(fetcher)?;
    let progress = hooks.progress;
    let check =
        Check { fetcher, domain: &domain, progress, tally: Tally::default(), found: Mutex::default() };
    for node in &nodes {
        check.node(node)?;
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Found { first, count: problem_count } =
        check.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tally = check.tally;
    Ok(VerifyReport {
        snapshot,
        nodes,
        files: count(&tally.files),
        bytes: count(&tally.bytes),
        chunks: count(&tally.chunks),
        pages: count(&tally.pages),
        bytes_fetched: count(&tally.bytes_fetched),
        unreadable: count(&tally.unreadable),
        problems: first.into_iter().collect(),
        problem_count,
        passed_over,
        seconds: hooks.clock.elapsed().saturating_sub(start).as_secs_f64(),
    })
}

fn find(
    api: &Api,
    (runtime, interrupt): (&Handle, &Cancel),
    options: &VerifyOptions,
) -> Result<(Latest, Vec<NodeName>), ClientError> {
    let all = |cluster| wait_for(runtime, interrupt, of_cluster(api, cluster));
    let latest = match &options.snapshot {
        SnapshotChoice::Id(id) => Latest { id: *id, passed_over: None },
        SnapshotChoice::Part(part) => Latest { id: by_part(&all(None)?, part)?, passed_over: None },
        SnapshotChoice::Latest => {
            let VerifyOptions { cluster, node, series, partial, .. } = options;
            let everything = Filter::new(&[], &[])?;
            let all = options.among.choose(all(cluster.as_ref())?)?;
            select::latest(&all, node, series.as_ref(), &everything, *partial)?.0
        }
    };
    let snapshot = wait_for(runtime, interrupt, api.snapshot(latest.id))?;
    latest.passed_over.iter().for_each(|newer| super::warn_of_newer(latest.id, newer));
    match &options.node {
        NodeChoice::Assumed(_) => Ok((latest, snapshot.nodes)),
        NodeChoice::Named(_) => {
            let node = select::node_of(&snapshot, &options.node)?;
            Ok((latest, vec![node]))
        }
    }
}

#[derive(Default)]
struct Tally {
    files: AtomicU64,
    bytes: AtomicU64,
    chunks: AtomicU64,
    pages: AtomicU64,
    bytes_fetched: AtomicU64,
    unreadable: AtomicU64,
}

#[derive(Default)]
struct Found {
    first: BTreeSet<Damage>,
    count: u64,
}

struct Check<'a> {
    fetcher: Fetcher<'a>,
    domain: &'a DomainKey,
    progress: OnProgress<'a>,
    tally: Tally,
    found: Mutex<Found>,
}

type PathBatch = Batch<Arc<EntryPath>>;

impl Check<'_> {
    fn node(&self, node: &NodeName) -> Result<(), ClientError> {
        let manifest = match self.fetcher.wait_for(self.fetcher.api.manifest(self.fetcher.snapshot, node)) {
            Err(error) if super::fetch::is_about_blobs(&error) => {
                self.found(node, None, None, chain(&error));
                return Ok(());
            }
            done => done?,
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = bounded(QUEUE);
            let total = super::total(&manifest);
            let workers: Vec<_> = (0..WORKERS)
                .map(|_| {
                    let receiver = receiver.clone();
                    scope.spawn(move || self.worker(node, &receiver, total))
                })
                .collect();
            drop(receiver);
            let planned = self.plan(node, &manifest, &sender);
            drop(sender);
            let worked = workers.into_iter().try_for_each(|worker| {
                worker.join().map_err(|_| ClientError::Worker("verify")).and_then(|worked| worked)
            });
            worked.and(planned)
        })
    }

    /// Walks the pages and hands all chunks to the workers.
    fn plan(&self, node: &NodeName, manifest: &Manifest, out: &Sender<PathBatch>) -> Result<(), ClientError> {
        let roots = Roots::new(&manifest.roots);
        let mut assembler = Assembler::new(self.domain.clone(), roots, Depth::Content);
        let mut walk = Walk { check: self, node, batcher: Batcher::new(), out };
        pages::for_each_page(self.fetcher, self.domain, manifest, |(page, records)| {
            self.tally.pages.fetch_add(1, Ordering::Relaxed);
            match records {
                Ok(records) => assembler.page(page.id, records, |part| walk.part(part)).map(drop),
                Err(error) => {
                    self.found(node, None, Some(&page.id), chain(&error));
                    assembler.missing_page(|part| walk.part(part))
                }
            }
        })?;
        assembler.finish(|part| walk.part(part))?;
        let rest = walk.batcher.finish();
        walk.send(rest)
    }

    fn worker(
        &self,
        node: &NodeName,
        batches: &Receiver<PathBatch>,
        total: Progress,
    ) -> Result<(), ClientError> {
        let mut opener = Opener::new(self.domain)?;
        for batch in batches {
            self.batch(node, batch, &mut opener)?;
            (self.progress)(Progress {
                files: self.tally.files.load(Ordering::Relaxed),
                bytes: self.tally.bytes.load(Ordering::Relaxed),
                ..total
            });
        }
        Ok(())
    }

    fn batch(&self, node: &NodeName, batch: PathBatch, opener: &mut Opener<'_>) -> Result<(), ClientError> {
        let Batch { chunks, uses, pieces } = batch;
        let mut refused = Vec::new();
        let mut frames = Vec::with_capacity(chunks.len());
        for frame in self.fetcher.each_frame(&chunks)? {
            let (frame, refusal) =
                frame.map_or_else(|error| (None, Some(error)), |frame| (Some(frame), None));
            let len = frame.as_ref().map_or(0, |frame| frame.payload.len());
            self.tally.bytes_fetched.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
            frames.push(frame);
            refused.push(refusal);
        }
        let mut plaintexts = Plaintexts::new(opener, frames, uses);
        for piece in &pieces {
            for placed in &piece.extents {
                let id = chunks.get(placed.slot).map(|chunk| &chunk.id);
                match (plaintexts.of(placed), refused.get(placed.slot)) {
                    (Some(Ok(_)), _) => {
                        self.tally.chunks.fetch_add(1, Ordering::Relaxed);
                        self.tally.bytes.fetch_add(placed.len.into(), Ordering::Relaxed);
                    }
                    (Some(Err(error)), _) => self.found(node, Some(&piece.file), id, chain(&error)),
                    (None, Some(Some(error))) => self.found(node, Some(&piece.file), id, chain(error)),
                    (None, _) => {
                        self.found(node, Some(&piece.file), id, ClientError::Worker("verify").to_string())
                    }
                }
            }
        }
        Ok(())
    }

    fn found(&self, node: &NodeName, path: Option<&EntryPath>, object: Option<&ChunkId>, problem: String) {
        let damage = Damage {
            node: node.clone(),
            path: path.map(EntryPath::to_string),
            object: object.map(ChunkId::to_string),
            problem,
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.count += 1;
        if found.first.len() < MAX_DAMAGE {
            found.first.insert(damage);
        }
    }
}

/// A walk through the pages of a node.
struct Walk<'a> {
    check: &'a Check<'a>,
    node: &'a NodeName,
    batcher: Batcher<Arc<EntryPath>>,
    out: &'a Sender<PathBatch>,
}

impl Walk<'_> {
    fn part(&mut self, part: Part<'_>) -> Result<(), ClientError> {
        match part {
            Part::Entry(entry) if entry.kind == EntryKind::File => self.batcher.begin(Arc::new(entry.path)),
            Part::Entry(_) | Part::Nameless(_) => {}
            Part::Content { offset, extents } => return self.content(offset, extents),
            Part::End(ending) => return self.end(ending),
            Part::Link { entry, first } => match first {
                Ending::Whole | Ending::Fuzzy | Ending::Torn => {}
                Ending::Unreadable => self.count_unreadable(),
                Ending::Lost | Ending::Broken => self.found(&entry.path, "its first name cannot be restored"),
            },
            Part::Fault(Fault { page, path, kind }) => {
                let (path, object) = (path.as_ref(), page.as_ref());
                self.check.found(self.node, path, object, kind.to_string());
            }
        }
        Ok(())
    }

    fn content(&mut self, mut offset: u64, extents: &[Extent]) -> Result<(), ClientError> {
        for extent in extents {
            if let Extent::Chunk { id, len } = extent {
                let batch = self.batcher.chunk(offset, *id, *len);
                self.send(batch)?;
            }
            offset += extent.covered();
        }
        Ok(())
    }

    fn end(&mut self, ending: Ending) -> Result<(), ClientError> {
        match (ending, self.batcher.file()) {
            (Ending::Unreadable, _) => self.count_unreadable(),
            (Ending::Lost, Some(path)) => self.found(path, "a page that it needs is damaged"),
            _ => {}
        }
        if ending != Ending::Unreadable {
            self.check.tally.files.fetch_add(1, Ordering::Relaxed);
        }
        let batch = self.batcher.end();
        self.send(batch)
    }

    fn count_unreadable(&self) {
        self.check.tally.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    fn found(&self, path: &EntryPath, problem: &str) {
        self.check.found(self.node, Some(path), None, problem.to_owned());
    }

    fn send(&self, batch: Option<PathBatch>) -> Result<(), ClientError> {
        match batch.map(|batch| self.out.send(batch)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(ClientError::Worker("verify")),
        }
    }
}
