//! The caller of a request and its rights: which role may ask for which route.
//!
//! [`TABLE`] is the one place that says so. [`authorize`] looks each request up in it before its handler runs; a route
//! without a row answers nobody. Handlers of `Own` routes ask the caller which snapshots and sessions it reaches.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::Method;
use hyper::http::request::Parts;

use super::respond::{self, Failure};
use crate::access::{Kind, NodeRights, Principal};
use crate::error::ServerError;

/// Right of a role on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// The route answers as if it were not there.
    No,
    /// Only about the caller's own nodes.
    Own,
    Yes,
}

/// The rights on one route. An administrator has all.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) method: Method,
    pub(super) path: &'static str,
    monitor: Cell,
    push: Cell,
    restore: Cell,
    operator: Cell,
}

const fn row(method: Method, path: &'static str, cells: [Cell; 4]) -> Row {
    let [monitor, push, restore, operator] = cells;
    Row { method, path, monitor, push, restore, operator }
}

use Cell::{No, Own, Yes};

/// Routes × roles: monitor, node-push, node-restore, operator.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Method::POST,   "/v1/sessions",                                [No,  Own, No,  No ]),
    row(Method::GET,    "/v1/sessions",                                [No,  No,  No,  Yes]),
    row(Method::DELETE, "/v1/sessions/{session}",                      [No,  Own, No,  Yes]),
    row(Method::POST,   "/v1/sessions/{session}/renew",                [No,  Own, No,  No ]),
    row(Method::POST,   "/v1/sessions/{session}/have",                 [No,  Own, No,  No ]),
    row(Method::POST,   "/v1/sessions/{session}/blobs",                [No,  Own, No,  No ]),
    row(Method::POST,   "/v1/sessions/{session}/commit",               [No,  Own, No,  No ]),
    row(Method::GET,    "/v1/snapshots",                               [No,  Own, Own, Yes]),
    row(Method::GET,    "/v1/snapshots/{snapshot}",                    [No,  Own, Own, Yes]),
    row(Method::GET,    "/v1/snapshots/{snapshot}/key",                [No,  No,  Own, No ]),
    row(Method::GET,    "/v1/snapshots/{snapshot}/manifests/{node}",   [No,  No,  Own, No ]),
    row(Method::POST,   "/v1/snapshots/{snapshot}/blobs",              [No,  No,  Own, No ]),
    row(Method::GET,    "/v1/snapshots/{snapshot}/problems",           [No,  No,  Own, Yes]),
    row(Method::GET,    "/v1/snapshots/{snapshot}/detail",             [No,  No,  No,  Yes]),
    row(Method::POST,   "/v1/snapshots/{snapshot}/undelete",           [No,  No,  No,  Yes]),
    row(Method::PUT,    "/v1/snapshots/{snapshot}/protection",         [No,  No,  No,  Yes]),
    row(Method::DELETE, "/v1/snapshots/{snapshot}/protection",         [No,  No,  No,  No ]),
    row(Method::POST,   "/v1/forget",                                  [No,  No,  No,  Yes]),
    row(Method::POST,   "/v1/gc",                                      [No,  No,  No,  Yes]),
    row(Method::GET,    "/v1/stats",                                   [No,  No,  No,  Yes]),
    row(Method::GET,    "/v1/chunks/{chunk}",                          [No,  No,  No,  No ]),
    row(Method::POST,   "/v1/verify",                                  [No,  No,  No,  Yes]),
    row(Method::POST,   "/v1/audit",                                   [No,  No,  No,  Yes]),
    row(Method::GET,    "/v1/status",                                  [Yes, No,  No,  Yes]),
    row(Method::GET,    "/v1/alarms",                                  [Yes, No,  No,  Yes]),
    row(Method::POST,   "/v1/alarms/acknowledge",                      [No,  No,  No,  Yes]),
    row(Method::GET,    "/v1/freshness",                               [Yes, No,  No,  Yes]),
    row(Method::PUT,    "/v1/freshness",                               [No,  No,  No,  Yes]),
    row(Method::GET,    "/metrics",                                    [Yes, No,  No,  Yes]),
    row(Method::GET,    "/v1/tokens",                                  [No,  No,  No,  No ]),
    row(Method::POST,   "/v1/tokens",                                  [No,  No,  No,  No ]),
    row(Method::DELETE, "/v1/tokens/{token}",                          [No,  No,  No,  No ]),
    row(Method::GET,    "/v1/nodes",                                   [No,  No,  No,  No ]),
    row(Method::GET,    "/v1/nodes/invites",                           [No,  No,  No,  No ]),
    row(Method::POST,   "/v1/nodes/invites",                           [No,  No,  No,  No ]),
    row(Method::DELETE, "/v1/nodes/invites/{invite}",                  [No,  No,  No,  No ]),
    row(Method::GET,    "/v1/nodes/self",                              [No,  Own, Own, No ]),
    row(Method::POST,   "/v1/nodes/self/certificate",                  [No,  Own, Own, No ]),
    row(Method::POST,   "/v1/nodes/{node}/revoke",                     [No,  No,  No,  No ]),
    row(Method::POST,   "/v1/nodes/{node}/rotate",                     [No,  No,  No,  No ]),
    row(Method::POST,   "/v1/nodes/{node}/rename",                     [No,  No,  No,  No ]),
];

impl Row {
    pub(super) fn of(&self, kind: &Kind) -> Cell {
        match kind {
            Kind::Administrator => Yes,
            Kind::Operator => self.operator,
            Kind::Monitor => self.monitor,
            Kind::Node { rights: NodeRights::Push, .. } => self.push,
            Kind::Node { rights: NodeRights::Restore, .. } => self.restore,
            Kind::Node { rights: NodeRights::PushAndRestore, .. } => match (self.push, self.restore) {
                (No, cell) | (cell, No) => cell,
                (cell, _) => cell,
            },
        }
    }
}

/// Rights of `caller` on a route. The error tells an unknown path from a known path with an unknown method.
fn cell(method: &Method, path: &str, caller: &Principal) -> Result<Cell, Refused> {
    // A handler of GET answers HEAD as well.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut rows = TABLE.iter().filter(|row| row.path == path).peekable();
    rows.peek().ok_or(Refused::Path)?;
    rows.find(|row| row.method == *method).map(|row| row.of(&caller.kind)).ok_or(Refused::Method)
}

/// Part of a request that the table does not have.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Path,
    Method,
}

/// Lets a request reach its handler if the table allows it to its caller. All others are answered as if there were no
/// such route.
pub(super) async fn authorize(path: MatchedPath, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Principal>() else {
        return Failure::from(NO_CALLER).into_response();
    };
    match cell(request.method(), path.as_str(), caller) {
        Ok(Own | Yes) => next.run(request).await,
        Ok(No) | Err(Refused::Path) => respond::no_such_route(),
        Err(Refused::Method) => respond::wrong_method(),
    }
}

const NO_CALLER: ServerError = ServerError::Bug("a request reached a handler without a caller");

impl Principal {
    /// Refuses a request that weakens a protection in the way that `weakens` says, unless an administrator asks.
    ///
    /// # Errors
    /// [`ServerError::Forbidden`].
    pub(super) fn may_weaken(&self, weakens: Option<&'static str>) -> Result<(), ServerError> {
        match weakens {
            Some(what) if self.kind != Kind::Administrator => {
                Err(ServerError::Forbidden { why: format!("only an administrator may {what}") })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Failure::from(NO_CALLER))
    }
}
