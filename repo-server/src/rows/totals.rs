//! Totals of the repository.

use super::{Meta, take_u32, take_u64};

/// Totals of the repository; the row `totals` of the meta table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// The next pack's number.
    pub next_pack: u32,
    /// Packs that have rows.
    pub packs: u32,
    /// Chunks and pages.
    pub chunks: u64,
    /// Bytes of all packs that have rows.
    pub stored_bytes: u64,
}

impl Totals {
    /// Its key.
    pub const KEY: &'static [u8] = Meta::Totals.bytes();

    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = self.next_pack.to_le_bytes().to_vec();
        value.extend_from_slice(&self.packs.to_le_bytes());
        value.extend_from_slice(&self.chunks.to_le_bytes());
        value.extend_from_slice(&self.stored_bytes.to_le_bytes());
        value
    }

    /// The row that a value stands for.
    pub fn decode(mut value: &[u8]) -> Option<Self> {
        let from = &mut value;
        let (next_pack, packs) = (take_u32(from)?, take_u32(from)?);
        let totals = Self { next_pack, packs, chunks: take_u64(from)?, stored_bytes: take_u64(from)? };
        value.is_empty().then_some(totals)
    }
}
