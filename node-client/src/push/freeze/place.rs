//! Places of second names: away from the owner of the files, on their file system.
//!
//! In this order, the first that can be used: a folder of the user's choice; the folder of what pushes remember;
//! the nearest folder above the root that is no data folder of a database; the root itself, if nothing
//! else is on its file system, which is then said.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Serialize;

use super::tree::{Base, Left, Tree};
use super::{FreezeMode, full, is_full, tree};
use crate::error::ClientError;
use crate::push::class::database::looks_like_data;
use crate::push::stat::Mount;
use crate::twin::{Old, is_back};

/// Why second names cannot be made for a root.
pub(super) enum Unusable {
    /// There is no room.
    Full(ClientError),
    /// No folder can be used.
    Why(String),
}

/// Possible places for second names of files below `root`, the best place first.
pub(super) fn bases(chosen: Option<&Path>, root: &Path, state: Option<&Path>) -> Vec<Base> {
    if let Some(folder) = chosen {
        return vec![Base::chosen(&real(folder))];
    }
    if is_back(Old::SecondNamesWithin) {
        return vec![Base::within(root)];
    }
    let mount = Mount::of(root);
    let is_near = |folder: &Path| mount.is_some() && Mount::of(folder) == mount;
    let state = state.filter(|state| is_near(state)).map(real);
    let above = root.ancestors().skip(1).take_while(|folder| is_near(folder));
    let above = above.filter(|folder| !is_in_sight(folder)).map(Path::to_owned);
    let beside = state.into_iter().chain(above).map(|folder| Base::beside(&folder));
    beside.chain([Base::within(root)]).collect()
}

/// The path of a folder without symbolic links, which its user may have used.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// True if a database uses the content of this folder.
fn is_in_sight(folder: &Path) -> bool {
    looks_like_data(folder).is_some() || folder.file_name().is_some_and(|name| name == "snapshots")
}

/// A tree in the first of `bases` where one can be made. The others are swept.
pub(super) fn open_first(bases: &[Base], key: &str, mode: FreezeMode) -> Result<(Tree, PathBuf), Unusable> {
    let mut opened = None;
    let mut why = None;
    for base in bases {
        if opened.is_some() {
            super::sweep(base);
            continue;
        }
        match Tree::open(base, key, mode) {
            Ok(tree) => {
                if base.is_within() {
                    let path = base.path();
                    tracing::warn!(
                        "`{}` is used for the temporary hard links of this push, as no other folder on that file system can be used; choose another with --freeze-dir",
                        path.display()
                    );
                }
                opened = Some((tree, base.path().to_owned()));
            }
            Err(error) if is_full(error) => return Err(Unusable::Full(full(base.path(), error))),
            Err(error) => {
                // The first place is the one to repair.
                why.get_or_insert_with(|| format!("`{}` cannot be used: {error}", base.path().display()));
            }
        }
    }
    opened
        .ok_or_else(|| Unusable::Why(why.unwrap_or_else(|| "no folder for temporary hard links".to_owned())))
}

/// Result of [`tidy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tidied {
    /// Folders of second names that were removed.
    pub removed: Vec<PathBuf>,
    /// Folders of second names of pushes that are running.
    pub in_use: Vec<PathBuf>,
    /// Folders that could not be removed, and why.
    pub left: Vec<(PathBuf, String)>,
}

/// Removes the second names that dead pushes left for `roots`, in every place where a push may have made them.
pub fn tidy(roots: &[PathBuf], chosen: Option<&Path>, state: Option<&Path>) -> Tidied {
    let mut tidied = Tidied::default();
    let mut seen = std::collections::BTreeSet::new();
    let mut bases: Vec<Base> = roots.iter().flat_map(|root| bases(chosen, root, state)).collect();
    bases.extend(state.map(|state| Base::beside(&real(state))));
    for base in bases {
        if !seen.insert(base.path().to_owned()) {
            continue;
        }
        let path = base.path().to_owned();
        match tree::sweep(&base) {
            Ok(Left::Nothing) => {}
            Ok(Left::Removed) => tidied.removed.push(path),
            Ok(Left::InUse) => tidied.in_use.push(path),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => tidied.left.push((path, error.to_string())),
        }
    }
    tidied
}
