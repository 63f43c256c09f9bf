//! Rows of chunks and packs, as they are read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use format_spec::ChunkId;

use super::{Domain, Store, share_out};
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::rows::{ChunkRow, Meta, PackNumber, PackRow};
use crate::sync::lock;

/// Keys that a thread looks up at once: about 5 ms of work, which pays for a thread.
const KEYS_AT_ONCE: usize = 1024;

/// Rows of packs that are kept in memory: 128 bytes each.
const PACKS_CACHED: usize = 16_384;

impl Store {
    /// The rows of `ids`, in their order; many are looked up by several threads. Where all must be of one moment,
    /// the caller keeps others from changing them.
    pub(crate) fn chunk_rows<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a ChunkId>,
    ) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        let ids: Vec<&ChunkId> = ids.into_iter().collect();
        let parts: Vec<&[&ChunkId]> = ids.chunks(KEYS_AT_ONCE).collect();
        let found = share_out(self.parts.cores, &parts, |ids| self.look_up(ids))?;
        Ok(found.into_iter().flatten().collect())
    }

    fn look_up(&self, ids: &[&ChunkId]) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        let keys: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let values = self.parts.index.multi_get(Table::Chunk, &keys)?;
        let decode = |(id, value): (&&ChunkId, Option<Vec<u8>>)| match value {
            None => Ok(None),
            Some(value) => ChunkRow::decode(&value)
                .map(Some)
                .ok_or_else(|| ServerError::Row { object: format!("chunk {id}") }),
        };
        ids.iter().zip(values).map(decode).collect()
    }

    /// Like [`chunk_rows`](Self::chunk_rows), without rows of other dedup domains: an id gives no access to
    /// data of another cluster.
    pub(crate) fn chunk_rows_of<'a>(
        &self,
        domain: &Domain,
        ids: impl IntoIterator<Item = &'a ChunkId>,
    ) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        let ids: Vec<&ChunkId> = ids.into_iter().collect();
        let rows = self.chunk_rows(ids.iter().copied())?;
        ids.into_iter().zip(rows).map(|(id, row)| self.row_of(domain, id, row)).collect()
    }

    /// The row of an id, read as `row` a moment ago, if the domain has it. The collector may have moved it to
    /// another pack since, and taken the pack away that it was in: then it is read again.
    pub(crate) fn row_of(
        &self,
        domain: &Domain,
        id: &ChunkId,
        mut row: Option<ChunkRow>,
    ) -> Result<Option<ChunkRow>, ServerError> {
        while let Some(found) = row {
            match self.pack_row(found.pack) {
                Ok(pack) => return Ok((pack.domain == domain.name).then_some(found)),
                Err(error) => {
                    row = self.chunk_rows([id])?.pop().flatten();
                    if row.is_some_and(|now| now.pack == found.pack) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The row of a pack that a chunk row names. Only what never changes of it is up to date: name,
    /// length, kind and domain.
    pub(crate) fn pack_row(&self, number: PackNumber) -> Result<Arc<PackRow>, ServerError> {
        if let Some(row) = lock(&self.packs).get(&number) {
            return Ok(Arc::clone(row));
        }
        let row = self.find_pack_row(number)?;
        let row =
            Arc::new(row.ok_or_else(|| ServerError::Row { object: format!("pack number {}", number.0) })?);
        let mut packs = lock(&self.packs);
        if packs.len() >= PACKS_CACHED {
            packs.clear();
        }
        packs.insert(number, Arc::clone(&row));
        Ok(row)
    }

    /// The row of a pack as it is now, if it has one.
    pub(crate) fn find_pack_row(&self, number: PackNumber) -> Result<Option<PackRow>, ServerError> {
        let Some(value) = self.parts.index.get(Table::Pack, &number.key())? else { return Ok(None) };
        let wrong = || ServerError::Row { object: format!("pack number {}", number.0) };
        PackRow::decode(&value).map(Some).ok_or_else(wrong)
    }

    /// The number in the row of one kind of the meta table, if there is such a row.
    pub(crate) fn number(&self, kind: Meta, what: &str) -> Result<Option<u64>, ServerError> {
        let Some(value) = self.parts.index.get(Table::Meta, kind.bytes())? else { return Ok(None) };
        Meta::number(&value).map(Some).ok_or_else(|| ServerError::Row { object: what.to_owned() })
    }

    /// Shows each pack's row to `visit`.
    pub(crate) fn for_each_pack(
        &self,
        mut visit: impl FnMut(PackNumber, &PackRow),
    ) -> Result<(), ServerError> {
        self.for_each_row(Table::Pack, &KeyRange::all(), |key, value| {
            let row = PackNumber::from_key(key).zip(PackRow::decode(value));
            let (number, row) = row.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
            visit(number, &row);
            Ok(())
        })
    }

    /// The rows that name one of `packs`. Reads the whole table: only for packs that are lost.
    pub(crate) fn rows_of(
        &self,
        packs: &HashSet<PackNumber>,
    ) -> Result<HashMap<ChunkId, ChunkRow>, ServerError> {
        let mut found = HashMap::new();
        self.for_each_row(Table::Chunk, &KeyRange::all(), |key, value| {
            let id = key.try_into().ok().map(ChunkId::from_bytes);
            let row = id.zip(ChunkRow::decode(value));
            let (id, row) = row.ok_or_else(|| ServerError::Row {
                object: format!("chunk {}", format_spec::id::to_hex(key)),
            })?;
            if packs.contains(&row.pack) {
                found.insert(id, row);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
