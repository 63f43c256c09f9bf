//! Full packs leave their domain, and the requests that wait for them learn the outcome.

use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::key::BlobKind;

use super::open::{FullPack, OpenDomain, PublishFailure};
use crate::error::{Chain, ServerError};

/// Sends a full pack off to the site, on a task of its own: the request that filled it may be cut off
/// at any moment, and the pack holds blobs of others. Must be called within the runtime.
pub(super) fn send_off(domain: &Arc<OpenDomain>, pack: FullPack) {
    tokio::spawn(travel(Arc::clone(domain), pack));
}

async fn travel(domain: Arc<OpenDomain>, pack: FullPack) {
    let FullPack { builder, outcome } = pack;
    let ids: Vec<ChunkId> = builder.entries().iter().map(|entry| entry.id).collect();
    let published = domain.outbox.travel(builder).await;
    domain.settle(ids.into_iter());
    let published = published.map_err(|error| {
        tracing::error!(error = %Chain(&error), domain = %domain.keys.name, "a pack could not be stored");
        failure(&error)
    });
    outcome.send_replace(Some(published));
}

fn failure(error: &ServerError) -> PublishFailure {
    match error {
        ServerError::Full { what } => PublishFailure::Full(what.clone()),
        ServerError::Halted => PublishFailure::Halted,
        other => PublishFailure::Failed(Chain(other).to_string()),
    }
}

/// Seals the open pack of `kind` and waits until every pack of that kind is stored and indexed.
///
/// # Errors
/// The first failure among them; the blobs of a failed pack are not stored.
pub(crate) async fn flush(domain: &Arc<OpenDomain>, kind: BlobKind) -> Result<(), ServerError> {
    let (open, on_their_way) = domain.drain(kind);
    if let Some(pack) = open {
        send_off(domain, pack);
    }
    for mut pack in on_their_way {
        let outcome = pack.wait_for(Option::is_some).await;
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Err(PublishFailure::Halted))?;
    }
    Ok(())
}
