//! Sessions: one push in progress each. A lease on the server's monotonic clock, with a fencing token.
//!
//! | id | promise |
//! |---|---|
//! | L1 | a token is on disk before it is handed out, and greater than all before it |
//! | L2 | a commit is applied only while its session's row is as it was granted |
//! | L3 | an expired session is never renewed; after a restart each open one gets its full time |
//!
//! The session id is also the idempotency key of its commit: a session commits once, and asking again
//! gives the same snapshot.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use format_spec::{ClusterName, NodeName, SessionId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::ServerError;
use crate::index::{Batch, Index, KeyRange, Precondition, Row, Table};
use crate::repository::{Repository, lock};

/// How long a session lives after its last request.
pub(crate) const TTL: Duration = Duration::from_secs(120);

/// How long the row of a committed session is kept, for clients that ask again.
const DONE_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

const TOKEN_KEY: &[u8] = b"fencing_token";

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SessionState {
    Open,
    Committed { snapshot: SnapshotId, at_ms: u64 },
}

/// A session's row in the index, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeName,
    pub(crate) token: u64,
    pub(crate) state: SessionState,
}

impl SessionRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a session row is plain JSON")
    }

    fn decode(id: SessionId, value: &[u8]) -> Result<Self, ServerError> {
        serde_json::from_slice(value).map_err(|_| ServerError::Row { object: format!("session {id}") })
    }
}

struct Open {
    row: SessionRow,
    deadline: Duration,
}

/// The sessions that are open now.
pub(crate) struct Sessions {
    open: Mutex<HashMap<SessionId, Open>>,
}

impl Sessions {
    /// The sessions that were open when the last process ended, each with its full time to live.
    pub(crate) fn load(index: &dyn Index, clock: &dyn Clock) -> Result<Self, ServerError> {
        let deadline = clock.monotonic() + TTL;
        let mut open = HashMap::new();
        for_each(index, |id, row| {
            if row.state == SessionState::Open {
                open.insert(id, Open { row, deadline });
            }
        })?;
        Ok(Self { open: Mutex::new(open) })
    }

    /// How many sessions are open.
    pub(crate) fn count(&self) -> usize {
        lock(&self.open).len()
    }
}

/// Grants a session. Its row and its token are on disk when this returns (L1).
pub(crate) fn open(
    repository: &Repository,
    cluster: ClusterName,
    node: NodeName,
) -> Result<(SessionId, SessionRow), ServerError> {
    repository.check_running()?;
    let mut random = [0; 10];
    (repository.parts.random)(&mut random);
    let id = SessionId::new(repository.parts.clock.unix_ms(), random);
    let row = repository.exclusively(|| grant(repository, id, cluster, node))?;
    let deadline = repository.parts.clock.monotonic() + TTL;
    lock(&repository.sessions.open).insert(id, Open { row: row.clone(), deadline });
    Ok((id, row))
}

fn grant(
    repository: &Repository,
    id: SessionId,
    cluster: ClusterName,
    node: NodeName,
) -> Result<SessionRow, ServerError> {
    let index = &repository.parts.index;
    let last = match index.get(Table::Meta, TOKEN_KEY)? {
        None => 0,
        Some(value) => value
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| ServerError::Row { object: "the fencing token".to_owned() })?,
    };
    let token = last + 1;
    let row = SessionRow { cluster, node, token, state: SessionState::Open };
    let mut batch = Batch::new();
    batch.put(Table::Meta, TOKEN_KEY, token.to_le_bytes());
    batch.require(Table::Session, *id.as_bytes(), Precondition::Absent);
    batch.put(Table::Session, *id.as_bytes(), row.encode());
    index.commit(batch).map_err(|error| repository.index_error(error))?;
    Ok(row)
}

/// The session with this id, which lives on for its full time from now.
///
/// # Errors
/// [`ServerError::SessionOver`] if it has expired, has ended, or never was (L3).
pub(crate) fn renew(repository: &Repository, id: SessionId) -> Result<SessionRow, ServerError> {
    repository.check_running()?;
    let now = repository.parts.clock.monotonic();
    let mut open = lock(&repository.sessions.open);
    let session = open.get_mut(&id).filter(|session| session.deadline > now);
    let session = session.ok_or(ServerError::SessionOver(id))?;
    session.deadline = now + TTL;
    Ok(session.row.clone())
}

/// The snapshot that the session has committed, if it has.
pub(crate) fn committed(repository: &Repository, id: SessionId) -> Result<Option<SnapshotId>, ServerError> {
    let Some(value) = repository.parts.index.get(Table::Session, id.as_bytes())? else { return Ok(None) };
    match SessionRow::decode(id, &value)?.state {
        SessionState::Open => Ok(None),
        SessionState::Committed { snapshot, .. } => Ok(Some(snapshot)),
    }
}

/// Forgets a session that has committed; its row stays.
pub(crate) fn close(repository: &Repository, id: SessionId) {
    lock(&repository.sessions.open).remove(&id);
}

/// Ends a session without a snapshot. Ending one that is not open does nothing.
pub(crate) fn abort(repository: &Repository, id: SessionId) -> Result<(), ServerError> {
    let Some(session) = lock(&repository.sessions.open).remove(&id) else { return Ok(()) };
    delete_rows(repository, &[(id, session.row)])
}

/// Ends the sessions whose time is over, and drops rows of long committed ones. Returns how many
/// sessions ended.
pub(crate) fn expire(repository: &Repository) -> Result<usize, ServerError> {
    let now = repository.parts.clock.monotonic();
    let over: Vec<(SessionId, SessionRow)> = {
        let mut open = lock(&repository.sessions.open);
        open.extract_if(|_, session| session.deadline <= now).map(|(id, session)| (id, session.row)).collect()
    };
    delete_rows(repository, &over)?;
    let forget_before = repository.parts.clock.unix_ms().saturating_sub(DONE_KEPT_MS);
    let mut done = Vec::new();
    for_each(repository.parts.index.as_ref(), |id, row| {
        if matches!(row.state, SessionState::Committed { at_ms, .. } if at_ms < forget_before) {
            done.push((id, row));
        }
    })?;
    delete_rows(repository, &done)?;
    Ok(over.len())
}

fn delete_rows(repository: &Repository, sessions: &[(SessionId, SessionRow)]) -> Result<(), ServerError> {
    for (id, row) in sessions {
        let mut batch = Batch::new();
        batch.require(Table::Session, *id.as_bytes(), Precondition::Equals(row.encode()));
        batch.delete(Table::Session, *id.as_bytes());
        match repository.parts.index.commit(batch) {
            // A commit came first: the row is the snapshot's now.
            Ok(()) | Err(crate::index::IndexError::Precondition { .. }) => {}
            Err(error) => return Err(repository.index_error(error)),
        }
    }
    Ok(())
}

fn for_each(index: &dyn Index, mut visit: impl FnMut(SessionId, SessionRow)) -> Result<(), ServerError> {
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = index.scan(Table::Session, &range, NonZeroUsize::MAX)?;
        for Row { key, value } in found.rows {
            let id = key.try_into().map(SessionId::from_bytes);
            let id = id.map_err(|_| ServerError::Row { object: "a session".to_owned() })?;
            visit(id, SessionRow::decode(id, &value)?);
        }
        next = found.rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
