//! Bodies of requests made by hand: right ones, and the parts of wrong ones.

use format_spec::blob::{BlobInfo, Compression};
use format_spec::id::FileDigest;
use format_spec::key::{BlobKind, DomainKey};
use format_spec::manifest::{Manifest, PageRef, Totals};
use format_spec::page::PageBuilder;
use format_spec::wire::{FrameHeader, encode_end};
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, Extent, FORMAT_VERSION, FileEnd, Timestamp};

/// A frame of a raw payload, whatever it claims to be.
pub fn frame(kind: BlobKind, id: ChunkId, plain: &[u8]) -> Vec<u8> {
    let len = u32::try_from(plain.len()).expect("made to fit");
    let info = BlobInfo { kind, id, plain_len: len, compression: Compression::Raw };
    [FrameHeader { info, payload_len: len }.encode().as_slice(), plain].concat()
}

/// The right frame of a chunk, and its id.
pub fn chunk_frame(domain: &DomainKey, plain: &[u8]) -> (ChunkId, Vec<u8>) {
    let id = domain.id_of(BlobKind::Chunk, plain);
    (id, frame(BlobKind::Chunk, id, plain))
}

/// Frames with their end.
pub fn stream<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let frames: Vec<&[u8]> = frames.collect();
    let end = encode_end(u32::try_from(frames.len()).expect("made to fit"));
    [frames.concat().as_slice(), &end].concat()
}

/// The page of the folder `data` and a file in it that consists of these chunks.
pub fn page_of(domain: &DomainKey, chunks: &[(ChunkId, u32)]) -> Vec<u8> {
    let mut builder = PageBuilder::new(domain.clone());
    builder.entry(&entry("data", EntryKind::Folder, 0o755));
    let size = chunks.iter().map(|(_, len)| u64::from(*len)).sum();
    builder.entry(&Entry { size, ..entry("data/file", EntryKind::File, 0o644) });
    let mut digest = domain.file_digester();
    for (id, len) in chunks {
        let extent = Extent::Chunk { id: *id, len: *len };
        digest.push(&extent);
        builder.extent(extent);
    }
    builder.end_file(FileEnd::Whole(digest.finish()));
    builder.finish().expect("made to fit").bytes
}

/// An entry of whoever runs the test.
pub fn entry(path: &str, kind: EntryKind, mode: u32) -> Entry {
    Entry {
        path: EntryPath::new(path.as_bytes().to_vec()).expect("made to fit"),
        kind,
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

/// A file of a snapshot that is made by hand, below the folder `data`.
#[derive(Debug, Clone)]
pub struct HandMade {
    /// Its name.
    pub name: String,
    /// Its content, if it has any that can be used.
    pub content: &'static [u8],
    /// How its content ends, given its digest.
    pub end: fn(FileDigest) -> FileEnd,
}

/// The pages and chunks of the folder `data` with these files, which are in the order of their names: frames, and
/// what a manifest says of the pages.
pub fn pages_of(domain: &DomainKey, files: &[HandMade]) -> (Vec<Vec<u8>>, Vec<PageRef>) {
    let (mut builder, mut pages, mut frames) = (PageBuilder::new(domain.clone()), Vec::new(), Vec::new());
    pages.extend(builder.entry(&entry("data", EntryKind::Folder, 0o755)));
    for HandMade { name, content, end } in files {
        let len = u32::try_from(content.len()).expect("made to fit");
        let file = entry(&format!("data/{name}"), EntryKind::File, 0o644);
        pages.extend(builder.entry(&Entry { size: len.into(), ..file }));
        let mut digest = domain.file_digester();
        if len > 0 {
            let (id, frame) = chunk_frame(domain, content);
            frames.push(frame);
            digest.push(&Extent::Chunk { id, len });
            pages.extend(builder.extent(Extent::Chunk { id, len }));
        }
        pages.extend(builder.end_file(end(digest.finish())));
    }
    pages.extend(builder.finish());
    let refs = pages.iter().map(|page| {
        let id = domain.id_of(BlobKind::Page, &page.bytes);
        frames.push(frame(BlobKind::Page, id, &page.bytes));
        PageRef { id, len: u32::try_from(page.bytes.len()).expect("made to fit") }
    });
    let refs = refs.collect();
    (frames, refs)
}

/// A manifest of `node` with these pages.
pub fn manifest_of(node: &str, pages: &[(ChunkId, u32)]) -> Vec<u8> {
    let pages = pages.iter().map(|(id, len)| PageRef { id: *id, len: *len });
    plain_manifest(node, pages.collect()).encode()
}

/// The same before it is encoded.
pub fn plain_manifest(node: &str, pages: Vec<PageRef>) -> Manifest {
    Manifest {
        version: FORMAT_VERSION,
        cluster: "c".parse().expect("made to fit"),
        node: node.parse().expect("made to fit"),
        roots: vec![EntryPath::new(b"data".to_vec()).expect("made to fit")],
        pages,
        totals: Totals { files: 1, ..Totals::default() },
        problems: Vec::new(),
        tool: "test".to_owned(),
        host: "test".to_owned(),
        push: None,
        series: None,
        about: None,
        roots_are: None,
    }
}
