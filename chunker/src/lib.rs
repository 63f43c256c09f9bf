//! Bytes -> chunks: where a stream of bytes is cut, and nothing else.
//!
//! # What a boundary depends on
//! The end of a chunk depends on three things only:
//! 1. the [`Params`] (algorithm and sizes),
//! 2. the secret gear table (256 words, given to [`Chunker::new`]; [`Algorithm::Fixed`] ignores it),
//! 3. the bytes from the start of the chunk, at most [`Params::max_chunk`] of them, and whether the
//!    stream ends within those.
//!
//! It does not depend on the bytes before the chunk, on its position in the stream, on how the reader
//! splits its reads, on the machine or on the build.
//!
//! # What follows, and is promised
//! - **Restart**: chunking `data[b..]` from a boundary `b` gives the boundaries of `data` behind `b`.
//! - **Growth**: appending moves no boundary but the old end. To chunk a grown file, start again where
//!   its last chunk started.
//! - **Lengths**: a chunk is never empty and at most `max` long. Only the last of a stream is shorter
//!   than `min`.
//! - **Frozen**: boundaries decide which stored chunks are found again, so they are format. The version
//!   of `fastcdc` is exact, and `tests/golden.rs` fails when a boundary moves.
//!
//! # FastCDC in five lines
//! From position `min` of a chunk on, `hash = (hash << 1) + gear[byte]` (wrapping, starts at 0). The chunk
//! ends *before* the first byte after which `hash & mask == 0`, at `max`, or at the end of the stream. Up
//! to `avg` the mask has one bit more than `log2(avg)`, from there on one bit less (normalisation level 1).
//! For 256 KiB these are `0x0000d91707537000` and `0x0000d90703537000`. When the stream ends before `max`
//! at an odd distance from the chunk's start, the last byte is not looked at.
//!
//! # Why the table is secret
//! Lengths of chunks are visible to anyone who can read the repository. With a public table they reveal which
//! known file was stored. The 64-bit seed of the `fastcdc` crate does not help, since it can be computed from
//! lengths.
//!
//! # Sources
//! Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems",
//! IEEE TPDS 2020; masks as in `fastcdc::v2020::MASKS`.

mod cut;
mod error;
mod params;
mod split;

pub use cut::{Chunker, EndOfInput};
pub use error::{ParamsError, Size};
pub use params::{Algorithm, Params};
pub use split::{Chunks, Splitter};
