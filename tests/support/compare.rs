//! Are two trees the same? Our own eyes, which look at everything that a restore brings back, and
//! those of `rsync`, which owe us nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gear;

/// How the trees below `left` and `right` differ, the two folders themselves included. Nothing in
/// it means that they are the same.
///
/// Compared are names, kinds, content, holes, modes, owners, times of change with nanoseconds,
/// extended attributes, targets of symbolic links, and which names are links of one file.
///
/// # Panics
/// If a tree cannot be read.
pub fn differences(left: &Path, right: &Path) -> Vec<String> {
    let (ours, theirs) = (Tree::read(left), Tree::read(right));
    let mut found = Vec::new();
    for (path, entry) in &ours.entries {
        match theirs.entries.get(path) {
            None => found.push(format!("{}: missing on the right", show(path))),
            Some(other) => found
                .extend(entry.differences(other).into_iter().map(|what| format!("{}: {what}", show(path)))),
        }
    }
    let added = theirs.entries.keys().filter(|path| !ours.entries.contains_key(*path));
    found.extend(added.map(|path| format!("{}: missing on the left", show(path))));
    if ours.links() != theirs.links() {
        found.push(format!("hard links differ: {:?} and {:?}", ours.links(), theirs.links()));
    }
    found
}

/// Fails unless the trees are the same in our eyes and in those of `rsync`.
///
/// # Panics
/// With every difference.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let found = differences(left, right);
    assert!(found.is_empty(), "{} and {} differ: {found:#?}", left.display(), right.display());
    let itemized = rsync(left, right);
    assert_eq!(itemized, "", "rsync finds {} and {} to differ", left.display(), right.display());
}

/// Changes that `rsync` would make on the right to make it equal to the left: nothing if they are equal, or
/// if there is no `rsync`.
///
/// # Panics
/// If it fails.
pub fn rsync(left: &Path, right: &Path) -> String {
    if !gear::has("rsync") {
        return String::new();
    }
    let inside = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let output = Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"])
        .args([inside(left), inside(right)])
        .output()
        .expect("rsync can be started");
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "rsync failed: {}", said(&output.stderr));
    said(&output.stdout)
}

fn show(path: &Path) -> String {
    format!("{:?}", if path.as_os_str().is_empty() { Path::new(".") } else { path })
}

struct Entry {
    path: PathBuf,
    meta: Metadata,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Entry {
    fn read(path: PathBuf) -> Self {
        let meta = std::fs::symlink_metadata(&path)
            .unwrap_or_else(|error| panic!("look at {}: {error}", path.display()));
        Self { xattrs: xattrs(&path), meta, path }
    }

    fn kind(&self) -> &'static str {
        let kind = self.meta.file_type();
        match kind {
            _ if kind.is_file() => "file",
            _ if kind.is_dir() => "folder",
            _ if kind.is_symlink() => "symbolic link",
            _ if kind.is_fifo() => "pipe",
            _ if kind.is_socket() => "socket",
            _ => "device",
        }
    }

    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |what: &str, left: String, right: String| {
            if left != right {
                found.push(format!("{what}: {left} and {right}"));
            }
        };
        note("kind", self.kind().to_owned(), other.kind().to_owned());
        let (left, right) = (&self.meta, &other.meta);
        note("mode", format!("{:o}", left.mode()), format!("{:o}", right.mode()));
        note("owner", format!("{}:{}", left.uid(), left.gid()), format!("{}:{}", right.uid(), right.gid()));
        let time = |meta: &Metadata| format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
        note("time of change", time(left), time(right));
        note("extended attributes", format!("{:?}", self.xattrs), format!("{:?}", other.xattrs));
        if self.kind() == other.kind() {
            found.extend(self.content_differences(other));
        }
        found
    }

    fn content_differences(&self, other: &Self) -> Vec<String> {
        match self.kind() {
            "file" if self.meta.len() != other.meta.len() => {
                vec![format!("length: {} and {}", self.meta.len(), other.meta.len())]
            }
            "file" => {
                let mut found = Vec::new();
                found
                    .extend(first_difference(&self.path, &other.path).map(|at| format!("byte {at} differs")));
                if self.is_sparse() != other.is_sparse() {
                    let blocks = (self.meta.blocks(), other.meta.blocks());
                    found.push(format!("only one has holes: {blocks:?} blocks"));
                }
                found
            }
            "symbolic link" => {
                let target = |path: &Path| std::fs::read_link(path).expect("it was just there");
                let (left, right) = (target(&self.path), target(&other.path));
                if left == right { Vec::new() } else { vec![format!("target: {left:?} and {right:?}")] }
            }
            _ => Vec::new(),
        }
    }

    /// True if at least a megabyte of the file is a hole: less may be due to the file system.
    fn is_sparse(&self) -> bool {
        self.meta.blocks() * 512 + (1 << 20) <= self.meta.len()
    }
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(path, &mut *names) else { return BTreeMap::new() };
    let names = names.get(..len).unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut *value).expect("it was just listed");
        value.truncate(len);
        value
    };
    names.map(|name| (std::ffi::OsStr::from_bytes(name).to_owned(), value(name))).collect()
}

/// Where two files of one length first differ.
fn first_difference(left: &Path, right: &Path) -> Option<u64> {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut left, mut right) = (open(left), open(right));
    let mut at = 0;
    loop {
        let (ours, theirs) = (piece(&mut left), piece(&mut right));
        if ours != theirs {
            let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
            return Some(at + u64::try_from(same).expect("a piece is short"));
        }
        if ours.is_empty() {
            return None;
        }
        at += u64::try_from(ours.len()).expect("a piece is short");
    }
}

fn piece(file: &mut File) -> Vec<u8> {
    let mut piece = Vec::new();
    file.take(1 << 20).read_to_end(&mut piece).expect("an open file can be read");
    piece
}

struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut entries = BTreeMap::new();
        let mut rest = vec![PathBuf::new()];
        while let Some(path) = rest.pop() {
            let entry = Entry::read(root.join(&path));
            if entry.meta.is_dir() {
                let names = std::fs::read_dir(root.join(&path))
                    .unwrap_or_else(|error| panic!("list {}: {error}", path.display()));
                rest.extend(names.map(|name| path.join(name.expect("a folder can be listed").file_name())));
            }
            entries.insert(path, entry);
        }
        Self { entries }
    }

    /// The names that share a file, group by group.
    fn links(&self) -> Vec<Vec<&Path>> {
        let mut groups: BTreeMap<(u64, u64), Vec<&Path>> = BTreeMap::new();
        for (path, entry) in self.entries.iter().filter(|(_, entry)| entry.meta.is_file()) {
            groups.entry((entry.meta.dev(), entry.meta.ino())).or_default().push(path);
        }
        let mut groups: Vec<Vec<&Path>> = groups.into_values().filter(|group| group.len() > 1).collect();
        groups.sort();
        groups
    }
}

#[cfg(test)]
#[path = "compare/tests.rs"]
mod tests;
