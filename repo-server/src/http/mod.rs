//! The HTTP interface: routes, limits, and nothing else. What a request does is in the modules below.
//!
//! Every request but `/healthz` and `/readyz` needs the token. Bodies are streamed and capped. Bodies and answers
//! are described in `format_spec::wire`.

mod alarms;
mod auth;
mod blobs;
mod body;
mod extract;
mod lines;
mod operations;
mod patient;
mod places;
mod principal;
mod respond;
mod serve;
mod sessions;
mod snapshots;
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

pub use auth::Token;
pub use serve::{Limits, Peer, Transport, serve};

use crate::error::ServerError;
use crate::server::Server;
use principal::{Principal, Right};
use respond::Answer;

/// State that every request can use.
#[derive(Clone)]
struct App {
    server: Arc<Server>,
    token: Token,
}

/// The routes of a repository server.
pub fn routes(server: Arc<Server>, token: Token) -> Router {
    let app = App { server, token };
    let open = Router::new().route("/readyz", get(watch::ready)).with_state(app.clone());
    let guarded = guarded().layer(middleware::from_fn_with_state(app.clone(), auth::check)).with_state(app);
    // One answer for each connection: a stranger must not keep a place by asking again and again.
    Router::new()
        .route("/healthz", get(|| async { ([(CONNECTION, "close")], "ok\n") }))
        .merge(open)
        .merge(guarded)
}

/// The routes whose handlers take a caller.
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
        .route("/metrics", get(watch::metrics))
        .fallback(|| async { respond::no_such_route() })
        .method_not_allowed_fallback(|| async { respond::wrong_method() })
}

async fn status(State(app): State<App>, caller: Principal) -> Answer<wire::Status> {
    caller.may(Right::Monitor)?;
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
        alarms,
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
mod tests {
    use std::collections::BTreeSet;

    use axum::extract::Request;
    use hyper::StatusCode;
    use tower_service::Service;

    use super::*;
    use crate::store::Parts;

    /// Each `method path` of the `.route(…)` lines of this file.
    fn served() -> BTreeSet<String> {
        let source = include_str!("mod.rs").split("#[cfg(test)]").next().unwrap();
        let mut served = BTreeSet::new();
        for route in source.split(".route(\"").skip(1) {
            let (path, methods) = route.split_once('"').unwrap();
            let methods = methods.lines().next().unwrap();
            for method in ["get", "post", "put", "delete"] {
                if methods.contains(&format!(" {method}(")) || methods.contains(&format!(".{method}(")) {
                    served.insert(format!("{method} {path}"));
                }
            }
        }
        served
    }

    /// A request that came past the check of credentials does nothing, whatever its route.
    #[tokio::test]
    async fn no_route_answers_a_request_without_a_caller() {
        let app = App { server: Parts::default().serve(), token: Token::new("t") };
        let mut router = guarded().with_state(app);
        let is_guarded = |route: &String| !["get /healthz", "get /readyz"].contains(&route.as_str());
        for route in served().into_iter().filter(is_guarded) {
            let (method, path) = route.split_once(' ').unwrap();
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path);

            let answer = router.call(request.body(Body::empty()).unwrap()).await.unwrap();

            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{route}");
        }
    }

    #[test]
    fn the_documentation_has_each_route_and_no_other() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            documented.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        }

        assert_eq!(served(), documented);
        assert!(documented.len() > 30, "{documented:?}");
    }
}
