//! Listener for changes of rows: an audit, while it runs.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::ChunkId;

use super::Store;
use crate::error::ServerError;
use crate::sync::lock;

/// Ids that are remembered: 48 MB. Beyond it an audit gives up.
const MOST: usize = 1_000_000;

/// Remembers, while an audit runs, which rows of chunks changed: those are exempt from it.
#[derive(Default)]
pub(crate) struct Listener {
    is_on: AtomicBool,
    touched: Mutex<Touched>,
}

#[derive(Default)]
struct Touched {
    ids: HashSet<ChunkId>,
    is_full: bool,
}

impl Listener {
    /// Must be called within [`Store::exclusively`], before the commit of each batch that adds or deletes
    /// rows of chunks, or changes their counts or places, with the ids of all those rows.
    ///
    /// Costs one atomic load while no audit runs.
    pub(crate) fn note<'a>(&self, ids: impl IntoIterator<Item = &'a ChunkId>) {
        // The task that turns it on holds the same lock, so no batch is in progress at that moment.
        if !self.is_on.load(Ordering::Acquire) {
            return;
        }
        let mut touched = lock(&self.touched);
        for id in ids {
            if touched.ids.len() >= MOST {
                touched.is_full = true;
                return;
            }
            touched.ids.insert(*id);
        }
    }
}

/// An audit that runs. From its start to its end every change of rows is noted.
pub(crate) struct Watching<'a>(&'a Listener);

impl<'a> Watching<'a> {
    /// Starts, and reads what must be of the same moment.
    pub(crate) fn start<T>(store: &'a Store, read: impl FnOnce() -> T) -> (Self, T) {
        store.exclusively(|| {
            store.listener.is_on.store(true, Ordering::Release);
            (Self(&store.listener), read())
        })
    }

    /// Returns for each of `ids` if it changed since the start. Must be called after its row was read.
    ///
    /// # Errors
    /// [`ServerError::Busy`] once more changed than is remembered.
    pub(crate) fn touched<'i>(
        &self,
        ids: impl IntoIterator<Item = &'i ChunkId>,
    ) -> Result<Vec<bool>, ServerError> {
        let touched = lock(&self.0.touched);
        if touched.is_full {
            let why = format!("more than {MOST} chunks changed while the counts were checked");
            return Err(ServerError::Busy { why });
        }
        Ok(ids.into_iter().map(|id| touched.ids.contains(id)).collect())
    }

    /// How many ids changed.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0.touched).ids.len()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.is_on.store(false, Ordering::Release);
        *lock(&self.0.touched) = Touched::default();
    }
}
