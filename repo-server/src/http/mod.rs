//! The HTTP interface: routes, limits, and nothing else. What a request does is in the modules below.
//!
//! Every request but `/healthz` and `/readyz` needs a credential, and `principal` says which role may ask for which
//! route. Bodies are streamed and capped. Bodies and answers
//! are described in `format_spec::wire`.

mod alarms;
mod auth;
mod blobs;
mod body;
mod enrolment;
mod extract;
mod grants;
mod lines;
mod operations;
mod patient;
mod places;
mod principal;
mod respond;
mod serve;
mod sessions;
mod sight;
mod snapshots;
mod tokens;
mod upkeep;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware;
use axum::routing::{delete, get, post, put};
use format_spec::wire;
use hyper::header::CONNECTION;

pub use serve::{Limits, Peer, Transport, serve};

use crate::access::{Principal, Registry};
use crate::error::ServerError;
use crate::server::Server;
use crate::tls::Tls;
use respond::Answer;

/// State that every request can use.
#[derive(Clone)]
struct App {
    server: Arc<Server>,
    access: Arc<Registry>,
    refusals: Arc<auth::Refusals>,
    grants: Arc<grants::Grants>,
    attempts: Arc<enrolment::Attempts>,
    /// TLS, which signs the certificates of nodes; none on plain HTTP.
    tls: Option<Arc<Tls>>,
}

impl App {
    fn new(server: Arc<Server>, access: Arc<Registry>, tls: Option<Arc<Tls>>) -> Self {
        let (refusals, grants, attempts) = (Arc::default(), Arc::default(), Arc::default());
        Self { server, access, refusals, grants, attempts, tls }
    }
}

/// The routes of a repository server, for the credentials of `access`. Nodes are enrolled with `tls` only.
pub fn routes(server: Arc<Server>, access: Arc<Registry>, tls: Option<Arc<Tls>>) -> Router {
    let app = App::new(server, access, tls);
    let open = Router::new()
        .route("/readyz", get(watch::ready))
        .route("/v1/enroll", post(enrolment::enrol))
        .with_state(app.clone());
    let guarded = guarded().layer(middleware::from_fn_with_state(app.clone(), auth::check)).with_state(app);
    // One answer for each connection: a stranger must not keep a place by asking again and again.
    Router::new()
        .route("/healthz", get(|| async { ([(CONNECTION, "close")], "ok\n") }))
        .merge(open)
        .merge(guarded)
}

/// The routes that need a caller, each with its row in the table of rights.
fn guarded() -> Router<App> {
    Router::new()
        .route("/v1/sessions", post(sessions::open).get(sessions::list))
        .route("/v1/sessions/{session}", delete(sessions::abort))
        .route("/v1/sessions/{session}/renew", post(sessions::renew))
        .route("/v1/sessions/{session}/have", post(blobs::have))
        .route("/v1/sessions/{session}/blobs", post(blobs::put))
        .route("/v1/sessions/{session}/commit", post(sessions::commit))
        .route("/v1/snapshots", get(snapshots::list))
        .route("/v1/snapshots/{snapshot}", get(snapshots::show))
        .route("/v1/snapshots/{snapshot}/key", get(snapshots::key))
        .route("/v1/snapshots/{snapshot}/manifests/{node}", get(snapshots::manifest))
        .route("/v1/snapshots/{snapshot}/blobs", post(snapshots::blobs))
        .route("/v1/snapshots/{snapshot}/detail", get(upkeep::detail))
        .route("/v1/snapshots/{snapshot}/problems", get(snapshots::problems))
        .route("/v1/snapshots/{snapshot}/undelete", post(upkeep::undelete))
        .route("/v1/snapshots/{snapshot}/protection", put(upkeep::protect).delete(upkeep::unprotect))
        .route("/v1/forget", post(operations::answered::<wire::ForgetRequest>))
        .route("/v1/gc", post(operations::streamed::<wire::GcRequest>))
        .route("/v1/stats", get(operations::stats))
        .route("/v1/chunks/{chunk}", get(upkeep::locate))
        .route("/v1/verify", post(operations::streamed::<wire::VerifyRequest>))
        .route("/v1/audit", post(operations::streamed::<wire::AuditRequest>))
        .route("/v1/status", get(status))
        .route("/v1/alarms", get(alarms::list))
        .route("/v1/alarms/acknowledge", post(alarms::acknowledge))
        .route("/v1/freshness", get(alarms::freshness).put(alarms::set_freshness))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{token}", delete(tokens::revoke))
        .route("/v1/nodes", get(enrolment::nodes))
        .route("/v1/nodes/invites", get(enrolment::invites).post(enrolment::invite))
        .route("/v1/nodes/invites/{invite}", delete(enrolment::uninvite))
        .route("/v1/nodes/self", get(enrolment::about))
        .route("/v1/nodes/self/certificate", post(enrolment::renew))
        .route("/v1/nodes/{node}/revoke", post(enrolment::revoke))
        .route("/v1/nodes/{node}/rotate", post(enrolment::rotate))
        .route("/v1/nodes/{node}/rename", post(enrolment::rename))
        .route("/metrics", get(watch::metrics))
        .route_layer(middleware::from_fn(principal::authorize))
        .fallback(|| async { respond::no_such_route() })
        .method_not_allowed_fallback(|| async { respond::wrong_method() })
}

async fn status(State(app): State<App>, caller: Principal) -> Answer<wire::Status> {
    let server = &app.server;
    let look = |server: &Arc<Server>| {
        let snapshots = crate::snapshot::list(&server.store, None)?.len();
        Ok((server.store.totals()?, snapshots, crate::health::alarms(&server.store)?))
    };
    let (totals, snapshots, alarms) = server.blocking(look).await?;
    respond::json(wire::Status {
        server: crate::SERVER.to_owned(),
        repository: server.store.id(),
        engine: server.store.parts.engine.to_owned(),
        snapshots: u64::try_from(snapshots).unwrap_or(u64::MAX),
        packs: u64::from(totals.packs),
        chunks: totals.chunks,
        stored_bytes: totals.stored_bytes,
        open_sessions: u64::try_from(server.sessions.count()).unwrap_or(u64::MAX),
        alarms: sight::alarms(&caller, alarms),
    })
}

/// An id or a name out of a path.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ServerError> {
    text.parse().map_err(|error: T::Err| ServerError::BadRequest { code: "bad_id", why: error.to_string() })
}

fn octets(bytes: impl Into<Body>) -> axum::response::Response {
    let mut response = axum::response::Response::new(bytes.into());
    let octets = hyper::header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, octets);
    response
}

#[cfg(test)]
impl App {
    /// An app over `server` with the token `t` alone.
    fn over(server: Arc<Server>) -> Self {
        let folder = std::path::Path::new("/data");
        let disk = Arc::new(crate::durable::sim::SimDisk::with_folder(folder));
        let access = Registry::new(disk, folder, "t", None, Arc::new(|_| {})).unwrap();
        Self::new(server, Arc::new(access), None)
    }
}

#[cfg(test)]
mod tests;
