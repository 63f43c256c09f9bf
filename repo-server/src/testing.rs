//! A repository in memory for tests of this crate, and a client that says what a test wants said.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use format_spec::blob::{BlobInfo, Compression, Decompressor};
use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef, Totals};
use format_spec::page::{self, PageBuilder, Record};
use format_spec::wire::{Delays, Frame, GcReport, GcRequest, Held, RunMode};
use format_spec::{
    ChunkId, Entry, EntryKind, EntryPath, Extent, FORMAT_VERSION, FileEnd, SessionId, SnapshotId, Timestamp,
};

use crate::clock::Clock;
use crate::error::ServerError;
use crate::index::{Batch, Index, IndexError, KeyRange, MemoryIndex, Rows, Table};
use crate::operation;
use crate::pack;
use crate::rows::DoomedRow;
use crate::rows::SessionRow;
use crate::server::Server;
use crate::session::{self, Pusher, TTL};
use crate::settings::Upkeep;
use crate::site::{Site, StoreSite};
use crate::snapshot;
use crate::snapshot::series::Smaller;
use crate::start::compare;
use crate::store::{Parts, Store};

/// A clock that stands still until it is told to move.
#[derive(Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// An index that counts what is changed, and that fails from some commit on when told to.
#[derive(Clone, Default)]
pub(crate) struct Watched {
    inner: MemoryIndex,
    changes: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
    /// Commits that still succeed; all of them while this is `u64::MAX`.
    left: Arc<AtomicU64>,
    /// True if the next commit is over a limit.
    too_large: Arc<AtomicBool>,
}

impl Watched {
    pub(crate) fn new() -> Self {
        let watched = Self::default();
        watched.heal();
        watched
    }

    /// The rows as they are now, apart from these.
    pub(crate) fn copy(&self) -> Self {
        Self { inner: self.inner.copy(), ..Self::new() }
    }

    /// Rows changed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Commits so far, also those that failed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Lets so many commits succeed, and all later ones fail without effect.
    pub(crate) fn fail_after(&self, commits: u64) {
        self.left.store(commits, Ordering::Relaxed);
    }

    /// Refuses the next commit as over a limit.
    pub(crate) fn refuse_as_too_large(&self) {
        self.too_large.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.left.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Index for Watched {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.inner.multi_get(table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        self.inner.scan(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.too_large.swap(false, Ordering::Relaxed) {
            return Err(IndexError::TooLarge { what: "value", len: 2, limit: 1 });
        }
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(IndexError::Full { free_bytes: 0, reserve_bytes: 1 });
        }
        self.left.store(if left == u64::MAX { left } else { left - 1 }, Ordering::Relaxed);
        let changes = u64::try_from(batch.len()).unwrap();
        self.inner.commit(batch)?;
        self.changes.fetch_add(changes, Ordering::Relaxed);
        Ok(())
    }
}

/// How an index is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Scan,
    Get,
}

/// Hears of each read: of which table, and of how many rows or keys.
pub(crate) type Hears = Arc<dyn Fn(Read, Table, usize) + Send + Sync>;

/// An index whose reads are overheard.
struct Overheard {
    inner: Watched,
    hears: Hears,
}

impl Index for Overheard {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        (self.hears)(Read::Get, table, 1);
        self.inner.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        (self.hears)(Read::Get, table, keys.len());
        self.inner.multi_get(table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        let found = self.inner.scan(table, range, limit)?;
        (self.hears)(Read::Scan, table, found.rows.len());
        Ok(found)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        self.inner.commit(batch)
    }
}

/// Files by name, each the contents of its chunks.
pub(crate) type Tree = BTreeMap<String, Vec<Vec<u8>>>;

/// A tree of one-chunk files, each named as its content.
pub(crate) fn tree(contents: &[&str]) -> Tree {
    contents.iter().map(|text| ((*text).to_owned(), vec![text.as_bytes().to_vec()])).collect()
}

/// State that survives a crash, and the running process.
pub(crate) struct World {
    pub(crate) index: Watched,
    pub(crate) site: Arc<dyn Site>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) upkeep: Upkeep,
    pub(crate) server: Arc<Server>,
    pub(crate) store: Arc<Store>,
    runtime: tokio::runtime::Runtime,
}

/// A session of a test's client.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: SessionId,
    pub(crate) row: SessionRow,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(StoreSite::memory()))
    }

    pub(crate) fn on(site: Arc<dyn Site>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (index, clock, mut upkeep) = (Watched::new(), Arc::default(), Upkeep::default());
        // No pack is stored by itself while a test waits.
        upkeep.gc.commit_patience = Duration::ZERO;
        let server = start(index.clone(), &site, &clock, &upkeep);
        let store = Arc::clone(&server.store);
        Self { index, site, clock, upkeep, server, store, runtime }
    }

    /// The process dies, and another one starts over what it left.
    pub(crate) fn crash(&mut self) {
        self.crash_as(self.index.clone());
    }

    /// The process dies, and another one starts over this index.
    pub(crate) fn crash_as(&mut self, index: impl Index + 'static) {
        self.server = start(index, &self.site, &self.clock, &self.upkeep);
        self.store = Arc::clone(&self.server.store);
    }

    /// The process dies, and another one starts as a server does: it looks at the site before it serves.
    pub(crate) fn restart(&mut self) {
        self.crash();
        self.wait(compare::settle_once(&self.server));
    }

    /// The process dies, and another one starts over another index.
    pub(crate) fn crash_over(&mut self, index: Watched) {
        self.index = index;
        self.crash();
    }

    /// The process dies, and another one starts whose reads of the index are overheard.
    pub(crate) fn crash_and_overhear(&mut self, hears: Hears) {
        let index = Overheard { inner: self.index.clone(), hears };
        self.crash_as(index);
    }

    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs `work`, which may wait for the site, on this thread.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.runtime.enter();
        work()
    }

    pub(crate) fn begin(&self, node: &str) -> Client {
        self.begin_after(node, None).unwrap()
    }

    pub(crate) fn begin_after(&self, node: &str, adopt: Option<SessionId>) -> Result<Client, ServerError> {
        let pusher = Pusher { cluster: "c".parse().unwrap(), node: node.parse().unwrap() };
        let granted = session::open(&self.server.sessions, pusher, adopt)?;
        Ok(Client { id: granted.id, row: granted.row })
    }

    /// The time of every open session is over, and the server notices.
    pub(crate) fn expire(&self) {
        self.clock.advance(TTL);
        session::expire(&self.server.sessions).unwrap();
    }

    pub(crate) fn id_of(&self, kind: BlobKind, plain: &[u8]) -> ChunkId {
        self.store.domain(&"c".parse().unwrap()).key.id_of(kind, plain)
    }

    /// Answer to the client about these ids.
    pub(crate) fn have(&self, client: &Client, ids: &[ChunkId]) -> Result<Vec<Held>, ServerError> {
        let row = session::renew(&self.server.sessions, client.id)?;
        let domain = self.server.domain(&row.cluster);
        pack::have(&domain, row.start, ids)
    }

    /// Sends a blob, in a request of its own.
    pub(crate) fn send(&self, client: &Client, kind: BlobKind, plain: &[u8]) -> Result<ChunkId, ServerError> {
        let row = session::renew(&self.server.sessions, client.id)?;
        let domain = self.server.domain(&row.cluster);
        let id = domain.keys.key.id_of(kind, plain);
        let plain_len = u32::try_from(plain.len()).unwrap();
        let info = BlobInfo { kind, id, plain_len, compression: Compression::Raw };
        let frame = Frame { info, payload: Bytes::copy_from_slice(plain) };
        self.wait(async {
            if kind == BlobKind::Page {
                pack::flush(&domain, BlobKind::Chunk).await?;
            }
            let start = row.start;
            let runs = tokio::task::spawn_blocking(move || pack::take_in(&domain, start, &[frame]));
            runs.await.unwrap()
        })?;
        Ok(id)
    }

    /// Stores what open packs hold.
    pub(crate) fn flush(&self) -> Result<(), ServerError> {
        let domain = self.server.domain(&"c".parse().unwrap());
        self.wait(async {
            pack::flush(&domain, BlobKind::Chunk).await?;
            pack::flush(&domain, BlobKind::Page).await
        })
    }

    /// The page of a tree.
    pub(crate) fn page(&self, tree: &Tree) -> Vec<u8> {
        let domain = self.store.domain(&"c".parse().unwrap()).key.clone();
        let mut builder = PageBuilder::new(domain.clone());
        builder.entry(&Entry { kind: EntryKind::Folder, ..entry("data".to_owned(), 0) });
        for (name, chunks) in tree {
            let size = chunks.iter().map(|chunk| u64::try_from(chunk.len()).unwrap()).sum();
            builder.entry(&entry(format!("data/{name}"), size));
            let mut digest = domain.file_digester();
            for chunk in chunks {
                let len = u32::try_from(chunk.len()).unwrap();
                let extent = Extent::Chunk { id: domain.id_of(BlobKind::Chunk, chunk), len };
                digest.push(&extent);
                builder.extent(extent);
            }
            builder.end_file(FileEnd::Whole(digest.finish()));
        }
        builder.finish().unwrap().bytes
    }

    /// Commits pages.
    pub(crate) fn commit(
        &self,
        client: &Client,
        pages: &[(ChunkId, usize)],
    ) -> Result<SnapshotId, ServerError> {
        let body = self.manifest(client, pages);
        Ok(self.wait(snapshot::commit(&self.server, client.id, body, Smaller::Suspect, ()))?.id)
    }

    /// The manifest of pages.
    pub(crate) fn manifest(&self, client: &Client, pages: &[(ChunkId, usize)]) -> Bytes {
        let manifest = Manifest {
            version: FORMAT_VERSION,
            cluster: client.row.cluster.clone(),
            node: client.row.node.clone(),
            roots: vec![EntryPath::new(b"data".to_vec()).unwrap()],
            pages: pages
                .iter()
                .map(|(id, len)| PageRef { id: *id, len: u32::try_from(*len).unwrap() })
                .collect(),
            totals: Totals::default(),
            problems: Vec::new(),
            tool: "test".to_owned(),
            host: "test".to_owned(),
            push: None,
            series: None,
            about: None,
            roots_are: None,
        };
        Bytes::from(manifest.encode())
    }

    /// A whole push: asks, sends what is missing, commits one page.
    pub(crate) fn push(&self, node: &str, tree: &Tree) -> SnapshotId {
        let client = self.begin(node);
        self.send_missing(&client, tree).unwrap();
        self.commit_tree(&client, tree).unwrap()
    }

    /// Sends the chunks of a tree that are not there.
    pub(crate) fn send_missing(&self, client: &Client, tree: &Tree) -> Result<(), ServerError> {
        for chunk in tree.values().flatten() {
            let id = self.id_of(BlobKind::Chunk, chunk);
            if self.have(client, &[id])? == [Held::Missing] {
                self.send(client, BlobKind::Chunk, chunk)?;
            }
        }
        Ok(())
    }

    /// Sends the page of a tree, and commits it.
    pub(crate) fn commit_tree(&self, client: &Client, tree: &Tree) -> Result<SnapshotId, ServerError> {
        let page = self.page(tree);
        let id = self.send(client, BlobKind::Page, &page)?;
        self.commit(client, &[(id, page.len())])
    }

    pub(crate) fn forget(&self, id: SnapshotId) {
        snapshot::forget(&self.store, &[id]).unwrap();
    }

    /// A run of the collector.
    pub(crate) fn gc(&self, delays: Delays) -> GcReport {
        self.gc_as(GcRequest { mode: RunMode::Apply, delays, ..GcRequest::default() }).unwrap()
    }

    pub(crate) fn gc_as(&self, request: GcRequest) -> Result<GcReport, ServerError> {
        self.wait(operation::run_unheard(&self.server, request))
    }

    /// The files of a snapshot, as a restore reads them.
    pub(crate) fn read(&self, id: SnapshotId) -> Result<Tree, ServerError> {
        let found = snapshot::get(&self.store, id)?;
        let mut tree = Tree::new();
        for manifest in &found.manifests {
            let (_, opened) = self.wait(snapshot::open_manifest(&self.store, manifest.id))?;
            for page in &opened.pages {
                let plain = self.plain(page.id)?;
                let mut name = String::new();
                for record in page::decode(&plain).unwrap() {
                    match record {
                        Record::Entry(entry) if entry.kind == EntryKind::Folder => {}
                        Record::Entry(entry) => {
                            name = String::from_utf8(entry.path.as_bytes().to_vec()).unwrap();
                            name = name.strip_prefix("data/").unwrap().to_owned();
                            tree.insert(name.clone(), Vec::new());
                        }
                        Record::Content(content) => {
                            for id in content.extents.iter().filter_map(Extent::chunk) {
                                let plain = self.plain(id)?;
                                tree.get_mut(&name).unwrap().push(plain);
                            }
                        }
                    }
                }
            }
        }
        Ok(tree)
    }

    fn plain(&self, id: ChunkId) -> Result<Vec<u8>, ServerError> {
        let domain = self.store.domain(&"c".parse().unwrap());
        let blob = self.wait(pack::read_blobs(&self.store, &domain, vec![id]))?.pop().unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let plain = decompressor.decompress(blob.info.compression, &blob.payload, blob.info.plain_len);
        Ok(plain.unwrap().to_vec())
    }

    /// Names of the objects of an area on the site.
    pub(crate) fn objects(&self, area: &str) -> Vec<String> {
        let prefix = crate::site::Prefix::new(area).unwrap();
        let listed = self.wait(self.site.list(&prefix)).unwrap();
        listed.into_iter().map(|object| object.name.as_str().to_owned()).collect()
    }

    /// The doomed objects, in the order of their deletion.
    pub(crate) fn doomed(&self) -> Vec<DoomedRow> {
        let mut doomed = Vec::new();
        self.store
            .for_each_row(Table::Doomed, &KeyRange::all(), |_, value| {
                doomed.push(DoomedRow::decode(value).unwrap());
                Ok(())
            })
            .unwrap();
        doomed
    }

    /// The ids that have rows.
    pub(crate) fn rows(&self) -> Vec<ChunkId> {
        let mut rows = Vec::new();
        let all = KeyRange::all();
        self.store
            .for_each_row(Table::Chunk, &all, |key, _| {
                rows.push(ChunkId::from_bytes(key.try_into().unwrap()));
                Ok(())
            })
            .unwrap();
        rows
    }

    /// How many rows a table has.
    pub(crate) fn count(&self, table: Table) -> usize {
        let mut count = 0;
        let all = KeyRange::all();
        self.store
            .for_each_row(table, &all, |_, _| {
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    }
}

fn entry(path: String, size: u64) -> Entry {
    Entry {
        path: EntryPath::new(path.into_bytes()).unwrap(),
        kind: EntryKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

fn start(
    index: impl Index + 'static,
    site: &Arc<dyn Site>,
    clock: &Arc<ManualClock>,
    upkeep: &Upkeep,
) -> Arc<Server> {
    let parts = Parts { site: Arc::clone(site), cores: 2, upkeep: upkeep.clone(), ..Parts::default() };
    parts.over(index).at(Arc::<ManualClock>::clone(clock)).serve()
}
