//! Blobs from clients: nothing is stored under an id that was not computed from its content (P1).

use std::sync::Arc;

use format_spec::blob::Decompressor;
use format_spec::key::BlobKind;
use format_spec::wire::Frame;
use format_spec::{ChunkId, FormatError, page};

use crate::error::ServerError;
use crate::repository::{Appended, Domain, FullPack, Repository, Taken};

/// How many missing ids an error lists.
const LISTED: usize = 100;

enum Done {
    New { stored_len: usize },
    Known,
}

/// Whether each of `ids` is stored, or waits in a pack that every commit waits for.
pub(crate) fn have(
    repository: &Repository,
    domain: &Domain,
    ids: &[ChunkId],
) -> Result<Vec<bool>, ServerError> {
    // Waiting first: ids only ever move from there to the index.
    let waiting = domain.waiting(ids);
    let rows = repository.chunk_rows_of(domain, ids)?;
    Ok(waiting.into_iter().zip(rows).map(|(waiting, row)| waiting || row.is_some()).collect())
}

/// Checks, seals and appends a group of blobs. Blobs before a bad one may have been appended.
pub(crate) fn take_in(
    repository: &Repository,
    domain: &Arc<Domain>,
    frames: &[Frame],
) -> Result<Taken, ServerError> {
    let mut taken = Taken::default();
    let mut decompressor =
        Decompressor::new().map_err(|_| ServerError::Bug("no memory for a decompressor"))?;
    let mut blob = Vec::new();
    let seen = domain.indexed();
    let rows = repository.chunk_rows(frames.iter().map(|frame| &frame.info.id))?;
    for (frame, row) in frames.iter().zip(rows) {
        let references = check(repository, domain, &mut decompressor, frame)?;
        let done = match row {
            Some(_) => Done::Known,
            None => append(repository, domain, frame, &references, seen, &mut blob, &mut taken.full)?,
        };
        match done {
            Done::Known => taken.counts.known += 1,
            Done::New { stored_len } => {
                taken.counts.stored += 1;
                taken.counts.stored_bytes += u64::try_from(stored_len).unwrap_or(u64::MAX);
            }
        }
    }
    Ok(taken)
}

/// Recomputes the id. For a page, returns the chunks it refers to, all of which the index has.
fn check(
    repository: &Repository,
    domain: &Domain,
    decompressor: &mut Decompressor,
    frame: &Frame,
) -> Result<Vec<ChunkId>, ServerError> {
    let info = &frame.info;
    let plain = decompressor
        .decompress(info.compression, &frame.payload, info.plain_len)
        .map_err(ServerError::Malformed)?;
    if domain.key.id_of(info.kind, plain) != info.id {
        return Err(ServerError::Malformed(FormatError::WrongChunk { expected: info.id }));
    }
    match info.kind {
        BlobKind::Chunk => Ok(Vec::new()),
        BlobKind::Page => page_references(repository, domain, plain),
    }
}

fn page_references(
    repository: &Repository,
    domain: &Domain,
    plain: &[u8],
) -> Result<Vec<ChunkId>, ServerError> {
    let records = page::decode(plain).map_err(ServerError::Malformed)?;
    let mut references: Vec<ChunkId> = page::references(&records).collect();
    references.sort_unstable();
    references.dedup();
    let rows = repository.chunk_rows_of(domain, &references)?;
    let is_chunk =
        |row: &Option<crate::index::row::ChunkRow>| row.is_some_and(|row| row.kind == BlobKind::Chunk);
    let missing = references.iter().zip(&rows).filter(|(_, row)| !is_chunk(row));
    let missing: Vec<ChunkId> = missing.map(|(id, _)| *id).take(LISTED).collect();
    if missing.is_empty() { Ok(references) } else { Err(ServerError::UnknownChunks { missing }) }
}

fn append(
    repository: &Repository,
    domain: &Domain,
    frame: &Frame,
    references: &[ChunkId],
    seen: u64,
    blob: &mut Vec<u8>,
    full: &mut Vec<FullPack>,
) -> Result<Done, ServerError> {
    blob.clear();
    let stored_len = domain.sealer.seal(&frame.info, &frame.payload, blob);
    let mut seen = seen;
    loop {
        let (appended, filled) = domain.append(&frame.info, blob, references, seen);
        full.extend(filled);
        match appended {
            Appended::New => return Ok(Done::New { stored_len }),
            Appended::Waiting => return Ok(Done::Known),
            Appended::LookAgain => {
                seen = domain.indexed();
                if let Some(Some(_)) = repository.chunk_rows([&frame.info.id])?.first() {
                    return Ok(Done::Known);
                }
            }
        }
    }
}
