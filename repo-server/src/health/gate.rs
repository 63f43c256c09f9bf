//! Operations that are blocked while an alarm reports that the index or the site is incomplete.

use super::alarm::{self, AlarmCode};
use crate::error::ServerError;
use crate::store::Store;

/// Way out of an index that is older than the site, for the operator.
pub(crate) const REBUILD: &str = "stop the server, move `index` out of its data folder, and run `astacus-server rebuild` (docs/operations.md, `index_behind`)";

/// Refuses to forget and to collect while the index is known to be behind, or the site to be incomplete. Blocks.
///
/// # Errors
/// [`ServerError::Refused`] with the code of the alarm.
pub(crate) fn check(store: &Store) -> Result<(), ServerError> {
    if alarm::is_up(store, AlarmCode::IndexBehind)? {
        let why = format!("the index is older than the site, so deletions are blocked: {REBUILD}");
        return Err(ServerError::Refused { code: AlarmCode::IndexBehind.name(), why });
    }
    match alarm::message(store, AlarmCode::SiteIncomplete)? {
        None => Ok(()),
        Some(why) => Err(ServerError::Refused { code: AlarmCode::SiteIncomplete.name(), why }),
    }
}

/// Refuses pushes while the index is known to be behind, as it may say "here" of what was deleted since, and while the
/// site is known to be incomplete. Blocks.
///
/// # Errors
/// [`ServerError::Rests`] with the code of the alarm.
pub(crate) fn check_push(store: &Store) -> Result<(), ServerError> {
    let rests = |alarm: AlarmCode, why: String| {
        let code = alarm.name();
        Err(ServerError::Rests { code, why: format!("alarm `{code}`: {why}") })
    };
    if alarm::is_up(store, AlarmCode::IndexBehind)? {
        let why = format!("the index is older than the site, so pushes are blocked: {REBUILD}");
        return rests(AlarmCode::IndexBehind, why);
    }
    match alarm::message(store, AlarmCode::SiteIncomplete)? {
        None => Ok(()),
        Some(why) => rests(AlarmCode::SiteIncomplete, why),
    }
}
