//! Place of an entry: beneath the target folder, or none.

use format_spec::path::Printable;
use format_spec::{Entry, EntryKind, EntryPath};

/// Bytes of a path beneath the target; empty for the target itself.
///
/// It is made of an [`EntryPath`], so no component of it is empty, `.` or `..`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TargetPath(Vec<u8>);

impl TargetPath {
    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True if it is the target itself.
    pub(super) fn is_target(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder that contains it, and its name there. Both are empty for the target itself.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (folder, name) = self.0.split_at(slash);
                (folder, name.strip_prefix(b"/").unwrap_or(name))
            }
            None => (&[], &self.0),
        }
    }
}

impl From<&EntryPath> for TargetPath {
    fn from(path: &EntryPath) -> Self {
        Self(path.as_bytes().to_vec())
    }
}

impl std::fmt::Display for TargetPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { std::fmt::Display::fmt(&Printable(&self.0), f) }
    }
}

/// How entry paths become places beneath the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each entry is placed at its whole path.
    WholePath,
    /// The content of this root is placed directly in the target.
    Strip(EntryPath),
}

impl Layout {
    /// Place of `entry`.
    pub(super) fn place(&self, entry: &Entry) -> Option<TargetPath> {
        self.place_path(&entry.path, entry.kind)
    }

    /// Place of an entry of `kind` at `path`; `None` if it has no place.
    pub(super) fn place_path(&self, path: &EntryPath, kind: EntryKind) -> Option<TargetPath> {
        let root = match self {
            Self::WholePath => return Some(TargetPath::from(path)),
            Self::Strip(root) => root,
        };
        match path.below(root)? {
            // A root that is a file keeps its name: the target is a folder.
            b"" if kind != EntryKind::Folder => Some(TargetPath(path.components().last()?.to_vec())),
            rest => Some(TargetPath(rest.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text.as_bytes().to_vec()).unwrap()
    }

    fn place(layout: &Layout, text: &str, kind: EntryKind) -> Option<String> {
        layout.place_path(&path(text), kind).map(|at| String::from_utf8(at.0).unwrap())
    }

    #[test]
    fn a_root_lies_at_its_whole_path() {
        let at = place(&Layout::WholePath, "var/lib/db/a", EntryKind::File);

        assert_eq!(at.as_deref(), Some("var/lib/db/a"));
    }

    #[test]
    fn a_stripped_root_is_the_target_itself() {
        let layout = Layout::Strip(path("var/lib/db"));

        assert_eq!(place(&layout, "var/lib/db", EntryKind::Folder).as_deref(), Some(""));
        assert_eq!(place(&layout, "var/lib/db/a/b", EntryKind::File).as_deref(), Some("a/b"));
        assert_eq!(place(&layout, "var/lib", EntryKind::Folder), None);
        assert_eq!(place(&layout, "var/lib/db2", EntryKind::File), None);
    }

    #[test]
    fn a_stripped_root_that_is_a_file_keeps_its_name() {
        let at = place(&Layout::Strip(path("etc/passwd")), "etc/passwd", EntryKind::File);

        assert_eq!(at.as_deref(), Some("passwd"));
    }

    #[test]
    fn a_place_splits_into_folder_and_name() {
        assert_eq!(TargetPath(b"a/b/c".to_vec()).split(), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(TargetPath(b"a".to_vec()).split(), (&b""[..], &b"a"[..]));
    }
}
