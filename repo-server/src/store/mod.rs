//! The ground that every feature stands on: keys, index, site, clock, and what they share.
//!
//! A [`Store`] promises that whatever it acknowledges is on stable storage. It never retries a failed sync: the first
//! fatal disk error halts it for good, and its process must end (P8).

mod ahead;
mod budget;
mod domain;
mod listener;
mod parallel;
mod rows;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use format_spec::descriptor::Descriptor;
use format_spec::key::{MasterKey, SealKeys};
use format_spec::{FormatError, RepositoryId, wire};
use tokio::sync::{Notify, Semaphore};

pub(crate) use ahead::{read_ahead, to_its_end, wait};
pub(crate) use budget::{Budget, Reserved};
pub(crate) use domain::Domain;
pub(crate) use listener::{Listener, Watching};
pub(crate) use parallel::share_out;

use crate::clock::Clock;
use crate::error::ServerError;
use crate::index::{Batch, Index, IndexError, KeyRange, Table};
use crate::rows::{PackNumber, PackRow};
use crate::rules::Rules;
use crate::settings::Upkeep;
use crate::site::{Area, Listed, ObjectName, Prefix, Site, SiteError};
use crate::site_lock::SiteLock;
use crate::space::Space;
use crate::sync::lock;

/// Hears of a fatal error.
pub type OnHalt = Arc<dyn Fn(&dyn Error) + Send + Sync>;

/// Parts of a repository. Everything that touches the outside comes in here.
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
    /// Free space of the disk, and its reserve.
    pub space: Space,
    /// Rules for deletion.
    pub upkeep: Upkeep,
    /// Folder for temporary files, which may be missing. Nothing in it outlives the process.
    pub scratch: PathBuf,
    /// Name of the index engine, for people.
    pub engine: &'static str,
    /// Threads that may compute at once.
    pub cores: usize,
    /// Bytes that requests may hold in memory at once.
    pub memory_bytes: u64,
}

/// One repository, as every feature uses it. Shared by all of them.
pub struct Store {
    pub(crate) parts: Parts,
    pub(crate) descriptor: Descriptor,
    pub(crate) keys: SealKeys,
    /// At most this many threads compute for requests: see [`Store::compute`].
    pub(crate) compute: Arc<Semaphore>,
    /// Threads that may wait for the site at once.
    waiting: Arc<Semaphore>,
    /// Hears of every change of counts and places; see [`Listener::note`].
    pub(crate) listener: Listener,
    /// Rules that keep the collector from deleting needed data.
    pub(crate) rules: Rules,
    pub(crate) damage: Damage,
    master: MasterKey,
    /// Held while counters are read, changed and written back.
    writer: Mutex<()>,
    packs: Mutex<HashMap<PackNumber, Arc<PackRow>>>,
    halted: AtomicBool,
}

/// Damage that this process has found.
#[derive(Default)]
pub(crate) struct Damage {
    /// Packs that are missing on the site, and all of whose blobs are in quarantine.
    pub(crate) lost_packs: Mutex<HashSet<PackNumber>>,
    /// Told each time that blobs were put in quarantine.
    pub(crate) met: Notify,
}

impl Store {
    /// The store of a repository that exists: `descriptor` comes from its site, `master` must fit it.
    pub fn open(parts: Parts, master: MasterKey, descriptor: Descriptor) -> Arc<Self> {
        Arc::new(Self {
            keys: master.seal_keys(descriptor.generation),
            compute: Arc::new(Semaphore::new(parts.cores.max(1))),
            waiting: Arc::new(Semaphore::new(ahead::WAITING)),
            listener: Listener::default(),
            writer: Mutex::default(),
            packs: Mutex::default(),
            halted: AtomicBool::new(false),
            rules: Rules::default(),
            damage: Damage::default(),
            parts,
            descriptor,
            master,
        })
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.descriptor.repository
    }

    /// How its chunks are cut.
    pub fn chunker(&self) -> wire::ChunkerSpec {
        self.descriptor.chunker
    }

    /// Runs `change` while no other task changes counters.
    pub(crate) fn exclusively<T>(&self, change: impl FnOnce() -> T) -> T {
        let _guard = lock(&self.writer);
        change()
    }

    /// Runs `work`, which does not wait for the site, on a thread that may block and compute.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let store = Arc::clone(self);
        on_a_thread(move || work(&store)).await
    }

    /// Runs `work`, which computes and does not wait for the site, on one of as many threads as there are cores.
    pub(crate) async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let turn = Arc::clone(&self.compute).acquire_owned().await.expect("the semaphore is never closed");
        self.blocking(move |store| {
            let _turn = turn;
            work(store)
        })
        .await
    }

    /// Runs `work` on a thread that may block, compute, and [`wait`] for the site: for an operation that looks at many
    /// rows and objects. The work ends at its next wait once this is dropped. Work of such a thread must not need
    /// another one: there are few.
    pub(crate) async fn waiting<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let store = Arc::clone(self);
        ahead::on_a_waiting_thread(&self.waiting, move || work(&store)).await
    }

    /// Fails once the store has halted, and while another server may have its site.
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

    /// Reads a whole object of at most the given length: a site that claims more uses no memory.
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
        self.get(name).await
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`ServerError::Site`] if it could not be read.
    pub(crate) async fn get(&self, name: &ObjectName) -> Result<Bytes, ServerError> {
        self.parts.site.get(name).await.map_err(|error| self.site_error(error))
    }

    /// Reads ranges of an object, in bytes, in their order.
    ///
    /// # Errors
    /// [`ServerError::Site`] if one could not be read.
    pub(crate) async fn get_ranges(
        &self,
        name: &ObjectName,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, ServerError> {
        self.parts.site.get_ranges(name, ranges).await.map_err(|error| self.site_error(error))
    }

    /// The objects of an area of the site.
    ///
    /// # Errors
    /// [`ServerError::Site`] if it could not be listed.
    pub(crate) async fn list(&self, area: Area) -> Result<Vec<Listed>, ServerError> {
        self.parts.site.list(&Prefix::area(area)).await.map_err(|error| self.site_error(error))
    }

    /// Puts an object on the site, durably. Only for one that counts already: all others go through
    /// `catalog::publish`.
    pub(crate) async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), ServerError> {
        let put = self.parts.site.put_new(name, bytes).await;
        put.map(drop).map_err(|error| self.site_error(error))
    }

    /// Acknowledges nothing any more: the disk cannot be trusted.
    pub(crate) fn halt(&self, error: &dyn Error) {
        if !self.halted.swap(true, Ordering::AcqRel) {
            (self.parts.on_halt)(error);
        }
    }

    /// 32 fresh random bytes.
    pub(crate) fn salt(&self) -> [u8; 32] {
        let mut salt = [0; 32];
        (self.parts.random)(&mut salt);
        salt
    }
}

/// Runs `work` on a thread that may block and compute.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ServerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(ServerError::Bug("a worker thread panicked")))
}
