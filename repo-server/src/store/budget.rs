//! Memory that requests may hold at once, counted in bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ServerError;

/// How long a request waits for memory. Whoever holds some gives it back within a minute, or makes progress.
const PATIENCE: Duration = Duration::from_secs(75);

/// Bytes that may be in memory at once, first come first served.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    total: u32,
}

/// Bytes that are taken from a [`Budget`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved(OwnedSemaphorePermit);

impl Budget {
    /// A budget of `total` bytes, which is at most 4 GiB.
    pub(crate) fn new(total: u64) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        let permits = usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(permits)), total }
    }

    /// Takes `bytes`, once they are free; more than all are taken as all. A holder must not ask again.
    ///
    /// # Errors
    /// [`ServerError::Rests`] if they are not free within 75 seconds.
    pub(crate) async fn reserve(&self, bytes: u64) -> Result<Reserved, ServerError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        let taken = tokio::time::timeout(PATIENCE, Arc::clone(&self.bytes).acquire_many_owned(bytes)).await;
        let taken = taken.map_err(|_| ServerError::Rests {
            code: "overloaded",
            why: "the memory limit for requests (`limits.memory_mib`) is reached: try again later".to_owned(),
        })?;
        Ok(Reserved(taken.expect("the semaphore is never closed")))
    }
}

impl Reserved {
    /// Gives back all but `bytes`.
    pub(crate) fn keep(&mut self, bytes: u64) {
        let kept = usize::try_from(bytes).unwrap_or(usize::MAX);
        if let Some(over) = self.0.num_permits().checked_sub(kept) {
            drop(self.0.split(over));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn more_than_the_budget_waits_until_some_is_given_back() {
        let budget = Budget::new(10);
        let mut held = budget.reserve(8).await.unwrap();

        assert!(budget.reserve(3).now_or_never().is_none());
        held.keep(7);
        let other = budget.reserve(3).now_or_never().unwrap().unwrap();

        assert!(budget.reserve(1).now_or_never().is_none());
        drop((held, other));
        assert!(budget.reserve(u64::MAX).now_or_never().unwrap().is_ok(), "more than all is all");
    }
}
