//! Rows `altered/<pack number>` of the meta table, without a value: packs that are not as they were written.

use crate::index::{Batch, Table};
use crate::rows::Meta;
use crate::rows::PackNumber;

pub(crate) const PREFIX: &[u8] = Meta::Altered.bytes();

pub(crate) fn key(number: PackNumber) -> Vec<u8> {
    [PREFIX, number.key().as_slice()].concat()
}

/// A pack is deleted, or was found to be correct.
pub(super) fn forget(batch: &mut Batch, number: PackNumber) {
    batch.delete(Table::Meta, key(number));
}
