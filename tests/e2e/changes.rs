//! A push costs what changed: what is appended, replaced or new is read and sent, and nothing else.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::client::{Client, Running, number, run_to_end, seconds, text};
use tests::compare::{assert_same, differences};
use tests::corpus::{self, set_time};
use tests::gear;
use tests::seed::Random;
use tests::world::World;

const MIB: u64 = 1 << 20;
/// Most bytes that a check of one file reads: its last chunk and three others, of at most a mebibyte each.
const SAMPLES: u64 = 5 * MIB;
/// Years ago, as most files of a database are.
const LONG_AGO: i64 = 1_500_000_000;

fn read(report: &Value) -> u64 {
    number(report, "bytes_read")
}

/// Writes a file that was last changed long ago.
fn old_file(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    set_time(path, LONG_AGO, 1);
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

/// Writes in the middle of a file and sets its time back.
fn write_unseen(path: &Path, at: u64, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
    set_time(path, before.mtime(), before.mtime_nsec());
}

/// Gives every file of a folder another name in a new folder, as the snapshot of a database does.
fn link_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::hard_link(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Fails unless the newest snapshot is what the root is now.
#[track_caller]
fn assert_restores(world: &World, node: &Client, root: &Path) {
    let to = world.path("restored");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    assert_same(root, &to);
    fs::remove_dir_all(&to).unwrap();
}

/// C1, P10, C8: of a file that grew, all is compared twice; then its end is read, and samples of what was there.
#[test]
fn an_appended_file_is_compared_twice_and_then_reads_and_sends_its_end() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let node = world.node("n");
    fs::write(root.join("log"), random.bytes(20_000_000)).unwrap();
    node.push(&root);
    for growth in 0..5 {
        append(&root.join("log"), &random.bytes(1_000_000));

        let report = node.push(&root);

        assert_eq!(number(&report, "appended"), 1, "{report}");
        assert_eq!(report["fallbacks"], serde_json::json!([]));
        if growth < 2 {
            assert!(read(&report) > 20_000_000, "trust without a proof: {report}");
        } else {
            // The last chunk is read twice: as a sample, and as the start of what is new.
            assert!(read(&report) < 1_000_000 + MIB + SAMPLES, "{report}");
        }
        assert!(number(&report, "bytes_sent") < 1_000_000 + MIB + 100_000, "{report}");
        assert_restores(&world, &node, &root);
    }
}

/// C8: the smallest input: a change in the middle beside a growth, as the heap of a database has them.
#[test]
fn a_change_in_the_middle_of_a_file_that_also_grew_is_in_the_snapshot() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let node = world.node("n");
    let file = root.join("f");
    fs::write(&file, random.bytes(30_000_000)).unwrap();
    node.push(&root);
    for growth in 0..4 {
        let heap = fs::OpenOptions::new().write(true).open(&file).unwrap();
        heap.write_all_at(b"UPDATED", 15_000_000 + growth).unwrap();
        append(&file, &random.bytes(8192));

        let report = node.push(&root);

        assert_eq!(number(&report, "whole"), 1, "{report}");
        assert_restores(&world, &node, &root);
    }
}

/// The target of a database's link is its data: a snapshot without it reports that, and a push that names the
/// target has it.
#[test]
fn a_link_of_a_database_that_leads_out_of_the_snapshot_is_told() {
    let world = World::new();
    let root = world.dir("pgdata");
    fs::create_dir(root.join("global")).unwrap();
    fs::write(root.join("PG_VERSION"), "15\n").unwrap();
    let wal = world.dir("wal");
    fs::write(wal.join("000000010000000000000001"), "log").unwrap();
    std::os::unix::fs::symlink(&wal, root.join("pg_wal")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    let node = world.node("n");

    let without = node.push(&root);
    let with = node.start_push_of(&[&root, &wal], &[]).wait().exits(0).json();

    let named = without["fallback_files"].as_object().unwrap();
    let (why, files) = named.iter().next().unwrap();
    assert!(named.len() == 1 && why.contains("leads to a folder that is not pushed"), "{without}");
    assert_eq!(files, &serde_json::json!([root.join("pg_wal")]));
    assert_eq!((number(&with, "files"), &with["fallbacks"]), (2, &serde_json::json!([])), "{with}");
}

/// A root without anything in it, which had something: its file system may not be mounted.
#[test]
fn a_root_that_is_suddenly_empty_is_warned_of() {
    let world = World::new();
    let root = world.dir("volume");
    let node = world.node("n");
    let empty = node.push(&root);
    fs::write(root.join("f"), "content").unwrap();
    let full = node.push(&root);
    fs::remove_file(root.join("f")).unwrap();

    let emptied = node.start_push_of(&[&root], &[]).wait().exits(3).json();

    assert_eq!((&empty["warnings"], &full["warnings"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert!(emptied["warnings"][0].as_str().is_some_and(|text| text.contains("is empty")), "{emptied}");
}

/// C8: a store through a memory map leaves no sign while its page waits to be written out. A file that was written to
/// a moment before a push is read again by the next.
#[test]
fn a_store_through_a_memory_map_after_a_push_is_in_the_next_one() {
    if !gear::has("python3") {
        return;
    }
    let world = World::new();
    let root = world.dir("source");
    let node = world.node("n");
    let file = root.join("mapped");
    fs::write(&file, vec![0; 1 << 20]).unwrap();
    let mut mapped = Mapped::open(&file);
    mapped.store(1);
    let first = node.push(&root);
    let before = fs::metadata(&file).unwrap();

    mapped.store(2);
    let now = fs::metadata(&file).unwrap();
    let second = node.push(&root);

    if (before.mtime(), before.mtime_nsec()) != (now.mtime(), now.mtime_nsec()) {
        gear::skip("this file system shows every store at once");
    }
    assert_eq!((number(&first, "new"), number(&second, "whole")), (1, 1), "{second}");
    assert_restores(&world, &node, &root);
}

/// A program that writes to a file through a memory map, and keeps it mapped.
struct Mapped {
    child: std::process::Child,
}

impl Mapped {
    fn open(file: &Path) -> Self {
        let program = "import mmap, sys\n\
            with open(sys.argv[1], 'r+b') as file:\n\
            \x20   memory = mmap.mmap(file.fileno(), 0)\n\
            \x20   for line in sys.stdin:\n\
            \x20       memory[700000] = int(line)\n\
            \x20       print('stored', flush=True)\n";
        let mut command = std::process::Command::new("python3");
        command.args(["-c", program]).arg(file);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    fn store(&mut self, value: u8) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{value}").unwrap();
        let mut line = [0; 7];
        self.child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The snapshot of a database adds a link to every file: the ctime changes.
#[test]
fn a_snapshot_of_hard_links_costs_samples_at_most_and_nothing_where_a_class_allows_that() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    for n in 0..8 {
        old_file(&root.join(format!("small-{n}")), &random.bytes(10_000));
    }
    for n in 0..2 {
        old_file(&root.join(format!("large-{n}")), &random.bytes(8_000_000));
    }
    let node = world.node("n");
    node.push(&root);
    let after_links = |name: &str, more: &[&str]| {
        link_all(&root, &world.path(name));
        let report = node.push_with(&root, more);
        assert_eq!(number(&report, "unchanged"), 10, "{report}");
        read(&report)
    };

    let immutable = after_links("links-1", &["--class", "immutable=*"]);
    let append_only = after_links("links-2", &["--class", "append-only=*"]);
    let auto = after_links("links-3", &[]);
    let nothing = read(&node.push(&root));

    assert_eq!([immutable, append_only, nothing], [0, 0, 0]);
    assert!((80_000..80_000 + 2 * SAMPLES).contains(&auto), "{auto}");
    assert_restores(&world, &node, &root);
}

#[test]
fn a_mutable_file_is_read_by_every_push_and_others_are_not() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    old_file(&root.join("live.db"), &random.bytes(1_500_000));
    old_file(&root.join("done.dat"), &random.bytes(1_500_000));
    let node = world.node("n");
    node.push(&root);

    let mutable = [(); 2].map(|()| node.push_with(&root, &["--class", "mutable=*.db"]));
    let auto = node.push(&root);

    for report in &mutable {
        assert_eq!((read(report), number(report, "whole")), (1_500_000, 1), "{report}");
        assert_eq!(number(report, "bytes_sent"), 0, "{report}");
    }
    assert_eq!(read(&auto), 0, "{auto}");
}

/// A table of Cassandra, and its commit log.
struct Cassandra {
    root: PathBuf,
    table: PathBuf,
    log: PathBuf,
    random: Random,
}

impl Cassandra {
    const DATA_LEN: usize = 4_000_000;

    fn new(root: PathBuf) -> Self {
        let table = root.join("data/ks/events-5a1c395e");
        let log = root.join("commitlog/CommitLog-7-1700000000001.log");
        fs::create_dir_all(&table).unwrap();
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let mut this = Self { root, table, log, random: Random::printed() };
        this.flush(1);
        // It has its full length from the start.
        fs::File::create(&this.log).unwrap().set_len(1 << 20).unwrap();
        this.commit(0);
        this
    }

    fn part(&self, number: u32, part: &str) -> PathBuf {
        self.table.join(format!("nb-{number}-big-{part}"))
    }

    fn flush(&mut self, number: u32) {
        fs::write(self.part(number, "Data.db"), self.random.bytes(Self::DATA_LEN)).unwrap();
        for part in ["Index.db", "Filter.db", "Statistics.db", "Summary.db", "CompressionInfo.db"] {
            let bytes = self.random.bytes(9_000);
            fs::write(self.part(number, part), bytes).unwrap();
        }
        fs::write(self.part(number, "Digest.crc32"), self.random.text(10)).unwrap();
        fs::write(self.part(number, "TOC.txt"), "Data.db\nStatistics.db\n").unwrap();
    }

    /// New content of the same length, under the old name.
    fn change_statistics(&mut self, number: u32) {
        let (name, new) = (self.part(number, "Statistics.db"), self.root.join("tmp"));
        fs::write(&new, self.random.bytes(9_000)).unwrap();
        rustix::fs::rename(&new, &name).unwrap();
    }

    /// Writes in place, through a memory map that leaves the time as it was.
    fn commit(&mut self, at: u64) {
        let bytes = self.random.bytes(100_000);
        write_unseen(&self.log, at, &bytes);
    }

    fn snapshot(&self) {
        link_all(&self.table, &self.table.join("snapshots/daily"));
    }

    fn compact(&mut self, from: u32, to: u32) {
        self.flush(to);
        for entry in fs::read_dir(&self.table).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(&format!("nb-{from}-")) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// The old segment under its next name.
    fn recycle(&mut self) {
        let next = self.log.with_file_name("CommitLog-7-1700000000002.log");
        rustix::fs::rename(&self.log, &next).unwrap();
        self.log = next;
        self.commit(0);
    }
}

/// S1: whatever a database does to its files, the snapshot after it is what they are.
#[test]
fn a_database_that_works_restores_as_it_was_at_each_push() {
    let world = World::new();
    let node = world.node("n");
    let mut db = Cassandra::new(world.path("source"));
    let push = |db: &Cassandra| {
        let report = node.push_with(&db.root, &["--class-set", "cassandra"]);
        assert_restores(&world, &node, &db.root);
        report
    };
    push(&db);
    let data_len = u64::try_from(Cassandra::DATA_LEN).unwrap();

    db.change_statistics(1);
    db.commit(100_000);
    let worked = push(&db);
    db.commit(250_000);
    db.snapshot();
    let linked = push(&db);
    db.compact(1, 2);
    let compacted = push(&db);
    db.recycle();
    let recycled = push(&db);
    fs::remove_dir_all(db.table.join("snapshots")).unwrap();
    let cleared = push(&db);

    for report in [&worked, &linked, &recycled, &cleared] {
        assert!(read(report) < data_len / 2, "a large file that is never changed was read: {report}");
    }
    assert!((data_len..data_len * 3 / 2).contains(&number(&compacted, "bytes_sent")), "{compacted}");
    // The old table's files, but for those that the snapshot still had; and those of the snapshot.
    assert_eq!([number(&compacted, "gone"), number(&cleared, "gone")], [8, 8]);
}

/// A write in place, with its time set back, to a file that is never written: only reading shows it.
#[test]
fn a_rehash_finds_a_change_that_left_no_sign() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let file = root.join("table");
    old_file(&file, &random.bytes(3_000_000));
    let node = world.node("n");
    let immutable = ["--class", "immutable=*"];
    node.push_with(&root, &immutable);
    write_unseen(&file, 1_500_000, &random.bytes(1000));

    let trusting = node.push_with(&root, &immutable);
    node.restore("latest", &world.path("trusted"), &["--strip-root"]).exits(0);
    let rehash = node.push_with(&root, &["--class", "immutable=*", "--rehash"]);

    assert_eq!(read(&trusting), 0, "{trusting}");
    assert!(!differences(&root, &world.path("trusted")).is_empty(), "the change was none");
    assert!(read(&rehash) >= 3_000_000, "{rehash}");
    assert_eq!(number(&rehash["fallbacks"][0], "files"), 1, "{rehash}");
    assert_restores(&world, &node, &root);
    let again = node.push_with(&root, &["--class", "immutable=*", "--rehash"]);
    assert_eq!((read(&again), &again["fallbacks"]), (3_000_000, &serde_json::json!([])));
}

#[test]
fn a_round_of_two_pushes_reads_everything_once() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let file = root.join("table");
    old_file(&file, &random.bytes(3_000_000));
    let node = world.node("n");
    let every = |pushes| {
        let more = ["--class", "immutable=*", "--rehash-every", pushes];
        read(&node.push_with(&root, &more))
    };

    assert_eq!([(); 5].map(|()| every("2")), [3_000_000, 3_000_000, 0, 3_000_000, 0]);
    write_unseen(&file, 700_000, &random.bytes(1000));
    assert!(every("2") > 3_000_000, "the round came to its end, and the change was not found");
    assert_restores(&world, &node, &root);
    assert_eq!([every("0"), every("0")], [0, 0]);
}

/// The one state file of a node that has pushed one set of roots.
fn state_file(node: &Client) -> PathBuf {
    let mut folders = vec![node.home().join("state")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "state") {
                return path;
            }
        }
    }
    panic!("the last push was not remembered")
}

/// S1: a push that cannot be remembered is complete, and says so.
#[test]
fn a_state_folder_that_cannot_be_made_costs_the_memory_and_not_the_push() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let node = world.node("n");
    let no_folder = world.path("no-folder");
    fs::write(&no_folder, "a file").unwrap();
    let push = || {
        let mut command = node.command();
        command.env("ASTACUS_STATE_DIR", &no_folder).args(["push", "--json"]).arg(&root);
        run_to_end(command).exits(0)
    };

    let first = push();

    assert!(first.stderr.contains("cannot save the push state"), "{}", first.stderr);
    assert_eq!(text(&first.json(), "state"), "complete");
    assert_eq!(read(&push().json()), 7, "the second push knows nothing of the first");
    node.restore("latest", &world.path("to"), &["--strip-root"]).exits(0);
    assert_same(&root, &world.path("to"));
}

/// A service user has no home: each of its pushes says that it is not remembered.
#[test]
fn a_push_without_a_home_says_that_it_is_not_remembered() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let node = world.node("n");
    // Root has a folder of the machine.
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let wrapper: &[&str] = if gear::is_root() { &user } else { &[] };
    let command = || {
        let mut command = node.wrapped(wrapper).command();
        command.env_remove("HOME").env_remove("ASTACUS_STATE_DIR").env_remove("ASTACUS_TOKEN_FILE");
        command.env("ASTACUS_TOKEN", world.server.token());
        command
    };
    fs::set_permissions(root.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let mut version = command();
    version.arg("--version");
    if gear::is_root() && (!gear::has("setpriv") || run_to_end(version).code != Some(0)) {
        return;
    }
    let mut push = command();
    push.args(["push", "--json"]).arg(&root);

    let pushed = run_to_end(push).exits(0);

    for text in [&pushed.stderr, &pushed.json()["warnings"].to_string()] {
        assert!(text.contains("cannot save the push state") && text.contains("ASTACUS_STATE_DIR"), "{text}");
    }
}

/// S1: what is remembered is only ever a help. Without it, and whatever became of it, everything is read.
#[test]
fn a_state_that_was_lost_or_damaged_costs_one_push_that_reads_everything() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let sizes: Vec<usize> = (0..30).map(|_| 1 + random.index(60_000)).collect();
    for (n, len) in sizes.iter().enumerate() {
        old_file(&root.join(format!("file-{n}")), &random.bytes(*len));
    }
    let total = u64::try_from(sizes.iter().sum::<usize>()).unwrap();
    let node = world.node("n");
    node.push(&root);
    assert_eq!(read(&node.push(&root)), 0);

    fs::remove_dir_all(node.home().join("state")).unwrap();
    assert_eq!(read(&node.push(&root)), total, "without a state");
    for _ in 0..gear::rounds(8, 300) {
        let path = state_file(&node);
        let mut bytes = fs::read(&path).unwrap();
        // Behind its blocks lie the rows of inodes: hints, of which none is needed here.
        let blocks = u64::from_le_bytes(bytes[74..82].try_into().unwrap());
        let at = random.index(usize::try_from(blocks).unwrap());
        let what = if random.below(4) == 0 {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        } else {
            bytes[at] ^= 1 << random.index(8);
            format!("byte {at} changed")
        };
        fs::write(&path, bytes).unwrap();

        let report = node.push(&root);

        assert_eq!(read(&report), total, "{what}: {report}");
        assert_eq!(number(&report, "bytes_sent"), 0, "{what}: {report}");
    }
    assert_eq!(read(&node.push(&root)), 0);
    assert_restores(&world, &node, &root);
}

/// S1: a repository that was set back to an older state lacks what the node remembers to have sent.
#[test]
fn what_a_repository_lost_is_asked_for_and_sent_again() {
    let mut world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    old_file(&root.join("old"), &random.bytes(4_000_000));
    world.node("n").push(&root);
    assert!(world.server.stop().success());
    corpus::copy(&world.path("data"), &world.path("data-before"));
    world.server.start_again();
    old_file(&root.join("new"), &random.bytes(3_000_000));
    let lost = world.node("n").push(&root);
    assert!(world.server.stop().success());
    fs::remove_dir_all(world.path("data")).unwrap();
    corpus::copy(&world.path("data-before"), &world.path("data"));
    world.server.start_again();
    let node = world.node("n");

    let again = node.push(&root);

    assert_eq!(node.snapshot_ids().len(), 2);
    assert_eq!((number(&again, "unchanged"), read(&again)), (2, 3_000_000), "{again}");
    assert!(number(&again, "bytes_sent") >= number(&lost, "bytes_sent") * 9 / 10, "{again}");
    assert!(number(&again, "bytes_sent") < 3_500_000, "{again}");
    assert_restores(&world, &node, &root);
    node.admin(&["verify", "--level", "read"]).exits(0);
}

#[test]
fn a_list_says_what_each_push_did() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    for name in ["grows", "stays", "goes"] {
        old_file(&root.join(name), &random.bytes(200_000));
    }
    let node = world.node("n");
    let first = node.push(&root);
    append(&root.join("grows"), &random.bytes(1000));
    fs::remove_file(root.join("goes")).unwrap();
    fs::write(root.join("comes"), "new").unwrap();
    let second = node.push(&root);

    let listed = node.snapshots();
    let table = node.run(["list"]).exits(0).stdout;

    for (snapshot, report) in listed.iter().zip([&first, &second]) {
        let push = &snapshot["pushes"][0];
        assert_eq!(push["node"], "n");
        for field in ["unchanged", "appended", "whole", "new", "gone", "resumed"] {
            assert_eq!(push[field], report[field], "{field}");
        }
        for field in ["bytes_read", "bytes_hashed", "bytes_sent", "bytes_stored", "fallbacks"] {
            assert_eq!(push[field], report[field], "{field}");
        }
    }
    let kinds = ["unchanged", "appended", "whole", "new", "gone"].map(|field| number(&second, field));
    assert_eq!(kinds, [1, 1, 0, 1, 1], "{second}");
    let [head, _, newest] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    let (head, newest) = (cells(head), cells(newest));
    assert_eq!(head[8..], ["CHANGED", "READ", "SENT"], "{table}");
    assert_eq!((newest.len(), newest[0].clone()), (11, text(&second, "snapshot")), "{table}");
    assert_eq!(newest[8], "2", "{table}");
    assert_ne!(newest[9], newest[10], "{table}");
}

/// A rate is kept by the push's own clock: the first second's worth goes at once, the rest takes its time.
#[test]
fn a_push_with_a_rate_takes_as_long_as_that() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), Random::printed().bytes(1_048_576)).unwrap();

    let report = world.node("n").push_with(&root, &["--max-rate", "256K"]);

    assert!(number(&report, "bytes_sent") > 1_048_576, "{report}");
    assert!(seconds(&report) >= 2.0, "{report}");
}

/// Calls of a traced program, line by line.
fn traced(node: &Client, root: &Path, to: &Path) -> Vec<String> {
    let calls = "trace=open,openat,openat2,link,linkat,unlink,unlinkat";
    let traced = node.wrapped(&["strace", "-f", "-qq", "-e", calls, "-o", to.to_str().unwrap()]);
    let mut command = traced.command();
    command.args(["push", "--quiet"]).arg(root);
    // Nightly there are many files, and each call takes its time.
    let done = Running::start(command).within(Duration::from_secs(1800));
    done.expect("a push ends").exits(0);
    fs::read_to_string(to).unwrap().lines().map(str::to_owned).collect()
}

fn count(calls: &[String], call: &str, name: &str) -> usize {
    calls.iter().filter(|line| line.contains(call) && line.contains(name)).count()
}

/// C4: what did not change is looked at, and neither opened nor given a second name.
#[test]
fn a_push_of_unchanged_files_opens_none_of_them() {
    if !gear::has("strace") {
        return;
    }
    let files = gear::rounds(2_000, 200_000);
    let world = World::new();
    let root = world.dir("source");
    for n in 0..files {
        let folder = root.join(format!("folder-{}", n / 1000));
        fs::create_dir_all(&folder).unwrap();
        old_file(&folder.join(format!("data-{n}")), n.to_string().as_bytes());
    }
    let node = world.node("n");

    let first = traced(&node, &root, &world.path("first.strace"));
    let second = traced(&node, &root, &world.path("second.strace"));

    // The first shows that these calls are seen.
    assert!(count(&first, "linkat(", "\"data-") >= files);
    assert!(count(&first, "unlinkat(", "\"") >= files && count(&first, "open", "\"") >= files);
    assert_eq!(count(&second, "link", "\"data-"), 0);
    assert_eq!(count(&second, "open", "\"data-"), 0);
    let unlinked = count(&second, "unlink", "\"");
    assert!(unlinked < 20, "{unlinked} names were removed");
    let opened = count(&second, "open", "\"");
    assert!(opened < 200 + files / 500, "{opened} files and folders were opened");
    assert_eq!(read(&node.push(&root)), 0);
}
