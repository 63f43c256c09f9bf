//! Lists of paths: of all files below the roots, a push takes only the listed ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::EntryPath;

use super::roots::Root;
use crate::error::ClientError;

/// A list of paths to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathList {
    /// The file that holds it; `-` is standard input.
    pub file: PathBuf,
    /// The end of each path.
    pub separator: Separator,
}

/// The byte behind each path of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// The end of a line.
    NewLine,
    /// A NUL, which no path has in it.
    Nul,
}

impl Separator {
    fn byte(self) -> u8 {
        match self {
            Self::NewLine => b'\n',
            Self::Nul => 0,
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::NewLine => "--files-from",
            Self::Nul => "--files-from0",
        }
    }
}

/// Relation of a path to those of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is one of them, or inside one.
    Listed,
    /// It contains one of them.
    OnTheWay,
    /// In neither of them.
    Elsewhere,
}

/// The paths of all lists. Memory: all of them.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Each of them, and whether the walk came to it.
    paths: BTreeMap<EntryPath, AtomicBool>,
    /// Those that are inside no other.
    tops: BTreeSet<EntryPath>,
}

impl Listed {
    /// Reads the lists; `None` if there are none.
    ///
    /// # Errors
    /// [`ClientError::Usage`] for a list that cannot be read, lists without a path, and a path that is inside
    /// no root.
    pub(crate) fn read(lists: &[PathList], roots: &[Root]) -> Result<Option<Self>, ClientError> {
        if lists.is_empty() {
            return Ok(None);
        }
        if lists.iter().filter(|list| list.is_standard_input()).count() > 1 {
            return Err(ClientError::Usage(
                "only one list of paths can be read from standard input".to_owned(),
            ));
        }
        let mut paths = BTreeMap::new();
        for list in lists {
            for (number, written) in (1..).zip(list.read()?.split(|byte| *byte == list.separator.byte())) {
                if !written.is_empty() {
                    let path = list.path(number, Path::new(OsStr::from_bytes(written)), roots)?;
                    paths.insert(path, AtomicBool::new(false));
                }
            }
        }
        if paths.is_empty() {
            let named: Vec<_> = lists.iter().map(PathList::shown).collect();
            return Err(ClientError::Usage(format!("no path to push in {}", named.join(", "))));
        }
        Ok(Some(Self::new(paths)))
    }

    fn new(paths: BTreeMap<EntryPath, AtomicBool>) -> Self {
        let mut tops: BTreeSet<EntryPath> = BTreeSet::new();
        for path in paths.keys() {
            // The content of a folder comes directly behind it.
            if tops.last().is_none_or(|top| path.below(top).is_none()) {
                tops.insert(path.clone());
            }
        }
        Self { paths, tops }
    }

    /// Relation of a path to those of the lists.
    pub(crate) fn reach(&self, path: &EntryPath) -> Reach {
        let before = self.tops.range(..=path).next_back();
        if before.is_some_and(|top| path.below(top).is_some()) {
            return Reach::Listed;
        }
        let behind = self.tops.range((Bound::Excluded(path), Bound::Unbounded)).next();
        if behind.is_some_and(|top| top.below(path).is_some()) { Reach::OnTheWay } else { Reach::Elsewhere }
    }

    /// The walk came to this path.
    pub(crate) fn saw(&self, path: &EntryPath) {
        if let Some(was_seen) = self.paths.get(path) {
            was_seen.store(true, Ordering::Relaxed);
        }
    }

    /// The paths that the walk did not come to.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = &EntryPath> {
        let unseen = self.paths.iter().filter(|(_, was_seen)| !was_seen.load(Ordering::Relaxed));
        unseen.map(|(path, _)| path)
    }

    /// Forgets what the walk came to.
    pub(crate) fn reset(&self) {
        self.paths.values().for_each(|was_seen| was_seen.store(false, Ordering::Relaxed));
    }
}

impl PathList {
    fn is_standard_input(&self) -> bool {
        self.file == Path::new("-")
    }

    fn shown(&self) -> String {
        let flag = self.separator.flag();
        if self.is_standard_input() {
            format!("{flag}, standard input")
        } else {
            format!("{flag} `{}`", self.file.display())
        }
    }

    fn read(&self) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        let read = if self.is_standard_input() {
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        } else {
            fs::read(&self.file)
        };
        read.map_err(|error| ClientError::Usage(format!("{} cannot be read: {error}", self.shown())))
    }

    /// The path under which the walk comes to what is `written` in this line.
    fn path(&self, number: u64, written: &Path, roots: &[Root]) -> Result<EntryPath, ClientError> {
        let refused = |why: String| {
            let (list, shown) = (self.shown(), written.display());
            ClientError::Usage(format!("{list}, path {number}: `{shown}` {why}"))
        };
        let real = real(written).map_err(|error| refused(format!("cannot be found: {error}")))?;
        if !roots.iter().any(|root| real.starts_with(&root.place)) {
            let roots: Vec<_> = roots.iter().map(|root| format!("`{}`", root.place.display())).collect();
            return Err(refused(format!("is in none of the pushed folders, {}", roots.join(", "))));
        }
        let bytes = real.as_os_str().as_bytes();
        let path = EntryPath::new(bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec());
        path.map_err(|error| refused(format!("cannot be pushed: {error}")))
    }
}

/// The absolute path without links on the way; a missing part is kept as written. The last name may be that
/// of a link, which is not followed.
fn real(written: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(written)?;
    if path.file_name().is_none() {
        return path.canonicalize();
    }
    let mut rest = Vec::new();
    let mut folder = path.as_path();
    while let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) {
        rest.push(name);
        if let Ok(real) = above.canonicalize() {
            return Ok(rest.iter().rev().fold(real, |path, name| path.join(name)));
        }
        folder = above;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::select::roots;

    fn list(file: &Path, separator: Separator) -> PathList {
        PathList { file: file.to_owned(), separator }
    }

    fn listed(paths: &[&str]) -> Listed {
        let path = |text: &&str| (EntryPath::new(text.as_bytes().to_vec()).unwrap(), AtomicBool::new(false));
        Listed::new(paths.iter().map(path).collect())
    }

    #[test]
    fn a_path_is_listed_on_the_way_or_elsewhere() {
        let listed = listed(&["r/a", "r/a/b/c", "r/a-b/x/y", "r/z"]);
        let reach = |text: &str| listed.reach(&EntryPath::new(text.as_bytes().to_vec()).unwrap());

        for path in ["r/a", "r/a/b", "r/a/b/c/d", "r/a/q", "r/a-b/x/y", "r/z/1"] {
            assert_eq!(reach(path), Reach::Listed, "{path}");
        }
        for path in ["r", "r/a-b", "r/a-b/x"] {
            assert_eq!(reach(path), Reach::OnTheWay, "{path}");
        }
        for path in ["q", "r/a-", "r/a-b/w", "r/a-b/x/y.z", "r/b", "r/zz", "z"] {
            assert_eq!(reach(path), Reach::Elsewhere, "{path}");
        }
    }

    #[test]
    fn paths_are_those_of_the_files_whatever_way_they_are_written() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("real/sub")).unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        std::os::unix::fs::symlink("sub", top.join("real/to-sub")).unwrap();
        let roots = roots::check(&[top.join("real")]).unwrap();
        let file = top.join("list");
        let at = |rest: &str| format!("{}/{rest}", top.display());
        let written = ["link/sub/a b", "real/sub/../to-sub", "real/gone/deep", "real/sub/"].map(at);
        for (separator, end) in [(Separator::NewLine, "\n"), (Separator::Nul, "\0")] {
            fs::write(&file, format!("{}{end}{end}", written.join(end))).unwrap();

            let listed = Listed::read(&[list(&file, separator)], &roots).unwrap().unwrap();

            let found: Vec<_> = listed.unseen().map(|path| format!("/{path}")).collect();
            assert_eq!(found, ["real/gone/deep", "real/sub", "real/sub/a b", "real/to-sub"].map(at));
            listed.saw(&EntryPath::new(at("real/sub").into_bytes()[1..].to_vec()).unwrap());
            assert_eq!(listed.unseen().count(), 3);
        }
    }

    #[test]
    fn lists_that_make_no_sense_are_refused_with_their_place() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        fs::create_dir(top.join("root")).unwrap();
        let roots = roots::check(&[top.join("root")]).unwrap();
        let file = top.join("list");
        let read = |text: String| {
            fs::write(&file, text).unwrap();
            Listed::read(&[list(&file, Separator::NewLine)], &roots).unwrap_err()
        };
        let inside = top.join("root/a").display().to_string();
        let errors = [
            read(String::new()),
            read("\n\n".to_owned()),
            read(format!("{inside}\n{}/other\n", top.display())),
            read(format!("{inside}\n{}/root-b\n", top.display())),
            Listed::read(&[list(&top.join("gone"), Separator::Nul)], &roots).unwrap_err(),
            Listed::read(
                &[list(Path::new("-"), Separator::Nul), list(Path::new("-"), Separator::Nul)],
                &roots,
            )
            .unwrap_err(),
        ];
        for error in &errors {
            assert_eq!(error.exit_code(), 2, "{error}");
        }
        assert!(errors[2].to_string().contains("path 2:"), "{}", errors[2]);
    }
}
