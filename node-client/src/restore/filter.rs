//! Which entries are wanted: patterns over entry paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use format_spec::EntryPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::ClientError;

/// Patterns over whole entry paths. `*` and `?` stay within a name, `**` crosses folders. A pattern
/// without `/` is looked for in every folder; a leading `/` is the node's root.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    patterns: Option<GlobSet>,
    /// For each pattern the folder in which all lies that it fits; `None` for all of the node.
    within: Vec<Option<EntryPath>>,
}

impl Filter {
    /// The filter for these patterns; none of them means everything.
    ///
    /// # Errors
    /// [`ClientError::Usage`] naming the pattern.
    pub(super) fn new(patterns: &[String]) -> Result<Self, ClientError> {
        if patterns.is_empty() {
            return Ok(Self { patterns: None, within: Vec::new() });
        }
        let mut set = GlobSetBuilder::new();
        let mut within = Vec::new();
        for pattern in patterns {
            let whole = match pattern.strip_prefix('/') {
                Some(rest) => rest.trim_end_matches('/').to_owned(),
                None if pattern.trim_end_matches('/').contains('/') => {
                    pattern.trim_end_matches('/').to_owned()
                }
                None => format!("**/{}", pattern.trim_end_matches('/')),
            };
            within.push(plain_start(&whole));
            let glob = GlobBuilder::new(&whole).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| ClientError::Usage(format!("--path `{pattern}`: {error}")))?);
        }
        let set = set.build().map_err(|error| ClientError::Usage(format!("--path: {error}")))?;
        Ok(Self { patterns: Some(set), within })
    }

    /// Whether it lets everything through.
    pub(super) fn is_everything(&self) -> bool {
        self.patterns.is_none()
    }

    /// Whether a pattern fits `path` itself.
    fn fits(&self, path: &[u8]) -> bool {
        let Some(patterns) = &self.patterns else { return true };
        patterns.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// Whether a pattern fits `path` or a folder that it lies in.
    pub(super) fn covers(&self, path: &EntryPath) -> bool {
        let bytes = path.as_bytes();
        let folders = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        self.fits(bytes) || folders.into_iter().any(|(end, _)| self.fits(bytes.get(..end).unwrap_or(bytes)))
    }

    /// Whether something could be wanted that would lie in `folder`, if it were there.
    pub(super) fn may_reach_into(&self, folder: &EntryPath) -> bool {
        let meets = |within: &EntryPath| within.below(folder).is_some() || folder.below(within).is_some();
        self.is_everything() || self.within.iter().any(|within| within.as_ref().is_none_or(meets))
    }
}

/// The components that a pattern starts with, up to the first that is not plain.
fn plain_start(pattern: &str) -> Option<EntryPath> {
    let is_plain = |component: &&str| !component.contains(['*', '?', '[', ']', '{', '}', '\\']);
    let plain: Vec<&str> = pattern.split('/').take_while(is_plain).collect();
    EntryPath::new(plain.join("/").into_bytes()).ok()
}

/// A filter on its way through entries in path order. What lies in a wanted folder is wanted.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    filter: Filter,
    within: Option<EntryPath>,
}

impl Selection {
    /// A selection before the first entry.
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, within: None }
    }

    /// Whether the next entry is wanted.
    pub(super) fn wants(&mut self, path: &EntryPath) -> bool {
        if self.filter.is_everything() {
            return true;
        }
        if self.within.as_ref().is_some_and(|folder| path.below(folder).is_some()) {
            return true;
        }
        self.within = self.filter.fits(path.as_bytes()).then(|| path.clone());
        self.within.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(patterns: &[&str]) -> Vec<&'static str> {
        let all = ["a", "a/b", "a/b/one.log", "a/b/two.db", "a/b.x", "a/c", "a/c/b", "a/c/b/deep", "a/x.log"];
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let filter = Filter::new(&patterns).unwrap();
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
        let error = Filter::new(&["a[".to_owned()]).unwrap_err();

        assert!(matches!(&error, ClientError::Usage(text) if text.contains("`a[`")), "{error}");
    }

    #[test]
    fn a_pattern_reaches_into_folders_that_it_could_match_in() {
        let reaches = |pattern: &str, folder: &str| {
            let filter = Filter::new(&[pattern.to_owned()]).unwrap();
            filter.may_reach_into(&EntryPath::new(folder.as_bytes().to_vec()).unwrap())
        };

        for pattern in ["*.log", "name", "a/b/c", "a/b", "a", "/a/*", "a/**/x", "a/b/c?/d"] {
            assert!(reaches(pattern, "a/b"), "{pattern}");
        }
        for pattern in ["a/c", "a/bb", "/z/**", "b/{a,b}"] {
            assert!(!reaches(pattern, "a/b"), "{pattern}");
        }
    }
}
