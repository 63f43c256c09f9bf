//! What the user does not want in a snapshot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use format_spec::EntryPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::ClientError;

/// Patterns of names and paths to pass over. A folder that matches is not entered.
#[derive(Debug)]
pub(crate) struct Excludes {
    /// Patterns without a slash: they match a name in any folder.
    names: GlobSet,
    /// Patterns with a slash: they match the absolute path; `**` crosses folders.
    paths: GlobSet,
}

impl Excludes {
    pub(crate) fn new(patterns: &[String]) -> Result<Self, ClientError> {
        let (paths, names) = patterns.iter().partition::<Vec<_>, _>(|pattern| pattern.contains('/'));
        Ok(Self { names: set(&names)?, paths: set(&paths)? })
    }

    pub(crate) fn matches(&self, path: &EntryPath) -> bool {
        let by_name = || path.components().last().is_some_and(|name| self.names.is_match(as_path(name)));
        let by_path = || self.paths.is_match(as_path(&[b"/", path.as_bytes()].concat()));
        (!self.names.is_empty() && by_name()) || (!self.paths.is_empty() && by_path())
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn set(patterns: &[&String]) -> Result<GlobSet, ClientError> {
    let refused = |error: globset::Error| ClientError::Usage(format!("--exclude: {error}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern.trim_end_matches('/')).literal_separator(true).build();
        set.add(glob.map_err(refused)?);
    }
    set.build().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_anywhere_and_paths_from_the_root() {
        let patterns = ["*.tmp", "/data/cache/", "/data/**/old"].map(str::to_owned);
        let excludes = Excludes::new(&patterns).unwrap();
        let hit = |path: &str| excludes.matches(&EntryPath::new(path.as_bytes().to_vec()).unwrap());

        assert!(hit("a/b/c.tmp") && hit("c.tmp") && hit("data/cache") && hit("data/x/y/old"));
        assert!(!hit("data/cached") && !hit("x/data/cache") && !hit("data/x/older") && !hit("tmp"));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_by_name() {
        let error = Excludes::new(&["a[".to_owned()]).unwrap_err();

        assert!(error.to_string().contains("a["), "{error}");
    }
}
