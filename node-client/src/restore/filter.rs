//! Which entries are wanted: patterns over entry paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::EntryPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::ClientError;
use crate::globs::check_letters;

/// Patterns over whole entry paths. `*` and `?` stay within a name, `**` crosses folders. A pattern
/// without `/` is looked for in every folder; a leading `/` is the node's root.
#[derive(Debug, Clone)]
struct Patterns {
    set: GlobSet,
    texts: Arc<[String]>,
    /// Which patterns fitted something so far. Clones share it.
    fitted: Arc<[AtomicBool]>,
}

impl Patterns {
    /// # Errors
    /// [`ClientError::Usage`] naming the flag and the pattern.
    fn new(flag: &str, patterns: &[String]) -> Result<Self, ClientError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            check_letters(flag, pattern)?;
            let glob =
                GlobBuilder::new(&whole(pattern)).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| ClientError::Usage(format!("{flag} `{pattern}`: {error}")))?);
        }
        let set = set.build().map_err(|error| ClientError::Usage(format!("{flag}: {error}")))?;
        let fitted = patterns.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { set, texts: patterns.into(), fitted })
    }

    /// True if a pattern fits `path` itself. Each that does is remembered.
    fn fit(&self, path: &[u8]) -> bool {
        if self.fitted.iter().all(|fitted| fitted.load(Ordering::Relaxed)) {
            return self.set.is_match(as_path(path));
        }
        let fitting = self.set.matches(as_path(path));
        for pattern in fitting.iter().filter_map(|index| self.fitted.get(*index)) {
            pattern.store(true, Ordering::Relaxed);
        }
        !fitting.is_empty()
    }

    /// True if a pattern matches `path` or a folder above it.
    fn cover(&self, path: &EntryPath) -> bool {
        let bytes = path.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let folders = ends.filter_map(|end| bytes.get(..end)).filter(|folder| self.fit(folder)).count();
        self.fit(bytes) || folders > 0
    }

    /// Those that fitted nothing.
    fn idle(&self) -> Vec<String> {
        let pairs = self.texts.iter().zip(self.fitted.iter());
        pairs.filter(|(_, fitted)| !fitted.load(Ordering::Relaxed)).map(|(text, _)| text.clone()).collect()
    }
}

/// The pattern over whole paths that `pattern` stands for.
fn whole(pattern: &str) -> String {
    let pattern = pattern.trim_end_matches('/');
    match pattern.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if pattern.contains('/') => pattern.to_owned(),
        None => format!("**/{pattern}"),
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Selection of names: those that a pattern matches and their content, without excluded names and their
/// content.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// `None` for everything.
    paths: Option<Patterns>,
    excludes: Option<Patterns>,
    /// For each pattern of `paths` the folder that contains all its matches; `None` for all of the node.
    within: Vec<Option<EntryPath>>,
}

impl Filter {
    /// The filter for these patterns; no `paths` means everything.
    ///
    /// # Errors
    /// [`ClientError::Usage`] naming the pattern.
    pub(super) fn new(paths: &[String], excludes: &[String]) -> Result<Self, ClientError> {
        let some = |flag, patterns: &[String]| {
            (!patterns.is_empty()).then(|| Patterns::new(flag, patterns)).transpose()
        };
        let within = paths.iter().map(|pattern| plain_start(&whole(pattern))).collect();
        Ok(Self { paths: some("--path", paths)?, excludes: some("--exclude", excludes)?, within })
    }

    /// True if it lets everything through.
    pub(super) fn is_everything(&self) -> bool {
        self.paths.is_none() && self.excludes.is_none()
    }

    /// True if a pattern fits `path` itself.
    fn fits(&self, path: &[u8]) -> bool {
        self.paths.as_ref().is_none_or(|paths| paths.fit(path))
    }

    /// True if `path` is chosen, by itself or because of a folder above it.
    pub(super) fn covers(&self, path: &EntryPath) -> bool {
        let is_excluded = self.excludes.as_ref().is_some_and(|excludes| excludes.cover(path));
        self.paths.as_ref().is_none_or(|paths| paths.cover(path)) && !is_excluded
    }

    /// True if a name inside `folder` could be chosen.
    pub(super) fn may_reach_into(&self, folder: &EntryPath) -> bool {
        if self.excludes.as_ref().is_some_and(|excludes| excludes.cover(folder)) {
            return false;
        }
        let meets = |within: &EntryPath| within.below(folder).is_some() || folder.below(within).is_some();
        self.paths.is_none() || self.within.iter().any(|within| within.as_ref().is_none_or(meets))
    }

    /// The patterns of what is wanted that fitted nothing so far.
    pub(super) fn idle_paths(&self) -> Vec<String> {
        self.paths.as_ref().map(Patterns::idle).unwrap_or_default()
    }

    /// The patterns of what is excluded that fitted nothing so far.
    pub(super) fn idle_excludes(&self) -> Vec<String> {
        self.excludes.as_ref().map(Patterns::idle).unwrap_or_default()
    }
}

/// The components that a pattern starts with, up to the first that is not plain.
fn plain_start(pattern: &str) -> Option<EntryPath> {
    let is_plain = |component: &&str| !component.contains(['*', '?', '[', ']', '{', '}', '\\']);
    let plain: Vec<&str> = pattern.split('/').take_while(is_plain).collect();
    EntryPath::new(plain.join("/").into_bytes()).ok()
}

/// A filter on its way through entries in path order. The content of a chosen folder is chosen.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    filter: Filter,
    within: Option<EntryPath>,
    excluded: Option<EntryPath>,
}

impl Selection {
    /// A selection before the first entry.
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, within: None, excluded: None }
    }

    /// True if the next entry is chosen.
    pub(super) fn wants(&mut self, path: &EntryPath) -> bool {
        // Asked first, whatever is around it: each pattern must be known to match something.
        let fits = self.filter.fits(path.as_bytes());
        let lies_in =
            |folder: &Option<EntryPath>| folder.as_ref().is_some_and(|folder| path.below(folder).is_some());
        if lies_in(&self.excluded) {
            return false;
        }
        let excludes = self.filter.excludes.as_ref();
        self.excluded = excludes.is_some_and(|excludes| excludes.fit(path.as_bytes())).then(|| path.clone());
        if self.excluded.is_some() {
            return false;
        }
        if !fits && lies_in(&self.within) {
            return true;
        }
        if self.filter.paths.is_some() && !lies_in(&self.within) {
            self.within = fits.then(|| path.clone());
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(patterns: &[&str]) -> Vec<&'static str> {
        let all = ["a", "a/b", "a/b/one.log", "a/b/two.db", "a/b.x", "a/c", "a/c/b", "a/c/b/deep", "a/x.log"];
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let filter = Filter::new(&patterns, &[]).unwrap();
        let mut selection = Selection::new(filter.clone());
        let path = |text: &str| EntryPath::new(text.as_bytes().to_vec()).unwrap();
        let wanted: Vec<_> = all.into_iter().filter(|text| selection.wants(&path(text))).collect();
        let covered: Vec<_> = all.into_iter().filter(|text| filter.covers(&path(text))).collect();
        assert_eq!(wanted, covered, "both ways to ask agree");
        wanted
    }

    #[test]
    fn a_star_stays_within_a_name() {
        assert_eq!(wanted(&["a/*.log"]), ["a/x.log"]);
        assert_eq!(wanted(&["/a/**/*.log"]), ["a/b/one.log", "a/x.log"]);
    }

    #[test]
    fn a_bare_name_is_found_in_every_folder() {
        assert_eq!(wanted(&["*.log"]), ["a/b/one.log", "a/x.log"]);
    }

    #[test]
    fn a_folder_takes_all_it_holds() {
        assert_eq!(wanted(&["a/b/"]), ["a/b", "a/b/one.log", "a/b/two.db"]);
        assert_eq!(wanted(&["b"]), ["a/b", "a/b/one.log", "a/b/two.db", "a/c/b", "a/c/b/deep"]);
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Filter::new(&["a[".to_owned()], &[]).unwrap_err();

        assert!(matches!(&error, ClientError::Usage(text) if text.contains("`a[`")), "{error}");
    }

    /// Names are bytes, and brackets stand for one.
    #[test]
    fn letters_of_several_bytes_are_refused_in_brackets() {
        let bad = "caf[é]".to_owned();
        for (paths, excludes) in [(vec![bad.clone()], vec![]), (vec![], vec![bad])] {
            let error = Filter::new(&paths, &excludes).unwrap_err();
            assert!(matches!(&error, ClientError::Usage(text) if text.contains("`caf[é]`")), "{error}");
        }
        assert!(Filter::new(&["caf{é,è}".to_owned()], &[]).unwrap().fits("caf\u{e9}".as_bytes()));
    }

    #[test]
    fn a_pattern_reaches_into_folders_that_it_could_match_in() {
        let reaches = |pattern: &str, folder: &str| {
            let filter = Filter::new(&[pattern.to_owned()], &[]).unwrap();
            filter.may_reach_into(&EntryPath::new(folder.as_bytes().to_vec()).unwrap())
        };

        for pattern in ["*.log", "name", "a/b/c", "a/b", "a", "/a/*", "a/**/x", "a/b/c?/d"] {
            assert!(reaches(pattern, "a/b"), "{pattern}");
        }
        for pattern in ["a/c", "a/bb", "/z/**", "b/{a,b}"] {
            assert!(!reaches(pattern, "a/b"), "{pattern}");
        }
    }

    fn strings(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_excluded_is_not_wanted_nor_anything_in_it() {
        let all = ["a", "a/b", "a/b/one.log", "a/b/two.db", "a/c", "a/c/b", "a/c/b/deep", "a/x.log"];
        let wanted = |paths: &[&str], excludes: &[&str]| {
            let filter = Filter::new(&strings(paths), &strings(excludes)).unwrap();
            let mut selection = Selection::new(filter.clone());
            let path = |text: &str| EntryPath::new(text.as_bytes().to_vec()).unwrap();
            let wanted: Vec<_> = all.into_iter().filter(|text| selection.wants(&path(text))).collect();
            let covered: Vec<_> = all.into_iter().filter(|text| filter.covers(&path(text))).collect();
            assert_eq!(wanted, covered, "both ways to ask agree");
            wanted
        };

        assert_eq!(wanted(&[], &["b"]), ["a", "a/c", "a/x.log"]);
        assert_eq!(wanted(&[], &["/a/c", "*.log"]), ["a", "a/b", "a/b/two.db"]);
        assert_eq!(wanted(&["/a/b"], &["*.db"]), ["a/b", "a/b/one.log"]);
        assert_eq!(wanted(&["*.log"], &["a"]), [""; 0]);
    }

    /// A pattern counts as fitting also where another has chosen the folder around it.
    #[test]
    fn patterns_that_fit_nothing_are_known() {
        let filter = Filter::new(&strings(&["/a", "one.log", "/b"]), &strings(&["*.db", "z"])).unwrap();
        let mut selection = Selection::new(filter.clone());

        for text in ["a", "a/b", "a/b/one.log", "a/b/two.db"] {
            selection.wants(&EntryPath::new(text.as_bytes().to_vec()).unwrap());
        }

        assert_eq!((filter.idle_paths(), filter.idle_excludes()), (strings(&["/b"]), strings(&["z"])));
    }
}
