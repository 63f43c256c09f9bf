//! Connections by TLS over real sockets, to servers that are as they should be and to others.

use std::path::PathBuf;

use format_spec::ErrorClass;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::super::{Api, Retry};
use super::*;

/// A CA, and a folder for files.
struct Ca {
    folder: tempfile::TempDir,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn trust(&self) -> Trust {
        Trust::File(self.path("ca.pem"))
    }

    /// A certificate for these names, and its key.
    fn sign(&self, names: &[&str], years: [i32; 2]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new(names).unwrap());
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A chain and key of a server.
    fn pair(
        &self,
        names: &[&str],
        years: [i32; 2],
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (signed, key) = self.sign(names, years);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![signed.der().clone(), self.certificate.clone()], key)
    }

    fn server(&self, names: &[&str], years: [i32; 2]) -> Arc<ServerConfig> {
        let (chain, key) = self.pair(names, years);
        Arc::new(server().with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    /// A server that asks for a certificate of this CA.
    fn asking_server(&self) -> Arc<ServerConfig> {
        let (chain, key) = self.pair(&["localhost"], NOW);
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let config = server().with_client_cert_verifier(verifier.build().unwrap());
        Arc::new(config.with_single_cert(chain, key).unwrap())
    }

    /// A file with the key and the chain of a client.
    fn identity(&self, mode: u32) -> PathBuf {
        let (certificate, key) = self.sign(&["node"], NOW);
        let path = self.path("identity.pem");
        fs::write(&path, key.serialize_pem() + &certificate.pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

const NOW: [i32; 2] = [2000, 4000];

fn server() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap()
}

/// A server of one connection that answers one request with an empty list, and returns the certificates that the client
/// has shown.
async fn serve(config: Arc<ServerConfig>) -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(mut stream) => {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let body = r#"{"snapshots":[]}"#;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + body).as_bytes()).await;
                let _ = stream.flush().await;
                stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len)
            }
            Err((_, mut stream)) => {
                // A close with unread bytes would be a reset, which the client could see in place of the alert.
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                0
            }
        }
    });
    (address, task)
}

/// How a question to the server at `address` ends.
async fn ask(address: &str, credentials: Credentials) -> Result<(), ClientError> {
    let api =
        Api::with(address, &Credentials { token: Some("token".to_owned()), ..credentials }, Retry::once())?;
    api.snapshots(None).await.map(drop)
}

fn trusting(trust: Trust) -> Credentials {
    Credentials { trust, ..Credentials::default() }
}

/// The failure of a question to a server with this configuration.
async fn failure_of(config: Arc<ServerConfig>, credentials: Credentials) -> TlsFailure {
    let (address, _) = serve(config).await;
    match ask(&address, credentials).await.unwrap_err() {
        ClientError::Tls { failure, .. } => failure,
        other => panic!("{other}"),
    }
}

/// T3: a client talks to a server whose certificate the trusted CA signed for the name that was asked for.
#[tokio::test]
async fn a_server_is_known_by_the_file_of_its_ca_or_by_its_fingerprint() {
    let ca = Ca::new();
    for trust in [ca.trust(), Trust::Pinned(Fingerprint::of(&ca.certificate))] {
        let (address, served) = serve(ca.server(&["localhost"], NOW)).await;

        ask(&address, trusting(trust)).await.unwrap();

        assert_eq!(served.await.unwrap(), 0, "no certificate of the client");
    }
}

/// T3: every other server gets no request, and the message names the way out.
#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_refused_in_words() {
    let (ca, other) = (Ca::new(), Ca::new());
    let pins = [Trust::Pinned(Fingerprint::of(&other.certificate)), other.trust()];
    for trust in pins {
        let failure = failure_of(ca.server(&["localhost"], NOW), trusting(trust)).await;
        assert_eq!(failure, TlsFailure::UnknownCa);
        assert!(failure.to_string().contains("--ca FILE"), "{failure}");
    }

    let names = ["backup.example.org", "192.0.2.1"];
    for trust in [ca.trust(), Trust::Pinned(Fingerprint::of(&ca.certificate))] {
        let failure = failure_of(ca.server(&names, NOW), trusting(trust)).await;
        let told = failure.to_string();
        assert_eq!(failure.code(), "wrong_name");
        assert!(names.iter().all(|name| told.contains(&format!("`{name}`"))), "{told}");
        assert!(told.contains("--name localhost"), "{told}");
    }

    let expired = failure_of(ca.server(&["localhost"], [2000, 2001]), trusting(ca.trust())).await;
    assert_eq!(expired, TlsFailure::Expired { end: "2001-01-01T00:00:00Z".to_owned() });
    let early = failure_of(ca.server(&["localhost"], [3000, 3001]), trusting(ca.trust())).await;
    assert_eq!(early, TlsFailure::NotYetValid { start: "3000-01-01T00:00:00Z".to_owned() });
}

/// T1: a client shows its certificate, and reports an error if the server refuses that certificate.
#[tokio::test]
async fn a_node_shows_its_certificate() {
    let (ca, other) = (Ca::new(), Ca::new());
    let identity = Some(ca.identity(0o600));
    let credentials = |identity: Option<PathBuf>| Credentials { identity, ..trusting(ca.trust()) };

    let (address, served) = serve(ca.asking_server()).await;
    ask(&address, credentials(identity)).await.unwrap();
    assert_eq!(served.await.unwrap(), 1);

    for shown in [None, Some(other.identity(0o600))] {
        let failure = failure_of(ca.asking_server(), credentials(shown)).await;
        assert_eq!(failure.code(), "certificate_refused", "{failure}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_before_anything_is_sent() {
    let ca = Ca::new();
    let nothing = ca.path("nothing.pem");
    fs::write(&nothing, "no PEM").unwrap();
    let open = ca.identity(0o640);
    let told = async |credentials| match ask("https://localhost:1", credentials).await.unwrap_err() {
        ClientError::Usage(text) => text,
        other => panic!("{other}"),
    };
    let with = |identity: PathBuf| Credentials { identity: Some(identity), ..trusting(ca.trust()) };

    assert!(told(trusting(Trust::File(nothing.clone()))).await.contains("no certificate"));
    assert!(told(trusting(Trust::File(ca.path("gone.pem")))).await.contains("does not exist"));
    assert!(told(with(open.clone())).await.contains(&format!("chmod 600 {}", open.display())));
    fs::set_permissions(&nothing, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(told(with(nothing)).await.contains("no private key"));
}

/// Error of a client that gets these bytes in answer to its hello.
async fn answered(answer: &'static [u8]) -> TlsFailure {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16 << 10];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    match ask(&address, trusting(ca.trust())).await.unwrap_err() {
        error @ ClientError::Tls { .. } => {
            assert_eq!(error.class(), ErrorClass::Usage, "{error}");
            let ClientError::Tls { failure, .. } = error else { unreachable!() };
            failure
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_without_tls_or_with_an_old_version_is_told_apart() {
    assert_eq!(answered(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, TlsFailure::NoTls);
    // A fatal alert about the version.
    assert_eq!(answered(&[21, 3, 3, 0, 2, 2, 70]).await, TlsFailure::Version);
}
