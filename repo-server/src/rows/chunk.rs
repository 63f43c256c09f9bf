//! Where a chunk or page lies, and who needs it.

use format_spec::ChunkId;
use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::pack::PackEntry;

use super::{Epoch, PackNumber, take, take_u32, take_u64};

/// Known state of a blob's stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known against them.
    Sound,
    /// They differ from the written ones: a client that has the content is asked to send it again.
    Damaged,
}

/// Where a chunk or page lies, and how often it is referred to. 35 bytes.
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
    /// Known state of the stored bytes.
    pub health: Health,
    /// How many pages (of a chunk) or manifests (of a page) refer to it.
    pub references: u64,
    /// While there are no references: since when. Otherwise it says nothing.
    pub idle_since: Epoch,
}

impl ChunkRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(35);
        for number in [self.pack.0, self.offset, self.stored_len, self.plain_len] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        let health = match self.health {
            Health::Sound => 0,
            Health::Damaged => 1,
        };
        value.extend_from_slice(&[self.kind.code(), self.compression.code(), health]);
        value.extend_from_slice(&self.references.to_le_bytes());
        value.extend_from_slice(&self.idle_since.0.to_le_bytes());
        value
    }

    /// The row that a value stands for.
    pub fn decode(mut value: &[u8]) -> Option<Self> {
        let from = &mut value;
        let numbers = [take_u32(from)?, take_u32(from)?, take_u32(from)?, take_u32(from)?];
        let [pack, offset, stored_len, plain_len] = numbers;
        let [kind, compression, health] = take(from)?;
        let row = Self {
            pack: PackNumber(pack),
            offset,
            stored_len,
            plain_len,
            kind: BlobKind::from_code(kind)?,
            compression: Compression::from_code(compression)?,
            health: match health {
                0 => Health::Sound,
                1 => Health::Damaged,
                _ => return None,
            },
            references: take_u64(from)?,
            idle_since: Epoch(take_u64(from)?),
        };
        value.is_empty().then_some(row)
    }

    /// Properties with which the blob was sealed.
    pub fn info(&self, id: ChunkId) -> BlobInfo {
        BlobInfo { kind: self.kind, id, plain_len: self.plain_len, compression: self.compression }
    }

    /// Entry of the blob in the footer of its pack; `references` are those of a page.
    pub(crate) fn entry(&self, id: ChunkId, references: Vec<ChunkId>) -> PackEntry {
        PackEntry {
            kind: self.kind,
            id,
            offset: self.offset,
            stored_len: self.stored_len,
            plain_len: self.plain_len,
            compression: self.compression,
            references,
        }
    }

    /// The blob's bytes within its pack.
    pub fn range(&self) -> std::ops::Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.stored_len)
    }

    /// True if no page or manifest refers to it.
    pub fn is_idle(&self) -> bool {
        self.references == 0
    }
}
