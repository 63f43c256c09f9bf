//! The next state while it is written, which is also where finished pages wait to be sent.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::manifest::PageRef;
use format_spec::page::Page;
use format_spec::{ManifestId, RepositoryId, SessionId};

use super::{BLOCK_HEAD_LEN, Fields, Place, SLOT_LEN, TRAILER, block_check, check, encode_header, push_slot};
use crate::push::Identity;

/// Pages of a push and the identities of their files, on disk.
pub(crate) struct Spool {
    domain: DomainKey,
    repository: RepositoryId,
    nonce: [u8; 16],
    roots: Vec<u8>,
    /// Where the file goes in the end; without it, it goes away.
    target: Option<Target>,
    file: BufWriter<File>,
    len: u64,
    header_len: u64,
    pages: Vec<PageRef>,
    /// Files of the page that is being built.
    slots: Vec<Option<Identity>>,
    /// How many files went before those.
    files_before: u64,
    /// Files on finished pages whose identity turned out not to count.
    void: Vec<u64>,
}

/// The temporary name, which goes away unless the file was published under its own.
struct Target {
    place: Place,
    temporary: String,
    published: bool,
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // A leftover is written over by the next push.
        let _ = std::fs::remove_file(self.place.folder().join(&self.temporary));
    }
}

impl Spool {
    /// An empty spool. It can become a state if `place` is given and no other push writes there.
    ///
    /// # Errors
    /// What the file system answers, if not even a temporary file can be had.
    pub(crate) fn create(
        place: Option<&Place>,
        domain: DomainKey,
        repository: RepositoryId,
        session: &SessionId,
    ) -> io::Result<Self> {
        let (file, target) = match place.and_then(|place| create_at(place, &repository)) {
            Some((file, target)) => (file, Some(target)),
            None => (tempfile::tempfile()?, None),
        };
        let roots = place.map(|place| place.roots().to_vec()).unwrap_or_default();
        let nothing = ManifestId::from_bytes([0; 32]);
        let header_len = encode_header(&domain, &repository, session.as_bytes(), &nothing, 0, &roots).len();
        let mut file = BufWriter::with_capacity(256 << 10, file);
        // Zeros: until it is finished, the file has no magic.
        file.write_all(&vec![0; header_len])?;
        let header_len = wide(header_len);
        Ok(Self {
            domain,
            repository,
            nonce: *session.as_bytes(),
            roots,
            target,
            file,
            len: header_len,
            header_len,
            pages: Vec::new(),
            slots: Vec::new(),
            files_before: 0,
            void: Vec::new(),
        })
    }

    /// Notes that the page being built has one more file, and what is known of it.
    pub(crate) fn file(&mut self, identity: Option<Identity>) {
        self.slots.push(identity);
    }

    /// Takes back the identity of the last file: it was not read whole.
    pub(crate) fn void_last(&mut self) {
        match self.slots.last_mut() {
            Some(slot) => *slot = None,
            None => self.void.push(self.files_before.saturating_sub(1)),
        }
    }

    /// Adds a finished page with the files noted since the last one.
    pub(crate) fn page(&mut self, page: &Page) -> io::Result<()> {
        let id = self.domain.id_of(BlobKind::Page, &page.bytes);
        let mut slots = Vec::with_capacity(self.slots.len() * SLOT_LEN);
        for slot in &self.slots {
            push_slot(&mut slots, slot.as_ref());
        }
        let page_len = u32::try_from(page.bytes.len()).map_err(io::Error::other)?;
        self.file.write_all(&page_len.to_le_bytes())?;
        self.file.write_all(&u32::try_from(self.slots.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.file.write_all(&block_check(&self.domain, &self.nonce, self.len, &id, &slots))?;
        self.file.write_all(&page.bytes)?;
        self.file.write_all(&slots)?;
        self.len += wide(BLOCK_HEAD_LEN + page.bytes.len() + slots.len());
        self.files_before += wide(self.slots.len());
        self.slots.clear();
        self.pages.push(PageRef { id, len: page_len });
        Ok(())
    }

    /// The pages so far, in order.
    pub(crate) fn pages(&self) -> &[PageRef] {
        &self.pages
    }

    /// Reads all pages back, in order, into `buffer` one after the other.
    pub(crate) fn read_back<E: From<io::Error>>(
        &mut self,
        mut each: impl FnMut(&PageRef, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.file.flush()?;
        let mut position = self.header_len;
        let mut buffer = Vec::new();
        for page in &self.pages {
            let mut head = [0; BLOCK_HEAD_LEN];
            self.file.get_ref().read_exact_at(&mut head, position)?;
            let slots = Fields(head.get(4..).unwrap_or_default()).u32().unwrap_or_default();
            position += wide(BLOCK_HEAD_LEN);
            buffer.resize(usize::try_from(page.len).map_err(io::Error::other)?, 0);
            self.file.get_ref().read_exact_at(&mut buffer, position)?;
            each(page, &buffer)?;
            position += u64::from(page.len) + u64::from(slots) * wide(SLOT_LEN);
        }
        Ok(())
    }

    /// Makes it the state that belongs to `manifest`, durably. Without a target nothing happens.
    pub(crate) fn finish(mut self, manifest: &ManifestId) -> io::Result<()> {
        let Some(mut target) = self.target.take() else { return Ok(()) };
        let published = self.publish(&target, manifest);
        target.published = published.is_ok();
        // The file, and with it the lock on its name, is closed after this.
        drop(target);
        published
    }

    fn publish(&mut self, target: &Target, manifest: &ManifestId) -> io::Result<()> {
        let trailer = self.len;
        let mut void = Vec::with_capacity(self.void.len() * 8);
        for file in &self.void {
            void.extend_from_slice(&file.to_le_bytes());
        }
        self.file.write_all(&wide(self.void.len()).to_le_bytes())?;
        self.file.write_all(&void)?;
        self.file.write_all(&check(&self.domain, &self.nonce, TRAILER, &[&void]))?;
        self.file.flush()?;
        let header =
            encode_header(&self.domain, &self.repository, &self.nonce, manifest, trailer, &self.roots);
        self.file.get_ref().write_all_at(&header, 0)?;
        let name = target.place.name(&self.repository);
        crate::durable::publish(self.file.get_ref(), target.place.folder(), &target.temporary, &name)
    }
}

/// The file at its place; `None`, with a warning, if there can be none.
fn create_at(place: &Place, repository: &RepositoryId) -> Option<(File, Target)> {
    match place.create(repository) {
        Ok(Some((file, temporary))) => {
            Some((file, Target { place: place.clone(), temporary, published: false }))
        }
        Ok(None) => {
            tracing::warn!("another push of the same folders is running; this one will not be remembered");
            None
        }
        Err(error) => {
            let folder = place.folder().display();
            tracing::warn!(%error, %folder, "this push will not be remembered");
            None
        }
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}
