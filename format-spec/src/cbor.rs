//! How our records meet CBOR: one encoding of each value, and byte strings of ids.

use minicbor::{Decode, Encode};

use crate::error::FormatError;

/// The CBOR of `value`.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// The value that all of `bytes` stand for. Refuses every encoding but the one that [`encode`] gives:
/// a field that this version does not know is an error and not a guess.
pub(crate) fn decode<'b, T>(what: &'static str, bytes: &'b [u8]) -> Result<T, FormatError>
where
    T: Decode<'b, ()> + Encode<()>,
{
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| FormatError::malformed(what, error.to_string()))?;
    if decoder.position() != bytes.len() {
        return Err(FormatError::malformed(what, "bytes follow its end"));
    }
    check_canonical(what, &value, bytes)?;
    Ok(value)
}

/// Checks that `bytes` are what [`encode`] makes of `value`.
///
/// The derived decoders skip fields and variants that they do not know, take the last of two equal
/// keys, and read numbers of any width. None of that has a meaning in a format with one version.
pub(crate) fn check_canonical<T: Encode<()>>(
    what: &'static str,
    value: &T,
    bytes: &[u8],
) -> Result<(), FormatError> {
    let mut expected = Expected(bytes);
    if minicbor::encode(value, &mut expected).is_ok() && expected.0.is_empty() {
        return Ok(());
    }
    Err(FormatError::malformed(what, "not the encoding that this format gives it"))
}

/// Takes only the bytes it expects, so that comparing needs no copy.
struct Expected<'a>(&'a [u8]);

impl minicbor::encode::Write for Expected<'_> {
    type Error = ();

    fn write_all(&mut self, written: &[u8]) -> Result<(), ()> {
        self.0 = self.0.strip_prefix(written).ok_or(())?;
        Ok(())
    }
}

/// At most `N` values, however many an array claims to have.
pub(crate) mod at_most {
    use minicbor::decode::Error;
    use minicbor::{Decode, Decoder};

    pub(crate) fn decode<'b, C, T: Decode<'b, C>, const N: usize>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Vec<T>, Error> {
        let mut values = Vec::new();
        for value in d.array_iter_with(ctx)? {
            if values.len() == N {
                return Err(Error::message("a list is over its limit"));
            }
            values.push(value?);
        }
        Ok(values)
    }
}

/// A text of at most `N` bytes.
pub(crate) mod short_text {
    use minicbor::Decoder;
    use minicbor::decode::Error;

    pub(crate) fn decode<C, const N: usize>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, Error> {
        let text = d.str()?;
        if text.len() > N {
            return Err(Error::message("a text is over its limit"));
        }
        Ok(text.to_owned())
    }
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
