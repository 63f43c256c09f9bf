//! The last state, merged with a walk: both go through the same paths in the same order.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::vec::IntoIter;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::page::{self, Content, MAX_PAGE_LEN, Record};
use format_spec::{Entry, EntryKind, EntryPath};

use super::{
    BLOCK_HEAD_LEN, CHECK_LEN, Fields, Header, SLOT_LEN, TRAILER, block_check, check, encode_header,
    parse_slot,
};
use crate::push::Identity;

/// A state that is not what was written. Push without it.
#[derive(Debug, thiserror::Error)]
#[error("the state of the last push is damaged")]
pub(crate) struct Damaged;

impl From<io::Error> for Damaged {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// The files of the last push, in path order.
pub(crate) struct Known {
    domain: DomainKey,
    nonce: [u8; 16],
    file: BufReader<File>,
    position: u64,
    end: u64,
    records: IntoIter<Record>,
    slots: IntoIter<Option<Identity>>,
    files: u64,
    void: HashSet<u64>,
    next: Option<KnownFile>,
}

/// A file of the last push.
#[derive(Debug)]
pub(crate) struct KnownFile {
    pub(crate) entry: Entry,
    /// What it was when it was read; `None` if that cannot be relied on.
    pub(crate) identity: Option<Identity>,
}

impl Known {
    /// The files of the state that `header` begins.
    ///
    /// # Errors
    /// [`Damaged`] if header or trailer are not what was written with the key of `domain`.
    pub(crate) fn open(header: Header, domain: DomainKey) -> Result<Self, Damaged> {
        let Header { repository, manifest, nonce, trailer, roots, mut file } = header;
        let expected = encode_header(&domain, &repository, &nonce, &manifest, trailer, &roots);
        let mut found = [0; CHECK_LEN];
        file.read_exact(&mut found)?;
        if !expected.ends_with(&found) {
            return Err(Damaged);
        }
        let void = read_void(&file, trailer, &domain, &nonce)?;
        Ok(Self {
            domain,
            nonce,
            file: BufReader::with_capacity(256 << 10, file),
            position: u64::try_from(expected.len()).map_err(|_| Damaged)?,
            end: trailer,
            records: Vec::new().into_iter(),
            slots: Vec::new().into_iter(),
            files: 0,
            void,
            next: None,
        })
    }

    /// The file at `path`, if there was one. Paths must come in ascending order.
    pub(crate) fn find(&mut self, path: &EntryPath) -> Result<Option<KnownFile>, Damaged> {
        loop {
            if self.next.is_none() {
                self.next = self.next_file()?;
            }
            match self.next.as_ref().map(|next| next.entry.path.cmp(path)) {
                Some(Ordering::Less) => self.next = None,
                Some(Ordering::Equal) => return Ok(self.next.take()),
                Some(Ordering::Greater) | None => return Ok(None),
            }
        }
    }

    /// The next part of the content of the file that [`find`](Self::find) just gave.
    pub(crate) fn content(&mut self) -> Result<Content, Damaged> {
        match self.next_record()? {
            Some(Record::Content(content)) => Ok(content),
            _ => Err(Damaged),
        }
    }

    fn next_file(&mut self) -> Result<Option<KnownFile>, Damaged> {
        while let Some(record) = self.next_record()? {
            if let Record::Entry(entry) = record
                && entry.kind == EntryKind::File
            {
                let slot = self.slots.next().ok_or(Damaged)?;
                let identity = slot.filter(|_| !self.void.contains(&self.files));
                self.files += 1;
                return Ok(Some(KnownFile { entry, identity }));
            }
        }
        Ok(None)
    }

    fn next_record(&mut self) -> Result<Option<Record>, Damaged> {
        loop {
            if let Some(record) = self.records.next() {
                return Ok(Some(record));
            }
            if self.position == self.end {
                return Ok(None);
            }
            self.next_block()?;
        }
    }

    fn next_block(&mut self) -> Result<(), Damaged> {
        let mut head = [0; BLOCK_HEAD_LEN];
        self.file.read_exact(&mut head)?;
        let mut fields = Fields(&head);
        let lens = (fields.u32(), fields.u32(), fields.array::<CHECK_LEN>());
        let (Some(page_len), Some(slots), Some(found)) = lens else { return Err(Damaged) };
        let narrow = |len: u32| usize::try_from(len).ok().filter(|len| *len <= MAX_PAGE_LEN).ok_or(Damaged);
        let mut page = vec![0; narrow(page_len)?];
        let mut slot_bytes = vec![0; narrow(slots)? * SLOT_LEN];
        self.file.read_exact(&mut page)?;
        self.file.read_exact(&mut slot_bytes)?;
        let id = self.domain.id_of(BlobKind::Page, &page);
        if block_check(&self.domain, &self.nonce, self.position, &id, &slot_bytes) != found {
            return Err(Damaged);
        }
        let len = BLOCK_HEAD_LEN + page.len() + slot_bytes.len();
        self.position += u64::try_from(len).map_err(|_| Damaged)?;
        self.records = page::decode(&page).map_err(|_| Damaged)?.into_iter();
        let slots = slot_bytes.as_chunks().0.iter().map(|slot| parse_slot(slot).ok_or(Damaged));
        self.slots = slots.collect::<Result<Vec<_>, _>>()?.into_iter();
        Ok(())
    }
}

fn read_void(
    file: &File,
    trailer: u64,
    domain: &DomainKey,
    nonce: &[u8; 16],
) -> Result<HashSet<u64>, Damaged> {
    let len = file.metadata()?.len();
    let tail = len.checked_sub(trailer).ok_or(Damaged)?;
    let mut count = [0; 8];
    file.read_exact_at(&mut count, trailer)?;
    // The file is as long as the count says, so the count is bounded by the file.
    let wanted = u64::from_le_bytes(count).checked_mul(8).and_then(|len| len.checked_add(40));
    if wanted != Some(tail) {
        return Err(Damaged);
    }
    let mut void = vec![0; usize::try_from(tail - 40).map_err(|_| Damaged)?];
    file.read_exact_at(&mut void, trailer + 8)?;
    let mut found = [0; CHECK_LEN];
    file.read_exact_at(&mut found, len - 32)?;
    if check(domain, nonce, TRAILER, &[&void]) != found {
        return Err(Damaged);
    }
    Ok(void.as_chunks().0.iter().map(|file| u64::from_le_bytes(*file)).collect())
}
