//! Scrubs and deep checks: what they name, what they tell apart, and how far each run gets.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use format_spec::key::BlobKind;
use format_spec::{Entry, EntryKind, Extent, FileDigest, FileEnd};
use serde_json::{Value, json};
use tests::bodies;
use tests::client::{Client, number, text};
use tests::corpus;
use tests::seed::Random;
use tests::world::{World, objects};

/// A repository in which each push has packs of its own.
struct Repository {
    world: World,
    node: Client,
    random: Random,
}

impl Repository {
    fn new() -> Self {
        let mut world = World::new();
        world.server.allow_errors("damaged");
        let node = world.node("n");
        Self { node, random: Random::printed(), world }
    }

    /// Pushes a folder of three new files, and returns the snapshot and the pack of their content.
    fn push(&mut self, name: &str) -> (String, PathBuf) {
        let root = self.world.path(name);
        corpus::plain(&root, &mut self.random, 3, 100_000);
        // More than a pack of pages is padded to: the larger pack is that of the content.
        fs::write(root.join("file-0"), self.random.bytes(300_000)).unwrap();
        let before = self.packs();
        let snapshot = text(&self.node.push(&root), "snapshot");
        let new = self.packs().into_iter().filter(|pack| !before.contains(pack));
        let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
        (snapshot, new.max_by_key(len).unwrap())
    }

    fn packs(&self) -> Vec<PathBuf> {
        objects(self.world.server.data(), "packs")
    }

    fn admin(&self, words: &[&str]) -> (Option<i32>, Value) {
        let done = self.node.admin(&[words, &["--json"]].concat());
        (done.code, done.json())
    }

    /// The paths of all files that a report names, in order, each once.
    fn paths(report: &Value) -> Vec<String> {
        let findings = report["findings"].as_array().unwrap();
        let files = findings.iter().filter_map(|finding| finding["files"].as_array()).flatten();
        let mut paths: Vec<String> = files.map(|file| text(file, "path")).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The files of a folder as a snapshot names them.
    fn files(&self, name: &str) -> Vec<String> {
        let root = self.world.path(name);
        let path = |n| root.join(format!("file-{n}")).to_str().unwrap().trim_start_matches('/').to_owned();
        (0..3).map(path).collect()
    }
}

fn kinds(report: &Value) -> Value {
    report["counts"].clone()
}

/// P2: a missing pack names the files of its snapshot, and those of no other; bytes that come back are
/// taken back.
#[test]
fn a_missing_pack_names_exactly_its_files_until_it_is_back() {
    let mut repository = Repository::new();
    repository.push("one");
    let (snapshot, pack) = repository.push("two");
    let bytes = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();

    let (code, report) = repository.admin(&["scrub"]);

    assert_eq!(code, Some(13), "{report}");
    assert_eq!(kinds(&report), json!({"corrupt": 0, "missing": 1, "unreadable": 0, "index": 0}));
    assert_eq!(report["findings"][0]["snapshots"], json!([snapshot]), "{report}");
    assert_eq!(Repository::paths(&report), repository.files("two"));
    let quarantined = number(&report, "quarantined");
    assert!(quarantined >= 3, "{report}");
    let shown = repository.node.admin(&["scrub"]).exits(13);
    assert!(shown.stdout.contains(&repository.files("two")[0]), "{}", shown.stdout);

    fs::write(&pack, bytes).unwrap();
    let (code, report) = repository.admin(&["scrub"]);
    assert_eq!((code, number(&report, "recovered")), (Some(0), quarantined), "{report}");
    assert_eq!(repository.admin(&["verify", "--level", "restore"]).0, Some(0));
}

/// P2: what cannot be read is told from what is wrong, by kind and by exit code, and nothing is held
/// against it.
#[test]
fn unreadable_is_not_corrupt() {
    let mut repository = Repository::new();
    let (_, pack) = repository.push("one");
    let (_, other) = repository.push("two");
    let (bytes, mut wrong) = (fs::read(&pack).unwrap(), fs::read(&other).unwrap());
    fs::remove_file(&pack).unwrap();
    symlink(&pack, &pack).unwrap();

    let (code, report) = repository.admin(&["scrub"]);

    assert_eq!(code, Some(14), "{report}");
    assert_eq!(kinds(&report), json!({"corrupt": 0, "missing": 0, "unreadable": 1, "index": 0}));
    assert_eq!(Repository::paths(&report), repository.files("one"), "they need it all the same");
    assert_eq!(number(&report, "quarantined"), 0);
    assert_eq!(number(&report, "never_verified"), 1);

    wrong[80] ^= 1;
    fs::write(&other, &wrong).unwrap();
    let (code, report) = repository.admin(&["scrub"]);
    assert_eq!(code, Some(13), "{report}");
    assert_eq!(kinds(&report), json!({"corrupt": 2, "missing": 0, "unreadable": 1, "index": 0}));

    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    wrong[80] ^= 1;
    fs::write(&other, &wrong).unwrap();
    assert_eq!(repository.admin(&["scrub"]).0, Some(0));
}

/// P2: a check of one snapshot looks at what it needs.
#[test]
fn damage_elsewhere_does_not_concern_a_snapshot() {
    let mut repository = Repository::new();
    let (one, pack) = repository.push("one");
    let (two, _) = repository.push("two");
    let mut bytes = fs::read(&pack).unwrap();
    bytes[80] ^= 1;
    fs::write(&pack, bytes).unwrap();

    for level in ["read", "restore"] {
        let check = |id: &str| repository.admin(&["verify", "--level", level, "--snapshot", id]);
        assert_eq!((check(&two).0, check(&one).0), (Some(0), Some(13)), "{level}");
    }
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(repository.admin(&["verify", "--snapshot", unknown]).0, Some(10));
}

/// P2: runs that read little each come round to all, and find what is wrong on the way.
#[test]
fn samples_come_round_to_everything() {
    let mut repository = Repository::new();
    let (_, pack) = repository.push("one");
    repository.push("two");
    repository.push("three");
    let mut bytes = fs::read(&pack).unwrap();
    bytes[80] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    let packs = repository.packs().len();

    let codes: Vec<Option<i32>> =
        (0..packs).map(|_| repository.admin(&["scrub", "--sample", "0.0001%"]).0).collect();

    assert_eq!(codes.iter().filter(|code| **code == Some(13)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), packs - 1, "{codes:?}");
    bytes[80] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    let (code, report) = repository.admin(&["scrub", "--max-bytes", "1", "--max-rate", "100M"]);
    assert_eq!((code, &report["stopped"]), (Some(0), &json!("bytes")), "{report}");
    let (code, report) = repository.admin(&["scrub"]);
    assert_eq!((code, number(&report, "never_verified")), (Some(0), 0), "{report}");
    assert!(report["oldest_verified"].is_string(), "{report}");
    assert_eq!(report["left"], json!({"count": 0, "bytes": 0}));
}

/// C2: a file whose digest no restore would take is found while its source is still there.
#[test]
fn the_level_restore_finds_what_reading_does_not() {
    let repository = Repository::new();
    let wire = repository.world.wire();
    let (session, domain) = wire.session("c", "n");
    let (chunk, frame) = bodies::chunk_frame(&domain, b"content");
    let mut builder = format_spec::page::PageBuilder::new(domain.clone());
    builder.entry(&bodies::entry("data", EntryKind::Folder, 0o755));
    builder.entry(&Entry { size: 7, ..bodies::entry("data/file", EntryKind::File, 0o644) });
    builder.extent(Extent::Chunk { id: chunk, len: 7 });
    builder.end_file(FileEnd::Whole(FileDigest::from_bytes([1; 32])));
    let page = builder.finish().unwrap().bytes;
    let page_id = domain.id_of(BlobKind::Page, &page);
    let page_frame = bodies::frame(BlobKind::Page, page_id, &page);
    for frame in [frame, page_frame] {
        let body = bodies::stream([frame.as_slice()].into_iter());
        assert_eq!(wire.send("POST", &format!("/v1/sessions/{session}/blobs"), &body).status, 200);
    }
    let manifest = bodies::manifest_of("n", &[(page_id, u32::try_from(page.len()).unwrap())]);
    assert_eq!(wire.send("POST", &format!("/v1/sessions/{session}/commit"), &manifest).status, 200);

    let (read, _) = repository.admin(&["verify", "--level", "read"]);
    let (restore, report) = repository.admin(&["verify", "--level", "restore"]);

    assert_eq!((read, restore), (Some(0), Some(13)), "{report}");
    assert_eq!(Repository::paths(&report), ["data/file"]);
    let to = repository.world.path("restored");
    assert_eq!(repository.node.restore("latest", &to, &[]).code, Some(13), "a restore agrees");
}

#[test]
fn a_wrong_limit_is_refused_with_a_hint() {
    let repository = Repository::new();
    for (flag, wrong) in [("--sample", "0%"), ("--max-time", "1y"), ("--max-bytes", "many")] {
        let done = repository.node.admin(&["scrub", flag, wrong]).exits(2);
        assert!(done.stderr.contains(wrong), "{}", done.stderr);
    }
}
