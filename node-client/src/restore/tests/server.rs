//! A stand-in for the server: one snapshot in memory, over HTTP on a free loopback port, which can
//! be told to alter or to lose blobs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use format_spec::blob::{BlobInfo, Compression};
use format_spec::id::FileDigest;
use format_spec::key::{BlobKind, DomainKey, MasterKey};
use format_spec::manifest::{Manifest, PageRef, Problem, Totals};
use format_spec::page::PageBuilder;
use format_spec::wire::{self, FrameHeader, SnapshotInfo};
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, ErrorClass, Extent, FileEnd, SnapshotId, Timestamp};

use crate::api::{Api, Retry};
use crate::summary::plain;

pub(super) fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes().to_vec()).unwrap()
}

pub(super) fn entry(text: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path(text),
        kind,
        mode: if kind == EntryKind::Folder { 0o755 } else { 0o640 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Timestamp { seconds: 1_700_000_000, nanos: 7 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

/// Fate of a blob on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// Its bytes change.
    Altered,
    /// The server refuses it.
    Lost,
    /// It is longer than it should be.
    Longer,
    /// It has another id.
    Swapped,
    /// It comes twice.
    Doubled,
}

/// A snapshot that is being made.
pub(super) struct Store {
    domain: DomainKey,
    pages: PageBuilder,
    page_refs: Vec<PageRef>,
    blobs: HashMap<ChunkId, (BlobKind, Vec<u8>)>,
    pub(super) fates: HashMap<ChunkId, Fate>,
    pub(super) roots: Vec<EntryPath>,
    pub(super) problems: Vec<Problem>,
    pub(super) totals: Totals,
    /// Newest last; those beside the one that is served are only listed.
    pub(super) listed: Vec<SnapshotInfo>,
}

impl Store {
    pub(super) fn new(roots: &[&str]) -> Self {
        let domain = MasterKey::from_bytes([7; 32]).domain(&"c".parse().unwrap());
        Self {
            pages: PageBuilder::new(domain.clone()),
            domain,
            page_refs: Vec::new(),
            blobs: HashMap::new(),
            fates: HashMap::new(),
            roots: roots.iter().map(|root| path(root)).collect(),
            problems: Vec::new(),
            totals: Totals::default(),
            listed: vec![Self::snapshot()],
        }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let page = self.pages.entry(entry);
        self.page(page);
    }

    /// Adds a file of these chunks and returns their ids.
    pub(super) fn file(&mut self, entry: Entry, chunks: &[&[u8]]) -> Vec<ChunkId> {
        self.file_that_ends(entry, chunks, FileEnd::Whole)
    }

    /// The same with any end.
    pub(super) fn file_that_ends(
        &mut self,
        mut entry: Entry,
        chunks: &[&[u8]],
        end: fn(FileDigest) -> FileEnd,
    ) -> Vec<ChunkId> {
        entry.size = chunks.iter().map(|chunk| u64::try_from(chunk.len()).unwrap()).sum();
        self.add(&entry);
        let mut digester = self.domain.file_digester();
        let mut ids = Vec::new();
        for chunk in chunks {
            let id = self.blob(BlobKind::Chunk, chunk);
            let extent = Extent::Chunk { id, len: u32::try_from(chunk.len()).unwrap() };
            digester.push(&extent);
            let page = self.pages.extent(extent);
            self.page(page);
            ids.push(id);
        }
        let page = self.pages.end_file(end(digester.finish()));
        self.page(page);
        ids
    }

    /// Adds a file that could not be read.
    pub(super) fn unreadable(&mut self, entry: &Entry) {
        self.add(entry);
        let page = self.pages.end_file(FileEnd::Unreadable);
        self.page(page);
    }

    fn blob(&mut self, kind: BlobKind, plain: &[u8]) -> ChunkId {
        let id = self.domain.id_of(kind, plain);
        self.blobs.insert(id, (kind, plain.to_vec()));
        id
    }

    fn page(&mut self, page: Option<format_spec::page::Page>) {
        if let Some(page) = page {
            let id = self.blob(BlobKind::Page, &page.bytes);
            self.page_refs.push(PageRef { id, len: u32::try_from(page.bytes.len()).unwrap() });
        }
    }

    /// Ends the manifest, and says which pages it has.
    pub(super) fn seal(&mut self) -> Vec<ChunkId> {
        let page = self.pages.finish();
        self.page(page);
        self.page_refs.iter().map(|page| page.id).collect()
    }

    /// Serves it until the end of the test.
    pub(super) fn serve(mut self) -> Server {
        self.seal();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(self));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let store = Arc::clone(&served);
                std::thread::spawn(move || talk(&stream.unwrap(), &store));
            }
        });
        let retry = Retry::once();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Server { api: Api::new(&address, "token", retry).unwrap(), runtime: runtime.unwrap() }
    }

    pub(super) fn snapshot() -> SnapshotInfo {
        SnapshotInfo {
            nodes: vec!["n".parse().unwrap()],
            created: "2026-01-01T00:00:00Z".to_owned(),
            ..plain(SnapshotId::new(1, [1; 10]))
        }
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            version: format_spec::FORMAT_VERSION,
            cluster: "c".parse().unwrap(),
            node: "n".parse().unwrap(),
            roots: self.roots.clone(),
            pages: self.page_refs.clone(),
            totals: self.totals,
            problems: self.problems.clone(),
            tool: String::new(),
            host: String::new(),
            push: None,
            series: None,
            about: None,
            roots_are: None,
        }
    }

    fn answer(&self, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let json = |value: serde_json::Value| (200, value.to_string().into_bytes());
        match target.rsplit('/').next().unwrap_or_default() {
            "blobs" => self.frames(&wire::parse_ids(body).unwrap()),
            "key" => json(serde_json::json!({ "domain_key": self.domain.to_hex() })),
            "n" => (200, self.manifest().encode()),
            "snapshots" => json(serde_json::json!({ "snapshots": self.listed })),
            id if id == Self::snapshot().id.to_string() => json(serde_json::json!(Self::snapshot())),
            _ => refusal(404, ErrorClass::NotFound),
        }
    }

    fn frames(&self, ids: &[ChunkId]) -> (u16, Vec<u8>) {
        let (mut out, mut frames) = (Vec::new(), 0);
        for id in ids {
            let Some((kind, plain)) = self.blobs.get(id) else { return refusal(404, ErrorClass::NotFound) };
            let mut plain = plain.clone();
            match self.fates.get(id) {
                Some(Fate::Lost) => return refusal(500, ErrorClass::Integrity),
                Some(Fate::Altered) => plain[0] ^= 1,
                Some(Fate::Longer) => plain.push(0),
                Some(Fate::Swapped | Fate::Doubled) | None => {}
            }
            let fate = self.fates.get(id);
            let id = if matches!(fate, Some(Fate::Swapped)) { ChunkId::from_bytes([9; 32]) } else { *id };
            for _ in 0..if matches!(fate, Some(Fate::Doubled)) { 2 } else { 1 } {
                let len = u32::try_from(plain.len()).unwrap();
                let info = BlobInfo { kind: *kind, id, plain_len: len, compression: Compression::Raw };
                out.extend_from_slice(&FrameHeader { info, payload_len: len }.encode());
                out.extend_from_slice(&plain);
                frames += 1;
            }
        }
        out.extend_from_slice(&wire::encode_end(frames));
        (200, out)
    }
}

fn refusal(status: u16, class: ErrorClass) -> (u16, Vec<u8>) {
    let body =
        wire::ErrorBody { code: "no".to_owned(), class, message: "no".to_owned(), missing: Vec::new() };
    (status, serde_json::to_vec(&body).unwrap())
}

/// Answers the requests of one connection until it is closed.
fn talk(stream: &TcpStream, store: &Mutex<Store>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let target = line.split(' ').nth(1).unwrap().to_owned();
        let target = target.split('?').next().unwrap();
        let mut len = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                len = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        let (status, answer) = store.lock().unwrap().answer(target, &body);
        let mut stream = stream;
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer)).is_err() {
            return;
        }
    }
}

/// A running stand-in.
pub(super) struct Server {
    pub(super) api: Api,
    pub(super) runtime: tokio::runtime::Runtime,
}
