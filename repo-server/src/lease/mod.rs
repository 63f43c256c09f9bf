//! Leases: who has a resource that only one task of a server may use at a time.
//!
//! A [`Table`] names one holder for each resource, with a token that grows with each grant. The sessions of pushes
//! have a table whose leases expire unless they are renewed. [`Leases`] are those of the tasks of this process,
//! such as a run of the collector: they end when the task drops its [`Lease`], also if it panics or is cancelled,
//! and never before. An end by the clock would let a second collector start beside one that is slow (ADR 0029).
//!
//! Tables are in memory and empty after a start: no task of the former process runs any more.

mod table;

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

pub(crate) use table::{Grant, Table, Term, Token};

use crate::clock::Clock;
use crate::error::ServerError;
use crate::sync::lock;

/// Kind of work that holds a lease, as people read it: `gc`, `audit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) &'static str);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Something that one task at a time may use. A new resource is a new type.
pub(crate) trait Resource: Send + Sync + 'static {
    /// Its key in the table.
    const NAME: &'static str;
}

/// Deletion and recounting of rows and objects: collector, audit, checkpoint, repair, completion of commits.
pub(crate) struct Upkeep;

impl Resource for Upkeep {
    const NAME: &'static str = "upkeep";
}

/// The decision about which snapshots are deleted, and its execution.
pub(crate) struct Retention;

impl Resource for Retention {
    const NAME: &'static str = "retention";
}

/// The memory of a check: a check may remember each damaged object.
pub(crate) struct Checking;

impl Resource for Checking {
    const NAME: &'static str = "checking";
}

/// The leases of the tasks of this process.
pub(crate) struct Leases(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes the tasks that wait, each time a lease ends.
    freed: Notify,
}

struct State {
    table: Table<&'static str, Kind>,
    /// Token of the last grant.
    last: Token,
}

/// The lease of `R`: as long as it is not dropped, no other task has one.
#[must_use = "a lease that is dropped has ended"]
pub(crate) struct Lease<R: Resource> {
    shared: Arc<Shared>,
    token: Token,
    resource: PhantomData<R>,
}

impl Leases {
    /// No lease is held.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State { table: Table::new(Term::UntilReleased), last: Token::default() };
        Self(Arc::new(Shared { clock, state: Mutex::new(state), freed: Notify::new() }))
    }

    /// The lease of `R` for `kind`, at once or not at all.
    ///
    /// # Errors
    /// [`ServerError::Busy`] names the kind of work that has it, and for how long.
    pub(crate) fn try_acquire<R: Resource>(&self, kind: Kind) -> Result<Lease<R>, ServerError> {
        let now = self.0.clock.monotonic();
        let mut state = lock(&self.0.state);
        let token = state.last.next();
        if let Err(held) = state.table.grant(R::NAME, kind, token, now) {
            let (holder, age) = (held.holder, now.saturating_sub(held.since).as_secs());
            return Err(ServerError::Busy {
                why: format!("another run of {holder} is in progress, for {age} s so far"),
            });
        }
        state.last = token;
        Ok(Lease { shared: Arc::clone(&self.0), token, resource: PhantomData })
    }

    /// The lease of `R` for `kind`. While another task has it, this waits.
    pub(crate) async fn acquire<R: Resource>(&self, kind: Kind) -> Lease<R> {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // A lease that ends between the question and the wait must wake this task.
            freed.as_mut().enable();
            match self.try_acquire(kind) {
                Ok(lease) => return lease,
                Err(_) => freed.await,
            }
        }
    }
}

impl<R: Resource> Drop for Lease<R> {
    fn drop(&mut self) {
        lock(&self.shared.state).table.release(&R::NAME, self.token);
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
/// A holder in tests.
pub(crate) const TEST: Kind = Kind("test");

#[cfg(test)]
mod tests;
