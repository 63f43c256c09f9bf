//! Patterns that leave names out and bring names back: the last one that matches a name decides.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use format_spec::EntryPath;

use super::left_out::{Count, LeftOutBy};
use crate::error::ClientError;
use crate::globs::{Globs, Written};
use crate::push::class::sets::ClassSet;

/// Patterns in the order in which they count.
#[derive(Debug)]
pub(crate) struct Excludes {
    globs: Globs,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// Flag, or file and line.
    place: String,
    /// The pattern, without the `!` of one that brings back.
    glob: String,
    effect: Effect,
    author: Author,
    /// True if it has included a name that another pattern excludes.
    was_needed: AtomicBool,
    count: Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    LeaveOut,
    BringBack,
}

/// Author of a pattern: a user is told if it matched nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    User,
    ClassSet,
}

impl Excludes {
    /// The patterns of class sets, then those of files, then those of the command line, for a walk through `roots`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names a file that cannot be read, and a pattern that is none or could have no effect.
    pub(crate) fn new(
        sets: &[ClassSet],
        files: &[PathBuf],
        flags: &[String],
        roots: &[&Path],
    ) -> Result<Self, ClientError> {
        let mut rules = Vec::new();
        for glob in sets.iter().flat_map(|set| set.excludes()) {
            rules.push(Rule::new("--class-set", glob, Author::ClassSet)?);
        }
        for file in files {
            rules.extend(read(file)?);
        }
        for glob in flags {
            rules.push(Rule::new("--exclude", glob, Author::User)?);
        }
        let written: Vec<_> =
            rules.iter().map(|rule| Written { place: &rule.place, glob: &rule.glob }).collect();
        let excludes = Self { globs: Globs::of(&written)?, rules };
        excludes.rules.iter().try_for_each(|rule| excludes.check_reach(rule, roots))?;
        excludes.reset();
        Ok(excludes)
    }

    /// The pattern that leaves this name out, if one does.
    pub(crate) fn find(&self, path: &EntryPath) -> Option<&Count> {
        let last = self.decide(path)?;
        (last.effect == Effect::LeaveOut).then_some(&last.count)
    }

    /// The last pattern that matches.
    fn decide(&self, path: &EntryPath) -> Option<&Rule> {
        let matching = self.globs.all_matches(path).collect::<Vec<_>>();
        let (last, is_left_out) = (matching.iter().max()?, |nth: &usize| {
            self.rules.get(*nth).is_some_and(|rule| rule.effect == Effect::LeaveOut)
        });
        let rule = self.rules.get(*last)?;
        if rule.effect == Effect::BringBack && matching.iter().any(is_left_out) {
            rule.was_needed.store(true, Ordering::Relaxed);
        }
        Some(rule)
    }

    /// Refuses a pattern that includes names inside an excluded folder: such a folder is not entered.
    fn check_reach(&self, rule: &Rule, roots: &[&Path]) -> Result<(), ClientError> {
        if rule.effect == Effect::LeaveOut {
            return Ok(());
        }
        for folder in folders_of(&rule.glob, roots) {
            if let Some(by) = self.decide(&folder).filter(|by| by.effect == Effect::LeaveOut) {
                return Err(ClientError::Usage(format!(
                    "{} `!{}` has no effect: {} `{}` excludes the folder `/{folder}` as a whole, and an excluded folder is not entered; exclude `/{folder}/*` instead",
                    rule.place, rule.glob, by.place, by.glob
                )));
            }
        }
        Ok(())
    }

    /// Forgets what was matched and counted.
    pub(crate) fn reset(&self) {
        self.globs.reset();
        for rule in &self.rules {
            rule.was_needed.store(false, Ordering::Relaxed);
            rule.count.reset();
        }
    }

    /// The user's patterns that had no effect: each behind its flag, or its file and line.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = String> {
        let of_user = self.rules.iter().enumerate().filter(|(_, rule)| rule.author == Author::User);
        let idle = of_user.filter(|(nth, rule)| match rule.effect {
            Effect::LeaveOut => !self.globs.has_matched(*nth),
            Effect::BringBack => !rule.was_needed.load(Ordering::Relaxed),
        });
        idle.map(|(_, rule)| rule.shown())
    }

    /// Exclusions of each pattern.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = LeftOutBy> {
        self.rules.iter().filter_map(|rule| rule.count.get(rule.shown()))
    }

    /// True if a pattern includes names from folders that it does not write out; some of these folders may be
    /// excluded.
    pub(crate) fn bring_back_anywhere(&self) -> bool {
        let mut back = self.rules.iter().filter(|rule| rule.effect == Effect::BringBack);
        back.any(|rule| matches!(written_out(&rule.glob), WrittenOut::InPart(_)))
    }
}

impl Rule {
    fn new(place: &str, pattern: &str, author: Author) -> Result<Self, ClientError> {
        let (effect, glob) = match pattern.strip_prefix('!') {
            Some(glob) => (Effect::BringBack, glob),
            None => (Effect::LeaveOut, pattern),
        };
        if glob.is_empty() {
            return Err(ClientError::Usage(format!("{place} `{pattern}` can match nothing: it is empty")));
        }
        let (place, glob) = (place.to_owned(), glob.to_owned());
        Ok(Self { place, glob, effect, author, was_needed: AtomicBool::new(false), count: Count::default() })
    }

    fn shown(&self) -> String {
        let not = if self.effect == Effect::BringBack { "!" } else { "" };
        format!("{} {not}{}", self.place, self.glob)
    }
}

/// Extent to which a pattern writes out the folder of its names.
#[derive(Debug, PartialEq, Eq)]
enum WrittenOut {
    Whole(PathBuf),
    InPart(PathBuf),
}

fn written_out(glob: &str) -> WrittenOut {
    let is_plain = |name: &&&str| !name.contains(['*', '?', '[', '{', '\\']);
    let Some(path) = glob.trim_end_matches('/').strip_prefix('/') else {
        return WrittenOut::InPart(PathBuf::from("/"));
    };
    let names: Vec<&str> = path.split('/').collect();
    let (_, folders) = names.split_last().unwrap_or((&"", &[]));
    let plain: PathBuf = std::iter::once(&"/").chain(folders.iter().take_while(is_plain)).collect();
    if folders.iter().all(|name| is_plain(&name)) {
        WrittenOut::Whole(plain)
    } else {
        WrittenOut::InPart(plain)
    }
}

/// The folders below roots that contain a pattern's names, as far as they are written out, the outermost
/// first; without links on the way to them.
fn folders_of(glob: &str, roots: &[&Path]) -> Vec<EntryPath> {
    let (WrittenOut::Whole(folder) | WrittenOut::InPart(folder)) = written_out(glob);
    let real = folder.canonicalize().unwrap_or(folder);
    let is_walked = |folder: &&Path| roots.iter().any(|root| folder.starts_with(root) && folder != root);
    let mut folders: Vec<_> = real.ancestors().filter(is_walked).filter_map(entry_path).collect();
    folders.reverse();
    folders
}

/// The path of a push for the file at this absolute path; `None` for `/`.
fn entry_path(path: &Path) -> Option<EntryPath> {
    EntryPath::new(path.as_os_str().as_bytes().strip_prefix(b"/")?.to_vec()).ok()
}

/// The patterns in a file, one on each line.
fn read(file: &Path) -> Result<Vec<Rule>, ClientError> {
    let shown = file.display();
    let text = fs::read(file)
        .map_err(|error| ClientError::Usage(format!("--exclude-file `{shown}` cannot be read: {error}")))?;
    let mut rules = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let place = format!("{shown}:{number}");
        let line = str::from_utf8(line)
            .map_err(|_| ClientError::Usage(format!("{place}: the line is not valid UTF-8")))?;
        let pattern = without_end(line);
        if !pattern.is_empty() && !pattern.starts_with('#') {
            rules.push(Rule::new(&place, pattern, Author::User)?);
        }
    }
    Ok(rules)
}

/// A line without white space at its end, unless that stands behind a backslash.
fn without_end(line: &str) -> &str {
    let cut = line.trim_end();
    match line.get(cut.len()..).and_then(|end| end.chars().next()) {
        Some(first) if is_escaping(cut) => line.get(..cut.len() + first.len_utf8()).unwrap_or(cut),
        _ => cut,
    }
}

/// True if a text ends with a backslash that escapes the character behind it.
fn is_escaping(text: &str) -> bool {
    let before = text.trim_end_matches('\\');
    (text.len() - before.len()) % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str]) -> Result<Excludes, ClientError> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Excludes::new(&[], &[], &patterns, &[Path::new("/d")])
    }

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let excludes = excludes(&["*.log", "!audit.log", "/a/audit.log", "!keep.log"]).unwrap();
        let is_out = |text: &str| excludes.find(&path(text)).is_some();

        assert!(is_out("b/x.log") && is_out("a/audit.log"));
        assert!(!is_out("b/audit.log") && !is_out("b/x.db"));
        assert_eq!(excludes.unmatched().collect::<Vec<_>>(), ["--exclude !keep.log"]);
    }

    /// It names both patterns and the way out: silence would leave out what somebody asked for.
    #[test]
    fn a_pattern_that_brings_back_what_lies_in_a_folder_that_is_left_out_is_refused() {
        for patterns in [
            &["/d/cache", "!/d/cache/keep"][..],
            &["cache", "!/d/cache/keep/*"],
            &["!/d/cache/keep", "/d/*"],
            &["!/d/cache/", "/d/a", "/d/*", "!/d/a/keep"],
        ] {
            let error = excludes(patterns).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("is not entered"), "{error}");
        }
        for patterns in [
            &["/d/cache/*", "!/d/cache/keep"][..],
            &["cache", "!/d/cache", "!/d/cache/keep"],
            // A root is entered whatever its name, and so are the folders above it.
            &["d", "!/d/a", "/e", "!/e/b"],
        ] {
            assert!(excludes(patterns).is_ok(), "{patterns:?}");
        }
    }

    #[test]
    fn a_pattern_that_only_brings_back_is_not_taken_for_one_that_had_an_effect() {
        let excludes = excludes(&["!*.log", "*.tmp"]).unwrap();

        excludes.find(&path("a/x.log"));

        assert_eq!(excludes.unmatched().collect::<Vec<_>>(), ["--exclude !*.log", "--exclude *.tmp"]);
        assert!(Excludes::new(&[], &[], &["!".to_owned()], &[]).is_err());
    }

    #[test]
    fn a_file_holds_a_pattern_on_each_line_and_the_command_line_comes_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("not");
        let text = "# temporary\n\n*.tmp  \t\r\n\\#x\n\\!y\nend\\ \n  a\n*.bak\n";
        fs::write(&file, text).unwrap();

        let excludes = Excludes::new(&[], std::slice::from_ref(&file), &["!b.bak".to_owned()], &[]).unwrap();
        let is_out = |text: &str| excludes.find(&path(text)).is_some();

        for out in ["q/z.tmp", "#x", "!y", "end ", "  a", "a.bak"] {
            assert!(is_out(out), "{out:?}");
        }
        for taken in ["b.bak", "# temporary", "end", "a", "x", "y"] {
            assert!(!is_out(taken), "{taken:?}");
        }
        excludes.reset();
        let idle: Vec<_> = excludes.unmatched().collect();
        assert_eq!(idle.first(), Some(&format!("{}:3 *.tmp", file.display())));
        assert_eq!(idle.len(), 7);
    }

    #[test]
    fn a_bad_line_is_named_with_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("not");
        let read = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            Excludes::new(&[], std::slice::from_ref(&file), &[], &[]).unwrap_err()
        };
        for (text, line) in
            [(&b"a\n#\nsrc/cache\n"[..], 3), (b"a[", 1), (b"\xff", 1), (b"ok\n!", 2), (b"x[\xc3\xa9]", 1)]
        {
            let error = read(text);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(&format!("{}:{line}", file.display())), "{error}");
        }
        let gone = Excludes::new(&[], &[temp.path().join("gone")], &[], &[]).unwrap_err();
        assert!(gone.exit_code() == 2 && gone.to_string().contains("gone"), "{gone}");
    }

    #[test]
    fn what_each_pattern_left_out_is_counted() {
        let excludes = excludes(&["*.tmp", "*.bak"]).unwrap();
        for text in ["a.tmp", "b.tmp"] {
            excludes.find(&path(text)).unwrap().file(5);
        }

        let counts: Vec<_> = excludes.left_out().map(|by| (by.by, by.entries, by.bytes)).collect();

        assert_eq!(counts, [("--exclude *.tmp".to_owned(), 2, 10)]);
    }
}
