//! Requests of operators: undelete, protect, locate.

use std::sync::Arc;

use axum::extract::{Request, State};
use format_spec::wire::{ChunkLocation, ProtectRequest, SnapshotDetail, SnapshotInfo};
use format_spec::{ChunkId, SnapshotId};

use super::extract::Path;
use super::respond::{self, Answer};
use super::{App, body, parse};
use crate::defects::objects;
use crate::error::ServerError;
use crate::pack;
use crate::server::Server;
use crate::snapshot;
use crate::stats;

pub(super) async fn detail(State(app): State<App>, Path(id): Path<String>) -> Answer<SnapshotDetail> {
    let id: SnapshotId = parse(&id)?;
    let server = &app.server;
    let found = server.blocking(move |server| snapshot::get(&server.store, id)).await?;
    let gone = snapshot::references_of_idle_pages(&server.store).await?;
    let (alone_bytes, not_counted) = match snapshot::freed(&server.store, &[&found], &gone).await {
        Ok(freed) => (Some(freed.bytes()), None),
        Err(error) => (None, Some(stats::cannot_be_read(error)?)),
    };
    respond::json(SnapshotDetail { info: info(&app, id).await?, alone_bytes, not_counted })
}

pub(super) async fn undelete(State(app): State<App>, Path(id): Path<String>) -> Answer<SnapshotInfo> {
    let id: SnapshotId = parse(&id)?;
    app.server.blocking(move |server| snapshot::undelete(&server.store, id)).await?;
    tracing::info!(snapshot = %id, "snapshot undeleted");
    respond::json(info(&app, id).await?)
}

pub(super) async fn protect(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Answer<SnapshotInfo> {
    let id: SnapshotId = parse(&id)?;
    let asked: ProtectRequest = body::json(request).await?;
    snapshot::protect(&app.server.store, &app.server.in_flight, id, asked.reason).await?;
    tracing::info!(snapshot = %id, "snapshot protected");
    respond::json(info(&app, id).await?)
}

pub(super) async fn unprotect(State(app): State<App>, Path(id): Path<String>) -> Answer<SnapshotInfo> {
    let id: SnapshotId = parse(&id)?;
    app.server.blocking(move |server| snapshot::unprotect(&server.store, id)).await?;
    tracing::info!(snapshot = %id, "protection removed");
    respond::json(info(&app, id).await?)
}

async fn info(app: &App, id: SnapshotId) -> Result<SnapshotInfo, ServerError> {
    let look = move |server: &Arc<Server>| {
        let (found, mark) = (snapshot::get(&server.store, id)?, snapshot::mark(&server.store, id)?);
        Ok(snapshot::info(&found, &mark, &objects::all(&server.store)?, server.store.parts.clock.unix_ms()))
    };
    app.server.blocking(look).await
}

pub(super) async fn locate(State(app): State<App>, Path(id): Path<String>) -> Answer<ChunkLocation> {
    let id: ChunkId = parse(&id)?;
    respond::json(app.server.blocking(move |server| pack::locate_one(&server.store, id)).await?)
}
