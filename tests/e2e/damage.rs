//! Stored bytes that are not what was written: found, named, and never restored.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::client::{Client, text};
use tests::corpus;
use tests::seed::Random;
use tests::world::{World, objects};

/// A repository with one snapshot of ten files.
struct Damaged {
    world: World,
    node: Client,
    root: PathBuf,
    snapshot: String,
    random: Random,
}

impl Damaged {
    fn new() -> Self {
        let mut world = World::new();
        world.server.allow_errors("damaged");
        world.server.allow_errors("code=\"site\"");
        let mut random = Random::printed();
        let root = world.path("source");
        corpus::plain(&root, &mut random, 10, 200_000);
        let node = world.node("n");
        let snapshot = text(&node.push(&root), "snapshot");
        Self { node, root, snapshot, random, world }
    }

    fn objects(&self, kind: &str) -> Vec<PathBuf> {
        objects(self.world.server.data(), kind)
    }

    /// The pack that holds the content of the files.
    fn largest_pack(&self) -> PathBuf {
        let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
        self.objects("packs").into_iter().max_by_key(len).unwrap()
    }

    fn flip(&self, path: &Path, bit: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, bytes).unwrap();
    }

    fn flip_any(&mut self, path: &Path) -> usize {
        let bits = usize::try_from(fs::metadata(path).unwrap().len()).unwrap() * 8;
        let bit = self.random.index(bits);
        self.flip(path, bit);
        bit
    }

    fn verify(&self, level: &str) -> (Option<i32>, Value) {
        let done = self.node.admin(&["verify", "--json", "--level", level]);
        (done.code, done.json())
    }

    /// Restores and checks that no file under its name is wrong. Returns the exit code.
    fn restore(&self, to: &str) -> Option<i32> {
        let to = self.world.path(to);
        let done = self.node.restore(&self.snapshot, &to, &["--strip-root"]);
        for entry in fs::read_dir(&to).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let restored = fs::read(to.join(&name)).unwrap();
            let source = fs::read(self.root.join(&name));
            assert_eq!(source.ok(), Some(restored), "{name:?} is not as it was pushed");
        }
        done.code
    }
}

fn names(findings: &Value, snapshot: &str) -> bool {
    findings["findings"].to_string().contains(snapshot)
}

#[test]
fn every_level_of_a_check_finds_nothing_wrong_with_what_is_whole() {
    let repository = Damaged::new();

    for (level, reads) in [("index", false), ("exists", false), ("read", true)] {
        let told = repository.node.admin(&["verify", "--level", level]).exits(0).stdout;
        assert_eq!(told.contains("stored bytes were not read"), !reads, "{told}");
        let (code, report) = repository.verify(level);
        assert_eq!((code, &report["findings"]), (Some(0), &serde_json::json!([])), "{report}");
        assert_eq!(report["snapshots"], 1, "{report}");
    }
    repository.node.run(["verify", &repository.snapshot]).exits(0);
    let read = repository.verify("read").1;
    assert!(read["bytes_read"].as_u64().unwrap() > 500_000, "{read}");
}

/// P2: one flipped bit anywhere in a pack is found, by the name of the pack and of the snapshots.
#[test]
fn a_flipped_bit_in_a_pack_is_found_and_named() {
    let mut repository = Damaged::new();
    let pack = repository.largest_pack();
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();

    for _ in 0..5 {
        let bit = repository.flip_any(&pack);
        let (code, report) = repository.verify("read");
        assert_eq!(code, Some(13), "bit {bit}: {report}");
        assert!(report["findings"].to_string().contains(&name), "bit {bit}: {report}");
        assert!(names(&report, &repository.snapshot), "bit {bit}: {report}");
        repository.flip(&pack, bit);
    }
    assert_eq!(repository.verify("read").0, Some(0), "the bits are back");
}

/// P2, C2, C15: what is damaged is not restored and is named; all else is restored, and right.
#[test]
fn a_restore_of_damaged_data_ends_with_13_and_lacks_only_what_is_damaged() {
    let repository = Damaged::new();
    let pack = repository.largest_pack();
    let middle = usize::try_from(fs::metadata(&pack).unwrap().len()).unwrap() * 4;
    repository.flip(&pack, middle);
    let to = repository.world.path("restored");

    assert_eq!(repository.restore("restored"), Some(13));
    let verified = repository.node.run(["verify", &repository.snapshot, "--json"]).exits(13).json();
    let report = repository.node.restore(&repository.snapshot, &repository.world.path("again"), &[]);
    let mut command = repository.node.command();
    command.args(["restore", &repository.snapshot, "--quiet", "--to"]).arg(repository.world.path("told"));
    let told = tests::client::run_to_end(command).exits(13).stdout;

    let hurt: Vec<&Value> = verified["problems"].as_array().unwrap().iter().collect();
    let report = report.exits(13).json();
    let failed = report["failed"].as_array().unwrap();
    assert_eq!((hurt.len(), failed.len()), (1, 1), "{verified} {report}");
    assert_eq!((&failed[0]["path"], &failed[0]["object"]), (&hurt[0]["path"], &hurt[0]["object"]));
    assert_eq!(report["damaged_count"], 1);
    let there = fs::read_dir(&to).unwrap().count();
    assert_eq!(there + 1, fs::read_dir(&repository.root).unwrap().count(), "all else is there");
    let path = failed[0]["path"].as_str().unwrap();
    assert!(told.contains(&format!("DAMAGED, not restored: {path}: ")), "{told}");
    assert!(told.contains("astacus-admin verify --level read"), "the way on is named: {told}");
}

/// P2: bytes under the name of another pack are found.
#[test]
fn two_packs_that_changed_places_are_found() {
    let repository = Damaged::new();
    corpus::plain(&repository.root, &mut Random::new(1), 3, 100_000);
    let newest = text(&repository.node.push(&repository.root), "snapshot");
    let packs = repository.objects("packs");
    let (first, last) = (&packs[0], &packs[packs.len() - 1]);
    let (a, b) = (fs::read(first).unwrap(), fs::read(last).unwrap());
    fs::write(first, b).unwrap();
    fs::write(last, a).unwrap();

    assert_eq!(repository.verify("read").0, Some(13));
    // The damaged snapshot is named by its id, because `latest` selects an older one.
    assert_eq!(repository.node.restore(&newest, &repository.world.path("restored"), &[]).code, Some(13));
}

/// P2: a pack that was cut short is found by its length, and nothing of it is restored.
#[test]
fn a_pack_that_was_cut_short_is_found() {
    let repository = Damaged::new();
    let pack = repository.largest_pack();
    let bytes = fs::read(&pack).unwrap();
    fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();

    let (code, report) = repository.verify("exists");

    assert_eq!(code, Some(13), "{report}");
    assert!(names(&report, &repository.snapshot), "{report}");
    assert_eq!(repository.restore("restored"), Some(13));
}

/// P2: a pack that is gone is found without reading the others.
#[test]
fn a_missing_pack_is_found_by_looking_whether_it_exists() {
    let repository = Damaged::new();
    let pack = repository.largest_pack();
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    fs::remove_file(&pack).unwrap();

    let (index, _) = repository.verify("index");
    let (exists, report) = repository.verify("exists");

    assert_eq!((index, exists), (Some(0), Some(13)), "{report}");
    assert!(report["findings"].to_string().contains(&name), "{report}");
    assert!(names(&report, &repository.snapshot), "{report}");
    assert_eq!(repository.restore("restored"), Some(13));
}

/// P2: so is any change of a manifest, or its absence.
#[test]
fn a_damaged_or_missing_manifest_is_found() {
    let mut repository = Damaged::new();
    let manifest = repository.objects("manifests").remove(0);

    for _ in 0..5 {
        let bit = repository.flip_any(&manifest);
        let (code, report) = repository.verify("index");
        assert_eq!(code, Some(13), "bit {bit}: {report}");
        assert!(names(&report, &repository.snapshot), "bit {bit}: {report}");
        assert_eq!(repository.restore(&format!("restored-{bit}")), Some(13), "bit {bit}");
        repository.flip(&manifest, bit);
    }
    fs::remove_file(&manifest).unwrap();

    assert_eq!(repository.verify("index").0, Some(13));
    assert_eq!(repository.restore("restored"), Some(13));
}

/// P2: a damaged page costs the files on it, and is found.
#[test]
fn a_damaged_page_is_found() {
    let repository = Damaged::new();
    let packs = repository.objects("packs");
    let len = |path: &&PathBuf| fs::metadata(path).unwrap().len();
    let pages = packs.iter().min_by_key(len).unwrap();
    let bytes = fs::read(pages).unwrap();
    repository.flip(pages, 8 * 80);

    assert_eq!(repository.verify("read").0, Some(13));
    assert_eq!(repository.restore("restored"), Some(13));
    fs::write(pages, bytes).unwrap();
    assert_eq!(repository.restore("restored-again"), Some(0));
}

/// P2: a pack can be looked into without a server, and a damaged one is told from a whole one.
#[test]
fn a_pack_is_inspected_without_a_server() {
    let repository = Damaged::new();
    let pack = repository.largest_pack();
    let key = repository.world.server.data().join("master.key");
    let inspect = |more: &[&str]| {
        let arguments = [&["pack", "inspect", pack.to_str().unwrap(), "--json"], more].concat();
        repository.node.at("http://127.0.0.1:1").admin(&arguments)
    };
    let with_key = ["--key-file", key.to_str().unwrap()];

    inspect(&[]).exits(0).json();
    inspect(&with_key).exits(0).json();
    repository.flip(&pack, 8 * 200);

    inspect(&[]).exits(13);
    inspect(&with_key).exits(13);
}
