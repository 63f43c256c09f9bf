//! Request bodies: capped, and dropped when they stall.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use format_spec::{ChunkId, wire};
use futures_util::StreamExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::ServerError;
use crate::store::{Budget, Reserved};

/// Time after which a client that sends nothing counts as gone.
const STALLED: Duration = Duration::from_secs(60);

/// Slowest body: after the first minute, a client that sends less on average is dropped.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 10;

/// Bytes of a body that need no reservation: all bodies together use at most this times the connections.
pub(super) const UNCOUNTED: u64 = 64 << 10;

/// A body that is read piece by piece.
pub(super) struct Pieces {
    body: BodyDataStream,
    left: u64,
    limit_bytes: u64,
    declared: Option<u64>,
    began: Instant,
}

impl Pieces {
    /// The body of `request`, of at most `limit_bytes`. One whose declared length is over the limit is
    /// refused before any of it is read.
    pub(super) fn new(request: Request, limit_bytes: u64) -> Result<Self, ServerError> {
        let declared = request.body().size_hint().exact();
        if declared.is_some_and(|len| len > limit_bytes) {
            return Err(ServerError::TooLarge { limit_bytes });
        }
        let body = request.into_body().into_data_stream();
        Ok(Self { body, left: limit_bytes, limit_bytes, declared, began: Instant::now() })
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ServerError> {
        let broken = |why: String| ServerError::BadRequest { code: "body", why };
        let slow = STALLED + Duration::from_secs(self.read_bytes() / SLOWEST_BYTES_PER_SECOND);
        let by = (Instant::now() + STALLED).min(self.began + slow);
        let next = tokio::time::timeout_at(by, self.body.next()).await;
        let next = next.map_err(|_| broken("the body was sent too slowly or stopped".to_owned()))?;
        let Some(piece) =
            next.transpose().map_err(|error| broken(format!("the body was cut short: {error}")))?
        else {
            return Ok(None);
        };
        let len = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let limit_bytes = self.limit_bytes;
        self.left = self.left.checked_sub(len).ok_or(ServerError::TooLarge { limit_bytes })?;
        Ok(Some(piece))
    }

    /// Bytes that came so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.limit_bytes - self.left
    }
}

/// Memory that a body takes as it is read, in bytes for each of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cost {
    /// The body itself.
    Once,
    /// The body, and the manifest that is decoded from it.
    Decoded,
}

impl Cost {
    fn of(self, bytes: u64) -> u64 {
        match self {
            Self::Once => bytes,
            Self::Decoded => bytes.saturating_mul(4),
        }
    }
}

/// A whole body, and the memory that it takes.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    /// None of a short body.
    pub(super) reserved: Option<Reserved>,
}

/// A whole body of at most `limit_bytes`. Memory for it is taken from `budget` once more than 64 KiB have come.
pub(super) async fn whole(
    request: Request,
    limit_bytes: u64,
    budget: &Budget,
    cost: Cost,
) -> Result<Whole, ServerError> {
    let mut pieces = Pieces::new(request, limit_bytes)?;
    let len = pieces.declared.unwrap_or(limit_bytes);
    let (mut body, mut reserved) = (BytesMut::new(), None);
    while let Some(piece) = pieces.next().await? {
        if reserved.is_none() && pieces.read_bytes() > UNCOUNTED {
            reserved = Some(budget.reserve(cost.of(len)).await?);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: body.freeze(), reserved })
}

/// The ids that a body asks about.
pub(super) async fn ids(request: Request, budget: &Budget) -> Result<Vec<ChunkId>, ServerError> {
    let limit = u64::try_from(wire::MAX_ID_LIST_LEN).expect("a length fits in 64 bits");
    wire::parse_ids(&whole(request, limit, budget, Cost::Once).await?.bytes).map_err(ServerError::Malformed)
}

/// The document in a JSON body.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ServerError> {
    // It is so short that it takes nothing of a budget.
    let mut pieces = Pieces::new(request, wire::MAX_JSON_LEN)?;
    let mut body = BytesMut::new();
    while let Some(piece) = pieces.next().await? {
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|error| ServerError::BadRequest {
        code: "bad_json",
        why: format!("the body is invalid: {error}"),
    })
}
