//! One node's pages in order, put together as a restore does: entries in path order, each file's extents
//! up to its end, its length, its digest. Names the files that anything hurts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use format_spec::entry::{Extent, FileEnd};
use format_spec::key::FileDigester;
use format_spec::page::{Content, Record};
use format_spec::wire::FindingKind;
use format_spec::{ChunkId, Entry, EntryKind, EntryPath};

use super::findings::{Cause, Hurt, Problem};
use crate::store::Domain;

/// How much of a file is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Which chunks it needs.
    Needs,
    /// And that they add up to what was pushed.
    Whole,
}

/// What is known of a chunk that a file needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    /// Why the file cannot be restored.
    pub(super) file: Option<Cause>,
    /// What else is wrong.
    pub(super) snapshot: Option<Cause>,
}

/// A page in which nothing is wrong, and which begins and ends between files.
#[derive(Debug, Clone)]
pub(super) struct CleanPage {
    first: EntryPath,
    last: EntryPath,
    files: u64,
    lacking: u64,
}

/// A file whose content goes on.
struct OpenFile {
    path: EntryPath,
    size: u64,
    covered: u64,
    digest: FileDigester,
    link_group: Option<u64>,
    hurt: BTreeSet<Cause>,
}

/// Pages that are not known, and who is to blame.
struct Gap {
    after: Option<EntryPath>,
    causes: BTreeSet<Cause>,
}

/// Where the pages of one manifest are.
pub(super) struct Replay {
    domain: Arc<Domain>,
    depth: Depth,
    last: Option<EntryPath>,
    open: Option<OpenFile>,
    gap: Option<Gap>,
    /// Files that are hurt and have more names.
    hurt_groups: HashMap<u64, BTreeSet<Cause>>,
    files: u64,
    /// Files that are not as they were at any moment, as the push said itself: unreadable or torn.
    lacking: u64,
    told: Vec<(Cause, Hurt)>,
}

impl Replay {
    pub(super) fn new(domain: Arc<Domain>, depth: Depth) -> Self {
        Self {
            domain,
            depth,
            last: None,
            open: None,
            gap: None,
            hurt_groups: HashMap::new(),
            files: 0,
            lacking: 0,
            told: Vec::new(),
        }
    }

    /// Takes the next page. Returns what is left to know of it where its id comes again, if nothing is
    /// wrong with it and it stands by itself.
    pub(super) fn page(
        &mut self,
        id: &ChunkId,
        records: &[Record],
        verdict: impl Fn(&ChunkId, u32) -> Verdict,
    ) -> Option<CleanPage> {
        let (told, files, lacking) = (self.told.len(), self.files, self.lacking);
        let mut around = BTreeSet::new();
        let mut has_links = false;
        for record in records {
            match record {
                Record::Entry(entry) => {
                    has_links |= entry.link_group.is_some();
                    self.entry(id, entry);
                }
                Record::Content(content) => self.content(id, content, &verdict, &mut around),
            }
        }
        self.told.extend(around.into_iter().map(|cause| (cause, Hurt::Snapshot)));
        let stands_alone = !has_links && self.open.is_none() && self.told.len() == told;
        match records.first() {
            Some(Record::Entry(first)) if stands_alone => Some(CleanPage {
                first: first.path.clone(),
                last: self.last.clone()?,
                files: self.files - files,
                lacking: self.lacking - lacking,
            }),
            _ => None,
        }
    }

    /// Takes a page that was taken before, here or for another manifest.
    pub(super) fn clean_page(&mut self, id: &ChunkId, page: &CleanPage) {
        self.begin(id, &page.first);
        self.last = Some(page.last.clone());
        self.files += page.files;
        self.lacking += page.lacking;
    }

    /// Takes a page that nobody can read: its files cannot be named, but for one that began before.
    pub(super) fn lost(&mut self, cause: Cause) {
        if let Some(mut file) = self.open.take() {
            file.hurt.insert(cause.clone());
            self.hurt(file);
        }
        let after = &self.last;
        let gap = self.gap.get_or_insert_with(|| Gap { after: after.clone(), causes: BTreeSet::new() });
        gap.causes.insert(cause);
    }

    /// Ends the last page.
    pub(super) fn finish(&mut self, manifest: &impl ToString) {
        self.close_gap(None);
        if let Some(file) = self.open.take() {
            let what = format!("its last file `{}` has no end", file.path);
            self.hurt_by(file, Problem::new(FindingKind::Corrupt, manifest.to_string(), what));
        }
    }

    /// Something is wrong that hurts no file.
    pub(super) fn aside(&mut self, cause: Option<Cause>) {
        self.told.extend(cause.map(|cause| (cause, Hurt::Snapshot)));
    }

    /// The keys of its ids.
    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }

    /// How much of a file is checked.
    pub(super) fn depth(&self) -> Depth {
        self.depth
    }

    /// What was found since the last call.
    pub(super) fn take_told(&mut self) -> Vec<(Cause, Hurt)> {
        std::mem::take(&mut self.told)
    }

    /// Files so far, each link counted.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Those of them that the push said to be unreadable or torn, each link group counted once.
    pub(super) fn lacking(&self) -> u64 {
        self.lacking
    }

    /// An entry with this path comes next.
    fn begin(&mut self, page: &ChunkId, path: &EntryPath) {
        self.close_gap(Some(path));
        if let Some(file) = self.open.take() {
            let what = format!("`{path}` comes before the end of `{}`", file.path);
            self.hurt_by(file, Problem::new(FindingKind::Corrupt, page, what));
        }
        if self.depth == Depth::Whole && self.last.as_ref().is_some_and(|last| last >= path) {
            let what = format!("`{path}` is not in path order");
            let cause = Cause::New(Problem::new(FindingKind::Corrupt, page, what));
            self.told.push((cause, Hurt::File(path.to_string())));
        }
    }

    fn entry(&mut self, page: &ChunkId, entry: &Entry) {
        self.begin(page, &entry.path);
        self.last = Some(entry.path.clone());
        match entry.kind {
            EntryKind::File => {
                self.files += 1;
                self.open = Some(OpenFile {
                    path: entry.path.clone(),
                    size: entry.size,
                    covered: 0,
                    digest: self.domain.key.file_digester(),
                    link_group: entry.link_group,
                    hurt: BTreeSet::new(),
                });
            }
            EntryKind::HardLink => {
                self.files += 1;
                let causes = entry.link_group.and_then(|group| self.hurt_groups.get(&group));
                for cause in causes.into_iter().flatten() {
                    self.told.push((cause.clone(), Hurt::File(entry.path.to_string())));
                }
            }
            EntryKind::Folder | EntryKind::Symlink => {}
        }
    }

    fn content(
        &mut self,
        page: &ChunkId,
        content: &Content,
        verdict: &impl Fn(&ChunkId, u32) -> Verdict,
        around: &mut BTreeSet<Cause>,
    ) {
        let mut hurt = BTreeSet::new();
        for extent in &content.extents {
            if let Extent::Chunk { id, len } = extent {
                let Verdict { file, snapshot } = verdict(id, *len);
                hurt.extend(file);
                around.extend(snapshot);
            }
        }
        let Some(mut file) = self.open.take() else {
            // Of a file whose entry is on a lost page: it cannot be named.
            around.extend(hurt);
            if self.gap.is_none() {
                let what = "it begins with content of a file that has no entry";
                around.insert(Cause::New(Problem::new(FindingKind::Corrupt, page, what)));
            }
            return;
        };
        file.hurt.extend(hurt);
        for extent in &content.extents {
            file.covered = file.covered.saturating_add(extent.covered());
            if self.depth == Depth::Whole {
                file.digest.push(extent);
            }
        }
        self.lacking += u64::from(matches!(content.end, Some(FileEnd::Unreadable | FileEnd::Torn(_))));
        match content.end {
            None => self.open = Some(file),
            // The push said so: nobody restores it.
            Some(FileEnd::Unreadable) => {}
            Some(FileEnd::Whole(digest) | FileEnd::Fuzzy(digest) | FileEnd::Torn(digest)) => {
                self.end(page, file, digest);
            }
        }
    }

    fn end(&mut self, page: &ChunkId, mut file: OpenFile, digest: format_spec::FileDigest) {
        if self.depth == Depth::Whole {
            let wrong = if file.covered != file.size {
                Some(format!("`{}` has {} bytes, its parts have {}", file.path, file.size, file.covered))
            } else if file.digest.finish() != digest {
                Some(format!("the parts of `{}` do not have its digest", file.path))
            } else {
                None
            };
            let problem = wrong.map(|what| Problem::new(FindingKind::Corrupt, page, what));
            file.hurt.extend(problem.map(Cause::New));
        }
        self.hurt(file);
    }

    fn hurt_by(&mut self, mut file: OpenFile, problem: Problem) {
        file.hurt.insert(Cause::New(problem));
        self.hurt(file);
    }

    /// Tells of a file, once for each cause.
    fn hurt(&mut self, file: OpenFile) {
        if file.hurt.is_empty() {
            return;
        }
        for cause in &file.hurt {
            self.told.push((cause.clone(), Hurt::File(file.path.to_string())));
        }
        if let Some(group) = file.link_group {
            self.hurt_groups.insert(group, file.hurt);
        }
    }

    fn close_gap(&mut self, before: Option<&EntryPath>) {
        let Some(gap) = self.gap.take() else { return };
        let text = |path: &EntryPath| path.to_string();
        for cause in gap.causes {
            let (after, before) = (gap.after.as_ref().map(text), before.map(text));
            self.told.push((cause, Hurt::Range { after, before }));
        }
    }
}
