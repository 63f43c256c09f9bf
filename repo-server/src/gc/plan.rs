//! Plan of a run, and the reasons why data is kept. Changes nothing.
//!
//! Idle rows are read in pieces and shown one by one ([`Run::for_each_idle_row`]): a push in progress may have sent a
//! hundred million. What is kept of them is a sum per session, a sum per pack, and, while no session is open, about
//! 100 bytes for each idle page.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroUsize;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::pack::PackEntry;
use format_spec::snapshot::Snapshot;
use format_spec::wire::{Amount, Pinning, Waiting};

use super::repack::thin_packs;
use super::sweep::decode_item;
use super::{Next, Run, delete};
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::rows::{
    ChunkRow, DoomedKey, DoomedKind, DoomedRow, Epoch, IdleKey, IdleKind, PackNumber, PackRow,
};
use crate::site::layout::pack_object;
use crate::snapshot::{self, Freed, reach};
use crate::store::Store;
use crate::time::{later, rfc3339};

/// Items of the queue, and rows, that are read at once.
pub(super) const AT_ONCE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// An idle row, and which.
pub(super) type Idle = (ChunkId, ChunkRow);

/// Since when rows are idle that are to be shown: the first epoch, and the one before which it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    pub(super) from: Epoch,
    pub(super) before: Option<Epoch>,
}

impl Since {
    pub(super) const EVER: Self = Self { from: Epoch(0), before: None };

    /// The items of a run that are about such rows.
    fn items(self, run: IdleKind) -> KeyRange {
        let first = |since| match run {
            IdleKind::Packs(kind) => IdleKey::Pack { kind, since, number: PackNumber(0) }.encode(),
            IdleKind::Rows(kind) => IdleKey::Row { kind, since, id: ChunkId::from_bytes([0; 32]) }.encode(),
        };
        let end = self.before.map_or_else(|| vec![run.tag() + 1], first);
        KeyRange::between(&first(self.from), &end)
    }
}

impl Run {
    /// Fills the report with what a run at this moment would do.
    pub(super) fn plan(&mut self) -> Result<(), ServerError> {
        let due: Vec<_> = self.due_snapshots()?.into_iter().map(|(snapshot, _)| snapshot).collect();
        self.report.purged = due.iter().map(|snapshot| snapshot.id).collect();
        let freed = self.plan_rows(&due)?;
        self.report.pages = freed.pages;
        self.report.chunks = freed.chunks;
        self.plan_stop()?;
        self.plan_deletes()?;
        for object in due.iter().flat_map(snapshot::objects) {
            self.plan_delete(&object, DoomedRow::NOW);
        }
        self.plan_packs(&freed)?;
        self.list_waiting_snapshots()?;
        self.list_pinned()
    }

    /// Rows that a run would delete. Rows that become idle in a run are idle since its epoch: any open
    /// session keeps them.
    fn plan_rows(&mut self, due: &[Snapshot]) -> Result<Freed, ServerError> {
        let before = self.server.sessions.oldest_start();
        let (mut freed, mut pages) = (Freed::default(), Vec::new());
        self.for_each_idle_row(Since { before, ..Since::EVER }, |(id, row)| match row.kind {
            BlobKind::Page if before.is_none() => pages.push((id, row)),
            BlobKind::Page | BlobKind::Chunk => freed.add(&row),
        })?;
        if before.is_some() {
            return Ok(freed);
        }
        reach::freed_with_idle(&self.store, &due.iter().collect::<Vec<_>>(), pages, freed)
    }

    /// Which packs nothing would be left of, and which would be repacked.
    fn plan_packs(&mut self, freed: &Freed) -> Result<(), ServerError> {
        for (number, gone) in &freed.by_pack {
            let row = self.store.find_pack_row(*number)?;
            if let Some(row) = row.filter(|row| row.live.less(gone).blobs == 0) {
                self.report.dead_packs.add(row.len);
                self.plan_delete_of_pack(&row);
            }
        }
        for thin in thin_packs(&self.store, &freed.by_pack)?.into_values().flatten() {
            if self.may_copy(&thin) == Next::Stop {
                return Ok(());
            }
            self.report.repacked.add(thin.row.len);
            self.report.copied_bytes += thin.row.live.stored_bytes;
            self.plan_delete_of_pack(&thin.row);
        }
        Ok(())
    }

    fn plan_delete_of_pack(&mut self, row: &PackRow) {
        let key = DoomedKey { kind: DoomedKind::Pack, name: pack_object(&row.id) };
        let upkeep = &self.store.parts.upkeep;
        let due_ms = later(self.store.parts.clock.unix_ms(), upkeep.gc.delete_delay);
        self.plan_delete(&key, DoomedRow { due_ms, bytes: row.len, ..DoomedRow::NOW });
    }

    /// Adds an object to those that would be deleted, or to those that wait.
    fn plan_delete(&mut self, key: &DoomedKey, doomed: DoomedRow) {
        if self.is_due(key, doomed) {
            self.report.deleted.add(doomed.bytes);
        }
    }

    /// Which objects would be deleted, and which wait.
    fn plan_deletes(&mut self) -> Result<(), ServerError> {
        let mut rows = Vec::new();
        self.store.for_each_row(Table::Doomed, &KeyRange::all(), |key, value| {
            rows.push(crate::index::Row { key: key.to_vec(), value: value.to_vec() });
            Ok(())
        })?;
        for row in rows {
            let (key, doomed) = delete::decode(&row)?;
            if !self.server.in_flight.contains(&key) {
                self.plan_delete(&key, doomed);
            }
        }
        Ok(())
    }

    /// Forgotten snapshots whose delay is not over.
    fn list_waiting_snapshots(&mut self) -> Result<(), ServerError> {
        let marks = snapshot::marks(&self.store)?;
        let purged = &self.report.purged;
        let waiting = marks.into_iter().filter(|(id, _)| !purged.contains(id)).filter_map(|(id, mark)| {
            let until = rfc3339(mark.tombstone?.until_ms);
            Some(Waiting { object: format!("snapshot {id}"), bytes: 0, until })
        });
        let mut waiting: Vec<Waiting> = waiting.collect();
        waiting.sort_by(|a, b| a.object.cmp(&b.object));
        self.report.waiting.splice(0..0, waiting);
        Ok(())
    }

    /// Lists the data that open sessions keep: for each session all rows that are idle since its start or
    /// later.
    pub(super) fn list_pinned(&mut self) -> Result<(), ServerError> {
        let sessions = self.server.sessions.rows();
        let Some(from) = sessions.iter().map(|(_, row)| row.start).min() else { return Ok(()) };
        // Rows that are idle since each start or later, but not since the next one.
        let mut held: BTreeMap<Epoch, Amount> =
            sessions.iter().map(|(_, row)| (row.start, Amount::default())).collect();
        self.for_each_idle_row(Since { from, before: None }, |(_, row)| {
            if let Some((_, amount)) = held.range_mut(..=row.idle_since).next_back() {
                amount.add(row.stored_len.into());
            }
        })?;
        let pinning = |(session, row): (_, crate::rows::SessionRow)| {
            let mut holds = Amount::default();
            for amount in held.range(row.start..).map(|(_, amount)| amount) {
                holds.count += amount.count;
                holds.bytes += amount.bytes;
            }
            Pinning { session, cluster: row.cluster, node: row.node, holds }
        };
        self.report.pinned = sessions.into_iter().map(pinning).collect();
        Ok(())
    }

    /// Shows each row that is idle since then to `visit`, once, in no order; some thousands are in memory at a time,
    /// and the directory of one pack.
    ///
    /// Two items may lead to a row: that of its pack, and one of its own. Nothing needs to be remembered to tell, as
    /// a row is shown
    /// - for the item of a pack if it still lies in that very pack, and is idle since the epoch of the item;
    /// - for an item of its own if it is idle since its epoch, and the queue has no item of that epoch for the pack
    ///   in which it lies: that one has shown it.
    ///
    /// Never twice: the two kinds exclude each other, a number belongs to one pack for good, and keys are
    /// unique. At least once: an idle row has one of the two items ([`crate::catalog::ledger`]), whatever
    /// happened to it:
    /// - added (`add_pack`): the item of its pack, of that epoch, which exists until its rows are deleted;
    /// - without its last reference (`rest`) or revived (`revive`): an item of its own, of the present epoch. If its
    ///   pack is of this epoch too, the item of the pack leads to it as well;
    /// - moved by a repack (`move_to_pack`, `place`): an item of its own. The old pack's item finds it elsewhere,
    ///   and the new pack has none;
    /// - healed (`heal`): idle since the epoch of the new pack, whose item leads to it, beside an item of its own.
    ///
    /// A pack with an unreadable directory shows no rows, so rows with an item of their own are shown for
    /// that. A row that changes meanwhile may be shown in its old state, in its new state, in both, or not at
    /// all.
    pub(super) fn for_each_idle_row(
        &mut self,
        since: Since,
        mut visit: impl FnMut(Idle),
    ) -> Result<(), ServerError> {
        for kind in [BlobKind::Page, BlobKind::Chunk] {
            let mut unread = HashSet::new();
            let mut next = Some(since.items(IdleKind::Packs(kind)));
            while let Some(range) = next {
                let (items, rest) = self.items(&range)?;
                for item in items {
                    if let IdleKey::Pack { since, number, .. } = item {
                        self.show_rows_of_pack(since, number, &mut unread, &mut visit)?;
                    }
                }
                next = rest;
            }
            let mut next = Some(since.items(IdleKind::Rows(kind)));
            while let Some(range) = next {
                let (items, rest) = self.items(&range)?;
                rows_on_their_own(&self.store, &items, &unread)?.into_iter().for_each(&mut visit);
                next = rest;
            }
        }
        Ok(())
    }

    /// The next items, and the position to continue from.
    fn items(&self, range: &KeyRange) -> Result<(Vec<IdleKey>, Option<KeyRange>), ServerError> {
        let found = self.store.parts.index.scan(Table::Idle, range, AT_ONCE)?;
        let items = found.rows.iter().map(|row| decode_item(&row.key)).collect::<Result<_, _>>()?;
        Ok((items, found.rest))
    }

    /// Shows what still lies in a pack and is idle since then. Notes a pack whose directory cannot be read.
    fn show_rows_of_pack(
        &mut self,
        since: Epoch,
        number: PackNumber,
        unread: &mut HashSet<PackNumber>,
        visit: &mut impl FnMut(Idle),
    ) -> Result<(), ServerError> {
        let Some(directory) = self.directory(number)? else {
            unread.insert(number);
            return Ok(());
        };
        let entries: Vec<PackEntry> = directory.into_iter().flat_map(|directory| directory.entries).collect();
        for group in entries.chunks(AT_ONCE.get()) {
            let rows = self.store.chunk_rows(group.iter().map(|entry| &entry.id))?;
            let idle = group.iter().zip(rows).filter_map(|(entry, row)| {
                let row = row.filter(|row| is_idle_since(row, since))?;
                let is_here = row.pack == number && row.range() == entry.range();
                is_here.then_some((entry.id, row))
            });
            idle.for_each(&mut *visit);
        }
        Ok(())
    }
}

fn is_idle_since(row: &ChunkRow, since: Epoch) -> bool {
    row.is_idle() && row.idle_since == since
}

/// The idle rows that `items` are about, each an item of its own row, and that the item of no pack has shown.
fn rows_on_their_own(
    store: &Store,
    items: &[IdleKey],
    unread: &HashSet<PackNumber>,
) -> Result<Vec<Idle>, ServerError> {
    let single = |item: &IdleKey| match item {
        IdleKey::Row { since, id, .. } => Some((*since, *id)),
        IdleKey::Pack { .. } => None,
    };
    let single: Vec<(Epoch, ChunkId)> = items.iter().filter_map(single).collect();
    let rows = store.chunk_rows(single.iter().map(|(_, id)| id))?;
    let idle = single.iter().zip(rows).filter_map(|((since, id), row)| {
        let row = row.filter(|row| is_idle_since(row, *since))?;
        Some((*id, row))
    });
    let mut idle: Vec<Idle> = idle.collect();
    let queued = queued_packs(store, &idle)?;
    idle.retain(|(_, row)| unread.contains(&row.pack) || !queued.contains(&item_of_pack(row)));
    Ok(idle)
}

/// The key of the item that a row's pack would have had to lead to it.
fn item_of_pack(row: &ChunkRow) -> Vec<u8> {
    IdleKey::Pack { kind: row.kind, since: row.idle_since, number: row.pack }.encode()
}

/// Those items of packs that are in the queue and lead to one of these rows.
fn queued_packs(store: &Store, idle: &[Idle]) -> Result<BTreeSet<Vec<u8>>, ServerError> {
    let items: BTreeSet<Vec<u8>> = idle.iter().map(|(_, row)| item_of_pack(row)).collect();
    let keys: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    let found = store.parts.index.multi_get(Table::Idle, &keys)?;
    Ok(items.into_iter().zip(found).filter(|(_, found)| found.is_some()).map(|(item, _)| item).collect())
}
