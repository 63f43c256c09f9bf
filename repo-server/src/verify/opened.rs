//! The objects of a snapshot: do they open, and are they as the index says?

use format_spec::SnapshotId;
use format_spec::manifest::Manifest;
use format_spec::object::{self, ObjectKind};
use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::wire::FindingKind;

use super::Check;
use super::findings::Problem;
use crate::defects;
use crate::error::{Chain, ServerError};
use crate::site::SiteError;
use crate::site::layout::snapshot_object;
use crate::snapshot::{self, open_manifest};
use crate::store::wait;

/// Problem of an object that somebody has put there: the object or the row may be right.
const ANOTHER_SNAPSHOT: &str = "the site has another snapshot under this name";

/// Result of reading an object of a snapshot.
pub(super) enum Object<T> {
    Good(T),
    Bad(Problem),
}

impl Check {
    /// The object from which the snapshot's row can be made again.
    pub(super) fn snapshot_object(&self, snapshot: &Snapshot) -> Result<Object<()>, ServerError> {
        let name = format!("snapshot {}", snapshot.id);
        let object = snapshot_object(&snapshot.id);
        let site = &self.store.parts.site;
        let read = async || site.get(&object).await.map_err(ServerError::Site);
        let bytes = match wait(defects::twice(read)) {
            Ok(bytes) => bytes,
            Err(ServerError::Site(error)) => return self.bad_object(name, error).map(Object::Bad),
            Err(error) => return Err(error),
        };
        let opened = object::open(ObjectKind::Snapshot, &self.store.keys, self.store.id(), &bytes);
        let corrupt = |what: String| Ok(Object::Bad(Problem::new(FindingKind::Corrupt, &name, what)));
        match opened.and_then(|payload| Snapshot::decode(&payload)).map(|found| found == *snapshot) {
            Ok(true) => Ok(Object::Good(())),
            Ok(false) => corrupt(ANOTHER_SNAPSHOT.to_owned()),
            Err(error) => corrupt(error.to_string()),
        }
    }

    /// Writes the object of a snapshot anew, if it is lost or nobody can open it: the row has all that is in it.
    /// Answers what is to be told.
    pub(super) fn mend(&self, id: SnapshotId, problem: Problem) -> Result<Problem, ServerError> {
        if problem.kind == FindingKind::Unreadable || problem.what == ANOTHER_SNAPSHOT {
            return Ok(problem);
        }
        let more = match snapshot::write_anew(&self.server, id) {
            Ok(()) => "; it was rewritten from the index".to_owned(),
            Err(
                error @ (ServerError::Halted
                | ServerError::CallerLeft
                | ServerError::Index(_)
                | ServerError::Bug(_)),
            ) => {
                return Err(error);
            }
            Err(error) => format!("; it could not be rewritten: {}", Chain(&error)),
        };
        Ok(Problem { what: problem.what + &more, ..problem })
    }

    pub(super) fn open(&self, of: &ManifestRef) -> Result<Object<Manifest>, ServerError> {
        match wait(open_manifest(&self.store, of.id)) {
            Ok((_, manifest)) => Ok(Object::Good(manifest)),
            Err(ServerError::Damaged { source, .. }) => {
                Ok(Object::Bad(Problem::new(FindingKind::Corrupt, of.id, source)))
            }
            Err(ServerError::Lost { why, .. }) => {
                Ok(Object::Bad(Problem::new(FindingKind::Corrupt, of.id, why)))
            }
            Err(ServerError::Site(error)) => self.bad_object(of.id, error).map(Object::Bad),
            Err(error) => Err(error),
        }
    }

    /// Problem of an object or a blob, from the site's answer.
    pub(super) fn bad_object(&self, object: impl ToString, error: SiteError) -> Result<Problem, ServerError> {
        if error.is_fatal() {
            return Err(self.store.site_error(error));
        }
        let kind = match &error {
            SiteError::NotFound { .. } => FindingKind::Missing,
            error if error.is_of_object() => FindingKind::Corrupt,
            _ => FindingKind::Unreadable,
        };
        let error = ServerError::Site(error);
        Ok(match wait(async { Ok(defects::prove(&self.store, None, &error).await) })? {
            Some(why) => Problem::new(kind, object, why),
            None => Problem::new(FindingKind::Unreadable, object, Chain(&error)),
        })
    }
}
