//! The interface as a client uses it, step by step and in the wrong order.

use format_spec::key::{BlobKind, DomainKey};
use format_spec::wire::{
    BaseState, Committed, ErrorBody, Held, SessionOpened, SnapshotList, encode_ids, parse_held,
};
use format_spec::{ChunkId, ManifestId, SessionId, SnapshotId};
use serde_json::json;
use tests::bodies::{chunk_frame, frame, manifest_of, page_of, stream};
use tests::http::{Answer, Wire};
use tests::world::World;

/// A session of the node `n`, with the paths that lead to it.
pub(crate) struct Session {
    pub(crate) wire: Wire,
    pub(crate) id: SessionId,
    pub(crate) domain: DomainKey,
}

impl Session {
    pub(crate) fn open(world: &World) -> Self {
        let wire = world.wire();
        let (id, domain) = wire.session("c", "n");
        Self { wire, id, domain }
    }

    pub(crate) fn post(&self, what: &str, body: &[u8]) -> Answer {
        self.wire.send("POST", &format!("/v1/sessions/{}/{what}", self.id), body)
    }

    pub(crate) fn send(&self, frames: &[Vec<u8>]) -> Answer {
        self.post("blobs", &stream(frames.iter().map(Vec::as_slice)))
    }

    pub(crate) fn has(&self, id: ChunkId) -> bool {
        let answer = self.post("have", &encode_ids(&[id]));
        parse_held(&answer.body, 1).unwrap() == [Held::Here]
    }

    /// Sends a file of one chunk, and returns the manifest that would commit it.
    fn send_file(&self, content: &[u8]) -> Vec<u8> {
        let (chunk, chunk_frame) = chunk_frame(&self.domain, content);
        let page = page_of(&self.domain, &[(chunk, u32::try_from(content.len()).unwrap())]);
        let page_id = self.domain.id_of(BlobKind::Page, &page);
        assert_eq!(self.send(&[chunk_frame, frame(BlobKind::Page, page_id, &page)]).status, 200);
        manifest_of("n", &[(page_id, u32::try_from(page.len()).unwrap())])
    }

    fn commit(&self, manifest: &[u8]) -> SnapshotId {
        self.post("commit", manifest).json::<Committed>().snapshot.id
    }
}

pub(crate) fn snapshots(wire: &Wire) -> usize {
    wire.send("GET", "/v1/snapshots", b"").json::<SnapshotList>().snapshots.len()
}

/// S4: a session commits once, and asking again gives the same snapshot.
#[test]
fn a_commit_that_is_sent_again_gives_the_same_snapshot() {
    let mut world = World::new();
    let session = Session::open(&world);
    let manifest = session.send_file(b"content");

    let first = session.commit(&manifest);
    let again = session.commit(&manifest);
    let after_other_words = session.commit(&manifest_of("n", &[]));
    world.server.kill();
    world.server.start_again();
    let after_a_kill = Session { wire: world.wire(), ..session }.commit(&manifest);

    assert_eq!([again, after_other_words, after_a_kill], [first; 3]);
    assert_eq!(snapshots(&world.wire()), 1);
}

/// S2: a manifest whose pages are not there makes no snapshot, and the answer says which.
#[test]
fn a_commit_that_names_missing_pages_is_refused_and_says_which() {
    let world = World::new();
    let session = Session::open(&world);
    let missing = ChunkId::from_bytes([7; 32]);

    let answer = session.post("commit", &manifest_of("n", &[(missing, 100)]));

    assert_eq!(answer.refusal(), (409, "missing_chunks".to_owned()));
    assert_eq!(answer.json::<ErrorBody>().missing, [missing]);
    assert_eq!(snapshots(&session.wire), 0);
    let manifest = session.send_file(b"the session goes on");
    session.commit(&manifest);
}

/// S2: a chunk is not a page, even if it is there.
#[test]
fn a_commit_that_names_a_chunk_as_a_page_is_refused() {
    let world = World::new();
    let session = Session::open(&world);
    let (chunk, frame) = chunk_frame(&session.domain, b"just bytes");
    assert_eq!(session.send(&[frame]).status, 200);

    let answer = session.post("commit", &manifest_of("n", &[(chunk, 10)]));

    assert_eq!(answer.refusal(), (409, "missing_chunks".to_owned()));
    assert_eq!(snapshots(&session.wire), 0);
}

/// L2: a session speaks for the node that it was granted to, and for no other.
#[test]
fn a_commit_for_another_node_is_refused() {
    let world = World::new();
    let session = Session::open(&world);

    let answer = session.post("commit", &manifest_of("m", &[]));

    assert_eq!(answer.refusal(), (400, "wrong_owner".to_owned()));
    assert_eq!(snapshots(&session.wire), 0);
}

/// L2: a session that was ended changes nothing any more.
#[test]
fn nothing_is_taken_in_a_session_that_was_ended() {
    let world = World::new();
    let session = Session::open(&world);
    let manifest = session.send_file(b"content");
    let path = format!("/v1/sessions/{}", session.id);

    assert_eq!(session.wire.send("DELETE", &path, b"").status, 204);

    let (_, frame) = chunk_frame(&session.domain, b"late");
    for (what, body) in [("renew", &[][..]), ("have", &[]), ("blobs", &frame), ("commit", &manifest)] {
        assert_eq!(session.post(what, body).refusal(), (409, "session_over".to_owned()), "{what}");
    }
    assert_eq!(session.wire.send("DELETE", &path, b"").status, 204, "ending it twice is no trouble");
    assert_eq!(snapshots(&session.wire), 0);
}

#[test]
fn a_session_that_never_was_is_over() {
    let world = World::new();
    let never = SessionId::from_bytes([7; 16]);
    let session = Session { id: never, ..Session::open(&world) };

    assert_eq!(session.post("renew", b"").refusal(), (409, "session_over".to_owned()));
}

/// L1: each session gets a greater fencing token, also after a kill.
#[test]
fn fencing_tokens_grow_over_restarts() {
    let mut world = World::new();
    let token = |world: &World| {
        let body = br#"{"cluster":"c","node":"n"}"#;
        world.wire().send("POST", "/v1/sessions", body).json::<SessionOpened>().fencing_token
    };

    let before = [token(&world), token(&world)];
    world.server.kill();
    world.server.start_again();
    let after = token(&world);

    assert!(before[0] < before[1] && before[1] < after, "{before:?} {after}");
}

/// P2: blobs of another cluster are not given out, not even their presence.
#[test]
fn a_list_of_snapshots_is_asked_for_in_parts() {
    let world = World::new();
    let ids: Vec<SnapshotId> = ["one", "two", "three"]
        .map(|content| {
            let session = Session::open(&world);
            let manifest = session.send_file(content.as_bytes());
            session.commit(&manifest)
        })
        .to_vec();
    let part = |query: &str| {
        let list = world.wire().send("GET", &format!("/v1/snapshots{query}"), b"").json::<SnapshotList>();
        (list.snapshots.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), list.next)
    };

    let (first, next) = part("?limit=2");
    let (second, end) = part(&format!("?limit=2&after={}", next.expect("there is more")));

    assert_eq!([first, second].concat(), ids);
    assert_eq!((end, part("")), (None, (ids, None)));
}

/// Chunks of one cluster are not reported to another.
#[test]
fn a_manifest_is_a_base_for_its_own_cluster_only() {
    let world = World::new();
    let session = Session::open(&world);
    let committed = session.post("commit", &session.send_file(b"content")).json::<Committed>();
    let base = committed.manifest;

    let ask = |cluster: &str, base: Option<ManifestId>| {
        let asked = json!({ "cluster": cluster, "node": "n", "base": base });
        let answer = world.wire().send("POST", "/v1/sessions", asked.to_string().as_bytes());
        answer.json::<SessionOpened>().base
    };

    assert_eq!(ask("c", Some(base)), BaseState::Pinned);
    assert_eq!(ask("other", Some(base)), BaseState::Unknown);
    assert_eq!(ask("c", Some(ManifestId::from_bytes([7; 32]))), BaseState::Unknown);
}

#[test]
fn a_snapshot_gives_out_no_blob_of_another_cluster() {
    let world = World::new();
    let session = Session::open(&world);
    let manifest = session.send_file(b"ours");
    let snapshot = session.commit(&manifest);
    let (theirs, their_domain) = world.wire().session("other", "n");
    let (id, frame) = chunk_frame(&their_domain, b"theirs");
    let path = format!("/v1/sessions/{theirs}/blobs");
    assert_eq!(session.wire.send("POST", &path, &stream([frame.as_slice()].into_iter())).status, 200);
    let ask = |id| session.wire.send("POST", &format!("/v1/snapshots/{snapshot}/blobs"), &encode_ids(&[id]));

    let foreign = ask(id).refusal();

    assert_eq!(foreign, (404, "no_such_chunk".to_owned()));
    assert_eq!(foreign, ask(ChunkId::from_bytes([9; 32])).refusal());
    assert_eq!(ask(session.domain.id_of(BlobKind::Chunk, b"ours")).status, 200);
}
