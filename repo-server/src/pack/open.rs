//! A dedup domain that somebody pushes to: the packs that its blobs are collected in, and who has promised to send
//! which chunk.
//!
//! A blob is *waiting* from the moment it is appended to an open pack until the index has its row.
//! Waiting ids count as had, because every commit first waits for the packs they are in; if the
//! process dies before, the commit finds the page or chunk missing and says so.
//!
//! An id moves from *promised* to *waiting* to the index, and is in the next before it leaves the one
//! before. Who looks in the same order finds it.
//!
//! Lock order: `open` and `promises` are leaves; nothing else is locked and nothing blocks while one of
//! them is held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use format_spec::blob::BlobInfo;
use format_spec::key::BlobKind;
use format_spec::pack::{self, PackBuilder};
use format_spec::wire::Held;
use format_spec::{ChunkId, ClusterName, SessionId};
use tokio::sync::watch;

use super::promises::{self, Promises};
use super::publish::Outbox;
use crate::catalog::InFlight;
use crate::error::ServerError;
use crate::store::{Domain, Store};
use crate::sync::lock;

/// A pack of pages is sealed at this length: its references, counted in one index batch, stay few.
pub(crate) const PAGE_PACK_LEN: usize = 4 << 20;

/// A pack is sealed at this many blobs, so that one index batch stays small.
const MAX_PACK_BLOBS: usize = 50_000;

/// Bytes in open packs of all domains, about: beyond it packs are sealed before they are full.
const OPEN_LEN: usize = 256 << 20;

/// No pack is sealed for that reason that has less.
const FEWEST_LEN: usize = 1 << 20;

/// Why a pack did not get to the site. Its blobs are not had.
#[derive(Debug, Clone)]
pub(crate) enum PublishFailure {
    /// No space.
    Full(String),
    /// The repository has halted.
    Halted,
    /// Anything else; it may work later.
    Failed(String),
}

impl From<PublishFailure> for ServerError {
    fn from(failure: PublishFailure) -> Self {
        match failure {
            PublishFailure::Full(what) => Self::Full { what },
            PublishFailure::Halted => Self::Halted,
            PublishFailure::Failed(why) => Self::NotStored { why },
        }
    }
}

/// Outcome of a pack in transfer: `None` until it is known.
pub(crate) type Outcome = Option<Result<(), PublishFailure>>;

/// A pack that is full, and on its way to the site.
pub(crate) struct FullPack {
    pub(crate) builder: PackBuilder,
    /// Tells those who wait for it.
    pub(crate) outcome: watch::Sender<Outcome>,
}

/// Result of appending a blob: new or known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    New,
    Waiting,
    /// The index changed since the caller looked: look again.
    LookAgain,
}

/// The domains that somebody pushes to, or that hold something.
pub(crate) struct OpenDomains {
    outbox: Arc<Outbox>,
    /// Bytes in open packs of all domains.
    open_len: Arc<AtomicUsize>,
    domains: Mutex<HashMap<ClusterName, Arc<OpenDomain>>>,
}

impl OpenDomains {
    /// No open packs yet; full ones go to the site of `store`.
    pub(crate) fn new(store: &Arc<Store>, in_flight: &InFlight) -> Self {
        let outbox = Arc::new(Outbox::new(store, in_flight));
        Self { outbox, open_len: Arc::default(), domains: Mutex::default() }
    }

    /// The domain of `cluster`.
    pub(crate) fn of(&self, cluster: &ClusterName) -> Arc<OpenDomain> {
        let mut domains = lock(&self.domains);
        if let Some(domain) = domains.get(cluster) {
            return Arc::clone(domain);
        }
        let domain = Arc::new(OpenDomain {
            keys: self.outbox.store.domain(cluster),
            outbox: Arc::clone(&self.outbox),
            open_len: Arc::clone(&self.open_len),
            open: Mutex::default(),
            promises: Mutex::new(Promises::new(promises::LIMIT)),
        });
        domains.insert(cluster.clone(), Arc::clone(&domain));
        domain
    }

    /// Drops domains that are not in use and hold no data: the next request makes them again.
    pub(crate) fn drop_idle(&self) {
        lock(&self.domains).retain(|_, domain| Arc::strong_count(domain) > 1 || !domain.is_empty());
    }

    /// All domains that are in use or hold data.
    pub(crate) fn all(&self) -> Vec<Arc<OpenDomain>> {
        lock(&self.domains).values().map(Arc::clone).collect()
    }
}

/// A dedup domain that somebody pushes to: its open packs, and who has promised to send which chunk.
pub(crate) struct OpenDomain {
    pub(crate) keys: Arc<Domain>,
    pub(super) outbox: Arc<Outbox>,
    /// Bytes in open packs of all domains.
    open_len: Arc<AtomicUsize>,
    open: Mutex<OpenPacks>,
    promises: Mutex<Promises>,
}

#[derive(Default)]
struct OpenPacks {
    chunks: Option<PackBuilder>,
    pages: Option<PackBuilder>,
    waiting: HashMap<ChunkId, BlobKind>,
    /// Grows whenever ids move from `waiting` to the index.
    indexed: u64,
    publishing: Vec<(BlobKind, watch::Receiver<Outcome>)>,
}

impl OpenPacks {
    fn builder(&mut self, kind: BlobKind) -> &mut Option<PackBuilder> {
        match kind {
            BlobKind::Chunk => &mut self.chunks,
            BlobKind::Page => &mut self.pages,
        }
    }

    /// Takes the open pack of `kind` out, if it holds anything.
    fn take(&mut self, kind: BlobKind, all: &AtomicUsize) -> Option<FullPack> {
        let builder = self.builder(kind).take()?;
        all.fetch_sub(builder.len(), Ordering::Relaxed);
        let (outcome, receiver) = watch::channel(None);
        self.publishing.retain(|(_, pack)| pack.borrow().is_none());
        self.publishing.push((kind, receiver));
        Some(FullPack { builder, outcome })
    }
}

impl OpenDomain {
    /// The store that receives its packs.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.outbox.store
    }

    /// Waits until the site keeps up with the packs that are full.
    pub(crate) async fn wait_for_the_site(&self) {
        self.outbox.wait_for_room().await;
    }

    /// Answers for each of `ids` that is not stored: [`Held::Coming`] if another session has promised it. The
    /// others are [`Held::Missing`], and promised by `session` from `now` on (L5).
    pub(crate) fn promise(&self, session: SessionId, ids: &[ChunkId], now: Duration) -> Vec<Held> {
        lock(&self.promises).ask(session, ids, now)
    }

    /// The blobs with these ids are stored: they need not be sent any more.
    pub(crate) fn arrived<'a>(&self, ids: impl IntoIterator<Item = &'a ChunkId>) {
        let mut promises = lock(&self.promises);
        for id in ids {
            promises.arrived(id);
        }
    }

    /// `session` sends blobs with these ids. If it had promised one of them, it keeps what else it has promised.
    pub(crate) fn sends<'a>(
        &self,
        session: SessionId,
        ids: impl IntoIterator<Item = &'a ChunkId>,
        now: Duration,
    ) {
        lock(&self.promises).sends(session, ids, now);
    }

    /// Withdraws the promises of `session`.
    pub(crate) fn release(&self, session: SessionId) {
        lock(&self.promises).release(session);
    }

    /// Which of `ids` are chunks that wait in packs. A waiting page is not reported: if the session that sent
    /// it ends, the chunks that it refers to may be deleted, and then it gets no row (X7).
    pub(crate) fn waiting_chunks(&self, ids: &[ChunkId]) -> Vec<bool> {
        let open = lock(&self.open);
        ids.iter().map(|id| open.waiting.get(id) == Some(&BlobKind::Chunk)).collect()
    }

    /// True if the chunk waits in a pack.
    pub(crate) fn waits(&self, id: &ChunkId) -> bool {
        lock(&self.open).waiting.get(id) == Some(&BlobKind::Chunk)
    }

    /// True if it holds nothing that the index lacks: no blob waits and nothing is promised.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.open).waiting.is_empty() && lock(&self.promises).is_empty()
    }

    /// True if blobs wait in packs that are not full.
    pub(crate) fn has_open_packs(&self) -> bool {
        let open = lock(&self.open);
        open.chunks.is_some() || open.pages.is_some()
    }

    /// A mark that changes whenever waiting ids move to the index.
    pub(crate) fn indexed(&self) -> u64 {
        lock(&self.open).indexed
    }

    /// Appends a blob that the index did not have when [`indexed`](Self::indexed) was `seen`. It is
    /// promised no more once it waits.
    pub(crate) fn append(
        &self,
        info: &BlobInfo,
        blob: &[u8],
        references: &[ChunkId],
        seen: u64,
    ) -> (Appended, Option<FullPack>) {
        let mut open = lock(&self.open);
        if open.waiting.contains_key(&info.id) {
            return (Appended::Waiting, None);
        }
        if open.indexed != seen {
            return (Appended::LookAgain, None);
        }
        open.waiting.insert(info.id, info.kind);
        let builder = open.builder(info.kind).get_or_insert_with(|| self.keys.new_pack());
        let before = builder.len();
        builder.append(info, blob, references.to_vec());
        // A new builder is counted whole.
        let grown = if builder.entries().len() == 1 { builder.len() } else { builder.len() - before };
        let all = self.open_len.fetch_add(grown, Ordering::Relaxed) + grown;
        let limit = match info.kind {
            BlobKind::Chunk => pack::TARGET_LEN,
            BlobKind::Page => PAGE_PACK_LEN,
        };
        let is_crowded = all > OPEN_LEN && builder.len() >= FEWEST_LEN;
        let is_full = is_crowded || builder.len() >= limit || builder.entries().len() >= MAX_PACK_BLOBS;
        let full = if is_full { open.take(info.kind, &self.open_len) } else { None };
        drop(open);
        self.arrived([&info.id]);
        (Appended::New, full)
    }

    /// Takes the open pack of `kind` out, and lists all packs of that kind on their way, this one
    /// included.
    pub(crate) fn drain(&self, kind: BlobKind) -> (Option<FullPack>, Vec<watch::Receiver<Outcome>>) {
        let mut open = lock(&self.open);
        let full = open.take(kind, &self.open_len);
        let of_kind = open.publishing.iter().filter(|(of, _)| *of == kind);
        (full, of_kind.map(|(_, pack)| pack.clone()).collect())
    }

    /// The blobs with these ids wait no more: the index has them, or their pack was lost.
    pub(crate) fn settle(&self, ids: impl Iterator<Item = ChunkId>) {
        let mut open = lock(&self.open);
        for id in ids {
            open.waiting.remove(&id);
        }
        open.indexed += 1;
    }
}
