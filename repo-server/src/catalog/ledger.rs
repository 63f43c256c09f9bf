//! The ledger: the one place where rows of chunks, pages and packs change, and their counts with them.
//!
//! A [`Ledger`] is open while no other writer of this process changes such rows ([`Store::account`]). What is put
//! into it becomes one index batch: all of it, or nothing after a crash or an error. It keeps (X8, X9, G1):
//! - a batch is applied only if each row that it read is still as it was read, and made again if one is not: the lock
//!   between writers of one process makes that rare, and nothing else depends on it;
//! - a count changes only together with the row of what counts;
//! - a row whose count becomes zero is idle since the present epoch, and queued for the collector;
//! - the row of a pack records how much of the pack rows still name; with the last of them it is deleted, and
//!   the object is doomed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use format_spec::key::BlobKind;
use format_spec::pack::{Directory, PackEntry};
use format_spec::wire::Amount;
use format_spec::{ChunkId, PackId};

use super::id_hash::IdHashing;
use super::quarantine::{Place, as_read};
use super::{altered, damaged, lost_pages, quarantine};
use crate::error::ServerError;
use crate::index::{Batch, IndexError, Table};
use crate::rows::{
    ChunkRow, DamagedRow, DoomedKey, DoomedKind, DoomedRow, Epoch, Health, IdleKey, Live, PackNumber,
    PackRow, Totals,
};
use crate::rules::Rule;
use crate::site::layout::pack_object;
use crate::store::Store;
use crate::time::later;

/// How often each id is referred to.
pub(crate) type Counts = BTreeMap<ChunkId, u64>;

/// How often each of `references` is there.
pub(crate) fn counts_of(mut references: Vec<ChunkId>) -> Counts {
    references.sort_unstable_by_key(|id| (first_bytes(id), *id));
    let times = |same: &[ChunkId]| u64::try_from(same.len()).unwrap_or(u64::MAX);
    references.chunk_by(|a, b| a == b).filter_map(|same| Some((*same.first()?, times(same)))).collect()
}

/// How often a batch is made before its writer is told that others are faster. Each attempt that fails is one in which
/// another writer succeeded.
const ATTEMPTS: usize = 64;

/// Changes of rows that belong together.
pub(crate) struct Ledger<'a> {
    store: &'a Store,
    batch: Batch,
    totals: Pending<Totals>,
    epoch: Pending<Epoch>,
    /// The rows of totals and epoch as they were read.
    meta: [Option<Vec<u8>>; 2],
    /// Counts that are owed to pages without rows, as far as they were read.
    owed: BTreeMap<ChunkId, Pending<u64>>,
    rows: HashMap<ChunkId, Pending<Option<ChunkRow>>, IdHashing>,
    packs: BTreeMap<PackNumber, Pending<Option<PackRow>>>,
    /// Blobs that leave quarantine.
    damaged: quarantine::Changes,
    /// Deleted objects, whose damage no longer matters.
    gone: damaged::Changes,
    /// From when on an object that is doomed here may be deleted; server time.
    due_ms: u64,
    hearing: Hearing,
}

/// A running audit hears of changed rows, and exempts them, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    Told,
    /// It is the audit that changes them.
    Not,
}

/// A row as it was, and as it will be.
struct Pending<T> {
    before: T,
    after: T,
}

impl<T: Clone> Pending<T> {
    /// A row as it was read.
    fn read(row: T) -> Self {
        Self { before: row.clone(), after: row }
    }
}

/// A pack that is on the site, about to get its rows.
pub(crate) struct NewPack<'a> {
    pub(crate) id: PackId,
    pub(crate) len: u64,
    pub(crate) directory: &'a Directory,
}

impl Store {
    /// Applies what `change` has put into the ledger as one batch, which is durable when this returns. Nothing changes
    /// if `change` fails, or if it put nothing in. If another writer was faster, `change` runs again on the rows as
    /// they are then. Blocks.
    ///
    /// # Errors
    /// Those of `change`; [`ServerError::Busy`] if other writers were faster each time.
    pub(crate) fn account<T>(
        &self,
        change: impl FnMut(&mut Ledger<'_>) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        self.account_as(Hearing::Told, change)
    }

    /// As [`account`](Self::account), for an audit that mends what it found: it does not exempt that.
    ///
    /// # Errors
    /// As [`account`](Self::account).
    pub(crate) fn mend<T>(
        &self,
        change: impl FnMut(&mut Ledger<'_>) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        self.account_as(Hearing::Not, change)
    }

    fn account_as<T>(
        &self,
        hearing: Hearing,
        mut change: impl FnMut(&mut Ledger<'_>) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        self.exclusively(|| {
            for _ in 0..ATTEMPTS {
                match self.attempt(hearing, &mut change) {
                    Err(ServerError::Index(IndexError::Precondition { table, key }))
                        if is_own(table, &key) => {}
                    done => return done,
                }
            }
            let why = format!("other writers changed the same rows {ATTEMPTS} times meanwhile");
            Err(ServerError::Busy { why })
        })
    }

    fn attempt<T>(
        &self,
        hearing: Hearing,
        change: &mut impl FnMut(&mut Ledger<'_>) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let mut ledger = Ledger::open(self, hearing)?;
        let done = match change(&mut ledger) {
            // Rows contradict each other, or only seem to because another writer changed one between two reads.
            Err(error @ (ServerError::Counts { .. } | ServerError::Row { .. })) => {
                self.commit(ledger.only_requirements())?;
                return Err(error);
            }
            changed => changed?,
        };
        let batch = ledger.close()?;
        if !batch.is_empty() {
            self.commit(batch)?;
        }
        Ok(done)
    }

    /// The present epoch.
    pub(crate) fn epoch(&self) -> Result<Epoch, ServerError> {
        decode_epoch(self.parts.index.get(Table::Meta, Epoch::KEY)?.as_deref())
    }

    /// Totals of the repository.
    pub(crate) fn totals(&self) -> Result<Totals, ServerError> {
        decode_totals(self.parts.index.get(Table::Meta, Totals::KEY)?.as_deref())
    }
}

fn decode_epoch(value: Option<&[u8]>) -> Result<Epoch, ServerError> {
    let wrong = || ServerError::Row { object: "the epoch".to_owned() };
    value.map_or(Ok(Epoch::default()), |value| Epoch::decode(value).ok_or_else(wrong))
}

fn decode_totals(value: Option<&[u8]>) -> Result<Totals, ServerError> {
    let wrong = || ServerError::Row { object: "totals".to_owned() };
    value.map_or(Ok(Totals::default()), |value| Totals::decode(value).ok_or_else(wrong))
}

impl<'a> Ledger<'a> {
    fn open(store: &'a Store, hearing: Hearing) -> Result<Self, ServerError> {
        let delay = store.parts.upkeep.gc.delete_delay;
        let meta = |key| store.parts.index.get(Table::Meta, key);
        let (totals, epoch) = (meta(Totals::KEY)?, meta(Epoch::KEY)?);
        Ok(Self {
            batch: Batch::new(),
            totals: Pending::read(decode_totals(totals.as_deref())?),
            epoch: Pending::read(decode_epoch(epoch.as_deref())?),
            meta: [totals, epoch],
            owed: BTreeMap::new(),
            rows: HashMap::default(),
            packs: BTreeMap::new(),
            damaged: quarantine::Changes::default(),
            gone: damaged::Changes::default(),
            due_ms: later(store.parts.clock.unix_ms(), delay),
            hearing,
            store,
        })
    }

    /// Other rows of the same batch.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Totals of the repository before the batch.
    pub(crate) fn totals(&self) -> Totals {
        self.totals.before
    }

    /// Begins the next epoch.
    pub(crate) fn raise_epoch(&mut self) -> Epoch {
        self.epoch.after = self.epoch.before.next();
        self.epoch.after
    }

    /// The rows of `ids` as they will be, in their order.
    pub(crate) fn rows(&mut self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkRow>>, ServerError> {
        self.load(ids)?;
        Ok(ids.iter().map(|id| self.row(id)).collect())
    }

    /// Reads the rows that are not read yet, in one request.
    pub(crate) fn load<'i>(&mut self, ids: impl IntoIterator<Item = &'i ChunkId>) -> Result<(), ServerError> {
        let mut missing: Vec<ChunkId> =
            ids.into_iter().filter(|id| !self.rows.contains_key(id)).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        let found = self.store.chunk_rows(&missing)?;
        self.rows.reserve(missing.len());
        for (id, row) in missing.into_iter().zip(found) {
            self.rows.insert(id, Pending::read(row));
        }
        Ok(())
    }

    /// The row of an id that was loaded.
    fn row(&self, id: &ChunkId) -> Option<ChunkRow> {
        self.rows.get(id).and_then(|row| row.after)
    }

    fn set(&mut self, id: ChunkId, row: Option<ChunkRow>) {
        if let Some(pending) = self.rows.get_mut(&id) {
            pending.after = row;
        }
    }

    /// The row of a pack that a chunk row names.
    fn pack(&mut self, number: PackNumber) -> Result<&mut PackRow, ServerError> {
        let no_row = || ServerError::Row { object: format!("pack number {}", number.0) };
        self.find_pack(number)?.ok_or_else(no_row)
    }

    /// The row of a pack as it will be, if it has one.
    fn find_pack(&mut self, number: PackNumber) -> Result<Option<&mut PackRow>, ServerError> {
        let pending = match self.packs.entry(number) {
            Entry::Occupied(pending) => pending.into_mut(),
            Entry::Vacant(free) => free.insert(Pending::read(self.store.find_pack_row(number)?)),
        };
        Ok(pending.after.as_mut())
    }

    /// Adds the rows of a pack that is on the site. Its references are counted (X7, X8); its own rows are
    /// idle, and queued together. A blob that already has a sound row keeps its place; a damaged one is
    /// repaired from now on.
    ///
    /// A page that refers to a chunk without a row gets no row either: its session ended while it waited, or
    /// never had the chunk. A commit that names it is told that it is missing; the rest of the pack belongs
    /// to others.
    pub(crate) fn add_pack(&mut self, pack: &NewPack<'_>) -> Result<(), ServerError> {
        let entries = &pack.directory.entries;
        let number = self.new_pack_row(pack);
        self.load(entries.iter().flat_map(|entry| [&entry.id].into_iter().chain(&entry.references)))?;
        let owed = self.owed(entries)?;
        for (entry, owed) in entries.iter().zip(owed) {
            if self.finds_its_chunks(entry) && self.add_entry(number, entry, owed)? {
                self.add(entry.references.iter().map(|id| (*id, 1)));
            }
        }
        let (kind, since) = (kind_of(pack.directory), self.epoch.after);
        let item = IdleKey::Pack { kind, since, number };
        self.batch.put(Table::Idle, item.encode(), Vec::new());
        Ok(())
    }

    /// How many manifests name each blob that was lost, and is here again.
    fn owed(&mut self, entries: &[PackEntry]) -> Result<Vec<u64>, ServerError> {
        let is_page = entries.first().is_some_and(|entry| entry.kind == BlobKind::Page);
        if !is_page {
            return Ok(vec![0; entries.len()]);
        }
        let ids: Vec<ChunkId> = entries.iter().map(|entry| entry.id).collect();
        self.load_owed(&ids)?;
        Ok(ids.iter().map(|id| self.owed_to(id)).collect())
    }

    fn load_owed(&mut self, ids: &[ChunkId]) -> Result<(), ServerError> {
        let missing: Vec<ChunkId> = ids.iter().filter(|id| !self.owed.contains_key(id)).copied().collect();
        let counts = lost_pages::counts(self.store, &missing)?;
        self.owed.extend(missing.into_iter().zip(counts.into_iter().map(Pending::read)));
        Ok(())
    }

    fn owed_to(&self, id: &ChunkId) -> u64 {
        self.owed.get(id).map_or(0, |owed| owed.after)
    }

    /// Says how many manifests name a page without a row.
    pub(crate) fn owe(&mut self, id: ChunkId, count: u64) -> Result<(), ServerError> {
        self.load_owed(&[id])?;
        if let Some(owed) = self.owed.get_mut(&id) {
            owed.after = count;
        }
        Ok(())
    }

    fn finds_its_chunks(&self, entry: &PackEntry) -> bool {
        let found = entry.references.iter().all(|id| self.row(id).is_some());
        found || !self.store.rules.keep(Rule::PageFindsItsChunks)
    }

    /// The row of a new pack, with nothing in it yet.
    fn new_pack_row(&mut self, pack: &NewPack<'_>) -> PackNumber {
        let number = PackNumber(self.totals.after.next_pack);
        let row = PackRow {
            id: pack.id,
            len: pack.len,
            kind: kind_of(pack.directory),
            domain: pack.directory.domain.clone(),
            blob_bytes: pack.directory.entries.iter().map(|entry| u64::from(entry.stored_len)).sum(),
            live: Live::default(),
            verified_ms: 0,
        };
        self.totals.after.next_pack += 1;
        self.totals.after.packs += 1;
        self.totals.after.stored_bytes += row.len;
        self.packs.insert(number, Pending { before: None, after: Some(row) });
        number
    }

    /// Adds the row of a blob. Answers whether the row is new.
    fn add_entry(
        &mut self,
        number: PackNumber,
        entry: &PackEntry,
        references: u64,
    ) -> Result<bool, ServerError> {
        let placed = ChunkRow {
            pack: number,
            offset: entry.offset,
            stored_len: entry.stored_len,
            plain_len: entry.plain_len,
            kind: entry.kind,
            compression: entry.compression,
            health: Health::Sound,
            references,
            idle_since: self.epoch.after,
        };
        match self.row(&entry.id) {
            None => {
                self.pack(number)?.live.add(&placed);
                self.totals.after.chunks += 1;
                self.set(entry.id, Some(placed));
                if references > 0 {
                    self.owe(entry.id, 0)?;
                }
                Ok(true)
            }
            Some(row) => {
                if row.health == Health::Damaged {
                    self.heal(entry, row, placed)?;
                }
                Ok(false)
            }
        }
    }

    /// A damaged blob was sent again: its row names the new place. If it is idle, its idle epoch is reset, as
    /// for any blob that was just sent.
    fn heal(&mut self, entry: &PackEntry, row: ChunkRow, placed: ChunkRow) -> Result<(), ServerError> {
        let row = if row.is_idle() { ChunkRow { idle_since: self.epoch.after, ..row } } else { row };
        self.place(entry.id, &row, placed)?;
        self.damaged.delete(entry.id);
        // An audit that has read the new pack before it was there would miss what the page refers to.
        self.store.listener.note(&entry.references);
        Ok(())
    }

    /// Moves a row to the place `to`; its count is kept. An idle row may have been queued with its old pack,
    /// so it is queued alone.
    fn place(&mut self, id: ChunkId, row: &ChunkRow, to: ChunkRow) -> Result<(), ServerError> {
        self.take_out(row)?;
        if row.is_idle() {
            let item = IdleKey::Row { kind: row.kind, since: row.idle_since, id };
            self.batch.put(Table::Idle, item.encode(), Vec::new());
        }
        let moved = ChunkRow { references: row.references, idle_since: row.idle_since, ..to };
        self.pack(moved.pack)?.live.add(&moved);
        self.set(id, Some(moved));
        Ok(())
    }

    fn take_out(&mut self, row: &ChunkRow) -> Result<(), ServerError> {
        let pack = self.pack(row.pack)?;
        let damaged = || ServerError::Row { object: pack.id.to_string() };
        pack.live = pack.live.without(row).ok_or_else(damaged)?;
        Ok(())
    }

    /// Adds a pack that holds copies of blobs: each row that still names the place in `from` that it was
    /// copied from names the copy from here on. Answers how many did.
    pub(crate) fn move_to_pack(
        &mut self,
        pack: &NewPack<'_>,
        from: &BTreeMap<ChunkId, ChunkRow>,
    ) -> Result<u64, ServerError> {
        let number = self.new_pack_row(pack);
        self.load(pack.directory.entries.iter().map(|entry| &entry.id))?;
        let mut moved = 0;
        for entry in &pack.directory.entries {
            let copied = from.get(&entry.id).map(|row| (row.pack, row.offset));
            let is_there = |row: &ChunkRow| Some((row.pack, row.offset)) == copied;
            let Some(row) = self.row(&entry.id).filter(is_there) else { continue };
            let place = ChunkRow { pack: number, offset: entry.offset, ..row };
            self.place(entry.id, &row, place)?;
            moved += 1;
        }
        Ok(moved)
    }

    /// Raises the count of each page by the given number. Returns the first of those without a row; then no
    /// count is raised.
    pub(crate) fn count(&mut self, counts: &Counts) -> Result<Result<(), Vec<ChunkId>>, ServerError> {
        let found = self.find(counts)?;
        if found.is_ok() {
            self.add(counts.iter().map(|(id, count)| (*id, *count)));
        }
        Ok(found)
    }

    /// Checks that each page has a row. Returns the first of those that have none.
    pub(crate) fn find(&mut self, counts: &Counts) -> Result<Result<(), Vec<ChunkId>>, ServerError> {
        self.load(counts.keys())?;
        let missing: Vec<ChunkId> = counts.keys().filter(|id| self.row(id).is_none()).copied().collect();
        let is_found = missing.is_empty() || !self.store.rules.keep(Rule::CommitFindsItsPages);
        Ok(if is_found { Ok(()) } else { Err(missing) })
    }

    fn add(&mut self, counts: impl Iterator<Item = (ChunkId, u64)>) {
        for (id, count) in counts {
            if let Some(row) = self.rows.get_mut(&id).and_then(|row| row.after.as_mut()) {
                row.references += count;
            }
        }
    }

    /// Lowers counts by the given numbers. A row with count zero is idle since the present epoch, and queued.
    /// A lost page has no row, and its owed count is lowered.
    ///
    /// # Errors
    /// [`ServerError::Counts`] if a count would fall below zero: the counts are wrong, and must be repaired
    /// first.
    pub(crate) fn uncount(&mut self, counts: &Counts) -> Result<(), ServerError> {
        self.uncount_and_drop(counts, |_| false)
    }

    /// Like [`uncount`](Self::uncount), but rows whose count becomes zero are deleted in the same batch if
    /// they `may_go`.
    ///
    /// # Errors
    /// The errors of [`uncount`](Self::uncount).
    pub(crate) fn uncount_and_drop(
        &mut self,
        counts: &Counts,
        mut may_go: impl FnMut(&ChunkRow) -> bool,
    ) -> Result<(), ServerError> {
        let missing = counts.keys().filter(|id| !self.rows.contains_key(id));
        let mut found = self.store.chunk_rows(missing)?.into_iter();
        self.rows.reserve(found.len());
        for (id, count) in counts {
            let mut pending = self.rows.remove(id).unwrap_or_else(|| Pending::read(found.next().flatten()));
            let lowered = self.lower(*id, *count, pending.after, &mut may_go);
            if let Ok(row) = &lowered {
                pending.after = *row;
            }
            // Also after an error: the row as it was read decides whether the error stands.
            self.rows.insert(*id, pending);
            lowered?;
        }
        Ok(())
    }

    /// The row of `id` with its count lowered; `None` if it is deleted, or was never there.
    fn lower(
        &mut self,
        id: ChunkId,
        count: u64,
        row: Option<ChunkRow>,
        may_go: &mut impl FnMut(&ChunkRow) -> bool,
    ) -> Result<Option<ChunkRow>, ServerError> {
        let wrong = || ServerError::Counts { object: id.to_string() };
        let Some(row) = row else {
            self.load_owed(&[id])?;
            self.owe(id, self.owed_to(&id).checked_sub(count).ok_or_else(wrong)?)?;
            return Ok(None);
        };
        let row = ChunkRow { references: row.references.checked_sub(count).ok_or_else(wrong)?, ..row };
        if !row.is_idle() {
            Ok(Some(row))
        } else if may_go(&row) {
            self.let_go(id, &row)?;
            Ok(None)
        } else {
            Ok(Some(self.rest(id, row)))
        }
    }

    /// The row without references as it is when it is idle since the present epoch; queues it.
    fn rest(&mut self, id: ChunkId, row: ChunkRow) -> ChunkRow {
        let item = IdleKey::Row { kind: row.kind, since: self.epoch.after, id };
        self.batch.put(Table::Idle, item.encode(), Vec::new());
        ChunkRow { idle_since: self.epoch.after, ..row }
    }

    /// Resets the idle epoch of those of `ids` that are idle since before `start`, because a session that
    /// began then was told of them. Returns which of them have a sound row.
    pub(crate) fn revive(&mut self, ids: &[ChunkId], start: Epoch) -> Result<Vec<bool>, ServerError> {
        let rows = self.rows(ids)?;
        for (id, row) in ids.iter().zip(&rows) {
            if let Some(row) = row.filter(|row| row.is_idle() && row.idle_since < start) {
                let stale = IdleKey::Row { kind: row.kind, since: row.idle_since, id: *id };
                self.batch.delete(Table::Idle, stale.encode());
                let rested = self.rest(*id, row);
                self.set(*id, Some(rested));
            }
        }
        Ok(rows.iter().map(|row| row.is_some_and(|row| row.health == Health::Sound)).collect())
    }

    /// Takes out the row of an idle chunk or page. What a page refers to must be uncounted as well.
    pub(crate) fn drop_row(&mut self, id: ChunkId) -> Result<(), ServerError> {
        self.load([&id])?;
        let Some(row) = self.row(&id) else { return Ok(()) };
        self.let_go(id, &row)?;
        self.set(id, None);
        Ok(())
    }

    /// Deletes the entries of a deleted row in other rows.
    fn let_go(&mut self, id: ChunkId, row: &ChunkRow) -> Result<(), ServerError> {
        let in_use = !row.is_idle() && self.store.rules.keep(Rule::DropOnlyUncounted);
        assert!(!in_use, "a row that is in use is never dropped");
        self.take_out(row)?;
        self.totals.after.chunks = self.totals.after.chunks.saturating_sub(1);
        if row.health == Health::Damaged {
            self.damaged.delete(id);
        }
        Ok(())
    }

    /// The packs that this batch deletes, because no row names them any more.
    pub(crate) fn dead_packs(&self) -> Amount {
        let mut dead = Amount::default();
        for row in self.packs.values().filter_map(|pack| pack.after.as_ref()) {
            if row.live.blobs == 0 {
                dead.add(row.len);
            }
        }
        dead
    }

    /// Dooms an object: it may be deleted from `due_ms` on.
    pub(crate) fn doom(&mut self, key: &DoomedKey, row: DoomedRow) {
        self.batch.put(Table::Doomed, key.encode(), row.encode());
    }

    /// Drops the findings about an object that is no longer needed.
    pub(crate) fn let_go_of(&mut self, object: damaged::Object) {
        self.gone.delete(object);
    }

    /// A blob was found damaged where it was read: its row says so if it names that place still. Answers whether it
    /// did not say so before.
    pub(crate) fn mark_damaged(
        &mut self,
        id: ChunkId,
        place: Place,
        damage: impl FnOnce(String) -> DamagedRow,
    ) -> Result<bool, ServerError> {
        self.load([&id])?;
        let Some(row) = self.row(&id).filter(|row| Place::of(row) == place && row.health == Health::Sound)
        else {
            return Ok(false);
        };
        let cluster = self.pack(row.pack)?.domain.to_string();
        self.set(id, Some(ChunkRow { health: Health::Damaged, ..row }));
        self.damaged.put(id, damage(cluster));
        Ok(true)
    }

    /// A blob that was damaged was found as it was written: its row says so if it names that place still. Answers
    /// whether it did not say so before.
    pub(crate) fn mark_sound(&mut self, id: ChunkId, place: Place) -> Result<bool, ServerError> {
        self.load([&id])?;
        let Some(row) = self.row(&id).filter(|row| Place::of(row) == place && row.health == Health::Damaged)
        else {
            return Ok(false);
        };
        self.set(id, Some(ChunkRow { health: Health::Sound, ..row }));
        self.damaged.delete(id);
        Ok(true)
    }

    /// Nothing is known to be wrong with those of `ids` that have no row, or a sound one.
    pub(crate) fn forget_damage(&mut self, ids: &[ChunkId]) -> Result<(), ServerError> {
        for (id, row) in ids.iter().zip(self.rows(ids)?) {
            if row.is_none_or(|row| row.health == Health::Sound) {
                self.damaged.delete(*id);
            }
        }
        Ok(())
    }

    /// Every byte of a pack was found as it was written, if the pack is still there.
    pub(crate) fn mark_verified(&mut self, number: PackNumber, verified_ms: u64) -> Result<(), ServerError> {
        if let Some(row) = self.find_pack(number)? {
            row.verified_ms = verified_ms;
            altered::forget(&mut self.batch, number);
        }
        Ok(())
    }

    /// The row of a pack, if it has one.
    pub(crate) fn pack_now(&mut self, number: PackNumber) -> Result<Option<PackRow>, ServerError> {
        Ok(self.find_pack(number)?.cloned())
    }

    /// An audit has counted what lies in a pack.
    pub(crate) fn set_live(&mut self, number: PackNumber, live: Live) -> Result<(), ServerError> {
        if let Some(row) = self.find_pack(number)? {
            row.live = live;
        }
        Ok(())
    }

    /// An audit has counted who refers to a chunk or page. One that nothing refers to is idle from now on, and queued.
    pub(crate) fn set_references(&mut self, id: ChunkId, references: u64) -> Result<(), ServerError> {
        self.load([&id])?;
        let Some(row) = self.row(&id) else { return Ok(()) };
        let row = ChunkRow { references, ..row };
        let row = if row.is_idle() { self.rest(id, row) } else { row };
        self.set(id, Some(row));
        Ok(())
    }

    /// Queues a row that nothing refers to, and to which the queue does not lead.
    pub(crate) fn queue(&mut self, id: ChunkId) -> Result<(), ServerError> {
        self.load([&id])?;
        if let Some(row) = self.row(&id) {
            let item = IdleKey::Row { kind: row.kind, since: row.idle_since, id };
            self.batch.put(Table::Idle, item.encode(), Vec::new());
        }
        Ok(())
    }

    /// An audit has counted what all rows add up to.
    pub(crate) fn correct_totals(&mut self, correct: impl FnOnce(&mut Totals)) {
        correct(&mut self.totals.after);
    }

    /// The batch of all that changed.
    fn close(mut self) -> Result<Batch, ServerError> {
        let before: Vec<(PackNumber, Option<PackRow>)> = std::mem::take(&mut self.packs)
            .into_iter()
            .map(|(number, pending)| (number, self.write_pack(number, pending)))
            .collect();
        let changed = self.rows.iter().filter(|(_, row)| row.before != row.after);
        let mut changed: Vec<(u64, &ChunkId, &Pending<Option<ChunkRow>>)> =
            changed.map(|(id, row)| (first_bytes(id), id, row)).collect();
        // Sorted rows are written faster, here and in the index.
        changed.sort_unstable_by_key(|(first, id, _)| (*first, *id));
        if self.hearing == Hearing::Told {
            let is_of_audit = |row: &Pending<Option<ChunkRow>>| !differ_in_health(row.before, row.after);
            let heard = changed.iter().filter(|(.., row)| is_of_audit(row));
            self.store.listener.note(heard.map(|(_, id, _)| *id));
        }
        for (_, id, row) in changed {
            match row.after {
                Some(row) => self.batch.put(Table::Chunk, *id.as_bytes(), row.encode()),
                None => self.batch.delete(Table::Chunk, *id.as_bytes()),
            };
        }
        for (id, owed) in self.owed.iter().filter(|(_, owed)| owed.before != owed.after) {
            lost_pages::set(&mut self.batch, id, owed.after);
        }
        std::mem::take(&mut self.damaged).close(self.store, &mut self.batch)?;
        std::mem::take(&mut self.gone).close(self.store, &mut self.batch)?;
        if self.totals.before != self.totals.after {
            self.batch.put(Table::Meta, Totals::KEY, self.totals.after.encode());
        }
        if self.epoch.before != self.epoch.after {
            self.batch.put(Table::Meta, Epoch::KEY, self.epoch.after.encode());
        }
        if !self.batch.is_empty() {
            self.require_as_read(before);
        }
        Ok(self.batch)
    }

    /// A batch that changes nothing, and is refused if a row is not as it was read.
    fn only_requirements(mut self) -> Batch {
        let before = std::mem::take(&mut self.packs);
        let before = before.into_iter().map(|(number, pending)| (number, pending.before)).collect();
        let asked = std::mem::take(&mut self.batch);
        self.batch = asked.into_requirements();
        self.require_as_read(before);
        self.batch
    }

    /// Lets the batch be applied only while each row that it has read is as it was.
    fn require_as_read(&mut self, packs: Vec<(PackNumber, Option<PackRow>)>) {
        if !self.store.rules.keep(Rule::RowsAreAsRead) {
            return;
        }
        let Self { batch, rows, owed, .. } = self;
        let mut rows: Vec<(&ChunkId, Option<ChunkRow>)> =
            rows.iter().map(|(id, row)| (id, row.before)).collect();
        rows.sort_unstable_by_key(|(id, _)| (first_bytes(id), **id));
        for (id, row) in rows {
            batch.require(Table::Chunk, *id.as_bytes(), as_read(row.map(|row| row.encode())));
        }
        for (number, row) in packs {
            batch.require(Table::Pack, number.key(), as_read(row.map(|row| row.encode())));
        }
        for (id, owed) in owed {
            lost_pages::require(batch, id, owed.before);
        }
        let [totals, epoch] = &mut self.meta;
        if self.totals.before != self.totals.after {
            batch.require(Table::Meta, Totals::KEY, as_read(totals.take()));
        }
        batch.require(Table::Meta, Epoch::KEY, as_read(epoch.take()));
    }

    /// Puts the row of a pack into the batch if it changed. Answers how it was.
    fn write_pack(&mut self, number: PackNumber, pending: Pending<Option<PackRow>>) -> Option<PackRow> {
        let Pending { before, after } = pending;
        let Some(row) = after.filter(|row| before.as_ref() != Some(row)) else { return before };
        let held_some = before.as_ref().is_none_or(|before| before.live.blobs > 0);
        // An audit takes nothing away: rows of what lies in the pack may be what is lost.
        if row.live.blobs > 0 || !held_some || self.hearing == Hearing::Not {
            self.batch.put(Table::Pack, number.key(), row.encode());
            return before;
        }
        self.batch.delete(Table::Pack, number.key());
        altered::forget(&mut self.batch, number);
        self.gone.delete(damaged::Object::Pack(number));
        self.totals.after.packs = self.totals.after.packs.saturating_sub(1);
        self.totals.after.stored_bytes = self.totals.after.stored_bytes.saturating_sub(row.len);
        let key = DoomedKey { kind: DoomedKind::Pack, name: pack_object(&row.id) };
        let doomed = DoomedRow { due_ms: self.due_ms, bytes: row.len, ..DoomedRow::NOW };
        self.doom(&key, doomed);
        before
    }
}

/// True if two states of a row differ only in whether the blob is damaged, which no audit counts.
fn differ_in_health(one: Option<ChunkRow>, other: Option<ChunkRow>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => ChunkRow { health: other.health, ..one } == other,
        _ => false,
    }
}

/// True if a row that was not as it was read is one of those that the ledger itself reads.
fn is_own(table: Table, key: &[u8]) -> bool {
    match table {
        Table::Chunk | Table::Pack | Table::Damaged => true,
        Table::Meta => {
            key == Totals::KEY || key == Epoch::KEY || lost_pages::is_key(key) || quarantine::is_count(key)
        }
        _ => false,
    }
}

/// The beginning of an id, which sorts as the id does and is compared faster.
fn first_bytes(id: &ChunkId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

fn kind_of(directory: &Directory) -> BlobKind {
    directory.entries.first().map_or(BlobKind::Chunk, |entry| entry.kind)
}

#[cfg(test)]
mod tests;
