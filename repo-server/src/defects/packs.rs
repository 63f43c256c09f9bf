//! Packs that are not as they were written, although each blob that is needed may be sound.
//!
//! A damaged blob that was sent again lies elsewhere then, but the pack around it stays wrong: every check
//! finds it, and a part of it that is sound today may not be so tomorrow. So the collector writes such packs
//! anew, however much of them is needed. Nothing depends on these rows but that.
//!
//! Rows `altered/<pack number>` of the meta table, without a value.

use std::collections::BTreeSet;

use crate::catalog::altered::{PREFIX, key};
use crate::error::ServerError;
use crate::index::{Batch, KeyRange, Precondition, Table};
use crate::rows::PackNumber;
use crate::store::Store;

/// Says that a pack is not as it was written, durably, unless the collector was there before. Blocks.
pub(crate) fn note(store: &Store, number: PackNumber) -> Result<(), ServerError> {
    store.exclusively(|| {
        let is_known = store.parts.index.get(Table::Meta, &key(number))?.is_some();
        if is_known || store.find_pack_row(number)?.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.require(Table::Pack, number.key(), Precondition::Present);
        batch.put(Table::Meta, key(number), Vec::new());
        store.commit(batch)
    })
}

/// All of them. Blocks.
pub(crate) fn all(store: &Store) -> Result<BTreeSet<PackNumber>, ServerError> {
    let mut packs = BTreeSet::new();
    store.for_each_row(Table::Meta, &KeyRange::prefix(PREFIX), |key, _| {
        let number = key.strip_prefix(PREFIX).and_then(PackNumber::from_key);
        packs.insert(number.ok_or_else(|| ServerError::Row { object: "an altered pack".to_owned() })?);
        Ok(())
    })?;
    Ok(packs)
}
