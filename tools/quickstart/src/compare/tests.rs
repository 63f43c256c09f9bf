use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;

use super::*;

/// Two equal trees; everything in them is of one old time.
fn trees() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for root in ["source", "copy"] {
        let at = |name: &str| temp.path().join(root).join(name);
        fs::create_dir_all(at("folder/empty")).unwrap();
        for (name, content) in
            [("a", vec![1; PIECE + 1]), ("folder/b", b"bb".to_vec()), ("nothing", Vec::new())]
        {
            fs::write(at(name), content).unwrap();
        }
        symlink("a", at("link")).unwrap();
        settle(&temp.path().join(root));
    }
    temp
}

/// Gives everything in a tree the old time, as far as it is there.
fn settle(root: &Path) {
    for name in ["a", "folder/b", "nothing", "link", "folder/empty", "folder", ""] {
        set_time(&at(root, Path::new(name)), 1_000);
    }
}

fn set_time(path: &Path, tv_sec: i64) {
    let time = Timespec { tv_sec, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    match utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => panic!("set the time of {}: {error}", path.display()),
    }
}

/// Compares; what has changed since `pushed_at`, in seconds since 1970, counts as changed.
fn compare(temp: &tempfile::TempDir, pushed_at: i64) -> Comparison {
    let (source, copy) = (temp.path().join("source"), temp.path().join("copy"));
    let pushed_at = Timestamp { seconds: pushed_at, nanos: 0 };
    Trees { source: &source, copy: &copy, pushed_at }.compare(&mut |_| true)
}

#[test]
fn equal_trees_are_equal() {
    let found = compare(&trees(), i64::MAX);

    assert_eq!(found.different, []);
    assert_eq!((found.files, found.bytes), (3, u64::try_from(PIECE).unwrap() + 3));
}

/// The twin that bites: each kind of difference is seen, and is the only one.
#[test]
fn every_difference_is_seen() {
    type Change = fn(&Path);
    let flip: Change = |copy| {
        let mut bytes = fs::read(copy.join("a")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(copy.join("a"), bytes).unwrap();
        settle(copy);
    };
    let changes: [(&str, &str, Change); 9] = [
        ("a", "the content differs", flip),
        ("a", "the modification time differs", |copy| set_time(&copy.join("a"), 1_001)),
        ("a", "the mode differs", |copy| {
            fs::set_permissions(copy.join("a"), Permissions::from_mode(0o640)).unwrap();
        }),
        ("folder/b", "the length differs", |copy| {
            fs::write(copy.join("folder/b"), "bbb").unwrap();
            settle(copy);
        }),
        ("folder/empty", "missing", |copy| {
            fs::remove_dir(copy.join("folder/empty")).unwrap();
            settle(copy);
        }),
        ("extra", "not in the source", |copy| {
            fs::write(copy.join("extra"), "").unwrap();
            settle(copy);
        }),
        ("nothing", "the file type differs", |copy| {
            fs::remove_file(copy.join("nothing")).unwrap();
            symlink("a", copy.join("nothing")).unwrap();
            settle(copy);
        }),
        ("link", "the link target differs", |copy| {
            fs::remove_file(copy.join("link")).unwrap();
            symlink("b", copy.join("link")).unwrap();
            settle(copy);
        }),
        ("", "the modification time differs", |copy| set_time(copy, 1_001)),
    ];
    for (name, text, change) in changes {
        let temp = trees();
        change(&temp.path().join("copy"));

        let found = compare(&temp, i64::MAX);

        let path = at(&temp.path().join("source"), Path::new(name));
        assert_eq!(found.different, [Note { path, text: text.to_owned() }]);
        assert_eq!(found.changed, []);
    }
}

#[test]
fn what_changed_since_the_push_is_told_apart() {
    let temp = trees();
    fs::write(temp.path().join("source/a"), "new").unwrap();
    fs::remove_file(temp.path().join("source/folder/b")).unwrap();

    let found = compare(&temp, 0);

    assert_eq!(found.different, []);
    let paths: Vec<_> = found.changed.iter().filter_map(|note| note.path.file_name()).collect();
    assert!(paths.iter().any(|name| *name == "a") && paths.iter().any(|name| *name == "b"), "{paths:?}");
}

#[test]
fn a_comparison_ends_when_it_is_told_to() {
    let temp = trees();
    let (source, copy) = (temp.path().join("source"), temp.path().join("copy"));
    let trees = Trees { source: &source, copy: &copy, pushed_at: Timestamp { seconds: i64::MAX, nanos: 0 } };

    let found = trees.compare(&mut |_| false);

    assert_eq!(found.files, 0);
}
