//! The accept loop: one task per connection, limits of places and of time, graceful stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::patient::Patient;
use super::places::{Place, Places};
use super::respond::needs_tls;
use crate::access::Registry;
use crate::server::Done;
use crate::tls::{Accepted, PeerCertificate, Tls};

/// A client that has not finished the handshake of TLS by then is dropped.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

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

/// How bytes cross the network.
#[derive(Clone)]
pub enum Transport {
    /// Unencrypted: for loopback addresses.
    Plain,
    /// By TLS, with the certificates of the nodes of a registry. A connection whose certificate is revoked is closed.
    Tls(Arc<Tls>, Arc<Registry>),
}

/// The other end of a connection: an extension of each request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; that of a proxy if there is one.
    pub address: SocketAddr,
    /// The certificate that it has shown, checked.
    pub certificate: Option<PeerCertificate>,
}

/// How many connections may be open at once, and how long they may be idle.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    connections: usize,
    handshake_within: Duration,
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
        Self {
            connections: room.min(configured),
            handshake_within: HANDSHAKE_WITHIN,
            header_within: HEADER_WITHIN,
            reads_within: READS_WITHIN,
        }
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
    transport: Transport,
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
                let connection = Connection {
                    routes: routes.clone(),
                    limits,
                    watcher: graceful.watcher(),
                    place: places.enter(address.ip()),
                    address,
                };
                let stream = patient(stream, &limits, &done);
                tokio::spawn(connection.run(stream, transport.clone()));
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

/// One connection, and what it is served with.
struct Connection {
    routes: Router,
    limits: Limits,
    watcher: Watcher,
    place: Place,
    address: SocketAddr,
}

impl Connection {
    /// Serves the connection to its end. A stranger in the way of another one is closed at any time.
    async fn run(self, stream: Patient<TcpStream>, transport: Transport) {
        let place = self.place.clone();
        tokio::select! {
            () = self.serve(stream, transport) => {}
            () = place.must_go() => tracing::debug!("closed a connection without a token to make room for another"),
        }
    }

    async fn serve(self, stream: Patient<TcpStream>, transport: Transport) {
        let Transport::Tls(tls, access) = transport else { return self.answer(stream, None).await };
        let handshake = tokio::time::timeout(self.limits.handshake_within, tls.accept(stream)).await;
        match handshake {
            Ok(Ok(Accepted::Tls(stream, certificate))) => {
                let (address, shown) = (self.address, certificate.clone());
                tokio::select! {
                    () = self.answer(*stream, certificate) => {}
                    () = revoked(shown, &tls, &access) => {
                        tracing::info!(%address, "closed a connection whose certificate was revoked");
                    }
                }
            }
            Ok(Ok(Accepted::Plain(stream))) => refuse_plain(stream, self.limits.handshake_within).await,
            Ok(Err(error)) => tracing::debug!(%error, address = %self.address, "a handshake failed"),
            Err(_) => tracing::debug!(address = %self.address, "a handshake took too long"),
        }
    }

    /// Answers the requests of a connection.
    async fn answer<S>(self, stream: S, certificate: Option<PeerCertificate>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Peer { address: self.address, certificate };
        let routes = self.routes.layer(Extension(self.place)).layer(Extension(peer));
        // Without a timer the header timeout is off, silently.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_within)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection failed");
        }
    }
}

/// Returns once the certificate `shown`, which opens the server now, does not any more.
async fn revoked(shown: Option<PeerCertificate>, tls: &Tls, access: &Registry) {
    let mut changes = access.changes();
    let opens =
        |shown: &PeerCertificate| access.sign_in_node(shown.node, &shown.serial, tls.now_ms()).is_ok();
    // Each request of a connection whose certificate opens nothing is refused.
    let Some(shown) = shown.filter(|shown| opens(shown)) else { return std::future::pending().await };
    while opens(&shown) {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Tells a client without TLS, in its own words, that it must use TLS.
async fn refuse_plain<S: AsyncRead + AsyncWrite + Unpin>(mut stream: BufReader<S>, within: Duration) {
    let answer = needs_tls();
    let told = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(within, told).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::durable::RealDisk;
    use crate::settings::TlsSettings;
    use crate::testing::ManualClock;

    /// Answer of a TLS server to a client that sends only `first`.
    async fn answer_to(first: &[u8], handshake_within: Duration) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()].into();
        let node_life = Duration::from_secs(60);
        let settings = TlsSettings { names, files: None, node_life };
        let random = |bytes: &mut [u8]| getrandom::fill(bytes).unwrap();
        let clock = Arc::new(ManualClock::default());
        let tls = Tls::open(Arc::new(RealDisk), folder.path(), settings, clock, random).unwrap();
        let limits = Limits { handshake_within, ..Limits::within_descriptors(8) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let access = Registry::new(Arc::new(RealDisk), folder.path(), "t", None, Arc::new(|_| {})).unwrap();
        let transport = Transport::Tls(tls, Arc::new(access));
        let served = tokio::spawn(serve(listener, transport, Router::new(), limits, Arc::default(), stopped));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        drop(stop);
        served.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_handshake_is_dropped() {
        assert!(answer_to(b"", Duration::ZERO).await.is_empty());
    }

    #[tokio::test]
    async fn a_client_without_tls_is_told_to_use_it() {
        let answer = answer_to(b"GET /healthz HTTP/1.1\r\n\r\n", HANDSHAKE_WITHIN).await;

        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("\"needs_tls\"") && answer.contains("https://"), "{answer}");
    }
}
