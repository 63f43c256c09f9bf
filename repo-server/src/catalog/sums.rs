//! Sums over the rows of all packs.

use std::sync::Mutex;
use std::time::Duration;

use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::rows::{PackNumber, PackRow};
use crate::store::Store;
use crate::sync::lock;

/// Sums over the rows of all packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) packs: u64,
    /// Bytes of blobs that no row names any more.
    pub(crate) unreferenced_bytes: u64,
    /// When any of them was last read back and found sound; 0 for never.
    pub(crate) verified_ms: u64,
}

/// Sums of packs are counted again this often at most: a large repository has millions of rows.
pub(crate) const COUNT_EVERY: Duration = Duration::from_secs(60);

/// The last sums, and when they were counted.
#[derive(Default)]
pub(crate) struct PackSums(Mutex<Option<(Duration, Sums)>>);

impl PackSums {
    /// The sums, as counted in the last minute. Blocks.
    pub(crate) fn now(&self, store: &Store) -> Result<Sums, ServerError> {
        let now = store.parts.clock.monotonic();
        let mut counted = lock(&self.0);
        if let Some((at, sums)) = *counted
            && now.saturating_sub(at) < COUNT_EVERY
        {
            return Ok(sums);
        }
        let mut sums = Sums::default();
        store.for_each_row(Table::Pack, &KeyRange::all(), |key, value| {
            let row = PackNumber::from_key(key).and(PackRow::decode(value));
            let row = row.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
            sums.packs += 1;
            sums.unreferenced_bytes = sums.unreferenced_bytes.saturating_add(row.dead_bytes());
            sums.verified_ms = sums.verified_ms.max(row.verified_ms);
            Ok(())
        })?;
        *counted = Some((now, sums));
        Ok(sums)
    }
}
