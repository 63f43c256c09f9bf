//! The collector, what it frees, and what is counted: with real programs and bytes on a real disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{Client, Running, number, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::wait;
use tests::world::{World, bytes_below, objects};

/// The server does no work of its own, so that each test decides the time.
const BY_HAND: &str = "[gc]\nevery_minutes = 0\n";

const KIB: u64 = 1 << 10;

/// A repository, a node, and the trees of its snapshots.
struct Kept {
    world: World,
    node: Client,
    random: Random,
}

impl Kept {
    fn new() -> Self {
        let world = World::with_config(BY_HAND);
        Self { node: world.node("n"), random: Random::printed(), world }
    }

    fn site(&self) -> PathBuf {
        self.world.server.data().join("site")
    }

    fn on_disk(&self) -> u64 {
        bytes_below(&self.site())
    }

    /// Makes the folder `name` with files of these lengths that do not compress.
    fn tree(&mut self, name: &str, lens: &[usize]) -> PathBuf {
        let root = self.world.dir(name);
        for (n, len) in lens.iter().enumerate() {
            fs::write(root.join(format!("{name}-{n}")), self.random.bytes(*len)).unwrap();
        }
        root
    }

    fn push(&self, root: &Path) -> String {
        text(&self.node.push(root), "snapshot")
    }

    #[track_caller]
    fn admin(&self, words: &[&str]) -> Value {
        self.node.admin(&[words, &["--json"]].concat()).exits(0).json()
    }

    fn assert_restores(&self, snapshot: &str, root: &Path) {
        self.assert_restores_of(&self.node, snapshot, root);
    }

    fn assert_restores_of(&self, node: &Client, snapshot: &str, root: &Path) {
        let to = self.world.path(&format!("restored-{snapshot}"));
        node.restore(snapshot, &to, &["--strip-root"]).exits(0);
        assert_same(root, &to);
        fs::remove_dir_all(to).unwrap();
    }

    /// Everything that is checked of a repository finds nothing.
    #[track_caller]
    fn assert_sound(&self) {
        for level in ["refs", "read", "restore"] {
            self.node.admin(&["verify", "--level", level]).exits(0);
        }
        assert_eq!(alarms(&self.node), Vec::<String>::new());
    }
}

fn alarms(node: &Client) -> Vec<String> {
    let status = node.status();
    let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
    alarms.iter().map(|alarm| text(alarm, "code")).collect()
}

/// Pages and chunks that a run takes, with their bytes.
fn collected(report: &Value) -> [(u64, u64); 2] {
    ["pages", "chunks"].map(|kind| (number(&report[kind], "count"), number(&report[kind], "bytes")))
}

fn bytes_of(report: &Value) -> u64 {
    collected(report).iter().map(|(_, bytes)| bytes).sum()
}

/// The dry run tells exactly what the run does, and the run gives the bytes back to the disk.
#[test]
fn what_a_dry_run_tells_is_what_goes_from_the_disk() {
    let mut kept = Kept::new();
    let (one, two) = (kept.tree("one", &[900_000; 6]), kept.tree("two", &[700_000; 3]));
    let first = kept.push(&one);
    let second = kept.push(&two);
    let full = kept.on_disk();
    kept.admin(&["forget", &first, "--even-last"]);

    let early = kept.admin(&["gc"]);
    assert_eq!((collected(&early), number(&early["deleted"], "count")), ([(0, 0), (0, 0)], 0), "{early}");
    assert_eq!(kept.on_disk(), full, "it can still be brought back");
    let plan = kept.admin(&["gc", "--now", "--dry-run"]);
    let explained = kept.admin(&["gc", "--now", "--explain"]);
    assert_eq!(kept.on_disk(), full, "a plan changes nothing");
    let done = kept.admin(&["gc", "--now"]);

    assert_same_numbers(&plan, &done);
    assert_same_numbers(&explained, &done);
    assert_eq!(done["purged"], json!([first]));
    assert!(bytes_of(&done) > 5_400_000, "{done}");
    let freed = full - kept.on_disk();
    println!("{freed} bytes of {full} went from the disk");
    assert_eq!(number(&done["dead_packs"], "bytes"), freed - small_objects(&done, freed), "{done}");
    assert!((5_400_000..5_400_000 + 256 * KIB).contains(&freed), "{freed}");
    kept.assert_restores(&second, &two);
    kept.assert_sound();
    let again = kept.admin(&["gc", "--now"]);
    assert_eq!((bytes_of(&again), number(&again["deleted"], "count")), (0, 0), "{again}");
}

/// Fails unless two reports differ in nothing but that one was a plan.
#[track_caller]
fn assert_same_numbers(plan: &Value, done: &Value) {
    assert_eq!((text(plan, "mode"), text(done, "mode")), ("plan".to_owned(), "apply".to_owned()));
    for (field, value) in done.as_object().unwrap().iter().filter(|(field, _)| *field != "mode") {
        assert_eq!(plan[field], *value, "{field}: {plan}\n{done}");
    }
}

/// Bytes of deleted manifests and snapshot objects, whose lengths no report has.
fn small_objects(report: &Value, freed: u64) -> u64 {
    let small = freed - number(&report["dead_packs"], "bytes");
    assert!(small < 8 * KIB, "{small} bytes for a manifest and a snapshot");
    small
}

/// G4: a pack of which little is needed is written anew, smaller, and what is needed restores.
#[test]
fn a_thin_pack_is_repacked_and_the_disk_gives_its_bytes_back() {
    let mut kept = Kept::new();
    let tree = kept.tree("tree", &[800_000; 10]);
    let first = kept.push(&tree);
    for n in 2..10 {
        fs::remove_file(tree.join(format!("tree-{n}"))).unwrap();
    }
    let second = kept.push(&tree);
    let full = kept.on_disk();
    kept.admin(&["forget", &first]);

    let plan = kept.admin(&["gc", "--now", "--dry-run"]);
    let done = kept.admin(&["gc", "--now"]);

    assert_same_numbers(&plan, &done);
    assert!(number(&done["repacked"], "bytes") > 7_900_000, "{done}");
    assert!((1_600_000..1_800_000).contains(&number(&done, "copied_bytes")), "{done}");
    let left = kept.on_disk();
    assert!(left < 1_800_000, "{left} bytes of {full} are left");
    assert_eq!(kept.admin(&["stats"])["dead_bytes"], 0);
    kept.assert_restores(&second, &tree);
    kept.assert_sound();
}

/// G2: what an open session may have been told stays, and operators are told whose session it is.
#[test]
fn what_an_open_session_holds_is_told_by_node() {
    let mut kept = Kept::new();
    let (one, two) = (kept.tree("one", &[900_000; 3]), kept.tree("two", &[1000]));
    let first = kept.push(&one);
    kept.push(&two);
    let wire = kept.world.wire();
    let (session, _) = wire.session("c", "busy-node");
    kept.admin(&["forget", &first, "--even-last"]);

    let plan = kept.admin(&["gc", "--now", "--dry-run"]);
    let held = kept.admin(&["gc", "--now"]);
    let explained = kept.admin(&["gc", "--explain"]);
    let shown = kept.node.admin(&["gc", "--explain"]).exits(0).stdout;

    assert_eq!(collected(&held), [(0, 0), (0, 0)], "{held}");
    assert_eq!(collected(&plan), collected(&held), "{plan}");
    assert_eq!(text(&held["pinned"][0], "node"), "busy-node");
    assert_eq!(text(&explained["pinned"][0], "session"), session.to_string());
    assert_eq!(number(&explained["pinned"][0]["holds"], "count"), 1, "its page: {explained}");
    assert!(shown.contains("busy-node"), "{shown}");
    assert_eq!(wire.send("DELETE", &format!("/v1/sessions/{session}"), b"").status, 204);
    let plan = kept.admin(&["gc", "--now", "--dry-run"]);
    let done = kept.admin(&["gc", "--now"]);
    assert_same_numbers(&plan, &done);
    assert!(bytes_of(&done) > 2_700_000, "{done}");
    kept.assert_sound();
}

/// One run at a time: the second says so, and may be tried again.
#[test]
fn a_second_run_beside_the_first_is_told_to_wait() {
    let mut kept = Kept::new();
    let tree = kept.tree("tree", &[900_000; 3]);
    kept.push(&tree);
    let run = || {
        let mut command = kept.node.program("astacus-admin");
        command.args(["gc", "--now", "--json"]);
        Running::start(command)
    };

    let busy = wait::for_state("two runs to meet", || {
        let runs = [run(), run(), run(), run()].map(Running::wait);
        assert!(runs.iter().any(|done| done.code == Some(0)), "{runs:?}");
        assert!(runs.iter().all(|done| matches!(done.code, Some(0 | 11))), "{runs:?}");
        runs.into_iter().find(|done| done.code == Some(11))
    });

    assert!(busy.stderr.contains("another run of gc"), "{}", busy.stderr);
    kept.admin(&["gc", "--now"]);
    kept.assert_sound();
}

/// Blobs by the directories of packs: lengths before and after sealing, by kind and id.
fn blobs(kept: &Kept) -> BTreeMap<String, (Value, PathBuf)> {
    let key = kept.world.server.data().join("master.key");
    let key = key.to_str().unwrap();
    let mut found = BTreeMap::new();
    for pack in objects(kept.world.server.data(), "packs") {
        let inspected = kept.admin(&["pack", "inspect", pack.to_str().unwrap(), "--key-file", key]);
        for blob in inspected["directory"]["blobs"].as_array().unwrap() {
            found.insert(text(blob, "id"), (blob.clone(), pack.clone()));
        }
    }
    found
}

fn sum(blobs: &BTreeMap<String, (Value, PathBuf)>, field: &str) -> u64 {
    blobs.values().map(|(blob, _)| number(blob, field)).sum()
}

/// X8: what is told of a tree whose bytes are known is exact, and what a snapshot alone holds is what its
/// going frees.
#[test]
fn stats_are_exact_and_what_a_snapshot_alone_holds_is_what_its_going_frees() {
    let mut kept = Kept::new();
    // Each file is one chunk: shorter than the shortest that is cut. One is there twice.
    let tree = kept.tree("tree", &[50_000, 40_000, 30_000]);
    fs::copy(tree.join("tree-0"), tree.join("twin")).unwrap();
    let first = kept.push(&tree);
    let own = kept.random.bytes(20_000);
    fs::write(tree.join("tree-2"), own).unwrap();
    let second = kept.push(&tree);
    let other = kept.world.node("m");
    let theirs = kept.tree("theirs", &[10_000]);
    other.push(&theirs);

    let stats = kept.admin(&["stats"]);

    let blobs = blobs(&kept);
    let cluster = &stats["clusters"][0];
    assert_eq!(number(cluster, "snapshots"), 3);
    assert_eq!(number(cluster, "logical_bytes"), 170_000 + 160_000 + 10_000);
    assert_eq!(number(cluster, "unique_bytes"), sum(&blobs, "plain_bytes"));
    assert_eq!(number(cluster, "stored_bytes"), sum(&blobs, "stored_bytes"));
    let chunks = blobs.values().filter(|(blob, _)| blob["kind"] == "chunk");
    let content: u64 = chunks.map(|(blob, _)| number(blob, "plain_bytes")).sum();
    assert_eq!(content, 50_000 + 40_000 + 30_000 + 20_000 + 10_000);
    assert_eq!(number(&stats["packs"], "bytes"), bytes_below(&kept.site().join("packs")));
    assert_eq!(number(&stats, "dead_bytes"), 0);
    let node = |name: &str| {
        let nodes = stats["nodes"].as_array().unwrap();
        nodes.iter().find(|node| text(node, "node") == name).unwrap().clone()
    };
    assert_eq!((number(&node("n"), "snapshots"), number(&node("n"), "logical_bytes")), (2, 330_000));
    assert_eq!(number(&node("m"), "logical_bytes"), 10_000);
    let unique = |name: &str| number(&node(name), "unique_bytes");
    assert_eq!(unique("n") + unique("m"), number(cluster, "unique_bytes"), "they share nothing");

    let of = |id: &str| {
        let snapshots = stats["snapshots"].as_array().unwrap();
        snapshots.iter().find(|line| text(line, "id") == id).unwrap().clone()
    };
    let alone = number(&of(&first), "alone_bytes");
    assert_eq!(alone, number(&kept.admin(&["show", &first]), "alone_bytes"));
    let forgotten = kept.admin(&["forget", &first]);
    let done = kept.admin(&["gc", "--now"]);
    assert_eq!(number(&forgotten, "frees_bytes"), alone);
    assert_eq!(bytes_of(&done), alone, "{done}");
    assert!((30_000..32_000).contains(&alone), "{alone}");
    let after = kept.admin(&["stats", "--cluster", "c"]);
    let stored = number(&after["clusters"][0], "stored_bytes");
    assert_eq!(stored, number(cluster, "stored_bytes") - alone);
    kept.assert_restores(&second, &tree);
    kept.node.admin(&["stats", "--cluster", "unknown"]).exits(10);
}

/// X7: a chunk is where it is said to be, until nothing needs it.
#[test]
fn a_chunk_is_located_until_it_is_collected() {
    let mut kept = Kept::new();
    let tree = kept.tree("tree", &[50_000]);
    let first = kept.push(&tree);
    fs::write(tree.join("tree-0"), kept.random.bytes(50_000)).unwrap();
    kept.push(&tree);

    let blobs = blobs(&kept);
    for (id, (blob, pack)) in &blobs {
        let place = kept.admin(&["chunk", "locate", id]);
        for field in ["kind", "offset", "stored_bytes", "plain_bytes"] {
            assert_eq!(place[field], blob[field], "{place}");
        }
        assert!(pack.ends_with(text(&place, "object")), "{place}");
        assert_eq!((number(&place, "references"), text(&place, "cluster")), (1, "c".to_owned()));
    }
    assert_eq!(blobs.len(), 4, "two chunks and two pages");
    kept.admin(&["forget", &first]);
    kept.admin(&["gc", "--now"]);

    let code = |id: &String| kept.node.admin(&["chunk", "locate", id]).code;
    let gone = blobs.keys().filter(|id| code(id) == Some(10)).count();
    assert_eq!((gone, blobs.keys().filter(|id| code(id) == Some(0)).count()), (2, 2));
}

/// G2, G3: the collector runs again and again beside a push of what was just forgotten.
#[test]
fn the_collector_beside_a_push_takes_nothing_that_it_needs() {
    let mut kept = Kept::new();
    let tree = kept.tree("tree", &[900_000; 20]);
    let first = kept.push(&tree);
    let more = kept.random.bytes(12_000_000);
    fs::write(tree.join("more"), &more).unwrap();
    let other = kept.world.node("other");
    kept.admin(&["forget", &first, "--even-last"]);

    let push = other.start_push_of(&[&tree], &["--max-rate", "6M"]);
    wait::for_state("the push to have its session", || {
        (number(&kept.node.status(), "open_sessions") == 1).then_some(())
    });
    let (mut runs, mut done) = (0, None);
    while done.is_none() {
        let run = kept.node.admin(&["gc", "--now", "--json"]).exits(0).json();
        assert_eq!(run["problems"], Value::Null, "{run}");
        runs += 1;
        done = push.within(Duration::from_millis(1));
    }
    let report = done.unwrap().exits(0).json();

    println!("{runs} runs beside the push");
    assert!(runs >= 3, "{runs} runs");
    let sent = number(&report, "bytes_sent");
    assert!((12_000_000..12_500_000).contains(&sent), "what was there when it asked is not sent: {sent}");
    kept.admin(&["gc", "--now"]);
    kept.assert_restores_of(&other, &text(&report, "snapshot"), &tree);
    kept.assert_sound();
}

/// A client that remembers a snapshot which is gone asks for everything again.
#[test]
fn an_unchanged_tree_whose_snapshot_was_collected_is_sent_again_and_restores() {
    let mut kept = Kept::new();
    let tree = kept.tree("tree", &[900_000; 4]);
    corpus::settle(&tree);
    let first = kept.push(&tree);
    kept.admin(&["forget", &first, "--even-last"]);
    kept.admin(&["gc", "--now"]);
    assert_eq!(objects(kept.world.server.data(), "packs"), Vec::<PathBuf>::new());
    assert_eq!(objects(kept.world.server.data(), "manifests"), Vec::<PathBuf>::new());

    let again = kept.node.push(&tree);

    assert!(number(&again, "bytes_sent") >= 3_600_000, "{again}");
    kept.assert_restores(&text(&again, "snapshot"), &tree);
    kept.assert_sound();
    let third = kept.node.push(&tree);
    assert_eq!((number(&third, "bytes_read"), number(&third, "bytes_sent")), (0, 0), "{third}");
}

/// The state of a client is still valid while the snapshot is only deleted, and the push makes it stay.
#[test]
fn an_unchanged_tree_whose_snapshot_is_going_is_not_sent_again_and_stays() {
    let mut kept = Kept::new();
    let tree = kept.tree("tree", &[900_000; 4]);
    corpus::settle(&tree);
    let first = kept.push(&tree);
    kept.admin(&["forget", &first, "--even-last"]);

    let again = kept.node.push(&tree);
    kept.admin(&["gc", "--now"]);

    assert_eq!(number(&again, "bytes_sent"), 0, "{again}");
    kept.assert_restores(&text(&again, "snapshot"), &tree);
    kept.assert_sound();
}

/// More than a day's share: the run stops, says so, and goes on when told to.
#[test]
fn a_large_delete_stops_raises_an_alarm_and_goes_on_when_it_is_allowed() {
    let config = "[gc]\nevery_minutes = 0\nmax_daily_percent = 50\ndaily_floor_mib = 0\n";
    let world = World::with_config(config);
    let mut kept = Kept { node: world.node("n"), random: Random::printed(), world };
    let (one, two) = (kept.tree("one", &[900_000; 6]), kept.tree("two", &[900_000; 1]));
    let first = kept.push(&one);
    let second = kept.push(&two);
    kept.admin(&["forget", &first, "--even-last"]);

    let stopped = kept.node.admin(&["gc", "--now", "--json"]).exits(3).json();

    assert!(stopped["stopped"].is_string(), "{stopped}");
    assert_eq!(alarms(&kept.node), ["large_delete"]);
    let status = kept.node.admin(&["status"]).exits(0).stdout;
    assert!(status.starts_with("ALARMS: 1") && status.contains("--allow-large"), "{status}");
    kept.assert_restores(&second, &two);
    kept.admin(&["gc", "--now", "--allow-large"]);
    assert!(kept.on_disk() < 1_000_000, "{}", kept.on_disk());
    kept.assert_restores(&second, &two);
    kept.assert_sound();
}
