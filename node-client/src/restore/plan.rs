//! From the records of a manifest to the steps of a restore: a state machine without I/O.
//!
//! It trusts nothing: records may have been written by a stranger. A record that breaks a rule
//! (entries out of order, something inside a file, content without its file, a file longer or
//! shorter than it says, a digest that does not fit, a link to nothing) ends it with an error of
//! class Integrity, and no step of that record is emitted after it. Records may be missing, if that is said: what can
//! no longer be known then is lost, and the rest goes on. Steps come in an order that can
//! be run as it is: a folder is entered before anything in it, and left after all of it.

mod rules;

use std::collections::{BTreeMap, HashMap};

use format_spec::key::{DomainKey, FileDigester};
use format_spec::page::{Content, Record};
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, Extent, FileEnd};

use super::filter::{Filter, Selection};
use super::folder::Choice;
use super::layout::{Layout, TargetPath};
use crate::error::ClientError;
use rules::{broken, check_entry, malformed, parent_of};

/// One thing to do. Chunks belong to the file that was begun last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Make this folder; its attributes (none for a parent of a pushed root) come when it is left.
    EnterFolder { at: TargetPath, path: EntryPath, entry: Option<(Entry, Choice)> },
    /// The folder that was entered last has no more content.
    LeaveFolder,
    /// Make this symbolic link.
    Symlink { at: TargetPath, entry: Entry },
    /// Content of this file follows.
    BeginFile { at: TargetPath, entry: Entry },
    /// A chunk of the file.
    Chunk { offset: u64, id: ChunkId, len: u32 },
    /// The file is whole: `data_len` bytes in chunks, the rest holes. Its digest was compared.
    EndFile { data_len: u64 },
    /// The file was never whole: nothing of it may appear.
    AbandonFile,
    /// A name that cannot be restored, because its content was unreadable when it was pushed.
    Skip { path: EntryPath },
    /// The content that comes to this name is a mixture of states.
    Mark { path: EntryPath, mixture: Mixture },
    /// A name that was wanted and of which not enough is known, because a page of the manifest is damaged.
    Lose { path: EntryPath, lost: Lost },
    /// Link `at` to `leader`, once all files are there.
    Link { at: TargetPath, path: EntryPath, leader: TargetPath },
    /// `at` is the first wanted name of a file whose content lies under a name that is not wanted:
    /// a second pass brings it.
    Owe { at: TargetPath, path: EntryPath },
}

/// Content that its owner wrote to while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixture {
    /// The owner's own log repairs it.
    Fuzzy,
    /// Nothing is known to repair it.
    Torn,
}

/// Missing part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its chunks, or some of them.
    Content,
    /// The file that it is a link of.
    Leader,
}

/// Takes the steps.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Step) -> Result<(), ClientError>;

/// Which files a pass is about.
enum Pass {
    /// Everything that the selection wants.
    Wanted(Selection),
    /// Only the content of these link groups, each under the name that it is owed to.
    Owed(BTreeMap<u64, OwedTo>),
}

/// The name that the content of a link group is owed to.
struct OwedTo {
    at: TargetPath,
    path: EntryPath,
}

/// Outcome of the first name of a link group.
enum Leader {
    /// It lies there.
    At(TargetPath),
    /// It was passed over.
    Passed,
    /// It was unreadable when it was pushed.
    Unreadable,
    /// Its content is on a damaged page.
    Lost,
}

/// A folder that the next entry may lie in.
struct Frame {
    path: EntryPath,
    entry: Option<(Entry, Choice)>,
    entered: bool,
}

/// The file whose content is coming.
struct OpenFile {
    path: EntryPath,
    /// The name that its content is restored under.
    shown: EntryPath,
    /// Target path and entry, until `BeginFile` takes them.
    waiting: Option<(TargetPath, Entry)>,
    /// True if its chunks are chosen.
    wanted: bool,
    at: Option<TargetPath>,
    group: Option<u64>,
    size: u64,
    offset: u64,
    data_len: u64,
    digester: FileDigester,
}

/// The state machine. Memory: the folders around the current entry, and link groups.
pub(super) struct Planner {
    domain: DomainKey,
    roots: Vec<EntryPath>,
    layout: Layout,
    pass: Pass,
    frames: Vec<Frame>,
    last: Option<EntryPath>,
    file: Option<OpenFile>,
    leaders: HashMap<u64, Leader>,
    /// Link groups whose content is a mixture.
    mixtures: HashMap<u64, Mixture>,
    owed: BTreeMap<u64, OwedTo>,
    damage: Damage,
}

/// Records that are missing before the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    None,
    /// Some are: a parent or a leader may be unknown.
    Before,
    /// Content may follow whose file is unknown.
    Here,
}

impl Planner {
    /// A planner for what `filter` lets through of a manifest with these roots.
    pub(super) fn new(domain: DomainKey, roots: Vec<EntryPath>, layout: Layout, filter: Filter) -> Self {
        Self::with_pass(domain, roots, layout, Pass::Wanted(Selection::new(filter)))
    }

    fn with_pass(domain: DomainKey, roots: Vec<EntryPath>, layout: Layout, pass: Pass) -> Self {
        Self {
            domain,
            roots,
            layout,
            pass,
            frames: Vec::new(),
            last: None,
            file: None,
            leaders: HashMap::new(),
            mixtures: HashMap::new(),
            owed: BTreeMap::new(),
            damage: Damage::None,
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// Class Integrity if it breaks a rule; whatever `sink` returns.
    pub(super) fn record(&mut self, record: Record, sink: Sink<'_>) -> Result<(), ClientError> {
        match record {
            Record::Entry(entry) => self.entry(entry, sink),
            Record::Content(content) => self.content(content, sink),
        }
    }

    /// Goes on after records that could not be read or used. What they said of the file whose content was coming
    /// is lost with them.
    ///
    /// # Errors
    /// The errors of `sink`.
    pub(super) fn skip_damage(&mut self, sink: Sink<'_>) -> Result<(), ClientError> {
        self.damage = Damage::Here;
        let Some(file) = self.file.take() else { return Ok(()) };
        if file.wanted {
            if file.waiting.is_none() {
                sink(Step::AbandonFile)?;
            }
            sink(Step::Lose { path: file.shown.clone(), lost: Lost::Content })?;
        }
        self.end_file(file, Some(Leader::Lost));
        Ok(())
    }

    /// Ends the pass. If link groups are owed, their content comes in a second pass over the same
    /// records with the planner that is returned.
    ///
    /// # Errors
    /// Class Integrity if the records stop within a file, or a second pass did not find its files though no record
    /// was missing.
    pub(super) fn finish(mut self, sink: Sink<'_>) -> Result<Option<Planner>, ClientError> {
        if let Some(file) = &self.file {
            return Err(broken(&file.path, "its content is cut short"));
        }
        self.leave(None, sink)?;
        match &self.pass {
            Pass::Wanted(_) if self.owed.is_empty() => Ok(None),
            Pass::Wanted(_) => {
                let pass = Pass::Owed(self.owed);
                Ok(Some(Self::with_pass(self.domain, self.roots, self.layout, pass)))
            }
            Pass::Owed(owed) => match owed.first_key_value() {
                Some((_, to)) if self.damage == Damage::None => {
                    Err(broken(&to.at, "the file that it is a link of is missing"))
                }
                _ => {
                    let mut lost = owed.values();
                    let lose = |to: &OwedTo| sink(Step::Lose { path: to.path.clone(), lost: Lost::Leader });
                    lost.try_for_each(lose).map(|()| None)
                }
            },
        }
    }

    fn entry(&mut self, entry: Entry, sink: Sink<'_>) -> Result<(), ClientError> {
        if self.file.is_some() {
            return Err(broken(&entry.path, "it comes within the content of another file"));
        }
        if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
            return Err(broken(&entry.path, "entries are not in path order"));
        }
        check_entry(&entry)?;
        let holds_a_root =
            self.roots.iter().any(|root| root.below(&entry.path).is_some_and(|r| !r.is_empty()));
        if holds_a_root && entry.kind != EntryKind::Folder {
            return Err(broken(&entry.path, "a root is inside it, but it is not a folder"));
        }
        if self.damage == Damage::Here {
            self.damage = Damage::Before;
        }
        self.last = Some(entry.path.clone());
        self.leave(Some(&entry.path), sink)?;
        self.check_parent(&entry)?;
        let wanted = match &mut self.pass {
            Pass::Wanted(selection) => selection.wants(&entry.path),
            Pass::Owed(_) => false,
        };
        match entry.kind {
            EntryKind::Folder => self.folder(entry, wanted, sink),
            EntryKind::File => self.file(entry, wanted, sink),
            EntryKind::Symlink | EntryKind::HardLink if !wanted => Ok(()),
            EntryKind::Symlink => {
                self.enter(sink)?;
                let at = self.place(&entry)?;
                sink(Step::Symlink { at, entry })
            }
            EntryKind::HardLink => self.hard_link(&entry, sink),
        }
    }

    /// Leaves the folders that `next` does not lie in.
    fn leave(&mut self, next: Option<&EntryPath>, sink: Sink<'_>) -> Result<(), ClientError> {
        let around = |frame: &Frame| next.is_some_and(|next| next.below(&frame.path).is_some());
        while let Some(frame) = self.frames.pop_if(|frame| !around(frame)) {
            if frame.entered {
                sink(Step::LeaveFolder)?;
            }
        }
        Ok(())
    }

    /// Enters the folders around the current entry that were not entered yet.
    fn enter(&mut self, sink: Sink<'_>) -> Result<(), ClientError> {
        for frame in self.frames.iter_mut().filter(|frame| !frame.entered) {
            if let Some(at) = self.layout.place_path(&frame.path, EntryKind::Folder) {
                frame.entered = true;
                sink(Step::EnterFolder { at, path: frame.path.clone(), entry: frame.entry.take() })?;
            }
        }
        Ok(())
    }

    /// An entry lies in a folder that came before it. Only what is above a root has no entry.
    fn check_parent(&mut self, entry: &Entry) -> Result<(), ClientError> {
        let parent = match parent_of(&entry.path) {
            Some(parent) => parent,
            None if self.is_above_a_root(&entry.path) || self.roots.iter().any(EntryPath::is_top) => {
                return Ok(());
            }
            None => return Err(broken(&entry.path, "it is inside no root")),
        };
        if self.frames.last().is_some_and(|frame| frame.path == parent) {
            return Ok(());
        }
        if self.damage == Damage::None && !self.is_above_a_root(&entry.path) {
            return Err(broken(&entry.path, "its parent is not a folder of this manifest"));
        }
        let known = self.frames.len();
        let mut missing = Some(parent);
        while let Some(path) = missing.take() {
            if self.frames.get(..known).and_then(<[Frame]>::last).is_some_and(|frame| frame.path == path) {
                break;
            }
            missing = parent_of(&path);
            self.frames.push(Frame { path, entry: None, entered: false });
        }
        if let Some(added) = self.frames.get_mut(known..) {
            added.reverse();
        }
        Ok(())
    }

    fn is_above_a_root(&self, path: &EntryPath) -> bool {
        self.roots.iter().any(|root| root.below(path).is_some())
    }

    fn folder(&mut self, entry: Entry, wanted: bool, sink: Sink<'_>) -> Result<(), ClientError> {
        let choice = if wanted { Choice::Wanted } else { Choice::OnTheWay };
        self.frames.push(Frame { path: entry.path.clone(), entry: Some((entry, choice)), entered: false });
        if wanted { self.enter(sink) } else { Ok(()) }
    }

    fn file(&mut self, entry: Entry, wanted: bool, sink: Sink<'_>) -> Result<(), ClientError> {
        let group = entry.link_group;
        if group.is_some_and(|group| self.leaders.contains_key(&group)) {
            return Err(broken(&entry.path, "its link group has a first name already"));
        }
        if wanted {
            self.enter(sink)?;
        }
        let owed = match &mut self.pass {
            Pass::Wanted(_) => None,
            Pass::Owed(owed) => group.and_then(|group| owed.remove(&group)),
        };
        let (at, shown) = match owed {
            Some(OwedTo { at, path }) => (Some(at), path),
            None if wanted => (Some(self.place(&entry)?), entry.path.clone()),
            None => (None, entry.path.clone()),
        };
        self.file = Some(OpenFile {
            path: entry.path.clone(),
            wanted: at.is_some(),
            group,
            size: entry.size,
            offset: 0,
            data_len: 0,
            digester: self.domain.file_digester(),
            waiting: at.clone().map(|at| (at, Entry { path: shown.clone(), ..entry })),
            shown,
            at,
        });
        Ok(())
    }

    fn content(&mut self, content: Content, sink: Sink<'_>) -> Result<(), ClientError> {
        let Some(mut file) = self.file.take() else {
            if self.damage == Damage::Here {
                return Ok(());
            }
            let source = malformed("content without its file");
            return Err(ClientError::Format { what: "the manifest is damaged".to_owned(), source });
        };
        let unreadable = content.end == Some(FileEnd::Unreadable);
        if !unreadable {
            file.begin(sink)?;
            for extent in &content.extents {
                file.extent(extent, sink)?;
            }
        }
        match content.end {
            None => self.file = Some(file),
            Some(end @ (FileEnd::Whole(digest) | FileEnd::Fuzzy(digest) | FileEnd::Torn(digest))) => {
                if file.offset != file.size || file.digester.finish() != digest {
                    return Err(broken(&file.path, "its extents do not add up to its size and digest"));
                }
                if file.wanted {
                    sink(Step::EndFile { data_len: file.data_len })?;
                }
                if let Some(mixture) = Mixture::of(end) {
                    self.mixed(&file, mixture, sink)?;
                }
                self.end_file(file, None);
            }
            Some(FileEnd::Unreadable) => {
                if file.wanted {
                    if file.waiting.is_none() {
                        sink(Step::AbandonFile)?;
                    }
                    sink(Step::Skip { path: file.path.clone() })?;
                }
                self.end_file(file, Some(Leader::Unreadable));
            }
        }
        Ok(())
    }

    /// Every name of it is marked, whichever of them brings the content.
    fn mixed(&mut self, file: &OpenFile, mixture: Mixture, sink: Sink<'_>) -> Result<(), ClientError> {
        self.mixtures.extend(file.group.map(|group| (group, mixture)));
        match self.pass {
            Pass::Wanted(_) if file.wanted => sink(Step::Mark { path: file.path.clone(), mixture }),
            Pass::Wanted(_) | Pass::Owed(_) => Ok(()),
        }
    }

    fn end_file(&mut self, file: OpenFile, became: Option<Leader>) {
        let Some(group) = file.group else { return };
        let placed = || file.at.map_or(Leader::Passed, Leader::At);
        self.leaders.insert(group, became.unwrap_or_else(placed));
    }

    fn hard_link(&mut self, entry: &Entry, sink: Sink<'_>) -> Result<(), ClientError> {
        let group = entry.link_group.ok_or_else(|| broken(&entry.path, "a hard link without its group"))?;
        self.enter(sink)?;
        let at = self.place(entry)?;
        if let Some(mixture) = self.mixtures.get(&group).copied() {
            sink(Step::Mark { path: entry.path.clone(), mixture })?;
        }
        let path = entry.path.clone();
        match self.leaders.get(&group) {
            Some(Leader::At(leader)) => {
                let leader = leader.clone();
                sink(Step::Link { at, path, leader })
            }
            Some(Leader::Unreadable) => sink(Step::Skip { path }),
            Some(Leader::Lost) => sink(Step::Lose { path, lost: Lost::Leader }),
            Some(Leader::Passed) => {
                self.leaders.insert(group, Leader::At(at.clone()));
                self.owed.insert(group, OwedTo { at: at.clone(), path: path.clone() });
                sink(Step::Owe { at, path })
            }
            None if self.damage != Damage::None => sink(Step::Lose { path, lost: Lost::Leader }),
            None => Err(broken(&entry.path, "it is a link of a file that did not come before it")),
        }
    }

    fn place(&self, entry: &Entry) -> Result<TargetPath, ClientError> {
        self.layout
            .place(entry)
            .ok_or_else(|| ClientError::Usage(format!("--strip-root: `{}` is outside the root", entry.path)))
    }
}

impl Mixture {
    fn of(end: FileEnd) -> Option<Self> {
        match end {
            FileEnd::Whole(_) | FileEnd::Unreadable => None,
            FileEnd::Fuzzy(_) => Some(Self::Fuzzy),
            FileEnd::Torn(_) => Some(Self::Torn),
        }
    }
}

impl OpenFile {
    fn begin(&mut self, sink: Sink<'_>) -> Result<(), ClientError> {
        match self.waiting.take() {
            Some((at, entry)) => sink(Step::BeginFile { at, entry }),
            None => Ok(()),
        }
    }

    fn extent(&mut self, extent: &Extent, sink: Sink<'_>) -> Result<(), ClientError> {
        let offset = self.offset;
        let end = offset.checked_add(extent.covered()).filter(|end| *end <= self.size);
        self.offset = end.ok_or_else(|| broken(&self.path, "its extents are longer than its size"))?;
        self.digester.push(extent);
        if let Extent::Chunk { id, len } = extent {
            self.data_len += u64::from(*len);
            if self.wanted {
                sink(Step::Chunk { offset, id: *id, len: *len })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
