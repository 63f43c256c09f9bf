//! A full pack's way: seal, publish on the site, one index batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::pack::{PackEntry, SealedPack};

use super::object_name;
use crate::error::{Chain, ServerError};
use crate::index::row::{ChunkRow, Epoch, Health, Live, PackNumber, PackRow};
use crate::index::{Batch, Precondition, Table};
use crate::owed;
use crate::repository::{Domain, FullPack, PublishFailure, Repository};

/// Sends a full pack off to the site, on a task of its own: the request that filled it may be cut off
/// at any moment, and the pack holds blobs of others. Must be called within the runtime.
pub(crate) fn send_off(repository: &Arc<Repository>, domain: &Arc<Domain>, pack: FullPack) {
    tokio::spawn(travel(Arc::clone(repository), Arc::clone(domain), pack));
}

async fn travel(repository: Arc<Repository>, domain: Arc<Domain>, pack: FullPack) {
    let permit = repository.publishing.acquire().await.expect("the semaphore is never closed");
    let ids: Vec<ChunkId> = pack.builder.entries().iter().map(|entry| entry.id).collect();
    let keys = repository.keys.clone();
    let sealed = tokio::task::spawn_blocking(move || pack.builder.seal(&keys)).await;
    let published = match sealed {
        Ok(sealed) => publish(&repository, sealed).await,
        Err(_) => Err(ServerError::Bug("sealing a pack panicked")),
    };
    domain.settle(ids.into_iter());
    let outcome = published.map_err(|error| {
        tracing::error!(error = %Chain(&error), domain = %domain.name, "a pack could not be stored");
        failure(&error)
    });
    drop(permit);
    pack.outcome.send_replace(Some(outcome));
}

fn failure(error: &ServerError) -> PublishFailure {
    match error {
        ServerError::Full { what } => PublishFailure::Full(what.clone()),
        ServerError::Halted => PublishFailure::Halted,
        other => PublishFailure::Failed(Chain(other).to_string()),
    }
}

async fn publish(repository: &Arc<Repository>, pack: SealedPack) -> Result<(), ServerError> {
    repository.check_running()?;
    let put = repository.parts.site.put_new(&object_name(&pack.id), pack.bytes.clone()).await;
    put.map_err(|error| repository.site_error(error))?;
    repository.blocking(move |repository| index_pack(repository, &pack)).await
}

/// Adds the rows of a pack that is on the site, and counts what its pages refer to.
fn index_pack(repository: &Repository, pack: &SealedPack) -> Result<(), ServerError> {
    repository.exclusively(|| {
        let mut totals = repository.totals()?;
        let number = PackNumber(totals.next_pack);
        let owed = owed_to_pages(repository, &pack.directory.entries)?;
        let mut live = Live::default();
        for entry in &pack.directory.entries {
            live.add(&new_row(entry, number));
        }
        let row = PackRow {
            id: pack.id,
            len: u64::try_from(pack.bytes.len()).unwrap_or(u64::MAX),
            kind: pack.directory.entries.first().map_or(BlobKind::Chunk, |entry| entry.kind),
            domain: pack.directory.domain.clone(),
            live,
            verified_ms: 0,
        };
        totals.next_pack += 1;
        totals.packs += 1;
        totals.chunks += u64::try_from(pack.directory.entries.len()).unwrap_or(u64::MAX);
        totals.stored_bytes += row.len;
        let mut batch = Batch::new();
        batch.require(Table::Pack, number.key(), Precondition::Absent);
        batch.put(Table::Pack, number.key(), row.encode());
        batch.put(Table::Meta, crate::index::row::Totals::KEY, totals.encode());
        for entry in &pack.directory.entries {
            batch.require(Table::Chunk, *entry.id.as_bytes(), Precondition::Absent);
            let references = owed.get(&entry.id).copied().unwrap_or(0);
            let row = ChunkRow { references, ..new_row(entry, number) };
            batch.put(Table::Chunk, *entry.id.as_bytes(), row.encode());
        }
        owed.keys().for_each(|page| owed::set(&mut batch, page, 0));
        count_references(repository, &pack.directory.entries, &mut batch)?;
        repository
            .watch
            .note(pack.directory.entries.iter().flat_map(|entry| entry.references.iter().chain([&entry.id])));
        repository.parts.index.commit(batch).map_err(|error| repository.index_error(error))
    })
}

/// What manifests have owed to pages that were lost and are here again.
fn owed_to_pages(
    repository: &Repository,
    entries: &[PackEntry],
) -> Result<BTreeMap<ChunkId, u64>, ServerError> {
    let pages = || entries.iter().filter(|entry| entry.kind == BlobKind::Page).map(|entry| &entry.id);
    let counts = owed::counts(repository, pages())?;
    Ok(pages().copied().zip(counts).filter(|(_, count)| *count > 0).collect())
}

fn new_row(entry: &PackEntry, pack: PackNumber) -> ChunkRow {
    ChunkRow {
        pack,
        offset: entry.offset,
        stored_len: entry.stored_len,
        plain_len: entry.plain_len,
        kind: entry.kind,
        compression: entry.compression,
        health: Health::Sound,
        references: 0,
        idle_since: Epoch::default(),
    }
}

/// X7: each new page counts once for each chunk it refers to, and all of them are there.
fn count_references(
    repository: &Repository,
    entries: &[PackEntry],
    batch: &mut Batch,
) -> Result<(), ServerError> {
    let mut counts: BTreeMap<ChunkId, u64> = BTreeMap::new();
    for id in entries.iter().flat_map(|entry| &entry.references) {
        *counts.entry(*id).or_default() += 1;
    }
    let rows = repository.chunk_rows(counts.keys())?;
    for ((id, count), row) in counts.iter().zip(rows) {
        let mut row = row.ok_or_else(|| ServerError::UnknownChunks { missing: vec![*id] })?;
        row.references += count;
        batch.put(Table::Chunk, *id.as_bytes(), row.encode());
    }
    Ok(())
}

/// Seals the open pack of `kind` and waits until every pack of that kind is stored and indexed.
///
/// # Errors
/// The first failure among them; the blobs of a failed pack are not stored.
pub(crate) async fn flush(
    repository: &Arc<Repository>,
    domain: &Arc<Domain>,
    kind: BlobKind,
) -> Result<(), ServerError> {
    let (open, on_their_way) = domain.drain(kind);
    if let Some(pack) = open {
        send_off(repository, domain, pack);
    }
    for mut pack in on_their_way {
        let outcome = pack.wait_for(Option::is_some).await;
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Err(PublishFailure::Halted))?;
    }
    Ok(())
}
