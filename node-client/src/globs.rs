//! Patterns of names and paths, as users write them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::EntryPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::ClientError;

/// A list of patterns. It matches what any of them matches, and knows which of them never did.
#[derive(Debug)]
pub(crate) struct Globs {
    /// Patterns without a slash: they match a name in any folder.
    names: Set,
    /// Patterns with a slash: they match the absolute path; `**` crosses folders.
    paths: Set,
    /// Each pattern as it was written, and whether it has matched anything.
    written: Vec<(String, AtomicBool)>,
}

#[derive(Debug)]
struct Set {
    globs: GlobSet,
    /// The place of each of them in the whole list.
    places: Vec<usize>,
}

impl Set {
    fn matches(&self, path: &Path) -> Vec<usize> {
        // Most paths match nothing, and that is decided at once.
        if self.places.is_empty() || !self.globs.is_match(path) {
            return Vec::new();
        }
        let matches = self.globs.matches(path);
        matches.into_iter().filter_map(|nth| self.places.get(nth).copied()).collect()
    }
}

/// A pattern, and where somebody wrote it: a flag, or a line of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) place: &'a str,
    pub(crate) glob: &'a str,
}

impl Globs {
    /// The patterns that were given with `flag`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names the one that is none, or that could match nothing.
    pub(crate) fn new<S: AsRef<str>>(flag: &str, patterns: &[S]) -> Result<Self, ClientError> {
        let written = patterns.iter().map(|pattern| Written { place: flag, glob: pattern.as_ref() });
        Self::of(&written.collect::<Vec<_>>())
    }

    /// These patterns, in this order.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    pub(crate) fn of(patterns: &[Written<'_>]) -> Result<Self, ClientError> {
        let is_path = |glob: &str| glob.trim_end_matches('/').contains('/') || glob.starts_with('/');
        let (paths, names) = (0..).zip(patterns).partition::<Vec<_>, _>(|(_, pattern)| is_path(pattern.glob));
        let written = patterns.iter().map(|pattern| (pattern.glob.to_owned(), AtomicBool::new(false)));
        Ok(Self { names: set(&names)?, paths: set(&paths)?, written: written.collect() })
    }

    /// The patterns that have matched nothing, as they were written.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = &str> {
        let all = self.written.iter();
        all.filter(|(_, has_matched)| !has_matched.load(Ordering::Relaxed)).map(|(written, _)| &**written)
    }

    /// True if the pattern in this place of the list has matched anything.
    pub(crate) fn has_matched(&self, nth: usize) -> bool {
        self.written.get(nth).is_some_and(|(_, has_matched)| has_matched.load(Ordering::Relaxed))
    }

    /// Forgets which patterns have matched anything.
    pub(crate) fn reset(&self) {
        self.written.iter().for_each(|(_, has_matched)| has_matched.store(false, Ordering::Relaxed));
    }

    /// True if any pattern matches.
    pub(crate) fn matches(&self, path: &EntryPath) -> bool {
        self.all_matches(path).next().is_some()
    }

    /// The places in the list of all patterns that match, in no order.
    pub(crate) fn all_matches(&self, path: &EntryPath) -> impl Iterator<Item = usize> {
        let name = path.components().last().filter(|_| !self.names.places.is_empty());
        let by_name = name.map(|name| self.names.matches(as_path(name))).unwrap_or_default();
        let by_path = if self.paths.places.is_empty() {
            Vec::new()
        } else {
            self.paths.matches(as_path(&[b"/", path.as_bytes()].concat()))
        };
        for nth in by_name.iter().chain(&by_path) {
            if let Some((_, has_matched)) = self.written.get(*nth) {
                has_matched.store(true, Ordering::Relaxed);
            }
        }
        by_name.into_iter().chain(by_path)
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn set(patterns: &[(usize, &Written<'_>)]) -> Result<Set, ClientError> {
    let mut set = GlobSetBuilder::new();
    for (_, Written { place, glob }) in patterns {
        check_letters(place, glob)?;
        let resolved = resolved(place, glob.trim_end_matches('/'))?;
        let built = GlobBuilder::new(&resolved).literal_separator(true).build();
        set.add(built.map_err(|error| ClientError::Usage(format!("{place}: {error}")))?);
    }
    let globs = set.build().map_err(|error| ClientError::Usage(format!("patterns: {error}")))?;
    Ok(Set { globs, places: patterns.iter().map(|(place, _)| *place).collect() })
}

/// Refuses letters in brackets that take several bytes: brackets and `?` stand for one byte of a name.
///
/// # Errors
/// [`ClientError::Usage`] names the pattern, and how to write it.
pub(crate) fn check_letters(place: &str, pattern: &str) -> Result<(), ClientError> {
    let (mut is_within, mut is_escaped) = (false, false);
    for letter in pattern.chars() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if !is_within => is_escaped = true,
            '[' => is_within = true,
            ']' => is_within = false,
            letter if is_within && !letter.is_ascii() => {
                return Err(ClientError::Usage(format!(
                    "{place} `{pattern}`: `{letter}` has several bytes, and brackets match a single byte: list such letters in braces, as in `{{é,è}}`"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A pattern by the paths under which a push knows files: without symbolic links on the way to them, as far as they are
/// written out.
fn resolved(place: &str, pattern: &str) -> Result<String, ClientError> {
    if pattern.starts_with("**") || !pattern.contains('/') {
        return Ok(pattern.to_owned());
    }
    if !pattern.starts_with('/') {
        return Err(ClientError::Usage(format!(
            "{place} `{pattern}` can match nothing: a pattern with a slash begins with `/`, or with `**/` for any folder"
        )));
    }
    Ok(without_links(pattern).unwrap_or_else(|| pattern.to_owned()))
}

/// An absolute pattern without the symbolic links of this machine on the way to its files, as far as they are written
/// out; `None` if its folder is not there.
pub(crate) fn without_links(pattern: &str) -> Option<String> {
    let names: Vec<&str> = pattern.split('/').skip(1).collect();
    let is_plain = |name: &&&str| !name.contains(['*', '?', '[', '{', '\\']);
    let plain = names.iter().take_while(is_plain).count();
    // The last name may be that of a link itself.
    let folders = plain.min(names.len().saturating_sub(1));
    let (on_the_way, rest) = names.split_at(folders);
    let folder = std::path::absolute(format!("/{}", on_the_way.join("/"))).ok();
    let real = folder.and_then(|folder| folder.canonicalize().ok());
    let real = real.as_deref().and_then(Path::to_str).map(|real| globset::escape(real.trim_end_matches('/')));
    real.map(|real| format!("{real}/{}", rest.join("/")))
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

    /// A pattern that can match nothing would silently have no effect.
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

    /// Names are bytes: a letter of several is not one of the brackets, and is as many `?` as it has bytes.
    #[test]
    fn letters_of_several_bytes_are_refused_in_brackets_and_take_a_question_mark_for_each_byte() {
        for pattern in ["caf[é]", "[a-ü]x", "x[!é]", "/a/**/[ñ]"] {
            let error = Globs::new("--exclude", &[pattern]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(pattern) && error.to_string().contains('{'), "{error}");
        }
        let globs = Globs::new("--exclude", &["caf??", "th{é,è}", "[ab]c", "é\\[ü]"]).unwrap();
        let hit = |path: &str| globs.matches(&EntryPath::new(path.as_bytes().to_vec()).unwrap());
        assert!(hit("café") && hit("thé") && hit("thè") && hit("bc") && hit("é[ü]"));
        assert!(!hit("caf") && !hit("thê"));
        let one = Globs::new("--exclude", &["caf?"]).unwrap();
        assert!(!one.matches(&EntryPath::new("café".into()).unwrap()));
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
