//! The collector: takes what nothing needs, beside everything else.
//!
//! Steps of a run: purge deleted snapshots whose delay is over → delete idle pages → next epoch → delete idle
//! chunks → repack sparse packs → delete doomed objects. Each step works through a queue or a table in small
//! batches, each of which leaves a consistent repository, so a run may be interrupted anywhere and the next
//! continues. The queue holds possible garbage, so the cost of a run depends on the data that it frees. ADR
//! 0014 explains why needed data is never deleted:
//!
//! | id | promise |
//! |---|---|
//! | G1 | a row goes only while its count is zero, and the row of a page only with its references |
//! | G2 | a row goes only if it is idle since before the start of every open session, checked in its batch |
//! | G3 | what a session was told is here is counted, or idle since its start or later |
//! | G4 | a pack goes only after the last row that named it, and its repacked blobs were read back before |
//! | G5 | objects are deleted by name, never from a listing: no pack before every snapshot that may need it |
//! | G6 | an object on its way is not deleted, and one that a crash left behind is |
//! | G12 | nothing is taken by an index that is older than the site |

mod day;
mod delete;
mod plan;
mod purge;
mod repack;
mod sweep;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcReport, GcRequest, LargeDelete, RunMode};

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::health::clock::ClockState;
use crate::health::gate;
use crate::health::space;
use crate::lease::{Kind, Lease, Upkeep};
use crate::operation::{Operation, Progress};
use crate::server::Server;
use crate::session;
use crate::start::compare;
use crate::store::Store;

const KIND: Kind = Kind("gc");

/// Phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Purge,
    Pages,
    Chunks,
    Repack,
    Delete,
}

impl Phase {
    /// Its name for people and programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Pages => "pages",
            Self::Chunks => "chunks",
            Self::Repack => "repack",
            Self::Delete => "delete",
        }
    }
}

/// A run in progress, on a thread that may wait for the site.
pub(crate) struct Run {
    server: Arc<Server>,
    store: Arc<Store>,
    request: GcRequest,
    report: GcReport,
    progress: Progress,
    /// The time by which delays are over; 0 while the clock is in doubt, so that none is.
    now_ms: u64,
    tell: Tell,
}

/// Decision to continue a run or to stop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

/// Collects, or plans a run. One run at a time, and none beside an audit.
///
/// Errors: [`ServerError::Refused`] while counts are known to be wrong, and while the site knows of snapshots that
/// the index does not (G12). Any other error ends the run; what it did is whole.
impl Operation for GcRequest {
    const KIND: Kind = KIND;
    type Needs = Lease<Upkeep>;
    type Report = GcReport;

    fn weakens(&self) -> Option<&'static str> {
        match (self.delays, self.large) {
            (Delays::Skip, _) => Some("skip the delays of deletion"),
            (_, LargeDelete::Allow) => Some("exceed the daily deletion limit"),
            _ => None,
        }
    }

    async fn run(
        self,
        server: &Arc<Server>,
        needs: &Self::Needs,
        progress: &Progress,
    ) -> Result<GcReport, ServerError> {
        counted(server, self, progress, Tell::WhatIsHeld, needs).await
    }
}

/// Collects without a report of the data that open sessions keep: that report costs a read of each row that a
/// push in progress has sent.
pub(crate) struct Unwatched;

impl Operation for Unwatched {
    const KIND: Kind = KIND;
    type Needs = Lease<Upkeep>;
    type Report = GcReport;

    async fn run(
        self,
        server: &Arc<Server>,
        needs: &Self::Needs,
        progress: &Progress,
    ) -> Result<GcReport, ServerError> {
        let request = GcRequest { mode: RunMode::Apply, ..GcRequest::default() };
        counted(server, request, progress, Tell::WhatIsDone, needs).await
    }
}

/// Selection of the lists in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    WhatIsDone,
    /// The data that each open session keeps.
    WhatIsHeld,
}

/// Runs, and counts the run for monitoring.
async fn counted(
    server: &Arc<Server>,
    request: GcRequest,
    progress: &Progress,
    tell: Tell,
    lease: &Lease<Upkeep>,
) -> Result<GcReport, ServerError> {
    let mode = request.mode;
    let outcome = collect(server, request, progress, tell, lease).await;
    if mode == RunMode::Apply {
        let done = server.done();
        let count = if outcome.is_ok() { &done.collector_runs } else { &done.collector_failures };
        count.fetch_add(1, Ordering::Relaxed);
    }
    outcome
}

async fn collect(
    server: &Arc<Server>,
    request: GcRequest,
    progress: &Progress,
    tell: Tell,
    lease: &Lease<Upkeep>,
) -> Result<GcReport, ServerError> {
    match request.mode {
        RunMode::Plan => compare::look(server, lease).await?,
        RunMode::Apply => compare::settle(server, lease).await?,
    };
    let progress = progress.clone();
    server.waiting(move |server| run(server, request, progress, tell)).await
}

fn run(
    server: &Arc<Server>,
    request: GcRequest,
    progress: Progress,
    tell: Tell,
) -> Result<GcReport, ServerError> {
    let store = &server.store;
    gate::check(store)?;
    check_counts_are_right(store)?;
    let is_clock_right = server.clock_watch.look(store)? == ClockState::Steady;
    let now_ms = if is_clock_right { store.parts.clock.unix_ms() } else { 0 };
    let report = GcReport { mode: request.mode, ..GcReport::default() };
    let (server, store) = (Arc::clone(server), Arc::clone(store));
    let mut run = Run { server, store, request, report, progress, now_ms, tell };
    let done = match run.request.mode {
        RunMode::Plan => run.plan(),
        RunMode::Apply => run.apply_with_room(),
    };
    if let Err(error @ ServerError::Counts { .. }) = &done {
        alarm::raise(&run.store, AlarmCode::CountsDiffer, &error.to_string())?;
    }
    done?;
    Ok(run.report)
}

/// A difference between counts and what is there stops everything that trusts counts.
fn check_counts_are_right(store: &Store) -> Result<(), ServerError> {
    if !alarm::is_up(store, AlarmCode::CountsDiffer)? {
        return Ok(());
    }
    let why = "reference counts are wrong, so garbage collection is blocked: run `astacus-admin verify --level refs --repair`";
    Err(ServerError::Refused { code: "counts_differ", why: why.to_owned() })
}

impl Run {
    /// On a full disk the ballast makes room for the work, and takes it back when there is enough.
    fn apply_with_room(&mut self) -> Result<(), ServerError> {
        space::release_ballast(&self.store)?;
        // A session that could not be ended on a full disk holds what it sent: now it can be.
        if let Err(error) = session::expire(&self.server.sessions) {
            tracing::warn!(error = %crate::error::Chain(&error), "expired sessions could not be deleted: their data is kept for now");
        }
        let done = self.apply();
        space::restore_ballast(&self.store);
        done
    }

    fn apply(&mut self) -> Result<(), ServerError> {
        self.purge()?;
        if self.sweep(BlobKind::Page)? == Next::GoOn {
            // From here on, sessions that begin hold back nothing that became idle in this run.
            self.store.account(|ledger| Ok(ledger.raise_epoch()))?;
            if self.sweep(BlobKind::Chunk)? == Next::GoOn {
                self.over()?;
            }
        }
        match self.repack() {
            // Deleting may be what makes the room that repacking lacks.
            Err(
                error @ (ServerError::Full { .. }
                | ServerError::Damaged { .. }
                | ServerError::Lost { .. }
                | ServerError::Site(_)),
            ) => {
                self.problem("repacking", &error);
            }
            done => done?,
        }
        self.delete()?;
        match self.tell {
            Tell::WhatIsHeld => self.list_pinned(),
            Tell::WhatIsDone => Ok(()),
        }
    }

    /// All permitted deletions are done: the alarm about a large delete is cleared.
    fn over(&mut self) -> Result<(), ServerError> {
        alarm::clear(&self.store, AlarmCode::LargeDelete)
    }

    fn problem(&mut self, object: impl std::fmt::Display, error: &ServerError) {
        let problem = format!("{object}: {}", crate::error::Chain(error));
        tracing::warn!(problem, "gc skipped an object");
        self.report.problems.push(problem);
    }
}

#[cfg(test)]
mod tests;
