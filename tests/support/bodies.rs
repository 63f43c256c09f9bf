//! Bodies of requests made by hand: right ones, and the parts of wrong ones.

use format_spec::blob::{BlobInfo, Compression};
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

/// The page of one file that consists of these chunks.
pub fn page_of(domain: &DomainKey, chunks: &[(ChunkId, u32)]) -> Vec<u8> {
    let mut builder = PageBuilder::new(domain.clone());
    let entry = Entry {
        path: EntryPath::new(b"data/file".to_vec()).expect("made to fit"),
        kind: EntryKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: chunks.iter().map(|(_, len)| u64::from(*len)).sum(),
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    };
    builder.entry(&entry);
    let mut digest = domain.file_digester();
    for (id, len) in chunks {
        let extent = Extent::Chunk { id: *id, len: *len };
        digest.push(&extent);
        builder.extent(extent);
    }
    builder.end_file(FileEnd::Whole(digest.finish()));
    builder.finish().expect("made to fit").bytes
}

/// A manifest of `node` with these pages.
pub fn manifest_of(node: &str, pages: &[(ChunkId, u32)]) -> Vec<u8> {
    let manifest = Manifest {
        version: FORMAT_VERSION,
        cluster: "c".parse().expect("made to fit"),
        node: node.parse().expect("made to fit"),
        roots: vec![EntryPath::new(b"data".to_vec()).expect("made to fit")],
        pages: pages.iter().map(|(id, len)| PageRef { id: *id, len: *len }).collect(),
        totals: Totals { files: 1, ..Totals::default() },
        problems: Vec::new(),
        tool: "test".to_owned(),
        host: "test".to_owned(),
        push: None,
    };
    manifest.encode()
}
