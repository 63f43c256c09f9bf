//! What the rows of each table hold. Numbers are big-endian in keys and little-endian in values.
//!
//! | table | key | value |
//! |---|---|---|
//! | chunk | chunk or page id | [`ChunkRow`] |
//! | pack | pack number | [`PackRow`] |
//! | snapshot | snapshot id | the snapshot's CBOR |
//! | manifest | manifest id | the snapshot that holds it |
//! | session | session id | `session::SessionRow` |
//! | meta | name | a counter or a fact |
//!
//! A chunk's count is the number of page rows that refer to it; a page's count is the number of
//! manifests that name it. Both change in the batch that adds the page row or the manifest row.

use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::{ChunkId, ClusterName, PackId};

/// Short name of a pack within the index: 4 bytes in each chunk row instead of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(pub u32);

impl PackNumber {
    /// Its key.
    pub fn key(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// The number that a key stands for.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        Some(Self(u32::from_be_bytes(key.try_into().ok()?)))
    }
}

/// Where a chunk or page lies, and how often it is referred to. 26 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRow {
    /// The pack.
    pub pack: PackNumber,
    /// Where the blob starts in it.
    pub offset: u32,
    /// Length of the blob.
    pub stored_len: u32,
    /// Length of the plaintext.
    pub plain_len: u32,
    /// Chunk or page.
    pub kind: BlobKind,
    /// How the payload is compressed.
    pub compression: Compression,
    /// How many pages (of a chunk) or manifests (of a page) refer to it.
    pub references: u64,
}

impl ChunkRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(26);
        for number in [self.pack.0, self.offset, self.stored_len, self.plain_len] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.extend_from_slice(&[self.kind.code(), self.compression.code()]);
        value.extend_from_slice(&self.references.to_le_bytes());
        value
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (numbers, rest) = value.split_first_chunk::<16>()?;
        let ([kind, compression], references) = rest.split_first_chunk::<2>()?;
        let mut numbers = numbers.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number));
        Some(Self {
            pack: PackNumber(numbers.next()?),
            offset: numbers.next()?,
            stored_len: numbers.next()?,
            plain_len: numbers.next()?,
            kind: BlobKind::from_code(*kind)?,
            compression: Compression::from_code(*compression)?,
            references: u64::from_le_bytes(references.try_into().ok()?),
        })
    }

    /// What the blob was sealed as.
    pub fn info(&self, id: ChunkId) -> BlobInfo {
        BlobInfo { kind: self.kind, id, plain_len: self.plain_len, compression: self.compression }
    }

    /// The blob's bytes within its pack.
    pub fn range(&self) -> std::ops::Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.stored_len)
    }
}

/// A pack that is on the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRow {
    /// Its name.
    pub id: PackId,
    /// Its length in bytes.
    pub len: u64,
    /// The dedup domain of its blobs.
    pub domain: ClusterName,
}

impl PackRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = self.id.as_bytes().to_vec();
        value.extend_from_slice(&self.len.to_le_bytes());
        value.extend_from_slice(self.domain.as_str().as_bytes());
        value
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (id, rest) = value.split_first_chunk::<32>()?;
        let (len, domain) = rest.split_first_chunk::<8>()?;
        Some(Self {
            id: PackId::from_bytes(*id),
            len: u64::from_le_bytes(*len),
            domain: std::str::from_utf8(domain).ok()?.parse().ok()?,
        })
    }
}

/// What the repository adds up to; the row `totals` of the meta table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packs ever numbered: the next pack's number.
    pub packs: u32,
    /// Chunks and pages.
    pub chunks: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
}

impl Totals {
    /// Its key.
    pub const KEY: &'static [u8] = b"totals";

    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = self.packs.to_le_bytes().to_vec();
        value.extend_from_slice(&self.chunks.to_le_bytes());
        value.extend_from_slice(&self.stored_bytes.to_le_bytes());
        value
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (packs, rest) = value.split_first_chunk::<4>()?;
        let (chunks, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            packs: u32::from_le_bytes(*packs),
            chunks: u64::from_le_bytes(*chunks),
            stored_bytes: u64::from_le_bytes(rest.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_other_lengths_are_refused() {
        let chunk = ChunkRow {
            pack: PackNumber(7),
            offset: 64,
            stored_len: 1000,
            plain_len: 3000,
            kind: BlobKind::Page,
            compression: Compression::Zstd,
            references: 1 << 40,
        };
        let pack = PackRow { id: PackId::from_bytes([3; 32]), len: 1 << 25, domain: "c".parse().unwrap() };
        let totals = Totals { packs: 3, chunks: 900, stored_bytes: 1 << 33 };

        assert_eq!(ChunkRow::decode(&chunk.encode()), Some(chunk));
        assert_eq!(PackRow::decode(&pack.encode()), Some(pack.clone()));
        assert_eq!(Totals::decode(&totals.encode()), Some(totals));
        assert_eq!(chunk.encode().len(), 26);
        assert_eq!(ChunkRow::decode(&chunk.encode()[..25]), None);
        assert_eq!(PackRow::decode(&pack.encode()[..40]), None);
        assert_eq!(Totals::decode(&[0; 21]), None);
    }
}
