//! The next state while it is written, which is also where finished pages wait to be sent, and the
//! journal of a push that comes to no end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::manifest::PageRef;
use format_spec::page::Page;
use format_spec::{ManifestId, RepositoryId, SessionId};

use super::inodes::Inode;
use super::{
    BLOCK_HEAD_LEN, CHECK_LEN, Fields, Place, Preamble, SLOT_LEN, Slot, block_check, parse_slots, push_slot,
    wide,
};
use crate::identity::{Identity, Source};

/// Pages of a push and the identities of their files, on disk.
pub(crate) struct Spool {
    domain: DomainKey,
    preamble: Preamble,
    /// Final place of the file; without it, the file is removed.
    target: Option<Target>,
    file: File,
    len: u64,
    header_len: u64,
    pages: Vec<PageRef>,
    /// Files of the page that is being built.
    slots: Vec<Option<Slot>>,
}

/// The name under which it is written, and the place of its final one.
struct Target {
    place: Place,
    temporary: OsString,
}

/// A moment between two files, to come back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpoolMark {
    len: u64,
    pages: usize,
    slots: usize,
}

/// Place of a block, and the lengths of its parts.
struct Block {
    page_at: u64,
    page_len: usize,
    slots_at: u64,
    slots_len: usize,
}

impl Block {
    fn end(&self) -> u64 {
        self.slots_at + wide(self.slots_len)
    }
}

impl Spool {
    /// An empty spool: the push of `session`, which comes after `number` others. It can become a state
    /// if `place` is given and no other push writes there.
    ///
    /// # Errors
    /// Errors of the file system, if not even a temporary file can be made.
    pub(crate) fn create(
        place: Option<&Place>,
        domain: DomainKey,
        repository: RepositoryId,
        session: SessionId,
        number: u64,
    ) -> io::Result<Self> {
        let (file, target) = match place.and_then(|place| create_at(place, &repository)) {
            Some((file, target)) => (file, Some(target)),
            // Where nothing can be remembered, there may be room elsewhere.
            None => {
                let scratch = place.map_or_else(tempfile::tempfile, Place::scratch);
                (scratch.or_else(|_| tempfile::tempfile())?, None)
            }
        };
        let roots = place.map(|place| place.roots().to_vec()).unwrap_or_default();
        let manifest = ManifestId::from_bytes([0; 32]);
        let devices = place.map(Place::devices).unwrap_or_default();
        let preamble = Preamble { repository, session, manifest, end: 0, number, roots, devices };
        let header = preamble.encode(&domain);
        file.write_all_at(&header, 0)?;
        let len = wide(header.len());
        Ok(Self {
            domain,
            preamble,
            target,
            file,
            len,
            header_len: len,
            pages: Vec::new(),
            slots: Vec::new(),
        })
    }

    /// Notes that the page being built has one more file, and what is known of it.
    pub(crate) fn file(&mut self, slot: Option<Slot>) {
        self.slots.push(slot);
    }

    /// Adds a finished page with the files noted since the last one. It survives a kill from now on.
    pub(crate) fn page(&mut self, page: &Page) -> io::Result<()> {
        let id = self.domain.id_of(BlobKind::Page, &page.bytes);
        let slots = encode_slots(&self.slots);
        let page_len = u32::try_from(page.bytes.len()).map_err(io::Error::other)?;
        let mut block = Vec::with_capacity(BLOCK_HEAD_LEN + page.bytes.len() + slots.len());
        block.extend_from_slice(&page_len.to_le_bytes());
        block.extend_from_slice(&u32::try_from(self.slots.len()).map_err(io::Error::other)?.to_le_bytes());
        block.extend_from_slice(&self.check(self.len, &id, &slots));
        block.extend_from_slice(&page.bytes);
        block.extend_from_slice(&slots);
        self.file.write_all_at(&block, self.len)?;
        self.len += wide(block.len());
        self.slots.clear();
        self.pages.push(PageRef { id, len: page_len });
        Ok(())
    }

    fn check(&self, position: u64, id: &format_spec::ChunkId, slots: &[u8]) -> [u8; CHECK_LEN] {
        block_check(&self.domain, self.preamble.session.as_bytes(), position, id, slots)
    }

    /// A moment to which [`rewind`](Self::rewind) can return.
    pub(crate) fn mark(&self) -> SpoolMark {
        SpoolMark { len: self.len, pages: self.pages.len(), slots: self.slots.len() }
    }

    /// Forgets everything since `mark`. Returns the first page that was added since: it begins with what the
    /// page being built held then.
    pub(crate) fn rewind(&mut self, mark: SpoolMark) -> io::Result<Option<Vec<u8>>> {
        let mut first = None;
        if self.pages.len() > mark.pages {
            let block = self.block(mark.len)?;
            first = Some(self.read(block.page_at, block.page_len)?);
            let slots = self.read(block.slots_at, block.slots_len)?;
            self.slots = parse_slots(&slots)
                .ok_or_else(|| io::Error::other("the spool file was changed by another process"))?;
            self.file.set_len(mark.len)?;
            self.pages.truncate(mark.pages);
            self.len = mark.len;
        }
        self.slots.truncate(mark.slots);
        Ok(first)
    }

    /// The pages so far, in order.
    pub(crate) fn pages(&self) -> &[PageRef] {
        &self.pages
    }

    /// Reads all pages back, in order.
    pub(crate) fn read_back<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(&PageRef, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut position = self.header_len;
        for page in &self.pages {
            let block = self.block(position)?;
            each(page, &self.read(block.page_at, block.page_len)?)?;
            position = block.end();
        }
        Ok(())
    }

    fn block(&self, position: u64) -> io::Result<Block> {
        let head = self.read(position, BLOCK_HEAD_LEN)?;
        let mut fields = Fields(&head);
        let mut len = || {
            let len = fields.u32().unwrap_or_default();
            usize::try_from(len).map_err(io::Error::other)
        };
        let (page_len, slots) = (len()?, len()?);
        let page_at = position + wide(BLOCK_HEAD_LEN);
        let slots_at = page_at + wide(page_len);
        Ok(Block { page_at, page_len, slots_at, slots_len: slots * SLOT_LEN })
    }

    fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }

    /// Lets `release` remove second names, and records the identities of the files afterwards. Without a
    /// target nothing happens, because the file is never read.
    pub(crate) fn release(&self, mut release: impl FnMut(&Identity) -> Option<Identity>) -> io::Result<()> {
        if self.target.is_none() {
            return Ok(());
        }
        let mut position = self.header_len;
        for page in &self.pages {
            let block = self.block(position)?;
            let bytes = self.read(block.slots_at, block.slots_len)?;
            let mut slots = parse_slots(&bytes)
                .ok_or_else(|| io::Error::other("the spool file was changed by another process"))?;
            let mut in_tree =
                slots.iter_mut().flatten().filter(|slot| slot.source == Source::Link).peekable();
            if in_tree.peek().is_some() {
                for slot in in_tree {
                    // A file that changed meanwhile is known as it was read: the next push will see it.
                    slot.identity = release(&slot.identity).unwrap_or(slot.identity);
                    slot.source = Source::Path;
                }
                let bytes = encode_slots(&slots);
                self.file.write_all_at(&bytes, block.slots_at)?;
                let check = self.check(position, &page.id, &bytes);
                self.file.write_all_at(&check, block.page_at - wide(CHECK_LEN))?;
            }
            position = block.end();
        }
        Ok(())
    }

    /// Hands over where each file is that may be relied on.
    fn each_inode(&self, put: &mut dyn FnMut(Inode)) -> io::Result<()> {
        let mut position = self.header_len;
        for _ in &self.pages {
            let block = self.block(position)?;
            let slots = parse_slots(&self.read(block.slots_at, block.slots_len)?);
            let slots =
                slots.ok_or_else(|| io::Error::other("the spool file was changed by another process"))?;
            for (file, slot) in (0..).zip(slots) {
                if let Some(slot) = slot {
                    put(Inode { ino: slot.identity.ino, position, file });
                }
            }
            position = block.end();
        }
        Ok(())
    }

    /// Makes it the state that belongs to `manifest`, durably. Without a target nothing happens.
    pub(crate) fn finish(self, manifest: &ManifestId) -> io::Result<()> {
        let Some(target) = &self.target else { return Ok(()) };
        let preamble = Preamble { manifest: *manifest, end: self.len, ..self.preamble.clone() };
        super::inodes::write(&self.file, self.len, |put| self.each_inode(put))?;
        self.file.write_all_at(&preamble.encode(&self.domain), 0)?;
        let name = target.place.name(&preamble.repository);
        crate::durable::publish(&self.file, target.place.folder(), target.temporary.as_ref(), name.as_ref())?;
        target.place.forget_journal(&preamble.repository);
        Ok(())
    }
}

fn encode_slots(slots: &[Option<Slot>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(slots.len() * SLOT_LEN);
    for slot in slots {
        push_slot(&mut bytes, slot.as_ref());
    }
    bytes
}

/// The file at its place; `None`, with a warning, if there can be none.
fn create_at(place: &Place, repository: &RepositoryId) -> Option<(File, Target)> {
    match place.create(repository) {
        Ok(Some((file, temporary))) => Some((file, Target { place: place.clone(), temporary })),
        Ok(None) => {
            tracing::warn!(
                "another push of the same folders is running: the state of this push will not be saved"
            );
            None
        }
        Err(error) => {
            let folder = place.folder().display();
            tracing::warn!(%error, %folder, "cannot save the push state: the next push will read all files");
            None
        }
    }
}
