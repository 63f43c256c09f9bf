//! Blobs from clients: nothing is stored under an id that was not computed from its content (P1).

use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::blob::Decompressor;
use format_spec::key::BlobKind;
use format_spec::wire::{BlobsStored, Frame, Held};

use super::flush::send_off;
use super::open::{Appended, OpenDomain};
use super::references::{decompressor, plain_of, references_in};
use crate::error::ServerError;
use crate::rows::{ChunkRow, Epoch, Health};
use crate::rules::Rule;

/// How many missing ids an error lists.
const LISTED: usize = 100;

enum Done {
    New,
    Known,
}

/// Answers for each of `ids` if it is stored, or waits in a pack that every commit waits for. A chunk that is
/// answered with "here" is kept while the session is open that began at `start` (G3).
pub(crate) fn have(domain: &OpenDomain, start: Epoch, ids: &[ChunkId]) -> Result<Vec<Held>, ServerError> {
    // Waiting first: ids only ever move from there to the index.
    let waiting = domain.waiting_chunks(ids);
    let here = pinned(domain, start, ids)?;
    let held = |(waiting, here)| if waiting || here { Held::Here } else { Held::Missing };
    Ok(waiting.into_iter().zip(here).map(held).collect())
}

/// Which of `ids` have a sound row of the domain that is kept while the session is open that began at
/// `start`: it is counted, or idle since then at the earliest, or its idle epoch is reset now.
fn pinned(domain: &OpenDomain, start: Epoch, ids: &[ChunkId]) -> Result<Vec<bool>, ServerError> {
    let rows = domain.store().chunk_rows_of(&domain.keys, ids)?;
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
    if old.is_empty() || !domain.store().rules.keep(Rule::HereRevives) {
        return Ok(here);
    }
    let old_ids: Vec<ChunkId> = old.iter().map(|(_, id)| *id).collect();
    let revived = domain.store().account(|ledger| ledger.revive(&old_ids, start))?;
    for ((at, _), still) in old.into_iter().zip(revived) {
        if let Some(here) = here.get_mut(at) {
            *here = still;
        }
    }
    Ok(here)
}

/// Checks, seals and appends a group of blobs; what fills a pack sends it off. Blobs before a bad one
/// may have been appended. Must be called within the runtime.
pub(crate) fn take_in(
    domain: &Arc<OpenDomain>,
    start: Epoch,
    frames: &[Frame],
) -> Result<BlobsStored, ServerError> {
    let mut counts = BlobsStored::default();
    let mut decompressor = decompressor()?;
    let mut blob = Vec::new();
    let seen = domain.indexed();
    let ids: Vec<ChunkId> = frames.iter().map(|frame| frame.info.id).collect();
    let here = pinned(domain, start, &ids)?;
    let waiting = domain.waiting_chunks(&ids);
    for ((frame, here), waiting) in frames.iter().zip(here).zip(waiting) {
        // A chunk that is here is not stored again, whatever its bytes: they need not be inflated and hashed.
        if frame.info.kind == BlobKind::Chunk && (here || waiting || domain.waits(&frame.info.id)) {
            counts.known += 1;
            continue;
        }
        let references = check(domain, start, &mut decompressor, frame)?;
        if here {
            counts.known += 1;
            continue;
        }
        blob.clear();
        domain.keys.sealer.seal(&frame.info, &frame.payload, &mut blob);
        match append(domain, start, (frame, &blob, &references), seen)? {
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
    domain: &OpenDomain,
    start: Epoch,
    decompressor: &mut Decompressor,
    frame: &Frame,
) -> Result<Vec<ChunkId>, ServerError> {
    let info = &frame.info;
    let plain = plain_of(&domain.keys, decompressor, info, &frame.payload).map_err(ServerError::Malformed)?;
    match info.kind {
        BlobKind::Chunk => Ok(Vec::new()),
        BlobKind::Page => page_references(domain, start, plain),
    }
}

fn page_references(domain: &OpenDomain, start: Epoch, plain: &[u8]) -> Result<Vec<ChunkId>, ServerError> {
    let references = references_in(plain).map_err(ServerError::Malformed)?;
    // Ids of pages are made with another key, so what has this id is a chunk.
    let here = pinned(domain, start, &references)?;
    let missing = references.iter().zip(here).filter(|(_, here)| !here);
    let missing: Vec<ChunkId> = missing.map(|(id, _)| *id).take(LISTED).collect();
    if missing.is_empty() || !domain.store().rules.keep(Rule::PageFindsItsChunks) {
        return Ok(references);
    }
    Err(ServerError::UnknownChunks { missing })
}

fn append(
    domain: &Arc<OpenDomain>,
    start: Epoch,
    (frame, blob, references): (&Frame, &[u8], &[ChunkId]),
    mut seen: u64,
) -> Result<Done, ServerError> {
    loop {
        let (appended, filled) = domain.append(&frame.info, blob, references, seen);
        if let Some(pack) = filled {
            send_off(domain, pack);
        }
        match appended {
            Appended::New => return Ok(Done::New),
            Appended::Waiting => return Ok(Done::Known),
            Appended::LookAgain => {
                seen = domain.indexed();
                if pinned(domain, start, &[frame.info.id])?.contains(&true) {
                    return Ok(Done::Known);
                }
            }
        }
    }
}
