//! Sparse packs: their live blobs are copied to new packs unchanged.
//!
//! A pack is thin when little of it is still in use; small packs are merged once there are many, and packs that
//! are not as they were written are left for new ones, however much of them is in use. A blob does
//! not depend on where it lies, so it is copied without being sealed again; but it is opened before, so that
//! damage is never given a new name, and once more from the new pack as the site gives it back (G4). Where it
//! lies is in its pack's footer; where that is damaged, the rows say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use format_spec::key::BlobKind;
use format_spec::pack::{Directory, PackBuilder, PackEntry, SealedPack, TARGET_LEN};
use format_spec::{ChunkId, ClusterName, PackId};

use super::{Next, Phase, Run};
use crate::catalog::publish;
use crate::defects::blobs;
use crate::defects::packs;
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::pack::{self, References, new_pack};
use crate::rows::{ChunkRow, Health, Live, PackNumber, PackRow};
use crate::settings::Percent;
use crate::site::SiteError;
use crate::site::layout::pack_object;
use crate::store::Domain;
use crate::store::{Store, share_out, wait};

/// Packs of less than this share of a full one are small…
const SMALL: usize = 8;
/// …and merged when there are this many of one domain and kind: each byte is copied a few times in its life.
const MANY_SMALL: usize = 16;
/// Small packs that one run merges at most.
const SMALL_AT_ONCE: usize = 1000;
/// Rows of packs that a thread reads at once.
const PACKS_OF_A_PART: u32 = 8192;
/// Blobs of one new pack: its rows change in one batch.
const MAX_BLOBS: usize = 50_000;

/// A pack to be repacked.
pub(super) struct Thin {
    number: PackNumber,
    pub(super) row: PackRow,
}

/// A new pack that is being filled, and where its blobs were copied from.
struct Copying {
    domain: Arc<Domain>,
    kind: BlobKind,
    builder: PackBuilder,
    from: BTreeMap<ChunkId, ChunkRow>,
    sources: Vec<Thin>,
}

/// The live blobs of a pack, each opened once.
type Copies = Vec<(PackEntry, ChunkRow, Vec<u8>)>;

impl Run {
    /// Repacks thin packs, the thinnest first, as long as the run may copy.
    pub(super) fn repack(&mut self) -> Result<(), ServerError> {
        for ((cluster, kind), packs) in thin_packs(&self.store, &BTreeMap::new())? {
            let domain = self.store.domain(&cluster);
            let mut copying = Copying::new(&domain, kind);
            let mut footless = Vec::new();
            for thin in packs {
                if self.may_copy(&thin) == Next::Stop {
                    self.finish(copying)?;
                    return Ok(());
                }
                let entries = match wait(pack::directory_of(&self.store, thin.number, &thin.row)) {
                    Ok(directory) => directory.entries,
                    Err(error) if is_lost(&error) => {
                        footless.push(thin);
                        continue;
                    }
                    Err(error @ ServerError::Site(_)) => {
                        self.problem(thin.row.id, &error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                copying = self.copy(copying, thin, &entries)?;
            }
            if self.copy_by_rows(copying, footless)? == Next::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Copies what is left of packs whose directories cannot be read: one look through the index for all of them.
    fn copy_by_rows(&mut self, mut copying: Copying, packs: Vec<Thin>) -> Result<Next, ServerError> {
        let numbers = packs.iter().map(|thin| (thin.number, thin.row.live.blobs)).collect();
        let mut rows = sound_rows(&self.store, numbers)?;
        for thin in packs {
            let Some(rows) = rows.remove(&thin.number) else { continue };
            if self.may_copy(&thin) == Next::Stop {
                self.finish(copying)?;
                return Ok(Next::Stop);
            }
            match entries_of(&self.store, &thin.row, &rows) {
                Ok(entries) => copying = self.copy(copying, thin, &entries)?,
                Err(
                    error @ (ServerError::Damaged { .. } | ServerError::Lost { .. } | ServerError::Site(_)),
                ) => {
                    self.problem(thin.row.id, &error);
                }
                Err(error) => return Err(error),
            }
        }
        self.finish(copying)?;
        Ok(Next::GoOn)
    }

    /// Decides if the live blobs of a pack may be copied in this run.
    pub(super) fn may_copy(&mut self, thin: &Thin) -> Next {
        let limit = self.request.max_copy_bytes.unwrap_or(self.store.parts.upkeep.gc.max_copy_bytes);
        if self.report.copied_bytes.saturating_add(thin.row.live.stored_bytes) <= limit {
            return Next::GoOn;
        }
        let why = format!("the limit of {limit} bytes rewritten per run is reached: the next run continues");
        self.report.stopped.get_or_insert(why);
        Next::Stop
    }

    /// Copies the live blobs of a pack. A pack that cannot be read correctly is kept.
    fn copy(
        &mut self,
        mut copying: Copying,
        thin: Thin,
        entries: &[PackEntry],
    ) -> Result<Copying, ServerError> {
        let mut copies = read_live(&self.store, &copying.domain, &thin, entries);
        if let Err(error) = &copies
            && error.is_of_stored()
        {
            self.problem(thin.row.id, error);
            // The affected blob is quarantined then, and the others can be copied.
            let ids = entries.iter().map(|entry| (entry.id, entry.plain_len)).collect();
            wait(pack::find_damage(&self.store, &copying.domain, ids))?;
            copies = read_live(&self.store, &copying.domain, &thin, entries);
        }
        let copies = match copies {
            Ok(copies) => copies,
            Err(error) if error.is_of_stored() => return Ok(copying),
            Err(error) => return Err(error),
        };
        for (entry, row, blob) in copies {
            self.report.copied_bytes += u64::from(row.stored_len);
            copying.from.insert(entry.id, row);
            copying.builder.append(&entry.info(), &blob, entry.references);
        }
        copying.sources.push(thin);
        if copying.is_full() { self.finish(copying) } else { Ok(copying) }
    }

    /// Publishes what was copied, reads it back, and lets the rows name it: one batch. Returns an empty one.
    fn finish(&mut self, copying: Copying) -> Result<Copying, ServerError> {
        let Copying { domain, kind, builder, from, sources } = copying;
        if builder.is_empty() {
            return Ok(Copying::new(&domain, kind));
        }
        let sealed = builder.seal(&self.store.keys);
        let name = pack_object(&sealed.id);
        let landing = publish(&self.store, &self.server.in_flight, name, sealed.bytes.clone())?;
        read_back(&self.store, &domain, &sealed)?;
        self.store.account(|ledger| {
            landing.land(ledger.batch());
            ledger.move_to_pack(&new_pack(&sealed), &from)
        })?;
        drop(landing);
        for source in sources {
            self.report.repacked.add(source.row.len);
        }
        self.progress.phase(Phase::Repack.name(), self.report.repacked.count);
        Ok(Copying::new(&domain, kind))
    }
}

impl Copying {
    fn new(domain: &Arc<Domain>, kind: BlobKind) -> Self {
        let (builder, from) = (domain.new_pack(), BTreeMap::new());
        Self { domain: Arc::clone(domain), kind, builder, from, sources: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.builder.len() >= full_len(self.kind) || self.builder.entries().len() >= MAX_BLOBS
    }
}

/// The length at which a pack of this kind is full.
fn full_len(kind: BlobKind) -> usize {
    match kind {
        BlobKind::Chunk => TARGET_LEN,
        BlobKind::Page => pack::PAGE_PACK_LEN,
    }
}

/// Packs of one domain and kind, in the order in which they are copied.
pub(super) type Groups = BTreeMap<(ClusterName, BlobKind), Vec<Thin>>;

/// Thin and altered packs by domain and kind, the thinnest first, as they are once `gone` has left them.
pub(super) fn thin_packs(store: &Store, gone: &BTreeMap<PackNumber, Live>) -> Result<Groups, ServerError> {
    let altered = packs::all(store)?;
    let key = |number: u32| PackNumber(number).key();
    let count = store.totals()?.next_pack.div_ceil(PACKS_OF_A_PART);
    let part =
        |n: u32| KeyRange::between(&key(n * PACKS_OF_A_PART), &key((n + 1).saturating_mul(PACKS_OF_A_PART)));
    let parts: Vec<KeyRange> = (0..count).map(part).collect();
    let scan = |range: &KeyRange| scan(store, range, gone, &altered);
    let mut found = Found::new();
    for (group, (thin, small)) in share_out(store.parts.cores, &parts, scan)?.into_iter().flatten() {
        let (all_thin, all_small) = found.entry(group).or_default();
        all_thin.extend(thin);
        all_small.extend(small);
    }
    let mut groups = BTreeMap::new();
    for (group, (mut packs, mut small)) in found {
        packs.sort_by_key(|thin| std::cmp::Reverse(thin.row.dead_bytes()));
        if small.len() >= MANY_SMALL {
            small.truncate(SMALL_AT_ONCE);
            packs.extend(small);
        }
        groups.insert(group, packs);
    }
    Ok(groups)
}

/// Thin packs and small ones, by domain and kind.
type Found = BTreeMap<(ClusterName, BlobKind), (Vec<Thin>, Vec<Thin>)>;

fn scan(
    store: &Store,
    range: &KeyRange,
    gone: &BTreeMap<PackNumber, Live>,
    altered: &BTreeSet<PackNumber>,
) -> Result<Found, ServerError> {
    let mut found = Found::new();
    store.for_each_row(Table::Pack, range, |key, value| {
        let decoded = PackNumber::from_key(key).zip(PackRow::decode(value));
        let (number, mut row) = decoded.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
        if let Some(gone) = gone.get(&number) {
            row.live = row.live.less(gone);
        }
        if row.live.blobs == 0 {
            return Ok(());
        }
        let (thin, small) = found.entry((row.domain.clone(), row.kind)).or_default();
        if is_thin(&row, store.parts.upkeep.gc.repack_below) || altered.contains(&number) {
            thin.push(Thin { number, row });
        } else if is_small(&row) && small.len() < SMALL_AT_ONCE {
            small.push(Thin { number, row });
        }
        Ok(())
    })?;
    Ok(found)
}

fn is_thin(row: &PackRow, below: Percent) -> bool {
    row.live.stored_bytes < below.of(row.blob_bytes)
}

fn is_small(row: &PackRow) -> bool {
    let full = u64::try_from(full_len(row.kind)).unwrap_or(u64::MAX);
    row.blob_bytes < full / u64::try_from(SMALL).unwrap_or(1)
}

/// True if a directory cannot be read, now or later.
fn is_lost(error: &ServerError) -> bool {
    matches!(
        error,
        ServerError::Damaged { .. }
            | ServerError::Lost { .. }
            | ServerError::Site(SiteError::OutOfRange { .. })
    )
}

/// The rows of sound blobs in packs, with the number of rows that each pack has in all. A pack whose blobs
/// are all quarantined is skipped; the index is read only if there is another.
fn sound_rows(
    store: &Store,
    mut packs: BTreeMap<PackNumber, u32>,
) -> Result<BTreeMap<PackNumber, BTreeMap<ChunkId, ChunkRow>>, ServerError> {
    if packs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let damaged = blobs::by_pack(store)?;
    packs.retain(|number, blobs| damaged.get(number).is_none_or(|damaged| damaged < blobs));
    let mut found: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    if packs.is_empty() {
        return Ok(found);
    }
    store.for_each_row(Table::Chunk, &KeyRange::all(), |key, value| {
        let row = key.try_into().ok().map(ChunkId::from_bytes).zip(ChunkRow::decode(value));
        let (id, row) = row.ok_or_else(|| ServerError::Row { object: "a chunk".to_owned() })?;
        if packs.contains_key(&row.pack) && row.health == Health::Sound {
            found.entry(row.pack).or_default().insert(id, row);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Entries of a pack's footer for the blobs that rows place there, in the order of their places.
fn entries_of(
    store: &Arc<Store>,
    pack: &PackRow,
    rows: &BTreeMap<ChunkId, ChunkRow>,
) -> Result<Vec<PackEntry>, ServerError> {
    let mut references = match pack.kind {
        BlobKind::Chunk => References::default(),
        BlobKind::Page => wait(pack::references_of(store, pack, rows))?,
    };
    if let Some(problem) = references.problem {
        return Err(problem);
    }
    let entry =
        |(id, row): (&ChunkId, &ChunkRow)| row.entry(*id, references.known.remove(id).unwrap_or_default());
    let mut entries: Vec<PackEntry> = rows.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.offset);
    Ok(entries)
}

/// Live blobs of a pack, as stored, after opening each of them.
fn read_live(
    store: &Store,
    domain: &Domain,
    thin: &Thin,
    entries: &[PackEntry],
) -> Result<Copies, ServerError> {
    let rows = store.chunk_rows(entries.iter().map(|entry| &entry.id))?;
    let live = entries.iter().zip(rows).filter_map(|(entry, row)| {
        let here = |row: &ChunkRow| row.pack == thin.number && row.range() == entry.range();
        row.filter(|row| here(row) && row.health == Health::Sound).map(|row| (entry, row))
    });
    let live: Vec<(&PackEntry, ChunkRow)> = live.collect();
    let ranges: Vec<_> = live.iter().map(|(entry, _)| entry.range()).collect();
    let blobs = wait(store.get_ranges(&pack_object(&thin.row.id), &ranges))?;
    let open = |((entry, row), blob): ((&PackEntry, ChunkRow), bytes::Bytes)| {
        check(domain, entry, &blob)?;
        Ok((entry.clone(), row, blob.to_vec()))
    };
    live.into_iter().zip(blobs).map(open).collect()
}

fn check(domain: &Domain, entry: &PackEntry, blob: &[u8]) -> Result<(), ServerError> {
    let opened = domain.sealer.open(&entry.info(), blob);
    opened.map(drop).map_err(|source| ServerError::Damaged { object: entry.id.to_string(), source })
}

/// Reads a new pack from the site, and opens every blob in it.
fn read_back(store: &Store, domain: &Domain, written: &SealedPack) -> Result<(), ServerError> {
    let bytes = wait(store.get(&pack_object(&written.id)))?;
    let directory = open_pack(store, written.id, &bytes)?;
    for entry in &directory.entries {
        let range = usize::try_from(entry.range().start).ok().zip(usize::try_from(entry.range().end).ok());
        let blob = range.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default();
        check(domain, entry, blob)?;
    }
    Ok(())
}

fn open_pack(store: &Store, id: PackId, bytes: &[u8]) -> Result<Directory, ServerError> {
    let opened = format_spec::pack::open(&store.keys, store.id(), id, bytes);
    opened.map_err(|source| ServerError::Damaged { object: id.to_string(), source })
}
