use super::*;
use crate::beneath::walk_beneath;
use crate::leftover::TEMPORARY;
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
    let mut target = Target::open(folder.path(), Existing::Replace).unwrap();
    let top = Arc::new(target.top().unwrap());
    let make = |name: &str| {
        let path = format_spec::EntryPath::new(name.as_bytes().to_vec()).unwrap();
        target.make_folder(TargetPath::from(&path), None, &top, &mut FolderCache::default())
    };

    for name in ["link", "file", "link/x"] {
        assert!(matches!(make(name), Err(Obstacle::Name(_))), "{name}");
    }
    assert!(make("folder").is_ok() && make("new").is_ok());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// C16: of two folders whose names the target takes for one, the second is not merged into the first.
#[test]
fn a_folder_that_this_restore_made_is_not_taken_for_another() {
    for existing in [Existing::Refuse, Existing::Replace] {
        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::open(folder.path(), existing).unwrap();
        let top = Arc::new(target.top().unwrap());
        let path = format_spec::EntryPath::new(b"docs".to_vec()).unwrap();
        let make = || target.make_folder(TargetPath::from(&path), None, &top, &mut FolderCache::default());

        assert!(make().is_ok());
        assert!(matches!(make(), Err(Obstacle::Name(_))), "{existing:?}");
    }
}

/// C4: what a dead restore left is no content of the target; what a living one holds stays.
#[test]
fn unfinished_files_of_dead_restores_are_removed_from_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let name = |n| folder.path().join(format!("{TEMPORARY}0123456789abcdef-{n}"));
    std::fs::write(name(0), "half").unwrap();
    symlink("nowhere", name(1)).unwrap();

    let emptied = Target::open(folder.path(), Existing::Refuse).unwrap();
    let living = std::fs::File::create(name(2)).unwrap();
    rustix::fs::flock(&living, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let beside = Target::open(folder.path(), Existing::Refuse).unwrap();

    assert_eq!(emptied.leftovers.load(Ordering::Relaxed), 2);
    assert_eq!(beside.leftovers.load(Ordering::Relaxed), 0);
    assert!(name(2).exists() && !name(0).exists());
}
