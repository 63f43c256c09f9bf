//! The envelope that packs, manifests and snapshots share: a clear header, then sealed bytes.
//!
//! ```text
//! offset  bytes
//!      0      8  magic, one per kind
//!      8      2  format version
//!     10      2  zero
//!     12      4  key generation
//!     16     16  repository id
//!     32     32  salt
//!     64      …  nonce (12) · ciphertext · tag (16); the header is its associated data
//! ```
//! Numbers are little-endian. The salt makes the key of this one object, so that no two objects
//! ever share a key and a nonce, whatever becomes of the process that writes them.

use crate::blob::{append_sealed, open_sealed};
use crate::error::FormatError;
use crate::id::RepositoryId;
use crate::key::SealKeys;

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;

/// A kind of sealed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// The files of one node.
    Manifest,
    /// The manifests of one moment.
    Snapshot,
    /// The directories of many packs.
    Checkpoint,
    /// A pack; only its footer is sealed this way.
    Pack,
    /// Why a snapshot must stay.
    Protection,
}

impl ObjectKind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Manifest => b"ASTMANI\0",
            Self::Snapshot => b"ASTSNAP\0",
            Self::Checkpoint => b"ASTCHKP\0",
            Self::Pack => b"ASTPACK\0",
            Self::Protection => b"ASTPROT\0",
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Snapshot => "snapshot",
            Self::Checkpoint => "checkpoint",
            Self::Pack => "pack",
            Self::Protection => "protection",
        }
    }
}

/// Plain fields at the start of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Key generation that the object is sealed with.
    pub generation: u32,
    /// Repository that it belongs to.
    pub repository: RepositoryId,
    /// Salt of its key.
    pub salt: [u8; 32],
}

impl Header {
    /// The header's bytes for an object of `kind`.
    pub fn encode(&self, kind: ObjectKind) -> [u8; HEADER_LEN] {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(kind.magic());
        bytes.extend_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(self.repository.as_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.try_into().expect("the parts add up to the header")
    }

    /// The header at the start of an object of `kind`.
    ///
    /// # Errors
    /// [`FormatError::Magic`], [`FormatError::Version`] or [`FormatError::Malformed`].
    pub fn decode(kind: ObjectKind, bytes: &[u8]) -> Result<Self, FormatError> {
        let what = kind.name();
        let mut fields = Fields { bytes };
        if fields.take::<8>() != Some(*kind.magic()) {
            return Err(FormatError::Magic { what });
        }
        let short = || FormatError::malformed(what, "shorter than its header");
        check_version(what, u16::from_le_bytes(fields.take().ok_or_else(short)?))?;
        if fields.take::<2>() != Some([0, 0]) {
            return Err(FormatError::malformed(what, "reserved bytes are set"));
        }
        Ok(Self {
            generation: u32::from_le_bytes(fields.take().ok_or_else(short)?),
            repository: RepositoryId::from_bytes(fields.take().ok_or_else(short)?),
            salt: fields.take().ok_or_else(short)?,
        })
    }
}

/// Reads fixed-size fields off the front of a slice.
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
}

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*field)
    }
}

pub(crate) fn check_version(what: &'static str, found: u16) -> Result<(), FormatError> {
    let expected = crate::FORMAT_VERSION;
    if found == expected { Ok(()) } else { Err(FormatError::Version { what, found, expected }) }
}

/// The bytes of an object: header and sealed `payload`. `salt` must be fresh from the system's
/// random source.
pub fn seal(
    kind: ObjectKind,
    keys: &SealKeys,
    repository: RepositoryId,
    salt: [u8; 32],
    payload: &[u8],
) -> Vec<u8> {
    let header = Header { generation: keys.generation(), repository, salt }.encode(kind);
    let mut out = header.to_vec();
    seal_part(keys, &salt, &header, payload, &mut out);
    out
}

/// The payload of an object, after every check.
///
/// # Errors
/// [`FormatError`]: not of this kind, version, repository or key generation, or altered.
pub fn open(
    kind: ObjectKind,
    keys: &SealKeys,
    repository: RepositoryId,
    bytes: &[u8],
) -> Result<Vec<u8>, FormatError> {
    let what = kind.name();
    let header = Header::decode(kind, bytes)?;
    check_owner(what, &header, keys, repository)?;
    let (aad, sealed) = bytes.split_at_checked(HEADER_LEN).ok_or(FormatError::Unauthentic { what })?;
    open_part(keys, &header.salt, aad, sealed, what)
}

pub(crate) fn check_owner(
    what: &'static str,
    header: &Header,
    keys: &SealKeys,
    repository: RepositoryId,
) -> Result<(), FormatError> {
    if header.repository != repository {
        return Err(FormatError::malformed(what, format!("it belongs to repository {}", header.repository)));
    }
    if header.generation != keys.generation() {
        return Err(FormatError::malformed(what, format!("it needs key generation {}", header.generation)));
    }
    Ok(())
}

pub(crate) fn seal_part(
    keys: &SealKeys,
    salt: &[u8; 32],
    aad: &[u8],
    payload: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    append_sealed(&keys.meta_once(salt, aad, payload), aad, payload, out)
}

pub(crate) fn open_part(
    keys: &SealKeys,
    salt: &[u8; 32],
    aad: &[u8],
    sealed: &[u8],
    what: &'static str,
) -> Result<Vec<u8>, FormatError> {
    open_sealed(&keys.meta_key(salt), aad, sealed, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MasterKey;

    const REPOSITORY: RepositoryId = RepositoryId::from_bytes([9; 16]);

    fn keys() -> SealKeys {
        MasterKey::from_bytes([3; 32]).seal_keys(1)
    }

    /// P2: every bit of a small object is covered.
    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let sealed = seal(ObjectKind::Snapshot, &keys(), REPOSITORY, [4; 32], b"the payload");
        let opens = |bytes: &[u8]| open(ObjectKind::Snapshot, &keys(), REPOSITORY, bytes);
        assert_eq!(opens(&sealed).unwrap(), b"the payload");

        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(opens(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(opens(&sealed[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn an_object_of_another_kind_repository_or_version_is_named() {
        let sealed = seal(ObjectKind::Snapshot, &keys(), REPOSITORY, [4; 32], b"x");
        let mut newer = sealed.clone();
        newer[8] = 2;

        let kind = open(ObjectKind::Manifest, &keys(), REPOSITORY, &sealed).unwrap_err();
        let version = open(ObjectKind::Snapshot, &keys(), REPOSITORY, &newer).unwrap_err();

        assert!(matches!(kind, FormatError::Magic { .. }));
        assert!(matches!(version, FormatError::Version { found: 2, .. }));
        assert!(open(ObjectKind::Snapshot, &keys(), RepositoryId::from_bytes([8; 16]), &sealed).is_err());
    }
}
