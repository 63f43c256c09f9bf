//! Copies that share their blocks, on a file system that has them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::XattrFlags;
use serde_json::Value;
use tests::client::{Client, number, text};
use tests::compare::assert_same;
use tests::mount::Xfs;
use tests::world::World;

const BLOCK: usize = 4096;
const BLOCKS: usize = 8192;

/// Writes the file in place, one block after the other, each with the number of the round, until told to stop.
fn rewrite(path: &Path, stop: &AtomicBool) {
    let file = File::options().write(true).open(path).unwrap();
    for round in 1_u64.. {
        let block = round.to_le_bytes().repeat(BLOCK / 8);
        for n in 0..BLOCKS {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            file.write_all_at(&block, u64::try_from(n * BLOCK).unwrap()).unwrap();
        }
    }
}

/// True if the bytes are the file at one moment: of some round up to some block, and of the round before from
/// there on.
fn is_one_moment(bytes: &[u8]) -> bool {
    let rounds: Vec<u64> =
        bytes.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect();
    let first = rounds[0];
    let whole_blocks = rounds.chunks(BLOCK / 8).all(|block| block.iter().all(|round| *round == block[0]));
    let falls = rounds.is_sorted_by(|a, b| a >= b);
    let last = *rounds.last().unwrap();
    bytes.len() == BLOCK * BLOCKS && whole_blocks && falls && (first == last || first == last + 1)
}

/// C1: with shared blocks a file that is written in place all the time is pushed as it was at one moment. With
/// a second name alone it is kept and marked, because there is no such moment.
#[test]
fn a_file_that_is_never_at_rest_is_one_moment_of_itself_or_marked() {
    let world = World::new();
    let Some(disk) = Xfs::mount(&world.path("image"), world.dir("disk")) else { return };
    let root = disk.path().join("data");
    fs::create_dir(&root).unwrap();
    let path = root.join("live");
    fs::write(&path, vec![0; BLOCK * BLOCKS]).unwrap();
    let node = world.node("n");
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| {
        scope.spawn(|| rewrite(&path, &stop));
        let _stop = Stop(&stop);
        let copied = node.start_push_of(&[&root], &[]).wait().exits(0).json();
        let fallbacks = copied["fallbacks"].as_array().map(Vec::len);
        assert_eq!(
            (fallbacks, text(&copied["frozen"][0], "by")),
            (Some(0), "reflink".to_owned()),
            "{copied}"
        );
        let to = world.path("restored");
        node.restore(&text(&copied, "snapshot"), &to, &["--strip-root"]).exits(0);
        assert!(is_one_moment(&fs::read(to.join("live")).unwrap()), "a mix of moments");

        let torn = marked(&node, &root, "torn", &[]);
        assert_eq!((torn.0, number(&torn.1, "problem_count")), (Some(3), 1), "{torn:?}");
        let fuzzy = marked(&node, &root, "fuzzy", &["--class", "logged=*"]);
        assert_eq!((fuzzy.0, number(&fuzzy.1, "problem_count")), (Some(0), 0), "{fuzzy:?}");
    });
}

/// Pushes with hard links until the file was written to during each reading, and is marked so.
fn marked(node: &Client, root: &Path, mark: &str, more: &[&str]) -> (Option<i32>, Value) {
    let mut pushes = 0;
    loop {
        pushes += 1;
        let done = node.start_push_of(&[root], &[&["--freeze", "hardlink"], more].concat()).wait();
        let report = done.json();
        if number(&report["moment"], mark) == 1 {
            return (done.code, report);
        }
        // The writer had to wait for the processor: the file stayed still.
        assert!(pushes < 30, "never {mark}: {report}");
    }
}

/// Stops the writer, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// C4: copies go too, nothing of the original changes, and the next push knows it again.
#[test]
fn copies_leave_no_trace_and_are_remembered() {
    let world = World::new();
    let Some(disk) = Xfs::mount(&world.path("image"), world.dir("disk")) else { return };
    let root = disk.path().join("data");
    fs::create_dir(&root).unwrap();
    for n in 0..20 {
        fs::write(root.join(format!("file-{n}")), format!("content of {n}")).unwrap();
        tests::corpus::set_time(&root.join(format!("file-{n}")), 1_600_000_000, 5);
    }
    // A copy has no attributes of its own: they come from the original.
    rustix::fs::setxattr(root.join("file-3"), "user.colour", b"blue", XattrFlags::empty()).unwrap();
    let node = world.node("n");
    let push = || node.start_push_of(&[&root], &["--freeze", "reflink"]).wait().exits(0).json();

    push();
    let again = push();

    assert!(!root.join(".astacus").exists());
    // A file whose ctime is a moment old may be read once more; then it is known.
    assert_eq!(number(&again, "unchanged") + number(&again, "whole"), 20, "{again}");
    assert_eq!(number(&again, "bytes_sent"), 0);
    let to = world.path("restored");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    assert_same(&root, &to);
}

/// The judge of the first test bites.
#[test]
fn a_mix_of_moments_is_seen() {
    let moment = |rounds: &dyn Fn(usize) -> u64| -> Vec<u8> {
        (0..BLOCKS).flat_map(|n| rounds(n).to_le_bytes().repeat(BLOCK / 8)).collect()
    };

    assert!(is_one_moment(&moment(&|_| 7)));
    assert!(is_one_moment(&moment(&|n| if n < 100 { 8 } else { 7 })));
    for mix in [
        moment(&|n| if n < 100 { 7 } else { 8 }),
        moment(&|n| if n < 100 { 9 } else { 7 }),
        moment(&|n| if n % 2 == 0 { 8 } else { 7 }),
    ] {
        assert!(!is_one_moment(&mix));
    }
    let mut torn = moment(&|_| 7);
    torn[BLOCK / 2..BLOCK / 2 + 8].copy_from_slice(&8_u64.to_le_bytes());
    assert!(!is_one_moment(&torn));
}

/// C12: each copy is of one moment, and all of them are of one only if nothing changed between the first and the last.
#[test]
fn a_strict_push_sees_that_copies_are_of_different_moments() {
    let world = World::new();
    let Some(disk) = Xfs::mount(&world.path("image"), world.dir("disk")) else { return };
    let root = disk.path().join("data");
    fs::create_dir(&root).unwrap();
    let path = root.join("a-live");
    fs::write(&path, vec![0; BLOCK * BLOCKS]).unwrap();
    for n in 0..500 {
        fs::write(root.join(format!("calm-{n}")), format!("content of {n}")).unwrap();
    }
    let node = world.node("n");
    let calm = node.start_push_of(&[&root], &["--strict", "--no-state"]).wait().exits(0).json();
    assert_eq!(number(&calm["moment"], "moved_on"), 0, "{calm}");
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| {
        scope.spawn(|| rewrite(&path, &stop));
        let _stop = Stop(&stop);
        for pushes in 1.. {
            let done = node.start_push_of(&[&root], &["--strict", "--no-state"]).wait();
            let report = done.json();
            if number(&report["moment"], "moved_on") == 1 {
                assert_eq!((done.code, number(&report, "problem_count")), (Some(3), 1), "{report}");
                assert!(text(&report["problems"][0], "reason").contains("a later moment"), "{report}");
                return;
            }
            assert!(pushes < 30, "the writer never came between two copies: {report}");
        }
    });
}
