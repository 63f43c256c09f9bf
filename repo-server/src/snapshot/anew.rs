//! The object of a snapshot, made again from its row.

use format_spec::{FormatError, SnapshotId};

use super::commit::seal_snapshot;
use super::get;
use crate::defects::objects;
use crate::error::ServerError;
use crate::lease::{Kind, Upkeep};
use crate::server::Server;
use crate::site::layout::snapshot_object;
use crate::store::{Store, to_its_end, wait};

/// Work of [`write_anew`], for a caller that is refused meanwhile.
const REWRITE: Kind = Kind("the repair of a snapshot");

/// Rewrites the object of a snapshot that is lost or cannot be opened. When this returns, it is on the site,
/// was read back, and is no longer known to be damaged.
///
/// The old object is deleted first, as a name is never replaced. A crash in between leaves no object, but a
/// row with all of its content. The collector does not run meanwhile, so the snapshot is kept. Waits for the site.
///
/// # Errors
/// [`ServerError::Busy`] beside the collector or an audit; nothing changed.
pub(crate) fn write_anew(server: &Server, id: SnapshotId) -> Result<(), ServerError> {
    let _lease = server.leases.try_acquire::<Upkeep>(REWRITE)?;
    // Half of it leaves no object.
    to_its_end(|| replace(&server.store, id))
}

fn replace(store: &Store, id: SnapshotId) -> Result<(), ServerError> {
    let name = snapshot_object(&id);
    let sealed = seal_snapshot(store, &get(store, id)?);
    let read = wait(async {
        store.parts.site.delete(&name).await.map_err(|error| store.site_error(error))?;
        store.put(&name, sealed.clone()).await?;
        store.get(&name).await
    });
    if read? != sealed {
        let source = FormatError::Unauthentic { what: "snapshot" };
        return Err(ServerError::Damaged { object: format!("snapshot {id}"), source });
    }
    objects::clear(store, objects::Object::Snapshot(id))?;
    tracing::info!(%id, "rewrote a snapshot object");
    Ok(())
}
