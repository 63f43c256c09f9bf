//! A checkpoint: the directories of many packs in one object, so that a rebuild need not read the end of each
//! pack.
//!
//! It repeats what footers say and is never needed: a reader ignores one that is damaged, and a pack that
//! the site does not have.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::FormatError;
use crate::id::PackId;
use crate::pack::{self, Directory};

/// Longest encoded checkpoint that a reader takes. Writers stay below it, with as many checkpoints as it takes.
pub const MAX_CHECKPOINT_LEN: usize = 64 << 20;

/// One pack.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CheckpointPack {
    /// Its name.
    #[n(0)]
    pub id: PackId,
    /// Its length in bytes.
    #[n(1)]
    pub len: u64,
    /// Content of its footer.
    #[n(2)]
    pub directory: Directory,
}

/// Directories of several packs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Checkpoint {
    /// Format version.
    #[n(0)]
    pub version: u16,
    /// The packs.
    #[n(1)]
    pub packs: Vec<CheckpointPack>,
}

impl Checkpoint {
    /// Its CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The checkpoint that `bytes` stand for. Its directories are as those that
    /// [`pack::open_footer`] gives.
    ///
    /// # Errors
    /// [`FormatError`]; an unknown version is an error, never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "checkpoint";
        if bytes.len() > MAX_CHECKPOINT_LEN {
            let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            let (len, limit) = (wide(bytes.len()), wide(MAX_CHECKPOINT_LEN));
            return Err(FormatError::TooLong { what, len, limit });
        }
        let checkpoint: Self = cbor::decode(what, bytes)?;
        crate::object::check_version(what, checkpoint.version)?;
        for pack in &checkpoint.packs {
            pack::check_layout(&pack.directory, pack.len)?;
        }
        Ok(checkpoint)
    }
}

/// About how many bytes a pack takes in an encoded checkpoint; never less than it does.
pub fn encoded_len(directory: &Directory) -> usize {
    const PACK: usize = 64;
    const ENTRY: usize = 64;
    let references = |entry: &pack::PackEntry| entry.references.len() * 32;
    let entries: usize = directory.entries.iter().map(|entry| ENTRY + references(entry)).sum();
    PACK + directory.domain.as_str().len() + entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Compression;
    use crate::id::ChunkId;
    use crate::key::BlobKind;
    use crate::pack::PackEntry;

    fn entry(n: u8, offset: u32) -> PackEntry {
        PackEntry {
            kind: BlobKind::Page,
            id: ChunkId::from_bytes([n; 32]),
            offset,
            stored_len: u32::from(u16::MAX) + 1,
            plain_len: 1 << 20,
            compression: Compression::Zstd,
            references: vec![ChunkId::from_bytes([n; 32]); usize::from(n)],
        }
    }

    fn checkpoint() -> Checkpoint {
        let pack = |n: u8| CheckpointPack {
            id: PackId::from_bytes([n; 32]),
            len: 1 << 25,
            directory: Directory {
                domain: "cluster-1".parse().unwrap(),
                entries: vec![entry(n, 64), entry(n + 1, 64 + 65_536)],
            },
        };
        Checkpoint { version: crate::FORMAT_VERSION, packs: vec![pack(1), pack(9)] }
    }

    #[test]
    fn a_checkpoint_reads_back_and_is_no_longer_than_was_guessed() {
        let bytes = checkpoint().encode();

        assert_eq!(Checkpoint::decode(&bytes).unwrap(), checkpoint());
        let guess: usize = checkpoint().packs.iter().map(|pack| encoded_len(&pack.directory)).sum();
        assert!(bytes.len() <= guess && guess < bytes.len() * 2, "{} and {guess}", bytes.len());
    }

    /// P4: another version, a cut, and blobs outside their pack are refused.
    #[test]
    fn what_is_no_checkpoint_of_this_version_is_refused() {
        let bytes = checkpoint().encode();
        let newer = Checkpoint { version: 2, ..checkpoint() }.encode();
        let mut outside = checkpoint();
        outside.packs[1].len = 100;
        let mut overlap = checkpoint();
        overlap.packs[0].directory.entries[1].offset -= 1;

        assert!(matches!(Checkpoint::decode(&newer), Err(FormatError::Version { found: 2, .. })));
        for bad in [outside, overlap] {
            assert!(matches!(Checkpoint::decode(&bad.encode()), Err(FormatError::Malformed { .. })));
        }
        for len in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
