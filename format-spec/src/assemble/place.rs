//! Where in the tree the pages are: the folders that the next entry may lie in, as one path.

use std::sync::Arc;

use crate::entry::{Entry, EntryKind};
use crate::path::EntryPath;

/// The roots of a manifest, in path order. Clones share them.
#[derive(Debug, Clone)]
pub struct Roots(Arc<[EntryPath]>);

impl Roots {
    /// These roots, in any order.
    pub fn new(roots: &[EntryPath]) -> Self {
        let mut roots = roots.to_vec();
        roots.sort();
        roots.dedup();
        Self(roots.into())
    }

    /// True if `path` is a root, or lies in one.
    pub(super) fn hold(&self, path: &EntryPath) -> bool {
        let behind = self.0.partition_point(|root| root <= path);
        let before = self.0.get(..behind).unwrap_or_default();
        let is_root = |folder: &EntryPath| before.binary_search(folder).is_ok();
        // Where roots lie in each other, another than the last one before it may be around it.
        let folder_of = |path: &EntryPath| path.split_last().map(|(folder, _)| folder);
        before.last().is_some_and(|root| path.below(root).is_some())
            || std::iter::successors(folder_of(path), folder_of).any(|folder| is_root(&folder))
    }

    /// True if `path` is a root, or a root lies in it.
    pub(super) fn reach(&self, path: &EntryPath) -> bool {
        self.from(path).first().is_some_and(|root| root.below(path).is_some())
    }

    /// True if a root lies in `path`.
    pub(super) fn lie_in(&self, path: &EntryPath) -> bool {
        let next = self.from(path).iter().find(|root| *root != path);
        next.is_some_and(|root| root.below(path).is_some())
    }

    /// The roots that do not come before `path`. Those in it are the first of them.
    fn from(&self, path: &EntryPath) -> &[EntryPath] {
        let start = self.0.partition_point(|root| root < path);
        self.0.get(start..).unwrap_or_default()
    }

    fn have_top(&self) -> bool {
        self.0.first().is_some_and(EntryPath::is_top)
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

/// The last entry, and the folders around the next.
#[derive(Debug, Clone)]
pub(super) struct Place {
    last: EntryPath,
    /// Bytes of `last` that are the path of a folder: of the innermost that the next entry may lie in.
    folder_len: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { last: EntryPath::top(), folder_len: 0 }
    }
}

impl Place {
    /// The place after `entry`, the folders of which are known or taken to be there.
    pub(super) fn at(entry: &Entry) -> Self {
        let folder = match entry.kind {
            EntryKind::Folder => entry.path.as_bytes(),
            EntryKind::File | EntryKind::Symlink | EntryKind::HardLink => folder_of(&entry.path),
        };
        Self { folder_len: folder.len(), last: entry.path.clone() }
    }

    pub(super) fn last(&self) -> &EntryPath {
        &self.last
    }

    /// True if `path` lies in a folder that is around the next entry. `/` itself is if it is a root.
    pub(super) fn lies_within(&self, path: &EntryPath, roots: &Roots) -> bool {
        let folder = folder_of(path);
        if folder.is_empty() {
            return roots.have_top();
        }
        let around = self.last.as_bytes().get(..self.folder_len).unwrap_or_default();
        around.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// True if the folders around `path`, which comes later, may be among entries that are missing: all of them come
    /// after the last entry, unless that is around `path` itself and no folder.
    pub(super) fn may_have_missed_folders_of(&self, path: &EntryPath) -> bool {
        let is_folder = self.folder_len == self.last.as_bytes().len();
        is_folder || path.below(&self.last).is_none()
    }
}

/// The path of the folder that `path` lies in; empty for a name in `/`.
fn folder_of(path: &EntryPath) -> &[u8] {
    let bytes = path.as_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
    bytes.get(..slash).unwrap_or_default()
}
