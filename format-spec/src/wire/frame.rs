//! Frames: blobs on their way between client and server, payloads compressed but not sealed.
//!
//! ```text
//! offset  bytes
//!      0      1  kind: 0 chunk, 1 page, 255 end
//!      1      1  compression: 0 raw, 1 zstd
//!      2      2  zero
//!      4      4  length of the plaintext; in the end frame: how many frames came before
//!      8      4  length of the payload
//!     12     32  id of the plaintext; zero in the end frame
//!     44      …  payload
//! ```
//! Numbers are little-endian. A stream without its end frame was cut short.

use bytes::{Buf, Bytes, BytesMut};

use crate::MAX_CHUNK_LEN;
use crate::blob::{BlobInfo, Compression};
use crate::error::FormatError;
use crate::id::ChunkId;
use crate::key::BlobKind;
use crate::object::Fields;

/// Bytes before a frame's payload.
pub const FRAME_HEADER_LEN: usize = 44;

const END: u8 = 255;

/// Fields before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Properties of the payload.
    pub info: BlobInfo,
    /// Its length in bytes.
    pub payload_len: u32,
}

impl FrameHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let info = &self.info;
        header(
            info.kind.code(),
            info.compression.code(),
            info.plain_len,
            self.payload_len,
            info.id.as_bytes(),
        )
    }
}

/// The frame that ends a stream of `frames` frames.
pub fn encode_end(frames: u32) -> [u8; FRAME_HEADER_LEN] {
    header(END, 0, frames, 0, &[0; 32])
}

fn header(
    kind: u8,
    compression: u8,
    plain_len: u32,
    payload_len: u32,
    id: &[u8; 32],
) -> [u8; FRAME_HEADER_LEN] {
    let mut bytes = Vec::with_capacity(FRAME_HEADER_LEN);
    bytes.extend_from_slice(&[kind, compression, 0, 0]);
    bytes.extend_from_slice(&plain_len.to_le_bytes());
    bytes.extend_from_slice(&payload_len.to_le_bytes());
    bytes.extend_from_slice(id);
    bytes.try_into().expect("the parts add up to the header")
}

enum Head {
    Frame(FrameHeader),
    End { frames: u32 },
}

fn decode_head(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Head, FormatError> {
    let malformed = |why: &str| FormatError::malformed("frame", why);
    let mut fields = Fields { bytes };
    let short = || malformed("too short");
    let [kind, compression, zero @ ..]: [u8; 4] = fields.take().ok_or_else(short)?;
    let plain_len = u32::from_le_bytes(fields.take().ok_or_else(short)?);
    let payload_len = u32::from_le_bytes(fields.take().ok_or_else(short)?);
    let id: [u8; 32] = fields.take().ok_or_else(short)?;
    if zero != [0, 0] {
        return Err(malformed("reserved bytes are set"));
    }
    if kind == END {
        let clean = compression == 0 && payload_len == 0 && id == [0; 32];
        return if clean { Ok(Head::End { frames: plain_len }) } else { Err(malformed("an odd end frame")) };
    }
    let info = BlobInfo {
        kind: BlobKind::from_code(kind).ok_or_else(|| malformed("unknown kind"))?,
        compression: Compression::from_code(compression).ok_or_else(|| malformed("unknown compression"))?,
        id: ChunkId::from_bytes(id),
        plain_len,
    };
    if plain_len > MAX_CHUNK_LEN {
        return Err(FormatError::TooLong {
            what: "chunk",
            len: plain_len.into(),
            limit: MAX_CHUNK_LEN.into(),
        });
    }
    if payload_len > plain_len || plain_len == 0 {
        return Err(malformed("a payload is longer than its plaintext, or empty"));
    }
    Ok(Head::Frame(FrameHeader { info, payload_len }))
}

/// A blob on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Properties of the blob.
    pub info: BlobInfo,
    /// Its compressed plaintext.
    pub payload: Bytes,
}

/// Takes frames out of a stream of bytes that arrives in pieces. Holds at most one unfinished frame
/// beside what was pushed.
#[derive(Default)]
pub struct FrameReader {
    buffer: BytesMut,
    frames: u32,
    ended: bool,
    max_plain_len: Option<u32>,
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader that refuses a blob of more than `max_plain_len` plaintext bytes as soon as its header is there.
    pub fn of_at_most(max_plain_len: u32) -> Self {
        Self { max_plain_len: Some(max_plain_len), ..Self::default() }
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes wait for more.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Header of the next frame as soon as its first bytes arrived, so that the frame can be refused before
    /// all of it is in memory. `None` until then, and at the end.
    ///
    /// # Errors
    /// [`FormatError`] if the bytes are no frame.
    pub fn head(&self) -> Result<Option<FrameHeader>, FormatError> {
        match self.buffer.first_chunk::<FRAME_HEADER_LEN>().filter(|_| !self.ended).map(decode_head) {
            Some(Ok(Head::Frame(header))) => Ok(Some(header)),
            Some(Ok(Head::End { .. })) | None => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }

    /// The next whole frame; `None` until more bytes came, and after the end.
    ///
    /// # Errors
    /// [`FormatError`] if the bytes are no frame, are one of too long a blob, or continue after the end
    /// frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FormatError> {
        if self.ended {
            return if self.buffer.is_empty() {
                Ok(None)
            } else {
                Err(FormatError::malformed("frames", "bytes follow the end frame"))
            };
        }
        let Some(head) = self.buffer.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
        match decode_head(head)? {
            Head::End { frames } if frames == self.frames => {
                self.buffer.advance(FRAME_HEADER_LEN);
                self.ended = true;
                self.next_frame()
            }
            Head::End { .. } => Err(FormatError::malformed("frames", "the end frame counts another number")),
            Head::Frame(header) => {
                self.check_len(&header)?;
                Ok(self.take(header))
            }
        }
    }

    fn check_len(&self, header: &FrameHeader) -> Result<(), FormatError> {
        let (len, limit) = (header.info.plain_len, self.max_plain_len.unwrap_or(u32::MAX));
        if len <= limit {
            return Ok(());
        }
        Err(FormatError::TooLong { what: "blob", len: len.into(), limit: limit.into() })
    }

    fn take(&mut self, header: FrameHeader) -> Option<Frame> {
        let payload_len = usize::try_from(header.payload_len).ok()?;
        if self.buffer.len() < FRAME_HEADER_LEN + payload_len {
            return None;
        }
        self.buffer.advance(FRAME_HEADER_LEN);
        self.frames = self.frames.saturating_add(1);
        Some(Frame { info: header.info, payload: self.buffer.split_to(payload_len).freeze() })
    }

    /// Checks that the stream came to its end.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] if it was cut short.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.ended {
            Ok(())
        } else {
            Err(FormatError::malformed("frames", "cut short: the end frame is missing"))
        }
    }
}

/// The body that asks about `ids`.
pub fn encode_ids(ids: &[ChunkId]) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// The ids that a body asks about.
///
/// # Errors
/// [`FormatError`] if it is not whole ids, or over [`MAX_IDS`](super::MAX_IDS) of them.
pub fn parse_ids(body: &[u8]) -> Result<Vec<ChunkId>, FormatError> {
    let (ids, rest) = body.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(FormatError::malformed("id list", "its length is not a multiple of 32"));
    }
    if ids.len() > super::MAX_IDS {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        return Err(FormatError::TooLong {
            what: "id list",
            len: wide(ids.len()),
            limit: wide(super::MAX_IDS),
        });
    }
    Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
}

/// Answer of the server for one requested id: one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The chunk is not stored. After `coming=wait`, the session that asked must send it.
    Missing = 0,
    /// The chunk is stored, and is kept for the session.
    Here = 1,
    /// It is not there, but another session has promised to send it: ask again later.
    Coming = 2,
}

impl Held {
    fn code(self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Here => 1,
            Self::Coming => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Missing, Self::Here, Self::Coming].into_iter().find(|held| held.code() == code)
    }
}

/// The answer's body: one byte per id, in the order asked for.
pub fn encode_held(held: &[Held]) -> Vec<u8> {
    held.iter().map(|held| held.code()).collect()
}

/// Parses the answer for the `expected` requested ids.
///
/// # Errors
/// [`FormatError::Malformed`] if it has another length, or a byte that means nothing.
pub fn parse_held(body: &[u8], expected: usize) -> Result<Vec<Held>, FormatError> {
    let malformed = |why: &str| FormatError::malformed("have answer", why);
    if body.len() != expected {
        return Err(malformed("its length does not fit the question"));
    }
    let held = body.iter().map(|code| Held::from_code(*code).ok_or_else(|| malformed("unknown byte")));
    held.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, payload: &'static [u8]) -> (FrameHeader, Frame) {
        let plain_len = u32::try_from(payload.len()).unwrap();
        let info = BlobInfo {
            kind: BlobKind::Chunk,
            id: ChunkId::from_bytes([byte; 32]),
            plain_len,
            compression: Compression::Raw,
        };
        (FrameHeader { info, payload_len: plain_len }, Frame { info, payload: Bytes::from_static(payload) })
    }

    fn stream() -> (Vec<u8>, [Frame; 2]) {
        let (first, second) = (frame(1, b"hello"), frame(2, b"x"));
        let mut bytes = Vec::new();
        for (header, frame) in [&first, &second] {
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&frame.payload);
        }
        bytes.extend_from_slice(&encode_end(2));
        (bytes, [first.1, second.1])
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Frame>, FormatError> {
        let mut reader = FrameReader::new();
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            reader.push(piece);
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        reader.finish()?;
        Ok(frames)
    }

    #[test]
    fn frames_come_out_however_the_stream_is_cut() {
        let (bytes, frames) = stream();

        for step in 1..=bytes.len() {
            assert_eq!(read(&bytes, step).unwrap(), frames, "in pieces of {step}");
        }
    }

    #[test]
    fn a_stream_that_is_short_long_or_miscounted_is_refused() {
        let (bytes, _) = stream();
        let end = bytes.len() - FRAME_HEADER_LEN;
        let mut miscounted = bytes.clone();
        miscounted[end + 4] = 3;

        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], 7).is_err(), "cut at {len}");
        }
        assert!(read(&[bytes.clone(), vec![0]].concat(), 7).is_err());
        assert!(read(&miscounted, 7).is_err());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_payload_comes() {
        let (mut header, _) = frame(1, b"hello");
        header.info.plain_len = MAX_CHUNK_LEN + 1;
        let mut reader = FrameReader::new();

        reader.push(&header.encode());

        assert!(matches!(reader.next_frame(), Err(FormatError::TooLong { .. })));
    }

    #[test]
    fn what_is_said_of_ids_reads_back() {
        let held = [Held::Here, Held::Missing, Held::Coming, Held::Here];

        let bytes = encode_held(&held);

        assert_eq!(bytes, [1, 0, 2, 1]);
        assert_eq!(parse_held(&bytes, 4).unwrap(), held);
        assert_eq!(parse_held(&[], 0).unwrap(), []);
    }

    #[test]
    fn an_answer_of_another_length_or_with_an_unknown_byte_is_refused() {
        for expected in [0, 3, 5] {
            assert!(
                matches!(parse_held(&[0; 4], expected), Err(FormatError::Malformed { .. })),
                "{expected}"
            );
        }
        for code in 3..=u8::MAX {
            assert!(matches!(parse_held(&[1, code], 2), Err(FormatError::Malformed { .. })), "{code}");
        }
    }

    #[test]
    fn id_lists_are_whole_and_bounded() {
        assert_eq!(parse_ids(&[7; 64]).unwrap().len(), 2);
        assert!(parse_ids(&[7; 63]).is_err());
        assert!(parse_ids(&vec![0; 32 * (super::super::MAX_IDS + 1)]).is_err());
    }
}
