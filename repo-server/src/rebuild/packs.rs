//! Packs: what the site has, and what lies in them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use format_spec::checkpoint::CheckpointPack;
use format_spec::key::BlobKind;
use format_spec::pack::PackEntry;
use format_spec::{ChunkId, ClusterName, PackId};

use super::copies::Copied;
use super::fill::{BY_PAGE, IN_FLIGHT, IfEmpty, PackFound, Rebuild};
use crate::catalog::fill;
use crate::checkpoint;
use crate::error::ServerError;
use crate::index::{Batch, Table};
use crate::pack::{read_directory, unreadable};
use crate::rows::{ChunkRow, DoomedKey, DoomedKind, DoomedRow, Epoch, Health, Live, PackNumber, PackRow};
use crate::site::layout::{checkpoint_named, pack_named, pack_object};
use crate::site::{Area, Listed};
use crate::store::{read_ahead, wait};

/// Time for which an unreferenced pack is kept, in milliseconds: a week, in which a check can find that the
/// used copy is damaged.
const DEAD_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Rows that are kept back until they are written in one batch.
const PENDING: usize = 60_000;

/// The packs of the site whose directories are still to be read, with their lengths.
type Wanted = BTreeMap<PackId, u64>;

impl Rebuild {
    /// Takes down the rows of everything that lies in packs.
    pub(super) fn read_packs(&mut self) -> Result<(), ServerError> {
        let mut wanted = self.list_packs()?;
        self.read_checkpoints(&mut wanted)?;
        let store = Arc::clone(&self.store);
        let read = |(id, len)| {
            let store = Arc::clone(&store);
            async move { (id, len, read_directory(&store, &id, len).await) }
        };
        for answer in read_ahead(wanted, IN_FLIGHT, read) {
            let (id, len, directory) = answer?;
            match directory {
                Ok(directory) => self.pack(CheckpointPack { id, len, directory })?,
                Err(error) => {
                    let problem = unreadable(&error).ok_or(error)?;
                    self.report.find(id, format!("its content is unknown: {problem}"), Vec::new());
                }
            }
        }
        self.write_pending()?;
        self.report_damaged()
    }

    fn list_packs(&mut self) -> Result<Wanted, ServerError> {
        let mut wanted = Wanted::new();
        for Listed { name, len } in self.list(Area::Packs)? {
            match pack_named(&name) {
                Some(id) => drop(wanted.insert(id, len)),
                None => self.report.note(format!("`{name}` is not the name of a pack")),
            }
        }
        Ok(wanted)
    }

    /// Objects of one area on the site. A listing that fails ends the rebuild.
    pub(super) fn list(&self, area: Area) -> Result<Vec<Listed>, ServerError> {
        wait(self.store.list(area))
    }

    /// Takes what checkpoints say of packs that the site has, and dooms the checkpoints: their part in the
    /// index is lost, and the next ones cover all packs.
    fn read_checkpoints(&mut self, wanted: &mut Wanted) -> Result<(), ServerError> {
        let mut batch = Batch::new();
        for Listed { name, len } in self.list(Area::Heads)? {
            let Some(id) = checkpoint_named(&name) else { continue };
            match wait(checkpoint::read(&self.store, id)) {
                Ok(checkpoint) => {
                    for pack in checkpoint.packs {
                        if wanted.get(&pack.id) == Some(&pack.len) {
                            wanted.remove(&pack.id);
                            self.report.packs_of_checkpoints += 1;
                            self.pack(pack)?;
                        }
                    }
                }
                Err(error) => {
                    let problem = unreadable(&error).ok_or(error)?;
                    self.report.note(format!("{id} is unusable and was skipped: {problem}"));
                }
            }
            let row = DoomedRow { due_ms: self.kept_until(), bytes: len, ..DoomedRow::NOW };
            batch.put(Table::Doomed, DoomedKey { kind: DoomedKind::Other, name }.encode(), row.encode());
            self.commit_if_heavy(&mut batch)?;
        }
        self.commit(&mut batch)
    }

    fn kept_until(&self) -> u64 {
        self.store.parts.clock.unix_ms().saturating_add(DEAD_KEPT_MS)
    }

    /// Takes down a pack.
    fn pack(&mut self, pack: CheckpointPack) -> Result<(), ServerError> {
        let CheckpointPack { id, len, directory } = pack;
        let place = self.packs.len();
        let number = PackNumber(u32::try_from(place).map_err(|_| ServerError::Bug("too many packs"))?);
        let known = self.known(&directory.entries)?;
        let kind = directory.entries.first().map_or(BlobKind::Chunk, |entry| entry.kind);
        let domain = self.domain(&directory.domain);
        let blob_bytes = directory.entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
        let (live, if_empty) = (Live::default(), IfEmpty::Dooms);
        self.packs.push(PackFound { id, len, kind, domain, blob_bytes, live, if_empty });
        let (mut seen, mut copies) = (HashSet::new(), Vec::new());
        for (entry, known) in directory.entries.iter().zip(known) {
            // A pack never holds the same blob twice; if it does, the first counts.
            if !seen.insert(entry.id) {
                continue;
            }
            let found = row_of(number, entry);
            if let Some(holds) = self.pending.get(&entry.id).copied().or(known) {
                copies.push(Copied { id: entry.id, holds, found });
                continue;
            }
            for reference in &entry.references {
                self.references.add(*reference.as_bytes(), BY_PAGE)?;
            }
            self.take_in(entry.id, found)?;
        }
        self.choose(copies)?;
        if self.pending.len() >= PENDING { self.write_pending() } else { Ok(()) }
    }

    /// The rows that are there already, of the index.
    pub(super) fn known(&self, entries: &[PackEntry]) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        self.store.chunk_rows(entries.iter().map(|entry| &entry.id))
    }

    /// The name of a domain, which many packs share.
    fn domain(&self, name: &ClusterName) -> Arc<ClusterName> {
        let same = self.packs.last().filter(|pack| *pack.domain == *name);
        same.map_or_else(|| Arc::new(name.clone()), |pack| Arc::clone(&pack.domain))
    }

    /// Findings about the pack with this number.
    pub(super) fn pack_at(&mut self, number: PackNumber) -> Result<&mut PackFound, ServerError> {
        let pack = usize::try_from(number.0).ok().and_then(|place| self.packs.get_mut(place));
        pack.ok_or(ServerError::Bug("a row of no pack"))
    }

    /// A blob's row is taken away: its pack holds less.
    pub(super) fn take_out(&mut self, row: &ChunkRow) -> Result<(), ServerError> {
        let pack = self.pack_at(row.pack)?;
        pack.live = pack.live.without(row).ok_or(ServerError::Bug("a pack holds less than nothing"))?;
        self.report.chunks -= 1;
        Ok(())
    }

    /// A blob gets a row.
    pub(super) fn take_in(&mut self, id: ChunkId, row: ChunkRow) -> Result<(), ServerError> {
        self.pack_at(row.pack)?.live.add(&row);
        self.report.chunks += 1;
        self.pending.insert(id, row);
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), ServerError> {
        let mut batch = Batch::new();
        for (id, row) in std::mem::take(&mut self.pending) {
            fill::chunk(&mut batch, &id, &row);
            self.commit_if_heavy(&mut batch)?;
        }
        self.commit(&mut batch)
    }

    /// Writes the rows of packs, each with an item in the queue for its unreferenced data, and dooms packs of
    /// which nothing was used.
    pub(super) fn write_packs(&mut self) -> Result<(), ServerError> {
        let until = self.kept_until();
        let mut batch = Batch::new();
        for (number, pack) in (0..).map(PackNumber).zip(&self.packs) {
            if pack.live.blobs > 0 {
                let PackFound { id, len, kind, blob_bytes, live, .. } = *pack;
                let domain = ClusterName::clone(&pack.domain);
                let row = PackRow { id, len, kind, domain, blob_bytes, live, verified_ms: 0 };
                fill::pack(&mut batch, number, &row);
                self.report.packs += 1;
                self.report.stored_bytes += len;
            } else if let Some(why) = pack.if_empty.why_it_stays() {
                self.report.note(format!("{} {why}, and was skipped", pack.id));
            } else {
                let key = DoomedKey { kind: DoomedKind::Pack, name: pack_object(&pack.id) };
                let row = DoomedRow { due_ms: until, bytes: pack.len, ..DoomedRow::NOW };
                batch.put(Table::Doomed, key.encode(), row.encode());
                self.report.dead_packs += 1;
            }
            self.commit_if_heavy(&mut batch)?;
        }
        self.commit(&mut batch)
    }
}

/// The row of a blob that lies in a pack, and of which nothing else is known yet.
fn row_of(pack: PackNumber, entry: &PackEntry) -> ChunkRow {
    ChunkRow {
        pack,
        offset: entry.offset,
        stored_len: entry.stored_len,
        plain_len: entry.plain_len,
        kind: entry.kind,
        compression: entry.compression,
        health: Health::Sound,
        references: 0,
        idle_since: Epoch::default(),
    }
}
