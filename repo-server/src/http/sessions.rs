//! Sessions: open, renew, commit, abort.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::IntoResponse;
use format_spec::manifest::Totals;
use format_spec::snapshot::Snapshot;
use format_spec::{ClusterName, ManifestId, NodeName, SessionId, wire};
use hyper::StatusCode;
use serde::Deserialize;

use super::body::{Cost, Whole};
use super::extract::{Path, Query};
use super::respond::{self, Answer, Reply};
use super::{App, body, parse};
use crate::access::Principal;
use crate::defects::blobs;
use crate::defects::objects::Known;
use crate::error::ServerError;
use crate::health::clock::ClockState;
use crate::health::space;
use crate::rows::MarkRow;
use crate::server::Server;
use crate::session::{self, Pusher, TTL};
use crate::snapshot;
use crate::snapshot::series::Smaller;

pub(super) async fn open(
    State(app): State<App>,
    caller: Principal,
    request: Request,
) -> Answer<wire::SessionOpened> {
    let asked: wire::OpenSession = body::json(request).await?;
    check_own(&caller, &asked.cluster, &asked.node)?;
    let domain_key = app.server.store.domain(&asked.cluster).key.to_hex();
    let pusher = Pusher { cluster: asked.cluster, node: asked.node };
    let (granted, base) = app
        .server
        .blocking(move |server| {
            space::admit(&server.store, asked.expected_bytes)?;
            let granted = session::open(&server.sessions, pusher.clone(), asked.adopt)?;
            Ok((granted, base_state(server, &pusher, asked.base)?))
        })
        .await?;
    respond::json(wire::SessionOpened {
        session: granted.id,
        fencing_token: granted.row.token,
        ttl_ms: ttl_ms(),
        repository: app.server.store.id(),
        domain_key,
        chunker: app.server.store.chunker(),
        base,
        adopted: granted.adopted.is_some(),
    })
}

/// Refuses a push for a node that is not the caller's own. The answer does not depend on what the server holds.
fn check_own(caller: &Principal, cluster: &ClusterName, node: &NodeName) -> Result<(), ServerError> {
    if caller.reaches(cluster, node) {
        return Ok(());
    }
    let why = format!("this credential may not push for node `{node}` of cluster `{cluster}`");
    Err(ServerError::Forbidden { why })
}

pub(super) async fn list(State(app): State<App>) -> Answer<wire::OpenSessions> {
    let now = app.server.store.parts.clock.monotonic();
    let info = |open: session::Listed| wire::OpenSessionInfo {
        session: open.id,
        cluster: open.row.cluster,
        node: open.row.node,
        age_seconds: open.age.as_secs(),
        sent_bytes: open.sent_bytes,
    };
    let sessions = app.server.sessions.list(now).into_iter().map(info).collect();
    respond::json(wire::OpenSessions { sessions })
}

/// The pages of a manifest of the same node are counted, and pages that lose their count from now on are kept while
/// the session is open (G3). If the cluster has damaged blobs, they must be sent again, so the saved state
/// cannot be used.
fn base_state(
    server: &Server,
    pusher: &Pusher,
    base: Option<ManifestId>,
) -> Result<wire::BaseState, ServerError> {
    let Some(id) = base else { return Ok(wire::BaseState::Unknown) };
    let is_pinned =
        snapshot::has_manifest(&server.store, pusher, id)? && !blobs::any(&server.store, &pusher.cluster)?;
    Ok(if is_pinned { wire::BaseState::Pinned } else { wire::BaseState::Unknown })
}

fn ttl_ms() -> u64 {
    u64::try_from(TTL.as_millis()).expect("a short time")
}

pub(super) async fn renew(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
) -> Answer<wire::SessionRenewed> {
    let id: SessionId = parse(&id)?;
    session::renew_if(&app.server.sessions, id, |owner| caller.reaches(&owner.cluster, &owner.node))?;
    respond::json(wire::SessionRenewed { ttl_ms: ttl_ms() })
}

/// How a push wants its snapshot judged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowToCommit {
    /// Accepts that the snapshot is much smaller than the one before.
    #[serde(default)]
    accept_smaller: bool,
}

pub(super) async fn commit(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    Query(asked): Query<HowToCommit>,
    request: Request,
) -> Answer<wire::Committed> {
    let id: SessionId = parse(&id)?;
    let smaller = if asked.accept_smaller { Smaller::Meant } else { Smaller::Suspect };
    let limit = u64::try_from(format_spec::manifest::MAX_MANIFEST_LEN).expect("a length fits in 64 bits");
    // This check comes before the body, so that a client without a session of its own cannot make the server hold
    // a manifest, nor learn what the session committed.
    let own = move |server: &Arc<Server>| {
        session::check_known(&server.sessions, id, |owner| caller.reaches(&owner.cluster, &owner.node))
    };
    app.server.blocking(own).await?;
    let Whole { bytes, reserved } =
        body::whole(request, limit, &app.server.memory.bodies, Cost::Decoded).await?;
    let age = app.server.sessions.age(id, app.server.store.parts.clock.monotonic());
    let snapshot = snapshot::commit(&app.server, id, bytes, smaller, reserved).await?;
    log(&snapshot, age);
    let look = |server: &Arc<Server>| server.clock_watch.look(&server.store);
    let clock = app.server.blocking(look).await?;
    let now_ms = app.server.store.parts.clock.unix_ms();
    let manifest = snapshot.manifests.first().map(|manifest| manifest.id);
    respond::json(wire::Committed {
        manifest: manifest.ok_or(ServerError::Bug("a snapshot needs a manifest"))?,
        snapshot: snapshot::info(&snapshot, &MarkRow::default(), &Known::default(), now_ms),
        durability: wire::Durability::Local,
        clock_jumped: clock == ClockState::Jumped,
    })
}

/// Logs a commit; `age` is that of its session, which restarts with the server.
fn log(snapshot: &Snapshot, age: Option<Duration>) {
    let sum = |of: fn(&Totals) -> u64| snapshot.manifests.iter().map(|share| of(&share.totals)).sum::<u64>();
    let sent: u64 = snapshot.manifests.iter().filter_map(|share| Some(share.push.as_ref()?.bytes_sent)).sum();
    tracing::info!(
        snapshot = %snapshot.id,
        cluster = %snapshot.cluster,
        node = snapshot::series::nodes(snapshot),
        series = snapshot::series::title_of_folders(snapshot),
        state = ?snapshot.state,
        files = sum(|totals| totals.files),
        bytes = sum(|totals| totals.bytes),
        missing = sum(|totals| totals.problems),
        sent,
        duration_ms = age.and_then(|age| u64::try_from(age.as_millis()).ok()),
        "committed"
    );
}

pub(super) async fn abort(State(app): State<App>, caller: Principal, Path(id): Path<String>) -> Reply {
    let id: SessionId = parse(&id)?;
    let abort = move |server: &Arc<Server>| {
        session::abort(&server.sessions, id, |owner| caller.reaches(&owner.cluster, &owner.node))
    };
    app.server.blocking(abort).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
