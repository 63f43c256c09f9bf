//! Blobs whose stored bytes are not what was written: known as such until good bytes are there again.
//!
//! A blob in quarantine has a row with [`Health::Damaged`], and a [`DamagedRow`] with the reason; one batch
//! adds or removes both. The alarm is active while there is any, and counts them: their number is stored, and
//! changes with the alarm in that same batch ([`Changes`]), so no scan is needed and no crash makes it wrong.
//! Only proved damage is recorded here: a site that does not answer proves nothing. All calls block.

use std::collections::BTreeMap;

use format_spec::{ChunkId, ClusterName};

use super::walk::walk_is_due;
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::row::{ChunkRow, DamagedRow, Health, PackNumber};
use crate::index::{Batch, KeyRange, Table};
use crate::store::Store;

/// Rows that one batch changes at most: far below its limit.
const AT_ONCE: usize = 10_000;

/// How many blobs are in quarantine, in the meta table.
const COUNT_KEY: &[u8] = b"damaged_blobs";

/// Where a blob was read: what was found there says nothing about another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) pack: PackNumber,
    pub(crate) offset: u32,
}

impl Place {
    /// Where `row` says that the blob is.
    pub(crate) fn of(row: &ChunkRow) -> Self {
        Self { pack: row.pack, offset: row.offset }
    }
}

/// Marks blobs as damaged, durably: each whose row still names the place that was read. Returns how many
/// were not marked before.
pub(crate) fn mark(store: &Store, damage: &[(ChunkId, Place, String)]) -> Result<u64, ServerError> {
    let marked = put_in(store, damage)?;
    if marked > 0 {
        let (id, _, why) = damage.first().ok_or(ServerError::Bug("nothing was marked"))?;
        tracing::warn!(blobs = marked, such_as = %id, why, "stored blobs are damaged: quarantined");
        store.damage.met.notify_one();
    }
    Ok(marked)
}

fn put_in(store: &Store, damage: &[(ChunkId, Place, String)]) -> Result<u64, ServerError> {
    let found_ms = store.parts.clock.unix_ms();
    change(
        store,
        damage,
        |(id, ..)| *id,
        |batch, changes, (id, place, problem), row| {
            if Place::of(&row) != *place || row.health == Health::Damaged {
                return Ok(false);
            }
            let cluster = store.pack_row(row.pack)?.domain.to_string();
            let damaged = DamagedRow { cluster, problem: problem.clone(), found_ms };
            batch.put(Table::Chunk, *id.as_bytes(), ChunkRow { health: Health::Damaged, ..row }.encode());
            changes.put(*id, damaged);
            Ok(true)
        },
    )
}

/// Takes blobs out of quarantine, durably: each whose row still names the place at which good bytes were
/// read. Returns how many were in it.
pub(crate) fn clear(store: &Store, good: &[(ChunkId, Place)]) -> Result<u64, ServerError> {
    change(
        store,
        good,
        |(id, _)| *id,
        |batch, changes, (id, place), row| {
            if Place::of(&row) != *place || row.health == Health::Sound {
                return Ok(false);
            }
            batch.put(Table::Chunk, *id.as_bytes(), ChunkRow { health: Health::Sound, ..row }.encode());
            changes.delete(*id);
            Ok(true)
        },
    )
}

/// Runs `apply` for each item that has a row, as the row is now. Returns how many were changed.
fn change<T>(
    store: &Store,
    items: &[T],
    id: impl Fn(&T) -> ChunkId,
    mut apply: impl FnMut(&mut Batch, &mut Changes, &T, ChunkRow) -> Result<bool, ServerError>,
) -> Result<u64, ServerError> {
    let mut changed = 0;
    for items in items.chunks(AT_ONCE) {
        store.exclusively(|| {
            let ids: Vec<ChunkId> = items.iter().map(&id).collect();
            let (mut batch, mut changes) = (Batch::new(), Changes::default());
            for (item, row) in items.iter().zip(store.chunk_rows(&ids)?) {
                if let Some(row) = row {
                    changed += u64::from(apply(&mut batch, &mut changes, item, row)?);
                }
            }
            changes.close(store, &mut batch)?;
            if batch.is_empty() { Ok(()) } else { store.commit(batch) }
        })?;
    }
    Ok(changed)
}

/// True if a blob of `cluster` is quarantined.
pub(crate) fn any(store: &Store, cluster: &ClusterName) -> Result<bool, ServerError> {
    let mut found = false;
    store.for_each_row(Table::Damaged, &KeyRange::all(), |key, value| {
        found |= decode(key, value)?.cluster == cluster.as_str();
        Ok(())
    })?;
    Ok(found)
}

/// Known problem of a blob.
pub(crate) fn problem(store: &Store, id: &ChunkId) -> Result<Option<String>, ServerError> {
    let Some(value) = store.parts.index.get(Table::Damaged, id.as_bytes())? else { return Ok(None) };
    Ok(Some(decode(id.as_bytes(), &value)?.problem))
}

/// The packs that blobs in quarantine lie in, and how many lie in each. Forgets those that have no row any more, or
/// a sound one.
pub(crate) fn by_pack(store: &Store) -> Result<BTreeMap<PackNumber, u32>, ServerError> {
    let mut ids = Vec::new();
    store.for_each_row(Table::Damaged, &KeyRange::all(), |key, _| {
        let id = key.try_into().map_err(|_| ServerError::Row { object: "a damaged blob".to_owned() })?;
        ids.push(ChunkId::from_bytes(id));
        Ok(())
    })?;
    let mut packs = BTreeMap::new();
    let mut over = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        for (id, row) in ids.iter().zip(store.chunk_rows(ids)?) {
            match row {
                Some(row) if row.health == Health::Damaged => *packs.entry(row.pack).or_default() += 1,
                _ => over.push(*id),
            }
        }
    }
    forget(store, &over)?;
    Ok(packs)
}

/// The packs that blobs in quarantine lie in, in order. Forgets as [`by_pack`] does.
pub(crate) fn packs(store: &Store) -> Result<Vec<PackNumber>, ServerError> {
    Ok(by_pack(store)?.into_keys().collect())
}

/// Removes the rows of blobs that are deleted or sound.
fn forget(store: &Store, ids: &[ChunkId]) -> Result<(), ServerError> {
    for ids in ids.chunks(AT_ONCE) {
        store.exclusively(|| {
            let (mut batch, mut changes) = (Batch::new(), Changes::default());
            for (id, row) in ids.iter().zip(store.chunk_rows(ids)?) {
                if row.is_none_or(|row| row.health == Health::Sound) {
                    changes.delete(*id);
                }
            }
            changes.close(store, &mut batch)?;
            if batch.is_empty() { Ok(()) } else { store.commit(batch) }
        })?;
    }
    Ok(())
}

/// Changes of a batch to rows of quarantined blobs. Made and closed while no other task changes such rows.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<ChunkId, Option<DamagedRow>>);

impl Changes {
    /// A blob is damaged.
    fn put(&mut self, id: ChunkId, row: DamagedRow) {
        self.0.insert(id, Some(row));
    }

    /// A blob is whole again, or deleted.
    pub(crate) fn delete(&mut self, id: ChunkId) {
        self.0.insert(id, None);
    }

    /// Puts all that into the batch, with their number and the alarm as they are from then on.
    pub(crate) fn close(self, store: &Store, batch: &mut Batch) -> Result<(), ServerError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = self.0.keys().map(|id| id.as_bytes().as_slice()).collect();
        let before = store.parts.index.multi_get(Table::Damaged, &keys)?;
        let mut blobs = count(store)?;
        if before.iter().zip(self.0.values()).any(|(before, row)| before.is_none() && row.is_some()) {
            walk_is_due(store, batch)?;
        }
        for ((id, row), before) in self.0.into_iter().zip(before) {
            match (before, &row) {
                (None, Some(_)) => blobs += 1,
                (Some(_), None) => blobs = blobs.saturating_sub(1),
                (None, None) | (Some(_), Some(_)) => {}
            }
            match row {
                Some(row) => batch.put(Table::Damaged, *id.as_bytes(), row.encode()),
                None => batch.delete(Table::Damaged, *id.as_bytes()),
            };
        }
        set_count(store, batch, blobs)
    }
}

/// Number of blobs in quarantine. An index without this number is counted once.
fn count(store: &Store) -> Result<u64, ServerError> {
    let Some(value) = store.parts.index.get(Table::Meta, COUNT_KEY)? else { return scan(store) };
    let wrong = |_| ServerError::Row { object: "the number of damaged blobs".to_owned() };
    value.try_into().map(u64::from_le_bytes).map_err(wrong)
}

fn scan(store: &Store) -> Result<u64, ServerError> {
    let mut blobs = 0;
    store.for_each_row(Table::Damaged, &KeyRange::all(), |_, _| {
        blobs += 1;
        Ok(())
    })?;
    Ok(blobs)
}

/// Raises the alarm if anything is in quarantine, and takes it down if nothing is.
fn set_count(store: &Store, batch: &mut Batch, blobs: u64) -> Result<(), ServerError> {
    batch.put(Table::Meta, COUNT_KEY, blobs.to_le_bytes());
    if blobs == 0 {
        return alarm::clear_in(store, batch, AlarmCode::DamagedBlobs);
    }
    let message = format!(
        "stored bytes of {blobs} chunks or pages are damaged: push the same content again, and see \
         `astacus-admin verify --level read` for the files that need them"
    );
    alarm::raise_in(store, batch, AlarmCode::DamagedBlobs, &message)
}

/// Counts all that is in quarantine, and says so. For a rebuild, which fills the table with nothing beside it.
pub(crate) fn count_anew(store: &Store) -> Result<(), ServerError> {
    let blobs = scan(store)?;
    let mut batch = Batch::new();
    set_count(store, &mut batch, blobs)?;
    if blobs > 0 {
        walk_is_due(store, &mut batch)?;
    }
    store.commit(batch)
}

fn decode(key: &[u8], value: &[u8]) -> Result<DamagedRow, ServerError> {
    let wrong = || ServerError::Row { object: format!("damaged blob {}", format_spec::id::to_hex(key)) };
    DamagedRow::decode(value).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
