//! Manifests, objects of snapshots and ends of packs that are lost or damaged: known, and made good where that can be.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::client::{Client, number, run_to_end, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::server::command;
use tests::world::{World, objects};

/// A node with two snapshots, beside which nothing runs by itself.
struct Hurt {
    world: World,
    node: Client,
    first: String,
    second: String,
    /// The manifest of the second.
    manifest: PathBuf,
}

impl Hurt {
    fn new() -> Self {
        let mut world = World::with_config("[gc]\nevery_minutes = 0\n");
        world.server.allow_errors("damaged");
        world.server.allow_errors("code=\"site\"");
        let mut random = Random::printed();
        let root = world.path("source");
        corpus::plain(&root, &mut random, 4, 300_000);
        let node = world.node("n");
        let first = text(&node.push(&root), "snapshot");
        corpus::copy(&root, &world.path(&first));
        let before = objects(world.server.data(), "manifests");
        fs::write(root.join("new"), random.bytes(50_000)).unwrap();
        let second = text(&node.push(&root), "snapshot");
        corpus::copy(&root, &world.path(&second));
        let mut manifests = objects(world.server.data(), "manifests");
        manifests.retain(|manifest| !before.contains(manifest));
        let manifest = manifests.pop().unwrap();
        node.admin(&["gc"]).exits(0);
        Self { world, node, first, second, manifest }
    }

    fn data(&self) -> &Path {
        self.world.server.data()
    }

    fn alarms(&self) -> Value {
        let status = self.node.status();
        let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
        alarms.iter().map(|alarm| alarm["code"].clone()).collect()
    }

    fn assert_restores(&self, snapshot: &str) {
        let to = self.world.path(&format!("restored-{snapshot}"));
        self.node.restore(snapshot, &to, &["--strip-root"]).exits(0);
        assert_same(&self.world.path(snapshot), &to);
        fs::remove_dir_all(to).unwrap();
    }

    /// Lets a policy go through that keeps one snapshot, and collects at once.
    fn keep_one(&self) -> Value {
        let words = ["forget", "--minimum", "1", "--keep-last", "1", "--json"];
        let report = self.node.admin(&words).exits(0).json();
        self.node.admin(&["gc", "--now"]).exits(0);
        report
    }
}

/// G9: of a good snapshot and a newer one that no longer restores, a policy leaves the good one.
#[test]
fn a_policy_lets_no_snapshot_go_for_one_whose_manifest_is_lost() {
    let mut hurt = Hurt::new();
    fs::remove_file(&hurt.manifest).unwrap();
    hurt.node.admin(&["verify"]).exits(13);
    assert_eq!(hurt.alarms(), json!(["damaged_objects"]));
    hurt.world.server.stop();
    hurt.world.server.start_again();
    hurt.node = hurt.node.at(hurt.world.server.address());
    assert_eq!(hurt.alarms(), json!(["damaged_objects"]), "it outlives a restart");

    let report = hurt.keep_one();

    let lines = report["snapshots"].as_array().unwrap();
    assert!(lines.iter().all(|line| text(line, "verdict") == "keep"), "{report}");
    assert!(lines[1]["reasons"].to_string().contains("damaged"), "{report}");
    let shown = hurt.node.admin(&["snapshots"]).exits(0).stdout;
    let line = shown.lines().find(|line| line.starts_with(&hurt.second)).unwrap();
    assert!(line.contains("DAMAGED") && line.contains("is missing from the site"), "{shown}");
    assert_eq!(shown.matches("DAMAGED").count(), 1, "{shown}");
    hurt.assert_restores(&hurt.first);
    hurt.node.admin(&["forget", &hurt.first]).exits(11);
    hurt.node.admin(&["forget", &hurt.second]).exits(0);
    hurt.node.admin(&["gc", "--now"]).exits(3);
    assert_eq!(hurt.alarms(), json!([]));
    hurt.assert_restores(&hurt.first);
}

/// The content of a snapshot whose manifest is lost is unknown; all others are counted.
#[test]
fn what_a_lost_manifest_leaves_uncounted_is_named_and_the_rest_is_counted() {
    let hurt = Hurt::new();
    let whole = hurt.node.admin(&["show", &hurt.first, "--json"]).exits(0).json();
    fs::remove_file(&hurt.manifest).unwrap();

    let shown = hurt.node.admin(&["show", &hurt.second, "--json"]).exits(0).json();
    let stats = hurt.node.admin(&["stats", "--json"]).exits(3).json();

    // A restore says it before it fails.
    hurt.node.admin(&["verify", "--level", "exists"]).exits(13);
    let restored = hurt.node.restore(&hurt.second, &hurt.world.path("restored"), &[]);
    assert!(restored.code != Some(0) && restored.stderr.contains("known to be damaged"), "{restored:?}");
    // `latest` is the last snapshot that a policy counts.
    let latest = hurt.node.restore("latest", &hurt.world.path("latest"), &[]).exits(0);
    assert_eq!(latest.json()["snapshot"], json!(hurt.first));
    assert!(latest.stderr.contains(&hurt.second) && latest.stderr.contains("damaged"), "{latest:?}");
    let restored = hurt.node.restore(&hurt.first, &hurt.world.path("first"), &[]).exits(0);
    assert!(!restored.stderr.contains("damaged"), "{restored:?}");

    let is_named =
        |why: &Value| why.as_str().unwrap().contains(hurt.manifest.file_name().unwrap().to_str().unwrap());
    assert!(shown["alone_bytes"].is_null() && is_named(&shown["not_counted"]), "{shown}");
    assert!(whole["alone_bytes"].is_u64() && whole["not_counted"].is_null(), "{whole}");
    let not_counted = stats["not_counted"].as_array().unwrap();
    assert!(not_counted.len() == 1 && not_counted[0]["id"] == json!(hurt.second), "{stats}");
    assert!(is_named(&not_counted[0]["why"]), "{stats}");
    let counted = stats["snapshots"].as_array().unwrap();
    assert!(counted.len() == 1 && counted[0]["id"] == json!(hurt.first), "{stats}");
    assert_eq!(stats["nodes"][0]["snapshots"], json!(1), "{stats}");
}

/// The twin: with the manifest there, the same policy lets the older one go.
#[test]
fn the_same_policy_lets_the_older_of_two_good_snapshots_go() {
    let hurt = Hurt::new();
    hurt.node.admin(&["verify"]).exits(0);

    let report = hurt.keep_one();

    assert_eq!(text(&report["snapshots"][0], "verdict"), "forget", "{report}");
    hurt.node.admin(&["show", &hurt.first]).exits(10);
    hurt.assert_restores(&hurt.second);
}

/// G11: what the index knows of damaged objects is on the site again before the index is lost.
#[test]
fn footers_and_snapshots_are_made_good_while_the_index_is_there() {
    let mut hurt = Hurt::new();
    for pack in objects(hurt.data(), "packs") {
        let mut bytes = fs::read(&pack).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let [lost, torn] = objects(hurt.data(), "snapshots").try_into().unwrap();
    fs::remove_file(lost).unwrap();
    fs::write(torn, "torn").unwrap();

    let found = hurt.node.admin(&["scrub", "--json"]).exits(13).json();
    assert_eq!(found.to_string().matches("rewritten from the index").count(), 2, "{found}");
    assert_eq!(hurt.alarms(), json!(["damaged_objects"]));
    let done = hurt.node.admin(&["gc", "--now", "--json"]).exits(0).json();
    assert!(number(&done["repacked"], "count") > 1, "{done}");
    hurt.node.admin(&["scrub"]).exits(0);

    assert_eq!(hurt.alarms(), json!([]));
    hurt.world.server.stop();
    let (anew, key) = (hurt.world.path("anew"), hurt.data().join("master.key"));
    let mut rebuild = command();
    rebuild.args(["rebuild", "--json", "--from-site"]).arg(hurt.data().join("site"));
    rebuild.arg("--data-dir").arg(&anew).arg("--keyring").arg(key);
    let report = run_to_end(rebuild).exits(0).json();
    assert_eq!((number(&report, "snapshots"), number(&report, "found")), (2, 0), "{report}");
    hurt.world.server.start_again();
    hurt.node = hurt.node.at(hurt.world.server.address());
    for snapshot in [&hurt.first, &hurt.second] {
        hurt.assert_restores(snapshot);
    }
}
