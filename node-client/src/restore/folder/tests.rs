use super::*;
use std::os::unix::fs::symlink;

fn target() -> (tempfile::TempDir, Target) {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::open(folder.path(), Existing::Refuse).unwrap();
    (folder, target)
}

const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// Both ways to open agree: the system call, and what stands in for it.
fn opens(target: &Target, path: &str) -> bool {
    let one = open_beneath(target.handle(), path.as_bytes(), WALK).is_ok();
    let other = walk_beneath(target.handle(), path.as_bytes(), WALK).is_ok();
    assert_eq!(one, other, "{path}");
    one
}

#[test]
fn no_symbolic_link_is_followed_wherever_it_stands() {
    let (folder, target) = target();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
    std::fs::create_dir(outside.path().join("inner")).unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink("a/b", folder.path().join("within")).unwrap();

    assert!(opens(&target, "a/b/c") && opens(&target, ""));
    for path in ["out", "out/inner", "within", "within/c", "a/missing"] {
        assert!(!opens(&target, path), "{path}");
    }
}

#[test]
fn a_folder_that_was_swapped_for_a_link_is_not_entered() {
    let (folder, target) = target();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
    assert!(opens(&target, "a/b"));

    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    symlink(outside.path(), folder.path().join("a")).unwrap();
    std::fs::create_dir(outside.path().join("b")).unwrap();

    assert!(!opens(&target, "a/b"));
}

#[test]
fn a_target_that_holds_something_is_refused_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".hidden"), "").unwrap();

    let refused = Target::open(folder.path(), Existing::Refuse);

    assert!(matches!(refused, Err(ClientError::Usage(_))));
    assert!(Target::open(folder.path(), Existing::Replace).is_ok());
    assert!(Target::open(&folder.path().join("new/one"), Existing::Refuse).is_ok());
}

#[test]
fn a_link_or_a_file_where_a_folder_should_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let target = Target::open(folder.path(), Existing::Replace).unwrap();
    let make = |name: &str| {
        let path = format_spec::EntryPath::new(name.as_bytes().to_vec()).unwrap();
        target.make_folder(&TargetPath::from(&path), false, &mut FolderCache::default())
    };

    assert!(matches!(make("link"), Err(ClientError::Usage(_))));
    assert!(matches!(make("file"), Err(ClientError::Usage(_))));
    assert!(make("folder").is_ok() && make("new").is_ok());
    assert!(make("link/x").is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
