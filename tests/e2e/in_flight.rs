//! Chunks on their way and sessions that died: who sends what, and who may not send any more.

use format_spec::key::{BlobKind, DomainKey};
use format_spec::wire::{BlobsStored, Committed, Held};
use format_spec::{ChunkId, SessionId};
use tests::bodies::{chunk_frame, frame, manifest_of, page_of, stream};
use tests::http::{Answer, Wire};
use tests::world::World;

use crate::session::snapshots;

const WAIT: &str = "?coming=wait";
const SEND: &str = "";

fn post(wire: &Wire, session: SessionId, what: &str, body: &[u8]) -> Answer {
    wire.send("POST", &format!("/v1/sessions/{session}/{what}"), body)
}

fn end(wire: &Wire, session: SessionId) {
    assert_eq!(wire.send("DELETE", &format!("/v1/sessions/{session}"), b"").status, 204);
}

/// Sends one frame, and returns how many blobs of it were new.
fn send(wire: &Wire, session: SessionId, frame: &[u8]) -> u64 {
    post(wire, session, "blobs", &stream([frame].into_iter())).json::<BlobsStored>().stored
}

/// Answer to a session that waits for others, about one chunk.
fn ask(wire: &Wire, session: SessionId, id: ChunkId) -> Held {
    wire.have(session, &[id], WAIT)[0]
}

/// Sends a file of one chunk, and returns the manifest of the node `n` that would commit it.
fn send_file(wire: &Wire, session: SessionId, domain: &DomainKey, content: &[u8]) -> Vec<u8> {
    let (chunk, chunk_frame) = chunk_frame(domain, content);
    let page = page_of(domain, &[(chunk, u32::try_from(content.len()).unwrap())]);
    let page_id = domain.id_of(BlobKind::Page, &page);
    send(wire, session, &chunk_frame);
    send(wire, session, &frame(BlobKind::Page, page_id, &page));
    manifest_of("n", &[(page_id, u32::try_from(page.len()).unwrap())])
}

/// L5: the first that asks sends, the second waits, and both have it.
#[test]
fn what_two_nodes_miss_at_once_is_sent_by_one() {
    let world = World::new();
    let wire = world.wire();
    let ((a, domain), (b, _)) = (wire.session("c", "n"), wire.session("c", "m"));
    let (id, frame) = chunk_frame(&domain, b"the same on both nodes");

    assert_eq!(ask(&wire, a, id), Held::Missing);
    assert_eq!(ask(&wire, b, id), Held::Coming);
    assert_eq!(ask(&wire, a, id), Held::Missing, "whoever promised it is to send it");
    assert_eq!(send(&wire, a, &frame), 1);

    assert_eq!(ask(&wire, b, id), Held::Here);
    assert_eq!(ask(&wire, a, id), Held::Here);
    assert_eq!(wire.have(b, &[id], SEND), [Held::Here]);
}

/// L5: in one question each id has its own answer.
#[test]
fn answers_come_in_the_order_of_the_question() {
    let world = World::new();
    let wire = world.wire();
    let ((a, domain), (b, _)) = (wire.session("c", "n"), wire.session("c", "m"));
    let (here, frame) = chunk_frame(&domain, b"here");
    let [coming, missing] = [[1; 32], [2; 32]].map(ChunkId::from_bytes);
    send(&wire, a, &frame);
    assert_eq!(ask(&wire, a, coming), Held::Missing);

    let told = wire.have(b, &[missing, coming, here, missing], WAIT);

    assert_eq!(told, [Held::Missing, Held::Coming, Held::Here, Held::Missing]);
}

#[test]
fn who_does_not_wait_promises_nothing_and_is_told_of_no_promise() {
    let world = World::new();
    let wire = world.wire();
    let ((a, domain), (b, _)) = (wire.session("c", "n"), wire.session("c", "m"));
    let (id, frame) = chunk_frame(&domain, b"content");

    assert_eq!(wire.have(a, &[id], SEND), [Held::Missing]);
    assert_eq!(ask(&wire, b, id), Held::Missing, "nobody has promised it yet");
    assert_eq!(wire.have(a, &[id], SEND), [Held::Missing]);
    assert_eq!(send(&wire, a, &frame), 1);

    assert_eq!(ask(&wire, b, id), Held::Here, "it arrived, whoever had promised it");
}

/// L5: an abort ends what was promised and not sent.
#[test]
fn if_the_one_that_promised_stops_another_is_asked_to_send() {
    let world = World::new();
    let wire = world.wire();
    let ((a, domain), (b, _)) = (wire.session("c", "n"), wire.session("c", "m"));
    let (id, _) = chunk_frame(&domain, b"never sent by the first");
    assert_eq!((ask(&wire, a, id), ask(&wire, b, id)), (Held::Missing, Held::Coming));

    end(&wire, a);

    let (again, _) = wire.session("c", "n");
    assert_eq!(ask(&wire, b, id), Held::Missing);
    assert_eq!(ask(&wire, again, id), Held::Coming);
}

/// L5: a commit ends what was promised and not sent; one that was refused does not.
#[test]
fn a_session_that_has_committed_sends_nothing_more() {
    let world = World::new();
    let wire = world.wire();
    let ((a, domain), (b, _)) = (wire.session("c", "n"), wire.session("c", "m"));
    let (id, _) = chunk_frame(&domain, b"never sent by the first");
    let manifest = send_file(&wire, a, &domain, b"something else");
    assert_eq!((ask(&wire, a, id), ask(&wire, b, id)), (Held::Missing, Held::Coming));

    assert_eq!(post(&wire, a, "commit", &manifest_of("m", &[])).refusal().1, "wrong_owner");
    assert_eq!(ask(&wire, b, id), Held::Coming);
    post(&wire, a, "commit", &manifest).json::<Committed>();

    assert_eq!(ask(&wire, b, id), Held::Missing);
}

/// P2: what is on its way in one cluster is nothing that another may learn of.
#[test]
fn a_promise_is_known_in_its_own_cluster_only() {
    let world = World::new();
    let wire = world.wire();
    let ((ours, domain), (theirs, _)) = (wire.session("c", "n"), wire.session("other", "n"));
    let (id, _) = chunk_frame(&domain, b"ours");

    assert_eq!(ask(&wire, ours, id), Held::Missing);

    assert_eq!(ask(&wire, theirs, id), Held::Missing);
}

#[test]
fn a_question_that_means_nothing_is_refused() {
    let world = World::new();
    let wire = world.wire();
    let (session, _) = wire.session("c", "n");

    for query in ["coming=later", "coming=", "coming=WAIT"] {
        let refused = post(&wire, session, &format!("have?{query}"), &[7; 32]).refusal();
        assert_eq!(refused, (400, "bad_query".to_owned()), "{query}");
    }
}

/// L4: a client that was only paused finds its session over, and nothing that it sends is taken.
#[test]
fn a_session_that_was_adopted_takes_nothing_any_more() {
    let world = World::new();
    let wire = world.wire();
    let (old, domain) = wire.session("c", "n");
    let manifest = send_file(&wire, old, &domain, b"content");
    let (late, late_frame) = chunk_frame(&domain, b"late");
    let late_frame = stream([late_frame.as_slice()].into_iter());

    let new = wire.open_session("c", "n", Some(old));

    assert!(new.adopted);
    let requests: [(&str, &[u8]); 5] = [
        ("renew", b""),
        ("have", late.as_bytes()),
        ("have?coming=wait", late.as_bytes()),
        ("blobs", &late_frame),
        ("commit", &manifest),
    ];
    for (what, body) in requests {
        assert_eq!(post(&wire, old, what, body).refusal(), (409, "session_over".to_owned()), "{what}");
    }
    end(&wire, old);
    assert_eq!(ask(&wire, new.session, late), Held::Missing);
    assert_eq!(snapshots(&wire), 0);
    post(&wire, new.session, "commit", &manifest).json::<Committed>();
    assert_eq!(snapshots(&wire), 1);
}

/// L4: the fence outlives the server.
#[test]
fn a_session_that_was_adopted_is_over_after_a_kill_too() {
    let mut world = World::new();
    let (old, _) = world.wire().session("c", "n");
    let new = world.wire().open_session("c", "n", Some(old));

    world.server.kill();
    world.server.start_again();

    let wire = world.wire();
    assert_eq!(post(&wire, old, "renew", b"").refusal(), (409, "session_over".to_owned()));
    assert_eq!(post(&wire, new.session, "renew", b"").status, 200);
}

/// L4, L5: what the dead client had promised is for the next to send.
#[test]
fn adoption_releases_what_the_old_session_had_promised() {
    let world = World::new();
    let wire = world.wire();
    let ((old, domain), (b, _)) = (wire.session("c", "n"), wire.session("c", "m"));
    let (id, frame) = chunk_frame(&domain, b"never sent by the dead client");
    assert_eq!((ask(&wire, old, id), ask(&wire, b, id)), (Held::Missing, Held::Coming));

    let new = wire.open_session("c", "n", Some(old)).session;

    assert_eq!(ask(&wire, new, id), Held::Missing);
    assert_eq!(ask(&wire, b, id), Held::Coming);
    assert_eq!(send(&wire, new, &frame), 1);
    assert_eq!(ask(&wire, b, id), Held::Here);
}

/// L4: a session is nobody else's to end.
#[test]
fn a_session_of_another_node_or_cluster_is_not_adopted() {
    let world = World::new();
    let wire = world.wire();
    let (session, domain) = wire.session("c", "n");
    let (id, _) = chunk_frame(&domain, b"promised");
    assert_eq!(ask(&wire, session, id), Held::Missing);

    for (cluster, node) in [("c", "m"), ("other", "n")] {
        let stranger = wire.open_session(cluster, node, Some(session));
        assert!(!stranger.adopted, "{cluster} {node}");
    }

    let (b, _) = wire.session("c", "m");
    assert_eq!(ask(&wire, b, id), Held::Coming, "what it has promised stands");
    let manifest = send_file(&wire, session, &domain, b"content");
    post(&wire, session, "commit", &manifest).json::<Committed>();
}

/// L4: there is nothing to adopt, and the push begins all the same.
#[test]
fn a_session_that_is_over_or_never_was_is_not_adopted() {
    let world = World::new();
    let wire = world.wire();
    let ((ended, domain), (committed, _)) = (wire.session("c", "n"), wire.session("c", "n"));
    end(&wire, ended);
    let manifest = send_file(&wire, committed, &domain, b"content");
    let snapshot = post(&wire, committed, "commit", &manifest).json::<Committed>().snapshot.id;

    for old in [ended, committed, SessionId::from_bytes([7; 16])] {
        let new = wire.open_session("c", "n", Some(old));
        assert!(!new.adopted, "{old}");
        assert_eq!(post(&wire, new.session, "renew", b"").status, 200);
    }

    let again = post(&wire, committed, "commit", &manifest).json::<Committed>();
    assert_eq!(again.snapshot.id, snapshot, "a commit that was lost can still be asked for");
}
