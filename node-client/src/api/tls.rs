//! TLS 1.3 to a server: its certificate is checked against one CA, and this node shows its own.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use format_spec::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible,
    RootCertStore, SignatureScheme,
};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::credentials::{Credentials, Trust};
use crate::error::{ClientError, TlsFailure};

/// Bytes that are read from the network at once: rustls asks for 4 KiB at a time.
const READ_AHEAD: usize = 128 << 10;
/// Bytes of plaintext that are encrypted before they are written, so that large bodies take few system calls.
const SEND_BUFFER: usize = 1 << 20;

/// How this client speaks TLS.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Reads all files that `credentials` name.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if one does not hold what it should, [`ClientError::Disk`] if one cannot be read.
    pub(super) fn new(credentials: &Credentials) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites of TLS 1.3");
        let config = match &credentials.trust {
            Trust::System => config.with_root_certificates(system_roots()?),
            Trust::File(path) => config.with_root_certificates(roots_in(path)?),
            Trust::Pinned(fingerprint) => {
                let verifier = Pinned { fingerprint: *fingerprint, provider };
                config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &credentials.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = read_identity(identity)?;
                config.with_client_auth_cert(chain, key).map_err(|error| {
                    let shown = identity.display();
                    ClientError::Usage(format!("the certificate in `{shown}` does not fit its key: {error}"))
                })?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Takes the handshake with `host`, which the certificate of the server must name.
    ///
    /// # Errors
    /// Errors of the connection, and [`rustls::Error`] inside of them.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Connected> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        self.0.connect_with(name, stream, |tls| tls.set_buffer_limit(Some(SEND_BUFFER))).await
    }
}

/// An encrypted connection.
pub(super) type Connected = TlsStream<BufReader<TcpStream>>;

fn system_roots() -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let hint = "give that of the server with --ca FILE, or its fingerprint as `ca_sha256` in client.toml";
        return Err(ClientError::Usage(format!("this machine trusts no CA: {hint}")));
    }
    Ok(roots)
}

fn roots_in(path: &Path) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| {
            ClientError::Usage(format!("a certificate in `{}` cannot be a CA: {error}", path.display()))
        })?;
    }
    Ok(roots)
}

fn read_identity(path: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ClientError> {
    let mode = fs::metadata(path).map_err(|source| unreadable(path, source))?.permissions().mode();
    let shown = path.display();
    if mode & 0o077 != 0 {
        return Err(ClientError::Usage(format!(
            "other users of this machine can read or replace the key in `{shown}`: run `chmod 600 {shown}`, and replace the key if somebody may have read it"
        )));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(path)?);
    let key = key.map_err(|_| ClientError::Usage(format!("`{shown}` holds no private key in PEM format")))?;
    Ok((read_certificates(path)?, key))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    all.ok()
        .filter(|all| !all.is_empty())
        .ok_or_else(|| ClientError::Usage(format!("`{}` holds no certificate in PEM format", path.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    fs::read(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> ClientError {
    if source.kind() == io::ErrorKind::NotFound {
        return ClientError::Usage(format!("the file `{}` does not exist", path.display()));
    }
    ClientError::Disk { action: "read", path: path.to_owned(), source }
}

/// Trusts the CA with one fingerprint, if the server sends it, and no other.
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|sent| Fingerprint::of(sent) == self.fingerprint);
        let unknown = || Error::from(CertificateError::UnknownIssuer);
        let mut roots = RootCertStore::empty();
        roots.add(pinned.ok_or_else(unknown)?.clone().into_owned()).map_err(|_| unknown())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The failure of TLS that an error is about, if any of its causes is one.
pub(super) fn failure(error: &(dyn std::error::Error + 'static)) -> Option<TlsFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(of_rustls(error));
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn of_rustls(error: &Error) -> TlsFailure {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InvalidMessage(_) => TlsFailure::NoTls,
        Error::PeerIncompatible(_) => TlsFailure::Version,
        Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure) => {
            TlsFailure::Version
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied),
        ) => TlsFailure::Refused { alert: format!("{alert:?}") },
        error => TlsFailure::Other { why: error.to_string() },
    }
}

fn of_certificate(error: &CertificateError) -> TlsFailure {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFailure::UnknownCa,
        CertificateError::NotValidForNameContext { expected, presented } => TlsFailure::WrongName {
            asked: expected.to_str().into_owned(),
            has: presented.iter().map(|name| plain(name)).collect(),
        },
        CertificateError::ExpiredContext { not_after, .. } => TlsFailure::Expired { end: day(*not_after) },
        CertificateError::NotValidYetContext { not_before, .. } => {
            TlsFailure::NotYetValid { start: day(*not_before) }
        }
        error => TlsFailure::Other { why: error.to_string() },
    }
}

/// A name as people write it: rustls gives `DnsName("a")` and `IpAddress(127.0.0.1)`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"').to_owned()
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "an unknown day".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
