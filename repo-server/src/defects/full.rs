//! Findings on a full disk.

use crate::error::ServerError;

/// A check continues on a full disk (P8): findings that cannot be recorded are in its report, and the next
/// check finds them again.
pub(crate) fn if_there_is_room<T: Default>(written: Result<T, ServerError>) -> Result<T, ServerError> {
    match written {
        Err(ServerError::Full { what }) => {
            tracing::warn!(what, "found damage could not be recorded");
            Ok(T::default())
        }
        written => written,
    }
}
