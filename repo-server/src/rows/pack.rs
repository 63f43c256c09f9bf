//! A pack on the site, and how much of it is still in the index.

use format_spec::key::BlobKind;
use format_spec::{ClusterName, PackId};

use super::{ChunkRow, take, take_u32, take_u64};

/// The blobs of a pack that rows of chunks name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// How many.
    pub blobs: u32,
    /// Their bytes in the pack.
    pub stored_bytes: u64,
    /// Bytes of their plaintexts.
    pub plain_bytes: u64,
}

impl Live {
    /// One more blob.
    pub fn add(&mut self, row: &ChunkRow) {
        self.blobs += 1;
        self.stored_bytes += u64::from(row.stored_len);
        self.plain_bytes += u64::from(row.plain_len);
    }

    /// The rest after all of `gone` was subtracted.
    #[must_use]
    pub fn less(self, gone: &Self) -> Self {
        Self {
            blobs: self.blobs.saturating_sub(gone.blobs),
            stored_bytes: self.stored_bytes.saturating_sub(gone.stored_bytes),
            plain_bytes: self.plain_bytes.saturating_sub(gone.plain_bytes),
        }
    }

    /// One blob less; `None` if there were none to take.
    #[must_use]
    pub fn without(self, row: &ChunkRow) -> Option<Self> {
        Some(Self {
            blobs: self.blobs.checked_sub(1)?,
            stored_bytes: self.stored_bytes.checked_sub(row.stored_len.into())?,
            plain_bytes: self.plain_bytes.checked_sub(row.plain_len.into())?,
        })
    }
}

/// A pack that is on the site. Its name, length, kind and domain never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRow {
    /// Its name.
    pub id: PackId,
    /// Its length in bytes.
    pub len: u64,
    /// Kind of its blobs.
    pub kind: BlobKind,
    /// The dedup domain of its blobs.
    pub domain: ClusterName,
    /// Bytes of all its blobs.
    pub blob_bytes: u64,
    /// Blobs of the pack that rows still name.
    pub live: Live,
    /// When every byte of it was last found to be as written; server time, 0 for never.
    pub verified_ms: u64,
}

impl PackRow {
    /// Bytes of blobs that no row names any more.
    pub fn dead_bytes(&self) -> u64 {
        self.blob_bytes.saturating_sub(self.live.stored_bytes)
    }

    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = self.id.as_bytes().to_vec();
        value.extend_from_slice(&self.len.to_le_bytes());
        value.push(self.kind.code());
        value.extend_from_slice(&self.live.blobs.to_le_bytes());
        let Live { stored_bytes, plain_bytes, .. } = self.live;
        for number in [self.blob_bytes, stored_bytes, plain_bytes, self.verified_ms] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.extend_from_slice(self.domain.as_str().as_bytes());
        value
    }

    /// The row that a value stands for.
    pub fn decode(mut value: &[u8]) -> Option<Self> {
        let from = &mut value;
        let id = PackId::from_bytes(take(from)?);
        let len = take_u64(from)?;
        let [kind] = take(from)?;
        let blobs = take_u32(from)?;
        let blob_bytes = take_u64(from)?;
        let live = Live { blobs, stored_bytes: take_u64(from)?, plain_bytes: take_u64(from)? };
        let verified_ms = take_u64(from)?;
        let domain = std::str::from_utf8(value).ok()?.parse().ok()?;
        Some(Self { id, len, kind: BlobKind::from_code(kind)?, domain, blob_bytes, live, verified_ms })
    }
}
