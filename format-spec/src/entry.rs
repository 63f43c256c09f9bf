//! One file, folder or link of a node, and the extents that make up a file's content.

use minicbor::decode::Error;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::MAX_CHUNK_LEN;
use crate::error::FormatError;
use crate::id::{ChunkId, FileDigest};
use crate::path::{EntryPath, MAX_PATH_LEN};

/// Most bytes that the names and values of an entry's extended attributes take together. With it an
/// entry always fits in a page.
pub const MAX_XATTRS_LEN: usize = 512 << 10;

/// A moment with nanoseconds, as `stat` gives it; `seconds` may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    #[n(0)]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[n(1)]
    pub nanos: u32,
}

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum EntryKind {
    /// A regular file; its content follows.
    #[n(0)]
    File,
    /// A folder.
    #[n(1)]
    Folder,
    /// A symbolic link; `target` says where to.
    #[n(2)]
    Symlink,
    /// One more name of the file that came first in the same link group.
    #[n(3)]
    HardLink,
}

/// An extended attribute. Names and values are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Xattr {
    /// Name with its namespace, such as `user.comment`.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Value.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Everything about one name in the tree but a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// Path from `/` of the node, without the leading slash.
    #[n(0)]
    pub path: EntryPath,
    /// Kind of the entry.
    #[n(1)]
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (07777).
    #[n(2)]
    pub mode: u32,
    /// Owner.
    #[n(3)]
    pub uid: u32,
    /// Group.
    #[n(4)]
    pub gid: u32,
    /// Time of the last change of the content.
    #[n(5)]
    pub mtime: Timestamp,
    /// Length of a file's content in bytes; 0 for the rest.
    #[n(6)]
    pub size: u64,
    /// Extended attributes, sorted by name.
    #[n(7)]
    pub xattrs: Vec<Xattr>,
    /// Where a symbolic link points.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub target: Option<Vec<u8>>,
    /// Names with the same number are links of one inode.
    #[n(9)]
    pub link_group: Option<u64>,
}

impl Entry {
    /// Checks what the types do not say: the rules beside each field.
    ///
    /// # Errors
    /// [`FormatError`]: no reader takes a page with such an entry.
    pub fn check(&self) -> Result<(), FormatError> {
        let xattrs_len: usize = self.xattrs.iter().map(|x| x.name.len().saturating_add(x.value.len())).sum();
        if xattrs_len > MAX_XATTRS_LEN {
            let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            let (len, limit) = (wide(xattrs_len), wide(MAX_XATTRS_LEN));
            return Err(FormatError::TooLong { what: "extended attributes", len, limit });
        }
        let rules = [
            (!self.path.is_top(), "an entry without a name"),
            (self.mtime.nanos < 1_000_000_000, "a second of more than 10^9 nanoseconds"),
            (self.mode <= 0o7777, "mode bits over 07777"),
            (self.kind == EntryKind::File || self.size == 0, "a size on something that is not a file"),
            (self.kind != EntryKind::HardLink || self.link_group.is_some(), "a hard link of no group"),
            (self.xattrs.is_sorted_by(|a, b| a.name < b.name), "extended attributes out of order"),
            (self.target_fits_kind(), "a symbolic link without a usable target, or a target elsewhere"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, why)) => Err(FormatError::malformed("entry", format!("`{}`: {why}", self.path))),
        }
    }

    fn target_fits_kind(&self) -> bool {
        match &self.target {
            None => self.kind != EntryKind::Symlink,
            Some(target) => {
                let usable = !target.is_empty() && target.len() <= MAX_PATH_LEN && !target.contains(&0);
                self.kind == EntryKind::Symlink && usable
            }
        }
    }
}

/// A run of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The plaintext of a chunk. CBOR: `[len, id]`.
    Chunk {
        /// Id of the chunk.
        id: ChunkId,
        /// Its length in bytes, at least 1.
        len: u32,
    },
    /// Zeros that the file system does not store. CBOR: `[len]`.
    Hole {
        /// Length in bytes, at least 1.
        len: u64,
    },
}

impl Extent {
    /// How many bytes of the file it covers.
    pub fn covered(&self) -> u64 {
        match self {
            Self::Chunk { len, .. } => u64::from(*len),
            Self::Hole { len } => *len,
        }
    }

    /// The chunk it needs.
    pub fn chunk(&self) -> Option<ChunkId> {
        match self {
            Self::Chunk { id, .. } => Some(*id),
            Self::Hole { .. } => None,
        }
    }
}

impl<C> Encode<C> for Extent {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Chunk { id, len } => e.array(2)?.u32(*len)?.encode_with(id, ctx)?.ok(),
            Self::Hole { len } => e.array(1)?.u64(*len)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Extent {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, Error> {
        let fields = d.array()?;
        let len = d.u64()?;
        if len == 0 {
            return Err(Error::message("an extent of no bytes"));
        }
        match fields {
            Some(1) => Ok(Self::Hole { len }),
            Some(2) => {
                let len = u32::try_from(len).ok().filter(|len| *len <= MAX_CHUNK_LEN);
                let len = len.ok_or_else(|| Error::message("a chunk over the length limit"))?;
                Ok(Self::Chunk { len, id: d.decode_with(ctx)? })
            }
            _ => Err(Error::message("an extent has one or two fields")),
        }
    }
}

/// How a file's list of extents ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum FileEnd {
    /// All of it is there, and this is its digest.
    #[n(0)]
    Whole(#[n(0)] FileDigest),
    /// It could not be read to its end; the extents before are not to be used.
    #[n(1)]
    Unreadable,
    /// All of it is there, read while its owner wrote to it: a mixture of states, which the owner's own log repairs.
    #[n(2)]
    Fuzzy(#[n(0)] FileDigest),
    /// All of it is there, read while its owner wrote to it: a mixture of states that may never have been one.
    #[n(3)]
    Torn(#[n(0)] FileDigest),
}

impl FileEnd {
    /// The digest of the content; `None` if there is none to use.
    pub fn digest(&self) -> Option<FileDigest> {
        match self {
            Self::Whole(digest) | Self::Fuzzy(digest) | Self::Torn(digest) => Some(*digest),
            Self::Unreadable => None,
        }
    }
}
