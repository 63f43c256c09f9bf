use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::RepositoryId;
use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::wire::ChunkerSpec;

use super::*;
use crate::index::MemoryIndex;
use crate::repository::Parts;
use crate::site::StoreSite;

/// A clock that stands still until it is told to move.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

/// A repository over `index`, as one process sees it.
fn start(index: &MemoryIndex, clock: &Arc<ManualClock>) -> Arc<Repository> {
    let master = MasterKey::from_bytes([7; 32]);
    let descriptor =
        Descriptor::new(RepositoryId::from_bytes([1; 16]), &master, ChunkerSpec::Fixed { len: 4096 });
    let parts = Parts {
        index: Arc::new(index.clone()),
        site: Arc::new(StoreSite::memory()),
        clock: Arc::<ManualClock>::clone(clock),
        random: fill_random,
        on_halt: Arc::new(|error| panic!("halted: {error}")),
        engine: "memory",
        cores: 1,
    };
    Repository::open(parts, master, descriptor).unwrap()
}

fn world() -> (MemoryIndex, Arc<ManualClock>) {
    (MemoryIndex::new(), Arc::default())
}

fn grant(repository: &Repository) -> (SessionId, SessionRow) {
    open(repository, "c".parse().unwrap(), "n".parse().unwrap()).unwrap()
}

/// L1: a restart forgets no token.
#[test]
fn tokens_grow_across_restarts() {
    let (index, clock) = world();
    let first = grant(&start(&index, &clock)).1.token;

    let second = grant(&start(&index, &clock)).1.token;
    let third = grant(&start(&index, &clock)).1.token;

    assert!(first < second && second < third, "{first} {second} {third}");
}

/// L1: what is handed out is in the index already.
#[test]
fn a_token_is_stored_before_it_is_returned() {
    let (index, clock) = world();

    let (id, row) = grant(&start(&index, &clock));

    let stored = index.get(Table::Meta, TOKEN_KEY).unwrap().unwrap();
    assert_eq!(stored, row.token.to_le_bytes());
    assert_eq!(index.get(Table::Session, id.as_bytes()).unwrap().unwrap(), row.encode());
}

/// L3: an expired session stays expired, whoever asks and however soon it is swept.
#[test]
fn a_session_lives_while_it_is_used_and_never_after_its_time() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (id, _) = grant(&repository);

    for _ in 0..5 {
        clock.advance(TTL - Duration::from_millis(1));
        renew(&repository, id).unwrap();
    }
    clock.advance(TTL);

    assert!(matches!(renew(&repository, id), Err(ServerError::SessionOver(over)) if over == id));
    assert_eq!(expire(&repository).unwrap(), 1);
    assert!(matches!(renew(&repository, id), Err(ServerError::SessionOver(_))));
    assert_eq!(index.get(Table::Session, id.as_bytes()).unwrap(), None);
}

/// L3: nobody loses a session because the server was away.
#[test]
fn a_restart_gives_each_open_session_its_full_time() {
    let (index, clock) = world();
    let (id, row) = grant(&start(&index, &clock));
    clock.advance(TTL * 10);

    let repository = start(&index, &clock);
    clock.advance(TTL - Duration::from_millis(1));

    assert_eq!(renew(&repository, id).unwrap(), row);
}

/// L2: a row that is not as it was granted is left alone.
#[test]
fn ending_a_session_that_has_committed_keeps_its_row() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (id, row) = grant(&repository);
    let snapshot = SnapshotId::from_bytes([9; 16]);
    let state = SessionState::Committed { snapshot, at_ms: clock.unix_ms() };
    let mut batch = Batch::new();
    batch.put(Table::Session, *id.as_bytes(), SessionRow { state, ..row }.encode());
    index.commit(batch).unwrap();

    abort(&repository, id).unwrap();

    assert_eq!(committed(&repository, id).unwrap(), Some(snapshot));
    clock.advance(Duration::from_millis(DONE_KEPT_MS + 1));
    expire(&repository).unwrap();
    assert_eq!(committed(&repository, id).unwrap(), None);
}

#[test]
fn an_aborted_session_is_over() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (id, _) = grant(&repository);

    abort(&repository, id).unwrap();
    abort(&repository, id).unwrap();

    assert!(matches!(renew(&repository, id), Err(ServerError::SessionOver(_))));
    assert_eq!(repository.sessions.count(), 0);
}
