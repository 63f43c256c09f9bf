//! How the threads of one attempt end early: the first failure is kept, everyone else just stops.

use std::fmt;
use std::sync::Mutex;

use tokio::runtime::Handle;

use crate::api::wait_until;
use crate::cancel::Cancel;
use crate::error::ClientError;
use crate::state::Damaged;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// For the caller.
    Client(ClientError),
    /// The state of the last push cannot be used: try again without it.
    Damaged,
    /// A chunk that was left to another node was not sent, and its file has changed: try again.
    Lost,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Damaged => f.write_str("the push state is damaged"),
            Self::Lost => f.write_str("a chunk expected from another node did not arrive"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Damaged> for Failure {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

/// The list of files could not be kept on disk until its turn to be sent.
pub(crate) fn spool_error(source: std::io::Error) -> Failure {
    Failure::Client(ClientError::Spool(source))
}

/// The attempt is over; why is known elsewhere.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Stop flag that the threads of an attempt check.
pub(crate) struct Stop {
    interrupt: Cancel,
    failed: Cancel,
    first: Mutex<Option<Failure>>,
}

impl Stop {
    /// A flag without a failure; `interrupt` stops from outside.
    pub(crate) fn new(interrupt: Cancel) -> Self {
        Self { interrupt, failed: Cancel::new(), first: Mutex::new(None) }
    }

    /// Returns an error if the attempt must stop.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.interrupt.is_cancelled() || self.failed.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }

    /// Ends the attempt. Only the first failure counts.
    pub(crate) fn fail(&self, failure: impl Into<Failure>) -> Stopped {
        let mut first = self.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.get_or_insert(failure.into());
        self.failed.cancel();
        Stopped
    }

    /// The result, or the end of the attempt.
    pub(crate) fn pass<T>(&self, result: Result<T, impl Into<Failure>>) -> Result<T, Stopped> {
        result.map_err(|failure| self.fail(failure))
    }

    /// Waits for `call` on this thread. When the attempt ends, waiting does too.
    pub(crate) fn wait_for<T>(
        &self,
        runtime: &Handle,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Stopped> {
        let stopped = async {
            tokio::select! {
                () = self.interrupt.cancelled() => {}
                () = self.failed.cancelled() => {}
            }
        };
        self.pass(wait_until(runtime, stopped, call).ok_or(Stopped)?)
    }

    /// Reason for `stopped`.
    pub(crate) fn reason(&self, _: Stopped) -> Failure {
        let mut first = self.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.take().unwrap_or(Failure::Client(ClientError::Interrupted))
    }
}
