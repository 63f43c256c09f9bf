//! Sealed data: objects, blobs and packs. A stranger cannot make a seal, so most of what he sends ends at the
//! first check; the targets that seal for him get past it.

use std::ops::Range;
use std::sync::LazyLock;

use format_spec::blob::{BlobInfo, BlobSealer, Compression, Compressor, Decompressor};
use format_spec::key::{BlobKind, DomainKey, MasterKey, SealKeys};
use format_spec::object::{self, HEADER_LEN, Header, ObjectKind};
use format_spec::pack::{self, Directory, MAX_PACK_LEN, PADDING, PackBuilder, TRAILER_LEN, Trailer};
use format_spec::{ChunkId, ClusterName, FORMAT_VERSION, PackId, RepositoryId};

use super::{Input, Seed, Verdict, hostile_cbor, seed};

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([9; 16]);
const GENERATION: u32 = 1;
const SALT: [u8; 32] = [4; 32];
const KINDS: [ObjectKind; 3] = [ObjectKind::Manifest, ObjectKind::Snapshot, ObjectKind::Pack];

/// The keys of the repository that everything here belongs to.
struct Keys {
    seal: SealKeys,
    domain: DomainKey,
    sealer: BlobSealer,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let master = MasterKey::from_bytes([7; 32]);
    let seal = master.seal_keys(GENERATION);
    let sealer = BlobSealer::new(seal.clone(), REPOSITORY, cluster());
    Keys { domain: master.domain(&cluster()), seal, sealer }
});

fn cluster() -> ClusterName {
    "c".parse().expect("a plain name")
}

/// An object of any kind: one that opens is what sealing its payload gives.
///
/// # Panics
/// If it is not, or it opens as something else as well.
pub fn object_open(bytes: &[u8]) -> Verdict {
    let mut opened = 0;
    for kind in KINDS {
        let header = Header::decode(kind, bytes);
        if let Ok(header) = &header {
            assert!(bytes.starts_with(&header.encode(kind)), "a header has two encodings");
        }
        let Ok(payload) = object::open(kind, &KEYS.seal, REPOSITORY, bytes) else { continue };
        let header = header.expect("what opens has a header");
        let again = object::seal(kind, &KEYS.seal, REPOSITORY, header.salt, &payload);
        assert_eq!(again, bytes, "an object was sealed in two ways");
        opened += 1;
    }
    assert!(opened <= 1, "an object of two kinds");
    Verdict::of(opened == 1)
}

/// How sealed bytes are changed: `[how many] ([what] [where, 2 bytes] [with what])*`.
fn edited(sealed: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let mut bytes = sealed.to_vec();
    for _ in 0..input.byte()? % 16 {
        let [what, low, high, value] = input.array()?;
        let at = usize::from(u16::from_le_bytes([low, high])) % (bytes.len() + 1);
        match what % 5 {
            0 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= value),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, value),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.rotate_left(at),
        }
    }
    Some(bytes)
}

/// A sealed object after any changes: it opens only if nothing changed in the end.
///
/// # Panics
/// If an altered object opens.
pub fn object_altered(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let Some(kind) = input.byte().and_then(|kind| KINDS.get(usize::from(kind) % KINDS.len())) else {
        return Verdict::Refused;
    };
    let payload_len = usize::from(input.byte().unwrap_or_default());
    let payload = vec![0xa5; payload_len];
    let sealed = object::seal(*kind, &KEYS.seal, REPOSITORY, SALT, &payload);
    let Some(altered) = edited(&sealed, &mut input) else { return Verdict::Refused };
    let opened = object::open(*kind, &KEYS.seal, REPOSITORY, &altered);
    assert_eq!(opened.ok(), (altered == sealed).then_some(payload), "an altered object opens");
    Verdict::of(altered == sealed)
}

/// Parameters of a blob: `[kind] [compression] [length, 4 bytes] [id, 32 bytes]`.
fn info(input: &mut Input<'_>) -> Option<BlobInfo> {
    let [kind, compression] = input.array()?;
    Some(BlobInfo {
        kind: BlobKind::from_code(kind % 2)?,
        compression: Compression::from_code(compression % 2)?,
        plain_len: u32::from_le_bytes(input.array()?),
        id: ChunkId::from_bytes(input.array()?),
    })
}

/// A blob: one that opens is what sealing its payload gives.
///
/// # Panics
/// If it is not.
pub fn blob_open(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let Some(info) = info(&mut input) else { return Verdict::Refused };
    let blob = input.rest();
    let Ok(payload) = KEYS.sealer.open(&info, blob) else { return Verdict::Refused };
    let mut again = Vec::new();
    KEYS.sealer.seal(&info, &payload, &mut again);
    assert_eq!(again, blob, "a blob was sealed in two ways");
    Verdict::Accepted
}

/// A sealed blob after any changes of it, and taken for what it is or for something else: it opens only if
/// neither differs.
///
/// # Panics
/// If an altered blob opens, or one as something else.
pub fn blob_altered(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let (Some(was), Some(is)) = (info(&mut input), info(&mut input)) else { return Verdict::Refused };
    let payload = vec![0xa5; usize::from(input.byte().unwrap_or_default())];
    let mut sealed = Vec::new();
    KEYS.sealer.seal(&was, &payload, &mut sealed);
    let Some(altered) = edited(&sealed, &mut input) else { return Verdict::Refused };
    let same = altered == sealed && is == was;
    let opened = KEYS.sealer.open(&is, &altered);
    assert_eq!(opened.ok(), same.then_some(payload), "an altered blob opens");
    Verdict::of(same)
}

fn place(range: Range<u64>) -> Range<usize> {
    let narrow = |at: u64| usize::try_from(at).expect("a pack fits in memory");
    narrow(range.start)..narrow(range.end)
}

/// A whole pack: one that opens has every blob within it, and passes the look that needs no key.
///
/// # Panics
/// If not, or it opens under another name.
pub fn pack_open(bytes: &[u8]) -> Verdict {
    let looked = pack::look(bytes);
    let id = PackId::of(bytes);
    let Ok(directory) = pack::open(&KEYS.seal, REPOSITORY, id, bytes) else { return Verdict::Refused };
    assert_eq!(looked.map(|outside| outside.id), Ok(id), "it opens, and has no outside");
    assert!(pack::open(&KEYS.seal, REPOSITORY, PackId::from_bytes([0; 32]), bytes).is_err());
    let mut decompressor = Decompressor::new().expect("there is memory");
    for entry in &directory.entries {
        let blob = bytes.get(place(entry.range())).expect("a blob lies within its pack");
        // The result does not matter: the directory of a pack that opens may still name blobs that do not.
        let _either = pack::check_blob(&KEYS.sealer, &KEYS.domain, &mut decompressor, entry, blob);
    }
    Verdict::Accepted
}

/// A trailer: `[trailer, 64 bytes] [length of the pack, 8 bytes]`. One that is accepted names a footer that
/// ends where it starts.
///
/// # Panics
/// If not.
pub fn pack_trailer(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let (Some(trailer), Some(len)) = (input.array::<TRAILER_LEN>(), input.array()) else {
        return Verdict::Refused;
    };
    let pack_len = u64::from_le_bytes(len);
    let Ok(Trailer { footer_offset, footer_len, .. }) = Trailer::decode(&trailer, pack_len) else {
        return Verdict::Refused;
    };
    let end = u128::from(footer_offset) + u128::from(footer_len) + 64;
    assert_eq!(end, u128::from(pack_len), "a footer that ends elsewhere");
    assert!(pack_len <= MAX_PACK_LEN);
    Verdict::Accepted
}

/// A pack whose footer is `directory` in CBOR, under a seal that fits, and whose blobs are zeros. The higher bits
/// of `padding` say by how many units it is padded too far, and the lowest by how few bytes too little.
fn forged(padding: u8, directory: &[u8]) -> Vec<u8> {
    let sealed = object::seal(ObjectKind::Pack, &KEYS.seal, REPOSITORY, SALT, directory);
    let (header, footer) = sealed.split_at(HEADER_LEN);
    let tail_len = footer.len() + TRAILER_LEN;
    let least = (HEADER_LEN + tail_len).next_multiple_of(PADDING);
    let total = least + usize::from(padding >> 6) * PADDING - usize::from(padding & 7);
    let mut pack = header.to_vec();
    pack.resize(total - tail_len, 0);
    let offset = u64::try_from(pack.len()).expect("a short pack");
    pack.extend_from_slice(footer);
    pack.extend_from_slice(&offset.to_le_bytes());
    pack.extend_from_slice(&u32::try_from(footer.len()).expect("a short footer").to_le_bytes());
    pack.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    pack.extend_from_slice(&[0; 10]);
    // The name of bytes is their hash, which is what the trailer holds.
    pack.extend_from_slice(PackId::of(footer).as_bytes());
    pack.extend_from_slice(b"ASTTAIL\0");
    pack
}

/// Content of a pack's footer, past its seal: `[padding] [directory]`. Blobs follow each other, and there is
/// one form, as a builder makes the same pack of it.
///
/// # Panics
/// If not.
pub fn pack_footer(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let padding = input.byte().unwrap_or_default();
    let pack = forged(padding, input.rest());
    let found = match pack::open(&KEYS.seal, REPOSITORY, PackId::of(&pack), &pack) {
        Ok(found) => found,
        Err(error) => {
            let ours = matches!(error, format_spec::FormatError::Malformed { .. });
            assert!(ours, "the forged pack is refused for its outside: {error}");
            return Verdict::Refused;
        }
    };
    let mut builder = PackBuilder::new(GENERATION, REPOSITORY, found.domain.clone(), SALT);
    let mut at = u64::try_from(HEADER_LEN).expect("a small number");
    for entry in &found.entries {
        assert_eq!(entry.range().start, at, "a blob out of its place");
        at = entry.range().end;
        let blob = pack.get(place(entry.range())).expect("a blob lies within its pack");
        builder.append(&entry.info(), blob, entry.references.clone());
    }
    let again = builder.seal(&KEYS.seal);
    assert!(again.bytes == pack, "a pack has two forms");
    Verdict::Accepted
}

/// A pack of two chunks, one of them compressed, and a page that refers to them.
fn small_pack() -> pack::SealedPack {
    let text = b"a line that compresses well\n".repeat(100);
    let mut pack = PackBuilder::new(GENERATION, REPOSITORY, cluster(), SALT);
    let mut chunks = Vec::new();
    let plains =
        [(BlobKind::Chunk, b"a chunk".to_vec()), (BlobKind::Chunk, text), (BlobKind::Page, b"page".to_vec())];
    for (kind, plain) in plains {
        let id = KEYS.domain.id_of(kind, &plain);
        let mut compressor = Compressor::new(1).expect("a level that zstd has");
        let (compression, payload) = compressor.compress(&plain).expect("there is memory");
        let plain_len = u32::try_from(plain.len()).expect("a short text");
        let info = BlobInfo { kind, id, plain_len, compression };
        let mut blob = Vec::new();
        KEYS.sealer.seal(&info, payload, &mut blob);
        let references = if kind == BlobKind::Page { chunks.clone() } else { Vec::new() };
        pack.append(&info, &blob, references);
        chunks.push(id);
    }
    pack.seal(&KEYS.seal)
}

/// Seeds of [`object_open`].
pub fn objects() -> Vec<Seed> {
    let sealed = object::seal(ObjectKind::Manifest, &KEYS.seal, REPOSITORY, SALT, b"the payload");
    let foreign =
        object::seal(ObjectKind::Snapshot, &KEYS.seal, RepositoryId::from_bytes([8; 16]), SALT, b"x");
    let (header, _) = sealed.split_at(HEADER_LEN);
    let newer = sealed.iter().enumerate().map(|(at, byte)| if at == 8 { 2 } else { *byte });
    vec![
        seed("manifest", sealed.clone()),
        seed("snapshot", object::seal(ObjectKind::Snapshot, &KEYS.seal, REPOSITORY, [5; 32], b"")),
        seed("pack", object::seal(ObjectKind::Pack, &KEYS.seal, REPOSITORY, SALT, &[0; 100])),
        seed("another-repository", foreign),
        seed("another-version", newer.collect::<Vec<u8>>()),
        seed("header-only", header),
        seed("no-tag", [header, &[0; 27]].concat()),
        seed("empty", []),
    ]
}

/// Seeds of [`object_altered`].
pub fn object_edits() -> Vec<Seed> {
    vec![
        seed("unchanged", [0, 11, 0]),
        seed("one-bit-there-and-back", [1, 11, 2, 0, 70, 0, 1, 0, 70, 0, 1]),
        seed("one-bit-of-the-salt", [2, 11, 1, 0, 40, 0, 128]),
        seed("cut", [0, 11, 1, 1, 90, 0, 0]),
        seed("longer", [1, 200, 1, 2, 255, 255, 0]),
        seed("turned", [2, 3, 1, 4, 64, 0, 0]),
        seed("empty", []),
    ]
}

fn info_bytes(info: &BlobInfo) -> Vec<u8> {
    let codes = [info.kind.code(), info.compression.code()];
    [&codes[..], &info.plain_len.to_le_bytes(), info.id.as_bytes()].concat()
}

const CHUNK: BlobInfo = BlobInfo {
    kind: BlobKind::Chunk,
    id: ChunkId::from_bytes([6; 32]),
    plain_len: 9,
    compression: Compression::Raw,
};

/// Seeds of [`blob_open`].
pub fn blobs() -> Vec<Seed> {
    let mut blob = Vec::new();
    KEYS.sealer.seal(&CHUNK, b"plaintext", &mut blob);
    let page = BlobInfo { kind: BlobKind::Page, ..CHUNK };
    vec![
        seed("chunk", [info_bytes(&CHUNK), blob.clone()].concat()),
        seed("as-a-page", [info_bytes(&page), blob.clone()].concat()),
        seed("tag-only", [info_bytes(&CHUNK), vec![0; 28]].concat()),
        seed("nothing", info_bytes(&CHUNK)),
        seed("empty", []),
    ]
}

/// Seeds of [`blob_altered`].
pub fn blob_edits() -> Vec<Seed> {
    let longer = BlobInfo { plain_len: 10, ..CHUNK };
    let (chunk, longer) = (info_bytes(&CHUNK), info_bytes(&longer));
    vec![
        seed("unchanged", [&chunk[..], &chunk, &[9, 0]].concat()),
        seed("of-another-length", [&chunk[..], &longer, &[9, 0]].concat()),
        seed("one-bit", [&chunk[..], &chunk, &[9, 1, 0, 20, 0, 4]].concat()),
        seed("cut", [&chunk[..], &chunk, &[9, 1, 1, 20, 0, 0]].concat()),
        seed("empty", []),
    ]
}

/// Seeds of [`pack_open`].
pub fn packs() -> Vec<Seed> {
    let pack = small_pack();
    let (header, rest) = pack.bytes.split_at(HEADER_LEN);
    let (_, trailer) = pack.bytes.split_at(pack.bytes.len() - TRAILER_LEN);
    let (_, second_half) = rest.split_at(rest.len() / 2);
    vec![
        seed("whole", pack.bytes.to_vec()),
        seed("without-its-middle", [header, second_half].concat()),
        seed("header-and-trailer", [header, trailer].concat()),
        seed("trailer-only", trailer),
        seed("empty", []),
    ]
}

/// Seeds of [`pack_trailer`].
pub fn trailers() -> Vec<Seed> {
    let pack = small_pack().bytes;
    let (_, trailer) = pack.split_at(pack.len() - TRAILER_LEN);
    let of_len = |len: u64| [trailer, &len.to_le_bytes()].concat();
    let len = u64::try_from(pack.len()).expect("a short pack");
    let (_, after_lengths) = trailer.split_at(12);
    let claim = |offset: u64, footer: u32, len: u64| {
        [&offset.to_le_bytes()[..], &footer.to_le_bytes(), after_lengths, &len.to_le_bytes()].concat()
    };
    vec![
        seed("fits", of_len(len)),
        seed("of-a-longer-pack", of_len(len + 65_536)),
        seed("claims-all-there-is", claim(u64::MAX, u32::MAX, u64::MAX)),
        seed("wraps-around", claim(u64::MAX - 63, 0, 0)),
        seed("longest", claim(MAX_PACK_LEN - 64, 0, MAX_PACK_LEN)),
        seed("too-long", claim(MAX_PACK_LEN, 0, MAX_PACK_LEN + 64)),
        seed("empty", []),
    ]
}

/// Seeds of [`pack_footer`].
pub fn footers() -> Vec<Seed> {
    let encode =
        |directory: &Directory| minicbor::to_vec(directory).expect("writing to memory does not fail");
    let good = small_pack().directory;
    let with_first = |change: &dyn Fn(&mut pack::PackEntry)| {
        let mut directory = good.clone();
        directory.entries.first_mut().into_iter().for_each(change);
        encode(&directory)
    };
    let mut seeds = vec![
        seed("whole", encode(&good)),
        seed("no-blob", encode(&Directory { entries: Vec::new(), ..good.clone() })),
        seed("before-the-blobs", with_first(&|entry| entry.offset = 0)),
        seed("behind-the-pack", with_first(&|entry| entry.stored_len = u32::MAX)),
        seed("too-long-a-plaintext", with_first(&|entry| entry.plain_len = u32::MAX)),
        seed(
            "swapped",
            encode(&Directory { entries: good.entries.iter().rev().cloned().collect(), ..good.clone() }),
        ),
    ];
    seeds.extend(hostile_cbor(&encode(&good)));
    let padded = |padding: u8| [&[padding][..], &encode(&good)].concat();
    let mut seeds: Vec<Seed> =
        seeds.into_iter().map(|(name, bytes)| (name, [&[0][..], &bytes].concat())).collect();
    seeds.push(seed("padded-too-far", padded(64)));
    // The one blob ends so that a full unit of padding lies behind it.
    seeds.push(seed("padded-by-a-unit", full_unit()));
    seeds.push(seed("padded-too-little", padded(1)));
    seeds
}

/// A directory of one blob, behind which a whole unit of padding lies in a pack that is a unit too long.
fn full_unit() -> Vec<u8> {
    let directory = |stored_len: u32| {
        let entry = pack::PackEntry {
            kind: BlobKind::Chunk,
            id: CHUNK.id,
            offset: u32::try_from(HEADER_LEN).expect("a small number"),
            stored_len,
            plain_len: 9,
            compression: Compression::Raw,
            references: Vec::new(),
        };
        let directory = Directory { domain: cluster(), entries: vec![entry] };
        minicbor::to_vec(directory).expect("writing to memory does not fail")
    };
    // Space of the first unit that footer and seal leave.
    let left = PADDING - HEADER_LEN - TRAILER_LEN - format_spec::blob::OVERHEAD - directory(60_000).len();
    [&[64][..], &directory(u32::try_from(left).expect("a small number"))].concat()
}
