//! Requests as they go over the wire, and answers as they come back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use format_spec::ErrorClass;
use format_spec::wire::{ForgetRequest, RetentionPolicy, RunMode};

use super::*;
use crate::api::Retry;

/// Log of this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Hears what is logged until the answer is dropped.
    #[expect(clippy::disallowed_methods, reason = "memory can always be written")]
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || log.clone()).with_ansi(false).finish();
        tracing::subscriber::set_default(logs)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `question` against a server that answers one request so; returns the request as well.
pub(super) fn asked<T>(
    status: u16,
    answer: &str,
    question: impl AsyncFnOnce(Api) -> Result<T, ClientError>,
) -> (String, Result<T, ClientError>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n\r\n{answer}");
    let request: JoinHandle<String> = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&stream);
        // A client that has read enough closes the connection.
        let _ = stream.write_all(answer.as_bytes());
        request
    });
    let api = Api::new(&address, "token", Retry::once()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(question(api));
    (request.join().unwrap(), outcome)
}

/// Method, path and body of a request.
fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut len = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            len = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    let target = first.trim_end().trim_end_matches(" HTTP/1.1");
    format!("{target} {}", String::from_utf8(body).unwrap()).trim_end().to_owned()
}

const ID: &str = "018bcfe5-6800-7707-8707-070707070707";

fn id() -> SnapshotId {
    ID.parse().unwrap()
}

const INFO: &str = r#"{"id": "018bcfe5-6800-7707-8707-070707070707", "cluster": "c", "nodes": ["n"], "created": "t",
    "state": "complete", "files": 1, "bytes": 2, "problems": 0, "protected": "law", "going_until": "later"}"#;

#[test]
fn a_snapshot_is_protected_and_brought_back_by_its_id() {
    let (protect, protected) = asked(200, INFO, async |api| api.protect(id(), "law \"7\"".to_owned()).await);
    let (unprotect, _) = asked(200, INFO, async |api| api.unprotect(id()).await);
    let (undelete, _) = asked(200, INFO, async |api| api.undelete(id()).await);

    let protection = format!("/v1/snapshots/{ID}/protection");
    assert_eq!(protect, format!(r#"PUT {protection} {{"reason":"law \"7\""}}"#));
    assert_eq!(unprotect, format!("DELETE {protection}"));
    assert_eq!(undelete, format!("POST /v1/snapshots/{ID}/undelete"));
    let info = protected.unwrap();
    assert_eq!((info.protected.as_deref(), info.going_until.as_deref()), (Some("law"), Some("later")));
}

const NOWHERE: &str = r#"{"code": "no_chunk", "class": "not_found", "message": "there is no such chunk"}"#;

#[test]
fn a_snapshot_and_a_chunk_are_asked_for_by_their_ids() {
    let detail = INFO.replace("\"files\"", "\"alone_bytes\": 7, \"files\"");
    let chunk = ChunkId::from_bytes([5; 32]);

    let (shown, detail) = asked(200, &detail, async |api| api.snapshot_detail(id()).await);
    let (located, nowhere) = asked(404, NOWHERE, async |api| api.locate_chunk(chunk).await);

    assert_eq!(shown, format!("GET /v1/snapshots/{ID}/detail"));
    assert_eq!(detail.unwrap().alone_bytes, Some(7));
    assert_eq!(located, format!("GET /v1/chunks/chunk:{}", "05".repeat(32)));
    assert_eq!(nowhere.unwrap_err().class(), ErrorClass::NotFound);
}

/// A rule of zero is another rule than none.
#[test]
fn a_policy_goes_as_it_is() {
    let policy = RetentionPolicy { minimum: Some(0), keep_yearly: Some(2), ..RetentionPolicy::default() };
    let request = ForgetRequest { mode: RunMode::Apply, policy: Some(policy), ..ForgetRequest::default() };
    let report = r#"{"mode": "apply", "snapshots": [], "frees_bytes": 9}"#;

    let (sent, report) = asked(200, report, async |api| api.forget(&request).await);

    let body = sent.strip_prefix("POST /v1/forget ").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["policy"], serde_json::json!({"minimum": 0, "keep_yearly": 2}));
    assert_eq!(body["mode"], "apply");
    assert_eq!(report.unwrap().frees_bytes, Some(9));
}

/// C7: whoever answers, what is no answer of ours fails, and its class is what one can do about it: choose another
/// address, or wait for the server behind a proxy.
#[test]
fn what_a_foreign_server_answers_is_neither_damage_nor_a_defect_of_ours() {
    for (status, class) in [
        (200, ErrorClass::Usage),
        (302, ErrorClass::Usage),
        (401, ErrorClass::Denied),
        (403, ErrorClass::Denied),
        (404, ErrorClass::Usage),
        (413, ErrorClass::Usage),
        (429, ErrorClass::Unavailable),
        (500, ErrorClass::Usage),
        (503, ErrorClass::Unavailable),
    ] {
        let (sent, refused) = asked(status, "<html>", async |api| api.stats().await);
        let refused = refused.unwrap_err();
        assert_eq!((sent.as_str(), refused.class()), ("GET /v1/stats", class), "{status}");
        if class == ErrorClass::Usage {
            assert!(refused.to_string().contains("is not an Astacus server"), "{refused}");
        }
    }
}

/// C7: a server that takes a request and says nothing is given up on after a while.
#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let silence = Duration::from_secs(300);
    let api = Api::new(&address, "token", Retry { silence: Some(silence), ..Retry::once() }).unwrap();
    let start = tokio::time::Instant::now();
    let log = Log::default();
    let _logs = log.start();

    let error = api.status().await.unwrap_err();

    let expected = format!("no answer from {address} for 5 s: waiting for 295 s more");
    assert!(log.text().contains(&expected), "{}", log.text());

    assert!(start.elapsed() >= silence, "{:?}", start.elapsed());
    assert_eq!(error.class(), ErrorClass::Unavailable);
    let ClientError::Unreachable { server, source, .. } = &error else { panic!("{error}") };
    assert_eq!(*server, address);
    assert_eq!(source.to_string(), "the server sent nothing for 300 s");
}
