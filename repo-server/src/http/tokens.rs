//! Tokens of people and machines.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::IntoResponse;
use format_spec::TokenName;
use format_spec::wire::{NewToken, TokenCreated, Tokens};
use hyper::StatusCode;

use super::extract::Path;
use super::respond::{self, Answer, Reply};
use super::{App, body, parse};
use crate::access::{self, Principal};

pub(super) async fn list(State(app): State<App>) -> Answer<Tokens> {
    respond::json(Tokens { tokens: access::list(&app.access, app.server.store.parts.clock.unix_ms()) })
}

pub(super) async fn create(
    State(app): State<App>,
    caller: Principal,
    request: Request,
) -> Answer<TokenCreated> {
    let asked: NewToken = body::json(request).await?;
    let (registry, by) = (Arc::clone(&app.access), caller.source.clone());
    let created = app.server.blocking(move |server| {
        let mut secret = [0; 32];
        (server.store.parts.random)(&mut secret);
        access::create(&registry, asked, &by, &secret, server.store.parts.clock.unix_ms())
    });
    let created = created.await?;
    let info = &created.info;
    tracing::info!(name = %info.name, roles = ?info.roles, by = %caller.source, "token created");
    respond::json(created)
}

pub(super) async fn revoke(State(app): State<App>, caller: Principal, Path(name): Path<String>) -> Reply {
    let name: TokenName = parse(&name)?;
    let (registry, revoked) = (Arc::clone(&app.access), name.clone());
    app.server.blocking(move |_| access::revoke(&registry, &revoked)).await?;
    tracing::info!(%name, by = %caller.source, "token revoked");
    Ok(StatusCode::NO_CONTENT.into_response())
}
