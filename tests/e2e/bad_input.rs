//! Requests that are wrong in one way each: a 4xx with a stable code, and nothing stored.

use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::wire::{ErrorBody, FrameHeader, MAX_BLOBS_LEN, MAX_IDS, MAX_JSON_LEN, Status, encode_end};
use format_spec::{ChunkId, MAX_CHUNK_LEN};
use tests::bodies::{chunk_frame, frame, manifest_of, page_of, stream};
use tests::gear;
use tests::http::{Length, Request};
use tests::world::World;

use crate::session::{Session, snapshots};

/// Status after all waiting data was written: a start over the folder shows it.
fn settled(world: &mut World) -> Status {
    assert!(world.server.stop().success());
    world.server.start_again();
    world.wire().status()
}

/// Sends bodies to a session of its own each, and checks that none changes what is stored.
#[track_caller]
fn each_is_refused(what: &str, bodies: &[Vec<u8>], expected: (u16, &str)) {
    let mut world = World::new();
    let before = world.wire().status();
    for (n, body) in bodies.iter().enumerate() {
        let session = Session::open(&world);
        assert_eq!(session.post(what, body).refusal(), (expected.0, expected.1.to_owned()), "body {n}");
        let path = format!("/v1/sessions/{}", session.id);
        assert_eq!(session.wire.send("DELETE", &path, b"").status, 204);
    }

    assert_eq!(settled(&mut world), before);
}

/// P1: nothing is stored under an id that its bytes do not have.
#[test]
fn a_blob_under_a_wrong_id_is_refused_and_not_stored() {
    let mut world = World::new();
    let session = Session::open(&world);
    let before = session.wire.status();
    let id = session.domain.id_of(BlobKind::Chunk, b"one thing");
    let page = session.domain.id_of(BlobKind::Page, b"one thing");
    let lies = [
        frame(BlobKind::Chunk, id, b"the other"),
        frame(BlobKind::Chunk, ChunkId::from_bytes([0; 32]), b"one thing"),
        // A page's id is not a chunk's, even for the same bytes.
        frame(BlobKind::Chunk, page, b"one thing"),
    ];

    for lie in lies {
        assert_eq!(session.send(&[lie]).refusal(), (400, "wrong_id".to_owned()));
    }

    assert!(!session.has(id) && !session.has(page));
    drop(session);
    assert_eq!(settled(&mut world).chunks, before.chunks);
}

/// P4: frames that are cut, padded, miscounted or of no known kind.
#[test]
fn malformed_frames_are_refused() {
    let id = ChunkId::from_bytes([1; 32]);
    let good = frame(BlobKind::Chunk, id, b"abcdefgh");
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        stream([frame.as_slice()].into_iter())
    };
    let end = encode_end(1);
    let bodies = [
        vec![],
        good.clone(),
        good[..20].to_vec(),
        [&good[..], &end[..30]].concat(),
        [&good[..], &encode_end(2)].concat(),
        [&encode_end(0)[..], &good].concat(),
        [&encode_end(0)[..], b"x"].concat(),
        with(0, 7),
        with(1, 9),
        with(2, 1),
        b"GET / HTTP/1.1\r\n\r\n".repeat(10),
        vec![0; 1000],
        vec![255; 1000],
    ];

    each_is_refused("blobs", &bodies, (400, "malformed"));
}

/// P1, P4: a length that lies is found out before it costs memory.
#[test]
fn frames_whose_lengths_lie_are_refused() {
    let lie = |plain_len, payload_len, compression, payload: &[u8]| {
        let id = ChunkId::from_bytes([1; 32]);
        let info = BlobInfo { kind: BlobKind::Chunk, id, plain_len, compression };
        let frame = [&FrameHeader { info, payload_len }.encode()[..], payload].concat();
        stream([frame.as_slice()].into_iter())
    };
    let bodies = [
        lie(9, 8, Compression::Raw, b"12345678"),
        lie(8, 4, Compression::Raw, b"12345678"),
        lie(8, 16, Compression::Raw, b"12345678"),
        lie(0, 0, Compression::Raw, b""),
        lie(MAX_CHUNK_LEN, 8, Compression::Zstd, b"12345678"),
        lie(MAX_CHUNK_LEN + 1, 8, Compression::Zstd, b"12345678"),
        lie(u32::MAX, u32::MAX, Compression::Zstd, b"12345678"),
        lie(100, 0, Compression::Zstd, b""),
    ];

    each_is_refused("blobs", &bodies, (400, "malformed"));
}

/// X7: a page is not stored before all chunks that it names.
#[test]
fn a_page_that_names_unknown_chunks_is_refused_and_not_stored() {
    let mut world = World::new();
    let session = Session::open(&world);
    let before = session.wire.status();
    let unknown = ChunkId::from_bytes([5; 32]);
    let page = page_of(&session.domain, &[(unknown, 10)]);
    let page_id = session.domain.id_of(BlobKind::Page, &page);

    let answer = session.send(&[frame(BlobKind::Page, page_id, &page)]);

    assert_eq!(answer.refusal(), (400, "unknown_chunks".to_owned()));
    assert_eq!(answer.json::<ErrorBody>().missing, [unknown]);
    assert!(!session.has(page_id));
    drop(session);
    assert_eq!(settled(&mut world).chunks, before.chunks);
}

/// X7: a chunk that a page names must be one, and not another page.
#[test]
fn a_page_that_names_a_page_as_its_chunk_is_refused() {
    let world = World::new();
    let session = Session::open(&world);
    let (chunk, chunk_frame) = chunk_frame(&session.domain, b"content");
    let page = page_of(&session.domain, &[(chunk, 7)]);
    let page_id = session.domain.id_of(BlobKind::Page, &page);
    let outer = page_of(&session.domain, &[(page_id, 7)]);
    let outer_id = session.domain.id_of(BlobKind::Page, &outer);
    assert_eq!(session.send(&[chunk_frame, frame(BlobKind::Page, page_id, &page)]).status, 200);

    let answer = session.send(&[frame(BlobKind::Page, outer_id, &outer)]);

    assert_eq!(answer.refusal(), (400, "unknown_chunks".to_owned()));
}

/// P4: bytes under a page's right id that are no page.
#[test]
fn a_page_that_is_none_is_refused() {
    let world = World::new();
    let session = Session::open(&world);

    for bytes in [&b"APG\x01"[..], b"APG\x02\x00", b"not a page", &[0; 500]] {
        let id = session.domain.id_of(BlobKind::Page, bytes);
        let answer = session.send(&[frame(BlobKind::Page, id, bytes)]);
        assert_eq!(answer.refusal(), (400, "malformed".to_owned()), "{bytes:?}");
        assert!(!session.has(id));
    }
}

/// P4: manifests that are cut, of another version, or something else.
#[test]
fn a_manifest_that_is_none_is_refused() {
    let good = manifest_of("n", &[]);
    let mut newer = good.clone();
    newer[2] = 9;
    let bodies = [vec![], b"{}".to_vec(), good[..good.len() - 1].to_vec(), [&good[..], b"x"].concat(), newer];

    each_is_refused("commit", &bodies, (400, "malformed"));
}

#[test]
fn id_lists_that_are_not_whole_are_refused() {
    each_is_refused("have", &[vec![1; 31], vec![1; 33]], (400, "malformed"));
}

#[test]
fn more_ids_than_one_request_may_name_are_refused() {
    let world = World::new();
    let session = Session::open(&world);

    assert_eq!(session.post("have", &vec![1; 32 * MAX_IDS]).status, 200);
    assert!(matches!(session.post("have", &vec![1; 32 * (MAX_IDS + 1)]).status, 400 | 413));
}

/// P4: a body over its limit is refused: by its claim before it is sent, and by its length where
/// nothing is claimed.
#[test]
fn a_body_over_its_limit_is_refused_with_413() {
    let world = World::new();
    let session = Session::open(&world);
    let wire = world.wire();
    let at = |what: &str| format!("/v1/sessions/{}/{what}", session.id);
    let json = vec![b' '; usize::try_from(MAX_JSON_LEN).unwrap() + 1];
    let over = [
        ("/v1/sessions".to_owned(), Length::True, &json[..]),
        ("/v1/sessions".to_owned(), Length::Chunked, &json),
        ("/v1/verify".to_owned(), Length::Chunked, &json),
        (at("blobs"), Length::Claimed(MAX_BLOBS_LEN + 1), b""),
        (at("blobs"), Length::Claimed(u64::MAX / 2), b""),
        (at("commit"), Length::Claimed(1 << 40), b""),
        (at("have"), Length::Claimed(1 << 40), b""),
    ];

    for (path, length, body) in over {
        let authorization = Some(wire.authorization());
        let request = Request { method: "POST", path: &path, authorization, body, length };
        let answer = wire.try_send(&request).unwrap_or_else(|| panic!("no answer to {path} {length:?}"));
        assert_eq!(answer.refusal(), (413, "too_large".to_owned()), "{path} {length:?}");
    }
}

/// A stranger's body takes no memory: who asks for a session that is none is refused before any of it has come.
#[test]
fn a_session_is_looked_at_before_a_body_is_waited_for() {
    let world = World::new();
    let wire = world.wire();

    for what in ["commit", "blobs"] {
        let path = format!("/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057/{what}");
        let authorization = Some(wire.authorization());
        let length = Length::Claimed(1 << 20);
        let request = Request { method: "POST", path: &path, authorization, body: b"", length };

        let answer = wire.try_send(&request).unwrap_or_else(|| panic!("no answer to {what}"));

        assert_eq!(answer.refusal(), (409, "session_over".to_owned()), "{what}");
    }
}

/// P4: a body that ends before its claimed length is no body.
#[test]
fn a_body_that_breaks_off_changes_nothing() {
    let mut world = World::new();
    let session = Session::open(&world);
    let before = session.wire.status();
    let (id, frame) = chunk_frame(&session.domain, b"never arrives whole");
    let body = stream([frame.as_slice()].into_iter());
    let path = format!("/v1/sessions/{}/blobs", session.id);
    let request = Request {
        method: "POST",
        path: &path,
        authorization: Some(session.wire.authorization()),
        body: &body[..frame.len() - 1],
        length: Length::BrokenOff(u64::try_from(body.len()).unwrap()),
    };

    let answer = session.wire.try_send(&request);

    assert!(answer.is_none_or(|answer| (400..500).contains(&answer.status)));
    assert!(!session.has(id));
    drop(session);
    assert_eq!(settled(&mut world).chunks, before.chunks);
}

#[test]
fn ids_names_and_json_that_are_none_are_refused_by_a_stable_code() {
    let world = World::new();
    let wire = world.wire();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let refused = |method, path: &str, body: &[u8]| wire.send(method, path, body).refusal();
    let is = |status, code: &str| (status, code.to_owned());

    assert_eq!(refused("GET", "/v1/snapshots/latest", b""), is(400, "bad_id"));
    assert_eq!(refused("GET", "/v1/snapshots/..%2f..%2fmaster.key", b""), is(400, "bad_id"));
    assert_eq!(refused("GET", &format!("/v1/snapshots/{id}"), b""), is(404, "no_such_snapshot"));
    assert_eq!(refused("GET", &format!("/v1/snapshots/{id}/manifests/n"), b""), is(404, "no_such_snapshot"));
    assert_eq!(refused("GET", &format!("/v1/snapshots/{id}/manifests/a%2fb"), b""), is(400, "bad_id"));
    assert_eq!(refused("GET", "/v1/snapshots?cluster=a%20b", b""), is(400, "bad_id"));
    assert_eq!(refused("GET", "/v1/snapshots?after=1", b""), is(400, "bad_query"));
    assert_eq!(refused("GET", "/v1/snapshots?cluster=%FF", b""), is(400, "bad_id"));
    assert_eq!(refused("GET", "/v1/snapshots?limit=1&limit=2", b""), is(400, "bad_query"));
    assert_eq!(refused("GET", "/v1/snapshots?clustr=c", b""), is(400, "bad_query"));
    assert_eq!(refused("GET", "/v1/snapshots/%FF", b""), is(400, "bad_id"));
    assert_eq!(refused("GET", "/v1/snapshots?limit=many", b""), is(400, "bad_query"));
    assert_eq!(refused("POST", "/v1/sessions/x/renew", b""), is(400, "bad_id"));
    assert_eq!(refused("POST", "/v1/sessions", b"{"), is(400, "bad_json"));
    assert_eq!(refused("POST", "/v1/sessions", br#"{"cluster":"a/b","node":"n"}"#), is(400, "bad_json"));
    assert_eq!(refused("POST", "/v1/verify", br#"{"level":"deep"}"#), is(400, "bad_json"));
    assert_eq!(refused("GET", "/v1/nothing", b""), is(404, "no_such_route"));
    assert_eq!(refused("PUT", "/v1/snapshots", b""), is(405, "wrong_method"));
    assert_eq!(snapshots(&wire), 0);
}

/// A connection whose header never ends is closed after ten seconds. The wait is for nightly runs.
#[test]
fn a_header_that_never_ends_is_not_waited_for_forever() {
    if !gear::is_set(gear::NIGHTLY) {
        return;
    }
    let world = World::new();
    let mut stream = world.wire().connect();
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();

    // The patience of the connection's timeout is the deadline: reading ends when the server hangs up.
    let mut said = Vec::new();
    let ended = std::io::Read::read_to_end(&mut stream, &mut said);

    assert!(ended.is_ok(), "{ended:?}");
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}
