//! An index in memory: the reference that the others are compared with, and a stand-in in tests.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::batch::Batch;
use super::{Index, IndexError, KeyRange, Row, Rows, Table};

/// An index that lives as long as its handles.
///
/// Clones share the rows: dropping one handle and using a clone corresponds to closing and opening an index
/// on disk. Nothing survives the process.
#[derive(Debug, Clone, Default)]
pub struct MemoryIndex(Arc<RwLock<Stored>>);

type Stored = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl MemoryIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rows as they are now, apart from these.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(RwLock::new(self.read().clone())))
    }

    /// A batch is applied by calls that cannot fail, so a panicking holder leaves whole batches behind.
    fn read(&self) -> RwLockReadGuard<'_, Stored> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for MemoryIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.read().get(&(table, key.to_vec())).cloned())
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        Ok(values(&self.read(), table, keys))
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        let stored = self.read();
        let rows = stored
            .range((table, range.start().to_vec())..)
            .take_while(|((of, key), _)| *of == table && range.contains(key))
            .map(|((_, key), value)| Ok(Row { key: key.clone(), value: value.clone() }));
        Rows::collect(range, limit, rows)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        batch.check_limits()?;
        let mut stored = self.0.write().unwrap_or_else(PoisonError::into_inner);
        batch.check_preconditions(|table, keys| Ok(values(&stored, table, keys)))?;
        for (table, key, value) in batch.into_changes() {
            match value {
                Some(value) => stored.insert((table, key), value),
                None => stored.remove(&(table, key)),
            };
        }
        Ok(())
    }
}

fn values(stored: &Stored, table: Table, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    keys.iter().map(|key| stored.get(&(table, key.to_vec())).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Subject};
    use super::*;

    conformance::suite!(|| {
        let index = MemoryIndex::new();
        Subject::new(move || Arc::new(index.clone()))
    });
}
