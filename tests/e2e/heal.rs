//! Stored bytes that went bad are found, and come back with the next push of the same content.

use std::fs;
use std::os::unix::fs::MetadataExt;
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

    /// The files of a snapshot that do not restore, by the names that reports use; all others do.
    fn lost(&self, snapshot: &str) -> Vec<String> {
        let pushed = self.world.path(snapshot);
        let to = self.world.path(&format!("half-{snapshot}"));
        let mut lost = Vec::new();
        for entry in fs::read_dir(&pushed).unwrap() {
            let path = self.root.join(entry.unwrap().file_name());
            if path.is_dir() {
                continue;
            }
            let name = path.to_str().unwrap().trim_start_matches('/').to_owned();
            let done = self.node.restore(snapshot, &to, &["--path", &name, "--into-existing"]);
            match done.code {
                Some(0) => {
                    let expected = fs::read(pushed.join(path.file_name().unwrap())).unwrap();
                    assert_eq!(fs::read(to.join(&name)).unwrap(), expected, "{name}");
                }
                Some(13) => {
                    assert!(!to.join(&name).exists(), "{name}");
                    lost.push(name);
                }
                _ => panic!("{done:?}"),
            }
        }
        fs::remove_dir_all(to).unwrap();
        lost
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

/// P2, G10: exactly the files that do not restore are named, and the next push heals them.
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
        assert_eq!(sick.lost(snapshot), hurt, "these and no others");
    }
    sick.assert_heals();
}

/// G10: a restore remembers what it finds damaged, with no check before; every snapshot that needs it is shown so, and
/// the next push heals it.
#[test]
fn a_restore_that_meets_damage_raises_the_alarm_and_the_next_push_heals_it() {
    let sick = Sick::new();
    let middle = usize::try_from(fs::metadata(sick.pack(Of::Content)).unwrap().len()).unwrap() / 2;
    flip(sick.pack(Of::Content), middle);

    sick.node.restore(&sick.snapshots[0], &sick.world.path("to"), &["--strip-root"]).exits(13);

    assert_eq!(sick.alarms(), json!(["damaged_blobs"]));
    tests::wait::for_state("both snapshots are shown as damaged", || {
        let snapshots = sick.node.snapshots();
        snapshots.iter().all(|snapshot| snapshot["damaged"].is_string()).then_some(())
    });
    let log = sick.world.server.logged("are damaged: quarantined", 1);
    assert_eq!(log.matches("are damaged: quarantined").count(), 1, "{log}");
    sick.assert_heals();
}

/// G10: a restore that finds a whole pack gone puts all of it in quarantine.
#[test]
fn a_restore_that_misses_a_pack_is_healed_by_the_next_push() {
    let sick = Sick::new();
    fs::remove_file(sick.pack(Of::Content)).unwrap();

    sick.node.restore(&sick.snapshots[0], &sick.world.path("to"), &["--strip-root"]).exits(13);

    sick.assert_heals();
}

/// G10: a whole pack of content is gone, and comes back under another name.
#[test]
fn a_lost_pack_of_content_comes_back_with_the_next_push() {
    let sick = Sick::new();
    fs::remove_file(sick.pack(Of::Content)).unwrap();

    let report = sick.scrub(13);

    assert_eq!(Sick::hurt(&report).len(), 6, "the files of the first push: {report}");
    sick.assert_heals();
}

/// G10: so does a lost pack of pages.
#[test]
fn a_lost_pack_of_pages_comes_back_with_the_next_push() {
    let sick = Sick::new();
    fs::remove_file(sick.pack(Of::Pages)).unwrap();

    let report = sick.scrub(13);

    assert!(report["findings"].to_string().contains(&sick.snapshots[0]), "{report}");
    let code = |snapshot| sick.node.restore(snapshot, &sick.world.path("lost"), &[]).code;
    assert_eq!(code(&sick.snapshots[0]), Some(13));
    // The second snapshot has a page of its own, so only the first tree, as it was, brings that page back.
    fs::remove_file(sick.root.join("new")).unwrap();
    let folder = fs::metadata(sick.world.path(&sick.snapshots[0])).unwrap();
    corpus::set_time(&sick.root, folder.mtime(), folder.mtime_nsec());
    sick.assert_heals();
}

/// G10: any node that has the same content heals it; what is left of the damaged pack goes with the next run.
#[test]
fn another_node_with_the_same_content_heals_it() {
    let sick = Sick::new();
    flip(sick.pack(Of::Content), 100);
    sick.scrub(13);
    let other = sick.world.node("other");

    let report = other.push(&sick.root);

    assert!(number(&report, "bytes_sent") > 0, "{report}");
    assert_eq!(sick.alarms(), json!([]));
    for snapshot in &sick.snapshots {
        sick.assert_restores(snapshot);
    }
    let report = sick.scrub(13);
    assert_eq!(Sick::hurt(&report), Vec::<String>::new(), "nothing needs the damaged bytes: {report}");
    let done = sick.node.admin(&["gc", "--now", "--json"]).exits(0).json();
    assert_eq!(number(&done["repacked"], "count"), 1, "{done}");
    sick.scrub(0);
}
