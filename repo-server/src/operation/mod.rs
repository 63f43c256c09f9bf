//! Operations: work that an administrator or the server's schedule starts, and that ends with a report.
//!
//! Each one is an [`Operation`] in a file or room of its own: it names the lease that it needs, tells its
//! [`Progress`], and returns a report. `http::operations` serves any of them. `docs/adding-an-operation.md` shows how
//! to add one.

#[cfg(test)]
mod example;
mod progress;

use std::sync::Arc;

use serde::Serialize;

#[cfg(test)]
pub(crate) use example::CountRows;
pub(crate) use progress::{Progress, Step};

use crate::error::ServerError;
use crate::lease::{Kind, Lease, Leases, Resource};
use crate::server::Server;

/// Work with a report. The value holds the choices of the caller; a request that is read from JSON may be one.
pub(crate) trait Operation: Sized + Send + 'static {
    /// Kind of work, as people read it.
    const KIND: Kind;

    /// Effect on a run in progress when its client is gone.
    const UNHEARD: Unheard = Unheard::Continues;

    /// Lease that a run holds from before its start to its end: `Lease<R>`, `InTurn<R>`, or `()` for none.
    type Needs: Claim;

    /// Result of a run that could be completed, also of one that found problems.
    type Report: Serialize + Send + Sync + 'static;

    /// The protection that this run would weaken, as the words after "may": only an administrator may ask for it.
    fn weakens(&self) -> Option<&'static str> {
        None
    }

    /// Runs to the end, and tells `progress` of its steps.
    ///
    /// # Errors
    /// The run could not be completed. What it did until then is whole.
    fn run(
        self,
        server: &Arc<Server>,
        needs: &Self::Needs,
        progress: &Progress,
    ) -> impl Future<Output = Result<Self::Report, ServerError>> + Send;
}

/// Effect on a run in progress when its client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unheard {
    /// It runs to its end.
    Continues,
    /// It ends at its next wait, which must leave everything whole.
    Ends,
}

/// A lease that an operation needs, or none.
pub(crate) trait Claim: Sized + Send + Sync + 'static {
    /// Takes it for work of `kind`.
    ///
    /// # Errors
    /// [`ServerError::Busy`] if another run holds it and this one does not wait.
    fn claim(leases: &Leases, kind: Kind) -> impl Future<Output = Result<Self, ServerError>> + Send;
}

/// Nothing is needed: any number may run at once.
impl Claim for () {
    async fn claim(_: &Leases, _: Kind) -> Result<Self, ServerError> {
        Ok(())
    }
}

/// A run beside another is refused.
impl<R: Resource> Claim for Lease<R> {
    async fn claim(leases: &Leases, kind: Kind) -> Result<Self, ServerError> {
        leases.try_acquire(kind)
    }
}

/// A lease whose claim waits while another run holds it.
pub(crate) struct InTurn<R: Resource> {
    _lease: Lease<R>,
}

impl<R: Resource> Claim for InTurn<R> {
    async fn claim(leases: &Leases, kind: Kind) -> Result<Self, ServerError> {
        Ok(Self { _lease: leases.acquire(kind).await })
    }
}

/// Takes the lease that an operation needs.
///
/// # Errors
/// The errors of [`Claim::claim`].
pub(crate) async fn claim<O: Operation>(server: &Arc<Server>) -> Result<O::Needs, ServerError> {
    O::Needs::claim(&server.leases, O::KIND).await
}

/// Runs `operation` under the lease that it needs.
///
/// # Errors
/// The errors of [`claim`], before it starts, and those of its [`run`](Operation::run).
pub(crate) async fn run<O: Operation>(
    server: &Arc<Server>,
    operation: O,
    progress: &Progress,
) -> Result<O::Report, ServerError> {
    let needs = claim::<O>(server).await?;
    operation.run(server, &needs, progress).await
}

/// Like [`run`], without anybody who hears of its progress.
///
/// # Errors
/// The errors of [`run`].
pub(crate) async fn run_unheard<O: Operation>(
    server: &Arc<Server>,
    operation: O,
) -> Result<O::Report, ServerError> {
    run(server, operation, &Progress::unheard()).await
}
