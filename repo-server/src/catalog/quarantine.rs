//! Rows of blobs in quarantine, their number, and the alarm that says so: they change together.

use std::collections::BTreeMap;

use format_spec::ChunkId;

use super::walk::walk_is_due;
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, KeyRange, Precondition, Table};
use crate::rows::Meta;
use crate::rows::{ChunkRow, DamagedRow, PackNumber};
use crate::store::Store;

/// How many blobs are in quarantine, in the meta table.
pub(crate) const COUNT_KEY: &[u8] = Meta::DamagedBlobs.bytes();

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

/// Changes of a batch to rows of quarantined blobs.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<ChunkId, Option<DamagedRow>>);

impl Changes {
    /// A blob is damaged.
    pub(super) fn put(&mut self, id: ChunkId, row: DamagedRow) {
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
        let counted = store.parts.index.get(Table::Meta, COUNT_KEY)?;
        let mut blobs = count(store, counted.as_deref())?;
        batch.require(Table::Meta, COUNT_KEY, as_read(counted));
        if before.iter().zip(self.0.values()).any(|(before, row)| before.is_none() && row.is_some()) {
            walk_is_due(store, batch)?;
        }
        for ((id, row), before) in self.0.into_iter().zip(before) {
            let as_before = if before.is_some() { Precondition::Present } else { Precondition::Absent };
            batch.require(Table::Damaged, *id.as_bytes(), as_before);
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
fn count(store: &Store, counted: Option<&[u8]>) -> Result<u64, ServerError> {
    let Some(value) = counted else { return scan(store) };
    let wrong = || ServerError::Row { object: "the number of damaged blobs".to_owned() };
    Meta::number(value).ok_or_else(wrong)
}

fn scan(store: &Store) -> Result<u64, ServerError> {
    let mut blobs = 0;
    store.for_each_row(Table::Damaged, &KeyRange::all(), |_, _| {
        blobs += 1;
        Ok(())
    })?;
    Ok(blobs)
}

/// True if a key of the meta table is that of the number of blobs in quarantine.
pub(super) fn is_count(key: &[u8]) -> bool {
    key == COUNT_KEY
}

/// The precondition that a row is as it was read.
pub(super) fn as_read(value: Option<Vec<u8>>) -> Precondition {
    value.map_or(Precondition::Absent, Precondition::Equals)
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
