//! A repository in memory, and nodes that push to it: for tests of what goes over all of it.

use std::sync::Arc;

use bytes::Bytes;
use format_spec::blob::{BlobInfo, Compression};
use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef, Totals};
use format_spec::page::PageBuilder;
use format_spec::wire::Frame;
use format_spec::{
    ChunkId, Entry, EntryKind, EntryPath, Extent, FORMAT_VERSION, FileEnd, SnapshotId, Timestamp,
};
use tempfile::TempDir;

use crate::index::{Batch, Index, KeyRange, Table};
use crate::pack;
use crate::rows::{ChunkRow, PackNumber, PackRow};
use crate::server::Server;
use crate::session::{self, Pusher};
use crate::settings::Choices;
use crate::site::{Site, StoreSite};
use crate::snapshot;
use crate::snapshot::series::Smaller;
pub(crate) use crate::store::testing::{describe, descriptor, master};
use crate::store::{Parts, Store};

/// A repository, and what it stands on.
pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) store: Arc<Store>,
    scratch: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::over(Arc::new(StoreSite::memory()))
    }

    /// An empty index over a site.
    pub(crate) fn over(site: Arc<dyn Site>) -> Self {
        Self::over_index(Parts::default().index, site)
    }

    /// An index over a site.
    pub(crate) fn over_index(index: Arc<dyn Index>, site: Arc<dyn Site>) -> Self {
        describe(site.as_ref());
        let scratch = tempfile::tempdir().unwrap();
        let parts = Parts { index, site, scratch: scratch.path().join("tmp"), ..Parts::default() };
        let server = Server::open(parts, Choices::default(), master(), descriptor()).unwrap();
        let store = Arc::clone(&server.store);
        Self { server, store, scratch }
    }

    pub(crate) fn site(&self) -> Arc<dyn Site> {
        Arc::clone(&self.store.parts.site)
    }

    pub(crate) fn index(&self) -> &dyn Index {
        self.store.parts.index.as_ref()
    }

    /// Pushes a file for each of `contents`, of one chunk each, on one page.
    pub(crate) async fn push(&self, node: &str, contents: &[&str]) -> SnapshotId {
        let (cluster, node) = ("c".parse().unwrap(), node.parse().unwrap());
        let domain = self.server.domain(&cluster);
        let session = session::open(&self.server.sessions, Pusher { cluster, node }, None).unwrap();
        let chunks: Vec<Frame> = contents
            .iter()
            .map(|content| {
                let plain = content.repeat(50).into_bytes();
                raw(BlobKind::Chunk, domain.keys.key.id_of(BlobKind::Chunk, &plain), plain)
            })
            .collect();
        let mut builder = PageBuilder::new(domain.keys.key.clone());
        for (content, chunk) in contents.iter().zip(&chunks) {
            let (id, len) = (chunk.info.id, chunk.info.plain_len);
            builder.entry(&file(content, len.into()));
            let mut digest = domain.keys.key.file_digester();
            digest.push(&Extent::Chunk { id, len });
            builder.extent(Extent::Chunk { id, len });
            builder.end_file(FileEnd::Whole(digest.finish()));
        }
        let page = builder.finish().unwrap().bytes;
        let page = raw(BlobKind::Page, domain.keys.key.id_of(BlobKind::Page, &page), page);
        pack::take_in(&domain, session.row.start, &chunks).unwrap();
        pack::flush(&domain, BlobKind::Chunk).await.unwrap();
        pack::take_in(&domain, session.row.start, std::slice::from_ref(&page)).unwrap();
        let manifest = Manifest {
            version: FORMAT_VERSION,
            cluster: session.row.cluster,
            node: session.row.node,
            roots: vec![EntryPath::top()],
            pages: vec![PageRef { id: page.info.id, len: page.info.plain_len }],
            totals: Totals::default(),
            problems: Vec::new(),
            tool: "test".to_owned(),
            host: "test".to_owned(),
            push: None,
            series: None,
            about: None,
            roots_are: None,
        };
        let committed =
            snapshot::commit(&self.server, session.id, Bytes::from(manifest.encode()), Smaller::Suspect, ())
                .await;
        committed.unwrap().id
    }

    /// The id of a chunk that was pushed.
    pub(crate) fn chunk(&self, content: &str) -> ChunkId {
        let plain = content.repeat(50).into_bytes();
        self.store.domain(&"c".parse().unwrap()).key.id_of(BlobKind::Chunk, &plain)
    }

    /// Every row of a table.
    pub(crate) fn rows(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let take = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        self.store.for_each_row(table, &KeyRange::all(), take).unwrap();
        rows
    }

    /// Every pack's row.
    pub(crate) fn packs(&self) -> Vec<(PackNumber, PackRow)> {
        let rows = self.rows(Table::Pack).into_iter();
        rows.map(|(key, value)| (PackNumber::from_key(&key).unwrap(), PackRow::decode(&value).unwrap()))
            .collect()
    }

    pub(crate) fn row(&self, id: ChunkId) -> Option<ChunkRow> {
        self.store.chunk_rows([&id]).unwrap().remove(0)
    }

    /// Changes a row behind everybody's back.
    pub(crate) fn tamper(&self, id: ChunkId, change: impl FnOnce(&mut ChunkRow)) {
        let mut row = self.row(id).unwrap();
        change(&mut row);
        let mut batch = Batch::new();
        batch.put(Table::Chunk, *id.as_bytes(), row.encode());
        self.index().commit(batch).unwrap();
    }

    pub(crate) fn put(&self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let mut batch = Batch::new();
        batch.put(table, key, value);
        self.index().commit(batch).unwrap();
    }

    pub(crate) fn scratch(&self) -> &std::path::Path {
        self.scratch.path()
    }
}

fn raw(kind: BlobKind, id: ChunkId, plain: Vec<u8>) -> Frame {
    let plain_len = u32::try_from(plain.len()).unwrap();
    let info = BlobInfo { kind, id, plain_len, compression: Compression::Raw };
    Frame { info, payload: plain.into() }
}

fn file(name: &str, size: u64) -> Entry {
    Entry {
        path: EntryPath::new(name.as_bytes().to_vec()).unwrap(),
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
