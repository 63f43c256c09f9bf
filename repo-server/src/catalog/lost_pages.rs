//! References to pages that are lost: manifests name them, and no pack has them.
//!
//! A page without a row has no count, but its manifests exist, and each lowers the count of its pages when
//! its snapshot is purged. So the count that is owed to a lost page is stored, and a page that is pushed
//! again starts with it: otherwise the purge of the old snapshot would remove the reference of a new one.
//! Chunks need no such count: a page has a row only if all its chunks have (X7).
//!
//! Rows `owed/<page id>` of the meta table; the value is the count.

use format_spec::ChunkId;

use crate::error::ServerError;
use crate::index::{Batch, Precondition, Table};
use crate::rows::Meta;
use crate::store::Store;

const PREFIX: &[u8] = Meta::Owed.bytes();

fn key(id: &ChunkId) -> Vec<u8> {
    [PREFIX, id.as_bytes().as_slice()].concat()
}

/// How many manifests name each of `ids`, pages without rows. Blocks.
pub(crate) fn counts<'a>(
    store: &Store,
    ids: impl IntoIterator<Item = &'a ChunkId>,
) -> Result<Vec<u64>, ServerError> {
    let keys: Vec<Vec<u8>> = ids.into_iter().map(key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let values = store.parts.index.multi_get(Table::Meta, &keys)?;
    let decode = |value: Option<Vec<u8>>| match value {
        None => Ok(0),
        Some(value) => {
            let count = Meta::number(&value);
            count.ok_or_else(|| ServerError::Row { object: "references to a lost page".to_owned() })
        }
    };
    values.into_iter().map(decode).collect()
}

/// Says what is owed to a page; nothing is owed from the batch on that adds its row.
pub(crate) fn set(batch: &mut Batch, id: &ChunkId, count: u64) {
    if count == 0 {
        batch.delete(Table::Meta, key(id));
    } else {
        batch.put(Table::Meta, key(id), count.to_le_bytes());
    }
}

/// Lets the batch be applied only while as much is owed to a page.
pub(super) fn require(batch: &mut Batch, id: &ChunkId, count: u64) {
    let value = (count > 0).then(|| count.to_le_bytes().to_vec());
    batch.require(Table::Meta, key(id), value.map_or(Precondition::Absent, Precondition::Equals));
}

/// True if a key of the meta table is one of these rows.
pub(super) fn is_key(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}
