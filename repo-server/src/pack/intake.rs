//! Blobs from clients: nothing is stored under an id that was not computed from its content (P1).

use std::sync::Arc;

use format_spec::blob::Decompressor;
use format_spec::key::BlobKind;
use format_spec::wire::{BlobsStored, Frame, Held};
use format_spec::{ChunkId, FormatError, SessionId, page};

use super::send_off;
use crate::error::ServerError;
use crate::repository::{Appended, Domain, Repository};
use crate::session;

/// How many missing ids an error lists.
const LISTED: usize = 100;

enum Done {
    New,
    Known,
}

/// Whether each of `ids` is here: stored, or waiting in a pack that every commit waits for.
pub(crate) fn have(
    repository: &Repository,
    domain: &Domain,
    ids: &[ChunkId],
) -> Result<Vec<Held>, ServerError> {
    // Waiting first: ids only ever move from there to the index.
    let waiting = domain.waiting(ids);
    let rows = repository.chunk_rows_of(domain, ids)?;
    let held = |(waiting, row): (bool, Option<_>)| {
        if waiting || row.is_some() { Held::Here } else { Held::Missing }
    };
    Ok(waiting.into_iter().zip(rows).map(held).collect())
}

/// As [`have`], for a session that sends what it is told is missing and waits for what is coming: what is
/// missing is promised by it from now on, what others have promised is coming (L5).
///
/// # Errors
/// [`ServerError::SessionOver`] if the session ended meanwhile; then it has promised nothing.
pub(crate) fn have_or_promise(
    repository: &Repository,
    domain: &Domain,
    session: SessionId,
    ids: &[ChunkId],
) -> Result<Vec<Held>, ServerError> {
    // Promises first: ids only ever move from there to waiting, and on to the index.
    let promised = domain.promise(session, ids, repository.parts.clock.monotonic());
    // The end of a session releases its promises, but not those made after it.
    session::renew(repository, session).inspect_err(|_| domain.release(session))?;
    let held = have(repository, domain, ids)?;
    let here = ids.iter().zip(&held).filter(|(_, held)| **held == Held::Here);
    domain.arrived(here.map(|(id, _)| id));
    let told = |(held, promised)| if held == Held::Here { held } else { promised };
    Ok(held.into_iter().zip(promised).map(told).collect())
}

/// Checks, seals and appends a group of blobs; what fills a pack sends it off. Blobs before a bad one
/// may have been appended. Must be called within the runtime.
pub(crate) fn take_in(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    frames: &[Frame],
) -> Result<BlobsStored, ServerError> {
    let mut counts = BlobsStored::default();
    let mut decompressor =
        Decompressor::new().map_err(|_| ServerError::Bug("no memory for a decompressor"))?;
    let mut blob = Vec::new();
    let seen = domain.indexed();
    let rows = repository.chunk_rows(frames.iter().map(|frame| &frame.info.id))?;
    for (frame, row) in frames.iter().zip(rows) {
        let references = check(repository, domain, &mut decompressor, frame)?;
        if row.is_some() {
            counts.known += 1;
            continue;
        }
        blob.clear();
        domain.sealer.seal(&frame.info, &frame.payload, &mut blob);
        match append(repository, domain, frame, &blob, &references, seen)? {
            Done::Known => counts.known += 1,
            Done::New => {
                counts.stored += 1;
                counts.stored_bytes += u64::try_from(blob.len()).unwrap_or(u64::MAX);
            }
        }
    }
    Ok(counts)
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
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    frame: &Frame,
    blob: &[u8],
    references: &[ChunkId],
    mut seen: u64,
) -> Result<Done, ServerError> {
    loop {
        let (appended, filled) = domain.append(&frame.info, blob, references, seen);
        if let Some(pack) = filled {
            send_off(repository, domain, pack);
        }
        match appended {
            Appended::New => return Ok(Done::New),
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
