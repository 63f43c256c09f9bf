//! Rows of an index that a rebuild fills. Nobody else uses that index, so nothing is read before it is written.

use format_spec::ChunkId;

use crate::index::{Batch, Table};
use crate::rows::{ChunkRow, DamagedRow, Epoch, IdleKey, PackNumber, PackRow, Totals};

/// Sets the row of a chunk or page.
pub(crate) fn chunk(batch: &mut Batch, id: &ChunkId, row: &ChunkRow) {
    batch.put(Table::Chunk, *id.as_bytes(), row.encode());
}

/// Takes out the row of a chunk or page, and what is known to be wrong with it.
pub(crate) fn no_chunk(batch: &mut Batch, id: &ChunkId) {
    batch.delete(Table::Chunk, *id.as_bytes());
    no_damage(batch, id);
}

/// Sets the row of a pack, and queues what of it is in no use.
pub(crate) fn pack(batch: &mut Batch, number: PackNumber, row: &PackRow) {
    batch.put(Table::Pack, number.key(), row.encode());
    let item = IdleKey::Pack { kind: row.kind, since: Epoch::default(), number };
    batch.put(Table::Idle, item.encode(), Vec::new());
}

/// Says what is wrong with a blob. The number of such blobs is counted at the end.
pub(crate) fn damage(batch: &mut Batch, id: &ChunkId, row: &DamagedRow) {
    batch.put(Table::Damaged, *id.as_bytes(), row.encode());
}

/// Nothing is wrong with a blob.
pub(crate) fn no_damage(batch: &mut Batch, id: &ChunkId) {
    batch.delete(Table::Damaged, *id.as_bytes());
}

/// Sets what all rows add up to, and begins the first epoch.
pub(crate) fn totals(batch: &mut Batch, totals: &Totals) {
    batch.put(Table::Meta, Totals::KEY, totals.encode());
    batch.put(Table::Meta, Epoch::KEY, Epoch::default().next().encode());
}
