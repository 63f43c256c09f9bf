//! Request bodies: capped, and dropped when they stall.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use format_spec::{ChunkId, wire};
use futures_util::StreamExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use crate::error::ServerError;

/// A client that sends nothing for so long is gone, or holds a connection on purpose.
const STALLED: Duration = Duration::from_secs(60);

/// A body that is read piece by piece.
pub(super) struct Pieces {
    body: BodyDataStream,
    left: u64,
    limit_bytes: u64,
}

impl Pieces {
    /// The body of `request`, of at most `limit_bytes`. One whose declared length is over the limit is
    /// refused before any of it is read.
    pub(super) fn new(request: Request, limit_bytes: u64) -> Result<Self, ServerError> {
        let declared = request.body().size_hint().exact();
        if declared.is_some_and(|len| len > limit_bytes) {
            return Err(ServerError::TooLarge { limit_bytes });
        }
        Ok(Self { body: request.into_body().into_data_stream(), left: limit_bytes, limit_bytes })
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ServerError> {
        let broken = |why: String| ServerError::BadRequest { code: "body", why };
        let next = tokio::time::timeout(STALLED, self.body.next()).await;
        let next = next.map_err(|_| broken(format!("nothing came of the body for {STALLED:?}")))?;
        let Some(piece) = next.transpose().map_err(|error| broken(format!("the body broke off: {error}")))?
        else {
            return Ok(None);
        };
        let len = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let limit_bytes = self.limit_bytes;
        self.left = self.left.checked_sub(len).ok_or(ServerError::TooLarge { limit_bytes })?;
        Ok(Some(piece))
    }
}

/// A whole body of at most `limit_bytes`.
pub(super) async fn whole(request: Request, limit_bytes: u64) -> Result<Bytes, ServerError> {
    let mut pieces = Pieces::new(request, limit_bytes)?;
    let mut body = BytesMut::new();
    while let Some(piece) = pieces.next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The ids that a body asks about.
pub(super) async fn ids(request: Request) -> Result<Vec<ChunkId>, ServerError> {
    let limit = u64::try_from(wire::MAX_ID_LIST_LEN).expect("a length fits in 64 bits");
    wire::parse_ids(&whole(request, limit).await?).map_err(ServerError::Malformed)
}

/// The document in a JSON body.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ServerError> {
    let body = whole(request, wire::MAX_JSON_LEN).await?;
    serde_json::from_slice(&body).map_err(|error| ServerError::BadRequest {
        code: "bad_json",
        why: format!("the body is not usable: {error}"),
    })
}
