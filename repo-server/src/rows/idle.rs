//! The collector's queue: which rows may have become idle, oldest first.

use format_spec::ChunkId;
use format_spec::key::BlobKind;

use super::{Epoch, PackNumber};

/// Subject of an item of the queue: rows that are idle since exactly the epoch of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleKey {
    /// One row, which lost its last reference or was revived.
    Row {
        /// Chunk or page.
        kind: BlobKind,
        /// Since when.
        since: Epoch,
        /// Which.
        id: ChunkId,
    },
    /// Every row of a pack that was new then.
    Pack {
        /// Kind of the blobs in it.
        kind: BlobKind,
        /// Since when.
        since: Epoch,
        /// Which.
        number: PackNumber,
    },
}

/// A run of the queue: items of one kind follow one another, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleKind {
    /// New packs of pages or of chunks.
    Packs(BlobKind),
    /// Single pages or chunks.
    Rows(BlobKind),
}

impl IdleKind {
    /// The first byte of the keys.
    pub fn tag(self) -> u8 {
        match self {
            Self::Packs(BlobKind::Page) => 0,
            Self::Rows(BlobKind::Page) => 1,
            Self::Packs(BlobKind::Chunk) => 2,
            Self::Rows(BlobKind::Chunk) => 3,
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        let all = [BlobKind::Page, BlobKind::Chunk].map(|kind| [Self::Packs(kind), Self::Rows(kind)]);
        all.into_iter().flatten().find(|kind| kind.tag() == tag)
    }
}

impl IdleKey {
    /// Since when the rows are idle that it is about.
    pub fn since(&self) -> Epoch {
        match self {
            Self::Row { since, .. } | Self::Pack { since, .. } => *since,
        }
    }

    /// Its key.
    pub fn encode(&self) -> Vec<u8> {
        let (run, rest) = match self {
            Self::Row { kind, id, .. } => (IdleKind::Rows(*kind), id.as_bytes().to_vec()),
            Self::Pack { kind, number, .. } => (IdleKind::Packs(*kind), number.key().to_vec()),
        };
        let mut key = vec![run.tag()];
        key.extend_from_slice(&self.since().0.to_be_bytes());
        key.extend_from_slice(&rest);
        key
    }

    /// Decodes a key.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let since = Epoch(u64::from_be_bytes(*since));
        match IdleKind::from_tag(*tag)? {
            IdleKind::Rows(kind) => {
                Some(Self::Row { kind, since, id: ChunkId::from_bytes(rest.try_into().ok()?) })
            }
            IdleKind::Packs(kind) => Some(Self::Pack { kind, since, number: PackNumber::from_key(rest)? }),
        }
    }
}
