//! The object of a snapshot, made again from its row.

use std::sync::Arc;

use format_spec::{FormatError, SnapshotId};

use super::commit::{put, seal_snapshot};
use super::{get, snapshot_object};
use crate::damaged;
use crate::error::ServerError;
use crate::repository::Repository;

/// Writes the object of a snapshot anew, for one that is lost or that nobody can open. When this returns, it is
/// on the site, was read back, and is no longer known to be damaged.
///
/// The old one goes first, as a name is never replaced. What a crash in between leaves is no object, and a row
/// that has all of it. The collector does not run meanwhile, so the snapshot stays.
///
/// # Errors
/// [`ServerError::Busy`] beside the collector or an audit; nothing changed.
pub(crate) async fn write_anew(repository: &Arc<Repository>, id: SnapshotId) -> Result<(), ServerError> {
    let repository = Arc::clone(repository);
    // To its end even if the request is dropped: half of it leaves no object.
    let writes = tokio::spawn(async move { write_to_the_end(&repository, id).await });
    writes.await.unwrap_or(Err(ServerError::Bug("rewriting a snapshot object panicked")))
}

async fn write_to_the_end(repository: &Arc<Repository>, id: SnapshotId) -> Result<(), ServerError> {
    let Ok(_turn) = repository.turn.try_lock() else {
        return Err(ServerError::Busy { why: "a run of gc or an audit is in progress".to_owned() });
    };
    let (site, name) = (&repository.parts.site, snapshot_object(&id));
    let snapshot = repository.blocking(move |repository| get(repository, id)).await?;
    let sealed = seal_snapshot(repository, &snapshot);
    site.delete(&name).await.map_err(|error| repository.site_error(error))?;
    put(repository, &name, sealed.clone()).await?;
    let read = site.get(&name).await.map_err(|error| repository.site_error(error))?;
    if read != sealed {
        let source = FormatError::Unauthentic { what: "snapshot" };
        return Err(ServerError::Damaged { object: format!("snapshot {id}"), source });
    }
    let sound = move |repository: &Arc<Repository>| damaged::clear(repository, damaged::Object::Snapshot(id));
    repository.blocking(sound).await?;
    tracing::info!(%id, "rewrote a snapshot object");
    Ok(())
}
