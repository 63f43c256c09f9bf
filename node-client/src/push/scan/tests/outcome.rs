//! Result of a push, and its consistency.

use std::fmt::Write;
use std::sync::Arc;

use format_spec::key::DomainKey;
use format_spec::manifest::{PageRef, Problem, PushStats, Totals};
use format_spec::page::{self, Record};
use format_spec::{ChunkId, Entry, EntryKind, Extent, FileEnd};

use super::tree::Tree;
use super::{Server, wide};
use crate::push::scan::Scanned;
use crate::state::Spool;

/// A file in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) name: String,
    pub(super) entry: Entry,
    pub(super) extents: Vec<Extent>,
    /// Missing where a push was cut short.
    pub(super) end: Option<FileEnd>,
}

/// Result of a push, with paths below the root.
pub(super) struct Outcome {
    pub(super) files: Vec<Pushed>,
    pub(super) others: Vec<(String, Entry)>,
    pub(super) pages: Vec<PageRef>,
    pub(super) totals: Totals,
    pub(super) problems: Vec<(String, String)>,
    pub(super) stats: PushStats,
    pub(super) fed: Vec<ChunkId>,
    pub(super) server: Arc<Server>,
}

impl Outcome {
    pub(super) fn new(
        tree: &Tree,
        server: Arc<Server>,
        spool: &Spool,
        scanned: &Scanned,
        stats: PushStats,
        fed: Vec<ChunkId>,
    ) -> Self {
        let mut records = Vec::new();
        let read = spool.read_back(|_, bytes| {
            records.extend(page::decode(bytes).unwrap());
            Ok::<_, std::io::Error>(())
        });
        read.unwrap();
        let (mut files, mut others) = (Vec::<Pushed>::new(), Vec::new());
        for record in records {
            match record {
                Record::Entry(entry) if entry.kind == EntryKind::File => {
                    files.push(Pushed {
                        name: tree.below(&entry.path),
                        entry,
                        extents: Vec::new(),
                        end: None,
                    });
                }
                Record::Entry(entry) => others.push((tree.below(&entry.path), entry)),
                Record::Content(content) => {
                    let file = files.last_mut().unwrap();
                    file.extents.extend(content.extents);
                    file.end = content.end;
                }
            }
        }
        let problem = |problem: &Problem| (tree.below(&problem.path), problem.reason.clone());
        let problems = scanned.problems.iter().map(problem).collect();
        Self {
            files,
            others,
            pages: spool.pages().to_vec(),
            totals: scanned.totals,
            problems,
            stats,
            fed,
            server,
        }
    }

    /// Files that a snapshot reports as whole must be whole, and on the server.
    pub(super) fn check(&self, domain: &DomainKey) {
        let server = self.server.lock().unwrap();
        for Pushed { name, entry, extents, end } in &self.files {
            match end.expect("each file has an end") {
                FileEnd::Unreadable => assert!(extents.is_empty(), "`{name}` is unreadable and has content"),
                FileEnd::Whole(digest) | FileEnd::Fuzzy(digest) | FileEnd::Torn(digest) => {
                    let mut expected = domain.file_digester();
                    extents.iter().for_each(|extent| expected.push(extent));
                    assert_eq!(digest, expected.finish(), "the digest of `{name}`");
                    assert_eq!(
                        extents.iter().map(Extent::covered).sum::<u64>(),
                        entry.size,
                        "size of `{name}`"
                    );
                    let lacks = |id| !server.contains_key(&id);
                    assert!(!extents.iter().filter_map(Extent::chunk).any(lacks), "`{name}` lacks a chunk");
                }
            }
        }
        let count = |kind| self.others.iter().filter(|(_, other)| other.kind == kind).count();
        let files = self.files.len() + count(EntryKind::HardLink);
        assert_eq!(self.totals.files, wide(files), "the total of files");
        assert_eq!(self.totals.folders, wide(count(EntryKind::Folder)), "the total of folders");
        assert_eq!(self.totals.problems, wide(self.problems.len()), "the total of problems");
        let whole = self.files.iter().filter(|file| file.end != Some(FileEnd::Unreadable));
        assert_eq!(self.totals.bytes, whole.map(|file| file.entry.size).sum::<u64>(), "the total of bytes");
    }

    /// Asserts that it is the snapshot that `other` is, page for page.
    pub(super) fn assert_same(&self, other: &Self) {
        let names = |outcome: &Self| {
            let short = |file: &Pushed| (file.name.clone(), file.entry.size, file.extents.len());
            outcome.files.iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(names(self), names(other));
        for (file, other) in self.files.iter().zip(&other.files) {
            assert_eq!(file.entry, other.entry);
            assert!(file == other, "another content of `{}`", file.name);
        }
        assert_eq!(self.others, other.others);
        assert_eq!(self.totals, other.totals);
        assert_eq!(self.problems, other.problems);
        assert_eq!(self.pages, other.pages);
    }

    pub(super) fn file(&self, name: &str) -> &Pushed {
        self.files.iter().find(|file| file.name == name).expect("the file is in the snapshot")
    }

    pub(super) fn other(&self, name: &str) -> &Entry {
        &self.others.iter().find(|other| other.0 == name).expect("the entry is in the snapshot").1
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| &*file.name).collect()
    }

    pub(super) fn is_whole(&self, name: &str) -> bool {
        matches!(self.file(name).end, Some(FileEnd::Whole(_)))
    }

    /// Content that a restore would give.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let server = self.server.lock().unwrap();
        let bytes = |extent: &Extent| match extent {
            Extent::Chunk { id, .. } => server[id].clone(),
            Extent::Hole { len } => vec![0; usize::try_from(*len).unwrap()],
        };
        self.file(name).extents.iter().flat_map(bytes).collect()
    }

    /// Where the last extent of a file begins, and how long it is.
    pub(super) fn last_extent(&self, name: &str) -> (u64, u64) {
        let file = self.file(name);
        let len = file.extents.last().map_or(0, Extent::covered);
        (file.extents.iter().map(Extent::covered).sum::<u64>() - len, len)
    }

    /// Outcomes of the files, without empty ones.
    pub(super) fn kinds(&self) -> String {
        let PushStats { new, whole, appended, unchanged, resumed, gone, .. } = self.stats;
        let mut kinds = String::new();
        for (kind, files) in [
            ("new", new),
            ("whole", whole),
            ("appended", appended),
            ("unchanged", unchanged),
            ("resumed", resumed),
            ("gone", gone),
        ] {
            if files > 0 {
                let comma = if kinds.is_empty() { "" } else { ", " };
                write!(kinds, "{comma}{files} {kind}").unwrap();
            }
        }
        kinds
    }

    pub(super) fn fallbacks(&self) -> Vec<(&str, u64)> {
        self.stats.fallbacks.iter().map(|fallback| (&*fallback.reason, fallback.files)).collect()
    }
}
