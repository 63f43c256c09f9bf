//! Stored bytes of every format version: old data stays readable, and is written again byte for byte.
//!
//! The files of a version are in `tests/golden/v<version>/`. Each is made again here from fixed keys, salts
//! and plaintexts, and compared. A difference means that the format changed: bytes of a released version
//! never do, so a change needs a new version and a new folder, with the old one still read. After adding a
//! file to [`made`], `ASTACUS_BLESS=1 cargo test -p format-spec --test golden` writes missing and different
//! files; check the difference before the commit.
//!
//! `chunk.zst` is only read: zstd may compress better tomorrow, and its frames stay readable.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "whatever stops here fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use bytes::Bytes;
use format_spec::blob::{BlobInfo, BlobSealer, Compression, Decompressor};
use format_spec::checkpoint::{Checkpoint, CheckpointPack};
use format_spec::descriptor::Descriptor;
use format_spec::id::to_hex;
use format_spec::key::{BlobKind, DomainKey, MasterKey, RecoveryKey, SealKeys};
use format_spec::keyring::{KeyCommand, Keyring, Opener, Passphrase, Slot, Stretch};
use format_spec::manifest::{Manifest, PageRef, Problem, Totals};
use format_spec::object::{self, ObjectKind};
use format_spec::pack::{self, PackBuilder, SealedPack};
use format_spec::page::{self, PageBuilder};
use format_spec::paper::PaperKey;
use format_spec::protection::ProtectionRecord;
use format_spec::snapshot::{ManifestRef, Snapshot, SnapshotState};
use format_spec::wire::{self, ChunkerSpec, Frame, FrameHeader, FrameReader};
use format_spec::{
    ChunkId, ClusterName, Entry, EntryKind, EntryPath, Extent, FORMAT_VERSION, FileEnd, ManifestId,
    RepositoryId, SlotName, SnapshotId, Timestamp, Xattr,
};

type Files = BTreeMap<String, Vec<u8>>;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes(*b"repository-id-16");
const GENERATION: u32 = 1;
const RAW: &[u8] = b"a chunk that is stored as it is";

fn text() -> Vec<u8> {
    b"a line that compresses well\n".repeat(100)
}

fn master() -> MasterKey {
    MasterKey::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap()
}

fn cluster() -> ClusterName {
    "cluster-1".parse().unwrap()
}

fn keys() -> SealKeys {
    master().seal_keys(GENERATION)
}

fn domain() -> DomainKey {
    master().domain(&cluster())
}

fn sealer() -> BlobSealer {
    BlobSealer::new(keys(), REPOSITORY, cluster())
}

fn info(kind: BlobKind, plain: &[u8], compression: Compression) -> BlobInfo {
    let plain_len = u32::try_from(plain.len()).unwrap();
    BlobInfo { kind, id: domain().id_of(kind, plain), plain_len, compression }
}

fn extent(plain: &[u8]) -> Extent {
    let BlobInfo { id, plain_len, .. } = info(BlobKind::Chunk, plain, Compression::Raw);
    Extent::Chunk { id, len: plain_len }
}

fn entry(path: &[u8], kind: EntryKind) -> Entry {
    Entry {
        path: EntryPath::new(path.to_vec()).unwrap(),
        kind,
        mode: 0o640,
        uid: 999,
        gid: 1000,
        mtime: Timestamp { seconds: 1_790_000_000, nanos: 5 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

fn end_of(extents: &[Extent]) -> FileEnd {
    let mut digester = domain().file_digester();
    extents.iter().for_each(|extent| digester.push(extent));
    FileEnd::Whole(digester.finish())
}

/// One page with every kind of entry and of extent.
fn page() -> Vec<u8> {
    let mut pages = PageBuilder::new(domain());
    let xattrs = vec![Xattr { name: b"user.note".to_vec(), value: b"\0\xff".to_vec() }];
    let folder = Entry { mode: 0o1777, xattrs, ..entry(b"data", EntryKind::Folder) };
    let group = Some(domain().link_group(b"data/linked"));
    let extents = [extent(RAW), Extent::Hole { len: 1 << 33 }, extent(&text())];
    let size = extents.iter().map(Extent::covered).sum();
    let linked = Entry { size, link_group: group, ..entry(b"data/linked", EntryKind::File) };
    let again = Entry { link_group: group, ..entry(b"data/linked again \xff", EntryKind::HardLink) };
    let early = Timestamp { seconds: -1, nanos: 999_999_999 };
    let link = Entry {
        target: Some(b"../\xfe".to_vec()),
        mtime: early,
        ..entry(b"data/symlink", EntryKind::Symlink)
    };

    let mut cut = vec![pages.entry(&folder), pages.entry(&linked)];
    cut.extend(extents.iter().map(|extent| pages.extent(*extent)));
    cut.push(pages.end_file(end_of(&extents)));
    cut.push(pages.entry(&again));
    cut.push(pages.entry(&link));
    cut.push(pages.entry(&entry(b"data/unreadable", EntryKind::File)));
    cut.push(pages.end_file(FileEnd::Unreadable));
    assert!(cut.iter().all(Option::is_none), "all of it fits in one page");
    pages.finish().unwrap().bytes
}

/// Boundaries of pages, over entries and over the extents of a long file.
fn page_boundaries() -> Vec<PageRef> {
    let mut builder = PageBuilder::new(domain());
    let mut pages = Vec::new();
    for n in 0..2000 {
        pages.extend(builder.entry(&entry(format!("folder-{n:04}").as_bytes(), EntryKind::Folder)));
    }
    pages.extend(builder.entry(&entry(b"log", EntryKind::File)));
    for n in 0_u32..8000 {
        pages.extend(builder.extent(extent(&n.to_le_bytes())));
    }
    pages.extend(builder.end_file(FileEnd::Unreadable));
    pages.extend(builder.finish());
    pages
        .iter()
        .map(|page| PageRef {
            id: domain().id_of(BlobKind::Page, &page.bytes),
            len: u32::try_from(page.bytes.len()).unwrap(),
        })
        .collect()
}

fn sealed_pack(zstd_payload: &[u8]) -> SealedPack {
    let mut pack = PackBuilder::new(GENERATION, REPOSITORY, cluster(), [0xa1; 32]);
    let (text, page) = (text(), page());
    let references = page::references(&page::decode(&page).unwrap()).collect::<Vec<_>>();
    for (info, payload, references) in [
        (info(BlobKind::Chunk, RAW, Compression::Raw), RAW, Vec::new()),
        (info(BlobKind::Chunk, &text, Compression::Zstd), zstd_payload, Vec::new()),
        (info(BlobKind::Page, &page, Compression::Raw), &page, references),
    ] {
        let mut blob = Vec::new();
        sealer().seal(&info, payload, &mut blob);
        pack.append(&info, &blob, references);
    }
    pack.seal(&keys())
}

fn manifest() -> Manifest {
    let page = info(BlobKind::Page, &page(), Compression::Raw);
    Manifest {
        version: FORMAT_VERSION,
        cluster: cluster(),
        node: "node-1".parse().unwrap(),
        roots: vec![EntryPath::new(b"data".to_vec()).unwrap()],
        pages: vec![PageRef { id: page.id, len: page.plain_len }],
        totals: Totals { files: 3, folders: 1, symlinks: 1, bytes: 8_589_937_423, problems: 1, skipped: 2 },
        problems: vec![Problem {
            path: EntryPath::new(b"data/unreadable".to_vec()).unwrap(),
            reason: "permission denied".to_owned(),
        }],
        tool: "astacus-client 0.1.0".to_owned(),
        host: "db-1.example".to_owned(),
        push: None,
        series: None,
        about: None,
        roots_are: None,
    }
}

fn sealed_manifest() -> Vec<u8> {
    object::seal(ObjectKind::Manifest, &keys(), REPOSITORY, [0xa2; 32], &manifest().encode())
}

fn snapshot() -> Snapshot {
    Snapshot {
        version: FORMAT_VERSION,
        id: SnapshotId::new(1_790_000_000_123, [0x5a; 10]),
        cluster: cluster(),
        created_ms: 1_790_000_000_123,
        state: SnapshotState::Partial,
        manifests: vec![ManifestRef {
            node: "node-1".parse().unwrap(),
            id: ManifestId::of(&sealed_manifest()),
            totals: manifest().totals,
            push: None,
            origin: None,
        }],
        number: None,
        shrunk: None,
        about: None,
    }
}

fn sealed_snapshot() -> Vec<u8> {
    object::seal(ObjectKind::Snapshot, &keys(), REPOSITORY, [0xa3; 32], &snapshot().encode())
}

/// The protection of the snapshot in the golden pack.
fn protection() -> ProtectionRecord {
    let reason = "audit of 2026".to_owned();
    ProtectionRecord { version: FORMAT_VERSION, snapshot: snapshot().id, reason }
}

fn sealed_protection() -> Vec<u8> {
    object::seal(ObjectKind::Protection, &keys(), REPOSITORY, [0xa5; 32], &protection().encode())
}

fn checkpoint(pack: &SealedPack) -> Checkpoint {
    let len = u64::try_from(pack.bytes.len()).unwrap();
    let packs = vec![CheckpointPack { id: pack.id, len, directory: pack.directory.clone() }];
    Checkpoint { version: FORMAT_VERSION, packs }
}

fn sealed_checkpoint(pack: &SealedPack) -> Vec<u8> {
    object::seal(ObjectKind::Checkpoint, &keys(), REPOSITORY, [0xa4; 32], &checkpoint(pack).encode())
}

fn descriptor() -> Descriptor {
    let chunker = ChunkerSpec::FastCdc { min_len: 65_536, avg_len: 262_144, max_len: 1_048_576 };
    Descriptor::new(REPOSITORY, &master(), chunker)
}

/// A keyring with a slot of each kind.
fn keyring() -> Keyring {
    let mut keyring = Keyring::new(&descriptor());
    let [words, paper, program] = ["words", "paper", "program"].map(|name| name.parse::<SlotName>().unwrap());
    let passphrase =
        keyring.wrap_with_passphrase(&words, &master(), &passphrase(), Stretch::WEAKEST, [0xb1; 32]).unwrap();
    let recovery = keyring.wrap_with_recovery(&paper, &master(), &recovery_key(), [0xb2; 32]);
    let command = KeyCommand {
        program: "/usr/local/bin/unwrap".to_owned(),
        arguments: vec!["--key".to_owned(), "astacus".to_owned()],
        time_limit_s: 30,
    };
    for (name, opener) in [(words, passphrase), (paper, recovery), (program, Opener::Command(command))] {
        keyring.add(Slot { name, created_ms: 1_790_000_000_000, opener }).unwrap();
    }
    keyring
}

fn passphrase() -> Passphrase {
    Passphrase::parse("correct horse battery").unwrap()
}

fn recovery_key() -> RecoveryKey {
    RecoveryKey::from_bytes([0xc3; 32])
}

fn sheet(key: PaperKey) -> Vec<u8> {
    key.to_lines().as_bytes().to_vec()
}

fn frames(zstd_payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (info, payload) in [
        (info(BlobKind::Chunk, RAW, Compression::Raw), RAW),
        (info(BlobKind::Chunk, &text(), Compression::Zstd), zstd_payload),
        (info(BlobKind::Page, &page(), Compression::Raw), &page()),
    ] {
        let payload_len = u32::try_from(payload.len()).unwrap();
        out.extend_from_slice(&FrameHeader { info, payload_len }.encode());
        out.extend_from_slice(payload);
    }
    out.extend_from_slice(&wire::encode_end(3));
    out
}

/// Values that are derived and never stored, one per line.
fn derived(pack: &SealedPack) -> String {
    let gear = domain().gear_table();
    let all_gear: Vec<u8> = gear.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let FileEnd::Whole(digest) = end_of(&[extent(RAW), Extent::Hole { len: 1 << 33 }]) else {
        unreachable!()
    };
    let mut lines = vec![
        format!("master key fingerprint = {}", to_hex(&master().fingerprint())),
        format!("domain key = {}", domain().to_hex()),
        format!("chunk id = {}", domain().id_of(BlobKind::Chunk, RAW)),
        format!("page id of the same bytes = {}", domain().id_of(BlobKind::Page, RAW)),
        format!("file digest = {digest}"),
        format!("link group = {:016x}", domain().link_group(b"data/linked")),
        format!("gear table, first = {:016x}", gear[0]),
        format!("gear table, last = {:016x}", gear[255]),
        format!("gear table, blake3 = {}", blake3::hash(&all_gear)),
        format!("pack id = {}", pack.id),
        format!("manifest id = {}", ManifestId::of(&sealed_manifest())),
        format!("snapshot id = {}", snapshot().id),
    ];
    for entry in &pack.directory.entries {
        let nonce = &pack.bytes[usize::try_from(entry.offset).unwrap()..][..12];
        lines.push(format!("blob {} nonce = {}", entry.id, to_hex(nonce)));
    }
    lines.extend(page_boundaries().iter().map(|page| format!("boundary page = {} {}", page.len, page.id)));
    lines.join("\n") + "\n"
}

/// Every golden file, made now.
fn made(zstd_payload: &[u8]) -> Files {
    let pack = sealed_pack(zstd_payload);
    let files = [
        ("master.key", master().to_file_text().into_bytes()),
        ("repository.json", descriptor().encode()),
        ("keyring.json", keyring().encode()),
        ("sheet.txt", sheet(PaperKey::Master(master()))),
        ("sheet-of-slot.txt", sheet(PaperKey::Recovery(recovery_key()))),
        ("derived.txt", derived(&pack).into_bytes()),
        ("page.bin", page()),
        ("chunk.zst", zstd_payload.to_vec()),
        ("blobs.pack", pack.bytes.to_vec()),
        ("manifest.cbor", manifest().encode()),
        ("manifest.sealed", sealed_manifest()),
        ("snapshot.cbor", snapshot().encode()),
        ("snapshot.sealed", sealed_snapshot()),
        ("checkpoint.cbor", checkpoint(&pack).encode()),
        ("checkpoint.sealed", sealed_checkpoint(&pack)),
        ("protection.cbor", protection().encode()),
        ("protection.sealed", sealed_protection()),
        ("frames.bin", frames(zstd_payload)),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(format!("v{FORMAT_VERSION}"))
}

/// Files of the golden repository. With `ASTACUS_BLESS=1`, after writing what was made.
fn stored() -> Files {
    static BLESSED: Once = Once::new();
    if std::env::var_os("ASTACUS_BLESS").is_some_and(|value| value == "1") {
        BLESSED.call_once(bless);
    }
    let files = fs::read_dir(folder()).expect("the golden files are part of the source");
    files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        })
        .collect()
}

fn bless() {
    let zstd = fs::read(folder().join("chunk.zst"));
    let zstd = zstd.unwrap_or_else(|_| zstd::bulk::compress(&text(), 3).unwrap());
    fs::create_dir_all(folder()).unwrap();
    for (name, bytes) in made(&zstd) {
        fs::write(folder().join(name), bytes).unwrap();
    }
}

/// The names of files that are not alike in both, or only in one.
fn differences(stored: &Files, made: &Files) -> Vec<String> {
    let names = stored.keys().chain(made.keys().filter(|name| !stored.contains_key(*name)));
    names.filter(|name| stored.get(*name) != made.get(*name)).cloned().collect()
}

/// P6: version 1 is written as it always was.
#[test]
fn encoders_write_the_golden_bytes() {
    let stored = stored();

    let made = made(&stored["chunk.zst"]);

    assert_eq!(differences(&stored, &made), Vec::<String>::new(), "see the first lines of this file");
}

/// Twin: one changed bit in any file, a file too many and a file too few are all seen.
#[test]
fn the_comparison_sees_one_changed_bit() {
    let made = made(&stored()["chunk.zst"]);

    for (name, bytes) in &made {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = made.clone();
            changed.get_mut(name).unwrap()[at] ^= 1;
            assert_eq!(differences(&changed, &made), [name.as_str()], "byte {at}");
        }
        let mut fewer = made.clone();
        fewer.remove(name);
        assert_eq!(differences(&fewer, &made), [name.as_str()]);
        assert_eq!(differences(&made, &fewer), [name.as_str()]);
    }
}

/// P6: what was written in version 1 is read as what it was.
#[test]
fn decoders_read_the_golden_bytes() {
    let files = stored();
    let opened = |kind, name: &str| object::open(kind, &keys(), REPOSITORY, &files[name]).unwrap();

    let master = MasterKey::parse(std::str::from_utf8(&files["master.key"]).unwrap()).unwrap();
    let manifest_read = Manifest::decode(&opened(ObjectKind::Manifest, "manifest.sealed")).unwrap();
    let snapshot_read = Snapshot::decode(&opened(ObjectKind::Snapshot, "snapshot.sealed")).unwrap();

    let checkpoint_read = Checkpoint::decode(&opened(ObjectKind::Checkpoint, "checkpoint.sealed")).unwrap();

    let protection_read =
        ProtectionRecord::decode(&opened(ObjectKind::Protection, "protection.sealed")).unwrap();

    assert_eq!(protection_read, protection());
    assert_eq!(checkpoint_read, checkpoint(&sealed_pack(&files["chunk.zst"])));
    assert_eq!(master.fingerprint(), self::master().fingerprint());
    assert_eq!(Descriptor::decode(&files["repository.json"]).unwrap(), descriptor());
    assert_eq!(manifest_read, manifest());
    assert_eq!(snapshot_read, snapshot());
    assert_eq!(page::decode(&files["page.bin"]).unwrap().len(), 7);
}

#[test]
fn the_golden_slots_and_sheets_open() {
    let files = stored();
    let keyring = Keyring::decode(&files["keyring.json"]).unwrap();
    let paper = |name: &str| PaperKey::parse(std::str::from_utf8(&files[name]).unwrap()).unwrap();

    let PaperKey::Master(master) = paper("sheet.txt") else { panic!("the sheet of the master key") };
    let PaperKey::Recovery(key) = paper("sheet-of-slot.txt") else { panic!("the sheet of a slot") };
    let [words, slot, _] = keyring.slots() else { panic!("three slots") };
    for opened in [
        master,
        keyring.open_with_recovery(slot, &key).unwrap(),
        keyring.open_with_passphrase(words, &passphrase()).unwrap(),
    ] {
        assert!(descriptor().fits(&opened));
    }
}

#[test]
fn the_golden_pack_gives_back_its_plaintexts() {
    let files = stored();
    let bytes = &files["blobs.pack"];
    let id = pack::look(bytes).unwrap().id;
    let mut decompressor = Decompressor::new().unwrap();

    let directory = pack::open(&keys(), REPOSITORY, id, bytes).unwrap();

    let mut plains: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    for entry in &directory.entries {
        let blob =
            &bytes[usize::try_from(entry.offset).unwrap()..][..usize::try_from(entry.stored_len).unwrap()];
        pack::check_blob(&sealer(), &domain(), &mut decompressor, entry, blob).unwrap();
        let payload = sealer().open(&entry.info(), blob).unwrap();
        let plain = decompressor.decompress(entry.compression, &payload, entry.plain_len).unwrap();
        plains.push((entry.id, plain.to_vec()));
    }
    let expected = [(BlobKind::Chunk, RAW.to_vec()), (BlobKind::Chunk, text()), (BlobKind::Page, page())];
    assert_eq!(plains, expected.map(|(kind, plain)| (domain().id_of(kind, &plain), plain)));
}

#[test]
fn the_golden_frames_come_out_as_they_went_in() {
    let files = stored();
    let mut reader = FrameReader::new();
    reader.push(&files["frames.bin"]);

    let frames: Vec<Frame> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();

    reader.finish().unwrap();
    let payloads = [Bytes::from_static(RAW), files["chunk.zst"].clone().into(), page().into()];
    assert_eq!(frames.iter().map(|frame| frame.payload.clone()).collect::<Vec<_>>(), payloads);
}
