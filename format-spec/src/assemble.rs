//! From the pages of one manifest to the tree that they stand for.
//!
//! An [`Assembler`] takes the pages of a manifest in order, some of which may be missing, and hands over parts:
//! each entry once, in path order, after the folder that it lies in; the content of each file; how each file ends;
//! and of each further name of a file, how that file ended. A page may be a stranger's. A record that breaks a rule
//! comes out as a [`Fault`] that names page and entry, is left out, and stops nothing: the caller decides
//! whether it goes on. A restore, both checks and everything that lists a snapshot stand on this, so that none of
//! them takes what another refuses.
//!
//! ```text
//! page ─▶ records ─▶ order · folder · link · length · digest ─▶ Entry · Link · Content · End · Nameless · Fault
//! ```
//! Memory: the path of the last entry, and for each link group its number and a byte. Nothing else grows with
//! the tree.

mod fault;
mod place;

use std::collections::HashMap;

use crate::entry::{Entry, EntryKind, Extent, FileEnd};
use crate::id::{ChunkId, FileDigest};
use crate::key::{DomainKey, FileDigester};
use crate::page::{Content, Record};
use crate::path::EntryPath;

pub use fault::{Fault, FaultKind};
use place::Place;
pub use place::Roots;

/// How much of a manifest is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// That its entries make a tree, and that each file has a beginning and an end.
    Tree,
    /// Also that the extents of each file have its length and its digest.
    Content,
}

/// How a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All of its content is there.
    Whole,
    /// All of it is there, a mixture of states that its owner's log repairs.
    Fuzzy,
    /// All of it is there, a mixture of states.
    Torn,
    /// The push could not read it to its end. Its content is not to be used.
    Unreadable,
    /// Some of its content, or its entry, is on a page that is missing.
    Lost,
    /// It broke a rule, which a [`Fault`] named.
    Broken,
}

/// A piece of the tree, in the order of the pages.
///
/// A file is an `Entry`, any number of `Content` and one `End`, with nothing else in between but a fault of this
/// file, after which it ends as [`Ending::Broken`].
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A folder, a symbolic link, or a file whose content follows.
    Entry(Entry),
    /// A hard link, and how the file ended whose further name it is.
    Link {
        /// The entry.
        entry: Entry,
        /// How its file ended.
        first: Ending,
    },
    /// More of the file that the last entry began.
    Content {
        /// Where in the file the first of the extents begins, in bytes.
        offset: u64,
        /// Extents that follow each other; at [`Depth::Content`] they do not reach beyond the file's size.
        extents: &'a [Extent],
    },
    /// The file that the last entry began has ended.
    End(Ending),
    /// Content of a file whose entry is missing or broke a rule.
    Nameless(&'a [Extent]),
    /// A rule is broken. The entry that it names was left out, or, if it is of the file that the last entry
    /// began, that file ends here.
    Fault(Fault),
}

/// A page without a fault and without links that begins and ends between files: all that an [`Assembler`] needs of
/// it where its id comes again.
#[derive(Debug, Clone)]
pub struct Seam {
    first: EntryPath,
    last: Place,
    roots: Roots,
}

impl Seam {
    /// The first entry of the page.
    pub fn first(&self) -> &EntryPath {
        &self.first
    }

    /// True if it holds for manifests with these roots: what an entry may be depends on them.
    pub fn holds_for(&self, roots: &Roots) -> bool {
        self.roots == *roots
    }
}

/// The file whose content is coming. Its path is that of the last entry.
struct OpenFile {
    size: u64,
    offset: u64,
    group: Option<u64>,
    digester: FileDigester,
}

/// Records that may be missing right before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    /// The folders of the next entry may be unknown, and so may the file of the next content.
    Here,
}

/// Puts pages together. See the [module](self).
pub struct Assembler {
    domain: DomainKey,
    roots: Roots,
    depth: Depth,
    place: Place,
    file: Option<OpenFile>,
    /// How the first name of each link group ended.
    firsts: HashMap<u64, Ending>,
    gap: Gap,
    pages_missing: bool,
}

impl Assembler {
    /// An assembler before the first page of a manifest with these roots, of a cluster with this key.
    pub fn new(domain: DomainKey, roots: Roots, depth: Depth) -> Self {
        Self {
            domain,
            roots,
            depth,
            place: Place::default(),
            file: None,
            firsts: HashMap::new(),
            gap: Gap::None,
            pages_missing: false,
        }
    }

    /// The last entry that was handed over or passed over; `/` itself before the first.
    pub fn last(&self) -> &EntryPath {
        self.place.last()
    }

    /// Takes the next page, and hands its parts to `sink`. Returns what is to be remembered of a page that may be
    /// passed over where its id comes again, if this is one.
    ///
    /// # Errors
    /// The first that `sink` returns. The assembler is of no use after it.
    pub fn page<E>(
        &mut self,
        id: ChunkId,
        records: Vec<Record>,
        sink: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<Option<Seam>, E> {
        let first = match records.first() {
            Some(Record::Entry(entry)) => Some(entry.path.clone()),
            _ => None,
        };
        let mut step = Step { of: self, page: Some(id), sink, stands_alone: true };
        for record in records {
            match record {
                Record::Entry(entry) => step.entry(entry)?,
                Record::Content(content) => step.content(&content)?,
            }
        }
        let stands_alone = step.stands_alone && self.file.is_none();
        let seam = |first| Seam { first, last: self.place.clone(), roots: self.roots.clone() };
        Ok(first.filter(|_| stands_alone).map(seam))
    }

    /// Takes a page that is known from before. A fault names no other entry than its first.
    ///
    /// # Errors
    /// The first that `sink` returns.
    pub fn known_page<E>(
        &mut self,
        id: ChunkId,
        page: &Seam,
        sink: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut step = Step { of: self, page: Some(id), sink, stands_alone: true };
        step.end_open_file()?;
        if let Err(kind) = step.of.check_place(&page.first, None) {
            step.fault(Some(page.first.clone()), kind)?;
        }
        self.place = page.last.clone();
        self.gap = Gap::None;
        Ok(())
    }

    /// Goes on after a page that is missing. A file whose content it had is lost.
    ///
    /// # Errors
    /// The errors of `sink`.
    pub fn missing_page<E>(&mut self, mut sink: impl FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        self.gap = Gap::Here;
        self.pages_missing = true;
        if self.end_file(Ending::Lost) { sink(Part::End(Ending::Lost)) } else { Ok(()) }
    }

    /// Ends the last page.
    ///
    /// # Errors
    /// The errors of `sink`.
    pub fn finish<E>(mut self, sink: impl FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        Step { of: &mut self, page: None, sink, stands_alone: true }.end_open_file()
    }

    /// Ends the open file, if there is one.
    fn end_file(&mut self, ending: Ending) -> bool {
        let file = self.file.take();
        self.firsts.extend(file.as_ref().and_then(|file| file.group).map(|group| (group, ending)));
        file.is_some()
    }

    /// Checks that an entry may come next at `path`; of its kind, if that is known.
    fn check_place(&self, path: &EntryPath, kind: Option<EntryKind>) -> Result<(), FaultKind> {
        if *self.place.last() >= *path {
            return Err(FaultKind::Order);
        }
        if kind.is_some_and(|kind| kind != EntryKind::Folder) && self.roots.lie_in(path) {
            return Err(FaultKind::HoldsRoot);
        }
        let is_root_or_around_one = self.roots.reach(path);
        if !is_root_or_around_one && !self.roots.hold(path) {
            return Err(FaultKind::OutsideRoots);
        }
        let may_have_missed = self.gap == Gap::Here && self.place.may_have_missed_folders_of(path);
        if is_root_or_around_one || may_have_missed || self.place.lies_within(path, &self.roots) {
            return Ok(());
        }
        Err(FaultKind::NoFolder)
    }

    /// Checks that an entry may come next, whatever its group.
    fn check_entry(&self, entry: &Entry) -> Result<(), FaultKind> {
        self.check_place(&entry.path, Some(entry.kind))?;
        fault::check_fields(entry)
    }
}

/// One page on its way through an assembler.
struct Step<'a, S> {
    of: &'a mut Assembler,
    page: Option<ChunkId>,
    sink: S,
    /// True if nothing in the page but its paths concerns other pages.
    stands_alone: bool,
}

impl<E, S: FnMut(Part<'_>) -> Result<(), E>> Step<'_, S> {
    fn entry(&mut self, entry: Entry) -> Result<(), E> {
        self.end_open_file()?;
        self.stands_alone &= entry.link_group.is_none();
        match self.of.check_entry(&entry) {
            Err(kind) => self.leave_out(&entry, kind),
            Ok(()) if entry.kind == EntryKind::HardLink => self.link(entry),
            Ok(()) if entry.kind == EntryKind::File => self.file(entry),
            Ok(()) => self.hand_over(entry),
        }
    }

    fn file(&mut self, entry: Entry) -> Result<(), E> {
        if entry.link_group.is_some_and(|group| self.of.firsts.contains_key(&group)) {
            return self.leave_out(&entry, FaultKind::SecondFirst);
        }
        self.of.file = Some(OpenFile {
            size: entry.size,
            offset: 0,
            group: entry.link_group,
            digester: self.of.domain.file_digester(),
        });
        self.hand_over(entry)
    }

    fn link(&mut self, entry: Entry) -> Result<(), E> {
        let known = entry.link_group.and_then(|group| self.of.firsts.get(&group).copied());
        let first = match known {
            None if !self.of.pages_missing => return self.leave_out(&entry, FaultKind::NoFirst),
            known => known.unwrap_or(Ending::Lost),
        };
        self.pass(&entry);
        (self.sink)(Part::Link { entry, first })
    }

    fn hand_over(&mut self, entry: Entry) -> Result<(), E> {
        self.pass(&entry);
        (self.sink)(Part::Entry(entry))
    }

    fn pass(&mut self, entry: &Entry) {
        self.of.place = Place::at(entry);
        self.of.gap = Gap::None;
    }

    /// Goes on as if the entry were missing.
    fn leave_out(&mut self, entry: &Entry, kind: FaultKind) -> Result<(), E> {
        self.of.gap = Gap::Here;
        if let (EntryKind::File, Some(group)) = (entry.kind, entry.link_group) {
            self.of.firsts.entry(group).or_insert(Ending::Broken);
        }
        self.fault(Some(entry.path.clone()), kind)
    }

    fn content(&mut self, content: &Content) -> Result<(), E> {
        let Some(file) = &mut self.of.file else {
            if self.of.gap == Gap::None {
                self.of.gap = Gap::Here;
                self.fault(None, FaultKind::NoEntry)?;
            }
            return (self.sink)(Part::Nameless(&content.extents));
        };
        if content.end == Some(FileEnd::Unreadable) {
            return self.end(Ending::Unreadable);
        }
        let offset = file.offset;
        let covered = content.extents.iter().map(Extent::covered).fold(offset, u64::saturating_add);
        file.offset = covered;
        if self.of.depth == Depth::Content {
            if covered > file.size {
                let size = file.size;
                return self.break_off(content, FaultKind::Size { size, covered });
            }
            content.extents.iter().for_each(|extent| file.digester.push(extent));
        }
        if !content.extents.is_empty() {
            (self.sink)(Part::Content { offset, extents: &content.extents })?;
        }
        match content.end {
            None => Ok(()),
            Some(FileEnd::Unreadable) => self.end(Ending::Unreadable),
            Some(FileEnd::Whole(digest)) => self.end_whole(content, digest, Ending::Whole),
            Some(FileEnd::Fuzzy(digest)) => self.end_whole(content, digest, Ending::Fuzzy),
            Some(FileEnd::Torn(digest)) => self.end_whole(content, digest, Ending::Torn),
        }
    }

    fn end_whole(&mut self, content: &Content, digest: FileDigest, ending: Ending) -> Result<(), E> {
        match &self.of.file {
            Some(file) if self.of.depth == Depth::Content => match file.check(digest) {
                Ok(()) => self.end(ending),
                Err(kind) => self.break_off(content, kind),
            },
            _ => self.end(ending),
        }
    }

    /// Names what is wrong with the open file, and ends it.
    fn break_off(&mut self, content: &Content, kind: FaultKind) -> Result<(), E> {
        if content.end.is_none() {
            self.of.gap = Gap::Here;
        }
        self.fault(Some(self.of.place.last().clone()), kind)?;
        self.end(Ending::Broken)
    }

    /// Ends a file of which there is no more.
    fn end_open_file(&mut self) -> Result<(), E> {
        if self.of.file.is_none() {
            return Ok(());
        }
        self.fault(Some(self.of.place.last().clone()), FaultKind::NoEnd)?;
        self.end(Ending::Broken)
    }

    fn end(&mut self, ending: Ending) -> Result<(), E> {
        self.of.end_file(ending);
        (self.sink)(Part::End(ending))
    }

    fn fault(&mut self, path: Option<EntryPath>, kind: FaultKind) -> Result<(), E> {
        self.stands_alone = false;
        (self.sink)(Part::Fault(Fault { page: self.page, path, kind }))
    }
}

impl OpenFile {
    fn check(&self, digest: FileDigest) -> Result<(), FaultKind> {
        if self.offset != self.size {
            return Err(FaultKind::Size { size: self.size, covered: self.offset });
        }
        if self.digester.finish() != digest {
            return Err(FaultKind::Digest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
