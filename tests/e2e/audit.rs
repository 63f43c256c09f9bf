//! Counts that are not what manifests and pages name: found, told, and mended.

use std::num::NonZeroUsize;
use std::path::Path;

use repo_server::index::{Batch, Engine, KeyRange, Table, open_existing};
use repo_server::rows::ChunkRow;
use serde_json::Value;
use tests::client::{number, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::world::{World, bytes_below};

/// Changes every count in the index of a server that does not run.
fn tamper(data: &Path) -> u64 {
    let index = open_existing(Engine::Fjall, &data.join("index")).unwrap();
    let found = index.scan(Table::Chunk, &KeyRange::all(), NonZeroUsize::MAX).unwrap();
    let mut batch = Batch::new();
    for row in &found.rows {
        let mut chunk = ChunkRow::decode(&row.value).unwrap();
        chunk.references = if chunk.references == 1 { 0 } else { chunk.references + 1 };
        batch.put(Table::Chunk, row.key.clone(), chunk.encode());
    }
    index.commit(batch).unwrap();
    u64::try_from(found.rows.len()).unwrap()
}

fn alarms(status: &Value) -> Vec<String> {
    let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
    alarms.iter().map(|alarm| alarm["code"].as_str().unwrap().to_owned()).collect()
}

/// X8: whatever becomes of the counts, an audit makes them what manifests and pages name.
#[test]
fn counts_that_differ_are_told_raise_an_alarm_and_are_mended() {
    let mut world = World::new();
    let mut random = Random::printed();
    let root = world.path("source");
    corpus::plain(&root, &mut random, 12, 300_000);
    let node = world.node("n");
    node.push(&root);
    corpus::work_on(&root, &mut random);
    node.push(&root);
    node.admin(&["verify", "--level", "refs"]).exits(0);
    world.server.stop();
    let rows = tamper(world.server.data());
    world.server.start_again();
    let node = world.node("n");

    let told = node.admin(&["verify", "--level", "refs", "--json"]).exits(13).json();
    assert_eq!((number(&told, "found"), number(&told, "mended")), (rows, 0), "{told}");
    assert_eq!(alarms(&node.status()), ["counts_differ"]);

    let mended = node.admin(&["verify", "--level", "refs", "--repair", "--json"]).exits(0).json();
    assert_eq!(number(&mended, "mended"), rows, "{mended}");
    assert_eq!(alarms(&node.status()), Vec::<String>::new());
    let again = node.admin(&["verify", "--level", "refs", "--json"]).exits(0).json();
    assert_eq!((&again["sound"], number(&again, "found")), (&Value::Bool(true), 0), "{again}");
    node.admin(&["verify", "--level", "read", "--repair"]).exits(2);
    node.admin(&["verify", "--level", "refs", "--sample", "3%"]).exits(2);
}

/// X8, G1: nothing is collected by counts that are known to be wrong, and everything is once they are mended.
#[test]
fn the_collector_rests_while_counts_differ() {
    let mut world = World::with_config("[gc]\nevery_minutes = 0\n");
    let root = world.path("source");
    let mut random = Random::printed();
    corpus::plain(&root, &mut random, 12, 300_000);
    let node = world.node("n");
    let first = text(&node.push(&root), "snapshot");
    corpus::work_on(&root, &mut random);
    let second = text(&node.push(&root), "snapshot");
    node.admin(&["forget", &first]).exits(0);
    world.server.stop();
    tamper(world.server.data());
    world.server.start_again();
    let node = world.node("n");
    node.admin(&["verify", "--level", "refs"]).exits(13);
    let site = world.server.data().join("site");
    let before = bytes_below(&site);

    let refused = node.admin(&["gc", "--now"]).exits(11);

    assert!(refused.stderr.contains("verify --level refs --repair"), "{}", refused.stderr);
    assert_eq!(alarms(&node.status()), ["counts_differ"]);
    assert_eq!(bytes_below(&site), before);
    node.admin(&["verify", "--level", "refs", "--repair"]).exits(0);
    let done = node.admin(&["gc", "--now", "--json"]).exits(0).json();
    assert_eq!(done["purged"], serde_json::json!([first]));
    assert!(number(&done["chunks"], "count") > 0 && bytes_below(&site) < before, "{done}");
    for level in ["refs", "restore"] {
        node.admin(&["verify", "--level", level]).exits(0);
    }
    node.restore(&second, &world.path("restored"), &["--strip-root"]).exits(0);
    assert_same(&root, &world.path("restored"));
    assert_eq!(alarms(&node.status()), Vec::<String>::new());
}
