//! The object of a snapshot, made again from its row.

use std::sync::Arc;

use format_spec::{FormatError, SnapshotId};

use super::commit::seal_snapshot;
use super::get;
use crate::defects::objects;
use crate::error::ServerError;
use crate::lease::{Kind, Upkeep};
use crate::server::Server;
use crate::site::layout::snapshot_object;
use crate::store::Store;

/// Work of [`write_anew`], for a caller that is refused meanwhile.
const REWRITE: Kind = Kind("the repair of a snapshot");

/// Rewrites the object of a snapshot that is lost or cannot be opened. When this returns, it is on the site,
/// was read back, and is no longer known to be damaged.
///
/// The old object is deleted first, as a name is never replaced. A crash in between leaves no object, but a
/// row with all of its content. The collector does not run meanwhile, so the snapshot is kept.
///
/// # Errors
/// [`ServerError::Busy`] beside the collector or an audit; nothing changed.
pub(crate) async fn write_anew(server: &Arc<Server>, id: SnapshotId) -> Result<(), ServerError> {
    let server = Arc::clone(server);
    // To its end even if the request is dropped: half of it leaves no object.
    let writes = tokio::spawn(async move { write_to_the_end(&server, id).await });
    writes.await.unwrap_or(Err(ServerError::Bug("rewriting a snapshot object panicked")))
}

async fn write_to_the_end(server: &Arc<Server>, id: SnapshotId) -> Result<(), ServerError> {
    let _lease = server.leases.try_acquire::<Upkeep>(REWRITE)?;
    let store = &server.store;
    let (site, name) = (&store.parts.site, snapshot_object(&id));
    let snapshot = store.blocking(move |store| get(store, id)).await?;
    let sealed = seal_snapshot(store, &snapshot);
    site.delete(&name).await.map_err(|error| store.site_error(error))?;
    store.put(&name, sealed.clone()).await?;
    let read = store.get(&name).await?;
    if read != sealed {
        let source = FormatError::Unauthentic { what: "snapshot" };
        return Err(ServerError::Damaged { object: format!("snapshot {id}"), source });
    }
    let sound = move |store: &Arc<Store>| objects::clear(store, objects::Object::Snapshot(id));
    store.blocking(sound).await?;
    tracing::info!(%id, "rewrote a snapshot object");
    Ok(())
}
