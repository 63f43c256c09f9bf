//! What was pushed last, kept on disk, so that an unchanged tree costs one walk and no reads.
//!
//! There is one file per repository, cluster, node and set of roots. It holds the pages of that push,
//! with the [`Identity`] of every file in them that may be relied on. A push writes the next file
//! while it walks ([`Spool`], which is also where its pages wait for their turn) and merges the last
//! one with the walk ([`Known`]), both in constant memory. The new file takes the old one's place
//! after the commit was acknowledged.
//!
//! A file names the manifest that it belongs to. It is used only in a session in which the server
//! has pinned that manifest, so everything in it is still there. Each block is checked before it is
//! used; whatever is wrong with a file costs one push that reads everything, and is never an error.
//!
//! ```text
//! magic "ASTSTATE" · version u16 · repository 16 · nonce 16 · manifest 32 · trailer position u64
//!   · length of the roots u32 · roots, each with a NUL · check 32
//! blocks:  length of the page u32 · slots u32 · check 32 · page · slots of 49 bytes
//! trailer: count u64 · files whose slot is void, u64 each · check 32
//! ```
//! Numbers are little-endian. A check is the keyed hash of what it covers, with nonce and position.

mod known;
mod place;
mod spool;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::{ManifestId, RepositoryId, Timestamp};

pub(crate) use known::{Damaged, Known, KnownFile};
pub(crate) use place::{Header, Place, default_folder};
pub(crate) use spool::Spool;

use crate::push::Identity;

const MAGIC: &[u8; 8] = b"ASTSTATE";
const VERSION: u16 = 1;
/// Bytes of a header before the roots.
const FIXED_LEN: usize = 86;
const CHECK_LEN: usize = 32;
const BLOCK_HEAD_LEN: usize = 40;
const SLOT_LEN: usize = 49;
/// Position that no block has: the trailer's.
const TRAILER: u64 = u64::MAX;

/// Binds a part of the file to the file and to its place in it.
fn check(domain: &DomainKey, nonce: &[u8; 16], position: u64, parts: &[&[u8]]) -> [u8; CHECK_LEN] {
    let mut text = b"astacus client state\0".to_vec();
    text.extend_from_slice(nonce);
    text.extend_from_slice(&position.to_le_bytes());
    for part in parts {
        text.extend_from_slice(part);
    }
    *domain.id_of(BlobKind::Chunk, &text).as_bytes()
}

fn block_check(
    domain: &DomainKey,
    nonce: &[u8; 16],
    position: u64,
    page: &format_spec::ChunkId,
    slots: &[u8],
) -> [u8; CHECK_LEN] {
    check(domain, nonce, position, &[page.as_bytes(), slots])
}

/// Appends one slot: whether there is an identity, and which.
fn push_slot(out: &mut Vec<u8>, slot: Option<&Identity>) {
    let Some(identity) = slot else {
        out.extend_from_slice(&[0; SLOT_LEN]);
        return;
    };
    out.push(1);
    for number in [identity.dev, identity.ino, identity.size] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for time in [identity.mtime, identity.ctime] {
        out.extend_from_slice(&time.seconds.to_le_bytes());
        out.extend_from_slice(&time.nanos.to_le_bytes());
    }
}

/// The slot in `bytes`; the outer `None` means that it is none.
fn parse_slot(bytes: &[u8; SLOT_LEN]) -> Option<Option<Identity>> {
    let mut fields = Fields(bytes);
    match fields.array::<1>()? {
        [0] => return Some(None),
        [1] => {}
        _ => return None,
    }
    let (dev, ino, size) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (mtime, ctime) = (fields.time()?, fields.time()?);
    Some(Some(Identity { dev, ino, size, mtime, ctime }))
}

/// Takes fields off the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let seconds = i64::from_le_bytes(self.array()?);
        Some(Timestamp { seconds, nanos: self.u32()? })
    }
}

/// The bytes of a header. Before the push is over, `manifest` and `trailer` are zero.
fn encode_header(
    domain: &DomainKey,
    repository: &RepositoryId,
    nonce: &[u8; 16],
    manifest: &ManifestId,
    trailer: u64,
    roots: &[u8],
) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(repository.as_bytes());
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(manifest.as_bytes());
    bytes.extend_from_slice(&trailer.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(roots.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(roots);
    let check = check(domain, nonce, 0, &[&bytes]);
    bytes.extend_from_slice(&check);
    bytes
}

#[cfg(test)]
mod tests;
