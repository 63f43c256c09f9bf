//! The files of a snapshot that are not as they should be: all of them, a part in each answer.
//!
//! A manifest names the first thousand problems, with reasons; its pages record for each file how its content
//! ends. Both are in path order, so they are merged while the pages are read. An answer takes the memory of a
//! few pages, and ends early after a number of pages, even without a result.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

use format_spec::manifest::Problem;
use format_spec::page::Record;
use format_spec::wire::{FileProblem, FileProblems, FileState};
use format_spec::{Entry, EntryKind, EntryPath, FileEnd, NodeName, SnapshotId};

use super::{get, open_manifest, page_records};
use crate::error::ServerError;
use crate::pack::read_blobs;
use crate::store::{Store, wait};

/// Pages that are read at once: at most 1 MiB each.
const PAGES_AT_ONCE: usize = 16;

/// Pages that one answer reads; a file that continues is followed to its end.
const PAGES_IN_ALL: usize = 512;

/// Where an answer begins. Its text is for this server alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The page of the manifest that holds the next entry.
    page: usize,
    /// Everything up to this path was told.
    after: Option<EntryPath>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_ref().map(EntryPath::as_bytes).unwrap_or_default();
        write!(f, "{}-{}", self.page, format_spec::id::to_hex(after))
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "`after` must be the `next` of an earlier answer";
        let (page, hex) = text.split_once('-').ok_or(wrong)?;
        let digits = |pair: &[u8]| {
            let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(digits).collect();
        let bytes = bytes.ok_or(wrong)?;
        let after = if bytes.is_empty() { None } else { Some(EntryPath::new(bytes).map_err(|_| wrong)?) };
        Ok(Self { page: page.parse().map_err(|_| wrong)?, after })
    }
}

/// The next of `node`'s files that are not as they should be, at most `limit`.
///
/// # Errors
/// [`ServerError::NoSnapshot`], [`ServerError::NoNode`]; [`ServerError::Damaged`] if a page cannot be read.
pub(crate) async fn problems(
    store: &Arc<Store>,
    id: SnapshotId,
    node: &NodeName,
    from: Cursor,
    limit: usize,
) -> Result<FileProblems, ServerError> {
    let node = node.clone();
    store.waiting(move |store| find(store, id, &node, from, limit)).await
}

fn find(
    store: &Arc<Store>,
    id: SnapshotId,
    node: &NodeName,
    from: Cursor,
    limit: usize,
) -> Result<FileProblems, ServerError> {
    let snapshot = get(store, id)?;
    let found = snapshot.manifest_of(node);
    let found = found.ok_or_else(|| ServerError::NoNode { snapshot: id, node: node.clone() })?;
    let (_, manifest) = wait(open_manifest(store, found.id))?;
    let domain = store.domain(&snapshot.cluster);
    let mut at = from.page;
    let mut walk = Walk::new(manifest.problems, from, limit);
    for pages in manifest.pages.get(at..).unwrap_or_default().chunks(PAGES_AT_ONCE) {
        let ids = pages.iter().map(|page| page.id).collect();
        for blob in wait(read_blobs(store, &domain, ids))? {
            let damaged = |source| ServerError::Damaged { object: blob.info.id.to_string(), source };
            let records = page_records(&blob, &domain).map_err(damaged)?;
            if walk.page(&records).is_break() {
                return Ok(walk.answer(node, at));
            }
            at += 1;
        }
    }
    walk.finish();
    Ok(walk.answer(node, at))
}

/// The way through the pages of a manifest.
struct Walk {
    /// Problems that the manifest names and that were not told yet.
    named: BTreeMap<EntryPath, String>,
    /// Everything up to this path was told, but for the open file.
    after: Option<EntryPath>,
    /// The file whose content continues.
    file: Option<EntryPath>,
    found: Vec<FileProblem>,
    limit: usize,
    pages_left: usize,
    is_over: bool,
}

impl Walk {
    fn new(problems: Vec<Problem>, from: Cursor, limit: usize) -> Self {
        let after = from.after;
        let mut named: BTreeMap<EntryPath, String> = BTreeMap::new();
        for Problem { path, reason } in problems {
            if after.as_ref().is_some_and(|after| path <= *after) {
                continue;
            }
            let reasons = named.entry(path).or_default();
            if !reasons.is_empty() {
                reasons.push_str("; ");
            }
            reasons.push_str(&reason);
        }
        let (file, found) = (None, Vec::new());
        Self { named, after, file, found, limit, pages_left: PAGES_IN_ALL, is_over: false }
    }

    /// Takes the next page. Breaks if the answer is over before the end of it.
    fn page(&mut self, records: &[Record]) -> ControlFlow<()> {
        if self.file.is_none() && self.pages_left == 0 {
            return self.over();
        }
        self.pages_left = self.pages_left.saturating_sub(1);
        records.iter().try_for_each(|record| match record {
            Record::Entry(entry) => self.entry(entry),
            Record::Content(content) => {
                if let Some(end) = content.end {
                    self.end(end);
                }
                ControlFlow::Continue(())
            }
        })
    }

    fn over(&mut self) -> ControlFlow<()> {
        self.is_over = true;
        ControlFlow::Break(())
    }

    fn entry(&mut self, entry: &Entry) -> ControlFlow<()> {
        self.file = None;
        if self.after.as_ref().is_some_and(|after| entry.path <= *after) {
            return ControlFlow::Continue(());
        }
        self.tell_named_before(Some(&entry.path));
        if self.is_full() {
            return self.over();
        }
        self.after = Some(entry.path.clone());
        if entry.kind == EntryKind::File {
            self.file = Some(entry.path.clone());
        } else if let Some(reason) = self.named.remove(&entry.path) {
            self.tell(&entry.path, FileState::Incomplete, Some(reason));
        }
        ControlFlow::Continue(())
    }

    fn end(&mut self, end: FileEnd) {
        let Some(path) = self.file.take() else { return };
        let reason = self.named.remove(&path);
        match (end, &reason) {
            (FileEnd::Whole(_), None) => {}
            (FileEnd::Whole(_), Some(_)) => self.tell(&path, FileState::Incomplete, reason),
            (FileEnd::Unreadable, _) => self.tell(&path, FileState::Missing, reason),
            (FileEnd::Torn(_), _) => self.tell(&path, FileState::Torn, reason),
            (FileEnd::Fuzzy(_), _) => self.tell(&path, FileState::Fuzzy, reason),
        }
    }

    /// Reports problems that the manifest names and no page holds.
    fn tell_named_before(&mut self, next: Option<&EntryPath>) {
        while !self.is_full() {
            let Some(first) = self.named.first_entry() else { return };
            if next.is_some_and(|next| first.key() >= next) {
                return;
            }
            let (path, reason) = first.remove_entry();
            self.tell(&path, FileState::Missing, Some(reason));
            self.after = Some(path);
        }
    }

    fn tell(&mut self, path: &EntryPath, state: FileState, reason: Option<String>) {
        self.found.push(FileProblem { path: format!("/{path}"), state, reason });
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }

    /// After the last page.
    fn finish(&mut self) {
        self.tell_named_before(None);
        self.is_over = !self.named.is_empty();
    }

    /// Result so far; `page` is the next one to read.
    fn answer(self, node: &NodeName, page: usize) -> FileProblems {
        let next = self.is_over.then(|| Cursor { page, after: self.after }.to_string());
        FileProblems { node: node.clone(), problems: self.found, next }
    }
}

#[cfg(test)]
#[path = "problems/tests.rs"]
mod tests;
