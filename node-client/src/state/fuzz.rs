//! Ways into the state of a push, for the fuzzers. A keyed check covers every part of it, so that bytes made
//! up by a stranger get no further than the first: [`with_fitting_checks`] lets them.

use std::fs::File;
use std::io::{self, Seek, Write};

use format_spec::page::PageBuilder;
use format_spec::{Entry, EntryKind, EntryPath, Extent, FileEnd};

use super::known::KnownFile;
use super::place::read_header;
use super::{
    BLOCK_HEAD_LEN, BlobKind, CHECK_LEN, Damaged, DomainKey, FIXED_LEN, Fields, Habit, Identity, Known,
    ManifestId, Preamble, RepositoryId, SLOT_LEN, SessionId, Settled, Slot, Source, Timestamp, block_check,
    parse_slot, push_slot,
};

/// Content of a state or a journal that a push would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its files in order: the path, and whether something is known of its inode.
    pub files: Vec<(EntryPath, bool)>,
    /// How many chunks its pages refer to.
    pub chunks: usize,
}

fn domain() -> DomainKey {
    DomainKey::parse(&"5a".repeat(32)).expect("these are 64 hex digits")
}

/// Reads all of a state or a journal, as the pushes after it do; `None` if it is damaged.
///
/// # Panics
/// If it says something else when it is read a second time, or a slot does not read back.
pub fn remembered(bytes: &[u8]) -> Option<Remembered> {
    let header = read_header(in_memory(bytes).ok()?)?;
    let mut known = Known::open(header, domain()).ok()?;
    let found = read_all(&mut known);
    known.rewind().expect("a file in memory can be read again");
    assert_eq!(read_all(&mut known).ok(), found.as_ref().ok().cloned(), "it says something else later");
    known.rewind().expect("a file in memory can be read again");
    if let Ok(found) = &found {
        let passed = known.count_gone().expect("it was just read to its end");
        assert_eq!(usize::try_from(passed), Ok(found.files.len()), "files are counted otherwise");
    }
    found.ok()
}

fn read_all(known: &mut Known) -> Result<Remembered, Damaged> {
    let mut files = Vec::new();
    while let Some(KnownFile { entry, slot }) = known.next_file()? {
        if let Some(slot) = slot {
            let mut bytes = Vec::new();
            push_slot(&mut bytes, Some(&slot));
            let again = bytes.first_chunk().and_then(parse_slot).flatten();
            assert_eq!(again, Some(slot), "a slot reads back as another");
        }
        files.push((entry.path, slot.is_some()));
    }
    known.rewind()?;
    let mut chunks = 0;
    while let Some(page) = known.next_chunks()? {
        chunks += page.len();
    }
    Ok(Remembered { files, chunks })
}

/// The same bytes with every check in them made to fit.
pub fn with_fitting_checks(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let header = in_memory(&bytes).ok().and_then(read_header);
    let Some(Preamble { session, roots, devices, .. }) =
        header.as_ref().map(|header| header.preamble.clone())
    else {
        return bytes;
    };
    let expected = header.map(|header| header.preamble.encode(&domain())).unwrap_or_default();
    let start = FIXED_LEN + roots.len() + devices.len() * super::DEVICE_LEN + CHECK_LEN;
    let Some(found) = bytes.get_mut(..start) else { return bytes };
    found.copy_from_slice(&expected);
    let mut at = start;
    while let Some(len) = bytes.get_mut(at..).and_then(|block| fit_block(block, &session, at)) {
        at += len;
    }
    bytes
}

/// Makes the check of the block at the start of `bytes` fit; its length, if it is there whole.
fn fit_block(bytes: &mut [u8], session: &SessionId, at: usize) -> Option<usize> {
    let mut fields = Fields(bytes);
    let (page_len, slots) = (fields.u32()?, fields.u32()?);
    let page_len = usize::try_from(page_len).ok()?;
    let slots_len = usize::try_from(slots).ok()?.checked_mul(SLOT_LEN)?;
    let (head, rest) = bytes.split_at_mut_checked(BLOCK_HEAD_LEN)?;
    let (page, rest) = rest.split_at_checked(page_len)?;
    let slot_bytes = rest.get(..slots_len)?;
    let id = domain().id_of(BlobKind::Page, page);
    let check = block_check(&domain(), session.as_bytes(), super::wide(at), &id, slot_bytes);
    head.last_chunk_mut::<CHECK_LEN>()?.copy_from_slice(&check);
    Some(BLOCK_HEAD_LEN + page_len + slots_len)
}

/// A state of three files, one of them unknown, over two blocks: finished, or cut short as a journal.
///
/// # Errors
/// An `io::Error` if a path is none, which would be a defect here.
pub fn state_of_files(finished: bool) -> io::Result<Vec<u8>> {
    let path = |name: &str| EntryPath::new(name.as_bytes().to_vec()).map_err(io::Error::other);
    let blocks = [
        block_of(&[(path("data/a")?, Some(slot(1))), (path("data/b")?, None)]),
        block_of(&[(path("data/c")?, Some(slot(2)))]),
    ];
    let mut preamble = Preamble {
        repository: RepositoryId::from_bytes([7; 16]),
        session: SessionId::from_bytes([8; 16]),
        manifest: ManifestId::from_bytes([0; 32]),
        end: 0,
        number: 41,
        roots: b"data\0".to_vec(),
        devices: vec![crate::identity::Device { dev: 1, file_system: 2 }],
    };
    if finished {
        let len = preamble.encode(&domain()).len() + blocks.concat().len();
        preamble = Preamble { manifest: ManifestId::from_bytes([9; 32]), end: super::wide(len), ..preamble };
    }
    Ok(with_fitting_checks(&[preamble.encode(&domain()), blocks.concat()].concat()))
}

fn slot(n: u64) -> Slot {
    let time = Timestamp { seconds: -5, nanos: 6 };
    Slot {
        identity: Identity { dev: 1, ino: n, btime: time, size: 10, mtime: time, ctime: time },
        settled: Settled::Yes,
        source: Source::Path,
        habit: Habit::UNKNOWN,
        links: 1,
    }
}

/// A block whose check is still zero.
fn block_of(files: &[(EntryPath, Option<Slot>)]) -> Vec<u8> {
    let mut pages = PageBuilder::new(domain());
    let mut slots = Vec::new();
    for (path, slot) in files {
        let _none = pages.entry(&file(path.clone()));
        let _none = pages.extent(Extent::Hole { len: 10 });
        let _none = pages.end_file(FileEnd::Unreadable);
        push_slot(&mut slots, slot.as_ref());
    }
    let page = pages.finish().map(|page| page.bytes).unwrap_or_default();
    let len = |len: usize| u32::try_from(len).expect("a short block").to_le_bytes();
    [&len(page.len())[..], &len(files.len()), &[0; CHECK_LEN], &page, &slots].concat()
}

fn file(path: EntryPath) -> Entry {
    Entry {
        path,
        kind: EntryKind::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: 10,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

/// A file in memory that holds `bytes`, at its start.
pub(crate) fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
