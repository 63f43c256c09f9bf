//! Copies: a blob that lies in two packs is taken from where its bytes are good.
//!
//! A heal leaves the damaged copy in its old pack, a repack the old copy until its pack is deleted. Neither names
//! nor directories say which is good, so copies are read and opened: first the one in the pack whose
//! name comes first, and the other if that one does not open. If none opens, the blob is in quarantine, and
//! no pack that holds a copy is doomed for its sake.

use format_spec::ChunkId;

use super::fill::{IfEmpty, PackFound, Rebuild};
use crate::catalog::fill;
use crate::error::ServerError;
use crate::index::{Batch, KeyRange, Table};
use crate::pack::unreadable;
use crate::rows::{ChunkRow, DamagedRow, Health, PackNumber};
use crate::site::layout::pack_object;
use crate::store::wait;

/// Bytes of blobs that are read at once; one blob may be longer.
const READ_BYTES: u64 = 16 << 20;

/// A blob that has a row, and was found once more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    pub(super) id: ChunkId,
    /// The row that it has.
    pub(super) holds: ChunkRow,
    /// The row that it would have where it was found.
    pub(super) found: ChunkRow,
}

/// One of two copies.
#[derive(Debug, Clone, Copy)]
enum Which {
    Holds,
    Found,
}

/// A copy that is to be opened.
#[derive(Debug, Clone, Copy)]
struct Try {
    blob: Copied,
    which: Which,
}

impl Try {
    fn row(&self) -> ChunkRow {
        match self.which {
            Which::Holds => self.blob.holds,
            Which::Found => self.blob.found,
        }
    }

    /// The other copy.
    fn other(self) -> Self {
        let which = match self.which {
            Which::Holds => Which::Found,
            Which::Found => Which::Holds,
        };
        Self { which, ..self }
    }
}

/// A copy that did not open, and why.
type Failed = (Try, String);

impl Rebuild {
    /// Decides which copy of each blob has the row.
    pub(super) fn choose(&mut self, copies: Vec<Copied>) -> Result<(), ServerError> {
        let mut batch = Batch::new();
        let first = copies.into_iter().map(|blob| self.first(blob)).collect();
        let failed = self.open_copies(first, &mut batch)?;
        let others = failed.into_iter().map(|(tried, _)| tried.other()).collect();
        for (tried, problem) in self.open_copies(others, &mut batch)? {
            self.give_up(tried.other(), problem, &mut batch)?;
        }
        self.commit(&mut batch)
    }

    /// The copy that is looked at first, in whatever order they were found.
    fn first(&self, blob: Copied) -> Try {
        let name = |row: &ChunkRow| self.pack_of(row).map(|pack| pack.id);
        let which = if name(&blob.found) < name(&blob.holds) { Which::Found } else { Which::Holds };
        Try { blob, which }
    }

    fn pack_of(&self, row: &ChunkRow) -> Option<&PackFound> {
        usize::try_from(row.pack.0).ok().and_then(|place| self.packs.get(place))
    }

    /// Opens copies, pack by pack. Those that open get the rows; answers the others.
    fn open_copies(&mut self, mut tries: Vec<Try>, batch: &mut Batch) -> Result<Vec<Failed>, ServerError> {
        tries.sort_by_key(|tried| (tried.row().pack, tried.row().offset));
        let mut failed = Vec::new();
        let mut rest = tries.as_slice();
        while let Some(first) = rest.first() {
            let (read, more) = rest.split_at(in_one_read(first.row().pack, rest));
            for (tried, problem) in read.iter().zip(self.open(read)?) {
                match problem {
                    None => self.take(*tried, Health::Sound, batch)?,
                    Some(problem) => failed.push((*tried, problem)),
                }
            }
            rest = more;
        }
        Ok(failed)
    }

    /// Problem of each of some copies in one pack. A site that does not answer ends the rebuild.
    fn open(&self, read: &[Try]) -> Result<Vec<Option<String>>, ServerError> {
        let pack = read.first().and_then(|tried| self.pack_of(&tried.row()));
        let pack = pack.ok_or(ServerError::Bug("a row of no pack"))?;
        let ranges: Vec<_> = read.iter().map(|tried| tried.row().range()).collect();
        let name = pack_object(&pack.id);
        let blobs = match wait(self.store.get_ranges(&name, &ranges)) {
            Ok(blobs) => blobs,
            Err(error) => {
                let problem = unreadable(&error).ok_or(error)?;
                return Ok(vec![Some(format!("{} {problem}", pack.id)); read.len()]);
            }
        };
        let sealer = &self.store.domain(&pack.domain).sealer;
        // Sites never answer with less; if one did, nothing opens.
        let blobs = blobs.into_iter().chain(std::iter::repeat_with(Default::default));
        let open = |(tried, blob): (&Try, bytes::Bytes)| {
            let opened = sealer.open(&tried.row().info(tried.blob.id), &blob);
            opened.err().map(|error| format!("{error} in {}", pack.id))
        };
        Ok(read.iter().zip(blobs).map(open).collect())
    }

    /// Gives the row to a copy.
    fn take(&mut self, taken: Try, health: Health, batch: &mut Batch) -> Result<(), ServerError> {
        let Copied { id, holds, .. } = taken.blob;
        if holds.health == Health::Damaged && health == Health::Sound {
            fill::no_damage(batch, &id);
            self.commit_if_heavy(batch)?;
        }
        self.take_out(&holds)?;
        self.take_in(id, ChunkRow { health, ..taken.row() })
    }

    /// Neither copy opens: the row records that, and the pack of the other one is kept.
    fn give_up(&mut self, taken: Try, problem: String, batch: &mut Batch) -> Result<(), ServerError> {
        let cluster =
            self.pack_of(&taken.row()).ok_or(ServerError::Bug("a row of no pack"))?.domain.to_string();
        let found_ms = self.store.parts.clock.unix_ms();
        let row = DamagedRow { cluster, problem, found_ms };
        fill::damage(batch, &taken.blob.id, &row);
        self.commit_if_heavy(batch)?;
        self.pack_at(taken.other().row().pack)?.if_empty = IfEmpty::UnreadableCopies;
        self.take(taken, Health::Damaged, batch)
    }

    /// Reports the blobs without a readable copy.
    pub(super) fn report_damaged(&mut self) -> Result<(), ServerError> {
        let store = std::sync::Arc::clone(&self.store);
        store.for_each_row(Table::Damaged, &KeyRange::all(), |key, value| {
            let id = key.try_into().ok().map(ChunkId::from_bytes);
            let wrong = || ServerError::Row { object: "a damaged blob".to_owned() };
            let (id, row) = id.zip(DamagedRow::decode(value)).ok_or_else(wrong)?;
            self.report.find(id, format!("none of its copies can be read: {}", row.problem), Vec::new());
            Ok(())
        })
    }
}

/// How many of `tries`, which are in the order of packs, are read from `pack` at once.
fn in_one_read(pack: PackNumber, tries: &[Try]) -> usize {
    let mut bytes = 0;
    let fits = |(place, tried): &(usize, &Try)| {
        bytes += u64::from(tried.row().stored_len);
        tried.row().pack == pack && (*place == 0 || bytes <= READ_BYTES)
    };
    tries.iter().enumerate().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use format_spec::blob::Compression;
    use format_spec::key::BlobKind;

    use super::*;
    use crate::rows::Epoch;

    fn copy(pack: u32, stored_len: u64) -> Try {
        let row = ChunkRow {
            pack: PackNumber(pack),
            offset: 0,
            stored_len: u32::try_from(stored_len).unwrap(),
            plain_len: 1,
            kind: BlobKind::Chunk,
            compression: Compression::Raw,
            health: Health::Sound,
            references: 0,
            idle_since: Epoch::default(),
        };
        let blob = Copied { id: ChunkId::from_bytes([1; 32]), holds: row, found: row };
        Try { blob, which: Which::Found }
    }

    #[test]
    fn a_read_is_of_one_pack_and_of_little_or_of_one_blob() {
        let (half, long) = (READ_BYTES / 2, READ_BYTES + 1);
        let read = |tries: &[Try]| in_one_read(tries[0].row().pack, tries);

        assert_eq!(read(&[copy(1, half), copy(1, half), copy(1, 1)]), 2);
        assert_eq!(read(&[copy(1, 1), copy(2, 1)]), 1);
        assert_eq!(read(&[copy(1, long), copy(1, 1)]), 1);
        assert_eq!(read(&[copy(1, 1), copy(1, long)]), 1);
    }
}
