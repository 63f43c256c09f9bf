//! A full pack's way: seal, publish on the site, one index batch.

use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::pack::SealedPack;

use super::object_name;
use crate::catalog::Flight;
use crate::catalog::ledger::NewPack;
use crate::error::{Chain, ServerError};
use crate::index::row::{DoomedKey, DoomedKind};
use crate::pack::{Domain, FullPack, PublishFailure};
use crate::store::Repository;

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
    let (flight, pack) = put(repository, pack).await?;
    let index = move |repository: &Arc<Repository>| {
        repository.account(|ledger| {
            flight.land(ledger.batch());
            ledger.add_pack(&new_pack(&pack))
        })
    };
    repository.blocking(index).await
}

/// Puts a sealed pack on the site. It counts only once a batch has let its flight land.
pub(crate) async fn put(
    repository: &Arc<Repository>,
    pack: SealedPack,
) -> Result<(Flight, SealedPack), ServerError> {
    repository.check_running()?;
    let name = object_name(&pack.id);
    let key = DoomedKey { kind: DoomedKind::Pack, name: name.clone() };
    let flight = repository.blocking(move |repository| Flight::announce(repository, vec![key])).await?;
    let put = repository.parts.site.put_new(&name, pack.bytes.clone()).await;
    put.map_err(|error| repository.site_error(error))?;
    Ok((flight, pack))
}

pub(crate) fn new_pack(pack: &SealedPack) -> NewPack<'_> {
    let len = u64::try_from(pack.bytes.len()).unwrap_or(u64::MAX);
    NewPack { id: pack.id, len, directory: &pack.directory }
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
