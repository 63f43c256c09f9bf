//! A repository in memory, for unit tests.

use std::sync::Arc;

use bytes::Bytes;
use format_spec::RepositoryId;
use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::wire::ChunkerSpec;
use futures_util::FutureExt;

use super::{Parts, Store};
use crate::clock::{Clock, SystemClock};
use crate::index::{Index, MemoryIndex};
use crate::server::Server;
use crate::settings::Choices;
use crate::settings::Upkeep;
use crate::site::layout::descriptor_object;
use crate::site::{Site, StoreSite};
use crate::site_lock::SiteLock;
use crate::space::Space;

impl Default for Parts {
    /// All in memory, but for the clock; halting is a panic.
    fn default() -> Self {
        Self {
            index: Arc::new(MemoryIndex::new()),
            site: Arc::new(StoreSite::memory()),
            lock: SiteLock::none(),
            clock: Arc::new(SystemClock::new()),
            random: |bytes| getrandom::fill(bytes).unwrap(),
            on_halt: Arc::new(|error| panic!("halted: {error}")),
            space: Space::unlimited(),
            upkeep: Upkeep::default(),
            scratch: std::env::temp_dir(),
            engine: "memory",
            cores: 1,
            memory_bytes: 64 << 20,
        }
    }
}

impl Parts {
    /// The same over another index.
    pub(crate) fn over(self, index: impl Index + 'static) -> Self {
        Self { index: Arc::new(index), ..self }
    }

    /// The same with another clock.
    pub(crate) fn at(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same with other room.
    pub(crate) fn with_space(self, space: Space) -> Self {
        Self { space, ..self }
    }

    /// The store, as one process sees it.
    pub(crate) fn start(self) -> Arc<Store> {
        describe(self.site.as_ref());
        Store::open(self, master(), descriptor())
    }

    /// The server of one process.
    pub(crate) fn serve(self) -> Arc<Server> {
        describe(self.site.as_ref());
        Server::open(self, Choices::default(), master(), descriptor()).unwrap()
    }
}

/// The key of repositories in memory.
pub(crate) fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

/// The descriptor of repositories in memory.
pub(crate) fn descriptor() -> Descriptor {
    Descriptor::new(RepositoryId::from_bytes([1; 16]), &master(), ChunkerSpec::Fixed { len: 4096 })
}

/// Puts the descriptor on a site in memory, as on every site of a repository.
pub(crate) fn describe(site: &dyn Site) {
    let name = descriptor_object();
    let is_there = site.len(&name).now_or_never().is_some_and(|found| found.is_ok());
    if !is_there {
        let put = site.put_new(&name, Bytes::from(descriptor().encode())).now_or_never();
        put.expect("memory answers at once").unwrap();
    }
}
