//! Schedule of walks over all snapshots, which name those that need a damaged blob.

use crate::error::ServerError;
use crate::index::{Batch, Table};
use crate::rows::Meta;
use crate::store::Store;

/// A number that grows with each batch that quarantines blobs; deleted once a walk has named all affected
/// snapshots.
const WALK_KEY: &[u8] = Meta::HurtDue.bytes();

/// A walk over all snapshots is due: says so in the batch by which it becomes due.
pub(crate) fn walk_is_due(store: &Store, batch: &mut Batch) -> Result<(), ServerError> {
    let next = due(store)?.unwrap_or_default().wrapping_add(1);
    batch.put(Table::Meta, WALK_KEY, next.to_le_bytes());
    Ok(())
}

/// Which walk is due, if one is. Blocks.
pub(crate) fn due(store: &Store) -> Result<Option<u64>, ServerError> {
    store.number(Meta::HurtDue, "the number of a walk")
}

/// Records that a walk that began when `begun` was due has named all affected snapshots, unless more became
/// damaged meanwhile. Blocks.
pub(crate) fn walked(store: &Store, begun: Option<u64>) -> Result<(), ServerError> {
    store.exclusively(|| {
        if begun.is_none() || due(store)? != begun {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(Table::Meta, WALK_KEY);
        store.commit(batch)
    })
}
