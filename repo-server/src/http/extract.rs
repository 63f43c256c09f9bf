//! Paths and queries of requests. Invalid ones are reported like all other errors, not in the words of a
//! library.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path as AnyPath, Query as AnyQuery};
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;

use super::respond::Failure;
use crate::error::ServerError;

/// The parameters of a query.
pub(super) struct Query<T>(pub(super) T);

/// The parts of a path that a route names.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read = AnyQuery::from_request_parts(parts, state).await;
        let AnyQuery(found) =
            read.map_err(|rejection: QueryRejection| bad("bad_query", &rejection.body_text()))?;
        Ok(Self(found))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read = AnyPath::from_request_parts(parts, state).await;
        let AnyPath(found) =
            read.map_err(|rejection: PathRejection| bad("bad_id", &rejection.body_text()))?;
        Ok(Self(found))
    }
}

fn bad(code: &'static str, why: &str) -> Failure {
    Failure::from(ServerError::BadRequest { code, why: why.to_owned() })
}
