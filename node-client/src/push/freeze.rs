//! The freeze: what a push will read is given a second name of its own before anything is read.
//!
//! A file that its owner deletes, or replaces under its name, lives on under that second name until it
//! was read. What is appended later lies behind the length that was noted here, and is left for the next
//! push. The names lie in a [`Tree`] in the first root of each file system, one for each inode. Files
//! that the last push knows and that did not change are not read, so they get no second name. When a
//! push ends, with a snapshot or without, its tree goes. A push that was killed leaves its tree
//! behind; the next one of the same folders goes on with it, and that of other folders removes it.

mod tree;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use format_spec::Xattr;
use minicbor::{Decode, Encode};
use rustix::io::Errno;

use super::roots::Root;
use super::stat::{Identity, Stat};
use crate::error::ClientError;
pub(crate) use tree::{BASE_NAME, MARK, is_base};
use tree::{Base, Tree};

const ELSEWHERE: &str = "it lies on another file system than the folder for second names";

/// How files are kept as they are until they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FreezeMode {
    /// A hard link for each: safe from deletion, replacement and appending.
    #[default]
    Hardlink,
    /// A copy that shares its blocks, where the file system can: also safe from writes in place.
    Reflink,
    /// Not at all: for folders that are frozen already, such as a database's own snapshot.
    Off,
}

/// What is frozen, and where.
#[derive(Debug, Clone, Default)]
pub struct FreezeOptions {
    /// How.
    pub mode: FreezeMode,
    /// The folder for second names, in place of `.astacus` in the first root of each file system.
    pub folder: Option<PathBuf>,
}

/// Where the content of a file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Source {
    /// Under the name that its owner gave it.
    #[n(0)]
    Path,
    /// Under its second name, in the tree of its file system.
    #[n(1)]
    Tree,
}

/// A file as it was frozen.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) stat: Stat,
    pub(crate) source: Source,
    pub(crate) not_frozen: Option<String>,
    pub(crate) xattrs: Option<Vec<Xattr>>,
}

impl Held {
    /// A file that is read where it lies.
    pub(crate) fn as_is(stat: Stat) -> Self {
        Self { stat, source: Source::Path, not_frozen: None, xattrs: None }
    }

    fn in_tree(stat: Stat, xattrs: Option<Vec<Xattr>>) -> Self {
        Self { stat, source: Source::Tree, not_frozen: None, xattrs }
    }
}

/// Why a file was not frozen.
#[derive(Debug)]
pub(crate) enum HoldError {
    /// Its name stands for something else by now: look again.
    Moved,
    /// There is no room for another name. The push cannot go on.
    Full(ClientError),
}

/// The second names of one push.
pub(crate) struct Freeze {
    mode: FreezeMode,
    /// By device.
    trees: BTreeMap<u64, Result<Tree, String>>,
    paths: BTreeMap<u64, PathBuf>,
}

impl Freeze {
    /// Makes a tree for each file system that a root lies on, or takes over that of a push of the same
    /// folders that was killed. Trees of other dead pushes are removed. `key` names this push's trees.
    ///
    /// # Errors
    /// [`ClientError::Disk`] if there is no room. A folder that cannot be had for another reason is no
    /// error: its files are read where they lie, and that is reported.
    pub(crate) fn new(options: &FreezeOptions, key: &str, roots: &[Root]) -> Result<Self, ClientError> {
        let mut freeze = Self { mode: options.mode, trees: BTreeMap::new(), paths: BTreeMap::new() };
        for root in roots {
            let base = match &options.folder {
                Some(folder) => Base::chosen(&folder.canonicalize().unwrap_or_else(|_| folder.clone())),
                None => Base::in_root(&root.folder),
            };
            let above = Stat::of_name(rustix::fs::CWD, &cstring(base.above()));
            // A root that has gone by now is a problem of the walk.
            let Ok(dev) = above.map(|stat| stat.identity.dev) else { continue };
            if options.mode == FreezeMode::Off || freeze.trees.contains_key(&dev) {
                freeze.sweep(&base);
                continue;
            }
            let path = base.path();
            let tree = match Tree::open(&base, key, options.mode) {
                Err(error) if is_full(error) => {
                    freeze.sweep(&base);
                    freeze.remove();
                    return Err(full(&path, error));
                }
                Err(error) => Err(format!("`{}` cannot be used: {error}", path.display())),
                Ok(tree) => Ok(tree),
            };
            freeze.trees.insert(dev, tree);
            freeze.paths.insert(dev, path);
        }
        Ok(freeze)
    }

    /// Removes what dead pushes left in a base that this push does not use, or cannot.
    fn sweep(&self, base: &Base) {
        if let Err(error) = tree::sweep(base) {
            let path = base.path();
            tracing::debug!(%error, path = %path.display(), "second names of a dead push were left");
        }
    }

    /// A file whose content is known: it needs no second name. One that a killed push gave it counts, because
    /// removing it changes the file's ctime.
    pub(crate) fn pass(&self, stat: Stat) -> Held {
        let has = match self.trees.get(&stat.identity.dev) {
            Some(Ok(tree)) => tree.was_left() && tree.has(stat.identity.ino),
            _ => false,
        };
        if has && self.mode == FreezeMode::Hardlink {
            return Held::in_tree(without_ours(stat), None);
        }
        Held::as_is(stat)
    }

    /// Gives the regular file `name` in `folder`, last seen as `stat`, its second name.
    pub(crate) fn hold(&self, folder: &OwnedFd, name: &CStr, stat: Stat) -> Result<Held, HoldError> {
        let direct = |why: String| Held { not_frozen: Some(why), ..Held::as_is(stat) };
        let tree = match self.trees.get(&stat.identity.dev) {
            _ if self.mode == FreezeMode::Off => {
                return Ok(Held::as_is(stat));
            }
            None => return Ok(direct(ELSEWHERE.to_owned())),
            Some(Err(why)) => return Ok(direct(why.clone())),
            Some(Ok(tree)) => tree,
        };
        let held = match self.mode {
            FreezeMode::Reflink => tree.clone_file(folder, name, &stat),
            _ => tree.link(folder, name, stat.identity.ino).map(|stat| (stat, None)),
        };
        match held {
            Ok((held, xattrs)) if held.identity.is_same_inode(&stat.identity) => {
                let stat = if self.copies() { held } else { without_ours(held) };
                Ok(Held::in_tree(stat, xattrs))
            }
            Ok(_) | Err(Errno::NOENT | Errno::STALE | Errno::LOOP) => Err(HoldError::Moved),
            Err(error) if is_full(error) => Err(HoldError::Full(full(&self.path_of(&stat), error))),
            Err(Errno::XDEV) => Ok(direct(ELSEWHERE.to_owned())),
            Err(Errno::OPNOTSUPP | Errno::INVAL) if self.mode == FreezeMode::Reflink => {
                Ok(direct("the file system cannot share blocks".to_owned()))
            }
            // A folder cannot be linked: then the name stands for another thing now.
            Err(error)
                if Stat::of_name(folder, name)
                    .is_ok_and(|now| !now.identity.is_same_inode(&stat.identity)) =>
            {
                tracing::debug!(%error, "a name moved");
                Err(HoldError::Moved)
            }
            Err(error) => Ok(direct(error.to_string())),
        }
    }

    fn path_of(&self, stat: &Stat) -> PathBuf {
        self.paths.get(&stat.identity.dev).cloned().unwrap_or_default()
    }

    /// Whether second names are of copies, which have identities of their own.
    pub(crate) fn copies(&self) -> bool {
        self.mode == FreezeMode::Reflink
    }

    /// Opens the file under its second name.
    pub(crate) fn open(&self, identity: &Identity) -> Result<OwnedFd, Errno> {
        match self.trees.get(&identity.dev) {
            Some(Ok(tree)) => tree.open_file(identity.ino),
            _ => Err(Errno::NOENT),
        }
    }

    /// Takes the second name away. Returns what the file is afterwards, if nothing happened to it
    /// since it was `identity`; the ctime is another one in any case.
    pub(crate) fn release(&self, identity: &Identity) -> Option<Identity> {
        match (self.mode, self.trees.get(&identity.dev)) {
            // A copy's name is nothing to the file.
            (FreezeMode::Reflink, _) => Some(*identity),
            (_, Some(Ok(tree))) => tree.release(identity),
            _ => None,
        }
    }

    /// Removes all second names that are left, and what was made for them.
    pub(crate) fn remove(self) {
        for (dev, tree) in self.trees {
            let Ok(tree) = tree else { continue };
            if let Err(error) = tree.remove() {
                let path = self.paths.get(&dev).map(|path| path.display().to_string()).unwrap_or_default();
                tracing::warn!(%error, path, "a folder of second names was left for the next push to remove");
            }
        }
    }
}

/// The file as its owner sees it: our name is not one of its links.
fn without_ours(stat: Stat) -> Stat {
    Stat { links: stat.links.saturating_sub(1), ..stat }
}

fn is_full(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT)
}

fn full(path: &Path, error: Errno) -> ClientError {
    ClientError::Disk { action: "freeze files in", path: path.to_owned(), source: error.into() }
}

fn cstring(path: &Path) -> std::ffi::CString {
    use std::os::unix::ffi::OsStrExt;
    // A path with a NUL names nothing, as the empty one does.
    std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

#[cfg(test)]
#[path = "freeze/tests.rs"]
mod tests;
