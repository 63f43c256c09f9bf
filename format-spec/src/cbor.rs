//! How our records meet CBOR: one way to decode a whole buffer, and byte strings of ids.

use minicbor::{Decode, Encode};

use crate::error::FormatError;

/// The CBOR of `value`.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// The value that all of `bytes` stand for: a byte that is left over is an error.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, FormatError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| FormatError::malformed(what, error.to_string()))?;
    if decoder.position() == bytes.len() {
        return Ok(value);
    }
    Err(FormatError::malformed(what, "bytes follow its end"))
}

/// Many ids as one byte string.
pub(crate) mod ids {
    use minicbor::decode::Error;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    use crate::id::ChunkId;

    pub(crate) fn encode<C, W: Write>(
        ids: &[ChunkId],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        e.bytes(&bytes)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<ChunkId>, Error> {
        let (ids, rest) = d.bytes()?.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Error::message("a list of ids is not a multiple of 32 bytes"));
        }
        Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect())
    }
}
