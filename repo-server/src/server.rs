//! State of a running server in memory beside its store: sessions, open packs, names in flight, leases.
//!
//! A crash at any moment loses all of it, and the next [`Server`] finds each snapshot whole or not at all (S1 to S4).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::snapshot::Snapshot;
use format_spec::{ClusterName, RepositoryId};
use tokio::sync::Semaphore;

use crate::catalog::{InFlight, PackSums};
use crate::error::ServerError;
use crate::health::clock::ClockWatch;
use crate::index::{KeyRange, Table};
use crate::lease::Leases;
use crate::pack::{OpenDomain, OpenDomains};
use crate::session::Sessions;
use crate::settings::Choices;
use crate::store::{Budget, Parts, Store, on_a_thread};

/// Manifests that may be decoded at once: each may take a gigabyte.
const DECODING: usize = 1;

/// One running server. Shared by all requests.
pub struct Server {
    pub(crate) store: Arc<Store>,
    pub(crate) sessions: Sessions,
    /// Packs that are not full yet, and who has promised to send which chunk.
    pub(crate) domains: Arc<OpenDomains>,
    /// Objects on their way to the site.
    pub(crate) in_flight: InFlight,
    pub(crate) clock_watch: ClockWatch,
    pub(crate) memory: Memory,
    /// Work that only one task may do at a time.
    pub(crate) leases: Leases,
    /// True once the commits that the last process left were compared with the site and completed.
    pub(crate) is_settled: AtomicBool,
    pub(crate) pack_sums: PackSums,
    /// Counters of this process.
    done: Arc<Done>,
    choices: RwLock<Arc<Choices>>,
    /// The number of the last commit.
    commits: AtomicU64,
}

/// Memory that requests may hold at once.
pub(crate) struct Memory {
    /// For bodies on their way in.
    pub(crate) bodies: Budget,
    /// For blobs on their way out.
    pub(crate) answers: Budget,
    /// Manifests that may be decoded at once.
    pub(crate) decoding: Semaphore,
}

/// Counters of a process, for monitoring.
#[derive(Debug, Default)]
pub struct Done {
    /// Bytes that came in over connections.
    pub received_bytes: AtomicU64,
    /// Bytes that went out over connections.
    pub sent_bytes: AtomicU64,
    /// Requests without a valid credential.
    pub(crate) refused_sign_ins: AtomicU64,
    /// Runs of the collector that came to their end.
    pub(crate) collector_runs: AtomicU64,
    /// Runs of the collector that failed.
    pub(crate) collector_failures: AtomicU64,
}

impl Server {
    /// A server of a repository that exists: `descriptor` comes from its site, `master` must fit it. Sessions that were
    /// open when the last process ended are open again, with their full time to live.
    ///
    /// # Errors
    /// [`ServerError`] if the index cannot be read.
    pub fn open(
        parts: Parts,
        choices: Choices,
        master: MasterKey,
        descriptor: Descriptor,
    ) -> Result<Arc<Self>, ServerError> {
        let store = Store::open(parts, master, descriptor);
        let in_flight = InFlight::default();
        let domains = Arc::new(OpenDomains::new(&store, &in_flight));
        let memory_bytes = store.parts.memory_bytes;
        Ok(Arc::new(Self {
            sessions: Sessions::load(&store, &domains)?,
            commits: AtomicU64::new(last_commit(&store)?),
            domains,
            in_flight,
            clock_watch: ClockWatch::default(),
            memory: Memory {
                bodies: Budget::new(memory_bytes / 2),
                answers: Budget::new(memory_bytes / 2),
                decoding: Semaphore::new(DECODING),
            },
            leases: Leases::new(Arc::clone(&store.parts.clock)),
            is_settled: AtomicBool::new(false),
            pack_sums: PackSums::default(),
            done: Arc::default(),
            choices: RwLock::new(Arc::new(choices)),
            store,
        }))
    }

    /// The id of the repository.
    pub fn id(&self) -> RepositoryId {
        self.store.id()
    }

    /// The store of this server.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The number of a commit that begins now: greater than that of each snapshot that is there.
    pub(crate) fn next_commit(&self) -> u64 {
        self.commits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Current choices.
    pub(crate) fn choices(&self) -> Arc<Choices> {
        Arc::clone(&self.choices.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the choices by `choices`. Running work continues with the old ones.
    pub fn choose(&self, choices: Choices) {
        *self.choices.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(choices);
    }

    /// Counters of this process.
    pub fn done(&self) -> Arc<Done> {
        Arc::clone(&self.done)
    }

    /// The open packs of `cluster`.
    pub(crate) fn domain(&self, cluster: &ClusterName) -> Arc<OpenDomain> {
        self.domains.of(cluster)
    }

    /// Runs `work` on a thread that may block and compute.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let server = Arc::clone(self);
        on_a_thread(move || work(&server)).await
    }

    /// Like [`Store::waiting`], with the server.
    pub(crate) async fn waiting<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let server = Arc::clone(self);
        self.store.waiting(move |_| work(&server)).await
    }
}

/// The greatest number of a commit whose snapshot has a row; 0 if none has one.
fn last_commit(store: &Store) -> Result<u64, ServerError> {
    let mut last = 0;
    store.for_each_row(Table::Snapshot, &KeyRange::all(), |_, value| {
        let snapshot = Snapshot::decode(value);
        let snapshot = snapshot.map_err(|_| ServerError::Row { object: "a snapshot".to_owned() })?;
        last = last.max(snapshot.number.unwrap_or(0));
        Ok(())
    })?;
    Ok(last)
}
