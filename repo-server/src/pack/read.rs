//! Blobs back from packs: neighbours in one read, opened and authenticated, not decompressed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::blob::BlobInfo;
use format_spec::{ChunkId, wire};

use super::object_name;
use crate::error::ServerError;
use crate::index::row::{ChunkRow, PackNumber, PackRow};
use crate::repository::{Budget, Domain, Repository, Reserved};
use crate::site::SiteError;

/// Bytes between two blobs that are cheaper to read along than to skip.
pub(super) const GAP: u64 = 32 << 10;

/// How often blobs are looked for: each time that they were not where their rows said.
const ATTEMPTS: usize = 3;

/// A blob's payload, authenticated.
pub(crate) struct Blob {
    pub(crate) info: BlobInfo,
    pub(crate) payload: Bytes,
}

/// The blobs with these ids, in their order.
///
/// # Errors
/// [`ServerError::NoChunk`] if the domain does not have one, [`ServerError::Damaged`] if one fails
/// authentication.
pub(crate) async fn read_blobs(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
) -> Result<Vec<Blob>, ServerError> {
    read_within(repository, domain, ids, None).await.map(|(blobs, _)| blobs)
}

/// As [`read_blobs`], for an answer: memory is reserved before anything is read, and held as long as the
/// reservation lives.
///
/// # Errors
/// As [`read_blobs`], and [`ServerError::Rests`] if too many other answers are not sent yet.
pub(crate) async fn read_for_answer(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
) -> Result<(Vec<Blob>, Option<Reserved>), ServerError> {
    read_within(repository, domain, ids, Some(&repository.answers)).await
}

async fn read_within(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
    budget: Option<&Budget>,
) -> Result<(Vec<Blob>, Option<Reserved>), ServerError> {
    for _ in 1..ATTEMPTS {
        match read_once(repository, domain, ids.clone(), budget).await {
            // A pack that was repacked may go between the look at the rows and the read.
            Err(ServerError::Site(SiteError::NotFound { .. }) | ServerError::Row { .. }) => {}
            read => return read,
        }
    }
    read_once(repository, domain, ids, budget).await
}

async fn read_once(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    ids: Vec<ChunkId>,
    budget: Option<&Budget>,
) -> Result<(Vec<Blob>, Option<Reserved>), ServerError> {
    let of_domain = Arc::clone(domain);
    let (ids, rows, plan) = repository
        .blocking(move |repository| {
            let rows = locate(repository, &of_domain, &ids)?;
            let with_pack = |(number, reads)| Ok((repository.pack_row(number)?, reads));
            let plan: Vec<_> =
                bounded_plan(&rows).into_iter().map(with_pack).collect::<Result<_, ServerError>>()?;
            Ok((ids, rows, plan))
        })
        .await?;
    let read_len: u64 = plan.iter().map(|(_, reads)| len_of(reads)).sum();
    let mut reserved = match budget {
        // What is read, and what is opened of it.
        Some(budget) => Some(budget.reserve(2 * read_len).await?),
        None => None,
    };
    let mut sealed: Vec<Bytes> = vec![Bytes::new(); rows.len()];
    for (pack, reads) in plan {
        fetch(repository, &pack, &reads, &mut sealed).await?;
    }
    let domain = Arc::clone(domain);
    let blobs = repository.blocking(move |_| open_all(&domain, &ids, &rows, &sealed)).await?;
    let opened_len = blobs.iter().map(|blob| u64::try_from(blob.payload.len()).unwrap_or(u64::MAX)).sum();
    if let Some(reserved) = &mut reserved {
        reserved.keep(opened_len);
    }
    Ok((blobs, reserved))
}

fn len_of(reads: &[Read]) -> u64 {
    reads.iter().map(|read| read.range.end - read.range.start).sum()
}

/// The fewest reads that take not much more memory than the blobs themselves may.
fn bounded_plan(rows: &[ChunkRow]) -> BTreeMap<PackNumber, Vec<Read>> {
    let few = plan(rows, GAP);
    let is_long = few.values().map(|reads| len_of(reads)).sum::<u64>() > 2 * wire::MAX_READ_LEN;
    if is_long { plan(rows, 0) } else { few }
}

/// The rows of `ids`, all of which must be of the domain, and small enough together.
fn locate(repository: &Repository, domain: &Domain, ids: &[ChunkId]) -> Result<Vec<ChunkRow>, ServerError> {
    let rows = repository.chunk_rows_of(domain, ids)?;
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
    repository: &Arc<Repository>,
    pack: &PackRow,
    reads: &[Read],
    sealed: &mut [Bytes],
) -> Result<(), ServerError> {
    let ranges: Vec<Range<u64>> = reads.iter().map(|read| read.range.clone()).collect();
    let pieces = repository.parts.site.get_ranges(&object_name(&pack.id), &ranges).await;
    let pieces = pieces.map_err(|error| repository.site_error(error))?;
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
) -> Result<Vec<Blob>, ServerError> {
    let open = |((id, row), blob): ((&ChunkId, &ChunkRow), &Bytes)| {
        let info = row.info(*id);
        let payload = domain
            .sealer
            .open(&info, blob)
            .map_err(|source| ServerError::Damaged { object: id.to_string(), source })?;
        Ok(Blob { info, payload: Bytes::from(payload) })
    };
    ids.iter().zip(rows).zip(sealed).map(open).collect()
}
