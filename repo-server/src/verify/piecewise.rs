//! A pack of which the disk does not give every byte: what can be read around the bad places.

use std::ops::Range;

use bytes::Bytes;

use crate::rows::PackRow;
use crate::site::layout::pack_object;
use crate::site::{ObjectName, SiteError};
use crate::store::Store;

/// A place that cannot be read is not narrowed down further than this: the size of a sector.
const SECTOR: u64 = 4096;

/// Reads of one pack that may fail before places are narrowed down no further: a disk takes its time for each.
const FAILURES: usize = 256;

/// The bytes of a pack, as far as there are any.
#[derive(Debug)]
pub(super) struct Pieces {
    /// All of them, with zeros in place of those that could not be read.
    pub(super) bytes: Bytes,
    /// Where those are.
    holes: Vec<Range<u64>>,
}

impl Pieces {
    /// A pack of which every byte was read.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { bytes, holes: Vec::new() }
    }

    /// Problem of the bytes in `range`, if some of them could not be read.
    pub(super) fn hole_in(&self, range: &Range<u64>) -> Option<String> {
        let hits = |hole: &&Range<u64>| hole.start < range.end && range.start < hole.end;
        let hole = self.holes.iter().find(hits)?;
        let Range { start, end } = hole;
        Some(format!("bytes {start} to {end} cannot be read, also on the second attempt"))
    }
}

/// Reads a pack that could not be read in one go: halves of what fails, down to a sector, each of which is tried
/// twice.
///
/// # Errors
/// [`SiteError`] if the site does not answer, or does not have the pack any more: nothing is known.
pub(super) async fn read(store: &Store, pack: &PackRow) -> Result<Pieces, SiteError> {
    let name = pack_object(&pack.id);
    let len = usize::try_from(pack.len).unwrap_or(usize::MAX);
    let (mut bytes, mut holes, mut failures) = (vec![0; len], Vec::new(), 0);
    let mut to_read = Vec::new();
    to_read.push(0..pack.len);
    while let Some(piece) = to_read.pop() {
        let mut read = read_piece(store, &name, &piece).await?;
        let is_small = piece.end - piece.start <= SECTOR || failures >= FAILURES;
        if read.is_none() && is_small {
            read = read_piece(store, &name, &piece).await?;
        }
        match read {
            Some(read) => put(&mut bytes, piece.start, &read),
            None if is_small => holes.push(piece),
            None => {
                failures += 1;
                let sectors = (piece.end - piece.start).div_ceil(SECTOR);
                let middle = piece.start + sectors / 2 * SECTOR;
                to_read.extend([middle..piece.end, piece.start..middle]);
            }
        }
    }
    Ok(Pieces { bytes: bytes.into(), holes })
}

/// The bytes of a piece; none if the disk does not give them.
async fn read_piece(
    store: &Store,
    name: &ObjectName,
    piece: &Range<u64>,
) -> Result<Option<Bytes>, SiteError> {
    match store.parts.site.get_ranges(name, std::slice::from_ref(piece)).await {
        Ok(read) => Ok(read.into_iter().next()),
        // It is shorter than it was: what is not there cannot be read either.
        Err(SiteError::Unreadable { .. } | SiteError::OutOfRange { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn put(bytes: &mut [u8], at: u64, read: &[u8]) {
    let start = usize::try_from(at).unwrap_or(usize::MAX);
    if let Some(slot) = bytes.get_mut(start..start.saturating_add(read.len())) {
        slot.copy_from_slice(read);
    }
}
