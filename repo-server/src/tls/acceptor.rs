//! The TLS side of a connection.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::PeerCertificate;
use super::error::TlsError;
use crate::clock::Clock;

/// Bytes that are read from the network at once: rustls asks for 4 KiB at a time.
const READ_AHEAD: usize = 128 << 10;
/// Bytes of plaintext that are encrypted before they are written, so that large answers take few system calls.
const SEND_BUFFER: usize = 256 << 10;
/// Every record of a handshake starts with this byte, and no request of HTTP does.
const HANDSHAKE_RECORD: u8 = 22;

/// A new connection, after its first bytes.
pub(crate) enum Accepted<S> {
    /// TLS, and the certificate that the client has shown.
    Tls(Box<TlsStream<BufReader<S>>>, Option<PeerCertificate>),
    /// A client that does not speak TLS. Nothing was answered yet.
    Plain(BufReader<S>),
}

/// Takes the handshake of a new connection. The caller sets a time limit.
///
/// # Errors
/// Errors of the connection, and handshakes that fail.
pub(super) async fn accept<S>(config: Arc<ServerConfig>, stream: S) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::with_capacity(READ_AHEAD, stream);
    match stream.fill_buf().await?.first() {
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
        Some(&HANDSHAKE_RECORD) => {}
        Some(_) => return Ok(Accepted::Plain(stream)),
    }
    let enlarge = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(SEND_BUFFER));
    let stream = TlsAcceptor::from(config).accept_with(stream, enlarge).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.and_then(|der| PeerCertificate::of(der));
    if shown.is_some() && certificate.is_none() {
        tracing::debug!(
            "the certificate of a client names no node: the client counts as one without a certificate"
        );
    }
    Ok(Accepted::Tls(Box::new(stream), certificate))
}

/// The CA whose certificates show that a client is a node.
pub(super) fn client_roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    store.add(ca.clone()).map_err(|error| TlsError::ClientCa(error.into()))?;
    Ok(store)
}

/// How the server speaks TLS: version 1.3, HTTP/1.1, no data before the end of the handshake, a full handshake for each
/// connection, and a certificate of the client if it has one.
pub(super) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
    clock: Arc<dyn Clock>,
    pair: impl FnOnce(rustls::Error) -> TlsError,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier =
        verifier.allow_unauthenticated().build().map_err(|error| TlsError::ClientCa(error.into()))?;
    let config = ServerConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3");
    let mut config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would take the certificate of a client from its first handshake.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// The clock of the server, for the ends of certificates.
pub(super) struct Time(pub(super) Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.unix_ms())))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}
