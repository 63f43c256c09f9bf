//! Connections, and the detection of lost ones.
//!
//! | what goes | what notices |
//! |---|---|
//! | the server | the kernel; whoever waits is told at once |
//! | its machine, without a word | probes, after a minute |
//! | a request, given to its connection at the moment that this breaks | [`lost`] |
//!
//! The last one is a race in hyper and tokio (hyperium/hyper#4122, tokio-rs/tokio#7714): the request stays in
//! the queue of a connection that is not read any more, and the wait for its answer never ends. It was seen
//! about once in 25,000 kills of a server.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Uri, http};
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected as Established, Connection, HttpConnector,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower_service::Service;

use super::tls::{Connected, Tls};

/// How long a machine may take to answer a call at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A server may take any time for an answer, but its machine has to be alive: during a wait it is probed
/// after this time without a byte, repeatedly, and counts as gone after a number of probes without an answer.
/// Bytes that are still to be sent have the system's own, longer, limit.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Once a connection is lost, a request that waits for an answer of it is told within this time, or never.
const GRACE: Duration = Duration::from_secs(1);

type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections that report their loss.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    /// How to encrypt; `None`: not at all.
    tls: Option<Tls>,
}

impl Connector {
    pub(super) fn new(tls: Option<Tls>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_keepalive(Some(PROBE_AFTER));
        connector.set_keepalive_interval(Some(PROBE_EVERY));
        connector.set_keepalive_retries(Some(PROBES));
        Self { tcp: connector, tls }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.tcp.poll_ready(cx).map_err(ConnectError::from)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri.clone());
        let tls = self.tls.clone();
        Box::pin(async move {
            let plain = connecting.await?;
            let inner = match tls {
                None => Inner::Plain(plain),
                Some(tls) => {
                    let handshake = tls.connect(uri.host().unwrap_or_default(), plain.into_inner());
                    let stream = tokio::time::timeout(CONNECT_WITHIN, handshake).await??;
                    Inner::Tls(Box::new(TokioIo::new(stream)))
                }
            };
            Ok(Stream { inner, here: watch::Sender::new(()) })
        })
    }
}

/// Bytes as they cross the network.
enum Inner {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<Connected>>),
}

/// Calls a method of the connection, whichever kind it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &mut $stream.inner {
            Inner::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Inner::Tls($inner) => {
                let $inner = Pin::new($inner.as_mut());
                $call
            }
        }
    };
}

/// A connection. It is lost when this is dropped.
pub(super) struct Stream {
    inner: Inner,
    here: watch::Sender<()>,
}

impl Connection for Stream {
    fn connected(&self) -> Established {
        let connected = match &self.inner {
            Inner::Plain(inner) => inner.connected(),
            Inner::Tls(_) => Established::new(),
        };
        connected.extra(Presence(self.here.subscribe()))
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(cx, into))
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(inner) => inner.is_write_vectored(),
            Inner::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write_vectored(cx, pieces))
    }
}

/// Presence of a connection.
#[derive(Clone)]
struct Presence(watch::Receiver<()>);

impl Presence {
    fn of(connected: &Established) -> Option<Self> {
        let mut extras = http::Extensions::new();
        connected.get_extras(&mut extras);
        extras.remove()
    }

    async fn end(&mut self) {
        // The sender never sends: only its end is reported.
        while self.0.changed().await.is_ok() {}
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

/// Returns some time after the connection of a request was lost. Until then all known bytes of its answer
/// have been delivered; more will not come.
pub(super) async fn lost(mut used: CaptureConnection) {
    used.wait_for_connection_metadata().await;
    lost_by(|| used.connection_metadata().as_ref().and_then(Presence::of)).await;
}

/// Like [`lost`]; `used` returns the connection that currently has the request, or `None` if no other will
/// follow.
async fn lost_by(mut used: impl FnMut() -> Option<Presence>) {
    let mut last: Option<Presence> = None;
    while let Some(mut now) = used() {
        // A request that was certainly not sent is given to another connection.
        if last.is_some_and(|last| last.is_of_the_same(&now)) {
            return;
        }
        now.end().await;
        tokio::time::sleep(GRACE).await;
        last = Some(now);
    }
    pending().await
}

#[cfg(test)]
mod tests;
