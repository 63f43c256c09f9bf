//! The freeze: what a push will read is given a second name of its own before anything is read.
//!
//! A second name is a copy that shares its blocks, where the file system makes such copies, or a hard link. A
//! file that its owner deletes, or replaces under its name, exists under that second name until it is read; a
//! copy is also safe from writes in place. Data that is appended later is beyond the length that was noted
//! here, and is left for the next push. The names are in a [`Tree`] for each file system, away from the owner
//! of the files (see [`place`]), one for each inode. Files that the last push knows and that did not change
//! are not read, so they get no second name. When a push ends, with a snapshot or without, its tree is
//! removed. A killed push leaves its tree behind; the next one of the same folders continues with it, and
//! that of other folders removes it.

mod place;
mod tree;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use format_spec::Xattr;
use rustix::io::Errno;
use serde::Serialize;

use super::second_names::MARK;
use super::select::roots::Root;
use super::stat::Stat;
use crate::error::ClientError;
use crate::identity::{Identity, Source};
use crate::twin::{Old, is_back};
pub use place::{Tidied, tidy};
use tree::{Base, Tree};

const ELSEWHERE: &str = "the file is on another file system than the freeze folder";
const NO_COPY: &str = "protected by a hard link: the file system has no reflinks";

/// How files are kept as they are until they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FreezeMode {
    /// A copy that shares its blocks where the file system can make one, else a hard link.
    #[default]
    Auto,
    /// A hard link for each: safe from deletion, replacement and appending.
    Hardlink,
    /// Like [`Auto`](Self::Auto), and each fallback to a hard link is reported.
    Reflink,
    /// No protection: for folders that cannot change, such as a database's own snapshot.
    Off,
}

/// Handling of a file that cannot be frozen as requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unfrozen {
    /// It reads the file without that protection, and reports it.
    #[default]
    Reported,
    /// It ends, and there is no snapshot.
    Refused,
}

/// Mode and folder of the freeze.
#[derive(Debug, Clone, Default)]
pub struct FreezeOptions {
    /// How.
    pub mode: FreezeMode,
    /// The folder for second names, in place of the one that is chosen for each file system.
    pub folder: Option<PathBuf>,
    /// Handling of a file that cannot be frozen as requested.
    pub unfrozen: Unfrozen,
}

/// Checks how files are to be frozen, and the folder that the user chose for second names.
///
/// # Errors
/// [`ClientError::NotFound`] if it is not there, [`ClientError::Usage`] if it is no folder, or is a root or
/// holds one, or if freezing is both required and switched off.
pub(crate) fn check_folder(options: &FreezeOptions, roots: &[Root]) -> Result<(), ClientError> {
    if options.mode == FreezeMode::Off && options.unfrozen == Unfrozen::Refused {
        return Err(ClientError::Usage("--require-freeze and --freeze none exclude each other".to_owned()));
    }
    let Some(folder) = &options.folder else { return Ok(()) };
    let shown = folder.display();
    let real = folder
        .canonicalize()
        .map_err(|error| ClientError::NotFound(format!("--freeze-dir `{shown}`: {error}")))?;
    if !real.is_dir() {
        return Err(ClientError::Usage(format!("--freeze-dir `{shown}` is not a folder")));
    }
    let is_used = real.read_dir().is_ok_and(|mut names| names.next().is_some());
    if is_used && !real.join(MARK).exists() {
        return Err(ClientError::Usage(format!(
            "--freeze-dir `{shown}` is not empty: choose an empty or new folder"
        )));
    }
    match roots.iter().find(|root| root.place.starts_with(&real)) {
        None => Ok(()),
        Some(root) => Err(ClientError::Usage(format!(
            "`{}` is inside --freeze-dir `{shown}`: choose another folder for the temporary hard links",
            root.place.display()
        ))),
    }
}

/// How the files of one file system are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Copies that share their blocks.
    Reflink,
    /// Hard links.
    Hardlink,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reflink => "reflink",
            Self::Hardlink => "hard link",
        })
    }
}

/// How the files of one file system were frozen, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frozen {
    /// The first of the pushed folders on it.
    pub root: String,
    /// How.
    pub by: Kept,
    /// Where second names lay.
    pub folder: String,
}

/// A file as it was frozen.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) stat: Stat,
    pub(crate) source: Source,
    /// Why it is less safe than it should be.
    pub(crate) not_frozen: Option<String>,
    pub(crate) xattrs: Option<Vec<Xattr>>,
}

impl Held {
    /// A file that is read directly.
    pub(crate) fn as_is(stat: Stat) -> Self {
        Self { stat, source: Source::Path, not_frozen: None, xattrs: None }
    }

    fn linked(stat: Stat) -> Self {
        Self { stat: without_ours(stat), source: Source::Link, not_frozen: None, xattrs: None }
    }

    fn copied(stat: Stat, xattrs: Vec<Xattr>) -> Self {
        Self { stat, source: Source::Copy, not_frozen: None, xattrs: Some(xattrs) }
    }
}

/// Why a file was not frozen.
#[derive(Debug)]
pub(crate) enum HoldError {
    /// Its name stands for something else by now, or for nothing: look again.
    Moved,
    /// There is no space for another name. The push cannot continue.
    Full(ClientError),
    /// It must not be read less safe than it should be, and cannot be frozen so.
    Refused(String),
}

/// The second names of one push.
pub(crate) struct Freeze {
    mode: FreezeMode,
    unfrozen: Unfrozen,
    /// Trees by device.
    trees: BTreeMap<u64, Result<Tree, String>>,
    frozen: Vec<Frozen>,
}

impl Freeze {
    /// Makes a tree for each file system of a root, or takes over that of a killed push of the same folders.
    /// Trees of other dead pushes are removed. `key` names this push's trees, `state` is the folder of the
    /// push state.
    ///
    /// # Errors
    /// [`ClientError::Disk`] if there is no space. A folder that cannot be used for another reason is no
    /// error: its files are read directly, and that is reported.
    pub(crate) fn new(
        options: &FreezeOptions,
        key: &str,
        roots: &[Root],
        state: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let FreezeOptions { mode, unfrozen, .. } = *options;
        if let Some(state) = state.filter(|_| mode != FreezeMode::Off) {
            // It is made in any case, for what is remembered; where it cannot be, there are other folders.
            let _ = crate::state::make_folder(state);
        }
        let mut freeze = Self { mode, unfrozen, trees: BTreeMap::new(), frozen: Vec::new() };
        for root in roots {
            let bases = place::bases(options.folder.as_deref(), root.folder(), state);
            // A root that has vanished by now is a problem of the walk.
            let Ok(stat) = root.stat() else { continue };
            let dev = stat.identity.dev;
            if mode == FreezeMode::Off || freeze.trees.contains_key(&dev) {
                bases.iter().for_each(sweep);
                continue;
            }
            match place::open_first(&bases, key, mode) {
                Ok((tree, folder)) => {
                    freeze.note(root, &tree, &folder);
                    freeze.trees.insert(dev, Ok(tree));
                }
                Err(place::Unusable::Full(error)) => {
                    freeze.remove();
                    return Err(error);
                }
                Err(place::Unusable::Why(why)) => {
                    freeze.trees.insert(dev, Err(why));
                }
            }
        }
        Ok(freeze)
    }

    fn note(&mut self, root: &Root, tree: &Tree, folder: &Path) {
        let (root, folder) = (root.place.display().to_string(), folder.display().to_string());
        self.frozen.push(Frozen { root, by: tree.kept(), folder });
    }

    /// How the files of each file system are frozen.
    pub(crate) fn frozen(&self) -> &[Frozen] {
        &self.frozen
    }

    /// A file whose content is known: it needs no second name. One that a killed push gave it counts, because
    /// removing it changes the file's ctime.
    pub(crate) fn pass(&self, stat: Stat) -> Held {
        let has = match self.trees.get(&stat.identity.dev) {
            Some(Ok(tree)) => tree.was_left() && tree.has(stat.identity.ino),
            _ => false,
        };
        if has { Held::linked(stat) } else { Held::as_is(stat) }
    }

    /// Gives the regular file `name` in `folder`, last seen as `stat`, its second name.
    pub(crate) fn hold(&self, folder: &OwnedFd, name: &CStr, stat: Stat) -> Result<Held, HoldError> {
        let tree = match self.trees.get(&stat.identity.dev) {
            _ if self.mode == FreezeMode::Off => return Ok(Held::as_is(stat)),
            None => return self.unfrozen(Held::as_is(stat), ELSEWHERE.to_owned()),
            Some(Err(why)) => return self.unfrozen(Held::as_is(stat), why.clone()),
            Some(Ok(tree)) => tree,
        };
        if tree.kept() == Kept::Reflink {
            match tree.clone_file(folder, name, &stat) {
                Ok((held, xattrs)) => return Ok(Held::copied(held, xattrs)),
                Err(error) if is_gone(error) => return Err(HoldError::Moved),
                Err(error) if is_full(error) => return Err(HoldError::Full(full(tree.path(), error))),
                // One file of many that cannot share its blocks, or that may be linked and not read.
                Err(error) => tracing::debug!(%error, "protected by a hard link instead of a reflink"),
            }
        }
        let held = match tree.link(folder, name, stat.identity.ino) {
            Ok(held) if held.identity.is_same_inode(&stat.identity) => Held::linked(held),
            Ok(_) => return Err(HoldError::Moved),
            Err(error) if is_gone(error) => return Err(HoldError::Moved),
            Err(error) if is_full(error) => return Err(HoldError::Full(full(tree.path(), error))),
            Err(Errno::XDEV) => return self.unfrozen(Held::as_is(stat), ELSEWHERE.to_owned()),
            // A folder cannot be linked: then the name stands for another thing now.
            Err(error)
                if Stat::of_name(folder, name)
                    .is_ok_and(|now| !now.identity.is_same_inode(&stat.identity)) =>
            {
                tracing::debug!(%error, "a name moved");
                return Err(HoldError::Moved);
            }
            Err(error) => return self.unfrozen(Held::as_is(stat), error.to_string()),
        };
        let is_less = self.mode == FreezeMode::Reflink || tree.kept() == Kept::Reflink;
        if is_less { self.unfrozen(held, NO_COPY.to_owned()) } else { Ok(held) }
    }

    /// A file that is less safe than it should be.
    fn unfrozen(&self, held: Held, why: String) -> Result<Held, HoldError> {
        let is_refused = match held.source {
            Source::Path => true,
            // With `auto` a link is what it should be where there are no copies.
            Source::Link | Source::Copy => self.mode == FreezeMode::Reflink,
        };
        if is_back(Old::UnfrozenUnsaid) {
            return Ok(held);
        }
        match self.unfrozen {
            Unfrozen::Refused if is_refused => Err(HoldError::Refused(why)),
            _ => Ok(Held { not_frozen: Some(why), ..held }),
        }
    }

    /// Opens the file under its second name.
    pub(crate) fn open(&self, identity: &Identity) -> Result<OwnedFd, Errno> {
        match self.trees.get(&identity.dev) {
            Some(Ok(tree)) => tree.open_file(identity.ino),
            _ => Err(Errno::NOENT),
        }
    }

    /// Takes the hard link of a file away. Returns what the file is afterwards, if nothing happened to it
    /// since it was `identity`; the ctime is another one in any case.
    pub(crate) fn release(&self, identity: &Identity) -> Option<Identity> {
        match self.trees.get(&identity.dev) {
            Some(Ok(tree)) => tree.release(identity),
            _ => None,
        }
    }

    /// Removes all second names that are left, and what was made for them.
    pub(crate) fn remove(self) {
        for tree in self.trees.into_values().flatten() {
            let path = tree.path().display().to_string();
            if let Err(error) = tree.remove() {
                tracing::warn!(%error, path, "temporary hard links were left behind: the next push, or `tidy`, removes them");
            }
        }
    }
}

/// Removes what dead pushes left in a base that this push does not use.
fn sweep(base: &Base) {
    if let Err(error) = tree::sweep(base) {
        let path = base.path().display().to_string();
        tracing::debug!(%error, path, "temporary hard links of a killed push could not be removed");
    }
}

fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::STALE | Errno::LOOP)
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
mod tests;
