//! Access control: a credential gives a request its caller. All refusals have one answer, whatever their reason.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue};

use super::App;
use super::places::Place;
use super::respond::Failure;
use super::serve::Peer;
use crate::access::{Principal, Refusal};
use crate::error::{Chain, ServerError};
use crate::sync::lock;

/// Shortest time between two lines of the log about refused sign-ins.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Lets a request pass only with a credential, and notes its caller in it.
pub(super) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let admitted = caller(&app, &request).and_then(|caller| {
        request.extensions().get::<Place>().map_or(Ok(()), Place::welcome)?;
        Ok(caller)
    });
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => closing(Failure::from(error).into_response()),
    }
}

/// The caller of a request, as its credential proves at this moment.
fn caller(app: &App, request: &Request) -> Result<Principal, ServerError> {
    let offered = request.headers().get(AUTHORIZATION);
    let offered = offered.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let peer = request.extensions().get::<Peer>();
    let now_ms = app.server.store.parts.clock.unix_ms();
    let shown = peer.and_then(|peer| peer.certificate.as_ref());
    let caller = match (offered, shown) {
        // A token counts first: operators may use one on the machine of a node.
        (None, Some(shown)) => app.access.sign_in_node(shown.node, &shown.serial, now_ms),
        _ => app.access.sign_in(offered, peer.map(|peer| peer.address.ip()), now_ms),
    };
    let caller = caller.map_err(|reason| refuse(app, peer, &reason))?;
    if app.access.is_use_due(&caller, now_ms) {
        write_use(app, caller.clone(), now_ms);
    }
    Ok(caller)
}

/// Counts a refused sign-in and logs it, if the last line about one is long enough ago.
fn refuse(app: &App, peer: Option<&Peer>, reason: &Refusal) -> ServerError {
    app.server.done().refused_sign_ins.fetch_add(1, Ordering::Relaxed);
    if let Some(unlogged) = app.refusals.line_is_due(app.server.store.parts.clock.monotonic()) {
        let address = peer.map(|peer| peer.address.to_string());
        tracing::warn!(address, %reason, unlogged, "refused a sign-in");
    }
    ServerError::Unauthorized
}

/// Writes the last uses of tokens to the file, beside the request.
fn write_use(app: &App, caller: Principal, now_ms: u64) {
    let access = std::sync::Arc::clone(&app.access);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = access.write_uses(&caller, now_ms) {
            tracing::warn!(error = %Chain(&error), "the last use of a token was not written");
        }
    });
}

/// The last answer of a connection.
pub(super) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Bounds the lines of the log about refused sign-ins.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Unlogged>);

#[derive(Debug, Default)]
struct Unlogged {
    last_line: Option<Duration>,
    count: u64,
}

impl Refusals {
    /// Counts a refusal at `now` of the monotonic clock. If a line is due: the number of refusals since the last line,
    /// without this one.
    fn line_is_due(&self, now: Duration) -> Option<u64> {
        let mut unlogged = lock(&self.0);
        if unlogged.last_line.is_some_and(|last| now.saturating_sub(last) < LINE_EVERY) {
            unlogged.count += 1;
            return None;
        }
        unlogged.last_line = Some(now);
        Some(std::mem::take(&mut unlogged.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_fill_no_log() {
        let refusals = Refusals::default();
        let due = |seconds| refusals.line_is_due(Duration::from_secs(seconds));

        assert_eq!([5, 6, 14, 15, 26].map(due), [Some(0), None, None, Some(2), Some(0)]);
    }
}
