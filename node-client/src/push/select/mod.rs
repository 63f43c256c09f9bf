//! Which names below the roots a push takes: those that lists name, but for what patterns, markers and sizes leave out.

mod excludes;
pub(crate) mod left_out;
pub(crate) mod listed;
pub(crate) mod roots;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use format_spec::EntryPath;
use rustix::fs::{Mode, OFlags};

use super::class::sets::ClassSet;
use super::names::Names;
use super::stat::Stat;
use crate::error::ClientError;
use crate::size::Size;
use excludes::Excludes;
use left_out::{Count, LeftOutBy};
use listed::{Listed, PathList, Reach};
use roots::{Mounts, Root};

/// Which names a push takes.
#[derive(Debug, Clone, Default)]
pub struct SelectOptions {
    /// Patterns to pass over: without a slash they match names, with one absolute paths. `!` before one brings back what
    /// those before it pass over.
    pub excludes: Vec<String>,
    /// Files that hold such patterns, which come before those.
    pub exclude_files: Vec<PathBuf>,
    /// A folder that holds one of these names keeps that name, and nothing else.
    pub if_present: Vec<String>,
    /// Handling of folders that are marked as caches.
    pub caches: Caches,
    /// Longer files are skipped.
    pub larger_than: Option<Size>,
    /// Lists of paths: all other files are skipped.
    pub lists: Vec<PathList>,
}

/// Handling of a folder with a file `CACHEDIR.TAG` (<https://bford.info/cachedir/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Caches {
    /// It is pushed like any other.
    #[default]
    Take,
    /// Only the folder itself and its tag are.
    LeaveOut,
}

/// The name of the tag of a cache.
const TAG: &str = "CACHEDIR.TAG";
/// Its first bytes.
const SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Why a name is not taken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal<'a> {
    /// There are lists, and none names it.
    NotListed,
    /// An option leaves it out.
    LeftOut(&'a Count),
}

/// The marker of a folder, by its place among those of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked(usize);

/// The options of a push, checked.
#[derive(Debug)]
pub(crate) struct Selection {
    excludes: Excludes,
    listed: Option<Listed>,
    markers: Vec<Marker>,
    larger_than: Option<(Size, Count)>,
}

#[derive(Debug)]
struct Marker {
    name: String,
    kind: MarkerKind,
    count: Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkerKind {
    /// Anything of that name.
    Name,
    /// A file of that name with the signature of a cache.
    CacheTag,
}

impl Selection {
    /// # Errors
    /// [`ClientError::Usage`] names the pattern, file, list or path that cannot be used.
    pub(crate) fn new(
        options: &SelectOptions,
        sets: &[ClassSet],
        roots: &[Root],
    ) -> Result<Self, ClientError> {
        let names = options.if_present.iter().map(|name| Marker::named(name));
        let tag = (options.caches == Caches::LeaveOut).then(|| Marker::new(TAG, MarkerKind::CacheTag));
        let folders: Vec<_> = roots.iter().map(|root| root.place.as_path()).collect();
        Ok(Self {
            excludes: Excludes::new(sets, &options.exclude_files, &options.excludes, &folders)?,
            listed: Listed::read(&options.lists, roots)?,
            markers: names.chain(tag.map(Ok)).collect::<Result<_, _>>()?,
            larger_than: options.larger_than.map(|size| (size, Count::default())),
        })
    }

    /// Decides by name if a name in a folder is pushed.
    pub(crate) fn name(&self, path: &EntryPath, folder: Option<Marked>) -> Result<(), Refusal<'_>> {
        if self.listed.as_ref().is_some_and(|listed| listed.reach(path) == Reach::Elsewhere) {
            return Err(Refusal::NotListed);
        }
        if let Some(by) = self.excludes.find(path) {
            return Err(Refusal::LeftOut(by));
        }
        let marker = folder.and_then(|Marked(nth)| self.markers.get(nth));
        let Some(marker) = marker else { return Ok(()) };
        let name = path.components().last().unwrap_or_default();
        let is_marker = self.markers.iter().any(|marker| marker.name.as_bytes() == name);
        if is_marker { Ok(()) } else { Err(Refusal::LeftOut(&marker.count)) }
    }

    /// Decides by length if a regular file is pushed.
    pub(crate) fn file(&self, path: &EntryPath, stat: &Stat) -> Result<(), Refusal<'_>> {
        if self.listed.as_ref().is_some_and(|listed| listed.reach(path) == Reach::OnTheWay) {
            return Err(Refusal::NotListed);
        }
        match &self.larger_than {
            Some((most, count)) if stat.identity.size > most.bytes() => Err(Refusal::LeftOut(count)),
            _ => Ok(()),
        }
    }

    /// The marker among the names of an open folder.
    pub(crate) fn marker(&self, folder: &OwnedFd, names: &Names) -> Option<Marked> {
        let is_there = |marker: &Marker| match marker.kind {
            _ if !names.contains(marker.name.as_bytes()) => false,
            MarkerKind::Name => true,
            MarkerKind::CacheTag => is_cache(folder),
        };
        self.markers.iter().position(is_there).map(Marked)
    }

    /// The walk came to this path.
    pub(crate) fn saw(&self, path: &EntryPath) {
        if let Some(listed) = &self.listed {
            listed.saw(path);
        }
    }

    /// The paths of lists that the walk did not come to.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = &EntryPath> {
        self.listed.iter().flat_map(Listed::unseen)
    }

    /// Before another walk: forgets what the last one came to.
    pub(crate) fn reset(&self) {
        self.excludes.reset();
        self.listed.iter().for_each(Listed::reset);
        self.markers.iter().for_each(|marker| marker.count.reset());
        self.larger_than.iter().for_each(|(_, count)| count.reset());
    }

    /// The user's patterns and markers that had no effect, each behind its flag, or its file and line.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = String> {
        let named = self.markers.iter().filter(|marker| marker.kind == MarkerKind::Name);
        let idle = named.filter(|marker| marker.count.get(String::new()).is_none());
        self.excludes.unmatched().chain(idle.map(Marker::shown))
    }

    /// Exclusions of each option.
    pub(crate) fn left_out(&self) -> Vec<LeftOutBy> {
        let markers = self.markers.iter().filter_map(|marker| marker.count.get(marker.shown()));
        let size = self
            .larger_than
            .iter()
            .filter_map(|(most, count)| count.get(format!("--exclude-larger-than {most}")));
        self.excludes.left_out().chain(markers).chain(size).collect()
    }

    /// Warnings about patterns that have less effect than they seem to have.
    pub(crate) fn warnings(&self) -> Option<String> {
        let folders: u64 = self.excludes.left_out().map(|by| by.folders).sum();
        (folders > 0 && self.excludes.bring_back_anywhere()).then(|| {
            format!(
                "patterns excluded {folders} folders as a whole: a pattern with `!` includes nothing inside them"
            )
        })
    }
}

impl Marker {
    fn new(name: &str, kind: MarkerKind) -> Self {
        Self { name: name.to_owned(), kind, count: Count::default() }
    }

    fn named(name: &str) -> Result<Self, ClientError> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(ClientError::Usage(format!(
                "--exclude-if-present `{name}` can match nothing: it takes the name of a file, without folders"
            )));
        }
        Ok(Self::new(name, MarkerKind::Name))
    }

    fn shown(&self) -> String {
        match self.kind {
            MarkerKind::Name => format!("--exclude-if-present {}", self.name),
            MarkerKind::CacheTag => "--exclude-caches".to_owned(),
        }
    }
}

/// True if the tag in this folder is that of a cache.
fn is_cache(folder: &OwnedFd) -> bool {
    // Non-blocking, because a pipe may have that name.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(tag) = rustix::fs::openat(folder, TAG, flags, Mode::empty()) else { return false };
    let mut found = [0; SIGNATURE.len()];
    let is_file = Stat::of_file(&tag).is_ok_and(|stat| stat.kind() == rustix::fs::FileType::RegularFile);
    is_file && File::from(tag).read_exact(&mut found).is_ok() && found == *SIGNATURE
}

/// Excludes nothing but these patterns. Checks that a path inside a root, named beside it, is pushed with it.
///
/// # Errors
/// [`ClientError::Usage`] for one that the options exclude, or that may be on a file system which is not
/// entered.
pub(crate) fn check_covered(
    roots: &[Root],
    selection: &Selection,
    mounts: Mounts,
) -> Result<(), ClientError> {
    for (outer, inner) in
        roots.iter().flat_map(|root| root.covers.iter().map(move |inner| (&root.path, inner)))
    {
        let mut on_the_way = Some(inner.clone());
        while let Some(path) = on_the_way.filter(|path| path != outer) {
            if matches!(selection.name(&path, None), Err(Refusal::LeftOut(_))) {
                return Err(ClientError::Usage(format!(
                    "an exclude matches `/{inner}`, a folder to push that is inside `/{outer}`"
                )));
            }
            on_the_way = path.split_last().map(|(folder, _)| folder);
        }
        if mounts == Mounts::Skip && inner != outer {
            return Err(ClientError::Usage(format!(
                "`/{inner}` is inside `/{outer}`, and --one-file-system may skip it: push it separately"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn of_patterns(patterns: &[&str]) -> Selection {
    let excludes = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Selection::new(&SelectOptions { excludes, ..SelectOptions::default() }, &[], &[]).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S11: however often a folder is named, and whatever in it, it is the same series.
    #[test]
    fn what_lies_in_another_root_is_a_part_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        let at = |name: &str| top.join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at("a-b")).unwrap();
        std::fs::write(at("a/file"), "").unwrap();
        let globs = |patterns: &[&str]| of_patterns(patterns);

        let roots = roots::check(&[at("a/b"), at("a/file"), at("a"), at("a"), at("a-b")]).unwrap();

        let places: Vec<_> = roots.iter().map(|root| root.place.clone()).collect();
        assert_eq!(places, [at("a"), at("a-b")]);
        let covered: Vec<_> = roots[0].covers.iter().map(EntryPath::to_string).collect();
        let shown = |path: PathBuf| path.to_str().unwrap()[1..].to_owned();
        assert_eq!(covered, [at("a"), at("a/b"), at("a/file")].map(shown));
        assert!(check_covered(&roots, &globs(&["*.tmp"]), Mounts::Enter).is_ok());
        for (excludes, mounts) in
            [(vec!["b"], Mounts::Enter), (vec!["file"], Mounts::Enter), (vec![], Mounts::Skip)]
        {
            let refused = check_covered(&roots, &globs(&excludes), mounts);
            assert!(matches!(refused, Err(ClientError::Usage(_))), "{excludes:?}");
        }
        let all = roots::check(&[at("a"), PathBuf::from("/")]).unwrap();
        assert!(all.len() == 1 && all[0].path.is_top());
    }
}
