//! State of the last push on disk, so that an unchanged tree costs one walk and no reads.
//!
//! There is one file per repository, cluster, node and set of roots. It holds the pages of that push, with
//! the [`Identity`] of every file in them that may be relied on. A push writes the next file meanwhile
//! ([`Spool`], where its pages also wait for their turn) and merges the last one with the list of files
//! ([`Known`]), both in constant memory. The new file replaces the old one after the commit was acknowledged.
//! If there is no commit, the unfinished file is the journal from which the next push continues ([`Memory`]
//! has both).
//!
//! A finished file names its manifest. If the server has pinned that in the session, everything in it
//! is still there; otherwise, and for a journal, the server is asked again for every chunk. Each block is
//! checked before it is used; whatever is wrong with a file costs one push that reads everything, and is
//! never an error.
//!
//! ```text
//! magic "ASTSTATE" · version u16 · repository 16 · session 16 · manifest 32 · end u64 · number u64
//!   · length of the roots u32 · devices u32 · roots, each with a NUL · of each root, device u64 and file system u64 · check 32
//! blocks:  length of the page u32 · slots u32 · check 32 · page · slots of 66 bytes
//! ```
//! Behind the blocks of a finished state lie its files by their inodes ([`inodes`]). Numbers are little-endian. A check is the keyed hash of what it covers, with session and position.
//! In a journal, manifest and end are zero, and the last block may be cut short.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod inodes;
mod known;
mod memory;
mod place;
mod spool;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::{ManifestId, RepositoryId, SessionId, Timestamp};

pub(crate) use known::{ByInode, Damaged, Known};
pub use memory::Alike;
pub(crate) use memory::{Likeness, Memory, Origin, Remembered, Sure};
pub(crate) use place::{Header, Place, default_folder, make_folder, remembered_roots};
pub(crate) use spool::{Spool, SpoolMark};

use crate::identity::{Device, Habit, Identity, Settled, Source};

const MAGIC: &[u8; 8] = b"ASTSTATE";
const VERSION: u16 = 4;
/// Bytes of a header before the roots.
const FIXED_LEN: usize = 98;
const DEVICE_LEN: usize = 16;
const CHECK_LEN: usize = 32;
const BLOCK_HEAD_LEN: usize = 40;
const SLOT_LEN: usize = 66;

/// Bits of a slot's first byte.
const PRESENT: u8 = 1;
const UNSETTLED: u8 = 2;
const IN_TREE: u8 = 4;
const IN_PLACE: u8 = 8;

/// Record of a file that was read in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Identity when it was read.
    pub(crate) identity: Identity,
    /// Certainty that a later change shows.
    pub(crate) settled: Settled,
    /// Presence of a hard link of ours, whose removal will change the ctime of the file.
    pub(crate) source: Source,
    /// How it has been seen to be written.
    pub(crate) habit: Habit,
    /// How many names it had, ours not counted.
    pub(crate) links: u32,
}

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

/// Appends one slot.
fn push_slot(out: &mut Vec<u8>, slot: Option<&Slot>) {
    let Some(Slot { identity, settled, source, habit, links }) = slot else {
        out.extend_from_slice(&[0; SLOT_LEN]);
        return;
    };
    let unsettled = if *settled == Settled::No { UNSETTLED } else { 0 };
    let in_tree = if *source == Source::Link { IN_TREE } else { 0 };
    let (in_place, growths) = match *habit {
        Habit::InPlace => (IN_PLACE, 0),
        Habit::Appends(growths) => (0, growths),
    };
    out.extend_from_slice(&[PRESENT | unsettled | in_tree | in_place, growths]);
    for number in [identity.dev, identity.ino, identity.size] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for time in [identity.btime, identity.mtime, identity.ctime] {
        out.extend_from_slice(&time.seconds.to_le_bytes());
        out.extend_from_slice(&time.nanos.to_le_bytes());
    }
    out.extend_from_slice(&links.to_le_bytes());
}

/// The slot in `bytes`; the outer `None` means that it is none.
fn parse_slot(bytes: &[u8; SLOT_LEN]) -> Option<Option<Slot>> {
    let mut fields = Fields(bytes);
    let [tag, growths] = fields.array()?;
    if tag == 0 {
        return bytes.iter().all(|byte| *byte == 0).then_some(None);
    }
    let is_odd = tag & IN_PLACE != 0 && growths != 0;
    if is_odd || tag & PRESENT == 0 || tag & !(PRESENT | UNSETTLED | IN_TREE | IN_PLACE) != 0 {
        return None;
    }
    let (dev, ino, size) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (btime, mtime, ctime) = (fields.time()?, fields.time()?, fields.time()?);
    Some(Some(Slot {
        identity: Identity { dev, ino, btime, size, mtime, ctime },
        settled: if tag & UNSETTLED == 0 { Settled::Yes } else { Settled::No },
        source: if tag & IN_TREE == 0 { Source::Path } else { Source::Link },
        habit: if tag & IN_PLACE == 0 { Habit::Appends(growths) } else { Habit::InPlace },
        links: fields.u32()?,
    }))
}

fn parse_slots(bytes: &[u8]) -> Option<Vec<Option<Slot>>> {
    bytes.as_chunks().0.iter().map(parse_slot).collect()
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
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

/// Fields at the start of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Preamble {
    repository: RepositoryId,
    /// The session of the push that wrote it.
    session: SessionId,
    /// The manifest that it belongs to; zero in a journal.
    manifest: ManifestId,
    /// Where its last block ends; zero in a journal.
    end: u64,
    /// How many pushes were remembered before it.
    number: u64,
    roots: Vec<u8>,
    /// Device of each root.
    devices: Vec<Device>,
}

impl Preamble {
    fn encode(&self, domain: &DomainKey) -> Vec<u8> {
        let mut bytes = self.body();
        let check = check(domain, self.session.as_bytes(), 0, &[&bytes]);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// All but its check.
    fn body(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(self.repository.as_bytes());
        bytes.extend_from_slice(self.session.as_bytes());
        bytes.extend_from_slice(self.manifest.as_bytes());
        bytes.extend_from_slice(&self.end.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.roots.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.devices.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.roots);
        for Device { dev, file_system } in &self.devices {
            bytes.extend_from_slice(&dev.to_le_bytes());
            bytes.extend_from_slice(&file_system.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
