//! A state or a journal, merged with a list of files: both contain the same paths in the same order.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::vec::IntoIter;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::page::{self, Content, MAX_PAGE_LEN, Record};
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, SessionId};

use super::inodes::{Inode, Inodes};
use super::{BLOCK_HEAD_LEN, CHECK_LEN, Fields, Header, SLOT_LEN, Slot, block_check, parse_slots, wide};

/// A state that is not what was written. Push without it.
#[derive(Debug, thiserror::Error)]
#[error("the push state is damaged")]
pub(crate) struct Damaged;

impl From<io::Error> for Damaged {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Completion of the push that wrote the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finished {
    Yes,
    /// It is a journal, which may end anywhere.
    No,
}

/// The blocks of a state or a journal, read wherever they are asked for.
struct Blocks {
    /// The key of the checks; without it none is checked.
    domain: Option<DomainKey>,
    session: SessionId,
    finished: Finished,
    file: File,
    start: u64,
    end: u64,
}

/// Content of a block, and the position of the next one.
struct Block {
    records: Vec<Record>,
    slots: Vec<Option<Slot>>,
    next: u64,
}

impl Blocks {
    fn read(&self, position: u64) -> Result<Block, Damaged> {
        let mut head = [0; BLOCK_HEAD_LEN];
        self.file.read_exact_at(&mut head, position)?;
        let mut fields = Fields(&head);
        let lens = (fields.u32(), fields.u32(), fields.array::<CHECK_LEN>());
        let (Some(page_len), Some(slots), Some(found)) = lens else { return Err(Damaged) };
        let narrow = |len: u32| usize::try_from(len).ok().filter(|len| *len <= MAX_PAGE_LEN).ok_or(Damaged);
        let (page_len, slots_len) = (narrow(page_len)?, narrow(slots)? * SLOT_LEN);
        // No memory for lengths that only claim to be there.
        let next = position.saturating_add(wide(BLOCK_HEAD_LEN + page_len + slots_len));
        if next > self.end {
            return Err(Damaged);
        }
        let mut bytes = vec![0; page_len + slots_len];
        self.file.read_exact_at(&mut bytes, position + wide(BLOCK_HEAD_LEN))?;
        let (page, slot_bytes) = bytes.split_at(page_len);
        let is_as_written = self.domain.as_ref().is_none_or(|domain| {
            let id = domain.id_of(BlobKind::Page, page);
            block_check(domain, self.session.as_bytes(), position, &id, slot_bytes) == found
        });
        if !is_as_written {
            return Err(Damaged);
        }
        let records = page::decode(page).map_err(|_| Damaged)?;
        Ok(Block { records, slots: parse_slots(slot_bytes).ok_or(Damaged)?, next })
    }
}

/// The files of an earlier push, in path order.
pub(crate) struct Known {
    blocks: Arc<Blocks>,
    position: u64,
    records: IntoIter<Record>,
    slots: IntoIter<Option<Slot>>,
    next: Option<KnownFile>,
    passed: u64,
}

/// A file of an earlier push.
#[derive(Debug)]
pub(crate) struct KnownFile {
    pub(crate) entry: Entry,
    /// Record when it was read; `None` if that cannot be relied on.
    pub(crate) slot: Option<Slot>,
}

impl Known {
    /// The files of the state or journal that `header` begins.
    ///
    /// # Errors
    /// [`Damaged`] if the header is not what was written with the key of `domain`.
    pub(crate) fn open(header: Header, domain: DomainKey) -> Result<Self, Damaged> {
        let Header { preamble, mut file } = header;
        let expected = preamble.encode(&domain);
        let mut found = [0; CHECK_LEN];
        file.read_exact(&mut found)?;
        if !expected.ends_with(&found) {
            return Err(Damaged);
        }
        Self::behind(Header { preamble, file }, Some(domain))
    }

    /// The same without the key, and so without any check but that of the grammar: good for a forecast, and for nothing
    /// that is kept.
    ///
    /// # Errors
    /// [`Damaged`] if it is shorter than its header says.
    pub(crate) fn open_unchecked(header: Header) -> Result<Self, Damaged> {
        Self::behind(header, None)
    }

    fn behind(header: Header, domain: Option<DomainKey>) -> Result<Self, Damaged> {
        let Header { preamble, file } = header;
        let len = file.metadata()?.len();
        let (finished, end) =
            if preamble.end == 0 { (Finished::No, len) } else { (Finished::Yes, preamble.end) };
        if end > len {
            return Err(Damaged);
        }
        let start = wide(preamble.body().len() + CHECK_LEN);
        let session = preamble.session;
        Ok(Self::over(Arc::new(Blocks { domain, session, finished, file, start, end })))
    }

    fn over(blocks: Arc<Blocks>) -> Self {
        let position = blocks.start;
        let (records, slots) = (Vec::new().into_iter(), Vec::new().into_iter());
        Self { blocks, position, records, slots, next: None, passed: 0 }
    }

    /// The same files by their inodes; `None` for a journal, which has no list of those.
    pub(crate) fn by_inode(&self) -> Option<ByInode> {
        if self.blocks.finished == Finished::No {
            return None;
        }
        let file = self.blocks.file.try_clone().ok()?;
        let inodes = Inodes::open(file, self.blocks.end)?;
        Some(ByInode { inodes, known: Self::over(Arc::clone(&self.blocks)), place: None })
    }

    /// Goes back to the first file.
    pub(crate) fn rewind(&mut self) -> Result<(), Damaged> {
        *self = Self::over(Arc::clone(&self.blocks));
        Ok(())
    }

    /// The file at `path`, if there was one. Paths must come in ascending order.
    pub(crate) fn find(&mut self, path: &EntryPath) -> Result<Option<KnownFile>, Damaged> {
        loop {
            if self.next.is_none() {
                self.next = self.next_file()?;
            }
            match self.next.as_ref().map(|next| next.entry.path.cmp(path)) {
                Some(Ordering::Less) => {
                    self.next = None;
                    self.passed += 1;
                }
                Some(Ordering::Equal) => return Ok(self.next.take()),
                Some(Ordering::Greater) | None => return Ok(None),
            }
        }
    }

    /// How many of its files were never found, when all paths that there are have come.
    pub(crate) fn count_gone(&mut self) -> Result<u64, Damaged> {
        self.passed += u64::from(self.next.take().is_some());
        while self.next_file()?.is_some() {
            self.passed += 1;
        }
        Ok(self.passed)
    }

    /// The next part of the content of the file that [`find`](Self::find) just gave; `None` if a
    /// journal ends before the file does.
    pub(crate) fn content(&mut self) -> Result<Option<Content>, Damaged> {
        match self.next_record()? {
            Some(Record::Content(content)) => Ok(Some(content)),
            None if self.blocks.finished == Finished::No => Ok(None),
            _ => Err(Damaged),
        }
    }

    /// The chunks of the next page; `None` after the last.
    pub(crate) fn next_chunks(&mut self) -> Result<Option<Vec<ChunkId>>, Damaged> {
        if !self.next_block()? {
            return Ok(None);
        }
        Ok(Some(page::references(self.records.as_slice()).collect()))
    }

    pub(super) fn next_file(&mut self) -> Result<Option<KnownFile>, Damaged> {
        while let Some(record) = self.next_record()? {
            if let Record::Entry(entry) = record
                && entry.kind == EntryKind::File
            {
                let slot = self.slots.next().ok_or(Damaged)?;
                return Ok(Some(KnownFile { entry, slot }));
            }
        }
        Ok(None)
    }

    fn next_record(&mut self) -> Result<Option<Record>, Damaged> {
        loop {
            if let Some(record) = self.records.next() {
                return Ok(Some(record));
            }
            if !self.next_block()? {
                return Ok(None);
            }
        }
    }

    /// Reads the next block, if there is one.
    fn next_block(&mut self) -> Result<bool, Damaged> {
        if self.position >= self.blocks.end {
            return Ok(false);
        }
        match self.blocks.read(self.position) {
            Ok(block) => {
                self.take(block);
                Ok(true)
            }
            Err(Damaged) if self.blocks.finished == Finished::No => {
                self.position = self.blocks.end;
                Ok(false)
            }
            Err(Damaged) => Err(Damaged),
        }
    }

    fn take(&mut self, block: Block) {
        self.position = block.next;
        self.records = block.records.into_iter();
        self.slots = block.slots.into_iter();
    }
}

/// A block that is being read.
struct BlockPlace {
    position: u64,
    /// Number of its files that have come.
    came: u32,
    files: u32,
}

/// The files of the last push, looked up by what they are and not by what they were called.
pub(crate) struct ByInode {
    inodes: Inodes,
    known: Known,
    place: Option<BlockPlace>,
}

impl ByInode {
    /// The file that `fits`, of those with the inode number `ino`. What is damaged is not found.
    pub(crate) fn find(&mut self, ino: u64, fits: impl Fn(&Slot) -> bool) -> Option<KnownFile> {
        for Inode { position, file, .. } in self.inodes.find(ino) {
            let Some(found) = self.file_at(position, file) else { continue };
            if found.slot.as_ref().is_some_and(&fits) {
                return Some(found);
            }
        }
        None
    }

    /// The next part of the content of the file that [`find`](Self::find) just gave.
    pub(crate) fn content(&mut self) -> Result<Option<Content>, Damaged> {
        self.place = None;
        self.known.content()
    }

    /// The file of this number in the block at `position`.
    fn file_at(&mut self, position: u64, number: u32) -> Option<KnownFile> {
        let place = match self.place.take() {
            // Files that were moved together are looked up one after the other.
            Some(place) if place.position == position && place.came <= number => place,
            _ => {
                let block = self.known.blocks.read(position).ok()?;
                let files = u32::try_from(block.slots.len()).ok()?;
                self.known.take(block);
                BlockPlace { position, came: 0, files }
            }
        };
        // A damaged row may have any number.
        if number >= place.files {
            return None;
        }
        let mut found = None;
        for _ in place.came..=number {
            found = self.known.next_file().ok()?;
        }
        self.place = Some(BlockPlace { came: number + 1, ..place });
        found
    }
}
