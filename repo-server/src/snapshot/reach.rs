//! Data that only some snapshots hold: it is deleted with them.
//!
//! Counts make this exact without a read of any other snapshot: a page is freed if these snapshots name it as
//! often as it is counted, and a chunk if the freed pages refer to it as often as it is counted. Pages that
//! are idle already, and wait for the collector, count as freed.
//!
//! Memory: about 200 bytes for each freed page, and the buffer of a sort for the chunks that pages refer to,
//! which may be a hundred million.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::snapshot::Snapshot;
use format_spec::wire::Amount;

use super::{named_pages, open_manifest};
use crate::catalog::ledger::Counts;
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::pack;
use crate::rows::{ChunkRow, IdleKey, IdleKind, Live, PackNumber};
use crate::sort::Sorter;
use crate::store::{Store, read_ahead, wait};

/// Rows that are looked up at once.
const AT_ONCE: usize = 10_000;

/// Packs that are read at once: what their pages refer to takes a few megabytes each at most.
const IN_FLIGHT: usize = 4;

/// Data that is freed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Freed {
    pub(crate) pages: Amount,
    pub(crate) chunks: Amount,
    /// The same by pack.
    pub(crate) by_pack: BTreeMap<PackNumber, Live>,
}

impl Freed {
    /// Stored bytes of all freed data.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages.bytes + self.chunks.bytes
    }

    /// One more.
    pub(crate) fn add(&mut self, row: &ChunkRow) {
        let amount = match row.kind {
            BlobKind::Page => &mut self.pages,
            BlobKind::Chunk => &mut self.chunks,
        };
        amount.add(row.stored_len.into());
        self.by_pack.entry(row.pack).or_default().add(row);
    }
}

/// How often idle pages that wait for the collector refer to each chunk. Waits for the site.
pub(crate) fn references_of_idle_pages(store: &Arc<Store>) -> Result<Counts, ServerError> {
    let mut idle = Vec::new();
    let range = KeyRange::prefix(&[IdleKind::Rows(BlobKind::Page).tag()]);
    store.for_each_row(Table::Idle, &range, |key, _| {
        if let Some(IdleKey::Row { since, id, .. }) = IdleKey::decode(key) {
            idle.push((id, since));
        }
        Ok(())
    })?;
    let mut pages = Vec::new();
    for idle in idle.chunks(AT_ONCE) {
        let rows = store.chunk_rows(idle.iter().map(|(id, _)| id))?;
        let still = idle.iter().zip(rows).filter_map(|((id, since), row)| {
            row.filter(|row| row.is_idle() && row.idle_since == *since).map(|row| (*id, row))
        });
        pages.extend(still);
    }
    let mut counts = Counts::new();
    for_each_reference(store, &pages, |references, _| {
        counts.extend(references.iter().copied());
        Ok(())
    })?;
    Ok(counts)
}

/// Data that is freed when all of `snapshots` are purged. `gone` is what idle pages refer to. Waits for the site.
pub(crate) fn freed(
    store: &Arc<Store>,
    snapshots: &[&Snapshot],
    gone: &Counts,
) -> Result<Freed, ServerError> {
    add_with_chunks(store, &pages_of(store, snapshots)?, gone, Freed::default())
}

/// Adds pages to `freed`, and the chunks that are freed with them. `gone` is what pages refer to that count as freed.
fn add_with_chunks(
    store: &Arc<Store>,
    pages: &[(ChunkId, ChunkRow)],
    gone: &Counts,
    mut freed: Freed,
) -> Result<Freed, ServerError> {
    for (_, row) in pages {
        freed.add(row);
    }
    for_each_reference(store, pages, |references, rows| {
        for ((id, count), row) in references.iter().zip(rows) {
            let count = count + gone.get(id).copied().unwrap_or(0);
            if let Some(row) = row.filter(|row| row.references == count) {
                freed.add(&row);
            }
        }
        Ok(())
    })?;
    Ok(freed)
}

/// Data that is freed when all of `snapshots` are purged, and all idle data: `pages`, and the chunks in
/// `freed`. Waits for the site.
pub(crate) fn freed_with_idle(
    store: &Arc<Store>,
    snapshots: &[&Snapshot],
    mut pages: Vec<(ChunkId, ChunkRow)>,
    freed: Freed,
) -> Result<Freed, ServerError> {
    pages.extend(pages_of(store, snapshots)?);
    add_with_chunks(store, &pages, &Counts::new(), freed)
}

/// The pages that only `snapshots` name.
fn pages_of(store: &Arc<Store>, snapshots: &[&Snapshot]) -> Result<Vec<(ChunkId, ChunkRow)>, ServerError> {
    let mut named = Counts::new();
    for manifest in snapshots.iter().flat_map(|snapshot| &snapshot.manifests) {
        let (_, manifest) = wait(open_manifest(store, manifest.id))?;
        for (id, count) in named_pages(&manifest) {
            *named.entry(id).or_default() += count;
        }
    }
    all_of(store, &named)
}

/// Those ids whose whole count is in `counts`.
fn all_of(store: &Store, counts: &Counts) -> Result<Vec<(ChunkId, ChunkRow)>, ServerError> {
    let ids: Vec<ChunkId> = counts.keys().copied().collect();
    let mut found = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        for (id, row) in ids.iter().zip(store.chunk_rows(ids)?) {
            let whole = row.filter(|row| counts.get(id) == Some(&row.references));
            found.extend(whole.map(|row| (*id, row)));
        }
    }
    Ok(found)
}

/// Shows each chunk that `pages` refer to, and how often they do, with its row, some thousands at once and in
/// the order of their ids. Each pack is asked once. Blocks.
pub(crate) fn for_each_reference(
    store: &Arc<Store>,
    pages: &[(ChunkId, ChunkRow)],
    mut visit: impl FnMut(&[(ChunkId, u64)], &[Option<ChunkRow>]) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let mut by_pack: BTreeMap<PackNumber, pack::Pages> = BTreeMap::new();
    for (id, row) in pages {
        by_pack.entry(row.pack).or_default().insert(*id, *row);
    }
    let read = |(number, pages)| async move { references_of(store, number, pages).await };
    let mut sorter: Sorter<1> = Sorter::new(&store.parts.scratch);
    for references in read_ahead(by_pack, IN_FLIGHT, read) {
        for id in references??.values().flatten() {
            sorter.add(*id.as_bytes(), [1])?;
        }
    }
    let mut counts = sorter.finish()?;
    let mut group = Vec::with_capacity(AT_ONCE);
    loop {
        let next = counts.next()?;
        let is_last = next.is_none();
        group.extend(next.map(|(key, [count])| (ChunkId::from_bytes(key), count)));
        if group.len() >= AT_ONCE || is_last {
            let rows = store.chunk_rows(group.iter().map(|(id, _)| id))?;
            visit(&group, &rows)?;
            group.clear();
        }
        if is_last {
            return Ok(());
        }
    }
}

/// References of pages whose rows were in this pack a moment ago. The collector may have moved them to
/// another since, or dropped them, and taken the pack away: then they are looked for where they are now. To
/// be awaited where one may block.
async fn references_of(
    store: &Arc<Store>,
    number: PackNumber,
    pages: pack::Pages,
) -> Result<HashMap<ChunkId, Vec<ChunkId>>, ServerError> {
    let mut known = HashMap::new();
    let mut left = BTreeMap::from([(number, pages)]);
    while let Some((number, pages)) = left.pop_first() {
        match references_in(store, number, &pages).await {
            Ok(found) => known.extend(found),
            Err(error) => {
                let now = store.chunk_rows(pages.keys())?;
                let now: pack::Pages =
                    pages.into_keys().zip(now).filter_map(|(id, row)| Some((id, row?))).collect();
                if now.values().any(|row| row.pack == number) {
                    return Err(error);
                }
                for (id, row) in now {
                    left.entry(row.pack).or_default().insert(id, row);
                }
            }
        }
    }
    Ok(known)
}

/// References of all pages of a pack.
async fn references_in(
    store: &Arc<Store>,
    number: PackNumber,
    pages: &pack::Pages,
) -> Result<HashMap<ChunkId, Vec<ChunkId>>, ServerError> {
    let pack = store.pack_row(number)?;
    let found = pack::references_of(store, &pack, pages).await?;
    found.problem.map_or(Ok(found.known), Err)
}
