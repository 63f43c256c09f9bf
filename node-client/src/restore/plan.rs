//! From the tree of a manifest to the steps of a restore: a state machine without I/O.
//!
//! [`Assembler`] puts the pages together and checks them; this says what of the tree is wanted, and where it goes. It
//! trusts nothing: pages may have been written by a stranger. A record that breaks a rule ends it with an error of
//! class Integrity, and no step of that record is emitted. Pages may be missing, if that is said: what can no longer
//! be known then is lost, and the rest goes on. Steps come in an order that can be run as it is: a folder is entered
//! before anything in it, and left after all of it.

use std::collections::{BTreeMap, HashMap};

use format_spec::assemble::{Assembler, Depth, Ending, Fault, Part, Roots};
use format_spec::key::DomainKey;
use format_spec::page::Record;
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, Extent, FormatError};

use super::filter::{Filter, Selection};
use super::folder::Choice;
use super::layout::{Layout, TargetPath};
use crate::error::ClientError;

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
    /// A chosen name of which too little is known, because a page of the manifest is damaged.
    Lose { path: EntryPath, lost: Lost },
    /// Link `at` to `leader`, once all files are there.
    Link { at: TargetPath, path: EntryPath, leader: TargetPath },
    /// `at` is the first chosen name of a file whose content is under a name that is not chosen: a second
    /// pass restores it.
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

/// A folder that may contain the next entry.
struct Frame {
    path: EntryPath,
    entry: Option<(Entry, Choice)>,
    entered: bool,
}

/// The file whose content is coming.
struct OpenFile {
    /// The name that its content is restored under.
    shown: EntryPath,
    /// Its place; `None` if it is not chosen.
    at: Option<TargetPath>,
    /// The same and its entry, until `BeginFile` takes them.
    waiting: Option<(TargetPath, Entry)>,
    group: Option<u64>,
    data_len: u64,
}

/// Pages in, steps out. Memory: that of the assembler, the folders around the current entry, and the place of
/// the first name of each link group.
pub(super) struct Planner {
    domain: DomainKey,
    roots: Roots,
    assembler: Assembler,
    plan: Plan,
}

/// Use of the tree.
struct Plan {
    layout: Layout,
    pass: Pass,
    frames: Vec<Frame>,
    file: Option<OpenFile>,
    /// Where the first wanted name of a link group is.
    leaders: HashMap<u64, TargetPath>,
    owed: BTreeMap<u64, OwedTo>,
    pages_missing: bool,
}

impl Planner {
    /// A planner for what `filter` lets through of a manifest with these roots.
    pub(super) fn new(domain: DomainKey, roots: Roots, layout: Layout, filter: Filter) -> Self {
        Self::with_pass(domain, roots, layout, Pass::Wanted(Selection::new(filter)))
    }

    fn with_pass(domain: DomainKey, roots: Roots, layout: Layout, pass: Pass) -> Self {
        let assembler = Assembler::new(domain.clone(), roots.clone(), Depth::Content);
        let plan = Plan {
            layout,
            pass,
            frames: Vec::new(),
            file: None,
            leaders: HashMap::new(),
            owed: BTreeMap::new(),
            pages_missing: false,
        };
        Self { domain, roots, assembler, plan }
    }

    /// Takes the records of the next page.
    ///
    /// # Errors
    /// Class Integrity if one breaks a rule; whatever `sink` returns.
    pub(super) fn page(
        &mut self,
        id: ChunkId,
        records: Vec<Record>,
        sink: Sink<'_>,
    ) -> Result<(), ClientError> {
        self.assembler.page(id, records, |part| self.plan.part(part, sink)).map(drop)
    }

    /// Goes on after a page that could not be read. A file whose content it had is lost.
    ///
    /// # Errors
    /// The errors of `sink`.
    pub(super) fn missing_page(&mut self, sink: Sink<'_>) -> Result<(), ClientError> {
        self.plan.pages_missing = true;
        self.assembler.missing_page(|part| self.plan.part(part, sink))
    }

    /// Ends the pass. If link groups are owed, their content comes in a second pass over the same
    /// pages with the planner that is returned.
    ///
    /// # Errors
    /// Class Integrity if the pages stop within a file, or a second pass did not find its files though no page was
    /// missing.
    pub(super) fn finish(self, sink: Sink<'_>) -> Result<Option<Planner>, ClientError> {
        let Self { domain, roots, assembler, mut plan } = self;
        assembler.finish(|part| plan.part(part, sink))?;
        plan.leave(None, sink)?;
        let next = plan.finish(sink)?;
        Ok(next.map(|(layout, pass)| Self::with_pass(domain, roots, layout, pass)))
    }
}

/// The error for a fault, which ends a restore.
pub(super) fn cannot_be_restored(fault: &Fault) -> ClientError {
    let what = match &fault.path {
        Some(path) => format!("`{path}` cannot be restored"),
        None => "the manifest is damaged".to_owned(),
    };
    let page = fault.page.map(|page| format!(" (page {page})")).unwrap_or_default();
    let source = FormatError::Malformed { what: "manifest", why: format!("{fault}{page}") };
    ClientError::Format { what, source }
}

impl Plan {
    fn part(&mut self, part: Part<'_>, sink: Sink<'_>) -> Result<(), ClientError> {
        match part {
            Part::Entry(entry) => self.entry(entry, sink),
            Part::Link { entry, first } => self.hard_link(&entry, first, sink),
            Part::Content { offset, extents } => match &mut self.file {
                Some(file) => file.content(offset, extents, sink),
                None => Ok(()),
            },
            Part::End(ending) => self.end(ending, sink),
            Part::Nameless(_) => Ok(()),
            Part::Fault(fault) => Err(cannot_be_restored(&fault)),
        }
    }

    fn entry(&mut self, entry: Entry, sink: Sink<'_>) -> Result<(), ClientError> {
        let wanted = self.come_to(&entry.path, sink)?;
        match entry.kind {
            EntryKind::Folder => self.folder(entry, wanted, sink),
            EntryKind::File => self.file(entry, wanted, sink),
            EntryKind::Symlink | EntryKind::HardLink if !wanted => Ok(()),
            EntryKind::Symlink | EntryKind::HardLink => {
                self.enter(sink)?;
                let at = self.place(&entry)?;
                sink(Step::Symlink { at, entry })
            }
        }
    }

    /// Leaves folders that do not contain `path`, notes those that do, and returns whether it is chosen.
    fn come_to(&mut self, path: &EntryPath, sink: Sink<'_>) -> Result<bool, ClientError> {
        self.leave(Some(path), sink)?;
        let known = self.frames.len();
        let folder_of = |path: &EntryPath| path.split_last().map(|(folder, _)| folder);
        let mut missing = folder_of(path).filter(|folder| !folder.is_top());
        while let Some(path) = missing.take() {
            if self.frames.get(..known).and_then(<[Frame]>::last).is_some_and(|frame| frame.path == path) {
                break;
            }
            missing = folder_of(&path).filter(|folder| !folder.is_top());
            self.frames.push(Frame { path, entry: None, entered: false });
        }
        if let Some(added) = self.frames.get_mut(known..) {
            added.reverse();
        }
        Ok(match &mut self.pass {
            Pass::Wanted(selection) => selection.wants(path),
            Pass::Owed(_) => false,
        })
    }

    /// Leaves the folders that do not contain `next`.
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

    fn folder(&mut self, entry: Entry, wanted: bool, sink: Sink<'_>) -> Result<(), ClientError> {
        let choice = if wanted { Choice::Wanted } else { Choice::OnTheWay };
        self.frames.push(Frame { path: entry.path.clone(), entry: Some((entry, choice)), entered: false });
        if wanted { self.enter(sink) } else { Ok(()) }
    }

    fn file(&mut self, entry: Entry, wanted: bool, sink: Sink<'_>) -> Result<(), ClientError> {
        if wanted {
            self.enter(sink)?;
        }
        let group = entry.link_group;
        let owed = match &mut self.pass {
            Pass::Wanted(_) => None,
            Pass::Owed(owed) => group.and_then(|group| owed.remove(&group)),
        };
        let (at, shown) = match owed {
            Some(OwedTo { at, path }) => (Some(at), path),
            None if wanted => (Some(self.place(&entry)?), entry.path.clone()),
            None => (None, entry.path.clone()),
        };
        let waiting = at.clone().map(|at| (at, Entry { path: shown.clone(), ..entry }));
        self.file = Some(OpenFile { shown, at, waiting, group, data_len: 0 });
        Ok(())
    }

    fn end(&mut self, ending: Ending, sink: Sink<'_>) -> Result<(), ClientError> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        if file.at.is_none() {
            return Ok(());
        }
        let path = file.shown.clone();
        match ending {
            Ending::Whole | Ending::Fuzzy | Ending::Torn => {
                file.begin(sink)?;
                sink(Step::EndFile { data_len: file.data_len })?;
                self.leaders.extend(file.group.zip(file.at));
                match (Mixture::of(ending), &self.pass) {
                    (Some(mixture), Pass::Wanted(_)) => sink(Step::Mark { path, mixture }),
                    // In a second pass it is marked already.
                    _ => Ok(()),
                }
            }
            Ending::Unreadable => {
                file.abandon(sink)?;
                sink(Step::Skip { path })
            }
            Ending::Lost | Ending::Broken => {
                file.abandon(sink)?;
                sink(Step::Lose { path, lost: Lost::Content })
            }
        }
    }

    /// Every name of a mixture is marked, whichever of them brings the content.
    fn hard_link(&mut self, entry: &Entry, first: Ending, sink: Sink<'_>) -> Result<(), ClientError> {
        if !self.come_to(&entry.path, sink)? {
            return Ok(());
        }
        self.enter(sink)?;
        let (at, path) = (self.place(entry)?, entry.path.clone());
        match first {
            Ending::Unreadable => return sink(Step::Skip { path }),
            Ending::Lost | Ending::Broken => return sink(Step::Lose { path, lost: Lost::Leader }),
            Ending::Whole | Ending::Fuzzy | Ending::Torn => {}
        }
        if let Some(mixture) = Mixture::of(first) {
            sink(Step::Mark { path: path.clone(), mixture })?;
        }
        let Some(group) = entry.link_group else { return Ok(()) };
        if let Some(leader) = self.leaders.get(&group).cloned() {
            return sink(Step::Link { at, path, leader });
        }
        self.leaders.insert(group, at.clone());
        self.owed.insert(group, OwedTo { at: at.clone(), path: path.clone() });
        sink(Step::Owe { at, path })
    }

    fn place(&self, entry: &Entry) -> Result<TargetPath, ClientError> {
        self.layout
            .place(entry)
            .ok_or_else(|| ClientError::Usage(format!("--strip-root: `{}` is outside the root", entry.path)))
    }

    /// Ends the pass. Answers with the second one, if that is to bring something.
    fn finish(self, sink: Sink<'_>) -> Result<Option<(Layout, Pass)>, ClientError> {
        let missing = match self.pass {
            Pass::Wanted(_) if self.owed.is_empty() => return Ok(None),
            Pass::Wanted(_) => return Ok(Some((self.layout, Pass::Owed(self.owed)))),
            Pass::Owed(missing) => missing,
        };
        match missing.first_key_value() {
            Some((_, to)) if !self.pages_missing => Err(ClientError::Format {
                what: format!("`{}` cannot be restored", to.path),
                source: FormatError::Malformed {
                    what: "manifest",
                    why: "the file that it is a link of is missing".to_owned(),
                },
            }),
            _ => {
                let mut lose = |to: &OwedTo| sink(Step::Lose { path: to.path.clone(), lost: Lost::Leader });
                missing.values().try_for_each(&mut lose).map(|()| None)
            }
        }
    }
}

impl Mixture {
    fn of(ending: Ending) -> Option<Self> {
        match ending {
            Ending::Fuzzy => Some(Self::Fuzzy),
            Ending::Torn => Some(Self::Torn),
            Ending::Whole | Ending::Unreadable | Ending::Lost | Ending::Broken => None,
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

    fn content(&mut self, mut offset: u64, extents: &[Extent], sink: Sink<'_>) -> Result<(), ClientError> {
        if self.at.is_none() {
            return Ok(());
        }
        self.begin(sink)?;
        for extent in extents {
            if let Extent::Chunk { id, len } = extent {
                self.data_len += u64::from(*len);
                sink(Step::Chunk { offset, id: *id, len: *len })?;
            }
            offset += extent.covered();
        }
        Ok(())
    }

    fn abandon(&self, sink: Sink<'_>) -> Result<(), ClientError> {
        if self.waiting.is_some() { Ok(()) } else { sink(Step::AbandonFile) }
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
