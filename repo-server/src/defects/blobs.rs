//! Blobs whose stored bytes are not what was written: known as such until good bytes are there again.
//!
//! A blob in quarantine has a row that says [`Health::Damaged`], and a [`DamagedRow`] that says why; both
//! come and go in one batch. The alarm is up while there is any, and says how many: their number is kept, and
//! changes with the alarm in that same batch, so nothing is scanned for it and no crash leaves
//! it wrong. Only what is known to be wrong gets here: a site that does not answer proves nothing. All calls
//! block.

use std::collections::BTreeMap;

use format_spec::{ChunkId, ClusterName};

pub(crate) use crate::catalog::Place;
use crate::catalog::ledger::Ledger;
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::rows::{DamagedRow, Health, PackNumber};
use crate::store::Store;

/// Rows that one batch changes at most: far below its limit.
const AT_ONCE: usize = 10_000;

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
    change(store, damage, |ledger, (id, place, problem)| {
        ledger.mark_damaged(*id, *place, |cluster| DamagedRow { cluster, problem: problem.clone(), found_ms })
    })
}

/// Takes blobs out of quarantine, durably: each whose row still names the place at which good bytes were
/// read. Returns how many were in it.
pub(crate) fn clear(store: &Store, good: &[(ChunkId, Place)]) -> Result<u64, ServerError> {
    change(store, good, |ledger, (id, place)| ledger.mark_sound(*id, *place))
}

/// Runs `apply` for each item. Returns how many were changed.
fn change<T: HasId>(
    store: &Store,
    items: &[T],
    mut apply: impl FnMut(&mut Ledger<'_>, &T) -> Result<bool, ServerError>,
) -> Result<u64, ServerError> {
    let mut changed = 0;
    for items in items.chunks(AT_ONCE) {
        changed += store.account(|ledger| {
            ledger.load(items.iter().map(HasId::id))?;
            let mut changed = 0;
            for item in items {
                changed += u64::from(apply(ledger, item)?);
            }
            Ok(changed)
        })?;
    }
    Ok(changed)
}

/// Something about one blob.
trait HasId {
    fn id(&self) -> &ChunkId;
}

impl HasId for (ChunkId, Place) {
    fn id(&self) -> &ChunkId {
        &self.0
    }
}

impl HasId for (ChunkId, Place, String) {
    fn id(&self) -> &ChunkId {
        &self.0
    }
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
        store.account(|ledger| ledger.forget_damage(ids))?;
    }
    Ok(())
}

fn decode(key: &[u8], value: &[u8]) -> Result<DamagedRow, ServerError> {
    let wrong = || ServerError::Row { object: format!("damaged blob {}", format_spec::id::to_hex(key)) };
    DamagedRow::decode(value).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
