//! Where one chunk lies, for operators.

use format_spec::ChunkId;
use format_spec::wire::ChunkLocation;

use crate::error::ServerError;
use crate::index::Table;
use crate::rows::DamagedRow;
use crate::site::layout::pack_object;
use crate::store::Store;

/// Where a chunk or page lies, and who needs it.
///
/// # Errors
/// [`ServerError::NoChunk`] if no row names it.
pub(crate) fn locate_one(store: &Store, id: ChunkId) -> Result<ChunkLocation, ServerError> {
    let row = store.chunk_rows([&id])?.into_iter().flatten().next();
    let row = row.ok_or(ServerError::NoChunk(id))?;
    let pack = store.pack_row(row.pack)?;
    let damaged = store.parts.index.get(Table::Damaged, id.as_bytes())?;
    let damaged = damaged.and_then(|value| DamagedRow::decode(&value)).map(|damaged| damaged.problem);
    Ok(ChunkLocation {
        id,
        kind: row.kind,
        cluster: pack.domain.clone(),
        pack: pack.id,
        object: pack_object(&pack.id).as_str().to_owned(),
        offset: row.offset,
        stored_bytes: row.stored_len,
        plain_bytes: row.plain_len,
        references: row.references,
        idle_since: row.is_idle().then_some(row.idle_since.0),
        damaged,
    })
}
