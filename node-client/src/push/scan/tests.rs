use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chunker::{Algorithm, Chunker, Params};
use format_spec::page::{self, Record};
use format_spec::{ChunkId, ManifestId, RepositoryId, SessionId};

use super::*;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::push::batch::{Batch, Feeder, READ_LEN};
use crate::push::walk::{Mounts, walk};
use crate::push::{Excludes, roots};
use crate::state::Place;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

/// A clock that always shows the same time.
struct At(i64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0, nanos: 0 }
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Long after every change that a test makes.
const LATER: At = At(i64::MAX);

/// Does something to the tree when the scan has looked at an entry and not yet read it.
struct OnScanned<F>(F);

impl<F: Fn(u64) + Send + Sync> Progress for OnScanned<F> {
    fn scanned(&self, bytes: u64) {
        (self.0)(bytes);
    }
}

/// A tree to scan, and a folder for its states.
struct Tree {
    temp: tempfile::TempDir,
    root: PathBuf,
}

/// What a scan made, with paths below the root.
struct Outcome {
    files: Vec<(String, Entry, Vec<Extent>, FileEnd)>,
    others: Vec<(String, Entry)>,
    totals: Totals,
    problems: Vec<(String, String)>,
    unchanged: u64,
    bytes_read: u64,
    batches: Vec<Batch>,
}

impl Outcome {
    fn file(&self, name: &str) -> &(String, Entry, Vec<Extent>, FileEnd) {
        self.files.iter().find(|file| file.0 == name).expect("the file is in the snapshot")
    }

    fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| &*file.0).chain(self.others.iter().map(|other| &*other.0)).collect()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let plain = |id: ChunkId| {
            let mut chunks = self.batches.iter().flat_map(Batch::chunks);
            chunks.find(|chunk| chunk.0 == id).expect("the chunk was fed").1.to_vec()
        };
        let bytes = |extent: &Extent| match extent {
            Extent::Chunk { id, .. } => plain(*id),
            Extent::Hole { len } => vec![0; usize::try_from(*len).unwrap()],
        };
        self.file(name).2.iter().flat_map(bytes).collect()
    }
}

impl Tree {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap().join("root");
        fs::create_dir(&root).unwrap();
        Self { temp, root }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn domain() -> DomainKey {
        DomainKey::parse(&"c3".repeat(32)).unwrap()
    }

    fn place(&self) -> Place {
        let roots = roots::check(std::slice::from_ref(&self.root)).unwrap();
        Place::new(&self.temp.path().join("state"), &"c".parse().unwrap(), &"n".parse().unwrap(), &roots)
    }

    fn walk(&self) -> Vec<Step> {
        let roots = roots::check(std::slice::from_ref(&self.root)).unwrap();
        let mut steps = Vec::new();
        let excludes = Excludes::new(&[]).unwrap();
        let walked = walk(&roots, &excludes, Mounts::Enter, |step| {
            steps.push(step);
            Ok(())
        });
        walked.unwrap();
        steps
    }

    /// Scans with what is remembered, as of `clock`, and remembers the outcome.
    fn scan(&self, clock: &dyn Clock) -> Outcome {
        self.scan_steps(self.walk(), clock, &Silent).unwrap()
    }

    fn scan_steps(
        &self,
        steps: Vec<Step>,
        clock: &dyn Clock,
        progress: &dyn Progress,
    ) -> Result<Outcome, Failure> {
        let stop = Stop::new(Cancel::new());
        let tally = Tally::default();
        self.run(steps, clock, progress, &stop, &tally).map_err(|stopped| stop.reason(stopped))
    }

    fn run(
        &self,
        steps: Vec<Step>,
        clock: &dyn Clock,
        progress: &dyn Progress,
        stop: &Stop,
        tally: &Tally,
    ) -> Result<Outcome, Stopped> {
        let (domain, place) = (Self::domain(), self.place());
        let (give, free) = crossbeam_channel::unbounded();
        let (full, batches) = crossbeam_channel::unbounded();
        let params = Params::new(Algorithm::FastCdc { min: 1 << 10, avg: 1 << 12, max: 1 << 14 }).unwrap();
        for _ in 0..50 {
            give.send(Batch::with_len((64 << 10) + params.max_chunk() + READ_LEN)).unwrap();
        }
        let known = place.of(&REPOSITORY).map(|header| Known::open(header, domain.clone())).transpose();
        let spool = Spool::create(Some(&place), domain.clone(), REPOSITORY, &SessionId::from_bytes([2; 16]));
        let mut scan = Scan {
            reader: Reader {
                feeder: Feeder::new(stop, free, full, 64 << 10)?,
                chunker: Chunker::new(params, domain.gear_table()),
                domain: domain.clone(),
            },
            pages: Pages { builder: PageBuilder::new(domain.clone()), spool: spool.unwrap(), stop },
            known: stop.pass(known)?,
            links: Links::new(domain.clone()),
            domain,
            clock,
            tally,
            progress,
            totals: Totals::default(),
            problems: Vec::new(),
        };
        for step in steps {
            scan.step(step)?;
        }
        let Scanned { mut spool, totals, problems } = scan.finish()?;
        let mut records = Vec::new();
        let read = spool.read_back(|_, bytes| {
            records.extend(page::decode(bytes).unwrap());
            Ok::<_, std::io::Error>(())
        });
        read.unwrap();
        spool.finish(&ManifestId::from_bytes([3; 32])).unwrap();
        Ok(self.outcome(records, totals, &problems, tally, batches.iter().collect()))
    }

    fn outcome(
        &self,
        records: Vec<Record>,
        totals: Totals,
        problems: &[Problem],
        tally: &Tally,
        batches: Vec<Batch>,
    ) -> Outcome {
        let root = EntryPath::new(self.root.to_str().unwrap().as_bytes()[1..].to_vec()).unwrap();
        let below = |path: &EntryPath| String::from_utf8_lossy(path.below(&root).unwrap()).into_owned();
        let (mut files, mut others) = (Vec::<(String, Entry, Vec<Extent>, FileEnd)>::new(), Vec::new());
        for record in records {
            match record {
                Record::Entry(entry) if entry.kind == EntryKind::File => {
                    files.push((below(&entry.path), entry, Vec::new(), FileEnd::Unreadable));
                }
                Record::Entry(entry) => others.push((below(&entry.path), entry)),
                Record::Content(content) => {
                    let file = files.last_mut().unwrap();
                    file.2.extend(content.extents);
                    file.3 = content.end.unwrap_or(FileEnd::Unreadable);
                }
            }
        }
        let problems = problems.iter().map(|problem| (below(&problem.path), problem.reason.clone()));
        let (unchanged, bytes_read) = tally.so_far();
        Outcome { files, others, totals, problems: problems.collect(), unchanged, bytes_read, batches }
    }
}

/// Nothing needs to be durable here.
fn rename(from: &Path, to: &Path) {
    rustix::fs::renameat(rustix::fs::CWD, from, rustix::fs::CWD, to).unwrap();
}

/// Repeats `change` until the file system's clock, which is coarse, has ticked.
fn until_ctime_moves(path: &Path, change: impl Fn()) {
    let ctime = || Stat::of_file(File::open(path).unwrap()).unwrap().identity.ctime;
    let before = ctime();
    while ctime() == before {
        change();
    }
}

/// Bytes without repetitions; a shorter run is the start of a longer one.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let next = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(next(&seed), next).map(|state| state.to_be_bytes()[0]).take(len).collect()
}

#[test]
fn a_file_is_settled_two_seconds_after_its_last_change() {
    let at = |seconds, nanos| Timestamp { seconds, nanos };

    assert!(is_settled(at(10, 5), at(12, 5)));
    assert!(!is_settled(at(10, 5), at(12, 4)));
    assert!(!is_settled(at(10, 5), at(9, 0)));
    assert!(!is_settled(at(i64::MAX, 0), at(12, 0)));
}

#[test]
fn content_is_fed_byte_for_byte_and_counted() {
    let tree = Tree::new();
    let contents: Vec<(String, Vec<u8>)> = [0, 1, 1023, 5000, 200_000, 400_001]
        .iter()
        .map(|len| (format!("f{len:06}"), noise(*len, 5)))
        .collect();
    for (name, content) in &contents {
        tree.write(name, content);
    }
    symlink("f000001", tree.root.join("link")).unwrap();

    let outcome = tree.scan(&LATER);

    for (name, content) in &contents {
        assert!(outcome.content(name) == *content, "{name}");
        assert!(matches!(outcome.file(name).3, FileEnd::Whole(_)));
    }
    let bytes: u64 = outcome.files.iter().map(|file| file.1.size).sum();
    let expected = Totals { files: 6, folders: 1, symlinks: 1, bytes, problems: 0, skipped: 0 };
    assert_eq!(outcome.totals, expected);
    assert_eq!(outcome.bytes_read, bytes);
}

#[test]
fn holes_stay_holes_and_data_keeps_its_place() {
    let tree = Tree::new();
    let path = tree.write("sparse", "");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(40 << 20).unwrap();
    file.write_all_at(&noise(100_000, 1), 8 << 20).unwrap();
    file.write_all_at(b"end", (40 << 20) - 3).unwrap();
    tree.write("hole", "");
    File::options().write(true).open(tree.root.join("hole")).unwrap().set_len(1 << 20).unwrap();

    let outcome = tree.scan(&LATER);

    assert!(outcome.content("sparse") == fs::read(&path).unwrap());
    let extents = &outcome.file("sparse").2;
    assert!(matches!(extents[0], Extent::Hole { len } if len == 8 << 20), "{:?}", extents[0]);
    assert!(outcome.bytes_read < 1 << 20, "holes were read");
    assert_eq!(outcome.file("hole").2, [Extent::Hole { len: 1 << 20 }]);
}

#[test]
fn names_of_one_inode_share_a_group_and_its_content_comes_once() {
    let tree = Tree::new();
    let first = tree.write("a", "content");
    tree.write("b", "content");
    fs::create_dir(tree.root.join("sub")).unwrap();
    fs::hard_link(&first, tree.root.join("sub/z")).unwrap();

    let outcome = tree.scan(&LATER);

    let group = outcome.file("a").1.link_group;
    assert!(group.is_some());
    let link = &outcome.others.iter().find(|other| other.0 == "sub/z").unwrap().1;
    assert_eq!((link.kind, link.link_group, link.size), (EntryKind::HardLink, group, 0));
    assert_eq!(outcome.file("b").1.link_group, None);
    assert_eq!((outcome.totals.files, outcome.totals.bytes), (3, 14));
}

#[test]
fn an_unchanged_tree_is_not_read_and_gives_the_same_entries() {
    let tree = Tree::new();
    tree.write("a/big", noise(300_000, 3));
    let linked = tree.write("a/linked", "x");
    fs::hard_link(linked, tree.root.join("z")).unwrap();
    tree.write("empty", "");
    let first = tree.scan(&LATER);

    let again = tree.scan(&LATER);

    assert_eq!((again.unchanged, again.bytes_read), (3, 0));
    assert_eq!(again.files, first.files);
    assert_eq!(again.others, first.others);
    assert_eq!(again.totals, first.totals);
    assert!(again.batches.is_empty());
    // And what was reused is remembered again.
    assert_eq!(tree.scan(&LATER).unchanged, 3);
}

/// Each part of the identity counts: a file that differs in only one of them is read.
#[test]
fn whatever_changes_of_a_file_it_is_read_again() {
    let tree = Tree::new();
    let [content, times, mode, other, same] =
        ["content", "times", "mode", "other", "same"].map(|name| tree.write(name, "12345"));
    tree.scan(&LATER);

    // Same length and mtime; only ctime tells.
    let before = fs::metadata(&content).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&content).unwrap();
    until_ctime_moves(&content, || {
        file.write_all_at(b"54321", 0).unwrap();
        file.set_times(FileTimes::new().set_modified(before)).unwrap();
    });
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    File::open(&times).unwrap().set_times(FileTimes::new().set_modified(changed)).unwrap();
    let mut permissions = fs::metadata(&mode).unwrap().permissions();
    permissions.set_readonly(true);
    until_ctime_moves(&mode, || fs::set_permissions(&mode, permissions.clone()).unwrap());
    // Another inode under the same name.
    fs::remove_file(&other).unwrap();
    rename(&tree.write("new", "12345"), &other);
    tree.write("sane", "a new neighbour");
    let again = tree.scan(&LATER);

    assert_eq!(again.content("content"), b"54321");
    assert_eq!(again.unchanged, 1, "only `{}` is unchanged", same.display());
    assert_eq!(again.file("times").1.mtime, Timestamp { seconds: 5, nanos: 0 });
    assert_eq!(again.file("mode").1.mode & 0o222, 0);
}

#[test]
fn a_file_that_just_changed_is_read_again_next_time() {
    let tree = Tree::new();
    let path = tree.write("fresh", "1");
    let changed = Stat::of_file(File::open(path).unwrap()).unwrap().identity.ctime.seconds;

    tree.scan(&At(changed + 1));
    let second = tree.scan(&At(changed + 3));
    let third = tree.scan(&At(changed + 3));

    assert_eq!((second.unchanged, third.unchanged), (0, 1));
}

#[test]
fn what_goes_away_between_walk_and_reading_is_a_problem() {
    let tree = Tree::new();
    for name in ["a-gone", "b-folder", "c-link", "d-pipe", "e-kept", "f-replaced"] {
        tree.write(name, name);
    }
    let steps = tree.walk();
    for name in ["a-gone", "b-folder", "c-link", "d-pipe"] {
        fs::remove_file(tree.root.join(name)).unwrap();
    }
    fs::create_dir(tree.root.join("b-folder")).unwrap();
    symlink("e-kept", tree.root.join("c-link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.root.join("d-pipe"), rustix::fs::Mode::RUSR).unwrap();
    rename(&tree.write("new", "another file"), &tree.root.join("f-replaced"));

    let outcome = tree.scan_steps(steps, &LATER, &Silent).unwrap();

    assert_eq!(outcome.names(), ["e-kept", "f-replaced", ""]);
    assert_eq!(outcome.content("f-replaced"), b"another file");
    assert_eq!(outcome.totals.problems, 4);
    let problems: Vec<_> = outcome.problems.iter().map(|problem| &*problem.0).collect();
    assert_eq!(problems, ["a-gone", "b-folder", "c-link", "d-pipe"]);
    assert_eq!(outcome.problems[0].1, "vanished");
}

#[test]
fn a_file_that_shrinks_is_unreadable_and_its_next_name_takes_over() {
    let tree = Tree::new();
    let path = tree.write("a", noise(100_000, 9));
    fs::hard_link(&path, tree.root.join("b")).unwrap();
    fs::hard_link(&path, tree.root.join("c")).unwrap();
    let shrink = |bytes| {
        if bytes == 100_000 {
            File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        }
    };

    let outcome = tree.scan_steps(tree.walk(), &LATER, &OnScanned(shrink)).unwrap();

    assert_eq!(outcome.file("a").3, FileEnd::Unreadable);
    assert!(matches!(outcome.file("b").3, FileEnd::Whole(_)));
    assert_eq!(outcome.content("b"), noise(10, 9));
    let link = &outcome.others.iter().find(|other| other.0 == "c").unwrap().1;
    assert_eq!(link.link_group, outcome.file("b").1.link_group);
    assert_ne!(link.link_group, outcome.file("a").1.link_group);
    assert_eq!((outcome.totals.problems, outcome.totals.bytes), (1, 10));
    // Nothing of it is remembered as good: `b` was read while it was changing.
    assert!(tree.scan(&LATER).content("a") == noise(10, 9));
}

#[test]
fn a_file_that_grows_is_kept_as_long_as_it_was() {
    let tree = Tree::new();
    let path = tree.write("log", noise(5000, 2));
    let grow = |bytes| {
        if bytes == 5000 {
            File::options().write(true).open(&path).unwrap().write_all_at(&[1; 9000], 5000).unwrap();
        }
    };

    let outcome = tree.scan_steps(tree.walk(), &LATER, &OnScanned(grow)).unwrap();

    assert!(outcome.content("log") == noise(5000, 2));
    assert_eq!((outcome.file("log").1.size, outcome.totals.problems), (5000, 0));
}

#[test]
fn a_damaged_state_is_told_apart_from_other_failures() {
    let tree = Tree::new();
    tree.write("a", "a");
    tree.scan(&LATER);
    let states = tree.temp.path().join("state/push/c/n");
    let state = fs::read_dir(states).unwrap().next().unwrap().unwrap().path();
    let file = File::options().write(true).open(&state).unwrap();
    let len = file.metadata().unwrap().len();
    file.write_all_at(b"!", len - 80).unwrap();

    let result = tree.scan_steps(tree.walk(), &LATER, &Silent);

    assert!(matches!(result, Err(Failure::Damaged)));
}
