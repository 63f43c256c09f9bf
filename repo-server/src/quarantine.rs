//! Blobs whose stored bytes are not what was written: known as such until good bytes are there again.
//!
//! A blob in quarantine has a row that says [`Health::Damaged`], and a [`DamagedRow`] that says why; both
//! come and go in one batch. The alarm is up while there is any. Only what is known to be wrong gets
//! here: a site that does not answer proves nothing. All calls block.

use format_spec::{ChunkId, ClusterName};

use crate::alarm::{self, AlarmCode};
use crate::error::ServerError;
use crate::index::row::{ChunkRow, DamagedRow, Health, PackNumber};
use crate::index::{Batch, KeyRange, Table};
use crate::repository::Repository;

/// Rows that one batch changes at most: far below its limit.
const AT_ONCE: usize = 10_000;

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
pub(crate) fn mark(repository: &Repository, damage: &[(ChunkId, Place, String)]) -> Result<u64, ServerError> {
    let found_ms = repository.parts.clock.unix_ms();
    change(
        repository,
        damage,
        |(id, ..)| *id,
        |batch, (id, place, problem), row| {
            if Place::of(&row) != *place || row.health == Health::Damaged {
                return Ok(false);
            }
            let cluster = repository.pack_row(row.pack)?.domain.to_string();
            let damaged = DamagedRow { cluster, problem: problem.clone(), found_ms };
            batch.put(Table::Chunk, *id.as_bytes(), ChunkRow { health: Health::Damaged, ..row }.encode());
            batch.put(Table::Damaged, *id.as_bytes(), damaged.encode());
            Ok(true)
        },
    )
}

/// Takes blobs out of quarantine, durably: each whose row still names the place at which good bytes were
/// read. Returns how many were in it.
pub(crate) fn clear(repository: &Repository, good: &[(ChunkId, Place)]) -> Result<u64, ServerError> {
    change(
        repository,
        good,
        |(id, _)| *id,
        |batch, (id, place), row| {
            if Place::of(&row) != *place || row.health == Health::Sound {
                return Ok(false);
            }
            batch.put(Table::Chunk, *id.as_bytes(), ChunkRow { health: Health::Sound, ..row }.encode());
            batch.delete(Table::Damaged, *id.as_bytes());
            Ok(true)
        },
    )
}

/// Runs `apply` for each item that has a row, as the row is now. Returns how many were changed.
fn change<T>(
    repository: &Repository,
    items: &[T],
    id: impl Fn(&T) -> ChunkId,
    mut apply: impl FnMut(&mut Batch, &T, ChunkRow) -> Result<bool, ServerError>,
) -> Result<u64, ServerError> {
    let mut changed = 0;
    for items in items.chunks(AT_ONCE) {
        repository.exclusively(|| {
            let ids: Vec<ChunkId> = items.iter().map(&id).collect();
            let mut batch = Batch::new();
            for (item, row) in items.iter().zip(repository.chunk_rows(&ids)?) {
                if let Some(row) = row {
                    changed += u64::from(apply(&mut batch, item, row)?);
                }
            }
            if batch.is_empty() { Ok(()) } else { repository.commit(batch) }
        })?;
    }
    if changed > 0 {
        refresh_alarm(repository)?;
    }
    Ok(changed)
}

/// Whether anything of `cluster` is in quarantine.
pub(crate) fn any(repository: &Repository, cluster: &ClusterName) -> Result<bool, ServerError> {
    let mut found = false;
    repository.for_each_row(Table::Damaged, &KeyRange::all(), |key, value| {
        found |= decode(key, value)?.cluster == cluster.as_str();
        Ok(())
    })?;
    Ok(found)
}

/// What is known to be wrong with a blob.
pub(crate) fn problem(repository: &Repository, id: &ChunkId) -> Result<Option<String>, ServerError> {
    let Some(value) = repository.parts.index.get(Table::Damaged, id.as_bytes())? else { return Ok(None) };
    Ok(Some(decode(id.as_bytes(), &value)?.problem))
}

/// The packs that blobs in quarantine lie in. Forgets those that have no row any more, or a sound one.
pub(crate) fn packs(repository: &Repository) -> Result<Vec<PackNumber>, ServerError> {
    let mut ids = Vec::new();
    repository.for_each_row(Table::Damaged, &KeyRange::all(), |key, _| {
        let id = key.try_into().map_err(|_| ServerError::Row { object: "a damaged blob".to_owned() })?;
        ids.push(ChunkId::from_bytes(id));
        Ok(())
    })?;
    let mut packs = Vec::new();
    let mut over = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        for (id, row) in ids.iter().zip(repository.chunk_rows(ids)?) {
            match row {
                Some(row) if row.health == Health::Damaged => packs.push(row.pack),
                _ => over.push(*id),
            }
        }
    }
    forget(repository, &over)?;
    packs.sort_unstable();
    packs.dedup();
    Ok(packs)
}

/// Takes out what is said of blobs that are gone or sound.
fn forget(repository: &Repository, ids: &[ChunkId]) -> Result<(), ServerError> {
    for ids in ids.chunks(AT_ONCE) {
        repository.exclusively(|| {
            let mut batch = Batch::new();
            for (id, row) in ids.iter().zip(repository.chunk_rows(ids)?) {
                if row.is_none_or(|row| row.health == Health::Sound) {
                    batch.delete(Table::Damaged, *id.as_bytes());
                }
            }
            if batch.is_empty() { Ok(()) } else { repository.commit(batch) }
        })?;
    }
    if ids.is_empty() { Ok(()) } else { refresh_alarm(repository) }
}

/// Raises the alarm if anything is in quarantine, and takes it down if nothing is. Whoever takes a row out
/// of the table calls it after its batch.
pub(crate) fn refresh_alarm(repository: &Repository) -> Result<(), ServerError> {
    repository.exclusively(|| {
        let mut blobs = 0_u64;
        repository.for_each_row(Table::Damaged, &KeyRange::all(), |_, _| {
            blobs += 1;
            Ok(())
        })?;
        if blobs == 0 {
            return alarm::clear(repository, AlarmCode::DamagedBlobs);
        }
        let message = format!(
            "stored bytes of {blobs} chunks or pages are damaged: push the same content again, and see \
             `astacus-admin verify --level read` for the files that need them"
        );
        alarm::raise(repository, AlarmCode::DamagedBlobs, &message)
    })
}

/// After rows of chunks changed: if anything was in quarantine, the alarm may be over.
pub(crate) fn look_after_change(repository: &Repository) -> Result<(), ServerError> {
    if alarm::is_up(repository, AlarmCode::DamagedBlobs)? { refresh_alarm(repository) } else { Ok(()) }
}

fn decode(key: &[u8], value: &[u8]) -> Result<DamagedRow, ServerError> {
    let wrong = || ServerError::Row { object: format!("damaged blob {}", format_spec::id::to_hex(key)) };
    DamagedRow::decode(value).ok_or_else(wrong)
}
