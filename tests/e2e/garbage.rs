//! A stranger's noise on every endpoint: always a 4xx or a closed connection, and nothing changes.

use format_spec::SessionId;
use tests::gear;
use tests::http::{Length, Request, Wire};
use tests::seed::Random;
use tests::world::World;

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"];

/// A path that looks like one of ours, more or less.
fn path(random: &mut Random, session: SessionId) -> String {
    let noise = format!("{:x}", random.number());
    let id = random
        .pick(&[
            session.to_string(),
            "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
            noise.clone(),
            "%00".to_owned(),
            "%ff%fe".to_owned(),
            "..%2f..".to_owned(),
            "a".repeat(3000),
        ])
        .clone();
    let templates = [
        "/v1/sessions",
        "/v1/sessions/{}",
        "/v1/sessions/{}/renew",
        "/v1/sessions/{}/have",
        "/v1/sessions/{}/blobs",
        "/v1/sessions/{}/commit",
        "/v1/snapshots",
        "/v1/snapshots?cluster={}",
        "/v1/snapshots?{}",
        "/v1/snapshots/{}",
        "/v1/snapshots/{}/key",
        "/v1/snapshots/{}/manifests/{}",
        "/v1/snapshots/{}/blobs",
        "/v1/verify",
        "/v1/status",
        "/healthz",
        "/{}",
        "//v1//{}",
    ];
    random.pick(&templates).replace("{}", &id)
}

/// A body that looks like one of ours, more or less.
fn body(random: &mut Random) -> Vec<u8> {
    let len = random.index(2000);
    match random.below(7) {
        0 => Vec::new(),
        1 => random.bytes(len),
        2 => random.bytes(32 * (len % 9)),
        3 => random.text(len),
        4 => b"{".repeat(len),
        5 => {
            let mut frame = random.bytes(44 + len);
            frame[0] = u8::try_from(random.below(3)).unwrap();
            frame[1..4].fill(0);
            frame[4..12].copy_from_slice(&[100, 0, 0, 0, 50, 0, 0, 0]);
            frame
        }
        _ => {
            let mut cbor = random.bytes(len);
            cbor.insert(0, 0xa9);
            cbor
        }
    }
}

fn length(random: &mut Random) -> Length {
    match random.below(6) {
        0 => Length::Chunked,
        1 => Length::BrokenOff(random.below(5000)),
        _ => Length::True,
    }
}

/// P4: whatever is sent with the right token, no request is a defect of the server's.
#[test]
fn garbage_on_every_endpoint_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let mut random = Random::printed();
    let wire = world.wire();
    let (session, _) = wire.session("c", "n");
    let before = wire.status();

    for _ in 0..gear::rounds(1500, 50_000) {
        let (path, body) = (path(&mut random, session), body(&mut random));
        let method = *random.pick(&METHODS);
        // The one request that would end the session which the others need.
        let ends_it = method == "DELETE" && path.ends_with(&session.to_string());
        let authorization = Some(wire.authorization());
        let request =
            Request { method, path: &path, authorization, body: &body, length: length(&mut random) };
        if ends_it {
            continue;
        }
        if let Some(answer) = wire.try_send(&request) {
            assert!(answer.status < 500, "{} for {request:?}", answer.status);
        }
    }

    assert!(world.server.runs());
    let after = wire.status();
    assert_eq!((after.snapshots, after.chunks, after.packs), (before.snapshots, before.chunks, before.packs));
    assert_eq!(wire.send("POST", &format!("/v1/sessions/{session}/renew"), b"").status, 200);
}

/// P4: bytes that are not even HTTP.
#[test]
fn bytes_that_are_no_request_at_all_do_no_harm() {
    let mut world = World::new();
    let mut random = Random::printed();
    let wire = world.wire();

    for _ in 0..gear::rounds(200, 10_000) {
        let len = random.index(3000);
        let start = *random.pick(&["", "GET ", "POST /v1/sessions HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n"]);
        let noise = [start.as_bytes(), &random.bytes(len)].concat();
        let answer = String::from_utf8_lossy(&wire.raw(&noise)).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    assert!(world.server.runs());
    healthy(&wire);
}

/// P4: as for every other stranger, noise without a token learns nothing.
#[test]
fn garbage_without_a_token_is_told_nothing() {
    let world = World::new();
    let mut random = Random::printed();
    let wire = world.wire();
    let (session, _) = wire.session("c", "n");

    for _ in 0..300 {
        let (path, body) = (path(&mut random, session), body(&mut random));
        let method = *random.pick(&METHODS);
        let request = Request { method, path: &path, authorization: None, body: &body, length: Length::True };
        let Some(answer) = wire.try_send(&request) else { continue };
        let healthz = path == "/healthz" && matches!(answer.status, 200 | 405);
        assert!(healthz || (400..500).contains(&answer.status), "{} for {request:?}", answer.status);
    }

    healthy(&wire);
}

fn healthy(wire: &Wire) {
    assert_eq!(wire.send("GET", "/healthz", b"").status, 200);
}
