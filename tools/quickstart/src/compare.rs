//! Compares a restored tree with the one that was pushed: names, kinds, content, modes, times, link
//! targets and, for root, owners.
//!
//! Extended attributes and hard links are not looked at here. The trees are read and never written.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use format_spec::Timestamp;

/// How the trees compare.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Regular files that are equal.
    pub(crate) files: u64,
    /// Bytes in them.
    pub(crate) bytes: u64,
    /// Folders and links that are equal.
    pub(crate) others: u64,
    /// Differences that should not exist.
    pub(crate) different: Vec<Note>,
    /// Differences of files that changed after the push had begun.
    pub(crate) changed: Vec<Note>,
    /// Source files that cannot be read.
    pub(crate) unreadable: Vec<Note>,
}

/// A path, and what there is to say of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// The two trees, and when the first push began.
pub(crate) struct Trees<'a> {
    pub(crate) source: &'a Path,
    pub(crate) copy: &'a Path,
    pub(crate) pushed_at: Timestamp,
}

/// Why two entries are not equal.
enum Unequal {
    Different(&'static str),
    Unreadable(io::Error),
}

/// Length of the pieces that are compared.
const PIECE: usize = 256 << 10;

impl Trees<'_> {
    /// Compares all there is. `progress` hears of each entry, and ends the comparison with `false`.
    pub(crate) fn compare(&self, progress: &mut dyn FnMut(&Comparison) -> bool) -> Comparison {
        let mut found = Comparison::default();
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            match self.entry(&path, &mut found) {
                Ok(children) => open.extend(children.into_iter().rev().map(|name| path.join(name))),
                Err(unequal) => self.note(&path, unequal, &mut found),
            }
            if !progress(&found) {
                break;
            }
        }
        found
    }

    /// Compares one entry, and returns the names in it: those of either side.
    fn entry(&self, path: &Path, found: &mut Comparison) -> Result<BTreeSet<OsString>, Unequal> {
        let (source, copy) = (at(self.source, path), at(self.copy, path));
        let about = match fs::symlink_metadata(&source) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Unequal::Different("not in the source"));
            }
            about => about.map_err(Unequal::Unreadable)?,
        };
        let kind = about.file_type();
        if kind.is_dir() {
            return self.folder(path, &about, found);
        }
        if kind.is_file() {
            // Opened first: what we cannot read, the push could not read either.
            let content = File::open(&source).map_err(Unequal::Unreadable)?;
            attributes(&about, &copy)?;
            same_bytes(content, &copy)?;
            found.files += 1;
            found.bytes += about.len();
        } else if kind.is_symlink() {
            attributes(&about, &copy)?;
            if fs::read_link(&source).ok() != fs::read_link(&copy).ok() {
                return Err(Unequal::Different("the link target differs"));
            }
            found.others += 1;
        } else if fs::symlink_metadata(&copy).is_ok() {
            return Err(Unequal::Different("sockets, devices and pipes are not backed up"));
        }
        Ok(BTreeSet::new())
    }

    /// A folder that is not equal itself may still hold what is.
    fn folder(
        &self,
        path: &Path,
        about: &Metadata,
        found: &mut Comparison,
    ) -> Result<BTreeSet<OsString>, Unequal> {
        let mut names = list(&at(self.source, path)).map_err(Unequal::Unreadable)?;
        let copy = at(self.copy, path);
        match attributes(about, &copy) {
            Ok(()) => found.others += 1,
            Err(unequal) => self.note(path, unequal, found),
        }
        // One that is missing or no folder has been noted; what it should hold need not be.
        match list(&copy) {
            Ok(restored) => names.extend(restored),
            Err(_) => names.clear(),
        }
        Ok(names)
    }

    fn note(&self, path: &Path, unequal: Unequal, found: &mut Comparison) {
        let (list, text) = match unequal {
            Unequal::Unreadable(error) => (&mut found.unreadable, error.to_string()),
            Unequal::Different(text) if self.changed(path) => (&mut found.changed, text.to_owned()),
            Unequal::Different(text) => (&mut found.different, text.to_owned()),
        };
        list.push(Note { path: at(self.source, path), text });
    }

    /// True if the entry, or the folder that it vanished from, changed after the push had begun.
    fn changed(&self, path: &Path) -> bool {
        let is_newer = |about: &Metadata| {
            let nanos = u32::try_from(about.ctime_nsec()).unwrap_or_default();
            (about.ctime(), nanos) >= (self.pushed_at.seconds, self.pushed_at.nanos)
        };
        let about = fs::symlink_metadata(at(self.source, path));
        let about = about.or_else(|_| fs::symlink_metadata(at(self.source, path.parent().unwrap_or(path))));
        about.is_ok_and(|about| is_newer(&about))
    }
}

/// The path of the root has no slash at its end, which would follow a link.
fn at(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn list(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Compares what stands beside the content.
fn attributes(source: &Metadata, copy: &Path) -> Result<(), Unequal> {
    let copy = fs::symlink_metadata(copy).map_err(|_| Unequal::Different("missing"))?;
    let differs = |by: fn(&Metadata) -> (i64, i64)| by(source) != by(&copy);
    let difference = if source.file_type() != copy.file_type() {
        "the file type differs"
    } else if !source.is_symlink() && source.mode() != copy.mode() {
        "the mode differs"
    } else if source.is_file() && source.len() != copy.len() {
        "the length differs"
    } else if differs(|about| (about.mtime(), about.mtime_nsec())) {
        "the modification time differs"
    } else if rustix::process::geteuid().is_root()
        && differs(|about| (about.uid().into(), about.gid().into()))
    {
        "the owner differs"
    } else {
        return Ok(());
    };
    Err(Unequal::Different(difference))
}

fn same_bytes(mut source: File, copy: &Path) -> Result<(), Unequal> {
    let lost = |_| Unequal::Different("the copy cannot be read");
    let mut copy = File::open(copy).map_err(lost)?;
    let (mut ours, mut theirs) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        piece(&mut source, &mut ours).map_err(Unequal::Unreadable)?;
        piece(&mut copy, &mut theirs).map_err(lost)?;
        if ours != theirs {
            return Err(Unequal::Different("the content differs"));
        }
        if ours.is_empty() {
            return Ok(());
        }
    }
}

fn piece(file: &mut File, into: &mut Vec<u8>) -> io::Result<usize> {
    into.clear();
    file.take(PIECE.try_into().expect("a small number")).read_to_end(into)
}

#[cfg(test)]
mod tests;
