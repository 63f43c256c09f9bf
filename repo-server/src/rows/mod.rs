//! Content of the rows of each table. Numbers are big-endian in keys and little-endian in values.
//!
//! | table | key | value |
//! |---|---|---|
//! | chunk | chunk or page id | [`ChunkRow`] |
//! | pack | pack number | [`PackRow`] |
//! | snapshot | snapshot id | the snapshot's CBOR |
//! | manifest | manifest id | the snapshot that holds it |
//! | session | session id | [`SessionRow`] |
//! | meta | [`Meta`] | a counter or a fact |
//! | mark | snapshot id | [`MarkRow`]: whether it is to go, or must stay |
//! | idle | [`IdleKey`] | nothing: the key says which rows to look at |
//! | doomed | [`DoomedKey`] | [`DoomedRow`]: from when on the object may be deleted, and whose commit may still want it |
//! | damaged | chunk or page id | [`DamagedRow`]: what is wrong with the stored bytes |
//!
//! A chunk's count is the number of page rows that refer to it; a page's count is the number of
//! manifests that name it. Both change in the batch that adds or takes out the page row or the manifest
//! row.

mod alarm;
mod chunk;
mod damaged;
mod doomed;
mod idle;
mod mark;
mod meta;
mod number;
mod pack;
mod problem;
mod session;
mod totals;

pub use alarm::{AcknowledgedRow, AlarmRow};
pub use chunk::{ChunkRow, Health};
pub use damaged::DamagedRow;
pub use doomed::{DoomedKey, DoomedKind, DoomedRow};
pub use idle::{IdleKey, IdleKind};
pub use mark::{MarkRow, Protection, Tombstone};
pub use meta::Meta;
pub use number::PackNumber;
pub use pack::{Live, PackRow};
pub use problem::ProblemRow;
pub use session::{SessionRow, SessionState};
pub use totals::Totals;

/// The collector's counter. It grows with every run, and orders what no clock has to.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Key of the present epoch in the meta table.
    pub const KEY: &'static [u8] = Meta::Epoch.bytes();

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its value.
    pub fn encode(self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    /// The epoch that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(value.try_into().ok()?)))
    }
}

/// Reads fixed-size fields off the front of a value.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*field)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_le_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
