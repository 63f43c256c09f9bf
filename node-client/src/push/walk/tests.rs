use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// All steps of a walk through `roots`, as `kind path` with the path below the first root.
fn steps(roots: &[&Path], excludes: &[&str], mounts: Mounts) -> Vec<String> {
    let paths: Vec<_> = roots.iter().map(|root| root.to_path_buf()).collect();
    let roots = super::super::roots::check(&paths).unwrap();
    let excludes: Vec<_> = excludes.iter().map(|glob| glob.to_string()).collect();
    let excludes = Excludes::new(&excludes).unwrap();
    let mut seen = Vec::new();
    let base = roots[0].path.clone();
    walk(&roots, &excludes, mounts, |step| {
        let (kind, path) = match &step {
            Step::File(file) => ("file", &file.path),
            Step::Plain(entry) if entry.kind == EntryKind::Symlink => ("link", &entry.path),
            Step::Plain(entry) => ("folder", &entry.path),
            Step::Skipped(path) => ("skipped", path),
            Step::Problem(path, _) => ("problem", path),
        };
        let below = path.below(&base).unwrap_or(path.as_bytes());
        seen.push(format!("{kind} {}", format_spec::path::Printable(below)));
        Ok(())
    })
    .unwrap();
    seen
}

#[test]
fn names_come_in_path_order_and_nothing_is_followed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("a/sub/empty")).unwrap();
    fs::create_dir(root.join(".dots")).unwrap();
    for name in ["a-b", "a.txt", "a/z", "a/sub/x", ".hidden", "empty"] {
        fs::write(root.join(name), name).unwrap();
    }
    symlink("/etc", root.join("a/link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RUSR).unwrap();

    let steps = steps(&[&root], &[], Mounts::Enter);

    assert_eq!(
        steps,
        [
            "folder ",
            "folder .dots",
            "file .hidden",
            "folder a",
            "link a/link",
            "folder a/sub",
            "folder a/sub/empty",
            "file a/sub/x",
            "file a/z",
            "file a-b",
            "file a.txt",
            "link dangling",
            "file empty",
            "skipped pipe",
        ]
    );
}

#[test]
fn names_that_are_no_text_come_through_byte_for_byte() {
    let temp = tempfile::tempdir().unwrap();
    let odd: OsString = OsString::from_vec(b"\xff\xfe \n*".to_vec());
    fs::write(temp.path().join(&odd), "").unwrap();
    fs::write(temp.path().join(OsStr::from_bytes(&[b'n'; 255])), "").unwrap();

    let mut names = Vec::new();
    let roots = super::super::roots::check(&[temp.path().to_path_buf()]).unwrap();
    walk(&roots, &Excludes::new(&[]).unwrap(), Mounts::Enter, |step| {
        if let Step::File(file) = step {
            names.push(file.path.components().last().unwrap().to_vec());
            file.open().unwrap();
        }
        Ok(())
    })
    .unwrap();

    assert_eq!(names, [vec![b'n'; 255], odd.into_vec()]);
}

#[test]
fn a_tree_deeper_than_the_longest_path_is_a_problem_and_not_an_end() {
    let temp = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    let mut folder = open_folder(rustix::fs::CWD, temp.path().as_os_str().as_bytes()).unwrap();
    for _ in 0..25 {
        rustix::fs::mkdirat(&folder, &*name, Mode::RWXU).unwrap();
        folder = open_folder(&folder, name.as_bytes()).unwrap();
    }
    fs::write(temp.path().join("z"), "").unwrap();

    let steps = steps(&[temp.path()], &[], Mounts::Enter);

    assert_eq!(steps.iter().filter(|step| step.starts_with("problem")).count(), 1);
    assert_eq!(steps.last().unwrap(), "file z");
}

#[test]
fn what_is_excluded_is_neither_reported_nor_entered() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("keep/cache")).unwrap();
    fs::create_dir_all(root.join("drop")).unwrap();
    for name in ["keep/x.tmp", "keep/cache/y", "keep/z", "drop/z"] {
        fs::write(root.join(name), "").unwrap();
    }
    let absolute = format!("{}/drop", root.display());

    let steps = steps(&[&root], &["*.tmp", "cache", &absolute], Mounts::Enter);

    assert_eq!(steps, ["folder ", "folder keep", "file keep/z"]);
}

#[test]
fn several_roots_come_one_after_the_other() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["b", "a"] {
        fs::create_dir(temp.path().join(name)).unwrap();
        fs::write(temp.path().join(name).join("f"), "").unwrap();
    }

    let steps = steps(&[&temp.path().join("b"), &temp.path().join("a")], &[], Mounts::Enter);

    assert_eq!(&steps[..2], ["folder ", "file f"]);
    assert!(steps[2].ends_with("/b") && steps[3].ends_with("/b/f"), "{steps:?}");
}

#[test]
fn a_mount_point_is_entered_only_if_wanted() {
    // No test may mount: the device of the root is taken for another one instead.
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("mounted")).unwrap();
    fs::write(temp.path().join("mounted/f"), "").unwrap();
    let walked = |mounts| {
        let (mut seen, excludes) = (0, Excludes::new(&[]).unwrap());
        let sink = |_| {
            seen += 1;
            Ok(())
        };
        let mut walker =
            Walker { excludes: &excludes, mounts, sink, buffer: Vec::with_capacity(LISTING_LEN) };
        let path = EntryPath::new(b"r".to_vec()).unwrap();
        let folder = open_folder(rustix::fs::CWD, temp.path().as_os_str().as_bytes()).unwrap();
        let level = walker.enter(path, folder).unwrap().unwrap();
        let entered = walker.name(&level, c"mounted", u64::MAX).unwrap().is_some();
        (entered, seen)
    };

    assert_eq!(walked(Mounts::Enter), (true, 2));
    assert_eq!(walked(Mounts::Skip), (false, 2));
}

#[test]
fn the_walk_ends_when_nobody_listens() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), "").unwrap();
    let roots = super::super::roots::check(&[temp.path().to_path_buf()]).unwrap();
    let mut calls = 0;

    let ended = walk(&roots, &Excludes::new(&[]).unwrap(), Mounts::Enter, |_| {
        calls += 1;
        Err(Gone)
    });

    assert!(ended.is_err() && calls == 1);
}
