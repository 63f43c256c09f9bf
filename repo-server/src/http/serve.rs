//! The accept loop: one task per connection, limits of places and of time, graceful stop.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use super::patient::Patient;
use super::peer::Peer;
use super::places::{Place, Places};
use crate::server::Done;

/// A client that has not sent the whole header of its next request by then is dropped.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// A client that reads nothing of its answer for so long is dropped.
const READS_WITHIN: Duration = Duration::from_secs(60);
/// Connections that have not shown the token, at most.
const STRANGERS: usize = 64;
/// File descriptors that are kept for the index, the site and temporary files.
const OWN_DESCRIPTORS: u64 = 256;
/// Connections at least, however few descriptors there are.
const FEWEST: usize = 16;
/// How long requests in flight may take once the server is to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// How many connections may be open at once, and how long they may be idle.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    connections: usize,
    header_within: Duration,
    reads_within: Duration,
}

impl Limits {
    /// Limits for `configured` connections with the token, or fewer if the process may not open enough files.
    /// Raises the limit of open files as far as the system allows.
    pub fn within_descriptors(configured: usize) -> Self {
        let descriptors = most_descriptors();
        let strangers = u64::try_from(STRANGERS).unwrap_or(u64::MAX);
        let room = descriptors.saturating_sub(OWN_DESCRIPTORS).saturating_sub(strangers);
        let room = usize::try_from(room).unwrap_or(usize::MAX).max(FEWEST);
        if room < configured {
            tracing::warn!(
                descriptors,
                connections = room,
                "fewer connections are allowed, because of the limit on open files (`ulimit -n`)"
            );
        }
        Self { connections: room.min(configured), header_within: HEADER_WITHIN, reads_within: READS_WITHIN }
    }
}

/// How many files this process may have open at once, which is as many as the system allows.
fn most_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // If this fails, the limit is unchanged.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX)
}

/// Serves `routes` until `stop` is ready, then lets requests in flight finish. Counts the bytes of all connections.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    done: Arc<Done>,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let places = Places::new(limits.connections, STRANGERS);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let stream = patient(stream, &limits, &done);
                let routes = routes.clone().layer(Extension(Peer { address }));
                connect(stream, routes, &limits, &graceful, places.enter());
            }
            Err(error) => {
                // Out of file handles, most likely: wait for some to close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    () = &mut stop => break,
                }
            }
        }
    }
    drop(listener);
    places.dismiss_strangers();
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("shutdown: requests still running were aborted");
    }
}

fn patient(stream: TcpStream, limits: &Limits, done: &Arc<Done>) -> Patient<TcpStream> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY: small answers may be delayed");
    }
    Patient::new(stream, limits.reads_within, Arc::clone(done))
}

fn connect(
    stream: Patient<TcpStream>,
    routes: Router,
    limits: &Limits,
    graceful: &GracefulShutdown,
    place: Place,
) {
    let routes = routes.layer(Extension(place.clone()));
    // Without a timer the header timeout is off, silently.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_within)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
            }
            () = place.must_go() => tracing::debug!("closed a connection without a token to make room for another"),
        }
    });
}
