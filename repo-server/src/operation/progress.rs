//! Progress of an operation.

use std::sync::Arc;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The part in progress, of a run that has parts.
    pub(crate) phase: Option<&'static str>,
    /// Things done, of the phase if there is one.
    pub(crate) done: u64,
    /// Things in all, where that is known.
    pub(crate) total: Option<u64>,
}

/// Hears of the steps of a run, from any thread. Clones have the same listener.
#[derive(Clone)]
pub(crate) struct Progress(Arc<dyn Fn(Step) + Send + Sync>);

impl Progress {
    /// Each step is handed to `hear`, which must not block.
    pub(crate) fn to(hear: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Nobody hears of the steps.
    pub(crate) fn unheard() -> Self {
        Self::to(|_| {})
    }

    /// `done` things of `phase` are done.
    pub(crate) fn phase(&self, phase: &'static str, done: u64) {
        (self.0)(Step { phase: Some(phase), done, total: None });
    }

    /// `done` things of `total` are done.
    pub(crate) fn of(&self, done: u64, total: u64) {
        (self.0)(Step { phase: None, done, total: Some(total) });
    }
}
