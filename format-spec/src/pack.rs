//! A pack: an immutable file of blobs of one dedup domain.
//!
//! ```text
//! header (64, as in `object`) · blobs · zeros · sealed footer · trailer (64)
//! ```
//! Zeros pad the pack to a multiple of 64 KiB, so that its length tells little about the chunks in
//! it. The footer is the directory of its blobs. The trailer has a fixed size, so one read of the
//! tail finds the footer:
//!
//! ```text
//! offset  bytes
//!      0      8  where the footer starts
//!      8      4  length of the footer
//!     12      2  format version
//!     14     10  zero
//!     24     32  BLAKE3 of the sealed footer
//!     56      8  magic "ASTTAIL\0"
//! ```
//! A pack's name is the BLAKE3 of its bytes: any site and any scrub checks it without a key.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::blob::{BlobInfo, BlobSealer, Compression};
use crate::cbor;
use crate::error::FormatError;
use crate::id::{ChunkId, ClusterName, PackId, RepositoryId};
use crate::key::{BlobKind, SealKeys};
use crate::object::{self, Fields, HEADER_LEN, Header, ObjectKind};

/// A pack is sealed when its blobs reach this length.
pub const TARGET_LEN: usize = 32 << 20;
/// A pack's length is a multiple of this.
pub const PADDING: usize = 64 << 10;
/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 64;
/// Longest pack that a reader takes: the target, one last blob, and a footer.
pub const MAX_PACK_LEN: u64 = 128 << 20;

/// Room for the target and one more blob. Memory that is never written costs nothing.
const CAPACITY: usize = TARGET_LEN + (2 << 20);

const TRAILER_MAGIC: &[u8; 8] = b"ASTTAIL\0";

/// One blob in the directory of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PackEntry {
    /// Chunk or page.
    #[n(0)]
    pub kind: BlobKind,
    /// Id of the plaintext.
    #[n(1)]
    pub id: ChunkId,
    /// Where the blob starts in the pack.
    #[n(2)]
    pub offset: u32,
    /// Length of the blob, nonce and tag included.
    #[n(3)]
    pub stored_len: u32,
    /// Length of the plaintext.
    #[n(4)]
    pub plain_len: u32,
    /// How the payload is compressed.
    #[n(5)]
    pub compression: Compression,
    /// For a page: the chunks it refers to, each once.
    #[n(6)]
    #[cbor(with = "crate::cbor::ids")]
    pub references: Vec<ChunkId>,
}

impl PackEntry {
    /// Properties with which the blob was sealed.
    pub fn info(&self) -> BlobInfo {
        BlobInfo { kind: self.kind, id: self.id, plain_len: self.plain_len, compression: self.compression }
    }

    /// The blob's bytes within the pack.
    pub fn range(&self) -> std::ops::Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.stored_len)
    }
}

/// Content of a pack's footer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Directory {
    /// The dedup domain that all its blobs belong to.
    #[n(0)]
    pub domain: ClusterName,
    /// Its blobs, in the order of their offsets.
    #[n(1)]
    pub entries: Vec<PackEntry>,
}

/// A pack that is being filled, in memory. It is sealed once and never opened again.
pub struct PackBuilder {
    header: Header,
    directory: Directory,
    bytes: Vec<u8>,
}

/// A finished pack.
pub struct SealedPack {
    /// Its name.
    pub id: PackId,
    /// All its bytes.
    pub bytes: Bytes,
    /// Directory of its blobs.
    pub directory: Directory,
}

impl PackBuilder {
    /// An empty pack. `salt` must be fresh from the system's random source.
    pub fn new(generation: u32, repository: RepositoryId, domain: ClusterName, salt: [u8; 32]) -> Self {
        let header = Header { generation, repository, salt };
        let mut bytes = Vec::with_capacity(CAPACITY);
        bytes.extend_from_slice(&header.encode(ObjectKind::Pack));
        Self { header, directory: Directory { domain, entries: Vec::new() }, bytes }
    }

    /// Appends a blob that [`BlobSealer::seal`] made for `info`.
    pub fn append(&mut self, info: &BlobInfo, blob: &[u8], references: Vec<ChunkId>) {
        let len = |n: usize| u32::try_from(n).expect("a pack is far below 4 GiB");
        self.directory.entries.push(PackEntry {
            kind: info.kind,
            id: info.id,
            offset: len(self.bytes.len()),
            stored_len: len(blob.len()),
            plain_len: info.plain_len,
            compression: info.compression,
            references,
        });
        self.bytes.extend_from_slice(blob);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if it holds no blob.
    pub fn is_empty(&self) -> bool {
        self.directory.entries.is_empty()
    }

    /// The blob that `entry` of [`entries`](Self::entries) stands for.
    pub fn blob(&self, entry: &PackEntry) -> Option<&[u8]> {
        let start = usize::try_from(entry.offset).ok()?;
        let len = usize::try_from(entry.stored_len).ok()?;
        self.bytes.get(start..)?.get(..len)
    }

    /// The blobs so far.
    pub fn entries(&self) -> &[PackEntry] {
        &self.directory.entries
    }

    /// Pads it, adds footer and trailer, and names it.
    pub fn seal(mut self, keys: &SealKeys) -> SealedPack {
        let header = self.header.encode(ObjectKind::Pack);
        let footer = cbor::encode(&self.directory);
        let tail_len = footer.len() + NONCE_LEN + TAG_LEN + TRAILER_LEN;
        let total = (self.bytes.len() + tail_len).next_multiple_of(PADDING);
        self.bytes.resize(total - tail_len, 0);
        let offset = self.bytes.len();
        object::seal_part(keys, &self.header.salt, &header, &footer, &mut self.bytes);
        let (_, sealed_footer) = self.bytes.split_at(offset);
        let trailer = Trailer::of(offset, sealed_footer).encode();
        self.bytes.extend_from_slice(&trailer);
        let bytes = Bytes::from(self.bytes);
        SealedPack { id: PackId::of(&bytes), bytes, directory: self.directory }
    }
}

/// Place of a pack's footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the sealed footer in the pack.
    pub footer_offset: u64,
    /// Its length.
    pub footer_len: u32,
    footer_hash: [u8; 32],
}

impl Trailer {
    fn of(offset: usize, sealed_footer: &[u8]) -> Self {
        Self {
            footer_offset: u64::try_from(offset).expect("an offset fits in 64 bits"),
            footer_len: u32::try_from(sealed_footer.len()).expect("a footer is far below 4 GiB"),
            footer_hash: *blake3::hash(sealed_footer).as_bytes(),
        }
    }

    fn check(&self, sealed_footer: &[u8]) -> Result<(), FormatError> {
        if blake3::hash(sealed_footer) == blake3::Hash::from_bytes(self.footer_hash) {
            return Ok(());
        }
        Err(FormatError::Unauthentic { what: "pack footer" })
    }

    fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut bytes = Vec::with_capacity(TRAILER_LEN);
        bytes.extend_from_slice(&self.footer_offset.to_le_bytes());
        bytes.extend_from_slice(&self.footer_len.to_le_bytes());
        bytes.extend_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&self.footer_hash);
        bytes.extend_from_slice(TRAILER_MAGIC);
        bytes.try_into().expect("the parts add up to the trailer")
    }

    /// The trailer of a pack of `pack_len` bytes, from its last [`TRAILER_LEN`] bytes.
    ///
    /// # Errors
    /// [`FormatError`] if they are no trailer, or name a footer that does not end where the trailer
    /// starts.
    pub fn decode(bytes: &[u8; TRAILER_LEN], pack_len: u64) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::malformed("pack trailer", why);
        let mut fields = Fields { bytes };
        let short = || malformed("too short");
        let footer_offset = u64::from_le_bytes(fields.take().ok_or_else(short)?);
        let footer_len = u32::from_le_bytes(fields.take().ok_or_else(short)?);
        let version = u16::from_le_bytes(fields.take().ok_or_else(short)?);
        let reserved: [u8; 10] = fields.take().ok_or_else(short)?;
        let footer_hash = fields.take().ok_or_else(short)?;
        if fields.bytes != TRAILER_MAGIC {
            return Err(FormatError::Magic { what: "pack trailer" });
        }
        object::check_version("pack trailer", version)?;
        let trailer_len = u64::try_from(TRAILER_LEN).expect("a small number");
        let end = footer_offset.checked_add(footer_len.into()).and_then(|end| end.checked_add(trailer_len));
        if reserved != [0; 10] || end != Some(pack_len) || pack_len > MAX_PACK_LEN {
            return Err(malformed("the footer does not end where the trailer starts"));
        }
        if !pack_len.is_multiple_of(u64::try_from(PADDING).expect("a small number")) {
            return Err(malformed("the pack is not padded"));
        }
        Ok(Self { footer_offset, footer_len, footer_hash })
    }
}

/// Opens the footer of a pack: `header` is its first [`HEADER_LEN`] bytes, `sealed_footer` the bytes
/// that `trailer` names.
///
/// # Errors
/// [`FormatError`] for anything that [`PackBuilder::seal`] would not have written.
pub fn open_footer(
    keys: &SealKeys,
    repository: RepositoryId,
    header: &[u8; HEADER_LEN],
    trailer: &Trailer,
    sealed_footer: &[u8],
) -> Result<Directory, FormatError> {
    trailer.check(sealed_footer)?;
    let decoded = Header::decode(ObjectKind::Pack, header)?;
    object::check_owner("pack", &decoded, keys, repository)?;
    let footer = object::open_part(keys, &decoded.salt, header, sealed_footer, "pack footer")?;
    let directory: Directory = cbor::decode("pack footer", &footer)?;
    check_layout(&directory, trailer.footer_offset)?;
    Ok(directory)
}

/// Blobs follow each other between header and footer.
pub(crate) fn check_layout(directory: &Directory, footer_offset: u64) -> Result<(), FormatError> {
    let mut at = u64::try_from(HEADER_LEN).expect("a small number");
    for entry in &directory.entries {
        let range = entry.range();
        if range.start != at || range.end > footer_offset || entry.plain_len > crate::MAX_CHUNK_LEN {
            return Err(FormatError::malformed(
                "pack footer",
                format!("{} lies outside its place", entry.id),
            ));
        }
        at = range.end;
    }
    Ok(())
}

/// Returns the directory of a whole pack in memory, after checking its name, its footer and its padding. With
/// [`check_blob`] for every blob, every bit of the pack is checked.
///
/// # Errors
/// [`FormatError`]: another name, or any part that is not as it was written.
pub fn open(
    keys: &SealKeys,
    repository: RepositoryId,
    id: PackId,
    bytes: &[u8],
) -> Result<Directory, FormatError> {
    id.check(bytes)?;
    open_unnamed(keys, repository, bytes)
}

/// Checks of [`open`] except the name, for a damaged pack that was renamed to fit.
fn open_unnamed(keys: &SealKeys, repository: RepositoryId, bytes: &[u8]) -> Result<Directory, FormatError> {
    let header = bytes.first_chunk::<HEADER_LEN>().ok_or_else(short)?;
    let (trailer, before, footer) = split_tail(bytes)?;
    let directory = open_footer(keys, repository, header, &trailer, footer)?;
    check_padding(&directory, before)?;
    Ok(directory)
}

fn short() -> FormatError {
    FormatError::malformed("pack", "shorter than header and trailer")
}

/// The trailer, the bytes before the footer, and the sealed footer.
fn split_tail(bytes: &[u8]) -> Result<(Trailer, &[u8], &[u8]), FormatError> {
    let (rest, trailer) = bytes.split_last_chunk::<TRAILER_LEN>().ok_or_else(short)?;
    let trailer = Trailer::decode(trailer, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    let at = usize::try_from(trailer.footer_offset).ok();
    let (before, footer) = at.and_then(|at| rest.split_at_checked(at)).ok_or_else(short)?;
    Ok((trailer, before, footer))
}

/// Checks that only zeros, fewer than one unit of padding, are between the last blob and the footer.
fn check_padding(directory: &Directory, before_footer: &[u8]) -> Result<(), FormatError> {
    static ZEROS: [u8; PADDING] = [0; PADDING];
    let start = match directory.entries.last() {
        Some(last) => usize::try_from(last.range().end).ok(),
        None => Some(HEADER_LEN),
    };
    let padding = start.and_then(|start| before_footer.get(start..));
    let fits = |padding: &[u8]| padding.len() < PADDING && ZEROS.get(..padding.len()) == Some(padding);
    if padding.is_some_and(fits) {
        return Ok(());
    }
    Err(FormatError::malformed("pack", "its padding is not zeros, or too long"))
}

/// Fields of a pack that are readable without any key: for `pack inspect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Its header.
    pub header: Header,
    /// Its trailer.
    pub trailer: Trailer,
    /// The hash of its bytes, which should be its name.
    pub id: PackId,
}

/// Reads the fields of a pack that need no key.
///
/// # Errors
/// [`FormatError`] if it is no pack, or its footer does not have the hash in the trailer.
pub fn look(bytes: &[u8]) -> Result<Outside, FormatError> {
    let header = Header::decode(ObjectKind::Pack, bytes)?;
    let (trailer, _, footer) = split_tail(bytes)?;
    trailer.check(footer)?;
    Ok(Outside { header, trailer, id: PackId::of(bytes) })
}

/// The plaintext of one blob of a pack, after checking its id. For whole-pack checks.
///
/// # Errors
/// [`FormatError`] if the blob was altered or its plaintext has another id.
pub fn check_blob(
    sealer: &BlobSealer,
    domain: &crate::key::DomainKey,
    decompressor: &mut crate::blob::Decompressor,
    entry: &PackEntry,
    blob: &[u8],
) -> Result<(), FormatError> {
    let payload = sealer.open(&entry.info(), blob)?;
    let plain = decompressor.decompress(entry.compression, &payload, entry.plain_len)?;
    if domain.id_of(entry.kind, plain) == entry.id {
        return Ok(());
    }
    Err(FormatError::WrongChunk { expected: entry.id })
}

impl PackId {
    /// Checks that `bytes` are the pack with this name.
    ///
    /// # Errors
    /// [`FormatError::WrongPack`] if they hash to another name.
    pub fn check(self, bytes: &[u8]) -> Result<(), FormatError> {
        let found = Self::of(bytes);
        if found == self { Ok(()) } else { Err(FormatError::WrongPack { expected: self, found }) }
    }
}

#[cfg(test)]
#[path = "pack/tests.rs"]
mod tests;
