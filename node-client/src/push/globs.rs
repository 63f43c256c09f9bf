//! Patterns of names and paths, as users write them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::EntryPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::ClientError;

/// A set of patterns. It matches what any of them matches, and knows which of them never did.
#[derive(Debug)]
pub(crate) struct Globs {
    /// Patterns without a slash: they match a name in any folder.
    names: Set,
    /// Patterns with a slash: they match the absolute path; `**` crosses folders.
    paths: Set,
}

#[derive(Debug)]
struct Set {
    globs: GlobSet,
    /// Each pattern as it was written, and whether it has matched anything.
    written: Vec<(String, AtomicBool)>,
}

impl Set {
    fn is_match(&self, path: &Path) -> bool {
        // Most paths match nothing, and that is told at once.
        if self.written.is_empty() || !self.globs.is_match(path) {
            return false;
        }
        for nth in self.globs.matches(path) {
            if let Some((_, has_matched)) = self.written.get(nth) {
                has_matched.store(true, Ordering::Relaxed);
            }
        }
        true
    }
}

impl Globs {
    /// The patterns that were given with `flag`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names the one that is none, or that could match nothing.
    pub(crate) fn new<S: AsRef<str>>(flag: &str, patterns: &[S]) -> Result<Self, ClientError> {
        let all = patterns.iter().map(|pattern| pattern.as_ref());
        let is_path =
            |pattern: &&str| pattern.trim_end_matches('/').contains('/') || pattern.starts_with('/');
        let (paths, names) = all.partition::<Vec<&str>, _>(is_path);
        Ok(Self { names: set(flag, &names)?, paths: set(flag, &paths)? })
    }

    /// The patterns that have matched nothing, as they were written.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = &str> {
        let all = self.names.written.iter().chain(&self.paths.written);
        all.filter(|(_, has_matched)| !has_matched.load(Ordering::Relaxed)).map(|(written, _)| &**written)
    }

    /// Whether any pattern matches.
    pub(crate) fn matches(&self, path: &EntryPath) -> bool {
        let by_name = || path.components().last().is_some_and(|name| self.names.is_match(as_path(name)));
        let by_path = || self.paths.is_match(as_path(&[b"/", path.as_bytes()].concat()));
        (!self.names.written.is_empty() && by_name()) || (!self.paths.written.is_empty() && by_path())
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn set(flag: &str, patterns: &[&str]) -> Result<Set, ClientError> {
    let refused = |error: globset::Error| ClientError::Usage(format!("{flag}: {error}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let resolved = resolved(flag, pattern.trim_end_matches('/'))?;
        set.add(GlobBuilder::new(&resolved).literal_separator(true).build().map_err(refused)?);
    }
    let written = patterns.iter().map(|pattern| ((*pattern).to_owned(), AtomicBool::new(false))).collect();
    Ok(Set { globs: set.build().map_err(refused)?, written })
}

/// A pattern by the paths under which a push knows files: without symbolic links on the way to them, as far as they are
/// written out.
fn resolved(flag: &str, pattern: &str) -> Result<String, ClientError> {
    if pattern.starts_with("**") || !pattern.contains('/') {
        return Ok(pattern.to_owned());
    }
    if !pattern.starts_with('/') {
        return Err(ClientError::Usage(format!(
            "{flag} `{pattern}` can match nothing: a pattern with a slash begins with `/`, or with `**/` for any folder"
        )));
    }
    let names: Vec<&str> = pattern.split('/').skip(1).collect();
    let is_plain = |name: &&&str| !name.contains(['*', '?', '[', '{', '\\']);
    let plain = names.iter().take_while(is_plain).count();
    // The last name may be that of a link itself.
    let folders = plain.min(names.len().saturating_sub(1));
    let (on_the_way, rest) = names.split_at(folders);
    let folder = std::path::absolute(format!("/{}", on_the_way.join("/"))).ok();
    let real = folder.and_then(|folder| folder.canonicalize().ok());
    let real = real.as_deref().and_then(Path::to_str).map(|real| globset::escape(real.trim_end_matches('/')));
    Ok(real.map_or_else(|| pattern.to_owned(), |real| format!("{real}/{}", rest.join("/"))))
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

    /// What can match nothing would be silently without effect.
    #[test]
    fn a_pattern_that_could_match_nothing_is_refused() {
        for pattern in ["src/cache", "./cache", "uni/*", "a/**"] {
            let error = Globs::new("--exclude", &[pattern]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("**/"), "{error}");
        }
        let globs = Globs::new("--exclude", &["cache/", "**/a/b", "/"]).unwrap();
        let hit = |path: &str| globs.matches(&EntryPath::new(path.as_bytes().to_vec()).unwrap());
        assert!(hit("x/cache") && hit("x/a/b") && !hit("x/b"));
    }

    /// Files are known by their real paths, whatever links the user went through.
    #[test]
    fn a_path_through_a_link_is_that_of_the_files() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("re[a]l/cache")).unwrap();
        std::os::unix::fs::symlink("re[a]l", top.join("link")).unwrap();
        let through = |rest: &str| format!("{}/{rest}", top.display());
        let globs =
            Globs::new("--exclude", &[through("link/cache"), through("link/*.db"), through("link")]).unwrap();
        let hit =
            |path: &str| globs.matches(&EntryPath::new(through(path).into_bytes()[1..].to_vec()).unwrap());

        assert!(hit("re[a]l/cache") && hit("re[a]l/x.db"));
        assert!(hit("link") && !hit("re[a]l"), "a link that is named is meant itself");
    }

    #[test]
    fn patterns_that_matched_nothing_are_known() {
        let globs = Globs::new("--exclude", &["*.tmp", "*.bak", "/data/x", "/data/y/"]).unwrap();
        for path in ["a.tmp", "data/x", "data/z"] {
            globs.matches(&EntryPath::new(path.as_bytes().to_vec()).unwrap());
        }
        assert_eq!(globs.unmatched().collect::<Vec<_>>(), ["*.bak", "/data/y/"]);
    }
}
