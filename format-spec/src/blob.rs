//! A blob is one chunk or page as it is stored: compressed, then sealed.
//!
//! ```text
//! nonce (12) · ciphertext of the payload · tag (16)
//! ```
//! Sealing is a pure function of its inputs, and a blob does not depend on where it lies: repack
//! copies blobs between packs without a key. Lengths and the algorithm stand in the sealed pack
//! footer and in the index, not here, so that a site sees no chunk boundary.

use std::io;

use crate::MAX_CHUNK_LEN;
use crate::aead::{Aead, Engine, NONCE_LEN, TAG_LEN};
use crate::error::FormatError;
use crate::id::{ChunkId, ClusterName, RepositoryId};
use crate::key::{BlobKind, SealKeys};

/// Bytes that sealing adds to a payload.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// How a payload stands for its plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Compression {
    /// The payload is the plaintext.
    #[n(0)]
    Raw,
    /// One zstd frame.
    #[n(1)]
    Zstd,
}

impl Compression {
    /// The byte that stands for it in frames and in authenticated data.
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The algorithm that `code` stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd].into_iter().find(|algorithm| algorithm.code() == code)
    }
}

/// Properties of a blob beside its bytes. All of it is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Chunk or page.
    pub kind: BlobKind,
    /// Id of the plaintext.
    pub id: ChunkId,
    /// Length of the plaintext in bytes.
    pub plain_len: u32,
    /// How the payload is compressed.
    pub compression: Compression,
}

/// A compressor that is reused from chunk to chunk on one thread.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// A compressor at a zstd level (1 to 19; 0 stands for zstd's default).
    ///
    /// # Errors
    /// An `io::Error` if zstd refuses the level.
    pub fn new(level: i32) -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(level)?, buffer: Vec::new() })
    }

    /// The payload for `plain`: one zstd frame, or the plaintext itself where zstd gains under 3 %.
    ///
    /// # Errors
    /// An `io::Error` from zstd: out of memory.
    pub fn compress<'a>(&'a mut self, plain: &'a [u8]) -> io::Result<(Compression, &'a [u8])> {
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let len = self.zstd.compress_to_buffer(plain, &mut self.buffer)?;
        let worth_it = len < plain.len() - plain.len() / 32;
        if worth_it { Ok((Compression::Zstd, &self.buffer)) } else { Ok((Compression::Raw, plain)) }
    }
}

/// A decompressor that is reused from chunk to chunk on one thread.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    buffer: Vec<u8>,
}

impl Decompressor {
    /// A decompressor that refuses windows over 8 MiB.
    ///
    /// # Errors
    /// An `io::Error` from zstd: out of memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()?, buffer: Vec::new() })
    }

    /// The plaintext of `payload`, which must be exactly `plain_len` bytes long.
    ///
    /// # Errors
    /// [`FormatError::TooLong`] before anything is allocated, [`FormatError::Malformed`] if the
    /// payload is not a frame of that length.
    pub fn decompress<'a>(
        &'a mut self,
        compression: Compression,
        payload: &'a [u8],
        plain_len: u32,
    ) -> Result<&'a [u8], FormatError> {
        if plain_len > MAX_CHUNK_LEN {
            return Err(FormatError::TooLong {
                what: "chunk",
                len: plain_len.into(),
                limit: MAX_CHUNK_LEN.into(),
            });
        }
        let wanted = usize::try_from(plain_len).expect("a chunk length fits in memory");
        let plain = match compression {
            Compression::Raw => payload,
            Compression::Zstd => self.inflate(payload, wanted)?,
        };
        if plain.len() != wanted {
            return Err(FormatError::malformed("payload", "its length is not the declared one"));
        }
        Ok(plain)
    }

    /// The content of a zstd frame that holds at most `limit` bytes.
    fn inflate(&mut self, payload: &[u8], limit: usize) -> Result<&[u8], FormatError> {
        let malformed = || FormatError::malformed("payload", "not a zstd frame of the declared length");
        if !is_one_frame(payload, limit) {
            return Err(FormatError::malformed(
                "payload",
                "not one zstd frame with a window of at most 8 MiB",
            ));
        }
        if self.buffer.len() < limit {
            self.buffer.resize(limit, 0);
        }
        let target = self.buffer.get_mut(..limit).expect("it was just made that long");
        let len = self.zstd.decompress_to_buffer(payload, target).map_err(|_| malformed())?;
        self.buffer.get(..len).ok_or_else(malformed)
    }
}

/// Longest window of a frame, in bytes.
const MAX_WINDOW: u64 = 8 << 20;

/// True if `payload` is one zstd frame of `len` bytes, without a dictionary, whose window is not too long.
fn is_one_frame(payload: &[u8], len: usize) -> bool {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    let Some([descriptor, window, ..]) = payload.strip_prefix(&MAGIC) else { return false };
    let has_dictionary = descriptor & 0b11 != 0;
    let is_single_segment = descriptor & 0b10_0000 != 0;
    let window = if is_single_segment {
        u64::try_from(len).unwrap_or(u64::MAX)
    } else {
        let base = 1_u64 << (10 + (window >> 3));
        base + base / 8 * u64::from(window & 0b111)
    };
    !has_dictionary
        && window <= MAX_WINDOW
        && zstd::zstd_safe::find_frame_compressed_size(payload).is_ok_and(|frame| frame == payload.len())
}

/// Where blobs belong: sealed into each, so that none opens elsewhere.
#[derive(Clone)]
pub struct BlobSealer {
    keys: SealKeys,
    repository: RepositoryId,
    domain: ClusterName,
}

impl BlobSealer {
    /// Seals and opens blobs of `domain` in `repository`.
    pub fn new(keys: SealKeys, repository: RepositoryId, domain: ClusterName) -> Self {
        Self { keys, repository, domain }
    }

    /// The generation of the keys in use.
    pub fn generation(&self) -> u32 {
        self.keys.generation()
    }

    /// Appends the blob of `payload` to `out` and returns its length.
    pub fn seal(&self, info: &BlobInfo, payload: &[u8], out: &mut Vec<u8>) -> usize {
        let aad = self.aad(info);
        let once = self.keys.blob_once(&info.id, &aad, payload);
        append_sealed(&once, &aad, payload, out)
    }

    /// The payload of `blob`, which must be exactly what [`seal`](Self::seal) made for `info`.
    ///
    /// # Errors
    /// [`FormatError::Unauthentic`] if any bit of the blob or of `info` differs.
    pub fn open(&self, info: &BlobInfo, blob: &[u8]) -> Result<Vec<u8>, FormatError> {
        open_sealed(&self.keys.blob_key(&info.id), &self.aad(info), blob, "blob")
    }

    fn aad(&self, info: &BlobInfo) -> Vec<u8> {
        let domain = self.domain.as_str().as_bytes();
        let mut aad = Vec::with_capacity(80 + domain.len());
        aad.extend_from_slice(b"astacus blob\0");
        aad.extend_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
        aad.extend_from_slice(&self.keys.generation().to_le_bytes());
        aad.extend_from_slice(self.repository.as_bytes());
        aad.extend_from_slice(&[info.kind.code(), info.compression.code()]);
        aad.extend_from_slice(&info.plain_len.to_le_bytes());
        aad.extend_from_slice(info.id.as_bytes());
        aad.extend_from_slice(domain);
        aad
    }
}

/// Appends `nonce · ciphertext · tag` to `out` and returns how many bytes that were.
pub(crate) fn append_sealed(
    once: &crate::key::OneTime,
    aad: &[u8],
    payload: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    out.reserve(payload.len() + OVERHEAD);
    out.extend_from_slice(&once.nonce);
    out.extend_from_slice(payload);
    let (_, in_out) = out.split_at_mut(start + NONCE_LEN);
    let tag = Engine::seal(once.key.bytes(), &once.nonce, aad, in_out);
    out.extend_from_slice(&tag);
    out.len() - start
}

/// The payload inside `nonce · ciphertext · tag`.
pub(crate) fn open_sealed(
    key: &crate::key::Secret,
    aad: &[u8],
    sealed: &[u8],
    what: &'static str,
) -> Result<Vec<u8>, FormatError> {
    let unauthentic = FormatError::Unauthentic { what };
    let Some((nonce, rest)) = sealed.split_first_chunk::<NONCE_LEN>() else { return Err(unauthentic) };
    let Some((ciphertext, tag)) = rest.split_last_chunk::<TAG_LEN>() else { return Err(unauthentic) };
    let mut payload = ciphertext.to_vec();
    Engine::open(key.bytes(), nonce, aad, &mut payload, tag).map_err(|_| unauthentic)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MasterKey;

    fn sealer(domain: &str) -> BlobSealer {
        let keys = MasterKey::from_bytes([7; 32]).seal_keys(1);
        BlobSealer::new(keys, RepositoryId::from_bytes([1; 16]), domain.parse().unwrap())
    }

    fn info() -> BlobInfo {
        BlobInfo {
            kind: BlobKind::Chunk,
            id: ChunkId::from_bytes([5; 32]),
            plain_len: 9,
            compression: Compression::Raw,
        }
    }

    /// Payloads that zstd accepts and the format does not.
    #[test]
    fn a_payload_is_one_frame_with_a_short_window() {
        let plain = b"some text, some text, some text, some text".repeat(400);
        let len = u32::try_from(plain.len()).unwrap();
        let (compression, payload) = {
            let mut compressor = Compressor::new(3).unwrap();
            let (compression, payload) = compressor.compress(&plain).unwrap();
            (compression, payload.to_vec())
        };
        assert_eq!(compression, Compression::Zstd);
        let half = zstd::bulk::compress(&plain[..plain.len() / 2], 3).unwrap();
        let rest = zstd::bulk::compress(&plain[plain.len() / 2..], 3).unwrap();
        let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"none"].concat();
        let wide = {
            let mut wide = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            wide.window_log(24).unwrap();
            std::io::Write::write_all(&mut wide, &plain).unwrap();
            wide.finish().unwrap()
        };
        let mut decompressor = Decompressor::new().unwrap();
        let mut inflate =
            |payload: &[u8]| decompressor.decompress(Compression::Zstd, payload, len).map(<[u8]>::to_vec);

        assert_eq!(inflate(&payload).unwrap(), plain);
        for (what, bad) in [
            ("two frames", [half, rest].concat()),
            ("a frame to be skipped behind", [&payload[..], &skipped].concat()),
            ("a frame to be skipped before", [&skipped[..], &payload].concat()),
            ("a byte behind", [&payload[..], b"x"].concat()),
            ("a byte less", payload[..payload.len() - 1].to_vec()),
            ("a window of 16 MiB", wide),
            ("an old format", [&[0x27, 0xB5, 0x2F, 0xFD][..], &payload[4..]].concat()),
            ("nothing", Vec::new()),
            ("the magic alone", payload[..4].to_vec()),
        ] {
            assert!(matches!(inflate(&bad), Err(FormatError::Malformed { .. })), "{what}");
        }
    }

    #[test]
    fn sealing_is_a_pure_function() {
        let (mut one, mut two) = (Vec::new(), vec![1, 2, 3]);

        let len = sealer("c").seal(&info(), b"plaintext", &mut one);
        sealer("c").seal(&info(), b"plaintext", &mut two);

        assert_eq!(len, 9 + OVERHEAD);
        assert_eq!(one, two[3..]);
        assert_eq!(sealer("c").open(&info(), &one).unwrap(), b"plaintext");
    }

    /// P2: every field of the associated data is bound.
    #[test]
    fn a_blob_opens_only_as_what_it_was_sealed() {
        let mut blob = Vec::new();
        sealer("c").seal(&info(), b"plaintext", &mut blob);
        let elsewhere = [
            BlobInfo { kind: BlobKind::Page, ..info() },
            BlobInfo { id: ChunkId::from_bytes([6; 32]), ..info() },
            BlobInfo { plain_len: 10, ..info() },
            BlobInfo { compression: Compression::Zstd, ..info() },
        ];

        for other in elsewhere {
            assert!(sealer("c").open(&other, &blob).is_err(), "{other:?}");
        }
        assert!(sealer("d").open(&info(), &blob).is_err());
        assert!(sealer("c").open(&info(), &blob[..20]).is_err());
    }

    #[test]
    fn what_does_not_compress_stays_raw() {
        let mut compressor = Compressor::new(3).unwrap();
        let mut noise = vec![0; 50_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);

        let (algorithm, payload) = compressor.compress(&noise).unwrap();
        assert_eq!((algorithm, payload), (Compression::Raw, noise.as_slice()));

        let text = b"the same line again\n".repeat(1000);
        let (algorithm, payload) = compressor.compress(&text).unwrap();
        assert_eq!(algorithm, Compression::Zstd);
        let plain_len = u32::try_from(text.len()).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(decompressor.decompress(algorithm, payload, plain_len).unwrap(), text);
    }

    #[test]
    fn a_length_that_lies_is_refused_before_it_costs_memory() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        let mut decompressor = Decompressor::new().unwrap();

        for plain_len in [0, 10, (1 << 20) - 1, (1 << 20) + 1] {
            assert!(decompressor.decompress(Compression::Zstd, &bomb, plain_len).is_err(), "{plain_len}");
        }
        let too_long = decompressor.decompress(Compression::Zstd, &bomb, u32::MAX).unwrap_err();
        assert!(matches!(too_long, FormatError::TooLong { .. }));
        assert!(decompressor.decompress(Compression::Zstd, &bomb, 1 << 20).is_ok());
        assert!(decompressor.decompress(Compression::Zstd, b"garbage", 5).is_err());
        assert!(decompressor.decompress(Compression::Raw, b"abc", 5).is_err());
    }
}
