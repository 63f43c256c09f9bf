//! Enrolment of nodes: invitations, certificates, and the decisions of operators about nodes.
//!
//! `POST /v1/enroll` is open to strangers, because the code of an invitation is the credential. Its attempts are limited
//! for each peer and for all together, before a body is read, and each is the last request of its connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use format_spec::NodeId;
use format_spec::wire::{
    EnrolRequest, Enrolled, InviteCreated, Invites, NewInvite, NodeCertificate, NodeInfo, NodeSelf, Nodes,
    RenameRequest, RenewRequest, RotateRequest,
};
use hyper::StatusCode;

use super::auth::closing;
use super::extract::Path;
use super::places::Host;
use super::respond::{self, Answer, Reply};
use super::serve::Peer;
use super::{App, body, parse};
use crate::access::{self, Issued, Principal, Registry, Source};
use crate::error::{Chain, ServerError};
use crate::server::Server;
use crate::sync::lock;
use crate::tls::{PeerCertificate, Tls, TlsError};

/// Time in which attempts to enrol are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Attempts of one peer in that time: enough for several machines behind one address.
const MOST_OF_ONE: u32 = 30;
/// Attempts of all peers in that time.
const MOST_OF_ALL: u32 = 300;

/// Exchanges the code of an invitation for a certificate.
pub(super) async fn enrol(State(app): State<App>, request: Request) -> Response {
    closing(admit(&app, request).await.into_response())
}

async fn admit(app: &App, request: Request) -> Answer<Enrolled> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
    app.attempts.count(peer, app.server.store.parts.clock.monotonic())?;
    let tls = tls(app)?;
    let asked: EnrolRequest = body::json(request).await?;
    let (registry, signer) = (Arc::clone(&app.access), Arc::clone(&tls));
    let admitted = app.server.blocking(move |server| {
        let now_ms = server.store.parts.clock.unix_ms();
        access::enrol(&registry, &asked, now_ms, |id| sign(&signer, &asked.request, id))
    });
    let admitted = admitted.await.inspect_err(|error| {
        tracing::warn!(peer = peer.map(tracing::field::display), error = %Chain(error), "refused an enrolment");
    })?;
    let access::Admitted { id, cluster, node, rights, certificate } = admitted;
    tracing::info!(%id, %cluster, %node, peer = peer.map(tracing::field::display), "node enrolled");
    respond::json(Enrolled { id, cluster, node, roles: rights.roles(), certificate, ca: tls.anchor().pem })
}

/// TLS of the server, which signs certificates.
fn tls(app: &App) -> Result<Arc<Tls>, ServerError> {
    app.tls.clone().ok_or(ServerError::NoTls)
}

fn sign(tls: &Tls, request: &str, node: NodeId) -> Result<Issued, ServerError> {
    let signed = tls.authority().sign(request, node, tls.node_life()).map_err(|error| match error {
        TlsError::Request(_) => {
            ServerError::BadRequest { code: "bad_certificate_request", why: Chain(&error).to_string() }
        }
        other => ServerError::NotSigned(Chain(&other).to_string()),
    })?;
    Ok(Issued { certificate_pem: signed.chain_pem, serial: signed.serial, not_after_ms: signed.not_after_ms })
}

pub(super) async fn invite(
    State(app): State<App>,
    caller: Principal,
    request: Request,
) -> Answer<InviteCreated> {
    let ca = tls(&app)?.anchor().fingerprint;
    let asked: NewInvite = body::json(request).await?;
    let (registry, by) = (Arc::clone(&app.access), caller.source.clone());
    let invited = app.server.blocking(move |server| {
        let (mut secret, mut random) = ([0; 32], [0; 10]);
        (server.store.parts.random)(&mut secret);
        (server.store.parts.random)(&mut random);
        let now_ms = server.store.parts.clock.unix_ms();
        access::invite(&registry, asked, &by, NodeId::new(now_ms, random), &secret, now_ms)
    });
    let access::Invited { code, info } = invited.await?;
    tracing::info!(id = %info.id, cluster = %info.cluster, by = %caller.source, "node invited");
    respond::json(InviteCreated { code, ca, info })
}

pub(super) async fn invites(State(app): State<App>) -> Answer<Invites> {
    let now_ms = app.server.store.parts.clock.unix_ms();
    respond::json(Invites { invites: access::invites(&app.access, now_ms) })
}

pub(super) async fn uninvite(State(app): State<App>, caller: Principal, Path(id): Path<String>) -> Reply {
    let id: NodeId = parse(&id)?;
    let registry = Arc::clone(&app.access);
    app.server.blocking(move |_| access::uninvite(&registry, id)).await?;
    tracing::info!(%id, by = %caller.source, "invitation withdrawn");
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn nodes(State(app): State<App>) -> Answer<Nodes> {
    respond::json(Nodes { nodes: access::nodes(&app.access) })
}

pub(super) async fn revoke(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
) -> Answer<NodeInfo> {
    let info = change(&app, &id, access::revoke_node).await?;
    tracing::info!(id = %info.id, node = %info.node, by = %caller.source, "node revoked");
    respond::json(info)
}

pub(super) async fn rotate(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    request: Request,
) -> Answer<NodeInfo> {
    let asked: RotateRequest = body::json(request).await?;
    let grace = Duration::from_secs(asked.grace_seconds);
    let info =
        change(&app, &id, move |registry, id, now_ms| access::rotate(registry, id, grace, now_ms)).await?;
    tracing::info!(id = %info.id, node = %info.node, by = %caller.source, ?grace, "node is to rotate its key");
    respond::json(info)
}

pub(super) async fn rename(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    request: Request,
) -> Answer<NodeInfo> {
    let RenameRequest { title } = body::json(request).await?;
    let info = change(&app, &id, move |registry, id, _| access::rename(registry, id, title)).await?;
    tracing::info!(id = %info.id, title = %info.title, by = %caller.source, "node renamed");
    respond::json(info)
}

/// Applies an operator's decision about the node that `id` names.
async fn change(
    app: &App,
    id: &str,
    decide: impl FnOnce(&Registry, NodeId, u64) -> Result<NodeInfo, ServerError> + Send + 'static,
) -> Result<NodeInfo, ServerError> {
    let id: NodeId = parse(id)?;
    let registry = Arc::clone(&app.access);
    let decide = move |server: &Arc<Server>| decide(&registry, id, server.store.parts.clock.unix_ms());
    app.server.blocking(decide).await
}

/// A node asks about itself.
pub(super) async fn about(State(app): State<App>, caller: Principal, request: Request) -> Answer<NodeSelf> {
    let shown = shown(&caller, &request)?;
    let now_ms = app.server.store.parts.clock.unix_ms();
    let about = access::about(&app.access, shown.node, &shown.serial, now_ms)?;
    respond::json(about)
}

/// A node asks for its next certificate.
pub(super) async fn renew(
    State(app): State<App>,
    caller: Principal,
    request: Request,
) -> Answer<NodeCertificate> {
    let shown = shown(&caller, &request)?;
    let tls = tls(&app)?;
    let asked: RenewRequest = body::json(request).await?;
    let registry = Arc::clone(&app.access);
    let renewed = app.server.blocking(move |server| {
        let now_ms = server.store.parts.clock.unix_ms();
        let signed = |id| sign(&tls, &asked.request, id);
        access::renew(&registry, shown.node, &shown.serial, now_ms, signed)
    });
    let renewed = renewed.await?;
    tracing::info!(by = %caller.source, expires = renewed.expires, "node has a new certificate");
    respond::json(renewed)
}

/// The certificate that the connection of `request` has shown.
///
/// # Errors
/// [`ServerError::Refused`] unless it is the credential of `caller`.
fn shown(caller: &Principal, request: &Request) -> Result<PeerCertificate, ServerError> {
    let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    let own = certificate.filter(|certificate| caller.source == Source::Node(certificate.node));
    own.ok_or_else(|| ServerError::Refused {
        code: "no_certificate",
        why: "only a node that shows its certificate can ask this".to_owned(),
    })
}

/// Bounds attempts to enrol.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Duration,
    of_all: u32,
    /// Not more than [`MOST_OF_ALL`].
    of_one: BTreeMap<Host, u32>,
}

impl Attempts {
    /// Counts an attempt of `peer` at `now` of the monotonic clock.
    ///
    /// # Errors
    /// [`ServerError::Rests`] if it is one too many.
    fn count(&self, peer: Option<IpAddr>, now: Duration) -> Result<(), ServerError> {
        let mut window = lock(&self.0);
        if now.saturating_sub(window.began) >= WINDOW {
            *window = Window { began: now, ..Window::default() };
        }
        let peer = Host::of(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let of_one = window.of_one.get(&peer).copied().unwrap_or(0);
        if window.of_all >= MOST_OF_ALL || of_one >= MOST_OF_ONE {
            let why = format!("too many attempts to enrol: try again in {} s", WINDOW.as_secs());
            return Err(ServerError::Rests { code: "too_many_attempts", why });
        }
        window.of_all += 1;
        window.of_one.insert(peer, of_one + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
