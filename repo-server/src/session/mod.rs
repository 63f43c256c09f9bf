//! Sessions: one push in progress each. A lease on the server's monotonic clock, with a fencing token.
//!
//! | id | promise |
//! |---|---|
//! | L1 | a token is on disk before it is handed out, and greater than all before it |
//! | L2 | a commit is applied only while its session's row is as it was granted |
//! | L3 | an expired session is never renewed; after a restart each open one gets its full time; none lives longer than a day |
//! | L4 | a session that was adopted is over: what its former client sends later changes nothing |
//!
//! Whichever way a session ends, what it had promised to send (L5) is released.
//!
//! The session id is also the idempotency key of its commit: a session commits once, and asking again
//! gives the same snapshot.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use format_spec::wire::{Frame, Held};
use format_spec::{ChunkId, ClusterName, NodeName, SessionId, SnapshotId};

use crate::error::ServerError;
use crate::health::gate;
use crate::index::{Batch, Index, IndexError, KeyRange, Precondition, Row, Table};
use crate::lease::{Grant, Table as LeaseTable, Term, Token};
use crate::pack::{self, OpenDomain, OpenDomains};
use crate::rows::{DoomedKey, Epoch, Meta, SessionRow, SessionState};
use crate::rules::Rule;
use crate::store::Store;
use crate::sync::lock;

/// How long a session lives after its last request.
pub(crate) const TTL: Duration = Duration::from_secs(120);

/// Longest life of a session: while it is open, garbage of its time is kept (G3).
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Sessions that one node may have open at once. An abandoned one expires after [`TTL`].
pub(crate) const MOST_OF_A_NODE: usize = 64;

/// How long the row of a committed session is kept, for clients that ask again.
const DONE_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

const TOKEN_KEY: &[u8] = Meta::FencingToken.bytes();

struct Open {
    row: SessionRow,
    /// Bytes of blobs that it has sent to this process.
    sent_bytes: u64,
    attempts: Attempts,
}

impl Open {
    fn new(row: SessionRow) -> Self {
        Self { row, sent_bytes: 0, attempts: Attempts::default() }
    }
}

/// Leases of the sessions that are open, from their grant or the start of this process on. One that is over stays
/// until its row is deleted.
type OpenSessions = LeaseTable<SessionId, Open>;

fn insert(open: &mut OpenSessions, id: SessionId, row: SessionRow, now: Duration) -> Result<(), ServerError> {
    let token = Token(row.token);
    open.grant(id, Open::new(row), token, now).map_err(|_| ServerError::Bug("two open sessions have one id"))
}

/// An open session, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: SessionId,
    pub(crate) row: SessionRow,
    /// Since it was granted, or since this process began if that is less.
    pub(crate) age: Duration,
    pub(crate) sent_bytes: u64,
}

/// The commits of a session, one at a time: who has the lock tries. The name of the snapshot that the last attempt
/// of this process has announced.
pub(crate) type Attempts = Arc<tokio::sync::Mutex<Option<DoomedKey>>>;

/// The sessions that are open now.
pub(crate) struct Sessions {
    store: Arc<Store>,
    domains: Arc<OpenDomains>,
    open: Mutex<OpenSessions>,
}

impl Sessions {
    /// The sessions that were open when the last process ended, each with its full time to live.
    pub(crate) fn load(store: &Arc<Store>, domains: &Arc<OpenDomains>) -> Result<Self, ServerError> {
        let now = store.parts.clock.monotonic();
        let mut rows = Vec::new();
        for_each(store.parts.index.as_ref(), |id, row| {
            if row.state == SessionState::Open {
                rows.push((id, row));
            }
        })?;
        let mut open = OpenSessions::new(Term::Renewed { ttl: TTL, life: LIFE });
        for (id, row) in rows {
            insert(&mut open, id, row, now)?;
        }
        Ok(Self { store: Arc::clone(store), domains: Arc::clone(domains), open: Mutex::new(open) })
    }

    /// The oldest start of an open session: data that is idle since then or later is kept. None: no session
    /// is open.
    pub(crate) fn oldest_start(&self) -> Option<Epoch> {
        lock(&self.open).iter().map(|(_, session)| session.holder.row.start).min()
    }

    /// The sessions that are open, the oldest first.
    pub(crate) fn rows(&self) -> Vec<(SessionId, SessionRow)> {
        let open = lock(&self.open);
        let mut rows: Vec<_> = open.iter().map(|(id, session)| (*id, session.holder.row.clone())).collect();
        drop(open);
        rows.sort_by_key(|(id, row)| (row.start, *id));
        rows
    }

    /// How long ago a session that is open was granted, or known again by a server that started.
    pub(crate) fn age(&self, id: SessionId, now: Duration) -> Option<Duration> {
        lock(&self.open).get(&id).map(|open| now.saturating_sub(open.since))
    }

    /// The sessions that are open, the oldest first, as they are at `now`.
    pub(crate) fn list(&self, now: Duration) -> Vec<Listed> {
        let mut listed: Vec<Listed> = lock(&self.open)
            .iter()
            .map(|(id, Grant { holder: open, since, .. })| {
                let age = now.saturating_sub(*since);
                Listed { id: *id, row: open.row.clone(), age, sent_bytes: open.sent_bytes }
            })
            .collect();
        listed.sort_by_key(|listed| (listed.row.token, listed.id));
        listed
    }

    /// The clusters that have an open session.
    pub(crate) fn clusters(&self) -> HashSet<ClusterName> {
        lock(&self.open).iter().map(|(_, session)| session.holder.row.cluster.clone()).collect()
    }

    /// How many sessions of one node are open.
    fn count_of(&self, pusher: &Pusher) -> usize {
        let open = lock(&self.open);
        open.iter().filter(|(_, session)| pusher.has(&session.holder.row)).count()
    }

    /// How many sessions are open.
    pub(crate) fn count(&self) -> usize {
        lock(&self.open).len()
    }
}

/// Owner of a session's push.
#[derive(Debug, Clone)]
pub(crate) struct Pusher {
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeName,
}

impl Pusher {
    fn has(&self, row: &SessionRow) -> bool {
        row.cluster == self.cluster && row.node == self.node
    }
}

/// A new session.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) id: SessionId,
    pub(crate) row: SessionRow,
    /// The session whose place it took.
    pub(crate) adopted: Option<SessionId>,
}

/// Grants a session. Its row and its token are on disk when this returns (L1).
///
/// If `adopt` names an open session of the same pusher, that one ends at the moment at which the new one is
/// granted (L4): its former holder is refused. Any other session is unaffected, and the new one is still
/// granted. Promises of the old session are released, not handed over: its client forgot its data in
/// transfer, and the new one asks for each chunk again.
///
/// # Errors
/// [`ServerError::TooManySessions`] if the node has [`MOST_OF_A_NODE`] others open.
pub(crate) fn open(
    sessions: &Sessions,
    pusher: Pusher,
    adopt: Option<SessionId>,
) -> Result<Granted, ServerError> {
    sessions.store.check_running()?;
    gate::check_push(&sessions.store)?;
    let mut random = [0; 10];
    (sessions.store.parts.random)(&mut random);
    let id = SessionId::new(sessions.store.parts.clock.unix_ms(), random);
    // The collector looks at open sessions in the same exclusion: it sees this one, or is done before it.
    let granted = sessions.store.exclusively(|| {
        let old = adopt.and_then(|old| adoptable(sessions, old, &pusher));
        if old.is_none() && sessions.count_of(&pusher) >= MOST_OF_A_NODE {
            let Pusher { cluster, node } = pusher.clone();
            return Err(ServerError::TooManySessions { cluster, node, most: MOST_OF_A_NODE });
        }
        let granted = match grant(sessions, id, &pusher, old.as_ref()) {
            // The old session was committed or ended first: it is not ours to adopt any more.
            Err(ServerError::Index(IndexError::Precondition { .. })) if old.is_some() => {
                grant(sessions, id, &pusher, None)
            }
            granted => granted,
        }?;
        let now = sessions.store.parts.clock.monotonic();
        insert(&mut lock(&sessions.open), id, granted.row.clone(), now)?;
        Ok::<_, ServerError>(granted)
    })?;
    if let Some(old) = granted.adopted {
        forget(sessions, old);
    }
    Ok(granted)
}

/// The session to adopt, if it is open and `pusher`'s own.
fn adoptable(sessions: &Sessions, id: SessionId, pusher: &Pusher) -> Option<(SessionId, SessionRow)> {
    let now = sessions.store.parts.clock.monotonic();
    let open = lock(&sessions.open);
    let Open { row, .. } = &open.get(&id).filter(|session| !session.is_over(now))?.holder;
    pusher.has(row).then(|| (id, row.clone()))
}

fn grant(
    sessions: &Sessions,
    id: SessionId,
    pusher: &Pusher,
    old: Option<&(SessionId, SessionRow)>,
) -> Result<Granted, ServerError> {
    let index = &sessions.store.parts.index;
    let last = sessions.store.number(Meta::FencingToken, "the fencing token")?;
    let token = last.unwrap_or(0) + 1;
    let Pusher { cluster, node } = pusher.clone();
    // Pins of the old session are kept.
    let old_start = old.map(|(_, old)| old.start).filter(|_| sessions.store.rules.keep(Rule::AdoptedStart));
    let start = old_start.into_iter().chain([sessions.store.epoch()?]).min();
    let start = start.unwrap_or_default();
    let row = SessionRow { cluster, node, token, start, state: SessionState::Open };
    let mut batch = Batch::new();
    batch.put(Table::Meta, TOKEN_KEY, token.to_le_bytes());
    batch.require(Table::Session, *id.as_bytes(), Precondition::Absent);
    batch.put(Table::Session, *id.as_bytes(), row.encode());
    if let Some((old, granted)) = old {
        delete_row(&mut batch, *old, granted);
    }
    index.commit(batch).map_err(|error| sessions.store.index_error(error))?;
    Ok(Granted { id, row, adopted: old.map(|(old, _)| *old) })
}

/// Makes the next tokens greater than `last`, in an index that has granted none.
pub(crate) fn tokens_after(batch: &mut Batch, last: u64) {
    batch.put(Table::Meta, TOKEN_KEY, last.to_le_bytes());
}

/// The session with this id, which lives on for its full time from now.
///
/// # Errors
/// [`ServerError::SessionOver`] if it has expired, has ended, or never was (L3).
pub(crate) fn renew(sessions: &Sessions, id: SessionId) -> Result<SessionRow, ServerError> {
    sessions.store.check_running()?;
    let now = sessions.store.parts.clock.monotonic();
    let mut open = lock(&sessions.open);
    let session = open.renew(&id, now).ok_or(ServerError::SessionOver(id))?;
    Ok(session.holder.row.clone())
}

/// Like [`renew`], for a caller that may use the sessions that `is_own` says.
///
/// # Errors
/// [`ServerError::SessionOver`] for all other sessions, which are not renewed.
pub(crate) fn renew_if(
    sessions: &Sessions,
    id: SessionId,
    is_own: impl FnOnce(&SessionRow) -> bool,
) -> Result<SessionRow, ServerError> {
    if granted(sessions, id).is_some_and(|row| !is_own(&row)) {
        return Err(ServerError::SessionOver(id));
    }
    renew(sessions, id)
}

/// A session has sent a group of blobs.
pub(crate) fn took(sessions: &Sessions, id: SessionId, frames: &[Frame]) {
    let bytes: usize = frames.iter().map(|frame| frame.payload.len()).sum();
    if let Some(open) = lock(&sessions.open).holder_mut(&id) {
        open.sent_bytes = open.sent_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// The session with this id as it was granted, if it has not ended. It is not renewed.
pub(crate) fn granted(sessions: &Sessions, id: SessionId) -> Option<SessionRow> {
    lock(&sessions.open).get(&id).map(|session| session.holder.row.clone())
}

/// The commits of a session. An ended one has none, and its commit is refused.
pub(crate) fn attempts(sessions: &Sessions, id: SessionId) -> Attempts {
    let open = lock(&sessions.open);
    open.get(&id).map(|session| Arc::clone(&session.holder.attempts)).unwrap_or_default()
}

/// The snapshot that the session has committed, if it has.
pub(crate) fn committed(store: &Store, id: SessionId) -> Result<Option<SnapshotId>, ServerError> {
    Ok(row(store, id)?.and_then(|row| match row.state {
        SessionState::Open => None,
        SessionState::Committed { snapshot, .. } => Some(snapshot),
    }))
}

fn row(store: &Store, id: SessionId) -> Result<Option<SessionRow>, ServerError> {
    let value = store.parts.index.get(Table::Session, id.as_bytes())?;
    value.map(|value| decode(id, &value)).transpose()
}

/// Refuses a session that never was, has expired or was ended, and one that is not the caller's own as `is_own` says.
/// One that has committed is known. Blocks.
pub(crate) fn check_known(
    sessions: &Sessions,
    id: SessionId,
    is_own: impl Fn(&SessionRow) -> bool,
) -> Result<(), ServerError> {
    if renew_if(sessions, id, &is_own).is_ok() {
        return Ok(());
    }
    let is_committed = |row: &SessionRow| matches!(row.state, SessionState::Committed { .. });
    match row(&sessions.store, id)? {
        Some(row) if is_committed(&row) && is_own(&row) => Ok(()),
        Some(_) | None => Err(ServerError::SessionOver(id)),
    }
}

/// Forgets a session that is over: it is renewed no more, and has promised nothing. Its row went before, or says
/// what it committed. Answers the row as it was granted, if the session was not forgotten before.
pub(crate) fn forget(sessions: &Sessions, id: SessionId) -> Option<SessionRow> {
    let Open { row, .. } = {
        let mut open = lock(&sessions.open);
        let token = open.get(&id)?.token;
        open.release(&id, token)?
    };
    sessions.domains.of(&row.cluster).release(id);
    Some(row)
}

/// Ends a session without a snapshot, if it is open and the caller's own as `is_own` says; all others stay as they are.
///
/// If its row could not be deleted, the session is open as before.
pub(crate) fn abort(
    sessions: &Sessions,
    id: SessionId,
    is_own: impl FnOnce(&SessionRow) -> bool,
) -> Result<(), ServerError> {
    match granted(sessions, id) {
        Some(row) if is_own(&row) => end(sessions, id, &row).map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Ends the expired sessions, and deletes rows of long committed ones. Returns how many sessions ended. One
/// whose row could not be deleted has still ended (L3), and its row is deleted the next time.
pub(crate) fn expire(sessions: &Sessions) -> Result<usize, ServerError> {
    let now = sessions.store.parts.clock.monotonic();
    let over: Vec<(SessionId, SessionRow)> = {
        let open = lock(&sessions.open);
        let over = open.iter().filter(|(_, session)| session.is_over(now));
        over.map(|(id, session)| (*id, session.holder.row.clone())).collect()
    };
    let mut ended = 0;
    for (id, granted) in &over {
        ended += usize::from(end(sessions, *id, granted)?.is_some());
    }
    let forget_before = sessions.store.parts.clock.unix_ms().saturating_sub(DONE_KEPT_MS);
    let mut done = Vec::new();
    for_each(sessions.store.parts.index.as_ref(), |id, row| {
        if matches!(row.state, SessionState::Committed { at_ms, .. } if at_ms < forget_before) {
            done.push((id, row));
        }
    })?;
    for (id, row) in &done {
        drop_row(sessions, *id, row)?;
    }
    Ok(ended)
}

/// Ends a session: its row is deleted first, durably, and then its state in memory. The next process opens
/// every session that has a row, so a session pins data as long as it has one (G2); an expired one cannot be
/// renewed meanwhile, and requests of a renewed one are refused as soon as they need the row (L2). No lock is
/// held while the row is deleted: an adoption or commit of the session at that moment comes first or finds it
/// deleted.
fn end(sessions: &Sessions, id: SessionId, granted: &SessionRow) -> Result<Option<SessionRow>, ServerError> {
    drop_row(sessions, id, granted)?;
    Ok(forget(sessions, id))
}

fn drop_row(sessions: &Sessions, id: SessionId, row: &SessionRow) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    delete_row(&mut batch, id, row);
    match sessions.store.parts.index.commit(batch) {
        // A commit or an adoption came first: the row belongs to the snapshot now, or is deleted.
        Ok(()) | Err(IndexError::Precondition { .. }) => Ok(()),
        Err(error) => Err(sessions.store.index_error(error)),
    }
}

/// Deletes the row of a session, as long as it is as it was granted.
fn delete_row(batch: &mut Batch, id: SessionId, granted: &SessionRow) {
    batch.require(Table::Session, *id.as_bytes(), Precondition::Equals(granted.encode()));
    batch.delete(Table::Session, *id.as_bytes());
}

fn decode(id: SessionId, value: &[u8]) -> Result<SessionRow, ServerError> {
    SessionRow::decode(value).ok_or_else(|| ServerError::Row { object: format!("session {id}") })
}

fn for_each(index: &dyn Index, mut visit: impl FnMut(SessionId, SessionRow)) -> Result<(), ServerError> {
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = index.scan(Table::Session, &range, NonZeroUsize::MAX)?;
        for Row { key, value } in found.rows {
            let id = key.try_into().map(SessionId::from_bytes);
            let id = id.map_err(|_| ServerError::Row { object: "a session".to_owned() })?;
            visit(id, decode(id, &value)?);
        }
        next = found.rest;
    }
    Ok(())
}

/// Like [`pack::have`], for a session that sends missing chunks and waits for coming ones: missing chunks are
/// promised by it from now on, chunks that others have promised are coming (L5).
///
/// # Errors
/// [`ServerError::SessionOver`] if the session ended meanwhile; then it has promised nothing.
pub(crate) fn have_or_promise(
    sessions: &Sessions,
    domain: &OpenDomain,
    session: SessionId,
    ids: &[ChunkId],
) -> Result<Vec<Held>, ServerError> {
    // Promises first: ids only ever move from there to waiting, and on to the index.
    let promised = domain.promise(session, ids, sessions.store.parts.clock.monotonic());
    // The end of a session releases its promises, but not those made after it.
    let granted = renew(sessions, session).inspect_err(|_| domain.release(session))?;
    let held = pack::have(domain, granted.start, ids)?;
    let here = ids.iter().zip(&held).filter(|(_, held)| **held == Held::Here);
    domain.arrived(here.map(|(id, _)| id));
    let told = |(held, promised)| if held == Held::Here { held } else { promised };
    Ok(held.into_iter().zip(promised).map(told).collect())
}

#[cfg(test)]
mod tests;
