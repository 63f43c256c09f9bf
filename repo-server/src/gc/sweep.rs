//! Deletes idle rows, oldest first.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use format_spec::key::BlobKind;
use format_spec::wire::{Amount, LargeDelete};
use format_spec::{ChunkId, PackId};

use super::day::Day;
use super::{Next, Phase, Run};
use crate::catalog::ledger::{Ledger, counts_of};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{KeyRange, Table};
use crate::pack;
use crate::rows::{ChunkRow, Epoch, IdleKey, IdleKind, PackNumber};
use crate::rules::Rule;
use crate::server::Server;
use crate::store::{Store, read_ahead, wait};

/// Items of the queue that are read at once: single rows, and packs of rows. As many packs are read beside each other.
const ROWS_AT_ONCE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const PACKS_AT_ONCE: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Rows that one batch touches. Each weighs 900 bytes at most, with the requirement that it is as it was read, if it
/// was damaged and a pack goes with it. Nobody else counts while it is applied; rows that are looked up together cost less.
const BATCH_ROWS: usize = 50_000;

/// One step of a batch.
enum Step {
    /// Drop this row, if it is idle since then. A page's references are uncounted.
    Drop { since: Epoch, id: ChunkId, references: Vec<ChunkId> },
    /// All rows of an item have had their step.
    Done(IdleKey),
}

impl Step {
    fn rows(&self) -> usize {
        match self {
            Self::Drop { references, .. } => 1 + references.len(),
            Self::Done(_) => 1,
        }
    }
}

/// Pages of a pack, and what was found of what they refer to.
struct Found {
    pack: PackId,
    pages: pack::Pages,
    references: Result<pack::References, ServerError>,
}

/// Result of a batch.
#[derive(Default)]
struct Swept {
    pages: Amount,
    chunks: Amount,
    dead_packs: Amount,
    /// True if the daily deletion limit would be exceeded.
    is_too_much: bool,
}

impl Swept {
    fn add(&mut self, row: &ChunkRow) {
        let amount = match row.kind {
            BlobKind::Page => &mut self.pages,
            BlobKind::Chunk => &mut self.chunks,
        };
        amount.add(row.stored_len.into());
    }

    fn bytes(&self) -> u64 {
        self.pages.bytes + self.chunks.bytes
    }

    /// True if one more row is within the daily limit.
    fn has_room(&self, row: &ChunkRow, left: u64) -> bool {
        self.bytes() + u64::from(row.stored_len) <= left
    }
}

impl Run {
    /// Drops every idle row of `kind` that no open session holds.
    pub(super) fn sweep(&mut self, kind: BlobKind) -> Result<Next, ServerError> {
        for run in [IdleKind::Packs(kind), IdleKind::Rows(kind)] {
            let mut next = Some(KeyRange::prefix(&[run.tag()]));
            while let Some(range) = next {
                let (items, rest) = self.ripe_items(run, &range)?;
                if self.sweep_items(kind, items)? == Next::Stop {
                    return Ok(Next::Stop);
                }
                next = rest;
            }
        }
        Ok(Next::GoOn)
    }

    /// The next items that no open session keeps, and the position to continue from; none once an item is
    /// kept.
    fn ripe_items(
        &self,
        run: IdleKind,
        range: &KeyRange,
    ) -> Result<(Vec<IdleKey>, Option<KeyRange>), ServerError> {
        let limit = match run {
            IdleKind::Packs(_) => PACKS_AT_ONCE,
            IdleKind::Rows(_) => ROWS_AT_ONCE,
        };
        let held_from = held_from(&self.server);
        let found = self.store.parts.index.scan(Table::Idle, range, limit)?;
        let mut ripe = Vec::new();
        for row in &found.rows {
            let item = decode_item(&row.key)?;
            if is_held(item.since(), held_from) {
                return Ok((ripe, None));
            }
            ripe.push(item);
        }
        Ok((ripe, found.rest))
    }

    /// Does what is to be done about items, pack by pack: what pages refer to is held for one batch and one
    /// pack, whatever the number of items. An item that is about nothing any more is only taken off.
    fn sweep_items(&mut self, kind: BlobKind, items: Vec<IdleKey>) -> Result<Next, ServerError> {
        let mut steps = Vec::new();
        let mut pages: BTreeMap<PackNumber, pack::Pages> = BTreeMap::new();
        let rows = rows_of(&self.store, &items)?;
        for (item, row) in items.into_iter().zip(rows) {
            match item {
                IdleKey::Pack { number, .. } => {
                    steps.extend(self.steps_of_pack(item, number)?);
                    if self.take_full(kind, &mut steps)? == Next::Stop {
                        return Ok(Next::Stop);
                    }
                }
                IdleKey::Row { since, id, kind } => match (kind, row) {
                    (_, None) => steps.push(Step::Done(item)),
                    (BlobKind::Chunk, Some(_)) => {
                        steps.push(Step::Drop { since, id, references: Vec::new() });
                        steps.push(Step::Done(item));
                    }
                    (BlobKind::Page, Some(row)) => {
                        pages.entry(row.pack).or_default().insert(id, row);
                    }
                },
            }
        }
        let store = Arc::clone(&self.store);
        let read = |(number, pages)| read_references(&store, number, pages);
        for found in read_ahead(pages, PACKS_AT_ONCE.get(), read) {
            steps.extend(self.steps_of_pages(found??)?);
            if self.take_full(kind, &mut steps)? == Next::Stop {
                return Ok(Next::Stop);
            }
        }
        self.take_steps(kind, steps)
    }

    /// Takes steps once there are enough for a batch.
    fn take_full(&mut self, kind: BlobKind, steps: &mut Vec<Step>) -> Result<Next, ServerError> {
        if steps.iter().map(Step::rows).sum::<usize>() < BATCH_ROWS {
            return Ok(Next::GoOn);
        }
        self.take_steps(kind, std::mem::take(steps))
    }

    /// A step for each blob of a pack that was new then.
    fn steps_of_pack(&mut self, item: IdleKey, number: PackNumber) -> Result<Vec<Step>, ServerError> {
        let Some(directory) = self.directory(number)? else {
            return Ok(Vec::new());
        };
        let entries = directory.into_iter().flat_map(|directory| directory.entries);
        let drop = |entry: format_spec::pack::PackEntry| Step::Drop {
            since: item.since(),
            id: entry.id,
            references: entry.references,
        };
        Ok(entries.map(drop).chain([Step::Done(item)]).collect())
    }

    /// Steps for some pages of a pack. A page with unknown references is kept.
    fn steps_of_pages(&mut self, found: Option<Found>) -> Result<Vec<Step>, ServerError> {
        let Some(Found { pack, pages, references }) = found else { return Ok(Vec::new()) };
        let mut known = match references {
            Ok(found) => {
                if let Some(problem) = &found.problem {
                    self.problem(pack, problem);
                }
                found.known
            }
            Err(error @ (ServerError::Damaged { .. } | ServerError::Lost { .. } | ServerError::Site(_))) => {
                self.problem(pack, &error);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut steps = Vec::new();
        for (id, row) in pages {
            let Some(references) = known.remove(&id) else { continue };
            let since = row.idle_since;
            steps.push(Step::Drop { since, id, references });
            steps.push(Step::Done(IdleKey::Row { kind: BlobKind::Page, since, id }));
        }
        Ok(steps)
    }

    /// The directory of a pack: `Some(None)` if it has no row any more, `None` if it cannot be read. What
    /// it refers to is not known then, so its pages stay.
    pub(super) fn directory(
        &mut self,
        number: PackNumber,
    ) -> Result<Option<Option<pack::Directory>>, ServerError> {
        let Some(row) = self.store.find_pack_row(number)? else { return Ok(Some(None)) };
        match wait(pack::directory_of(&self.store, number, &row)) {
            Ok(directory) => Ok(Some(Some(directory))),
            Err(error @ (ServerError::Damaged { .. } | ServerError::Lost { .. } | ServerError::Site(_))) => {
                self.problem(row.id, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes steps, as many at a time as fit in a batch.
    fn take_steps(&mut self, kind: BlobKind, steps: Vec<Step>) -> Result<Next, ServerError> {
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() {
            let mut rows = 0;
            let mut batch = Vec::new();
            while let Some(step) = steps.next_if(|step| batch.is_empty() || rows + step.rows() <= BATCH_ROWS)
            {
                rows += step.rows();
                batch.push(step);
            }
            let swept = drop_rows(&self.server, &batch, self.request.large)?;
            self.tally(kind, &swept);
            if swept.is_too_much {
                self.stop_for_today()?;
                return Ok(Next::Stop);
            }
        }
        Ok(Next::GoOn)
    }

    fn tally(&mut self, kind: BlobKind, swept: &Swept) {
        for (amount, swept) in [
            (&mut self.report.pages, swept.pages),
            (&mut self.report.chunks, swept.chunks),
            (&mut self.report.dead_packs, swept.dead_packs),
        ] {
            amount.count += swept.count;
            amount.bytes += swept.bytes;
        }
        match kind {
            BlobKind::Page => self.progress.phase(Phase::Pages.name(), self.report.pages.count),
            BlobKind::Chunk => self.progress.phase(Phase::Chunks.name(), self.report.chunks.count),
        }
    }

    /// Sets the reason for which a run would stop for today.
    pub(super) fn plan_stop(&mut self) -> Result<(), ServerError> {
        let left = left_today(&self.store, &Day::load(&self.store)?, self.request.large)?;
        if self.report.pages.bytes + self.report.chunks.bytes > left {
            self.report.stopped = Some(self.too_much_for_today());
        }
        Ok(())
    }

    fn too_much_for_today(&self) -> String {
        let percent = self.store.parts.upkeep.gc.max_daily;
        format!(
            "more than {percent} of the repository would be deleted within a day: check `astacus-admin forget --dry-run` and `astacus-admin snapshots`, then run `astacus-admin gc --allow-large`"
        )
    }

    fn stop_for_today(&mut self) -> Result<(), ServerError> {
        let why = self.report.stopped.insert(self.too_much_for_today());
        alarm::raise(&self.store, AlarmCode::LargeDelete, why)
    }
}

/// Reads what some pages of a pack refer to; `None` if it has no row any more. To be awaited where one may block.
async fn read_references(
    store: &Arc<Store>,
    number: PackNumber,
    pages: pack::Pages,
) -> Result<Option<Found>, ServerError> {
    let Some(row) = store.find_pack_row(number)? else { return Ok(None) };
    let references = pack::references_of(store, &row, &pages).await;
    Ok(Some(Found { pack: row.id, pages, references }))
}

/// Decodes a key of the queue.
pub(super) fn decode_item(key: &[u8]) -> Result<IdleKey, ServerError> {
    IdleKey::decode(key).ok_or_else(|| ServerError::Row { object: "an item of the collector".to_owned() })
}

/// The rows that single items are about, if they still are about them.
fn rows_of(store: &Store, items: &[IdleKey]) -> Result<Vec<Option<ChunkRow>>, ServerError> {
    let id = |item: &IdleKey| match item {
        IdleKey::Row { id, .. } => Some(*id),
        IdleKey::Pack { .. } => None,
    };
    let ids: Vec<ChunkId> = items.iter().filter_map(id).collect();
    let mut rows = store.chunk_rows(&ids)?.into_iter();
    let row = |item: &IdleKey| {
        let row = id(item).and_then(|_| rows.next().flatten());
        row.filter(|row| row.is_idle() && row.idle_since == item.since())
    };
    Ok(items.iter().map(row).collect())
}

/// Bytes that may still be deleted today.
fn left_today(store: &Store, day: &Day, large: LargeDelete) -> Result<u64, ServerError> {
    match large {
        LargeDelete::Refuse => Ok(day.left(&store.totals()?, &store.parts.upkeep.gc)),
        LargeDelete::Allow => Ok(u64::MAX),
    }
}

/// One batch: deletes rows that are idle since the epoch of their step, which is before the start of every
/// open session (G1, G2). While no session is open, that is true for the chunks that lose their last page in
/// this batch as well: they are deleted with it.
fn drop_rows(server: &Server, steps: &[Step], large: LargeDelete) -> Result<Swept, ServerError> {
    let store = &server.store;
    store.account(|ledger| {
        let held_from = held_from(server);
        let day = Day::load(store)?;
        let left = left_today(store, &day, large)?;
        let mut swept = Swept::default();
        let mut uncounted = Vec::new();
        load(ledger, steps)?;
        for step in steps {
            match step {
                Step::Done(item) if is_held(item.since(), held_from) => {}
                Step::Done(item) => take_off(ledger, item)?,
                Step::Drop { since, .. } if is_held(*since, held_from) => {}
                Step::Drop { since, id, references } => {
                    let Some(row) = idle_row(store, ledger, *id, *since)? else { continue };
                    if !swept.has_room(&row, left) {
                        swept.is_too_much = true;
                        break;
                    }
                    ledger.drop_row(*id)?;
                    uncounted.extend_from_slice(references);
                    swept.add(&row);
                }
            }
        }
        ledger.uncount_and_drop(&counts_of(uncounted), |row| {
            let goes = held_from.is_none() && swept.has_room(row, left);
            if goes {
                swept.add(row);
            }
            goes
        })?;
        swept.dead_packs = ledger.dead_packs();
        if swept.bytes() > 0 {
            day.add(store, ledger, swept.bytes());
        }
        Ok(swept)
    })
}

/// The epoch from which on idle rows are held by an open session, if there is one (G2).
fn held_from(server: &Server) -> Option<Epoch> {
    let start = server.sessions.oldest_start();
    start.filter(|_| server.store.rules.keep(Rule::DropOnlyBeforeSessions))
}

fn is_held(since: Epoch, held_from: Option<Epoch>) -> bool {
    held_from.is_some_and(|start| since >= start)
}

/// Takes an item off the queue, unless it is about its row again: that may have become idle in its epoch since
/// the item was read.
fn take_off(ledger: &mut Ledger<'_>, item: &IdleKey) -> Result<(), ServerError> {
    if let IdleKey::Row { id, since, .. } = item
        && let Some(row) = ledger.rows(&[*id])?.into_iter().flatten().next()
        && row.is_idle()
        && row.idle_since == *since
    {
        return Ok(());
    }
    ledger.batch().delete(Table::Idle, item.encode());
    Ok(())
}

fn load(ledger: &mut Ledger<'_>, steps: &[Step]) -> Result<(), ServerError> {
    let ids = |step: &Step| match step {
        Step::Drop { id, .. } => Some(*id),
        Step::Done(_) => None,
    };
    let ids: Vec<ChunkId> = steps.iter().filter_map(ids).collect();
    ledger.rows(&ids).map(drop)
}

/// The row of `id`, if it is idle since just then (G1).
fn idle_row(
    store: &Store,
    ledger: &mut Ledger<'_>,
    id: ChunkId,
    since: Epoch,
) -> Result<Option<ChunkRow>, ServerError> {
    let row = ledger.rows(&[id])?.into_iter().flatten().next();
    let may_go = |row: &ChunkRow| row.is_idle() || !store.rules.keep(Rule::DropOnlyUncounted);
    Ok(row.filter(|row| may_go(row) && row.idle_since == since))
}
