use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcRequest, Held, RunMode};

use super::*;
use crate::index::MemoryIndex;
use crate::pack::Appended;
use crate::pack::have_or_promise;
use crate::store::Parts;
use crate::testing::{ManualClock, Watched, World};

/// A repository over `index`, as one process sees it.
fn start(index: &MemoryIndex, clock: &Arc<ManualClock>) -> Arc<Repository> {
    Parts::default().over(index.clone()).at(Arc::<ManualClock>::clone(clock)).start()
}

fn world() -> (MemoryIndex, Arc<ManualClock>) {
    (MemoryIndex::new(), Arc::default())
}

fn pusher(cluster: &str, node: &str) -> Pusher {
    Pusher { cluster: cluster.parse().unwrap(), node: node.parse().unwrap() }
}

fn grant(repository: &Repository) -> (SessionId, SessionRow) {
    let granted = open(repository, pusher("c", "n"), None).unwrap();
    (granted.id, granted.row)
}

const CHUNK: ChunkId = ChunkId::from_bytes([5; 32]);

/// What a session that waits for others is told of one chunk.
fn ask(repository: &Repository, session: SessionId) -> Result<Held, ServerError> {
    let domain = repository.domain(&"c".parse().unwrap());
    let told = have_or_promise(repository, &domain, session, &[CHUNK])?;
    Ok(told[0])
}

/// Appends that chunk to an open pack. Its content does not matter: it was checked before.
fn append(repository: &Repository) {
    let domain = repository.domain(&"c".parse().unwrap());
    let info = BlobInfo { kind: BlobKind::Chunk, id: CHUNK, plain_len: 5, compression: Compression::Raw };
    let mut blob = Vec::new();
    domain.sealer.seal(&info, b"bytes", &mut blob);
    assert_eq!(domain.append(&info, &blob, &[], domain.indexed()).0, Appended::New);
}

fn commit(index: &MemoryIndex, id: SessionId, row: &SessionRow, at_ms: u64) -> SnapshotId {
    let snapshot = SnapshotId::from_bytes([9; 16]);
    let state = SessionState::Committed { snapshot, at_ms };
    let mut batch = Batch::new();
    batch.put(Table::Session, *id.as_bytes(), SessionRow { state, ..row.clone() }.encode());
    index.commit(batch).unwrap();
    snapshot
}

/// Whoever opens sessions without an end holds back garbage and takes memory.
#[test]
fn a_node_has_no_more_sessions_open_than_it_may() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let first: Vec<SessionId> = (0..MOST_OF_A_NODE).map(|_| grant(&repository).0).collect();
    let refused = || open(&repository, pusher("c", "n"), None);

    assert!(matches!(refused(), Err(ServerError::TooManySessions { .. })));
    assert!(open(&repository, pusher("c", "m"), None).is_ok(), "another node");
    assert!(open(&repository, pusher("d", "n"), None).is_ok(), "another cluster");
    assert_eq!(open(&repository, pusher("c", "n"), Some(first[0])).unwrap().adopted, Some(first[0]));
    abort(&repository, first[1]).unwrap();
    assert!(refused().is_ok(), "one has ended");
    clock.advance(TTL);
    expire(&repository).unwrap();
    assert!(refused().is_ok(), "all have expired");
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
    let snapshot = commit(&index, id, &row, clock.unix_ms());

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

/// L4: the one row goes in the batch that brings the other.
#[test]
fn a_session_that_is_adopted_is_over_and_the_new_one_goes_on() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (old, old_row) = grant(&repository);

    let new = open(&repository, pusher("c", "n"), Some(old)).unwrap();

    assert_eq!(new.adopted, Some(old));
    assert!(new.row.token > old_row.token);
    assert!(matches!(renew(&repository, old), Err(ServerError::SessionOver(over)) if over == old));
    assert_eq!(index.get(Table::Session, old.as_bytes()).unwrap(), None);
    assert_eq!(renew(&repository, new.id).unwrap(), new.row);
    let after_a_restart = start(&index, &clock);
    assert!(renew(&after_a_restart, old).is_err() && renew(&after_a_restart, new.id).is_ok());
}

/// L4: a session is adopted by its own node only.
#[test]
fn a_session_of_another_node_or_cluster_is_left_alone() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (old, row) = grant(&repository);

    for stranger in [pusher("c", "m"), pusher("d", "n")] {
        let new = open(&repository, stranger, Some(old)).unwrap();

        assert_eq!(new.adopted, None);
        assert!(renew(&repository, new.id).is_ok());
    }

    assert_eq!(renew(&repository, old).unwrap(), row);
    assert_eq!(index.get(Table::Session, old.as_bytes()).unwrap(), Some(row.encode()));
}

/// L3, L4: what is not open cannot be adopted, and asking for it is no error.
#[test]
fn a_session_that_is_not_open_is_not_adopted() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (expired, row) = grant(&repository);
    clock.advance(TTL);
    let (aborted, _) = grant(&repository);
    abort(&repository, aborted).unwrap();

    for old in [expired, aborted, SessionId::from_bytes([7; 16])] {
        assert_eq!(open(&repository, pusher("c", "n"), Some(old)).unwrap().adopted, None);
    }

    let kept = index.get(Table::Session, expired.as_bytes()).unwrap();
    assert_eq!(kept, Some(row.encode()), "an expired session is swept, not adopted");
    assert_eq!(repository.sessions.count(), 4);
}

/// L2, L4: a commit that came first stands, and the new session is granted beside it.
#[test]
fn a_session_whose_commit_came_first_is_not_adopted() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (old, row) = grant(&repository);
    let snapshot = commit(&index, old, &row, clock.unix_ms());

    let new = open(&repository, pusher("c", "n"), Some(old)).unwrap();

    assert_eq!(new.adopted, None);
    assert!(new.row.token > row.token);
    assert_eq!(committed(&repository, old).unwrap(), Some(snapshot));
    assert_eq!(renew(&repository, new.id).unwrap(), new.row);
}

/// L4: of two that adopt the same session one does, and both are granted.
#[test]
fn a_session_is_adopted_once() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (old, _) = grant(&repository);

    let first = open(&repository, pusher("c", "n"), Some(old)).unwrap();
    let second = open(&repository, pusher("c", "n"), Some(old)).unwrap();

    assert_eq!((first.adopted, second.adopted), (Some(old), None));
    assert!(renew(&repository, first.id).is_ok() && renew(&repository, second.id).is_ok());
}

/// L5: whichever way a session ends, another is asked to send what it had promised.
#[test]
fn the_end_of_a_session_releases_its_promises() {
    type End = fn(&Repository, SessionId);
    let ends: [(&str, End); 3] = [
        ("commit", |repository, id| drop(forget(repository, id).unwrap())),
        ("abort", |repository, id| abort(repository, id).unwrap()),
        ("adoption", |repository, id| drop(open(repository, pusher("c", "n"), Some(id)).unwrap())),
    ];

    for (how, end) in ends {
        let (index, clock) = world();
        let repository = start(&index, &clock);
        let (first, waiting) = (grant(&repository).0, grant(&repository).0);
        assert_eq!(ask(&repository, first).unwrap(), Held::Missing);
        assert_eq!(ask(&repository, waiting).unwrap(), Held::Coming);

        end(&repository, first);

        assert_eq!(ask(&repository, waiting).unwrap(), Held::Missing, "{how}");
        assert_eq!(ask(&repository, grant(&repository).0).unwrap(), Held::Coming, "{how}");
    }
}

/// L5: a session that asks and then falls silent holds nobody up for long, and what it had promised is
/// forgotten when it expires.
#[test]
fn an_expired_session_has_promised_nothing() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (first, waiting) = (grant(&repository).0, grant(&repository).0);
    let domain = repository.domain(&"c".parse().unwrap());
    clock.advance(TTL - Duration::from_millis(1));
    renew(&repository, waiting).unwrap();
    // As if it had asked a moment before it expired.
    domain.promise(first, &[CHUNK], clock.monotonic());
    assert_eq!(ask(&repository, waiting).unwrap(), Held::Coming);
    clock.advance(Duration::from_millis(1));

    assert_eq!(expire(&repository).unwrap(), 1);

    assert_eq!(ask(&repository, waiting).unwrap(), Held::Missing);
}

/// L4, L5: a question that was on its way when its session ended leaves no promise behind.
#[test]
fn a_session_that_is_over_promises_nothing_any_more() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (old, _) = grant(&repository);
    let new = open(&repository, pusher("c", "n"), Some(old)).unwrap();

    let refused = ask(&repository, old);

    assert!(matches!(refused, Err(ServerError::SessionOver(over)) if over == old));
    assert_eq!(ask(&repository, new.id).unwrap(), Held::Missing);
    assert_eq!(ask(&repository, grant(&repository).0).unwrap(), Held::Coming);
}

/// L5: a promise ends when the chunk waits in a pack.
#[test]
fn a_chunk_that_arrived_is_here_and_promised_by_nobody() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (first, waiting) = (grant(&repository).0, grant(&repository).0);
    let domain = repository.domain(&"c".parse().unwrap());
    assert_eq!(ask(&repository, first).unwrap(), Held::Missing);

    append(&repository);

    assert_eq!(domain.promise(waiting, &[CHUNK], clock.monotonic()), [Held::Missing]);
    assert_eq!(ask(&repository, first).unwrap(), Held::Here, "whatever was promised");
}

#[test]
fn nobody_promises_what_is_here() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (first, other) = (grant(&repository).0, grant(&repository).0);
    let domain = repository.domain(&"c".parse().unwrap());
    append(&repository);

    assert_eq!(ask(&repository, first).unwrap(), Held::Here);

    assert_eq!(domain.promise(other, &[CHUNK], clock.monotonic()), [Held::Missing]);
}

/// A session in whose epoch a chunk became idle, and that alone keeps it.
fn holder() -> (World, crate::testing::Client, ChunkId) {
    let world = World::new();
    let client = world.begin("n");
    let id = world.send(&client, BlobKind::Chunk, b"precious").unwrap();
    world.flush().unwrap();
    (world, client, id)
}

/// G2, L3: an end that could not be written is none: the session still pins, and it is over all the same.
#[test]
fn a_session_pins_as_long_as_its_row_is_there() {
    type End = fn(&World, SessionId) -> Result<(), ServerError>;
    let ends: [(&str, End); 2] = [
        ("expiry", |world, _| {
            world.clock.advance(TTL);
            expire(&world.repository).map(drop)
        }),
        ("abort", |world, id| abort(&world.repository, id)),
    ];
    for (how, end) in ends {
        let (mut world, client, id) = holder();
        world.index.fail_after(0);
        assert!(end(&world, client.id).is_err(), "{how}");
        world.index.heal();

        assert_eq!(world.repository.sessions.oldest_start(), Some(client.row.start), "{how}");
        assert_eq!(renew(&world.repository, client.id).is_err(), how == "expiry", "{how}");
        // A run ends those whose time is over by itself, and first of all.
        let mode = if how == "expiry" { RunMode::Plan } else { RunMode::Apply };
        let report = world.gc_as(GcRequest { mode, delays: Delays::Skip, ..GcRequest::default() });
        assert_eq!(report.unwrap().chunks.count, 0, "{how}: its row is there");
        world.crash();
        let told = world.have(&client, &[id]).unwrap();
        assert_eq!((told, world.rows()), (vec![Held::Here], vec![id]), "{how}: as it was told before");
    }
}

/// L3, L5: an end that could not be written is written the next time, and ends what was promised.
#[test]
fn a_session_whose_end_could_not_be_written_ends_the_next_time() {
    let (index, clock) = (Watched::new(), Arc::<ManualClock>::default());
    let parts = Parts::default().over(index.clone()).at(Arc::<ManualClock>::clone(&clock));
    let repository = parts.start();
    let over = [grant(&repository).0, grant(&repository).0];
    ask(&repository, over[0]).unwrap();
    clock.advance(TTL);
    let open = grant(&repository).0;

    index.fail_after(1);
    expire(&repository).unwrap_err();
    let rows = |ids: &[SessionId]| {
        let row = |id: &&SessionId| index.get(Table::Session, id.as_bytes()).unwrap().is_some();
        ids.iter().filter(row).count()
    };
    let cut = (rows(&over), repository.sessions.count());
    index.heal();
    let ended = expire(&repository).unwrap();

    assert_eq!((cut, ended), ((1, 2), 1), "one of two had ended");
    assert_eq!((rows(&over), rows(&[open]), repository.sessions.count()), (0, 1, 1));
    assert_eq!(ask(&repository, open).unwrap(), Held::Missing);
}

/// An index that shows what else is going on while the row of a session goes.
struct AtTheEnd {
    inner: MemoryIndex,
    look: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Index for AtTheEnd {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.inner.multi_get(table, keys)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        limit: NonZeroUsize,
    ) -> Result<crate::index::Rows, IndexError> {
        self.inner.scan(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        let look = lock(&self.look).take();
        if let Some(look) = look {
            look();
        }
        self.inner.commit(batch)
    }
}

/// L3, L4, G2: while the row of an expired session goes, it pins, and nobody renews or adopts it.
#[test]
fn an_expired_session_is_not_renewed_while_its_row_goes() {
    let (inner, clock) = world();
    let index = Arc::new(AtTheEnd { inner, look: Mutex::default() });
    let parts = Parts { index: Arc::<AtTheEnd>::clone(&index), ..Parts::default() };
    let repository = parts.at(Arc::<ManualClock>::clone(&clock)).start();
    let (id, row) = grant(&repository);
    clock.advance(TTL);
    let (seen, beside) = (Arc::new(Mutex::new(None)), Arc::clone(&repository));
    let told = Arc::clone(&seen);
    let look = move || {
        let renewed = renew(&beside, id).is_ok();
        let start = beside.sessions.oldest_start();
        let adopted = open(&beside, pusher("c", "n"), Some(id)).unwrap().adopted;
        *lock(&told) = Some((renewed, start, adopted));
    };
    *lock(&index.look) = Some(Box::new(look));

    let ended = expire(&repository).unwrap();

    assert_eq!(*lock(&seen), Some((false, Some(row.start), None)));
    assert_eq!((ended, repository.sessions.count()), (1, 1));
    assert_eq!(index.get(Table::Session, id.as_bytes()).unwrap(), None);
}

/// L4, L5: of an end and an adoption at once one comes first, and the session is over either way.
#[test]
fn a_session_that_is_adopted_while_it_is_ended_is_over() {
    let (inner, clock) = world();
    let index = Arc::new(AtTheEnd { inner, look: Mutex::default() });
    let parts = Parts { index: Arc::<AtTheEnd>::clone(&index), ..Parts::default() };
    let repository = parts.at(Arc::<ManualClock>::clone(&clock)).start();
    let (old, _) = grant(&repository);
    let (new, beside) = (Arc::new(Mutex::new(None)), Arc::clone(&repository));
    let told = Arc::clone(&new);
    let look = move || *lock(&told) = Some(open(&beside, pusher("c", "n"), Some(old)).unwrap());
    *lock(&index.look) = Some(Box::new(look));

    abort(&repository, old).unwrap();

    let new = lock(&new).take().unwrap();
    assert_eq!(new.adopted, Some(old));
    assert!(renew(&repository, old).is_err());
    assert_eq!(renew(&repository, new.id).unwrap(), new.row);
    assert_eq!(index.get(Table::Session, old.as_bytes()).unwrap(), None);
}

/// L3: no session lives for ever, however often it is renewed.
#[test]
fn a_session_that_is_renewed_ends_after_a_day_all_the_same() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (id, row) = grant(&repository);
    for _ in 0..LIFE.as_secs() / 100 {
        renew(&repository, id).unwrap();
        clock.advance(Duration::from_secs(100));
    }

    assert!(matches!(renew(&repository, id), Err(ServerError::SessionOver(_))));

    let listed = repository.sessions.list(clock.monotonic());
    assert_eq!(listed, [Listed { id, row, age: LIFE, sent_bytes: 0 }]);
    assert_eq!(expire(&repository).unwrap(), 1);
    assert_eq!(repository.sessions.list(clock.monotonic()), []);
}

/// C5: what a push has sent that never ended is stored, and nothing of its cluster stays in memory.
#[tokio::test]
async fn open_packs_of_a_cluster_without_sessions_are_stored() {
    let (index, clock) = world();
    let repository = start(&index, &clock);
    let (id, _) = grant(&repository);
    append(&repository);

    crate::background::store_left_packs(&repository).await;
    assert_eq!(repository.domains().len(), 1, "its session is open");
    assert!(index.get(Table::Chunk, CHUNK.as_bytes()).unwrap().is_none());

    abort(&repository, id).unwrap();
    crate::background::store_left_packs(&repository).await;
    assert!(index.get(Table::Chunk, CHUNK.as_bytes()).unwrap().is_some());
    assert!(repository.domains().is_empty());
}
