//! Documents for programs: one JSON document on standard output, with the promised fields.

use serde_json::Value;
use tests::client::{Client, text};
use tests::corpus;
use tests::seed::Random;
use tests::world::World;

fn pushed(world: &World) -> (Client, Value) {
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 5, 10_000);
    let node = world.node("n");
    let report = node.push(&root);
    (node, report)
}

#[track_caller]
fn has(document: &Value, fields: &[&str]) {
    let missing: Vec<_> = fields.iter().filter(|field| document.get(field).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} are missing from {document:#}");
}

/// S5: a push report says what was done, and how safe it is.
#[test]
fn a_push_report_has_the_fields_that_were_promised() {
    let world = World::new();
    let (_, report) = pushed(&world);

    has(&report, &["snapshot", "files", "bytes", "bytes_read", "bytes_sent", "bytes_stored", "seconds"]);
    assert_eq!(text(&report, "durability"), "local");
    assert_eq!(report["files"], 5);
}

#[test]
fn a_listed_snapshot_has_the_fields_that_were_promised() {
    let world = World::new();
    let (node, report) = pushed(&world);

    let listed = node.snapshots();

    let [snapshot] = listed.as_slice() else { panic!("one push, {} snapshots", listed.len()) };
    has(snapshot, &["id", "cluster", "nodes", "created", "state", "files", "bytes"]);
    assert_eq!(snapshot["id"], report["snapshot"]);
    assert_eq!(snapshot["cluster"], "c");
    assert_eq!(snapshot["nodes"], serde_json::json!(["n"]));
    assert_eq!(snapshot["state"], "complete");
    assert_eq!(snapshot["files"], report["files"]);
    assert_eq!(snapshot["bytes"], report["bytes"]);
}

#[test]
fn a_list_is_oldest_first_and_of_the_clients_cluster() {
    let world = World::new();
    let (node, first) = pushed(&world);
    let second = node.push(&world.path("source"));
    world.node_of("other", "n").push(&world.path("source"));

    let expected: Vec<String> = [first, second].iter().map(|report| text(report, "snapshot")).collect();
    assert_eq!(node.snapshot_ids(), expected);
    let all = node.admin(&["snapshots", "--json"]).exits(0).json();
    assert_eq!(all.as_array().map(Vec::len), Some(3), "{all}");
}

#[test]
fn a_restore_and_a_verify_report_say_what_was_done() {
    let world = World::new();
    let (node, report) = pushed(&world);

    let restored = node.restore("latest", &world.path("restored"), &[]).exits(0).json();
    let verified = node.run(["verify", "latest", "--json"]).exits(0).json();

    for done in [&restored, &verified] {
        has(done, &["snapshot", "files", "bytes", "seconds"]);
        assert_eq!(done["snapshot"], report["snapshot"]);
        assert_eq!(done["bytes"], report["bytes"]);
    }
    has(&restored, &["failed", "damaged_count", "not_made_count", "damaged_pages", "skipped", "unmatched"]);
    has(&restored, &["unchanged", "not_set", "warnings", "leftovers_removed", "state"]);
}

#[test]
fn a_status_has_counts_and_the_bytes_stored() {
    let world = World::new();
    let (node, _) = pushed(&world);

    let status = node.status();

    has(&status, &["server", "repository", "engine", "snapshots", "packs", "chunks", "stored_bytes"]);
    assert_eq!(status["snapshots"], 1);
    assert_eq!(status["open_sessions"], 0);
}

/// C7: a failure is one document too, and its exit code is in it.
#[test]
fn a_failure_is_one_document_with_class_and_exit_code() {
    let world = World::new();
    let (node, _) = pushed(&world);
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";

    let failed = node.restore(id, &world.path("restored"), &[]).exits(10).json();

    let error = &failed["error"];
    has(error, &["class", "code", "message", "exit_code"]);
    assert_eq!(error["code"], "no_such_snapshot");
    assert_eq!(error["exit_code"], 10);
}

#[test]
fn without_json_people_are_told_on_standard_output_and_quietly_nothing_at_all() {
    let world = World::new();
    let (node, _) = pushed(&world);
    let root = world.path("source");

    let told = node.run([std::path::Path::new("push"), &root]).exits(0);
    let quiet = node.run([std::path::Path::new("push"), "--quiet".as_ref(), &root]).exits(0);

    assert!(told.stdout.contains("snapshot"), "{}", told.stdout);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}
