//! Trees of files from a seed, with everything that a file system can hold.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use crate::gear;
use crate::seed::Random;
use crate::wait;

/// Number of small files in a [`mixed`] tree.
pub const SMALL_FILES: usize = 120;

/// Makes the folder `root` with a bit of everything: about 10 MB in 180 entries.
///
/// # Panics
/// If it cannot be written.
pub fn mixed(root: &Path, random: &mut Random) {
    fs::create_dir_all(root).expect("a temporary folder can be written");
    contents(root, random);
    names(root, random);
    sparse(&root.join("sparse"), random);
    links(root, random);
    attributes(root, random);
    modes(root);
    times(root, random);
}

/// Makes the folder `root` with `files` files of up to `len` bytes that do not compress.
///
/// # Panics
/// If it cannot be written.
pub fn plain(root: &Path, random: &mut Random, files: usize, len: usize) {
    fs::create_dir_all(root).expect("a temporary folder can be written");
    for n in 0..files {
        let len = 1 + random.index(len);
        write(&root.join(format!("file-{n}")), &random.bytes(len));
    }
}

/// Changes a tree of [`plain`] files as a database does: one grows, a few are rewritten, and
/// one is new each time.
///
/// # Panics
/// If it cannot be written.
pub fn work_on(root: &Path, random: &mut Random) {
    let mut files: Vec<PathBuf> = fs::read_dir(root)
        .expect("it was made before")
        .map(|entry| entry.expect("it is there").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let grown = random.pick(&files).clone();
    let mut bytes = fs::read(&grown).expect("it is there");
    bytes.extend(random.text(40_000));
    write(&grown, &bytes);
    for _ in 0..3 {
        let rewritten = random.pick(&files).clone();
        let len = 1 + random.index(3_000_000);
        write(&rewritten, &random.bytes(len));
    }
    write(&root.join("newest"), &random.bytes(300_000));
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn folder(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
    path.to_owned()
}

/// Files of all lengths, of random bytes and of text, and two with the same content.
fn contents(root: &Path, random: &mut Random) {
    write(&root.join("empty"), b"");
    write(&root.join("one-byte"), b"x");
    write(&root.join("big.bin"), &random.bytes(3_000_000));
    write(&root.join("log.txt"), &random.text(2_500_000));
    let twice = random.bytes(400_000);
    write(&root.join("twin-a"), &twice);
    write(&folder(&root.join("sub")).join("twin-b"), &twice);
    write(&root.join("zeros"), &[0; 300_000]);
    let small = folder(&root.join("small"));
    for n in 0..SMALL_FILES {
        let len = random.index(6000);
        write(&small.join(n.to_string()), &if n % 2 == 0 { random.bytes(len) } else { random.text(len) });
    }
}

/// Every kind of name.
fn names(root: &Path, random: &mut Random) {
    let odd = folder(&root.join("odd names"));
    let names: [&[u8]; 9] = [
        b"with space",
        b"line\nbreak",
        b"tab\tquote\"back\\slash",
        b"not-utf8-\xff\xfe\x80",
        b"-looks-like-a-flag",
        b"*?[glob]{a,b}",
        "snow\u{2603}man".as_bytes(),
        b"\x01\x1b[31mcontrol",
        &[b'n'; 255],
    ];
    for name in names {
        write(&odd.join(OsStr::from_bytes(name)), &random.text(200));
    }
    write(&folder(&odd.join(OsStr::from_bytes(b"folder-\xf0\x28"))).join("inside"), b"inside");
    write(&root.join(".dotfile"), b"hidden");
    write(&folder(&root.join(".dotfolder/.more")).join(".file"), b"hidden deeper");
    folder(&root.join("empty-folder"));
    folder(&root.join("empty-folders/a/b"));
    let deep: PathBuf = (0..30).map(|n| format!("level-{n}")).collect();
    write(&folder(&root.join(deep)).join("bottom"), &random.bytes(1000));
    // A folder sorts differently from a file that starts with its name.
    write(&folder(&root.join("order")).join("z"), b"in the folder");
    for beside in ["order!", "order-1", "order.txt", "order0"] {
        write(&root.join(beside), beside.as_bytes());
    }
}

/// Data between holes, a hole at the end, and a file that is one hole.
fn sparse(path: &Path, random: &mut Random) {
    let file = File::create(path).expect("a temporary folder can be written");
    for offset in [0, 4 << 20, 9 << 20] {
        file.write_all_at(&random.bytes(100_000), offset).expect("a temporary file can be written");
    }
    file.set_len(14 << 20).expect("a hole costs nothing");
    let hollow = File::create(path.with_file_name("hollow")).expect("a temporary folder can be written");
    hollow.set_len(3 << 20).expect("a hole costs nothing");
}

fn links(root: &Path, random: &mut Random) {
    let links = folder(&root.join("links"));
    write(&links.join("hard-a"), &random.bytes(70_000));
    let hard = |from: &str, to: PathBuf| fs::hard_link(links.join(from), to).expect("hard links are there");
    hard("hard-a", links.join("hard-b"));
    hard("hard-a", root.join("small/hard-c"));
    write(&links.join("empty-a"), b"");
    hard("empty-a", links.join("empty-b"));
    let targets: [(&str, &[u8]); 6] = [
        ("relative", b"../small/1"),
        ("absolute", b"/etc/hostname"),
        ("dangling", b"nowhere/at all"),
        ("to-folder", b"../small"),
        ("to-itself", b"to-itself"),
        ("not-utf8", b"\xff\xfe target"),
    ];
    for (name, target) in targets {
        symlink(OsStr::from_bytes(target), links.join(name)).expect("symbolic links are there");
    }
}

fn attributes(root: &Path, random: &mut Random) {
    let set = |path: &str, name: &str, value: &[u8]| {
        let set = rustix::fs::setxattr(root.join(path), name, value, XattrFlags::empty());
        if let Err(error) = set {
            gear::skip(&format!("extended attributes cannot be set here: {error}"));
        }
    };
    set("one-byte", "user.comment", b"kept");
    set("one-byte", "user.binary", &random.bytes(300));
    set("one-byte", "user.empty", b"");
    set("small", "user.on-a-folder", b"yes");
}

fn modes(root: &Path) {
    let set = |path: &str, mode| {
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).expect("the file is ours");
    };
    for (n, mode) in [0o644, 0o600, 0o400, 0o755, 0o777, 0o604].into_iter().enumerate() {
        set(&format!("small/{n}"), mode);
    }
    if gear::is_root() {
        set("small/6", 0o000);
        for (path, user, group) in
            [("small/10", 1234, 5678), ("links/dangling", 42, 43), ("empty-folder", 7, 0)]
        {
            lchown(root.join(path), Some(user), Some(group)).expect("root may give files away");
        }
    }
    set("empty-folder", 0o700);
    set("empty-folders/a", 0o1777);
    write(&folder(&root.join("read-only")).join("inside"), b"cannot be added to");
    set("read-only", 0o555);
}

/// Times with nanoseconds: long ago, before 1970, and in the future. Folders last.
fn times(root: &Path, random: &mut Random) {
    let mut rest = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = rest.pop() {
        let is_folder = fs::symlink_metadata(&path).expect("it was just made").is_dir();
        if is_folder {
            let names = fs::read_dir(&path).expect("it was just made");
            rest.extend(names.map(|entry| entry.expect("it was just made").path()));
        }
        all.push(path);
    }
    all.sort();
    for path in all.iter().rev() {
        let seconds = i64::try_from(random.below(2_000_000_000)).expect("it is small") - 100_000_000;
        set_time(path, seconds, i64::try_from(random.below(1_000_000_000)).expect("it is small"));
    }
}

/// Sets the time of change of what `path` is, also if it is a symbolic link.
///
/// # Panics
/// If it cannot be set.
pub fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|error| panic!("set the time of {}: {error}", path.display()));
}

/// Makes the files below `root` old, and waits until they have been left alone for more than the two seconds within
/// which a client does not trust the times of a file that count in seconds.
///
/// # Panics
/// If something goes on changing them.
pub fn settle(root: &Path) {
    make_old(root);
    let probe = root.with_extension("probe");
    let newest = newest_change(root);
    wait::for_state("the files to be old enough", || {
        // A file system's own clock decides: that of a file which is written now.
        write(&probe, b"");
        let now = fs::metadata(&probe).expect("it was just written").ctime();
        (now > newest + 2).then_some(())
    });
    fs::remove_file(&probe).expect("it was just written");
}

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

/// Sets the times of files that were just written an hour back: a client does not trust those of the last minute.
///
/// # Panics
/// If they cannot be set.
pub fn make_old(root: &Path) {
    let meta = fs::symlink_metadata(root).expect("it was made before");
    // A file whose mtime is no later than its last change of any kind was not set to another time by its test.
    if meta.is_file() && meta.mtime() + MINUTE >= meta.ctime() {
        set_time(root, meta.mtime() - HOUR, meta.mtime_nsec());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(root).expect("it was made before") {
            make_old(&entry.expect("a folder can be listed").path());
        }
    }
}

/// When the last change of any entry below `root` was, in seconds.
fn newest_change(root: &Path) -> i64 {
    let meta = fs::symlink_metadata(root).expect("it was made before");
    let mut newest = meta.ctime();
    if meta.is_dir() {
        for entry in fs::read_dir(root).expect("it was made before") {
            newest = newest.max(newest_change(&entry.expect("a folder can be listed").path()));
        }
    }
    newest
}

/// Copies a tree with everything about it.
///
/// # Panics
/// If it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg("-T").arg(from).arg(to).status();
    assert!(copied.expect("cp can be started").success(), "copy {} to {}", from.display(), to.display());
}

/// Copies a tree as [`copy`] does, without the second names of files that a killed push may have left in it.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_data(from: &Path, to: &Path) {
    copy(from, to);
    let names = to.join(".astacus");
    if names.is_dir() {
        fs::remove_dir_all(names).expect("a copy is ours");
        let meta = fs::metadata(from).expect("it was just copied");
        set_time(to, meta.mtime(), meta.mtime_nsec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare;
    use crate::world::Folder;

    #[test]
    fn the_same_seed_makes_the_same_tree() {
        let folder = Folder::new();

        mixed(&folder.path("a"), &mut Random::new(5));
        mixed(&folder.path("b"), &mut Random::new(5));
        mixed(&folder.path("c"), &mut Random::new(6));

        assert_eq!(compare::differences(&folder.path("a"), &folder.path("b")), Vec::<String>::new());
        assert!(!compare::differences(&folder.path("a"), &folder.path("c")).is_empty());
    }

    #[test]
    fn sparse_files_take_less_room_than_they_are_long() {
        let folder = Folder::new();

        mixed(&folder.path("a"), &mut Random::new(5));

        assert!(gear::allocated(&folder.path("a/sparse")) < 1 << 20);
    }
}
