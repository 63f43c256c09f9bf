//! Snapshots: list, show, manifests, and the blobs that a restore needs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use format_spec::wire::{self, FrameHeader};
use format_spec::{ClusterName, NodeName, SnapshotId};
use futures_util::stream;
use serde::Deserialize;

use super::extract::{Path, Query};
use super::respond::{self, Answer, Reply};
use super::{App, body, octets, parse, sight};
use crate::access::Principal;
use crate::defects::objects;
use crate::error::ServerError;
use crate::pack::{self, Blob};
use crate::server::Server;
use crate::snapshot::{self, Cursor, ListPlace, PartLimit};

/// Fields as texts, so that an invalid one is reported like all other errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListPart {
    cluster: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

/// The next of the snapshots.
pub(super) async fn list(
    State(app): State<App>,
    caller: Principal,
    Query(asked): Query<ListPart>,
) -> Answer<wire::SnapshotList> {
    let cluster: Option<ClusterName> = asked.cluster.as_deref().map(parse).transpose()?;
    let after =
        asked.after.as_deref().map(|after| after.parse::<ListPlace>().map_err(bad_query)).transpose()?;
    let limit = PartLimit {
        snapshots: limit(asked.limit.as_deref(), wire::MAX_SNAPSHOTS)?,
        len: wire::MAX_SNAPSHOTS_LEN,
    };
    let _reserved = app.server.memory.answers.reserve(wire::MAX_READ_LEN).await?;
    let part = move |server: &Arc<Server>| {
        let (part, told) = (|found| caller.part_of(found), |info| sight::told(&caller, info));
        snapshot::part(&server.store, cluster.as_ref(), after, limit, part, told)
    };
    respond::json(app.server.blocking(part).await?)
}

fn bad_query(why: &str) -> ServerError {
    ServerError::BadRequest { code: "bad_query", why: why.to_owned() }
}

/// How many of something one answer may hold: what was asked for, from 1 to `most`.
fn limit(asked: Option<&str>, most: u32) -> Result<usize, ServerError> {
    let asked = asked.map(|limit| limit.parse::<u32>().map_err(|_| bad_query("`limit` is not a number")));
    Ok(usize::try_from(asked.transpose()?.unwrap_or(most).clamp(1, most)).unwrap_or(1))
}

pub(super) async fn show(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
) -> Answer<wire::SnapshotInfo> {
    let id: SnapshotId = parse(&id)?;
    let look = move |server: &Arc<Server>| {
        let (found, mark) =
            (sight::snapshot(&server.store, &caller, id)?, snapshot::mark(&server.store, id)?);
        let now_ms = server.store.parts.clock.unix_ms();
        let info = snapshot::info(&found, &mark, &objects::all(&server.store)?, now_ms);
        Ok(sight::told(&caller, info))
    };
    respond::json(app.server.blocking(look).await?)
}

pub(super) async fn key(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
) -> Answer<wire::SnapshotKey> {
    let id: SnapshotId = parse(&id)?;
    let found = app.server.blocking(move |server| sight::snapshot(&server.store, &caller, id)).await?;
    respond::json(wire::SnapshotKey { domain_key: app.server.store.domain(&found.cluster).key.to_hex() })
}

pub(super) async fn manifest(
    State(app): State<App>,
    caller: Principal,
    Path((id, node)): Path<(String, String)>,
) -> Reply {
    let (id, node): (SnapshotId, NodeName) = (parse(&id)?, parse(&node)?);
    let asked = node.clone();
    app.server.blocking(move |server| sight::check_node(&server.store, &caller, id, &asked)).await?;
    Ok(octets(snapshot::manifest(&app.server.store, id, &node).await?))
}

/// Fields as texts, so that an invalid one is reported like all other errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    node: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

/// The next of a node's files that are not as they should be.
pub(super) async fn problems(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Answer<wire::FileProblems> {
    let id: SnapshotId = parse(&id)?;
    let node = part.node.as_deref().ok_or_else(|| bad_query("`node` is missing"))?;
    let node: NodeName = parse(node)?;
    let from = part.after.as_deref().map(|after| after.parse::<Cursor>().map_err(bad_query)).transpose()?;
    let limit = limit(part.limit.as_deref(), wire::MAX_FILE_PROBLEMS)?;
    let asked = node.clone();
    app.server.blocking(move |server| sight::check_node(&server.store, &caller, id, &asked)).await?;
    let _reserved = app.server.memory.answers.reserve(wire::MAX_READ_LEN).await?;
    respond::json(snapshot::problems(&app.server.store, id, &node, from.unwrap_or_default(), limit).await?)
}

/// Blobs of the snapshot's dedup domain, in the order asked for. A node gets only pages of its own.
pub(super) async fn blobs(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    request: Request,
) -> Reply {
    let id: SnapshotId = parse(&id)?;
    let asker = caller.clone();
    let found = app.server.blocking(move |server| sight::snapshot(&server.store, &asker, id)).await?;
    let ids = body::ids(request, &app.server.memory.bodies).await?;
    app.grants.check(&app.server, &caller, &found, &ids).await?;
    let domain = app.server.store.domain(&found.cluster);
    let (blobs, reserved) =
        pack::read_for_answer(&app.server.store, &app.server.memory.answers, &domain, ids).await?;
    Ok(frames(blobs, reserved))
}

/// An answer of frames. `held` is released when the last of them has been sent.
fn frames(blobs: Vec<Blob>, held: impl Send + 'static) -> axum::response::Response {
    let count = u32::try_from(blobs.len()).expect("a request names few blobs");
    let mut pieces = Vec::with_capacity(blobs.len() * 2 + 1);
    for blob in blobs {
        let payload_len = u32::try_from(blob.payload.len()).expect("a payload is at most its plaintext");
        let header = FrameHeader { info: blob.info, payload_len }.encode();
        pieces.push(Bytes::copy_from_slice(&header));
        pieces.push(blob.payload);
    }
    pieces.push(Bytes::copy_from_slice(&wire::encode_end(count)));
    let pieces = stream::unfold((pieces.into_iter(), held), |(mut pieces, held)| async move {
        let piece = pieces.next()?;
        Some((Ok::<_, std::convert::Infallible>(piece), (pieces, held)))
    });
    octets(Body::from_stream(pieces))
}
