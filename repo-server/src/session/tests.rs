use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcRequest, Held, RunMode};

use super::*;
use crate::clock::Clock;
use crate::index::MemoryIndex;
use crate::server::Server;

use crate::store::Parts;
use crate::testing::{ManualClock, Watched, World};

/// A repository over `index`, as one process sees it.
fn start(index: &MemoryIndex, clock: &Arc<ManualClock>) -> Arc<Server> {
    Parts::default().over(index.clone()).at(Arc::<ManualClock>::clone(clock)).serve()
}

fn world() -> (MemoryIndex, Arc<ManualClock>) {
    (MemoryIndex::new(), Arc::default())
}

fn pusher(cluster: &str, node: &str) -> Pusher {
    Pusher { cluster: cluster.parse().unwrap(), node: node.parse().unwrap() }
}

fn grant(server: &Server) -> (SessionId, SessionRow) {
    let granted = open(&server.sessions, pusher("c", "n"), None).unwrap();
    (granted.id, granted.row)
}

const CHUNK: ChunkId = ChunkId::from_bytes([5; 32]);

/// Answer to a session that waits for others, about one chunk.
fn ask(server: &Server, session: SessionId) -> Result<Held, ServerError> {
    let domain = server.domain(&"c".parse().unwrap());
    let told = have_or_promise(&server.sessions, &domain, session, &[CHUNK])?;
    Ok(told[0])
}

/// Appends that chunk to an open pack. Its content does not matter: it was checked before.
fn append(server: &Server) {
    let domain = server.domain(&"c".parse().unwrap());
    let info = BlobInfo { kind: BlobKind::Chunk, id: CHUNK, plain_len: 5, compression: Compression::Raw };
    let mut blob = Vec::new();
    domain.keys.sealer.seal(&info, b"bytes", &mut blob);
    assert_eq!(domain.append(&info, &blob, &[], domain.indexed()).0, crate::pack::Appended::New);
}

fn commit(index: &MemoryIndex, id: SessionId, row: &SessionRow, at_ms: u64) -> SnapshotId {
    let snapshot = SnapshotId::from_bytes([9; 16]);
    let state = SessionState::Committed { snapshot, at_ms };
    let mut batch = Batch::new();
    batch.put(Table::Session, *id.as_bytes(), SessionRow { state, ..row.clone() }.encode());
    index.commit(batch).unwrap();
    snapshot
}

/// Sessions without a limit would hold back garbage and use memory.
#[test]
fn a_node_has_no_more_sessions_open_than_it_may() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let first: Vec<SessionId> = (0..MOST_OF_A_NODE).map(|_| grant(&server).0).collect();
    let refused = || open(&server.sessions, pusher("c", "n"), None);

    assert!(matches!(refused(), Err(ServerError::TooManySessions { .. })));
    assert!(open(&server.sessions, pusher("c", "m"), None).is_ok(), "another node");
    assert!(open(&server.sessions, pusher("d", "n"), None).is_ok(), "another cluster");
    assert_eq!(open(&server.sessions, pusher("c", "n"), Some(first[0])).unwrap().adopted, Some(first[0]));
    abort(&server.sessions, first[1], |_| true).unwrap();
    assert!(refused().is_ok(), "one has ended");
    clock.advance(TTL);
    expire(&server.sessions).unwrap();
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
    let server = start(&index, &clock);
    let (id, _) = grant(&server);

    for _ in 0..5 {
        clock.advance(TTL - Duration::from_millis(1));
        renew(&server.sessions, id).unwrap();
    }
    clock.advance(TTL);

    assert!(matches!(renew(&server.sessions, id), Err(ServerError::SessionOver(over)) if over == id));
    assert_eq!(expire(&server.sessions).unwrap(), 1);
    assert!(matches!(renew(&server.sessions, id), Err(ServerError::SessionOver(_))));
    assert_eq!(index.get(Table::Session, id.as_bytes()).unwrap(), None);
}

/// L3: nobody loses a session because the server was away.
#[test]
fn a_restart_gives_each_open_session_its_full_time() {
    let (index, clock) = world();
    let (id, row) = grant(&start(&index, &clock));
    clock.advance(TTL * 10);

    let server = start(&index, &clock);
    clock.advance(TTL - Duration::from_millis(1));

    assert_eq!(renew(&server.sessions, id).unwrap(), row);
}

/// L2: a row that is not as it was granted is left alone.
#[test]
fn ending_a_session_that_has_committed_keeps_its_row() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (id, row) = grant(&server);
    let snapshot = commit(&index, id, &row, clock.unix_ms());

    abort(&server.sessions, id, |_| true).unwrap();

    assert_eq!(committed(&server.store, id).unwrap(), Some(snapshot));
    clock.advance(Duration::from_millis(DONE_KEPT_MS + 1));
    expire(&server.sessions).unwrap();
    assert_eq!(committed(&server.store, id).unwrap(), None);
}

#[test]
fn an_aborted_session_is_over() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (id, _) = grant(&server);

    abort(&server.sessions, id, |_| true).unwrap();
    abort(&server.sessions, id, |_| true).unwrap();

    assert!(matches!(renew(&server.sessions, id), Err(ServerError::SessionOver(_))));
    assert_eq!(server.sessions.count(), 0);
}

/// L4: the one row goes in the batch that brings the other.
#[test]
fn a_session_that_is_adopted_is_over_and_the_new_one_goes_on() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (old, old_row) = grant(&server);

    let new = open(&server.sessions, pusher("c", "n"), Some(old)).unwrap();

    assert_eq!(new.adopted, Some(old));
    assert!(new.row.token > old_row.token);
    assert!(matches!(renew(&server.sessions, old), Err(ServerError::SessionOver(over)) if over == old));
    assert_eq!(index.get(Table::Session, old.as_bytes()).unwrap(), None);
    assert_eq!(renew(&server.sessions, new.id).unwrap(), new.row);
    let after_a_restart = start(&index, &clock);
    assert!(
        renew(&after_a_restart.sessions, old).is_err() && renew(&after_a_restart.sessions, new.id).is_ok()
    );
}

/// L4: a session is adopted by its own node only.
#[test]
fn a_session_of_another_node_or_cluster_is_left_alone() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (old, row) = grant(&server);

    for stranger in [pusher("c", "m"), pusher("d", "n")] {
        let new = open(&server.sessions, stranger, Some(old)).unwrap();

        assert_eq!(new.adopted, None);
        assert!(renew(&server.sessions, new.id).is_ok());
    }

    assert_eq!(renew(&server.sessions, old).unwrap(), row);
    assert_eq!(index.get(Table::Session, old.as_bytes()).unwrap(), Some(row.encode()));
}

/// L3, L4: what is not open cannot be adopted, and asking for it is no error.
#[test]
fn a_session_that_is_not_open_is_not_adopted() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (expired, row) = grant(&server);
    clock.advance(TTL);
    let (aborted, _) = grant(&server);
    abort(&server.sessions, aborted, |_| true).unwrap();

    for old in [expired, aborted, SessionId::from_bytes([7; 16])] {
        assert_eq!(open(&server.sessions, pusher("c", "n"), Some(old)).unwrap().adopted, None);
    }

    let kept = index.get(Table::Session, expired.as_bytes()).unwrap();
    assert_eq!(kept, Some(row.encode()), "an expired session is swept, not adopted");
    assert_eq!(server.sessions.count(), 4);
}

/// L2, L4: a commit that came first stands, and the new session is granted beside it.
#[test]
fn a_session_whose_commit_came_first_is_not_adopted() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (old, row) = grant(&server);
    let snapshot = commit(&index, old, &row, clock.unix_ms());

    let new = open(&server.sessions, pusher("c", "n"), Some(old)).unwrap();

    assert_eq!(new.adopted, None);
    assert!(new.row.token > row.token);
    assert_eq!(committed(&server.store, old).unwrap(), Some(snapshot));
    assert_eq!(renew(&server.sessions, new.id).unwrap(), new.row);
}

/// L4: of two that adopt the same session one does, and both are granted.
#[test]
fn a_session_is_adopted_once() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (old, _) = grant(&server);

    let first = open(&server.sessions, pusher("c", "n"), Some(old)).unwrap();
    let second = open(&server.sessions, pusher("c", "n"), Some(old)).unwrap();

    assert_eq!((first.adopted, second.adopted), (Some(old), None));
    assert!(renew(&server.sessions, first.id).is_ok() && renew(&server.sessions, second.id).is_ok());
}

/// L5: whichever way a session ends, another is asked to send what it had promised.
#[test]
fn the_end_of_a_session_releases_its_promises() {
    type End = fn(&Server, SessionId);
    let ends: [(&str, End); 3] = [
        ("commit", |server, id| drop(forget(&server.sessions, id).unwrap())),
        ("abort", |server, id| abort(&server.sessions, id, |_| true).unwrap()),
        ("adoption", |server, id| drop(open(&server.sessions, pusher("c", "n"), Some(id)).unwrap())),
    ];

    for (how, end) in ends {
        let (index, clock) = world();
        let server = start(&index, &clock);
        let (first, waiting) = (grant(&server).0, grant(&server).0);
        assert_eq!(ask(&server, first).unwrap(), Held::Missing);
        assert_eq!(ask(&server, waiting).unwrap(), Held::Coming);

        end(&server, first);

        assert_eq!(ask(&server, waiting).unwrap(), Held::Missing, "{how}");
        assert_eq!(ask(&server, grant(&server).0).unwrap(), Held::Coming, "{how}");
    }
}

/// L5: a session that asks and then falls silent holds nobody up for long, and what it had promised is
/// forgotten when it expires.
#[test]
fn an_expired_session_has_promised_nothing() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (first, waiting) = (grant(&server).0, grant(&server).0);
    let domain = server.domain(&"c".parse().unwrap());
    clock.advance(TTL - Duration::from_millis(1));
    renew(&server.sessions, waiting).unwrap();
    // Simulates a request a moment before the session expired.
    domain.promise(first, &[CHUNK], clock.monotonic());
    assert_eq!(ask(&server, waiting).unwrap(), Held::Coming);
    clock.advance(Duration::from_millis(1));

    assert_eq!(expire(&server.sessions).unwrap(), 1);

    assert_eq!(ask(&server, waiting).unwrap(), Held::Missing);
}

/// L4, L5: a question that was on its way when its session ended leaves no promise behind.
#[test]
fn a_session_that_is_over_promises_nothing_any_more() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (old, _) = grant(&server);
    let new = open(&server.sessions, pusher("c", "n"), Some(old)).unwrap();

    let refused = ask(&server, old);

    assert!(matches!(refused, Err(ServerError::SessionOver(over)) if over == old));
    assert_eq!(ask(&server, new.id).unwrap(), Held::Missing);
    assert_eq!(ask(&server, grant(&server).0).unwrap(), Held::Coming);
}

/// L5: a promise ends when the chunk waits in a pack.
#[test]
fn a_chunk_that_arrived_is_here_and_promised_by_nobody() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (first, waiting) = (grant(&server).0, grant(&server).0);
    let domain = server.domain(&"c".parse().unwrap());
    assert_eq!(ask(&server, first).unwrap(), Held::Missing);

    append(&server);

    assert_eq!(domain.promise(waiting, &[CHUNK], clock.monotonic()), [Held::Missing]);
    assert_eq!(ask(&server, first).unwrap(), Held::Here, "whatever was promised");
}

#[test]
fn nobody_promises_what_is_here() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (first, other) = (grant(&server).0, grant(&server).0);
    let domain = server.domain(&"c".parse().unwrap());
    append(&server);

    assert_eq!(ask(&server, first).unwrap(), Held::Here);

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
            expire(&world.server.sessions).map(drop)
        }),
        ("abort", |world, id| abort(&world.server.sessions, id, |_| true)),
    ];
    for (how, end) in ends {
        let (mut world, client, id) = holder();
        world.index.fail_after(0);
        assert!(end(&world, client.id).is_err(), "{how}");
        world.index.heal();

        assert_eq!(world.server.sessions.oldest_start(), Some(client.row.start), "{how}");
        assert_eq!(renew(&world.server.sessions, client.id).is_err(), how == "expiry", "{how}");
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
    let server = parts.serve();
    let over = [grant(&server).0, grant(&server).0];
    ask(&server, over[0]).unwrap();
    clock.advance(TTL);
    let open = grant(&server).0;

    index.fail_after(1);
    expire(&server.sessions).unwrap_err();
    let rows = |ids: &[SessionId]| {
        let row = |id: &&SessionId| index.get(Table::Session, id.as_bytes()).unwrap().is_some();
        ids.iter().filter(row).count()
    };
    let cut = (rows(&over), server.sessions.count());
    index.heal();
    let ended = expire(&server.sessions).unwrap();

    assert_eq!((cut, ended), ((1, 2), 1), "one of two had ended");
    assert_eq!((rows(&over), rows(&[open]), server.sessions.count()), (0, 1, 1));
    assert_eq!(ask(&server, open).unwrap(), Held::Missing);
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
    let server = parts.at(Arc::<ManualClock>::clone(&clock)).serve();
    let (id, row) = grant(&server);
    clock.advance(TTL);
    let (seen, beside) = (Arc::new(Mutex::new(None)), Arc::clone(&server));
    let told = Arc::clone(&seen);
    let look = move || {
        let renewed = renew(&beside.sessions, id).is_ok();
        let start = beside.sessions.oldest_start();
        let adopted = open(&beside.sessions, pusher("c", "n"), Some(id)).unwrap().adopted;
        *lock(&told) = Some((renewed, start, adopted));
    };
    *lock(&index.look) = Some(Box::new(look));

    let ended = expire(&server.sessions).unwrap();

    assert_eq!(*lock(&seen), Some((false, Some(row.start), None)));
    assert_eq!((ended, server.sessions.count()), (1, 1));
    assert_eq!(index.get(Table::Session, id.as_bytes()).unwrap(), None);
}

/// L4, L5: of an end and an adoption at once one comes first, and the session is over either way.
#[test]
fn a_session_that_is_adopted_while_it_is_ended_is_over() {
    let (inner, clock) = world();
    let index = Arc::new(AtTheEnd { inner, look: Mutex::default() });
    let parts = Parts { index: Arc::<AtTheEnd>::clone(&index), ..Parts::default() };
    let server = parts.at(Arc::<ManualClock>::clone(&clock)).serve();
    let (old, _) = grant(&server);
    let (new, beside) = (Arc::new(Mutex::new(None)), Arc::clone(&server));
    let told = Arc::clone(&new);
    let look = move || *lock(&told) = Some(open(&beside.sessions, pusher("c", "n"), Some(old)).unwrap());
    *lock(&index.look) = Some(Box::new(look));

    abort(&server.sessions, old, |_| true).unwrap();

    let new = lock(&new).take().unwrap();
    assert_eq!(new.adopted, Some(old));
    assert!(renew(&server.sessions, old).is_err());
    assert_eq!(renew(&server.sessions, new.id).unwrap(), new.row);
    assert_eq!(index.get(Table::Session, old.as_bytes()).unwrap(), None);
}

/// L3: no session lives for ever, however often it is renewed.
#[test]
fn a_session_that_is_renewed_ends_after_a_day_all_the_same() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (id, row) = grant(&server);
    for _ in 0..LIFE.as_secs() / 100 {
        renew(&server.sessions, id).unwrap();
        clock.advance(Duration::from_secs(100));
    }

    assert!(matches!(renew(&server.sessions, id), Err(ServerError::SessionOver(_))));

    let listed = server.sessions.list(clock.monotonic());
    assert_eq!(listed, [Listed { id, row, age: LIFE, sent_bytes: 0 }]);
    assert_eq!(expire(&server.sessions).unwrap(), 1);
    assert_eq!(server.sessions.list(clock.monotonic()), []);
}

/// C5: what a push has sent that never ended is stored, and nothing of its cluster stays in memory.
#[tokio::test]
async fn open_packs_of_a_cluster_without_sessions_are_stored() {
    let (index, clock) = world();
    let server = start(&index, &clock);
    let (id, _) = grant(&server);
    append(&server);

    crate::background::store_left_packs(&server).await;
    assert_eq!(server.domains.all().len(), 1, "its session is open");
    assert!(index.get(Table::Chunk, CHUNK.as_bytes()).unwrap().is_none());

    abort(&server.sessions, id, |_| true).unwrap();
    crate::background::store_left_packs(&server).await;
    assert!(index.get(Table::Chunk, CHUNK.as_bytes()).unwrap().is_some());
    assert!(server.domains.all().is_empty());
}
