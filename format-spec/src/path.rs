//! Paths of file entries: bytes as the file system has them, relative, and harmless by grammar.

use std::cmp::Ordering;
use std::fmt;

use crate::error::FormatError;

/// Longest path in bytes.
pub const MAX_PATH_LEN: usize = 4096;
/// Longest component in bytes.
pub const MAX_COMPONENT_LEN: usize = 255;

/// A path below some root: components joined by `/`, none of them empty, `.` or `..`, no NUL byte.
///
/// Paths order by component, so that a folder comes right before all it holds. Names need not be
/// UTF-8. Text for people escapes what is not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Checks the grammar.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] or [`FormatError::TooLong`], naming the rule.
    pub fn new(bytes: Vec<u8>) -> Result<Self, FormatError> {
        if bytes.len() > MAX_PATH_LEN {
            return Err(too_long(bytes.len(), MAX_PATH_LEN));
        }
        for component in bytes.split(|&b| b == b'/') {
            check_component(component)?;
        }
        Ok(Self(bytes))
    }

    /// `/` itself: only a root of a push, and the path of what concerns all of it. No entry has this path.
    pub fn top() -> Self {
        Self(Vec::new())
    }

    /// True if it is `/` itself.
    pub fn is_top(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in this folder.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    pub fn join(&self, name: &[u8]) -> Result<Self, FormatError> {
        check_component(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_top() {
            bytes.extend_from_slice(&self.0);
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if bytes.len() > MAX_PATH_LEN {
            return Err(too_long(bytes.len(), MAX_PATH_LEN));
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components, outermost first; none of `/` itself.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|component| !component.is_empty())
    }

    /// The folder that contains it and its name there; `None` for `/` itself.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        if self.is_top() {
            return None;
        }
        let slash = self.0.iter().rposition(|&byte| byte == b'/');
        let (folder, name) = self.0.split_at_checked(slash.unwrap_or_default())?;
        Some((Self(folder.to_vec()), name.strip_prefix(b"/").unwrap_or(name)))
    }

    /// The rest of this path below `folder`; `None` if it is neither `folder` nor inside it.
    pub fn below(&self, folder: &EntryPath) -> Option<&[u8]> {
        let rest = self.0.strip_prefix(folder.as_bytes())?;
        if rest.is_empty() || folder.is_top() { Some(rest) } else { rest.strip_prefix(b"/") }
    }
}

fn too_long(len: usize, limit: usize) -> FormatError {
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    FormatError::TooLong { what: "path", len: wide(len), limit: wide(limit) }
}

fn check_component(component: &[u8]) -> Result<(), FormatError> {
    let why = match component {
        b"" => "an empty component",
        b"." | b".." => "a `.` or `..` component",
        c if c.len() > MAX_COMPONENT_LEN => return Err(too_long(c.len(), MAX_COMPONENT_LEN)),
        c if c.contains(&0) => "a NUL byte",
        c if c.contains(&b'/') => "a `/` in a component",
        _ => return Ok(()),
    };
    Err(FormatError::malformed("path", why))
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.components().cmp(other.components())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Printable(&self.0), f)
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// File-name bytes for people: UTF-8 as it is, control characters and other bytes escaped.
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl<C> minicbor::Encode<C> for EntryPath {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for EntryPath {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.bytes()? {
            b"" => Ok(Self::top()),
            bytes => Self::new(bytes.to_vec()).map_err(minicbor::decode::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_path_is_its_folder_and_its_name() {
        let split = |text: &str| path(text).split_last().map(|(folder, name)| (folder, name.to_vec()));
        assert_eq!(split("a/b/c"), Some((path("a/b"), b"c".to_vec())));
        assert_eq!(split("a"), Some((EntryPath::top(), b"a".to_vec())));
        assert_eq!(EntryPath::top().split_last(), None);
    }

    #[test]
    fn all_paths_lie_below_the_top_and_come_behind_it() {
        let top = EntryPath::top();

        assert_eq!(top.join(b"a").unwrap(), path("a"));
        assert_eq!(path("a/b").below(&top), Some(&b"a/b"[..]));
        assert_eq!((top.below(&top), top.below(&path("a"))), (Some(&b""[..]), None));
        assert!(top < path("a") && top.components().next().is_none());
        assert_eq!(minicbor::decode::<EntryPath>(&minicbor::to_vec(&top).unwrap()).unwrap(), top);
    }

    #[test]
    fn paths_that_could_leave_the_target_are_refused() {
        let long = "a/".repeat(2048) + "b";
        let wide = "x".repeat(256);
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b", &long, &wide] {
            assert!(EntryPath::new(bad.as_bytes().to_vec()).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert!(path("r").join(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_folder_comes_right_before_what_it_holds() {
        let mut paths = [path("a.txt"), path("a/b"), path("a"), path("a-b"), path("a/b/c"), path("a/b.x")];

        paths.sort();

        assert_eq!(paths, [path("a"), path("a/b"), path("a/b/c"), path("a/b.x"), path("a-b"), path("a.txt")]);
    }

    #[test]
    fn below_knows_names_from_prefixes() {
        assert_eq!(path("a/b/c").below(&path("a")), Some(&b"b/c"[..]));
        assert_eq!(path("a").below(&path("a")), Some(&b""[..]));
        assert_eq!(path("ab").below(&path("a")), None);
    }

    #[test]
    fn text_for_people_hides_no_byte() {
        let odd = EntryPath::new(b"caf\xc3\xa9/\xff\x1b[31m".to_vec()).unwrap();

        assert_eq!(odd.to_string(), "café/\\xff\\u{1b}[31m");
    }
}
