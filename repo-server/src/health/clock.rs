//! Detects jumps of the wall clock. Retention depends on that clock, so it is suspended from then on, until
//! an operator accepts the clock as correct.
//!
//! - While the process runs, a look expects the wall clock to have moved since the last look by what the
//!   monotonic clock has. More than an hour off, either way, is a jump.
//! - The latest moment seen is a row in the index. A clock that is more than an hour behind it has
//!   jumped: also across a restart, and also in small steps.
//! - A jump is an alarm, thus a row, and outlives a restart. Only [`ClockWatch::accept`] ends it, not a
//!   clock that jumps back: what happened in between was dated by it.
//!
//! Limits of the check: a clock that was set forward while no process ran looks like elapsed time. A machine
//! that was suspended looks like a clock that went forward, if its monotonic clock stood still meanwhile; the
//! alarm is then a false one.

use std::sync::Mutex;
use std::time::Duration;

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, Table};
use crate::rows::Meta;
use crate::store::Store;
use crate::sync::lock;
use crate::time::rfc3339;

/// How far the clock may be off.
pub(crate) const JUMP_MS: u64 = 60 * 60 * 1000;

/// The latest moment is written this often at most.
const WRITE_EVERY_MS: u64 = 5 * 60 * 1000;

const LATEST_KEY: &[u8] = Meta::ClockLatest.bytes();

/// Reliability of the clock for retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockState {
    /// It may.
    Steady,
    /// It must not.
    Jumped,
}

/// Watches the clock of one repository.
#[derive(Default)]
pub(crate) struct ClockWatch(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    /// Both clocks at the last look.
    last: Option<Moment>,
    /// A jump whose alarm could not be written: what it is to say.
    untold: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    wall_ms: u64,
    monotonic: Duration,
}

impl Moment {
    fn now(store: &Store) -> Self {
        let clock = &store.parts.clock;
        Self { wall_ms: clock.unix_ms(), monotonic: clock.monotonic() }
    }

    /// Expected time of the wall clock when the monotonic clock shows `later`.
    fn expect_at(self, later: Duration) -> u64 {
        let passed = later.saturating_sub(self.monotonic).as_millis();
        self.wall_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

impl ClockWatch {
    /// Looks at the clock. A jump is an alarm when this returns, or the next time that there is room for
    /// it. Blocks.
    ///
    /// # Errors
    /// [`ServerError`] if the index fails for another reason than a full disk. Retention must rest then, too.
    pub(crate) fn look(&self, store: &Store) -> Result<ClockState, ServerError> {
        let mut watched = lock(&self.0);
        let now = Moment::now(store);
        let last = watched.last.replace(now);
        if alarm::is_up(store, AlarmCode::ClockJumped)? {
            return Ok(ClockState::Jumped);
        }
        let latest = read_latest(store)?;
        if watched.untold.is_none() {
            watched.untold = jump(now, last, latest);
        }
        if let Some(message) = &watched.untold {
            match alarm::raise(store, AlarmCode::ClockJumped, message) {
                Err(ServerError::Full { what }) => {
                    tracing::warn!(what, why = message, "the clock alarm could not be stored");
                }
                told => {
                    told?;
                    watched.untold = None;
                }
            }
            return Ok(ClockState::Jumped);
        }
        if latest.is_none_or(|latest| now.wall_ms >= latest.saturating_add(WRITE_EVERY_MS)) {
            match write_latest(store, now.wall_ms) {
                // Nothing that depends on the clock can be written either.
                Err(ServerError::Full { what }) => {
                    tracing::debug!(what, "the latest time could not be stored")
                }
                written => written?,
            }
        }
        Ok(ClockState::Steady)
    }

    /// Takes the clock as right from now on, durably, whatever it told before. Blocks.
    ///
    /// # Errors
    /// [`ServerError`] if the index fails. Retention still rests then.
    pub(crate) fn accept(&self, store: &Store) -> Result<(), ServerError> {
        let mut watched = lock(&self.0);
        let now = Moment::now(store);
        // The time first: the other way round a crash in between would raise the alarm again.
        write_latest(store, now.wall_ms)?;
        alarm::clear(store, AlarmCode::ClockJumped)?;
        *watched = Watched { last: Some(now), untold: None };
        Ok(())
    }
}

/// Message of the alarm, if the clock jumped.
fn jump(now: Moment, last: Option<Moment>, latest: Option<u64>) -> Option<String> {
    let told = rfc3339(now.wall_ms);
    let what = if let Some(expected) = last.map(|last| last.expect_at(now.monotonic))
        && now.wall_ms.abs_diff(expected) > JUMP_MS
    {
        format!("the clock shows {told}, but should show {}", rfc3339(expected))
    } else if let Some(latest) = latest
        && latest.saturating_sub(now.wall_ms) > JUMP_MS
    {
        format!("the clock shows {told}, but has shown {} before", rfc3339(latest))
    } else {
        return None;
    };
    Some(format!(
        "{what}: retention is suspended. Check the clock, then run astacus-admin forget --accept-clock"
    ))
}

fn read_latest(store: &Store) -> Result<Option<u64>, ServerError> {
    store.number(Meta::ClockLatest, "the latest time")
}

fn write_latest(store: &Store, wall_ms: u64) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    batch.put(Table::Meta, LATEST_KEY, wall_ms.to_le_bytes());
    store.commit(batch)
}

#[cfg(test)]
mod tests;
