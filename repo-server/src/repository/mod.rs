//! The repository: its keys, its index, its site, and what is in memory between them.
//!
//! A [`Repository`] promises that whatever it acknowledges is on stable storage, and that after a
//! crash at any moment the next one finds each snapshot whole or not at all (S1 to S4). It never
//! retries a failed sync: the first fatal disk error halts it for good, and its process must end.

mod budget;
pub(crate) mod create;
mod domain;
mod guard;
mod in_flight;
mod parallel;
mod promises;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use format_spec::descriptor::Descriptor;
use format_spec::key::{MasterKey, SealKeys};
use format_spec::{ChunkId, ClusterName, FormatError, RepositoryId, wire};
use tokio::sync::Semaphore;

pub(crate) use budget::{Budget, Reserved};
pub use create::{CreateError, Opened, check_exists, open_or_create};
pub(crate) use domain::{Appended, Domain, FullPack, PublishFailure};
pub(crate) use in_flight::{Flight, InFlight, take_back};
pub(crate) use parallel::share_out;

use crate::audit::Watch;
use crate::clock::Clock;
use crate::clock_watch::ClockWatch;
use crate::error::ServerError;
use crate::freshness::PackSums;
use crate::index::row::{ChunkRow, PackNumber, PackRow, Totals};
use crate::index::{Batch, Index, IndexError, KeyRange, Table};
use crate::rules::Rules;
use crate::session::Sessions;
use crate::settings::{Choices, Upkeep};
use crate::site::{ObjectName, Site, SiteError};
use crate::site_lock::SiteLock;
use crate::snapshot;
use crate::space::Space;

/// Packs that may be on their way to the site at once: bounds memory, and lets one be hashed while
/// another is synced.
const PUBLISHING: usize = 3;

/// Manifests that may be decoded at once: each may take a gigabyte.
const DECODING: usize = 1;

/// Hears of a fatal error.
pub type OnHalt = Arc<dyn Fn(&dyn Error) + Send + Sync>;

/// What a repository is made of. Everything that touches the outside comes in here.
pub struct Parts {
    /// Where rows live.
    pub index: Arc<dyn Index>,
    /// Where objects live.
    pub site: Arc<dyn Site>,
    /// The lock on the site, as long as this process has it.
    pub lock: SiteLock,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Fills a buffer with random bytes that no one can guess.
    pub random: fn(&mut [u8]),
    /// Hears of the first fatal disk error, after which nothing is acknowledged any more.
    pub on_halt: OnHalt,
    /// What is left on the disk, and what must stay free.
    pub space: Space,
    /// What is deleted, and when.
    pub upkeep: Upkeep,
    /// What may be chosen anew while the process runs, as it is at first.
    pub choices: Choices,
    /// Folder for temporary files, which may be missing. Nothing in it outlives the process.
    pub scratch: PathBuf,
    /// Name of the index engine, for people.
    pub engine: &'static str,
    /// Threads that may compute at once.
    pub cores: usize,
    /// Bytes that requests may hold in memory at once.
    pub memory_bytes: u64,
}

/// One repository. Shared by all requests.
pub struct Repository {
    pub(crate) parts: Parts,
    pub(crate) descriptor: Descriptor,
    pub(crate) keys: SealKeys,
    pub(crate) sessions: Sessions,
    pub(crate) clock_watch: ClockWatch,
    /// At most this many threads compute for requests.
    pub(crate) compute: Arc<Semaphore>,
    /// Memory for bodies on their way in.
    pub(crate) bodies: Budget,
    /// Memory for blobs on their way out.
    pub(crate) answers: Budget,
    /// Manifests that may be decoded at once.
    pub(crate) decoding: Semaphore,
    /// At most this many packs are on their way to the site.
    pub(crate) publishing: Semaphore,
    /// Hears of every change of counts and places; see [`Watch::note`].
    pub(crate) watch: Watch,
    master: MasterKey,
    domains: Mutex<HashMap<ClusterName, Arc<Domain>>>,
    /// Bytes in open packs of all domains.
    open_len: Arc<AtomicUsize>,
    /// Held while counters are read, changed and written back.
    writer: Mutex<()>,
    packs: Mutex<HashMap<PackNumber, Arc<PackRow>>>,
    halted: AtomicBool,
    /// The number of the last commit.
    commits: AtomicU64,
    /// Objects on their way to the site.
    pub(crate) in_flight: InFlight,
    /// Whether what the last process left has been compared with the site, and brought to its end.
    pub(crate) is_settled: AtomicBool,
    /// What keeps the collector from taking what is needed.
    pub(crate) rules: Rules,
    /// Held by a run of the collector, of an audit or of a repair: one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Packs that this process found missing on the site, and all of whose blobs are in quarantine.
    pub(crate) lost_packs: Mutex<HashSet<PackNumber>>,
    /// Told each time that blobs were put in quarantine.
    pub(crate) damage_met: tokio::sync::Notify,
    /// Held while it is decided what to forget, until that is done.
    pub(crate) forgetting: tokio::sync::Mutex<()>,
    /// What the rows of packs add up to, and when they were counted.
    pub(crate) pack_sums: Mutex<Option<(Duration, PackSums)>>,
    /// What this process has done so far.
    pub(crate) done: Arc<Done>,
    choices: RwLock<Arc<Choices>>,
}

/// What a process has done so far, for whoever watches it.
#[derive(Debug, Default)]
pub struct Done {
    /// Bytes that came in over connections.
    pub received_bytes: AtomicU64,
    /// Bytes that went out over connections.
    pub sent_bytes: AtomicU64,
    /// Runs of the collector that came to their end.
    pub(crate) collector_runs: AtomicU64,
    /// Runs of the collector that failed.
    pub(crate) collector_failures: AtomicU64,
}

/// Keys that a thread looks up at once: about 5 ms of work, which pays for a thread.
const KEYS_AT_ONCE: usize = 1024;

/// Rows of packs that are kept in memory: 128 bytes each.
const PACKS_CACHED: usize = 16_384;

impl Repository {
    /// A repository that exists: `descriptor` comes from its site, `master` must fit it. Sessions
    /// that were open when the last process ended are open again, with their full time to live.
    ///
    /// # Errors
    /// [`ServerError`] if the index cannot be read.
    pub fn open(parts: Parts, master: MasterKey, descriptor: Descriptor) -> Result<Arc<Self>, ServerError> {
        let sessions = Sessions::load(parts.index.as_ref(), parts.clock.as_ref())?;
        let repository = Arc::new(Self {
            keys: master.seal_keys(descriptor.generation),
            compute: Arc::new(Semaphore::new(parts.cores.max(1))),
            bodies: Budget::new(parts.memory_bytes / 2),
            answers: Budget::new(parts.memory_bytes / 2),
            decoding: Semaphore::new(DECODING),
            publishing: Semaphore::new(PUBLISHING),
            watch: Watch::default(),
            domains: Mutex::default(),
            open_len: Arc::default(),
            writer: Mutex::default(),
            clock_watch: ClockWatch::default(),
            packs: Mutex::default(),
            halted: AtomicBool::new(false),
            in_flight: InFlight::default(),
            is_settled: AtomicBool::new(false),
            rules: Rules::default(),
            turn: tokio::sync::Mutex::default(),
            lost_packs: Mutex::default(),
            damage_met: tokio::sync::Notify::new(),
            forgetting: tokio::sync::Mutex::default(),
            commits: AtomicU64::default(),
            pack_sums: Mutex::default(),
            done: Arc::default(),
            choices: RwLock::new(Arc::new(parts.choices.clone())),
            parts,
            descriptor,
            sessions,
            master,
        });
        let numbers = snapshot::list(&repository, None)?.into_iter().filter_map(|snapshot| snapshot.number);
        repository.commits.store(numbers.max().unwrap_or(0), Ordering::Relaxed);
        Ok(repository)
    }

    /// The number of a commit that begins now: greater than that of each snapshot that is there.
    pub(crate) fn next_commit(&self) -> u64 {
        self.commits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is chosen now.
    pub(crate) fn choices(&self) -> Arc<Choices> {
        Arc::clone(&self.choices.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on `choices` are what is chosen. What runs goes on as it began.
    pub fn choose(&self, choices: Choices) {
        *self.choices.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(choices);
    }

    /// What this process has done so far.
    pub fn done(&self) -> Arc<Done> {
        Arc::clone(&self.done)
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.descriptor.repository
    }

    /// How its chunks are cut.
    pub fn chunker(&self) -> wire::ChunkerSpec {
        self.descriptor.chunker
    }

    /// The dedup domain of `cluster`.
    pub(crate) fn domain(&self, cluster: &ClusterName) -> Arc<Domain> {
        let mut domains = lock(&self.domains);
        if let Some(domain) = domains.get(cluster) {
            return Arc::clone(domain);
        }
        let key = self.master.domain(cluster);
        let domain = Arc::new(Domain::new(
            cluster.clone(),
            key,
            self.keys.clone(),
            self.id(),
            self.parts.random,
            &self.open_len,
        ));
        domains.insert(cluster.clone(), Arc::clone(&domain));
        domain
    }

    /// Drops the domains of clusters that nobody uses and that hold nothing: the next to ask makes them again.
    pub(crate) fn drop_idle_domains(&self) {
        lock(&self.domains).retain(|_, domain| Arc::strong_count(domain) > 1 || !domain.is_empty());
    }

    /// All domains that somebody uses, or that hold something.
    pub(crate) fn domains(&self) -> Vec<Arc<Domain>> {
        lock(&self.domains).values().map(Arc::clone).collect()
    }

    /// Runs `change` while nobody else changes counters.
    pub(crate) fn exclusively<T>(&self, change: impl FnOnce() -> T) -> T {
        let _guard = lock(&self.writer);
        change()
    }

    /// Runs `work` on a thread that may block and compute.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let repository = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&repository)).await;
        done.unwrap_or(Err(ServerError::Bug("a worker thread panicked")))
    }

    /// Fails once the repository has halted, and while another server may have its site.
    pub(crate) fn check_running(&self) -> Result<(), ServerError> {
        if self.halted.load(Ordering::Acquire) {
            return Err(ServerError::Halted);
        }
        self.parts.lock.check(self.parts.clock.as_ref())
    }

    /// Applies a batch; it is durable when this returns. Once the repository has halted, none is (P8).
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), ServerError> {
        self.check_running()?;
        self.parts.index.commit(batch).map_err(|error| self.index_error(error))
    }

    /// Shows each row of `range` to `visit`, in key order. Each few megabytes have a moment of their own.
    pub(crate) fn for_each_row(
        &self,
        table: Table,
        range: &KeyRange,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), ServerError>,
    ) -> Result<(), ServerError> {
        let mut next = Some(range.clone());
        while let Some(range) = next {
            let found = self.parts.index.scan(table, &range, NonZeroUsize::MAX)?;
            for row in &found.rows {
                visit(&row.key, &row.value)?;
            }
            next = found.rest;
        }
        Ok(())
    }

    /// Turns an index error into an answer, and halts after a fatal one.
    pub(crate) fn index_error(&self, error: IndexError) -> ServerError {
        if !error.is_fatal() {
            return error.into();
        }
        self.halt(&error);
        ServerError::Halted
    }

    /// Turns a site error into an answer, and halts after a fatal one.
    pub(crate) fn site_error(&self, error: SiteError) -> ServerError {
        if error.is_fatal() {
            self.halt(&error);
            return ServerError::Halted;
        }
        if error.is_full() { ServerError::Full { what: error.to_string() } } else { ServerError::Site(error) }
    }

    /// Reads a whole object that never has more than so many bytes: a site that says otherwise takes no memory.
    ///
    /// # Errors
    /// [`ServerError::Damaged`] if it has more, [`ServerError::Site`] if it could not be read.
    pub(crate) async fn get_at_most(&self, name: &ObjectName, most: usize) -> Result<Bytes, ServerError> {
        let len = self.parts.site.len(name).await.map_err(|error| self.site_error(error))?;
        if usize::try_from(len).map_or(true, |len| len > most) {
            let why = format!("has {len} bytes, more than the maximum of {most}");
            let source = FormatError::Malformed { what: "object", why };
            return Err(ServerError::Damaged { object: name.to_string(), source });
        }
        self.parts.site.get(name).await.map_err(|error| self.site_error(error))
    }

    /// Acknowledges nothing any more: the disk cannot be trusted.
    pub(crate) fn halt(&self, error: &dyn Error) {
        if !self.halted.swap(true, Ordering::AcqRel) {
            (self.parts.on_halt)(error);
        }
    }

    /// The rows of `ids`, in their order; many are looked up by several threads. Where all must be of one moment,
    /// the caller keeps others from changing them.
    pub(crate) fn chunk_rows<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a ChunkId>,
    ) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        let ids: Vec<&ChunkId> = ids.into_iter().collect();
        let parts: Vec<&[&ChunkId]> = ids.chunks(KEYS_AT_ONCE).collect();
        let found = share_out(self.parts.cores, &parts, |ids| self.look_up(ids))?;
        Ok(found.into_iter().flatten().collect())
    }

    fn look_up(&self, ids: &[&ChunkId]) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        let keys: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let values = self.parts.index.multi_get(Table::Chunk, &keys)?;
        let decode = |(id, value): (&&ChunkId, Option<Vec<u8>>)| match value {
            None => Ok(None),
            Some(value) => ChunkRow::decode(&value)
                .map(Some)
                .ok_or_else(|| ServerError::Row { object: format!("chunk {id}") }),
        };
        ids.iter().zip(values).map(decode).collect()
    }

    /// As [`chunk_rows`](Self::chunk_rows), without rows of other dedup domains: an id is no ticket to
    /// what another cluster stored.
    pub(crate) fn chunk_rows_of<'a>(
        &self,
        domain: &Domain,
        ids: impl IntoIterator<Item = &'a ChunkId>,
    ) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        let ids: Vec<&ChunkId> = ids.into_iter().collect();
        let rows = self.chunk_rows(ids.iter().copied())?;
        ids.into_iter().zip(rows).map(|(id, row)| self.row_of(domain, id, row)).collect()
    }

    /// The row of an id, read as `row` a moment ago, if the domain has it. The collector may have moved it to
    /// another pack since, and taken the pack away that it was in: then it is read again.
    pub(crate) fn row_of(
        &self,
        domain: &Domain,
        id: &ChunkId,
        mut row: Option<ChunkRow>,
    ) -> Result<Option<ChunkRow>, ServerError> {
        while let Some(found) = row {
            match self.pack_row(found.pack) {
                Ok(pack) => return Ok((pack.domain == domain.name).then_some(found)),
                Err(error) => {
                    row = self.chunk_rows([id])?.pop().flatten();
                    if row.is_some_and(|now| now.pack == found.pack) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The row of a pack that a chunk row names. Only what never changes of it is up to date: name,
    /// length, kind and domain.
    pub(crate) fn pack_row(&self, number: PackNumber) -> Result<Arc<PackRow>, ServerError> {
        if let Some(row) = lock(&self.packs).get(&number) {
            return Ok(Arc::clone(row));
        }
        let row = self.find_pack_row(number)?;
        let row =
            Arc::new(row.ok_or_else(|| ServerError::Row { object: format!("pack number {}", number.0) })?);
        let mut packs = lock(&self.packs);
        if packs.len() >= PACKS_CACHED {
            packs.clear();
        }
        packs.insert(number, Arc::clone(&row));
        Ok(row)
    }

    /// The row of a pack as it is now, if it has one.
    pub(crate) fn find_pack_row(&self, number: PackNumber) -> Result<Option<PackRow>, ServerError> {
        let Some(value) = self.parts.index.get(Table::Pack, &number.key())? else { return Ok(None) };
        let wrong = || ServerError::Row { object: format!("pack number {}", number.0) };
        PackRow::decode(&value).map(Some).ok_or_else(wrong)
    }

    /// What the repository adds up to.
    pub(crate) fn totals(&self) -> Result<Totals, ServerError> {
        let Some(value) = self.parts.index.get(Table::Meta, Totals::KEY)? else {
            return Ok(Totals::default());
        };
        Totals::decode(&value).ok_or_else(|| ServerError::Row { object: "totals".to_owned() })
    }

    /// 32 fresh random bytes.
    pub(crate) fn salt(&self) -> [u8; 32] {
        let mut salt = [0; 32];
        (self.parts.random)(&mut salt);
        salt
    }
}

/// Locks, also after a panic of another holder: every holder leaves the data whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
