//! Findings on a full disk.

use crate::error::ServerError;

/// A check goes on on a full disk (P8): what it cannot write down is in its report, and found by the next one again.
pub(crate) fn if_there_is_room<T: Default>(written: Result<T, ServerError>) -> Result<T, ServerError> {
    match written {
        Err(ServerError::Full { what }) => {
            tracing::warn!(what, "found damage could not be recorded");
            Ok(T::default())
        }
        written => written,
    }
}
