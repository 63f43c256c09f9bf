//! Stored bytes that went bad are found, and come back with the next push of the same content.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::client::{Client, number, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::world::{World, objects};

/// A node with two snapshots, whose files have been left alone ever since.
struct Sick {
    world: World,
    node: Client,
    root: PathBuf,
    snapshots: [String; 2],
    packs: Vec<PathBuf>,
}

impl Sick {
    fn new() -> Self {
        let mut world = World::with_config("[gc]\nevery_minutes = 0\n");
        world.server.allow_errors("damaged");
        world.server.allow_errors("code=\"site\"");
        let mut random = Random::printed();
        let root = world.path("source");
        corpus::plain(&root, &mut random, 6, 700_000);
        corpus::settle(&root);
        let node = world.node("n");
        let first = text(&node.push(&root), "snapshot");
        let packs = objects(world.server.data(), "packs");
        corpus::copy(&root, &world.path(&first));
        fs::write(root.join("new"), random.bytes(200_000)).unwrap();
        corpus::settle(&root);
        let second = text(&node.push(&root), "snapshot");
        corpus::copy(&root, &world.path(&second));
        Self { world, node, root, snapshots: [first, second], packs }
    }

    /// The packs of the first push: that of the files' content, and that of the pages.
    fn pack(&self, of: Of) -> &Path {
        let len = |path: &&PathBuf| fs::metadata(path).unwrap().len();
        let packs = self.packs.iter();
        let found = match of {
            Of::Content => packs.max_by_key(len),
            Of::Pages => packs.min_by_key(len),
        };
        found.unwrap()
    }

    fn scrub(&self, code: i32) -> Value {
        self.node.admin(&["scrub", "--json"]).exits(code).json()
    }

    fn alarms(&self) -> Value {
        let status = self.node.status();
        let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
        alarms.iter().map(|alarm| alarm["code"].clone()).collect()
    }

    /// The paths that a report names, each once.
    fn hurt(report: &Value) -> Vec<String> {
        let findings = report["findings"].as_array().unwrap().iter();
        let files = findings.filter_map(|finding| finding["files"].as_array()).flatten();
        let mut paths: Vec<String> = files.map(|file| text(file, "path")).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The files of a snapshot that restore as they were pushed, by the names that reports use.
    fn whole(&self, snapshot: &str) -> Vec<String> {
        let to = self.world.path(&format!("half-{snapshot}"));
        self.node.restore(snapshot, &to, &["--strip-root"]).exits(13);
        let mut names: Vec<String> = fs::read_dir(&to)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .inspect(|name| {
                let pushed = fs::read(self.world.path(snapshot).join(name)).unwrap();
                assert_eq!(fs::read(to.join(name)).unwrap(), pushed, "{name}");
            })
            .map(|name| self.root.join(name).to_str().unwrap().trim_start_matches('/').to_owned())
            .collect();
        names.sort();
        fs::remove_dir_all(to).unwrap();
        names
    }

    fn assert_restores(&self, snapshot: &str) {
        let to = self.world.path(&format!("restored-{snapshot}"));
        self.node.restore(snapshot, &to, &["--strip-root"]).exits(0);
        assert_same(&self.world.path(snapshot), &to);
        fs::remove_dir_all(to).unwrap();
    }

    /// The next push of files that nobody touched makes everything as it was.
    fn assert_heals(&self) {
        assert_eq!(self.alarms(), json!(["damaged_blobs"]));
        let status = self.node.admin(&["status"]).exits(0).stdout;
        assert!(status.contains("damaged_blobs") && status.contains("push"), "{status}");

        let report = self.node.push(&self.root);

        assert!(number(&report, "bytes_sent") > 0, "{report}");
        assert_eq!(self.alarms(), json!([]));
        let third = text(&report, "snapshot");
        corpus::copy(&self.root, &self.world.path(&third));
        for snapshot in self.snapshots.iter().chain([&third]) {
            self.assert_restores(snapshot);
        }
        let after = self.node.push(&self.root);
        assert_eq!((number(&after, "bytes_read"), number(&after, "bytes_sent")), (0, 0), "{after}");
        let collected = self.node.admin(&["gc", "--now", "--json"]);
        assert_eq!(collected.code, Some(0), "{collected:?}");
        let report = self.scrub(0);
        assert_eq!(report["findings"], json!([]), "{report}");
        for level in ["refs", "read", "restore"] {
            self.node.admin(&["verify", "--level", level]).exits(0);
        }
        assert_eq!(self.alarms(), json!([]));
        for snapshot in &self.snapshots {
            self.assert_restores(snapshot);
        }
    }
}

/// A pack of the first push, by what lies in it.
#[derive(Debug, Clone, Copy)]
enum Of {
    Content,
    Pages,
}

fn flip(pack: &Path, at: usize) {
    let mut bytes = fs::read(pack).unwrap();
    bytes[at] ^= 1;
    fs::write(pack, bytes).unwrap();
}

/// P2: exactly the files that do not restore are named, and the next push heals them.
#[test]
fn a_flipped_bit_costs_the_files_that_are_named_until_the_next_push_heals_it() {
    let sick = Sick::new();
    let middle = usize::try_from(fs::metadata(sick.pack(Of::Content)).unwrap().len()).unwrap() / 2;
    flip(sick.pack(Of::Content), middle);

    let report = sick.scrub(13);

    let hurt = Sick::hurt(&report);
    assert_eq!(hurt.len(), 1, "one bit lies in one file: {report}");
    for snapshot in &sick.snapshots {
        assert!(report["findings"].to_string().contains(snapshot), "{report}");
        let whole = sick.whole(snapshot);
        assert!(!whole.contains(&hurt[0]), "{whole:?} and {hurt:?}");
        let files = fs::read_dir(sick.world.path(snapshot)).unwrap();
        let files = files.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file());
        assert_eq!(whole.len() + 1, files.count(), "all others restore: {whole:?}");
    }
    sick.assert_heals();
}

/// P2: a whole pack of content is gone, and comes back under another name.
#[test]
fn a_lost_pack_of_content_comes_back_with_the_next_push() {
    let sick = Sick::new();
    fs::remove_file(sick.pack(Of::Content)).unwrap();

    let report = sick.scrub(13);

    assert_eq!(Sick::hurt(&report).len(), 6, "the files of the first push: {report}");
    sick.assert_heals();
}

/// P2: so does a lost pack of pages.
#[test]
fn a_lost_pack_of_pages_comes_back_with_the_next_push() {
    let sick = Sick::new();
    fs::remove_file(sick.pack(Of::Pages)).unwrap();

    let report = sick.scrub(13);

    assert!(report["findings"].to_string().contains(&sick.snapshots[0]), "{report}");
    let code = |snapshot| sick.node.restore(snapshot, &sick.world.path("lost"), &[]).code;
    assert_eq!(code(&sick.snapshots[0]), Some(13));
    // The second snapshot has a page of its own; that of the first is not what a push sends again.
    assert_eq!(sick.alarms(), json!(["damaged_blobs"]));
    fs::remove_file(sick.root.join("new")).unwrap();
    let first = sick.world.path(&sick.snapshots[0]);
    for (from, to) in [(&first, &sick.root)] {
        let meta = fs::metadata(from).unwrap();
        let time = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seconds = i64::try_from(time.as_secs()).unwrap();
        corpus::set_time(to, seconds, i64::from(time.subsec_nanos()));
    }
    sick.assert_heals();
}

/// P2: damage that is found by a restore, and not by a check, can be healed as well once a scrub has seen it.
#[test]
fn what_is_damaged_is_not_told_to_be_here() {
    let sick = Sick::new();
    flip(sick.pack(Of::Content), 100);
    sick.scrub(13);
    let other = sick.world.node("other");

    let report = other.push(&sick.root);

    assert!(number(&report, "bytes_sent") > 0, "another node heals it: {report}");
    assert_eq!(sick.alarms(), json!([]));
    for snapshot in &sick.snapshots {
        sick.assert_restores(snapshot);
    }
    sick.scrub(0);
}
