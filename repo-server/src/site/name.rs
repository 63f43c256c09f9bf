//! Names of objects on a site.

use std::fmt;

/// Longest segment of a name, in bytes; file systems take 255.
const SEGMENT_LIMIT: usize = 200;

/// Longest name, in bytes; object stores take 1024.
const NAME_LIMIT: usize = 512;

/// Most segments of a name, the area included.
const SEGMENTS: usize = 4;

/// The parts of a site. Each holds one kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Packs, in folders by the first two hex digits: `packs/ab/<64 hex digits>`.
    Packs,
    /// Manifests.
    Manifests,
    /// Snapshots.
    Snapshots,
    /// Objects that are needed to open all others: the repository's description and sealed keys.
    Keyring,
    /// Which snapshots must stay, and why.
    Protections,
    /// Checkpoints: copies of many pack directories, for a faster rebuild.
    Heads,
    /// Locks of servers that use the site.
    Locks,
    /// Objects that a check of the site writes and removes again.
    Checks,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Checks,
        Self::Heads,
        Self::Keyring,
        Self::Locks,
        Self::Manifests,
        Self::Packs,
        Self::Protections,
        Self::Snapshots,
    ];

    /// The first segment of its names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Packs => "packs",
            Self::Manifests => "manifests",
            Self::Snapshots => "snapshots",
            Self::Keyring => "keyring",
            Self::Protections => "protections",
            Self::Heads => "heads",
            Self::Locks => "locks",
            Self::Checks => "checks",
        }
    }

    fn of(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.as_str() == segment)
    }
}

/// The name of one object: an [`Area`] and one to three more segments, separated by `/`.
///
/// A segment has 1 to 200 characters out of `A-Z a-z 0-9 . _ -`, does not start with a dot and has
/// no two dots in a row. So a name means the same to every kind of site, and never leaves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// Scope of a listing: whole segments, so `packs/a` does not cover `packs/ab/...`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(PrefixKind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PrefixKind {
    Everything,
    Below(String),
}

/// The text names no object or prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a valid object name", .0.escape_debug())]
pub struct BadName(String);

impl ObjectName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`BadName`] if it does not have the form that [`ObjectName`] describes.
    pub fn new(text: &str) -> Result<Self, BadName> {
        if segments_are_valid(text, 2) { Ok(Self(text.to_owned())) } else { Err(BadName(text.to_owned())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders that the object lies in, from the outside in, and its own last segment.
    pub(crate) fn split(&self) -> (impl Iterator<Item = &str>, &str) {
        let (folders, last) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        (folders.split('/'), last)
    }
}

impl Prefix {
    /// Every object of the site.
    pub fn everything() -> Self {
        Self(PrefixKind::Everything)
    }

    /// The objects of one area.
    pub fn area(area: Area) -> Self {
        Self(PrefixKind::Below(area.as_str().to_owned()))
    }

    /// The objects below `text`: an area, or an area and more segments.
    ///
    /// # Errors
    /// [`BadName`] if its segments are not those of an [`ObjectName`].
    pub fn new(text: &str) -> Result<Self, BadName> {
        let valid = segments_are_valid(text, 1);
        if valid { Ok(Self(PrefixKind::Below(text.to_owned()))) } else { Err(BadName(text.to_owned())) }
    }

    /// The paths that together hold all objects of the prefix. Foreign things next to the areas, such
    /// as `lost+found`, are never looked at.
    pub(crate) fn roots(&self) -> Vec<&str> {
        match &self.0 {
            PrefixKind::Everything => Area::ALL.map(Area::as_str).to_vec(),
            PrefixKind::Below(path) => vec![path],
        }
    }
}

fn segments_are_valid(text: &str, at_least: usize) -> bool {
    let count = text.split('/').count();
    let area = text.split('/').next().and_then(Area::of);
    area.is_some()
        && (at_least..=SEGMENTS).contains(&count)
        && text.len() <= NAME_LIMIT
        && text.split('/').all(is_segment)
}

fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=SEGMENT_LIMIT).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('.')
        && !text.contains("..")
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            PrefixKind::Everything => Ok(()),
            PrefixKind::Below(path) => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_area_are_taken() {
        let pack = format!("packs/ab/{}", "ab".repeat(32));
        for good in [pack.as_str(), "manifests/1", "snapshots/0190-7c", "keyring/repository", "heads/a.b_c"] {
            assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
        }
        let (folders, last) = ObjectName::new("packs/ab/1").map(|name| (name.clone(), name)).unwrap();
        assert_eq!(folders.split().0.collect::<Vec<_>>(), ["packs", "ab"]);
        assert_eq!(last.split().1, "1");
    }

    #[test]
    fn odd_names_are_refused() {
        let long = format!("heads/{}", "x".repeat(201));
        let longer = format!("heads/{0}/{0}/{0}", "x".repeat(200));
        for bad in [
            "",
            "/",
            "packs",
            "packs/",
            "/packs/a",
            "packs//a",
            "packs/a/",
            "packs/../a",
            "packs/..",
            "packs/.",
            "packs/.tmp-1",
            "packs/a..b",
            "other/a",
            "Packs/a",
            "packs/a b",
            "packs/a\\b",
            "packs/a#1",
            "packs/a%41",
            "packs/a\0",
            "packs/ä",
            "packs/a\n",
            "heads/a/b/c/d",
            &long,
            &longer,
        ] {
            assert_eq!(ObjectName::new(bad), Err(BadName(bad.to_owned())));
        }
        assert_eq!(BadName("a\nb".to_owned()).to_string(), "`a\\nb` is not a valid object name");
    }

    #[test]
    fn a_prefix_is_an_area_or_segments_below_it() {
        assert_eq!(Prefix::area(Area::Packs), Prefix::new("packs").unwrap());
        assert_eq!(Prefix::new("packs/ab").unwrap().roots(), ["packs/ab"]);
        assert_eq!(Prefix::everything().roots().len(), Area::ALL.len());
        for bad in ["", "packs/", "/packs", "other", "packs/..", "a/b/c/d/e"] {
            Prefix::new(bad).unwrap_err();
        }
    }
}
