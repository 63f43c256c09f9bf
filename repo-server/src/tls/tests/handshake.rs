//! Handshakes over real sockets, with clients that do what they should and clients that do not.

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::acceptor::{Time, provider};

/// A chain and its key, as a client shows them.
type Shown = (Vec<rustls::pki_types::CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A client that trusts the CA of `tls`.
fn client(scene: &Scene, tls: &Tls, shown: Option<Shown>, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(tls.authority().der().clone()).unwrap();
    let time = Arc::new(Time(scene.clock.clone()));
    let config = ClientConfig::builder_with_details(Arc::new(provider()), time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// How the server sees a connection of `client`, which says a word.
async fn meet(tls: &Tls, client: ClientConfig) -> io::Result<Option<PeerCertificate>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let says = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        stream.write_all(b"word").await?;
        stream.flush().await?;
        stream.read_u8().await
    });
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = tls.accept(stream).await;
    let seen = match accepted {
        Ok(Accepted::Tls(mut stream, shown)) => {
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"word");
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
            Ok(shown)
        }
        Ok(Accepted::Plain(_)) => panic!("the client spoke TLS"),
        Err(error) => Err(error),
    };
    let heard = says.await.unwrap();
    assert_eq!(heard.is_ok(), seen.is_ok(), "both see the same end: {heard:?}, {seen:?}");
    seen
}

/// A certificate of a node by `authority`, with its key.
fn of_node(authority: &Authority, validity: Duration) -> Shown {
    let (key, csr) = request();
    let chain = authority.sign(&csr, node(), validity).unwrap().chain_pem;
    shown(&chain, &key.serialize_pem())
}

fn shown(chain: &str, key: &str) -> Shown {
    let path = Path::new("shown");
    (files::certificates(path, chain.as_bytes()).unwrap(), files::key(path, key.as_bytes()).unwrap())
}

/// T1: a client shows a certificate that its server's CA signed for clients, or none; all others are refused.
#[tokio::test]
async fn only_certificates_of_nodes_that_are_valid_now_are_accepted() {
    let scene = Scene::new();
    let tls = scene.open();
    let ours = tls.authority();
    let meets = async |shown| meet(&tls, client(&scene, &tls, shown, &["http/1.1"])).await;

    assert_eq!(meets(None).await.unwrap(), None);
    let seen = meets(Some(of_node(ours, DAY))).await.unwrap().unwrap();
    assert_eq!(seen.node, node());

    let pair = ours.server_pair(&settings(&["localhost"]).names).unwrap();
    let no_node = rcgen_client(ours, "a name");
    assert_eq!(meets(Some(no_node)).await.unwrap(), None, "it names no node, and is one of ours");
    for (shown, why) in [
        (of_node(&scene.authority("other", Duration::ZERO), DAY), "another CA"),
        (of_node(&scene.authority("tls", DAY * 3), DAY), "not yet valid"),
        (shown(&pair.chain_pem, &pair.key_pem), "for servers"),
    ] {
        assert!(meets(Some(shown)).await.is_err(), "{why}");
    }
    let soon_over = of_node(ours, DAY);
    scene.clock.advance(DAY * 2);
    assert!(meets(Some(soon_over)).await.is_err(), "expired");
}

fn rcgen_client(authority: &Authority, common_name: &str) -> Shown {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let chain = authority.issue(&params, &key).unwrap().pem();
    shown(&chain, &key.serialize_pem())
}

#[tokio::test]
async fn only_http_1_1_is_spoken() {
    let scene = Scene::new();
    let tls = scene.open();

    assert!(meet(&tls, client(&scene, &tls, None, &[])).await.is_ok());
    assert!(meet(&tls, client(&scene, &tls, None, &["h2", "http/1.1"])).await.is_ok());
    assert!(meet(&tls, client(&scene, &tls, None, &["h2"])).await.is_err());
}

/// What the server answers to these first bytes of a client.
async fn answer_to(tls: &Tls, first: &[u8]) -> (bool, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.write_all(first).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let is_plain = matches!(tls.accept(accepted).await, Ok(Accepted::Plain(_)));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    (is_plain, answer)
}

/// T1: versions before TLS 1.3 are refused.
#[tokio::test]
async fn a_client_of_tls_1_2_gets_the_alert_about_the_version() {
    let scene = Scene::new();
    let tls = scene.open();
    // A hello of TLS 1.2: its version, 32 bytes of chance, no session, one suite, no compression, the curve P-256 and a
    // signature with it.
    let extensions =
        [&[0, 10, 0, 4, 0, 2, 0, 23][..], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 4, 0, 2, 4, 3]].concat();
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let body = [&[3, 3][..], &[9; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0], &len(&extensions), &extensions].concat();
    let hello = [&[1, 0][..], &len(&body), &body].concat();
    let record = [&[22, 3, 1][..], &len(&hello), &hello].concat();

    let (_, answer) = answer_to(&tls, &record).await;

    // An alert (21) that is fatal (2) and about the version (70).
    assert_eq!((answer.first(), answer.get(5..)), (Some(&21), Some(&[2, 70][..])), "{answer:?}");
}

#[tokio::test]
async fn a_client_without_tls_is_known_by_its_first_byte() {
    let scene = Scene::new();
    let tls = scene.open();

    assert!(answer_to(&tls, b"GET /healthz HTTP/1.1\r\n\r\n").await.0);
}
