//! The caller of a request and its rights. Every handler takes a [`Principal`] and asks it for the [`Right`] it needs
//! before it does anything else, so roles are one match.

use axum::extract::FromRequestParts;
use hyper::http::request::Parts;

use super::respond::Failure;
use crate::error::ServerError;

/// The caller of a request, as its credential proves; nothing that a body says changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Principal {
    /// The holder of the token, with all rights.
    Administrator,
}

/// Permission for a kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Read figures and alarms.
    Monitor,
    /// List and describe snapshots.
    Inspect,
    /// Open a session, and use it or end it.
    Push,
    /// Read keys and content of snapshots.
    Restore,
    /// Run upkeep, and decide about snapshots and alarms.
    Operate,
    /// Requests that weaken a protection, or that know no cluster.
    Administer,
}

impl Principal {
    /// # Errors
    /// [`ServerError::NotFound`], once there are callers without all rights.
    pub(super) fn may(self, _right: Right) -> Result<(), ServerError> {
        match self {
            Self::Administrator => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let found = parts.extensions.get::<Self>().copied();
        found.ok_or_else(|| Failure::from(ServerError::Bug("a request reached a handler without a caller")))
    }
}
