//! The judge is judged: whatever is changed in a copy, it sees.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::XattrFlags;

use super::*;
use crate::corpus::{self, set_time};
use crate::seed::Random;
use crate::world::Folder;

type Change = fn(&Path);

const CHANGES: &[(&str, Change)] = &[
    ("a byte", |at| {
        let file = at.join("big.bin");
        let mut bytes = fs::read(&file).unwrap();
        bytes[1_500_000] ^= 1;
        rewrite(&file, &bytes);
    }),
    ("a length", |at| {
        let file = at.join("small/3");
        let bytes = fs::read(&file).unwrap();
        rewrite(&file, &[bytes, vec![0]].concat());
    }),
    ("a time, by a nanosecond", |at| {
        let meta = fs::symlink_metadata(at.join("small/5")).unwrap();
        set_time(&at.join("small/5"), meta.mtime(), meta.mtime_nsec() ^ 1);
    }),
    ("the time of a symbolic link", |at| set_time(&at.join("links/dangling"), 5, 5)),
    ("a mode", |at| fs::set_permissions(at.join("small/7"), Permissions::from_mode(0o601)).unwrap()),
    ("an attribute", |at| {
        rustix::fs::setxattr(at.join("small/8"), "user.more", b"1", XattrFlags::empty()).unwrap();
    }),
    ("a missing file", |at| keeping_time(at, "small", |small| fs::remove_file(small.join("9")).unwrap())),
    ("a file too many", |at| keeping_time(at, "small", |small| fs::write(small.join("new"), b"").unwrap())),
    ("a missing empty folder", |at| {
        keeping_time(at, "", |root| fs::remove_dir(root.join("empty-folder")).unwrap());
    }),
    ("another target", |at| {
        keeping_time(at, "links", |links| {
            let meta = fs::symlink_metadata(links.join("dangling")).unwrap();
            fs::remove_file(links.join("dangling")).unwrap();
            symlink("elsewhere", links.join("dangling")).unwrap();
            set_time(&links.join("dangling"), meta.mtime(), meta.mtime_nsec());
        });
    }),
    ("a hard link that became a copy", |at| {
        keeping_time(at, "links", |links| {
            let file = links.join("hard-a");
            let meta = fs::metadata(&file).unwrap();
            let bytes = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            fs::write(&file, bytes).unwrap();
            fs::set_permissions(&file, meta.permissions()).unwrap();
            set_time(&file, meta.mtime(), meta.mtime_nsec());
        });
    }),
    ("holes that were filled", |at| {
        let file = at.join("sparse");
        let bytes = fs::read(&file).unwrap();
        rewrite(&file, &bytes);
    }),
];

/// Writes a file anew and gives it back its time.
fn rewrite(file: &Path, bytes: &[u8]) {
    let meta = fs::metadata(file).unwrap();
    fs::write(file, bytes).unwrap();
    set_time(file, meta.mtime(), meta.mtime_nsec());
}

fn keeping_time(root: &Path, folder: &str, change: impl FnOnce(&Path)) {
    let folder = root.join(folder);
    let meta = fs::metadata(&folder).unwrap();
    change(&folder);
    set_time(&folder, meta.mtime(), meta.mtime_nsec());
}

/// The twin of every test that finds two trees to be the same.
#[test]
fn every_change_of_a_copy_is_seen() {
    let folder = Folder::new();
    let original = folder.path("original");
    corpus::mixed(&original, &mut Random::new(1));
    corpus::copy(&original, &folder.path("copy"));
    assert_same(&original, &folder.path("copy"));

    for (n, (what, change)) in CHANGES.iter().enumerate() {
        let copy = folder.path(&format!("copy-{n}"));
        corpus::copy(&original, &copy);
        change(&copy);
        assert!(!differences(&original, &copy).is_empty(), "{what} went unseen");
    }
}

/// `rsync` sees the difference, so that the second check is meaningful.
#[test]
fn rsync_sees_a_changed_byte() {
    if !gear::has("rsync") {
        return;
    }
    let folder = Folder::new();
    for side in ["left", "right"] {
        fs::write(folder.dir(side).join("file"), side).unwrap();
    }

    assert_ne!(rsync(&folder.path("left"), &folder.path("right")), "");
}
