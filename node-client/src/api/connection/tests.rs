use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use super::*;

/// A connection, and what tells of it.
fn presence() -> (watch::Sender<()>, Presence) {
    let here = watch::Sender::new(());
    let presence = Presence(here.subscribe());
    (here, presence)
}

/// True if a request is lost by now; time passes only while nothing else can run.
async fn is_lost(lost: Pin<&mut impl Future<Output = ()>>) -> bool {
    tokio::time::timeout(GRACE * 100, lost).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_lost_some_time_after_its_connection_has_gone_and_not_before() {
    let (here, presence) = presence();
    let lost = lost_by(|| Some(presence.clone()));
    tokio::pin!(lost);

    assert!(!is_lost(lost.as_mut()).await);
    drop(here);
    let gone = Instant::now();
    assert!(is_lost(lost).await);

    assert!((GRACE..GRACE * 2).contains(&gone.elapsed()), "{:?}", gone.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_given_to_another_connection_is_lost_with_that() {
    let (first, of_first) = presence();
    let (second, of_second) = presence();
    drop(first);
    let mut asked = 0;
    let lost = lost_by(|| {
        asked += 1;
        Some(if asked == 1 { of_first.clone() } else { of_second.clone() })
    });
    tokio::pin!(lost);

    assert!(!is_lost(lost.as_mut()).await);
    drop(second);

    assert!(is_lost(lost).await);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_connection_waits_for_what_is_said_of_it() {
    let lost = lost_by(|| None);
    tokio::pin!(lost);

    assert!(!is_lost(lost).await);
}

/// [`lost`] relies on this: a connection of ours notices when the server has ended it.
#[tokio::test]
async fn a_connection_that_its_server_ended_has_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (end, told) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        told.recv().unwrap();
    });
    let http: Client<Connector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build(Connector::new(None));
    let mut request = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
    let used = capture_connection(&mut request);

    let answer = http.request(request).await.unwrap();
    let mut presence = Presence::of(used.connection_metadata().as_ref().unwrap()).unwrap();
    let is_here = presence.0.has_changed().is_ok();
    end.send(()).unwrap();
    presence.end().await;

    assert!(answer.status().is_success() && is_here);
    server.join().unwrap();
}
