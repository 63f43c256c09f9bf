//! Patterns of names and paths, as users write them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use format_spec::EntryPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::ClientError;

/// A set of patterns. It matches what any of them matches.
#[derive(Debug)]
pub(crate) struct Globs {
    /// Patterns without a slash: they match a name in any folder.
    names: GlobSet,
    /// Patterns with a slash: they match the absolute path; `**` crosses folders.
    paths: GlobSet,
}

impl Globs {
    /// The patterns that were given with `flag`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names the one that is none.
    pub(crate) fn new<S: AsRef<str>>(flag: &str, patterns: &[S]) -> Result<Self, ClientError> {
        let all = patterns.iter().map(AsRef::as_ref);
        let (paths, names) = all.partition::<Vec<&str>, _>(|pattern| pattern.contains('/'));
        Ok(Self { names: set(flag, &names)?, paths: set(flag, &paths)? })
    }

    /// Whether any pattern matches.
    pub(crate) fn matches(&self, path: &EntryPath) -> bool {
        let by_name = || path.components().last().is_some_and(|name| self.names.is_match(as_path(name)));
        let by_path = || self.paths.is_match(as_path(&[b"/", path.as_bytes()].concat()));
        (!self.names.is_empty() && by_name()) || (!self.paths.is_empty() && by_path())
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn set(flag: &str, patterns: &[&str]) -> Result<GlobSet, ClientError> {
    let refused = |error: globset::Error| ClientError::Usage(format!("{flag}: {error}"));
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
        let globs = Globs::new("--exclude", &["*.tmp", "/data/cache/", "/data/**/old"]).unwrap();
        let hit = |path: &str| globs.matches(&EntryPath::new(path.as_bytes().to_vec()).unwrap());

        assert!(hit("a/b/c.tmp") && hit("c.tmp") && hit("data/cache") && hit("data/x/y/old"));
        assert!(!hit("data/cached") && !hit("x/data/cache") && !hit("data/x/older") && !hit("tmp"));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_by_name() {
        let error = Globs::new("--exclude", &["a["]).unwrap_err();

        assert!(error.to_string().contains("--exclude") && error.to_string().contains("a["), "{error}");
    }
}
