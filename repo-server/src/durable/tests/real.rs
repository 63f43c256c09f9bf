//! The durable operations on the file system of this machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;

use super::super::{DurableError, FileName, Published, RealDisk, Removed};
use super::super::{make_folder, publish, remove, replace, sweep_temporaries};

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_published_file_has_its_content_and_belongs_to_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..1_000_003_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[2]).collect();

    make_folder(&RealDisk, dir.path(), &name("packs")).unwrap();
    make_folder(&RealDisk, dir.path(), &name("packs")).unwrap();
    let packs = dir.path().join("packs");
    assert_eq!(publish(&RealDisk, &packs, &name("p1"), &content).unwrap(), Published::New);
    assert_eq!(publish(&RealDisk, &packs, &name("p1"), &content).unwrap(), Published::AlreadyThere);
    assert_eq!(publish(&RealDisk, &packs, &name("empty"), b"").unwrap(), Published::New);

    assert_eq!(fs::read(packs.join("p1")).unwrap(), content);
    assert_eq!(fs::read(packs.join("empty")).unwrap(), b"");
    assert_eq!(names(&packs), ["empty", "p1"]);
    assert_eq!(fs::metadata(packs.join("p1")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&packs).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn an_existing_file_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![7; 600_000];
    publish(&RealDisk, dir.path(), &name("p1"), &content).unwrap();
    content[599_999] = 8;

    let refused = publish(&RealDisk, dir.path(), &name("p1"), &content).unwrap_err();

    assert!(matches!(refused, DurableError::Differs { .. }), "{refused:?}");
    assert_eq!(fs::read(dir.path().join("p1")).unwrap(), vec![7; 600_000]);
    assert_eq!(names(dir.path()), ["p1"]);
}

#[test]
fn a_replaced_file_has_its_new_content_and_belongs_to_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "an old and longer content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

    replace(&RealDisk, dir.path(), &name("key"), b"new").unwrap();
    replace(&RealDisk, dir.path(), &name("other"), b"first").unwrap();

    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read(dir.path().join("other")).unwrap(), b"first");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(dir.path()), ["key", "other"]);
}

/// Lets all publishers start at once, and returns how each ended.
fn race(dir: &Path, contents: &[Vec<u8>]) -> Vec<Result<Published, DurableError>> {
    let start = Barrier::new(contents.len());
    let run = |content: &[u8]| {
        start.wait();
        publish(&RealDisk, dir, &name("p1"), content)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = contents.iter().map(|content| scope.spawn(|| run(content))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn count(outcomes: &[Result<Published, DurableError>], wanted: Published) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, Ok(found) if *found == wanted)).count()
}

#[test]
fn of_publishers_of_the_same_bytes_one_is_first_and_all_succeed() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let outcomes = race(dir.path(), &vec![vec![5; 70_000]; 4]);

        assert_eq!(count(&outcomes, Published::New), 1, "{outcomes:?}");
        assert_eq!(count(&outcomes, Published::AlreadyThere), 3, "{outcomes:?}");
        assert_eq!(names(dir.path()), ["p1"]);
    }
}

#[test]
fn of_publishers_of_different_bytes_exactly_one_succeeds() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let contents: Vec<_> = (0..4).map(|fill| vec![fill; 70_000]).collect();
        let outcomes = race(dir.path(), &contents);

        let winner = outcomes.iter().position(Result::is_ok).expect("one of them was first");
        assert_eq!(count(&outcomes, Published::New), 1, "{outcomes:?}");
        assert_eq!(count(&outcomes, Published::AlreadyThere), 0, "{outcomes:?}");
        assert_eq!(fs::read(dir.path().join("p1")).unwrap(), contents[winner]);
        assert_eq!(names(dir.path()), ["p1"]);
    }
}

#[test]
fn something_that_is_no_file_in_the_way_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("target"), b"x").unwrap();
    symlink("target", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();

    for taken in ["link", "folder"] {
        let refused = publish(&RealDisk, dir.path(), &name(taken), b"x").unwrap_err();
        assert!(matches!(refused, DurableError::Failed { .. }), "{taken}: {refused:?}");
    }
    let refused = make_folder(&RealDisk, dir.path(), &name("target")).unwrap_err();
    assert!(matches!(refused, DurableError::Failed { .. }), "{refused:?}");
    let refused = publish(&RealDisk, &dir.path().join("none"), &name("p1"), b"x").unwrap_err();
    assert!(matches!(refused, DurableError::Failed { .. }), "{refused:?}");
    assert_eq!(names(dir.path()), ["folder", "link", "target"]);
}

#[test]
fn leftovers_are_swept_and_removed_files_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    publish(&RealDisk, dir.path(), &name("p1"), b"one").unwrap();
    fs::write(dir.path().join(".tmp-0123456789abcdef"), b"half").unwrap();
    fs::create_dir(dir.path().join(".tmp-folder")).unwrap();

    assert_eq!(sweep_temporaries(&RealDisk, dir.path()).unwrap(), 1);
    assert_eq!(names(dir.path()), [".tmp-folder", "p1"]);

    assert_eq!(remove(&RealDisk, dir.path(), &name("p1")).unwrap(), Removed::Now);
    assert_eq!(remove(&RealDisk, dir.path(), &name("p1")).unwrap(), Removed::Before);
    assert_eq!(names(dir.path()), [".tmp-folder"]);
}
