//! Blobs back from packs: neighbours in one read, opened and authenticated, not decompressed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::blob::BlobInfo;
use format_spec::{ChunkId, wire};

use crate::defects::blobs::Place;
use crate::defects::{self, Unread};
use crate::error::ServerError;
use crate::rows::{ChunkRow, PackNumber, PackRow};
use crate::site::SiteError;
use crate::site::layout::pack_object;
use crate::store::Domain;
use crate::store::{Budget, Reserved, Store};

/// Bytes between two blobs that are cheaper to read along than to skip.
pub(super) const GAP: u64 = 32 << 10;

/// How often blobs are looked for: each time that they were not where their rows said.
const ATTEMPTS: usize = 3;

/// A blob's payload, authenticated.
pub(crate) struct Blob {
    pub(crate) info: BlobInfo,
    pub(crate) payload: Bytes,
}

/// The blobs with these ids, in their order. What proves to be damaged is in quarantine when this returns.
///
/// # Errors
/// [`ServerError::NoChunk`] if the domain does not have one, [`ServerError::Damaged`] if one fails
/// authentication, [`ServerError::Lost`] if the disk does not give one.
pub(crate) async fn read_blobs(
    store: &Arc<Store>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
) -> Result<Vec<Blob>, ServerError> {
    read_within(store, domain, ids, None).await.map(|(blobs, _)| blobs)
}

/// Like [`read_blobs`], for an answer: memory is taken from `answers` before anything is read, and held as
/// long as the reservation lives.
///
/// # Errors
/// The errors of [`read_blobs`], and [`ServerError::Rests`] if too many other answers are not sent yet.
pub(crate) async fn read_for_answer(
    store: &Arc<Store>,
    answers: &Budget,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
) -> Result<(Vec<Blob>, Option<Reserved>), ServerError> {
    read_within(store, domain, ids, Some(answers)).await
}

async fn read_within(
    store: &Arc<Store>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
    budget: Option<&Budget>,
) -> Result<(Vec<Blob>, Option<Reserved>), ServerError> {
    for attempt in 1..=ATTEMPTS {
        match read_once(store, domain, ids.clone(), budget).await {
            // A repacked pack may be deleted between the read of the rows and the read of the pack.
            Err(ServerError::Row { .. }) if attempt < ATTEMPTS => {}
            Ok(Reading { blobs, unread, reserved }) if unread.is_empty() => return Ok((blobs, reserved)),
            Ok(Reading { unread, .. }) if attempt < ATTEMPTS && unread.iter().any(is_missing) => {}
            Ok(Reading { unread, .. }) => return Err(defects::blobs(store, unread).await?),
            Err(error) => return Err(error),
        }
    }
    Err(ServerError::Bug("no attempt was made"))
}

/// Reads blobs, with the lengths of their plaintexts, only to find out which of them are damaged: those are in
/// quarantine when this returns.
///
/// # Errors
/// [`ServerError`] that says nothing about stored bytes.
pub(crate) async fn find_damage(
    store: &Arc<Store>,
    domain: &Arc<Domain>,
    ids: Vec<(ChunkId, u32)>,
) -> Result<(), ServerError> {
    let mut ids = ids.into_iter().peekable();
    while ids.peek().is_some() {
        let (mut some, mut bytes) = (Vec::new(), 0);
        while let Some((id, len)) =
            ids.next_if(|(_, len)| some.is_empty() || bytes + u64::from(*len) <= wire::MAX_READ_LEN)
        {
            bytes += u64::from(len);
            some.push(id);
        }
        match read_blobs(store, domain, some).await {
            Err(error) if !error.is_of_stored() && !matches!(error, ServerError::NoChunk(_)) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_missing(unread: &Unread) -> bool {
    matches!(unread.error, ServerError::Site(SiteError::NotFound { .. }))
}

/// Result of one attempt.
struct Reading {
    /// Blobs in the order of their ids: all of them, if none is unread.
    blobs: Vec<Blob>,
    /// Blobs that are not as they should be, or that the site does not give.
    unread: Vec<Unread>,
    /// Memory that the blobs take, if there is a budget.
    reserved: Option<Reserved>,
}

async fn read_once(
    store: &Arc<Store>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
    budget: Option<&Budget>,
) -> Result<Reading, ServerError> {
    let of_domain = Arc::clone(domain);
    let (ids, rows, plan) = store
        .blocking(move |store| {
            let rows = locate(store, &of_domain, &ids)?;
            let with_pack = |(number, reads)| Ok((store.pack_row(number)?, reads));
            let plan: Vec<_> =
                bounded_plan(&rows).into_iter().map(with_pack).collect::<Result<_, ServerError>>()?;
            Ok((ids, rows, plan))
        })
        .await?;
    let read_len: u64 = plan.iter().map(|(_, reads)| len_of(reads)).sum();
    let reserved = match budget {
        // Memory for the bytes that are read, and for the blobs that are opened.
        Some(budget) => Some(budget.reserve(2 * read_len).await?),
        None => None,
    };
    let mut sealed: Vec<Bytes> = vec![Bytes::new(); rows.len()];
    let mut failed = BTreeMap::new();
    for (pack, reads) in plan {
        match fetch(store, &pack, &reads, &mut sealed).await {
            Err(ServerError::Site(SiteError::NotFound { name })) => {
                let blobs = reads.iter().flat_map(|read| &read.blobs);
                let gone = || ServerError::Site(SiteError::NotFound { name: name.clone() });
                failed.extend(blobs.map(|(place, _)| (*place, gone())));
            }
            Err(ServerError::Site(error)) if error.is_of_object() => {
                failed.extend(fetch_each(store, &pack, &reads, &mut sealed).await?);
            }
            fetched => fetched?,
        }
    }
    let domain = Arc::clone(domain);
    let mut reading = store.compute(move |_| Ok(open_all(&domain, &ids, &rows, &sealed, failed))).await?;
    let lens = reading.blobs.iter().map(|blob| u64::try_from(blob.payload.len()).unwrap_or(u64::MAX));
    let opened_len = lens.sum();
    reading.reserved = reserved;
    if let Some(reserved) = &mut reading.reserved {
        reserved.keep(opened_len);
    }
    Ok(reading)
}

/// Bytes that these reads bring into memory.
pub(super) fn len_of(reads: &[Read]) -> u64 {
    reads.iter().map(|read| read.range.end - read.range.start).sum()
}

/// The fewest reads that take not much more memory than the blobs themselves may.
fn bounded_plan(rows: &[ChunkRow]) -> BTreeMap<PackNumber, Vec<Read>> {
    let few = plan(rows, GAP);
    let is_long = few.values().map(|reads| len_of(reads)).sum::<u64>() > 2 * wire::MAX_READ_LEN;
    if is_long { plan(rows, 0) } else { few }
}

/// Reads the blobs of a pack one by one, those that the disk does not give twice. Answers which it does not give, by
/// their places in the request.
async fn fetch_each(
    store: &Arc<Store>,
    pack: &PackRow,
    reads: &[Read],
    sealed: &mut [Bytes],
) -> Result<BTreeMap<usize, ServerError>, ServerError> {
    let mut failed = BTreeMap::new();
    for (place, range) in reads.iter().flat_map(|read| read.blobs.iter().cloned()) {
        let alone = [Read { range: range.clone(), blobs: vec![(place, range)] }];
        let mut fetched = fetch(store, pack, &alone, sealed).await;
        if matches!(fetched, Err(ServerError::Site(SiteError::Unreadable { .. }))) {
            fetched = fetch(store, pack, &alone, sealed).await;
        }
        match fetched {
            Err(error @ ServerError::Site(_)) => drop(failed.insert(place, error)),
            fetched => fetched?,
        }
    }
    Ok(failed)
}

/// The rows of `ids`, all of which must be of the domain, and small enough together.
fn locate(store: &Store, domain: &Domain, ids: &[ChunkId]) -> Result<Vec<ChunkRow>, ServerError> {
    let rows = store.chunk_rows_of(domain, ids)?;
    let rows: Vec<ChunkRow> = ids
        .iter()
        .zip(rows)
        .map(|(id, row)| row.ok_or(ServerError::NoChunk(*id)))
        .collect::<Result<_, _>>()?;
    let plain_len: u64 = rows.iter().map(|row| u64::from(row.plain_len)).sum();
    if plain_len > wire::MAX_READ_LEN {
        return Err(ServerError::TooLarge { limit_bytes: wire::MAX_READ_LEN });
    }
    Ok(rows)
}

/// One read of a pack, and which blobs (by their place in the request) come out of it.
pub(super) struct Read {
    pub(super) range: Range<u64>,
    pub(super) blobs: Vec<(usize, Range<u64>)>,
}

/// The fewest reads, by pack and offset, that hold all rows; `gap` is what is read along rather than skipped.
pub(super) fn plan(rows: &[ChunkRow], gap: u64) -> BTreeMap<PackNumber, Vec<Read>> {
    let mut order: Vec<(usize, &ChunkRow)> = rows.iter().enumerate().collect();
    order.sort_by_key(|(_, row)| (row.pack, row.offset));
    let mut plan: BTreeMap<PackNumber, Vec<Read>> = BTreeMap::new();
    for (place, row) in order {
        let reads = plan.entry(row.pack).or_default();
        let range = row.range();
        match reads.last_mut() {
            Some(last) if range.start <= last.range.end.saturating_add(gap) => {
                last.range.end = last.range.end.max(range.end);
                last.blobs.push((place, range));
            }
            _ => reads.push(Read { range: range.clone(), blobs: vec![(place, range)] }),
        }
    }
    plan
}

/// Reads a pack, and puts the sealed blobs where they belong.
pub(super) async fn fetch(
    store: &Arc<Store>,
    pack: &PackRow,
    reads: &[Read],
    sealed: &mut [Bytes],
) -> Result<(), ServerError> {
    let ranges: Vec<Range<u64>> = reads.iter().map(|read| read.range.clone()).collect();
    let pieces = store.get_ranges(&pack_object(&pack.id), &ranges).await?;
    for (read, piece) in reads.iter().zip(pieces) {
        for (place, range) in &read.blobs {
            let within = |at: u64| usize::try_from(at - read.range.start).unwrap_or(usize::MAX);
            let (start, end) = (within(range.start), within(range.end));
            // Sites never answer short; if one did, the blob would fail authentication under its id.
            let blob = piece.slice(start.min(piece.len())..end.min(piece.len()));
            if let Some(slot) = sealed.get_mut(*place) {
                *slot = blob;
            }
        }
    }
    Ok(())
}

fn open_all(
    domain: &Domain,
    ids: &[ChunkId],
    rows: &[ChunkRow],
    sealed: &[Bytes],
    mut failed: BTreeMap<usize, ServerError>,
) -> Reading {
    let mut reading = Reading { blobs: Vec::with_capacity(ids.len()), unread: Vec::new(), reserved: None };
    for (at, ((id, row), blob)) in ids.iter().zip(rows).zip(sealed).enumerate() {
        let info = row.info(*id);
        let opened = match failed.remove(&at) {
            Some(error) => Err(error),
            None => domain
                .sealer
                .open(&info, blob)
                .map_err(|source| ServerError::Damaged { object: id.to_string(), source }),
        };
        match opened {
            Ok(payload) => reading.blobs.push(Blob { info, payload: Bytes::from(payload) }),
            Err(error) => {
                reading.unread.push(Unread { id: *id, place: Place::of(row), health: row.health, error })
            }
        }
    }
    reading
}
