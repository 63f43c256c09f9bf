//! Blobs from clients: nothing is stored under an id that was not computed from its content (P1).

use std::sync::Arc;

use format_spec::blob::Decompressor;
use format_spec::key::BlobKind;
use format_spec::wire::{BlobsStored, Frame, Held};
use format_spec::{ChunkId, SessionId};

use super::references::{decompressor, plain_of, references_in};
use super::send_off;
use crate::error::ServerError;
use crate::index::row::{ChunkRow, Epoch, Health};
use crate::pack::{Appended, Domain};
use crate::rules::Rule;
use crate::session;
use crate::store::Repository;

/// How many missing ids an error lists.
const LISTED: usize = 100;

enum Done {
    New,
    Known,
}

/// Whether each of `ids` is here: stored, or waiting in a pack that every commit waits for. What is here
/// stays while the session is open that began at `start` (G3).
pub(crate) fn have(
    repository: &Repository,
    domain: &Domain,
    start: Epoch,
    ids: &[ChunkId],
) -> Result<Vec<Held>, ServerError> {
    // Waiting first: ids only ever move from there to the index.
    let waiting = domain.waiting_chunks(ids);
    let here = pinned(repository, domain, start, ids)?;
    let held = |(waiting, here)| if waiting || here { Held::Here } else { Held::Missing };
    Ok(waiting.into_iter().zip(here).map(held).collect())
}

/// Which of `ids` have a sound row of the domain, which stays while the session is open that began at
/// `start`: it is counted, or idle since then at the earliest, or is made so now.
fn pinned(
    repository: &Repository,
    domain: &Domain,
    start: Epoch,
    ids: &[ChunkId],
) -> Result<Vec<bool>, ServerError> {
    let rows = repository.chunk_rows_of(domain, ids)?;
    let mut here: Vec<bool> =
        rows.iter().map(|row| row.is_some_and(|row| row.health == Health::Sound)).collect();
    let is_old = |row: &ChunkRow| row.is_idle() && row.idle_since < start && row.health == Health::Sound;
    let old: Vec<(usize, ChunkId)> = rows
        .iter()
        .zip(ids)
        .enumerate()
        .filter(|(_, (row, _))| row.as_ref().is_some_and(is_old))
        .map(|(at, (_, id))| (at, *id))
        .collect();
    if old.is_empty() || !repository.rules.keep(Rule::HereRevives) {
        return Ok(here);
    }
    let old_ids: Vec<ChunkId> = old.iter().map(|(_, id)| *id).collect();
    let revived = repository.account(|ledger| ledger.revive(&old_ids, start))?;
    for ((at, _), still) in old.into_iter().zip(revived) {
        if let Some(here) = here.get_mut(at) {
            *here = still;
        }
    }
    Ok(here)
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
    let granted = session::renew(repository, session).inspect_err(|_| domain.release(session))?;
    let held = have(repository, domain, granted.start, ids)?;
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
    start: Epoch,
    frames: &[Frame],
) -> Result<BlobsStored, ServerError> {
    let mut counts = BlobsStored::default();
    let mut decompressor = decompressor()?;
    let mut blob = Vec::new();
    let seen = domain.indexed();
    let ids: Vec<ChunkId> = frames.iter().map(|frame| frame.info.id).collect();
    let here = pinned(repository, domain, start, &ids)?;
    let waiting = domain.waiting_chunks(&ids);
    for ((frame, here), waiting) in frames.iter().zip(here).zip(waiting) {
        // A chunk that is here is not stored again, whatever its bytes: they need not be inflated and hashed.
        if frame.info.kind == BlobKind::Chunk && (here || waiting || domain.waits(&frame.info.id)) {
            counts.known += 1;
            continue;
        }
        let references = check(repository, domain, start, &mut decompressor, frame)?;
        if here {
            counts.known += 1;
            continue;
        }
        blob.clear();
        domain.sealer.seal(&frame.info, &frame.payload, &mut blob);
        match append(repository, domain, start, (frame, &blob, &references), seen)? {
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
    start: Epoch,
    decompressor: &mut Decompressor,
    frame: &Frame,
) -> Result<Vec<ChunkId>, ServerError> {
    let info = &frame.info;
    let plain = plain_of(domain, decompressor, info, &frame.payload).map_err(ServerError::Malformed)?;
    match info.kind {
        BlobKind::Chunk => Ok(Vec::new()),
        BlobKind::Page => page_references(repository, domain, start, plain),
    }
}

fn page_references(
    repository: &Repository,
    domain: &Domain,
    start: Epoch,
    plain: &[u8],
) -> Result<Vec<ChunkId>, ServerError> {
    let references = references_in(plain).map_err(ServerError::Malformed)?;
    // Ids of pages are made with another key, so what has this id is a chunk.
    let here = pinned(repository, domain, start, &references)?;
    let missing = references.iter().zip(here).filter(|(_, here)| !here);
    let missing: Vec<ChunkId> = missing.map(|(id, _)| *id).take(LISTED).collect();
    if missing.is_empty() || !repository.rules.keep(Rule::PageFindsItsChunks) {
        return Ok(references);
    }
    Err(ServerError::UnknownChunks { missing })
}

fn append(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    start: Epoch,
    (frame, blob, references): (&Frame, &[u8], &[ChunkId]),
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
                if pinned(repository, domain, start, &[frame.info.id])?.contains(&true) {
                    return Ok(Done::Known);
                }
            }
        }
    }
}
