//! Completes a commit that was interrupted between its snapshot object and its batch.
//!
//! The object has all data of the batch, and the doomed row of its name has the session of the commit. The
//! batch is made with the same checks at any later time, as long as the session has its row: no other commit
//! of it was acknowledged (S4), and it was not ended or adopted (L2, L4). A client that asks again gets this
//! snapshot.
//!
//! A batch that an index has lost after it was acknowledged looks just the same. That is what this is for: a damaged
//! end of a journal, or a drive that lost what it had promised to keep, takes no snapshot with it (S1).

use std::sync::Arc;

use format_spec::{FormatError, SessionId, SnapshotId};

use crate::error::{Chain, ServerError};
use crate::health::space;
use crate::index::IndexError;
use crate::pack;
use crate::rows::SessionRow;
use crate::server::Server;
use crate::session;
use crate::site::layout::snapshot_object;
use crate::snapshot::commit::{apply, check_owner, check_pages};
use crate::snapshot::{open_manifest, read};
use crate::store::wait;

const OVER: &str = "its session has ended";

/// Result of completing an interrupted commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Its snapshot is there.
    Done,
    /// It cannot be completed, for this reason; its objects stay doomed.
    Impossible(String),
}

/// Brings the commit of `session` to its end whose snapshot object is `id`'s. Nothing that is doomed is deleted
/// meanwhile, as the caller has the lease of upkeep.
///
/// # Errors
/// The site or the index could not be read or written: it may be done later.
pub(super) fn finish(
    server: &Arc<Server>,
    id: SnapshotId,
    session: SessionId,
) -> Result<Finish, ServerError> {
    let impossible = |why: &str| Ok(Finish::Impossible(why.to_owned()));
    let attempts = session::attempts(&server.sessions, session);
    let Ok(_attempt) = attempts.try_lock() else { return impossible("another attempt is under way") };
    let Some(granted) = session::granted(&server.sessions, session) else { return impossible(OVER) };
    match make(server, id, session, &granted) {
        Ok(()) => Ok(Finish::Done),
        Err(ServerError::Index(IndexError::Precondition { .. })) => impossible(OVER),
        // A commit that is over a limit cannot be completed: it must not keep others from being completed.
        Err(error @ (ServerError::Index(IndexError::TooLarge { .. }) | ServerError::BadRequest { .. })) => {
            impossible(&Chain(&error).to_string())
        }
        Err(ServerError::MissingChunks { missing }) => {
            impossible(&format!("{} of its pages are missing from the index", missing.len()))
        }
        Err(error) => pack::unreadable(&error).map(Finish::Impossible).ok_or(error),
    }
}

/// The batch, made from the objects.
fn make(
    server: &Arc<Server>,
    id: SnapshotId,
    session: SessionId,
    granted: &SessionRow,
) -> Result<(), ServerError> {
    let name = snapshot_object(&id);
    let snapshot = wait(read(&server.store, &name))?;
    let is_another = || ServerError::Damaged {
        object: name.to_string(),
        source: FormatError::Unauthentic { what: "snapshot" },
    };
    let ([of], true) = (snapshot.manifests.as_slice(), snapshot.id == id) else { return Err(is_another()) };
    let (_, manifest) = wait(open_manifest(&server.store, of.id))?;
    check_owner(&manifest, granted).map_err(|_| is_another())?;
    let pages = check_pages(&server.store, &server.store.domain(&granted.cluster), &manifest)?;
    // On a full disk as well: until it is done, nothing can be collected.
    space::with_ballast(&server.store, || {
        apply(&server.store, &server.sessions, session, granted, &snapshot, &pages)
    })
}

#[cfg(test)]
mod tests;
