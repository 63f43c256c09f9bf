//! References of pages, from the pages themselves or from the footer of their pack: whichever is less to
//! read.
//!
//! A footer says what every page of its pack refers to: of a few pages of many, only they are read. Both say
//! the same, as the footer holds what [`references_in`] found in a page when it came in, and as a page's id is
//! checked against its content before it is asked (G1). So where one of the two is damaged, the other answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use format_spec::blob::{BlobInfo, Decompressor};
use format_spec::{ChunkId, FormatError, page};

use super::read::{GAP, Read, fetch, len_of, plan};
use super::{directory_of, find_damage, unreadable};
use crate::defects;
use crate::defects::objects::Object;
use crate::error::ServerError;
use crate::rows::{ChunkRow, PackRow};
use crate::site::SiteError;
use crate::store::Domain;
use crate::store::Store;

/// Reads of one pack that are few enough. Pages that lie far apart are read with what lies between them.
const MOST_READS: usize = 32;

/// Bytes of one pack that may be in memory for the sake of fewer reads.
const MOST_BYTES: u64 = 16 << 20;

/// Pages are read themselves if they are not more than this part of the footer.
const PART_OF_FOOTER: u64 = 2;

/// Pages of one pack, with their rows.
pub(crate) type Pages = BTreeMap<ChunkId, ChunkRow>;

/// Known references of some pages.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// References by page: the chunks that are counted for it, each once and in the order of their ids.
    pub(crate) known: HashMap<ChunkId, Vec<ChunkId>>,
    /// Reason why those of the other pages are unknown, if there are any. It is lasting.
    pub(crate) problem: Option<ServerError>,
}

/// References of `pages`, which lie in `pack`. Memory: the footer, or some pages and what they refer to.
///
/// # Errors
/// An error that is not about the pack, and may be gone on a retry.
pub(crate) async fn references_of(
    store: &Arc<Store>,
    pack: &PackRow,
    pages: &Pages,
) -> Result<References, ServerError> {
    let mut found = References::default();
    for way in Way::both(pack, pages) {
        let left = found.without_known(pages);
        if left.is_empty() {
            break;
        }
        let more = match way {
            Way::Pages => by_pages(store, pack, left).await?,
            Way::Footer => by_footer(store, pack, &left).await?,
        };
        found.add(more);
    }
    if found.without_known(pages).is_empty() {
        found.problem = None;
    }
    Ok(found)
}

impl References {
    fn without_known(&self, pages: &Pages) -> Pages {
        let left = pages.iter().filter(|(id, _)| !self.known.contains_key(id));
        left.map(|(id, row)| (*id, *row)).collect()
    }

    fn add(&mut self, more: Self) {
        self.known.extend(more.known);
        self.problem = more.problem.or(self.problem.take());
    }

    /// Nothing is known, if the error lasts.
    fn unknown(error: ServerError) -> Result<Self, ServerError> {
        let is_lasting = unreadable(&error).is_some();
        if is_lasting { Ok(Self { problem: Some(error), ..Self::default() }) } else { Err(error) }
    }
}

/// Where references are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pages,
    Footer,
}

impl Way {
    /// The way that reads less, and the one for what it does not answer.
    fn both(pack: &PackRow, pages: &Pages) -> [Self; 2] {
        let rows: Vec<ChunkRow> = pages.values().copied().collect();
        let bytes = len_of(&few_reads(&rows));
        let footer = pack.len.saturating_sub(pack.blob_bytes);
        if bytes.saturating_mul(PART_OF_FOOTER) <= footer {
            [Self::Pages, Self::Footer]
        } else {
            [Self::Footer, Self::Pages]
        }
    }
}

/// The reads for blobs of one pack: not too many, unless what lies between the blobs would take too much memory.
fn few_reads(rows: &[ChunkRow]) -> Vec<Read> {
    let reads_with = |gap| -> Vec<Read> { plan(rows, gap).into_values().flatten().collect() };
    let (mut gap, mut reads) = (GAP, reads_with(GAP));
    while reads.len() > MOST_READS && gap < u64::MAX {
        gap = gap.saturating_mul(2);
        let fewer = reads_with(gap);
        if len_of(&fewer) > MOST_BYTES {
            break;
        }
        reads = fewer;
    }
    reads
}

async fn by_footer(store: &Arc<Store>, pack: &PackRow, pages: &Pages) -> Result<References, ServerError> {
    let Some(number) = pages.values().next().map(|row| row.pack) else { return Ok(References::default()) };
    let directory = match directory_of(store, number, pack).await {
        Ok(directory) => directory,
        Err(error) => return References::unknown(error),
    };
    let wanted = directory.entries.into_iter().filter(|entry| pages.contains_key(&entry.id));
    let known = wanted.map(|entry| (entry.id, entry.references)).collect();
    Ok(References { known, problem: None })
}

async fn by_pages(store: &Arc<Store>, pack: &PackRow, mut pages: Pages) -> Result<References, ServerError> {
    let Some(number) = pages.values().next().map(|row| row.pack) else { return Ok(References::default()) };
    let domain = store.domain(&pack.domain);
    let ids: Vec<(ChunkId, u32)> = pages.iter().map(|(id, row)| (*id, row.plain_len)).collect();
    let mut cut_off = None;
    let mut read = read_sealed(store, pack, &pages).await;
    if let Err(ServerError::Site(SiteError::OutOfRange { len, .. })) = read {
        pages.retain(|_, row| row.range().end <= len);
        cut_off = read.err();
        read = read_sealed(store, pack, &pages).await;
    }
    let found = match read {
        Ok(sealed) => {
            let domain = Arc::clone(&domain);
            store.compute(move |_| open_all(&domain, &pages, &sealed)).await?
        }
        Err(error @ ServerError::Site(SiteError::NotFound { .. })) => {
            let read: Result<(), _> = defects::heed(store, Object::Pack(number), Err(error)).await;
            return read.map_or_else(References::unknown, |()| Ok(References::default()));
        }
        Err(error) => References { problem: Some(error), ..References::default() },
    };
    let found = References { problem: found.problem.or(cut_off), ..found };
    match &found.problem {
        None => {}
        Some(problem) if problem.is_of_stored() => find_damage(store, &domain, ids).await?,
        Some(_) => return found.problem.map_or_else(|| Ok(References::default()), References::unknown),
    }
    match found.problem {
        Some(problem) if found.known.is_empty() => References::unknown(problem),
        _ => Ok(found),
    }
}

/// The blobs of pages, in the order of their ids.
async fn read_sealed(store: &Arc<Store>, pack: &PackRow, pages: &Pages) -> Result<Vec<Bytes>, ServerError> {
    let rows: Vec<ChunkRow> = pages.values().copied().collect();
    let mut sealed = vec![Bytes::new(); rows.len()];
    fetch(store, pack, &few_reads(&rows), &mut sealed).await?;
    Ok(sealed)
}

fn open_all(domain: &Domain, pages: &Pages, sealed: &[Bytes]) -> Result<References, ServerError> {
    let mut found = References::default();
    let mut decompressor = decompressor()?;
    for ((id, row), blob) in pages.iter().zip(sealed) {
        match open(domain, &mut decompressor, &row.info(*id), blob) {
            Ok(references) => {
                found.known.insert(*id, references);
            }
            Err(source) => found.problem = Some(ServerError::Damaged { object: id.to_string(), source }),
        }
    }
    Ok(found)
}

fn open(
    domain: &Domain,
    decompressor: &mut Decompressor,
    info: &BlobInfo,
    blob: &[u8],
) -> Result<Vec<ChunkId>, FormatError> {
    let payload = domain.sealer.open(info, blob)?;
    references_in(plain_of(domain, decompressor, info, &payload)?)
}

/// A decompressor for one blob after the other.
pub(super) fn decompressor() -> Result<Decompressor, ServerError> {
    Decompressor::new().map_err(|_| ServerError::Bug("no memory for a decompressor"))
}

/// The content of a payload, which is what its id says.
pub(super) fn plain_of<'a>(
    domain: &Domain,
    decompressor: &'a mut Decompressor,
    info: &BlobInfo,
    payload: &'a [u8],
) -> Result<&'a [u8], FormatError> {
    let plain = decompressor.decompress(info.compression, payload, info.plain_len)?;
    if domain.key.id_of(info.kind, plain) != info.id {
        return Err(FormatError::WrongChunk { expected: info.id });
    }
    Ok(plain)
}

/// The chunks that a page refers to, each once and in the order of their ids: what is counted for it.
pub(super) fn references_in(plain: &[u8]) -> Result<Vec<ChunkId>, FormatError> {
    let records = page::decode(plain)?;
    let mut references: Vec<ChunkId> = page::references(&records).collect();
    references.sort_unstable();
    references.dedup();
    Ok(references)
}

#[cfg(test)]
mod tests {
    use format_spec::blob::Compression;
    use format_spec::key::BlobKind;

    use super::*;
    use crate::rows::{Epoch, Health, PackNumber};

    /// Blobs of a kilobyte, each so far from the next.
    fn rows(count: u32, apart: u32) -> Vec<ChunkRow> {
        let row = |n| ChunkRow {
            pack: PackNumber(7),
            offset: 64 + n * apart,
            stored_len: 1024,
            plain_len: 2000,
            kind: BlobKind::Page,
            compression: Compression::Zstd,
            health: Health::Sound,
            references: 0,
            idle_since: Epoch(1),
        };
        (0..count).map(row).collect()
    }

    /// The number of ranges that a site is asked for is bounded, as far as the bytes between the blobs allow.
    #[test]
    fn blobs_far_apart_are_read_in_few_reads_and_little_memory() {
        for (count, apart, expected) in
            [(1, 0, 1), (32, 40 << 10, 32), (33, 40 << 10, 1), (16, 1 << 20, 16), (100, 1 << 20, 100)]
        {
            let rows = rows(count, apart);

            let reads = few_reads(&rows);

            assert_eq!(reads.len(), expected, "{count} blobs, {apart} apart");
            assert!(len_of(&reads) <= MOST_BYTES, "{count} blobs, {apart} apart");
            let of_reads: Vec<_> = reads.iter().flat_map(|read| &read.blobs).cloned().collect();
            assert_eq!(of_reads, rows.iter().map(ChunkRow::range).enumerate().collect::<Vec<_>>());
            let (first, last) = (reads.first().unwrap(), reads.last().unwrap());
            assert_eq!(
                (first.range.start, last.range.end),
                (rows[0].range().start, rows.last().unwrap().range().end)
            );
        }
    }
}
