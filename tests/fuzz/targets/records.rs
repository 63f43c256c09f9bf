//! Records: pages and their entries, manifests, snapshots, and the descriptor.

use std::collections::BTreeSet;
use std::convert::Infallible;

use format_spec::assemble::{Assembler, Depth, Ending, Part, Roots};
use format_spec::descriptor::Descriptor;
use format_spec::key::{DomainKey, MasterKey};
use format_spec::manifest::{
    Fallback, MAX_FALLBACKS, MAX_PROBLEMS, MAX_ROOTS, Manifest, Moment, PageRef, Problem, PushStats, Totals,
};
use format_spec::page::{self, Content, MAX_PAGE_LEN, PageBuilder, Record};
use format_spec::snapshot::{ManifestRef, Origin, Shrunk, Snapshot, SnapshotState};
use format_spec::wire::ChunkerSpec;
use format_spec::{
    ChunkId, Entry, EntryKind, EntryPath, Extent, FORMAT_VERSION, FileEnd, ManifestId, RepositoryId,
    SnapshotId, Timestamp, Xattr,
};

use super::{Input, Seed, Verdict, hostile_cbor, hostile_json, seed};

const PAGE_MAGIC: [u8; 4] = *b"APG\x01";

fn cbor<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// A page: what was accepted is what its records are written as, and each entry keeps the rules.
///
/// # Panics
/// If it does not.
pub fn page(bytes: &[u8]) -> Verdict {
    let Ok(records) = page::decode(bytes) else { return Verdict::Refused };
    let mut again = PAGE_MAGIC.to_vec();
    let mut last: Option<&EntryPath> = None;
    let mut chunks = 0;
    for record in &records {
        again.extend_from_slice(&cbor(record));
        match record {
            Record::Entry(entry) => {
                entry.check().expect("a page holds no entry that breaks a rule");
                assert!(last.is_none_or(|last| *last < entry.path), "entries do not ascend");
                last = Some(&entry.path);
            }
            Record::Content(content) => {
                assert!(content.extents.iter().all(|extent| extent.covered() > 0), "an extent of no bytes");
                chunks += content.extents.iter().filter_map(Extent::chunk).count();
            }
        }
    }
    assert_eq!(again, bytes, "a page has two encodings");
    assert!(bytes.len() <= MAX_PAGE_LEN && !records.is_empty());
    assert!(page::references(&records).count() <= chunks, "references to what no extent names");
    Verdict::Accepted
}

/// The pages of a manifest, one after another, each after its length in two bytes; what is no page is missing. What is
/// handed over is a tree, whatever the pages say: entries ascend, lie in folders, and each file ends once.
///
/// # Panics
/// If not.
pub fn assemble(bytes: &[u8]) -> Verdict {
    let roots = Roots::new(&[path(b"data")]);
    let mut assembler = Assembler::new(domain(), roots, Depth::Content);
    let mut tree = Tree::default();
    let mut input = Input(bytes);
    while let Some(len) = input.array().map(u16::from_le_bytes).map(usize::from) {
        let (page, rest) = input.0.split_at(len.min(input.0.len()));
        input = Input(rest);
        match page::decode(page) {
            Err(_) => assembler.missing_page(|part| tree.part(part)),
            Ok(records) => {
                assembler.page(ChunkId::from_bytes([1; 32]), records, |part| tree.part(part)).map(drop)
            }
        }
        .unwrap_or_else(|never| match never {});
    }
    assembler.finish(|part| tree.part(part)).unwrap_or_else(|never| match never {});
    assert_eq!(tree.open, None, "a file without its end");
    Verdict::of(tree.faults == 0 && tree.last.is_some())
}

/// Parts received so far.
#[derive(Default)]
struct Tree {
    last: Option<EntryPath>,
    /// Paths of what is no folder.
    leaves: BTreeSet<EntryPath>,
    /// Size of the file that is open, and how much of it came.
    open: Option<(u64, u64)>,
    faults: usize,
}

impl Tree {
    fn part(&mut self, part: Part<'_>) -> Result<(), Infallible> {
        match part {
            Part::Entry(entry) => {
                self.entry(&entry);
                self.open = (entry.kind == EntryKind::File).then_some((entry.size, 0));
            }
            Part::Link { entry, .. } => self.entry(&entry),
            Part::Content { offset, extents } => {
                let (size, covered) = self.open.as_mut().expect("content is of a file");
                assert_eq!(offset, *covered, "content goes on where the last one ended");
                *covered += extents.iter().map(Extent::covered).sum::<u64>();
                assert!(*covered <= *size, "content beyond the end of its file");
            }
            Part::End(ending) => {
                let (size, covered) = self.open.take().expect("what ends is a file");
                let is_whole = matches!(ending, Ending::Whole | Ending::Fuzzy | Ending::Torn);
                assert!(!is_whole || covered == size, "a whole file that is too short");
            }
            Part::Nameless(_) => assert_eq!(self.open, None, "content of the file that is open"),
            Part::Fault(_) => self.faults += 1,
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) {
        assert_eq!(self.open, None, "an entry within a file");
        let path = &entry.path;
        assert!(self.last.as_ref().is_none_or(|last| last < path), "entries do not ascend");
        assert!(path.below(&self::path(b"data")).is_some(), "an entry outside of the roots");
        let folder_of = |path: &EntryPath| path.split_last().map(|(folder, _)| folder);
        for folder in std::iter::successors(folder_of(path), folder_of) {
            assert!(!self.leaves.contains(&folder), "an entry in what is no folder");
        }
        if entry.kind != EntryKind::Folder {
            self.leaves.insert(path.clone());
        }
        self.last = Some(path.clone());
    }
}

/// An entry that keeps the rules makes a page, and one that breaks them makes none.
///
/// # Panics
/// If it is the other way round.
pub fn entry(bytes: &[u8]) -> Verdict {
    let mut decoder = minicbor::Decoder::new(bytes);
    let Ok(entry) = decoder.decode::<Entry>() else { return Verdict::Refused };
    if entry.kind == EntryKind::File {
        return Verdict::of(entry.check().is_ok());
    }
    let page = [&PAGE_MAGIC[..], &cbor(&Record::Entry(entry.clone()))].concat();
    let read = page::decode(&page);
    let fits = page.len() <= MAX_PAGE_LEN && entry.check().is_ok();
    assert_eq!(read.ok(), fits.then(|| vec![Record::Entry(entry)]), "the rules are not those of the page");
    Verdict::of(fits)
}

/// A manifest: one encoding, this version, and lists within their limits.
///
/// # Panics
/// If not.
pub fn manifest(bytes: &[u8]) -> Verdict {
    let Ok(manifest) = Manifest::decode(bytes) else { return Verdict::Refused };
    assert_eq!(manifest.encode(), bytes, "a manifest has two encodings");
    assert_eq!(manifest.version, FORMAT_VERSION);
    assert!(manifest.roots.len() <= MAX_ROOTS && manifest.problems.len() <= MAX_PROBLEMS);
    assert!(manifest.push.is_none_or(|push| push.fallbacks.len() <= MAX_FALLBACKS));
    Verdict::Accepted
}

/// A snapshot: one encoding, and this version.
///
/// # Panics
/// If not.
pub fn snapshot(bytes: &[u8]) -> Verdict {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return Verdict::Refused };
    assert_eq!(snapshot.encode(), bytes, "a snapshot has two encodings");
    assert_eq!(snapshot.version, FORMAT_VERSION);
    for manifest in &snapshot.manifests {
        let found = snapshot.manifest_of(&manifest.node).expect("its node has a manifest");
        assert_eq!(found.node, manifest.node);
    }
    Verdict::Accepted
}

/// A descriptor: this version, and it reads back as what it was taken for.
///
/// # Panics
/// If not.
pub fn descriptor(bytes: &[u8]) -> Verdict {
    let Ok(descriptor) = Descriptor::decode(bytes) else { return Verdict::Refused };
    assert_eq!(descriptor.format_version, FORMAT_VERSION);
    assert_eq!(Descriptor::decode(&descriptor.encode()).as_ref(), Ok(&descriptor));
    Verdict::Accepted
}

fn domain() -> DomainKey {
    MasterKey::from_bytes([7; 32]).domain(&"c".parse().expect("a plain name"))
}

fn path(bytes: &[u8]) -> EntryPath {
    EntryPath::new(bytes.to_vec()).expect("a plain path")
}

fn entry_of(name: &[u8], kind: EntryKind) -> Entry {
    Entry {
        path: path(name),
        kind,
        mode: 0o640,
        uid: 999,
        gid: 1000,
        mtime: Timestamp { seconds: -1, nanos: 999_999_999 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

fn folder() -> Entry {
    let xattrs = vec![Xattr { name: b"user.note".to_vec(), value: vec![0, 255] }];
    Entry { xattrs, ..entry_of(b"data", EntryKind::Folder) }
}

fn symlink() -> Entry {
    Entry { target: Some(b"../\xfe".to_vec()), ..entry_of(b"data/link", EntryKind::Symlink) }
}

fn hard_link() -> Entry {
    Entry { link_group: Some(7), ..entry_of(b"data/again \xff", EntryKind::HardLink) }
}

/// Pages as the builder makes them: one of every kind of record, and one that the next page goes on.
fn built() -> Vec<Vec<u8>> {
    let mut pages = PageBuilder::new(domain());
    let extents = [
        Extent::Chunk { id: ChunkId::from_bytes([1; 32]), len: 1000 },
        Extent::Hole { len: 1 << 33 },
        Extent::Chunk { id: ChunkId::from_bytes([2; 32]), len: 24 },
    ];
    let file = Entry { size: (1 << 33) + 1024, ..entry_of(b"data/file", EntryKind::File) };
    let mut done = vec![pages.entry(&folder()), pages.entry(&hard_link()), pages.entry(&file)];
    done.extend(extents.iter().map(|extent| pages.extent(*extent)));
    done.push(pages.end_file(FileEnd::Unreadable));
    done.push(pages.entry(&symlink()));
    done.push(pages.finish());
    // A file whose extents go on in the next pages.
    done.push(pages.entry(&entry_of(b"long", EntryKind::File)));
    for n in 0_u64..1000 {
        let mut id = [0xff; 32];
        if n == 450 {
            // Ends a page.
            id = [0; 32];
        }
        done.push(pages.extent(Extent::Chunk { id: ChunkId::from_bytes(id), len: 9 }));
    }
    done.push(pages.end_file(FileEnd::Unreadable));
    done.push(pages.finish());
    done.into_iter().flatten().map(|page| page.bytes).collect()
}

/// Seeds of [`page()`].
pub fn pages() -> Vec<Seed> {
    let built = built();
    let first = built.first().cloned().unwrap_or_default();
    let mut seeds: Vec<Seed> =
        built.into_iter().enumerate().map(|(n, bytes)| seed(&format!("built-{n}"), bytes)).collect();
    let (_, records) = first.split_at(PAGE_MAGIC.len());
    seeds.push(seed("another-version", [b"APG\x02", records].concat()));
    seeds.push(seed("no-record", PAGE_MAGIC));
    // Content that claims more extents than a page could hold, and holes of no bytes.
    seeds.push(seed(
        "claims-2-32-extents",
        [&PAGE_MAGIC[..], &[0x82, 1, 0x81, 0x82, 0x9a, 255, 255, 255, 255]].concat(),
    ));
    seeds.push(seed("empty-extent", [&PAGE_MAGIC[..], &[0x82, 1, 0x81, 0x82, 0x81, 0x81, 0, 0xf6]].concat()));
    let many_holes: Vec<u8> = [0x81, 1].repeat(8000);
    seeds.push(seed(
        "8000-holes",
        [&PAGE_MAGIC[..], &[0x82, 1, 0x81, 0x82, 0x99, 0x1f, 0x40], &many_holes, &[0xf6]].concat(),
    ));
    seeds.extend(
        hostile_cbor(records).into_iter().map(|(name, bytes)| (name, [&PAGE_MAGIC[..], &bytes].concat())),
    );
    seeds
}

/// Seeds of [`assemble`].
pub fn manifests_of_pages() -> Vec<Seed> {
    let joined = |pages: &[&[u8]]| {
        let framed = |page: &&[u8]| {
            let len = u16::try_from(page.len()).expect("a small page");
            [&len.to_le_bytes()[..], page].concat()
        };
        pages.iter().flat_map(framed).collect::<Vec<u8>>()
    };
    let page = |records: &[Record]| {
        let records = records.iter().flat_map(cbor);
        PAGE_MAGIC.into_iter().chain(records).collect::<Vec<u8>>()
    };
    let chunk = Extent::Chunk { id: ChunkId::from_bytes([1; 32]), len: 10 };
    let mut digester = domain().file_digester();
    (0..2).for_each(|_| digester.push(&chunk));
    let digest = digester.finish();
    let content = |end| Record::Content(Content { extents: vec![chunk], end });
    let file =
        |size| Record::Entry(Entry { size, link_group: Some(7), ..entry_of(b"data/a", EntryKind::File) });
    let linked = Record::Entry(Entry { link_group: Some(7), ..hard_link() });
    let inside = Record::Entry(entry_of(b"data/again \xff/x", EntryKind::Folder));
    let elsewhere = Record::Entry(entry_of(b"fata/x", EntryKind::Folder));
    let first = page(&[Record::Entry(folder()), file(20), content(None)]);
    let second = page(&[content(Some(FileEnd::Whole(digest))), linked.clone(), Record::Entry(symlink())]);
    let short = page(&[Record::Entry(folder()), file(30), content(None)]);
    vec![
        seed("whole", joined(&[&first, &second])),
        seed("other-order", joined(&[&second, &first])),
        seed("twice", joined(&[&first, &first])),
        seed("first-missing", joined(&[b"", &second])),
        seed("second-missing", joined(&[&first, b"", &page(std::slice::from_ref(&linked))])),
        seed("without-an-end", joined(&[&first])),
        seed("short", joined(&[&short, &second])),
        seed("in-a-link", joined(&[&first, &second, &page(&[inside])])),
        seed("elsewhere-after-a-gap", joined(&[&first, b"", &page(&[elsewhere])])),
        seed("link-of-nothing", joined(&[&page(&[Record::Entry(folder()), linked])])),
        seed("empty", []),
    ]
}

/// Seeds of [`entry`].
pub fn entries() -> Vec<Seed> {
    let good = cbor(&folder());
    let device = cbor(&Entry { mode: 0o17_777, ..folder() });
    let late = Entry { mtime: Timestamp { seconds: 0, nanos: 1_000_000_000 }, ..folder() };
    let mut seeds = vec![
        seed("folder", good.clone()),
        seed("symlink", cbor(&symlink())),
        seed("hard-link", cbor(&hard_link())),
        seed("hard-link-of-no-group", cbor(&Entry { link_group: None, ..hard_link() })),
        seed("symlink-to-nothing", cbor(&Entry { target: None, ..symlink() })),
        seed("odd-mode", device),
        seed("long-second", cbor(&late)),
    ];
    seeds.extend(hostile_cbor(&good));
    seeds
}

fn push_stats() -> PushStats {
    let fallbacks = vec![Fallback { reason: "why".to_owned(), files: 3 }];
    let moment = Some(Moment { freeze_ms: 5, moved_on: 1, ..Moment::default() });
    PushStats { appended: 1, bytes_read: 1 << 40, fallbacks, moment, ..PushStats::default() }
}

fn totals() -> Totals {
    Totals { files: 3, folders: 1, symlinks: 1, bytes: 1 << 33, problems: 1, skipped: 2 }
}

fn whole_manifest() -> Manifest {
    Manifest {
        version: FORMAT_VERSION,
        cluster: "cluster-1".parse().expect("a plain name"),
        node: "node-1".parse().expect("a plain name"),
        roots: vec![path(b"data"), path(b"var/lib")],
        pages: vec![PageRef { id: ChunkId::from_bytes([1; 32]), len: 5 }],
        totals: totals(),
        problems: vec![Problem { path: path(b"data/gone"), reason: "vanished".to_owned() }],
        tool: "astacus-client 0.1.0".to_owned(),
        host: "db-1.example".to_owned(),
        push: Some(push_stats()),
        series: Some("daily".parse().expect("a plain name")),
        about: None,
        roots_are: None,
    }
}

/// Seeds of [`manifest`].
pub fn manifests() -> Vec<Seed> {
    let good = whole_manifest();
    let bytes = good.encode();
    let mut seeds = vec![
        seed("whole", bytes.clone()),
        seed("without-push", Manifest { push: None, ..good.clone() }.encode()),
        seed("another-version", Manifest { version: 2, ..good.clone() }.encode()),
        seed("1001-roots", Manifest { roots: vec![path(b"r"); MAX_ROOTS + 1], ..good }.encode()),
        seed("path-that-leaves", replaced(&bytes, b"data/gone", b"data/../x")),
    ];
    seeds.extend(hostile_cbor(&bytes));
    seeds
}

/// Seeds of [`snapshot`].
pub fn snapshots() -> Vec<Seed> {
    let good = Snapshot {
        version: FORMAT_VERSION,
        id: SnapshotId::new(1_790_000_000_123, [0x5a; 10]),
        cluster: "cluster-1".parse().expect("a plain name"),
        created_ms: 1_790_000_000_123,
        state: SnapshotState::Partial,
        manifests: vec![ManifestRef {
            node: "node-1".parse().expect("a plain name"),
            id: ManifestId::from_bytes([3; 32]),
            totals: totals(),
            push: Some(push_stats()),
            origin: Some(Origin::of(&whole_manifest())),
        }],
        number: Some(17),
        shrunk: Some(Shrunk { since: SnapshotId::from_bytes([7; 16]), files: 300, bytes: 1 << 30 }),
        about: None,
    };
    let mut seeds = vec![
        seed("whole", good.encode()),
        seed("of-no-node", Snapshot { manifests: Vec::new(), ..good.clone() }.encode()),
        seed("another-version", Snapshot { version: 0, ..good.clone() }.encode()),
        seed("odd-name", replaced(&good.encode(), b"cluster-1", b"../../etc")),
    ];
    seeds.extend(hostile_cbor(&good.encode()));
    seeds
}

/// Seeds of [`descriptor`].
pub fn descriptors() -> Vec<Seed> {
    let master = MasterKey::from_bytes([7; 32]);
    let cdc = ChunkerSpec::FastCdc { min_len: 65_536, avg_len: 262_144, max_len: 1_048_576 };
    let good = Descriptor::new(RepositoryId::from_bytes([1; 16]), &master, cdc);
    let fixed = Descriptor { chunker: ChunkerSpec::Fixed { len: 4096 }, ..good.clone() };
    let bytes = good.encode();
    let mut seeds = vec![
        seed("whole", bytes.clone()),
        seed("fixed", fixed.encode()),
        seed("another-version", Descriptor { format_version: 9, ..good }.encode()),
        seed("no-version", replaced(&bytes, b"format_version", b"format-version")),
        seed("two-versions", replaced(&bytes, b"\"generation\"", b"\"format_version\": 2, \"generation\"")),
        seed("odd-chunker", replaced(&bytes, b"fast_cdc", b"slow_cdc")),
    ];
    seeds.extend(hostile_json(&bytes));
    seeds
}

/// The bytes with the first `from` replaced.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is in there");
    let (before, rest) = bytes.split_at(at);
    let (_, after) = rest.split_at(from.len());
    [before, to, after].concat()
}
