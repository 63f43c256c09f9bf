//! Objects on their way to the site: what a crash or a failure leaves behind is found by name.
//!
//! Before an object is put, its name is doomed, durably; the batch that makes the object count removes the
//! doom. While this process works on the object, its name is in flight, and the collector skips it. After a
//! crash no name is in flight, and doomed objects are deleted (S7), unless they belong to a commit that can
//! be completed (`start::finish`).
//!
//! The order that makes this safe (G6): add the name to the set of names in flight → write its row → put the
//! object → commit or fail durably → remove the name from the set. A name that is not in flight, and then
//! still doomed, is garbage, once the commits of the last process are completed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::catalog::ledger::Ledger;
use crate::error::ServerError;
use crate::index::{Batch, Table};
use crate::rows::{DoomedKey, DoomedRow};
use crate::store::Store;
use crate::sync::lock;

/// The names that are on their way now.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashSet<DoomedKey>>>);

impl InFlight {
    /// True if an object is in flight.
    pub(crate) fn contains(&self, key: &DoomedKey) -> bool {
        lock(&self.0).contains(key)
    }

    /// True if no object is in flight.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// Objects that this request is about to put. They have landed when this is dropped.
pub(crate) struct Flight {
    in_flight: InFlight,
    keys: Vec<DoomedKey>,
}

impl Flight {
    /// Announces objects, durably. Blocks.
    pub(crate) fn announce(
        store: &Store,
        in_flight: &InFlight,
        keys: Vec<DoomedKey>,
    ) -> Result<Self, ServerError> {
        Self::announce_if(store, in_flight, keys, DoomedRow::NOW, |_| Ok(()))
    }

    /// Announces objects by this row, durably, if `check` passes in the batch that does so. Blocks.
    pub(crate) fn announce_if(
        store: &Store,
        in_flight: &InFlight,
        keys: Vec<DoomedKey>,
        row: DoomedRow,
        mut check: impl FnMut(&mut Ledger<'_>) -> Result<(), ServerError>,
    ) -> Result<Self, ServerError> {
        lock(&in_flight.0).extend(keys.iter().cloned());
        let flight = Self { in_flight: in_flight.clone(), keys };
        store.account(|ledger| {
            check(ledger)?;
            for key in &flight.keys {
                ledger.doom(key, row);
            }
            Ok(())
        })?;
        Ok(flight)
    }

    /// Lets the batch say that the objects count.
    pub(crate) fn land(&self, batch: &mut Batch) {
        take_back(batch, &self.keys);
    }
}

/// Lets the batch say that objects which were announced count.
pub(crate) fn take_back(batch: &mut Batch, keys: &[DoomedKey]) {
    for key in keys {
        batch.delete(Table::Doomed, key.encode());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.in_flight.0);
        for key in &self.keys {
            in_flight.remove(key);
        }
    }
}
