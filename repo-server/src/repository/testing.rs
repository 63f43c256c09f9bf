//! A repository in memory, for unit tests.

use std::sync::Arc;

use format_spec::RepositoryId;
use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::wire::ChunkerSpec;

use super::{Parts, Repository};
use crate::clock::{Clock, SystemClock};
use crate::index::{Index, MemoryIndex};
use crate::settings::Upkeep;
use crate::site::StoreSite;
use crate::space::Space;

impl Default for Parts {
    /// All in memory, but for the clock; halting is a panic.
    fn default() -> Self {
        Self {
            index: Arc::new(MemoryIndex::new()),
            site: Arc::new(StoreSite::memory()),
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

    /// The repository, as one process sees it.
    pub(crate) fn start(self) -> Arc<Repository> {
        let master = MasterKey::from_bytes([7; 32]);
        let chunker = ChunkerSpec::Fixed { len: 4096 };
        let descriptor = Descriptor::new(RepositoryId::from_bytes([1; 16]), &master, chunker);
        Repository::open(self, master, descriptor).unwrap()
    }
}
