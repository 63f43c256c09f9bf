//! Pages: runs of a node's entries in path order, with boundaries that content decides.
//!
//! A page's plaintext is `"APG" · version · records`, where each record is CBOR and the last ends
//! with the page. A file is an [`Entry`] followed by one or more [`Content`] records, the last of
//! which has an [`FileEnd`]; a long list of extents goes on in the next pages. Whether a page ends
//! after an entry depends on that entry's path, and after an extent on its chunk id, never on what
//! lies before: a changed file or a grown log rewrites a page or two, and the others keep their
//! ids.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::entry::{Entry, EntryKind, Extent, FileEnd};
use crate::error::FormatError;
use crate::id::ChunkId;
use crate::key::DomainKey;
use crate::path::EntryPath;

/// Longest plaintext of a page that a reader takes.
pub const MAX_PAGE_LEN: usize = 1 << 20;

const MAGIC: [u8; 4] = *b"APG\x01";
/// No boundary before this many bytes.
const MIN_LEN: usize = 16 << 10;
/// A boundary at the latest once a page has this many.
const CUT_LEN: usize = 256 << 10;
/// An entry of about 130 bytes ends a page one time in 512: about 64 KiB after the minimum.
const ENTRY_MASK: u64 = 511;
/// An extent of 39 bytes ends a page one time in 1,024: about 40 KiB after the minimum.
const EXTENT_MASK: u64 = 1023;
/// Bytes of an encoded extent, for the running length of a page.
const EXTENT_LEN: usize = 39;

/// A run of one file's extents.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Content {
    /// The next extents of the file.
    #[n(0)]
    pub extents: Vec<Extent>,
    /// Given with the file's last extents.
    #[n(1)]
    pub end: Option<FileEnd>,
}

/// One record of a page.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// The next entry. If it is a file, content follows.
    #[n(0)]
    Entry(#[n(0)] Entry),
    /// More of the file that the last entry began, perhaps on an earlier page.
    #[n(1)]
    Content(#[n(0)] Content),
}

/// The plaintext of a finished page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The records of a page.
///
/// # Errors
/// [`FormatError`] for anything that [`PageBuilder`] would not have written.
pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, FormatError> {
    let malformed = |why: String| FormatError::malformed("page", why);
    if bytes.len() > MAX_PAGE_LEN {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        return Err(FormatError::TooLong { what: "page", len: wide(bytes.len()), limit: wide(MAX_PAGE_LEN) });
    }
    let records = match bytes.split_first_chunk::<4>() {
        Some(([b'A', b'P', b'G', 1], records)) => records,
        Some(([b'A', b'P', b'G', version], _)) => {
            return Err(FormatError::Version { what: "page", found: u16::from(*version), expected: 1 });
        }
        _ => return Err(FormatError::Magic { what: "page" }),
    };
    let mut decoder = minicbor::Decoder::new(records);
    let mut out = Vec::new();
    let mut order = Order::default();
    while decoder.position() < records.len() {
        let start = decoder.position();
        let record = decoder.decode().map_err(|error| malformed(error.to_string()))?;
        let bytes = records.get(start..decoder.position()).unwrap_or_default();
        cbor::check_canonical("page", &record, bytes)?;
        order.next(&record)?;
        out.push(record);
    }
    if out.is_empty() || order.expects == Expects::Content {
        return Err(malformed("it ends before its first record, or before a file's content".to_owned()));
    }
    Ok(out)
}

/// Items that may come next in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// At the start: an entry, or more of a file that an earlier page began.
    Any,
    /// After a file's entry.
    Content,
    /// After anything that is whole.
    Entry,
    /// After content without an end: the next page continues it.
    Nothing,
}

/// State that checks the order within a page: entries ascend, and a file's content follows it at once.
struct Order {
    expects: Expects,
    last: Option<EntryPath>,
}

impl Default for Order {
    fn default() -> Self {
        Self { expects: Expects::Any, last: None }
    }
}

impl Order {
    fn next(&mut self, record: &Record) -> Result<(), FormatError> {
        let wrong = |why: &str| Err(FormatError::malformed("page", why));
        self.expects = match (self.expects, record) {
            (Expects::Nothing, _) => return wrong("content without an end is not the last record"),
            (Expects::Content, Record::Entry(_)) => return wrong("a file without its content"),
            (Expects::Entry, Record::Content(_)) => return wrong("content that belongs to no file"),
            (_, Record::Entry(entry)) => {
                entry.check()?;
                if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
                    return wrong("entries are not in path order");
                }
                self.last = Some(entry.path.clone());
                if entry.kind == EntryKind::File { Expects::Content } else { Expects::Entry }
            }
            (_, Record::Content(content)) => match content.end {
                Some(_) => Expects::Entry,
                None if content.extents.is_empty() => return wrong("content of nothing"),
                None => Expects::Nothing,
            },
        };
        Ok(())
    }
}

/// The chunks that the records of a page need, each once per use.
pub fn references(records: &[Record]) -> impl Iterator<Item = ChunkId> {
    let contents = records.iter().filter_map(|record| match record {
        Record::Content(content) => Some(content),
        Record::Entry(_) => None,
    });
    contents.flat_map(|content| content.extents.iter().filter_map(Extent::chunk))
}

/// Where a [`PageBuilder`] stood at some moment.
#[derive(Debug, Clone, Copy)]
pub struct PageMark {
    len: usize,
    boundary: bool,
}

/// Builds pages from a node's entries in path order. Memory: one page.
pub struct PageBuilder {
    domain: DomainKey,
    bytes: Vec<u8>,
    extents: Vec<Extent>,
    boundary: bool,
}

impl PageBuilder {
    /// A builder whose boundaries follow the key of `domain`.
    pub fn new(domain: DomainKey) -> Self {
        Self { domain, bytes: MAGIC.to_vec(), extents: Vec::new(), boundary: false }
    }

    /// Adds an entry. If it is a file, [`extent`](Self::extent) and [`end_file`](Self::end_file)
    /// follow. Returns a page when one is full. An entry that does not pass [`Entry::check`] makes a
    /// page that no reader takes.
    pub fn entry(&mut self, entry: &Entry) -> Option<Page> {
        self.boundary = self.domain.boundary_of(entry.path.as_bytes()) & ENTRY_MASK == 0;
        self.record(&Record::Entry(entry.clone()));
        if entry.kind == EntryKind::File { None } else { self.page_if_due() }
    }

    /// Adds the next extent of the file that [`entry`](Self::entry) began.
    pub fn extent(&mut self, extent: Extent) -> Option<Page> {
        let id = extent.chunk();
        self.extents.push(extent);
        let due = self.due(id.is_some_and(|id| low_bits(&id) & EXTENT_MASK == 0));
        if !due {
            return None;
        }
        self.content(None);
        Some(self.take_page())
    }

    /// Ends the file that [`entry`](Self::entry) began.
    pub fn end_file(&mut self, end: FileEnd) -> Option<Page> {
        self.content(Some(end));
        self.page_if_due()
    }

    /// A moment between two entries, to come back to. Not to be called within a file.
    pub fn mark(&self) -> PageMark {
        PageMark { len: self.bytes.len(), boundary: self.boundary }
    }

    /// Forgets everything since `mark`. If pages were returned since then, `first` is the first of them.
    pub fn rewind(&mut self, mark: PageMark, first: Option<Vec<u8>>) {
        self.bytes = first.unwrap_or_else(|| std::mem::take(&mut self.bytes));
        self.bytes.truncate(mark.len);
        self.extents.clear();
        self.boundary = mark.boundary;
    }

    /// The last page, if anything is left for one.
    pub fn finish(&mut self) -> Option<Page> {
        (self.bytes.len() > MAGIC.len()).then(|| self.take_page())
    }

    fn content(&mut self, end: Option<FileEnd>) {
        let extents = std::mem::take(&mut self.extents);
        self.record(&Record::Content(Content { extents, end }));
    }

    fn record(&mut self, record: &Record) {
        minicbor::encode(record, &mut self.bytes).expect("writing to memory does not fail");
    }

    fn page_if_due(&mut self) -> Option<Page> {
        self.due(self.boundary).then(|| self.take_page())
    }

    fn due(&self, boundary: bool) -> bool {
        let len = self.bytes.len() + self.extents.len() * EXTENT_LEN;
        len >= CUT_LEN || (boundary && len >= MIN_LEN)
    }

    fn take_page(&mut self) -> Page {
        Page { bytes: std::mem::replace(&mut self.bytes, MAGIC.to_vec()) }
    }
}

fn low_bits(id: &ChunkId) -> u64 {
    let (low, _) = id.as_bytes().split_first_chunk::<8>().expect("an id has 32 bytes");
    u64::from_le_bytes(*low)
}

#[cfg(test)]
#[path = "page/tests.rs"]
mod tests;
