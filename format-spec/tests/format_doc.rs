//! `docs/format.md` is true: its numbers are the code's, and it is enough to open a pack without us.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "whatever stops here fails the test")]

use std::collections::BTreeMap;
use std::fs;

use aes_gcm::KeyInit;
use aes_gcm::aead::AeadInOut;
use format_spec::id::{RepositoryId, parse_hex_32, to_hex};
use format_spec::key::{BlobKind, MasterKey};
use format_spec::object::{self, ObjectKind};
use format_spec::{
    FORMAT_VERSION, MAX_CHUNK_LEN, aead, blob, checkpoint, entry, keyring, manifest, pack, page, paper, path,
    wire,
};

const DOC: &str = include_str!("../../docs/format.md");
const REPOSITORY: &[u8; 16] = b"repository-id-16";

/// The rows of tables with `cells` cells, without their code marks.
fn rows(cells: usize) -> impl Iterator<Item = Vec<String>> {
    let row = |line: &str| {
        let line = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(line.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect::<Vec<_>>())
    };
    DOC.lines().filter_map(row).filter(move |row| row.len() == cells)
}

/// The constants that the document states.
fn stated() -> BTreeMap<String, u64> {
    rows(3).filter_map(|row| Some((row[0].clone(), row[1].parse().ok()?))).collect()
}

/// The context of each derivation that the document states, by what it derives.
fn contexts() -> BTreeMap<String, String> {
    let context = |row: Vec<String>| {
        let (_, rest) = row[1].split_once("derive(\"")?;
        Some((row[0].clone(), rest.split_once('"')?.0.to_owned()))
    };
    rows(2).filter_map(context).collect()
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

/// A reader made from the document: blake3 and AES-GCM, and nothing of this crate.
struct Stranger {
    contexts: BTreeMap<String, String>,
    master: [u8; 32],
}

impl Stranger {
    fn new() -> Self {
        let text = golden("master.key");
        let master = parse_hex_32(std::str::from_utf8(&text).unwrap().trim_end()).unwrap();
        Self { contexts: contexts(), master }
    }

    fn derive(&self, what: &str, material: &[&[u8]]) -> [u8; 32] {
        let context = self.contexts.get(what).unwrap_or_else(|| panic!("the document derives no `{what}`"));
        blake3::derive_key(context, &material.concat())
    }

    fn domain(&self, what: &str) -> [u8; 32] {
        let domain = self.derive("domain key of a cluster", &[&self.master, b"cluster-1"]);
        self.derive(what, &[&domain])
    }

    fn of_generation(&self, what: &str) -> [u8; 32] {
        self.derive(what, &[&self.master, &1_u32.to_le_bytes()])
    }

    /// The payload of `sealed`, whose nonce must be the one that the document derives.
    fn open(&self, purpose: &str, of: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
        let root = self.of_generation(&format!("{purpose} root of a generation"));
        let nonce_key = self.of_generation(&format!("{purpose} nonce key"));
        let key = blake3::keyed_hash(&root, of);
        let (nonce, rest) = sealed.split_first_chunk::<12>().unwrap();
        let (ciphertext, tag) = rest.split_last_chunk::<16>().unwrap();
        let mut payload = ciphertext.to_vec();
        aes_gcm::Aes256Gcm::new(key.as_bytes().into())
            .decrypt_inout_detached(nonce.into(), aad, payload.as_mut_slice().into(), tag.into())
            .unwrap();
        let message = [&wide(aad.len()).to_le_bytes(), aad, &payload].concat();
        assert_eq!(nonce[..], blake3::keyed_hash(&nonce_key, &message).as_bytes()[..12]);
        payload
    }

    fn blob(&self, pack: &[u8], entry: &StrangersEntry) -> Vec<u8> {
        let aad = [
            &b"astacus blob\0"[..],
            &1_u16.to_le_bytes(),
            &1_u32.to_le_bytes(),
            REPOSITORY,
            &[entry.kind, entry.compression],
            &entry.plain_len.to_le_bytes(),
            &entry.id,
            b"cluster-1",
        ];
        let payload = self.open("blob", &entry.id, &aad.concat(), &pack[entry.offset..][..entry.stored_len]);
        if entry.compression == 0 { payload } else { zstd::decode_all(payload.as_slice()).unwrap() }
    }
}

struct StrangersEntry {
    kind: u8,
    id: [u8; 32],
    offset: usize,
    stored_len: usize,
    plain_len: u32,
    compression: u8,
    references: Vec<u8>,
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/golden/v1/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The directory in a footer's payload.
fn directory(footer: &[u8]) -> Vec<StrangersEntry> {
    let mut cbor = minicbor::Decoder::new(footer);
    assert_eq!(cbor.map().unwrap(), Some(2));
    assert_eq!((cbor.u8().unwrap(), cbor.str().unwrap(), cbor.u8().unwrap()), (0, "cluster-1", 1));
    let count = cbor.array().unwrap().unwrap();
    let entry = |_| {
        assert_eq!(cbor.array().unwrap(), Some(7));
        StrangersEntry {
            kind: cbor.u8().unwrap(),
            id: cbor.bytes().unwrap().try_into().unwrap(),
            offset: usize::try_from(cbor.u64().unwrap()).unwrap(),
            stored_len: usize::try_from(cbor.u64().unwrap()).unwrap(),
            plain_len: cbor.u32().unwrap(),
            compression: cbor.u8().unwrap(),
            references: cbor.bytes().unwrap().to_vec(),
        }
    };
    (0..count).map(entry).collect()
}

/// P6: this document and the master key are enough to read every blob of a pack.
#[test]
fn the_document_is_enough_to_open_a_pack() {
    let (stranger, pack) = (Stranger::new(), golden("blobs.pack"));
    let trailer = &pack[pack.len() - 64..];
    let footer_at = usize::try_from(u64::from_le_bytes(trailer[..8].try_into().unwrap())).unwrap();
    let footer_len = usize::try_from(u32::from_le_bytes(trailer[8..12].try_into().unwrap())).unwrap();
    let sealed_footer = &pack[footer_at..][..footer_len];
    let (header, salt) = (&pack[..64], pack[32..64].try_into().unwrap());

    let entries = directory(&stranger.open("metadata", &salt, header, sealed_footer));

    assert_eq!((&pack[..8], &trailer[56..]), (&b"ASTPACK\0"[..], &b"ASTTAIL\0"[..]));
    assert_eq!((&header[8..16], &header[16..32]), (&[1, 0, 0, 0, 1, 0, 0, 0][..], &REPOSITORY[..]));
    assert_eq!(
        (&trailer[12..24], &trailer[24..56]),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &blake3::hash(sealed_footer).as_bytes()[..])
    );
    assert_eq!(entries.len(), 3);
    for entry in &entries {
        let plain = stranger.blob(&pack, entry);
        let id_key = stranger.domain(["chunk id key", "page id key"][usize::from(entry.kind)]);
        assert_eq!(entry.id, *blake3::keyed_hash(&id_key, &plain).as_bytes());
        assert_eq!(wide(plain.len()), u64::from(entry.plain_len));
    }
    assert_eq!(stranger.blob(&pack, &entries[2]), golden("page.bin"));
    assert_eq!(entries[2].references.len(), 64);
}

#[test]
fn the_document_is_enough_to_open_sealed_objects() {
    let stranger = Stranger::new();
    for (name, magic) in [
        ("manifest", b"ASTMANI\0"),
        ("snapshot", b"ASTSNAP\0"),
        ("checkpoint", b"ASTCHKP\0"),
        ("protection", b"ASTPROT\0"),
    ] {
        let sealed = golden(&format!("{name}.sealed"));
        let (header, salt) = (&sealed[..64], sealed[32..64].try_into().unwrap());

        assert_eq!(header[..8], magic[..]);
        assert_eq!(stranger.open("metadata", &salt, header, &sealed[64..]), golden(&format!("{name}.cbor")));
    }
}

/// The forty bytes of the sheet `name`, by the document.
fn sheet(name: &str) -> Vec<u8> {
    let text = String::from_utf8(golden(name)).unwrap();
    let mut bytes = Vec::new();
    for line in text.lines() {
        let symbols: Vec<char> = line[3..].chars().filter(|symbol| *symbol != ' ').collect();
        let value = |symbol: &char| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(*symbol).unwrap();
        let five = symbols[..8].iter().fold(0, |whole, symbol| whole << 5 | wide(value(symbol)));
        bytes.extend(&five.to_be_bytes()[3..]);
    }
    bytes
}

#[test]
fn the_document_is_enough_to_read_a_sheet_and_to_open_its_slot() {
    let stranger = Stranger::new();
    for (name, kind) in [("sheet.txt", 1), ("sheet-of-slot.txt", 2)] {
        let bytes = sheet(name);
        let check = stranger.derive("check of a recovery sheet", &[&bytes[..34]]);
        assert_eq!((&bytes[..2], &bytes[34..]), (&[1, kind][..], &check[..6]));
    }
    assert_eq!(sheet("sheet.txt")[2..34], stranger.master);
    let file: serde_json::Value = serde_json::from_slice(&golden("keyring.json")).unwrap();
    let (ring, slot) = (&file["keyring"], &file["keyring"]["slots"][1]);
    let hex = |value: &serde_json::Value| -> Vec<u8> {
        let digits = value.as_str().unwrap().as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    let (salt, wrapped) = (hex(&slot["opener"]["salt"]), hex(&slot["opener"]["wrapped"]));
    let key = stranger.derive("wrapping key of a recovery key", &[&sheet("sheet-of-slot.txt")[2..34], &salt]);
    let [fingerprint, name] =
        [&ring["master_key_fingerprint"], &slot["name"]].map(|text| text.as_str().unwrap());
    let aad = [&REPOSITORY[..], &salt, &[0; 12], fingerprint.as_bytes(), name.as_bytes()].concat();
    let (ciphertext, tag) = wrapped.split_last_chunk::<16>().unwrap();
    let mut master = ciphertext.to_vec();

    aes_gcm::Aes256Gcm::new((&key).into())
        .decrypt_inout_detached((&[0; 12]).into(), &aad, master.as_mut_slice().into(), tag.into())
        .unwrap();

    assert_eq!(master, stranger.master);
}

#[test]
fn what_the_document_derives_is_what_we_derive() {
    let stranger = Stranger::new();
    let master = MasterKey::from_bytes(stranger.master);
    let domain = master.domain(&"cluster-1".parse().unwrap());
    let domain_key = stranger.derive("domain key of a cluster", &[&stranger.master, b"cluster-1"]);

    assert_eq!(stranger.contexts.len(), 15, "{:?}", stranger.contexts);
    assert_eq!(stranger.derive("fingerprint of the master key", &[&stranger.master]), master.fingerprint());
    assert_eq!(to_hex(&domain_key), domain.to_hex());
    let mut gear =
        blake3::Hasher::new_derive_key(&stranger.contexts["gear table"]).update(&domain_key).finalize_xof();
    for entry in domain.gear_table().iter() {
        let mut bytes = [0; 8];
        gear.fill(&mut bytes);
        assert_eq!(*entry, u64::from_le_bytes(bytes));
    }
    let group = blake3::keyed_hash(&stranger.domain("page boundary key"), b"data/x");
    assert_eq!(domain.link_group(b"data/x").to_le_bytes(), group.as_bytes()[..8]);
    let extents = [&[0_u8][..], &5_u64.to_le_bytes(), &[9; 32], &[1], &7_u64.to_le_bytes()].concat();
    let mut digester = domain.file_digester();
    let id = format_spec::ChunkId::from_bytes([9; 32]);
    digester.push(&format_spec::Extent::Chunk { id, len: 5 });
    digester.push(&format_spec::Extent::Hole { len: 7 });
    let digest = blake3::keyed_hash(&stranger.domain("file digest key"), &extents);
    assert_eq!(digester.finish().as_bytes(), digest.as_bytes());
    let repository = RepositoryId::from_bytes(*REPOSITORY);
    let sealed = object::seal(ObjectKind::Manifest, &master.seal_keys(1), repository, [3; 32], b"payload");
    assert_eq!(stranger.open("metadata", &[3; 32], &sealed[..64], &sealed[64..]), b"payload");
    let chunk = blake3::keyed_hash(&stranger.domain("chunk id key"), b"plain");
    assert_eq!(domain.id_of(BlobKind::Chunk, b"plain").as_bytes(), chunk.as_bytes());
}

#[test]
fn limits_and_lengths_in_the_document_are_the_codes() {
    let code = [
        ("FORMAT_VERSION", u64::from(FORMAT_VERSION)),
        ("MAX_CHUNK_LEN", u64::from(MAX_CHUNK_LEN)),
        ("page::MAX_PAGE_LEN", wide(page::MAX_PAGE_LEN)),
        ("entry::MAX_XATTRS_LEN", wide(entry::MAX_XATTRS_LEN)),
        ("path::MAX_PATH_LEN", wide(path::MAX_PATH_LEN)),
        ("path::MAX_COMPONENT_LEN", wide(path::MAX_COMPONENT_LEN)),
        ("manifest::MAX_MANIFEST_LEN", wide(manifest::MAX_MANIFEST_LEN)),
        ("manifest::MAX_PROBLEMS", wide(manifest::MAX_PROBLEMS)),
        ("manifest::MAX_ROOTS", wide(manifest::MAX_ROOTS)),
        ("manifest::MAX_FALLBACK_LEN", wide(manifest::MAX_FALLBACK_LEN)),
        ("manifest::MAX_LABEL_LEN", wide(manifest::MAX_LABEL_LEN)),
        ("manifest::MAX_PROBLEM_LEN", wide(manifest::MAX_PROBLEM_LEN)),
        ("label::MAX_LABELS", wide(format_spec::label::MAX_LABELS)),
        ("label::MAX_LABEL_VALUE_LEN", wide(format_spec::label::MAX_LABEL_VALUE_LEN)),
        ("label::MAX_NOTE_LEN", wide(format_spec::label::MAX_NOTE_LEN)),
        ("snapshot::MAX_NAMED_ROOTS", wide(format_spec::snapshot::MAX_NAMED_ROOTS)),
        ("checkpoint::MAX_CHECKPOINT_LEN", wide(checkpoint::MAX_CHECKPOINT_LEN)),
        ("protection::MAX_REASON_LEN", wide(format_spec::protection::MAX_REASON_LEN)),
        ("pack::TARGET_LEN", wide(pack::TARGET_LEN)),
        ("pack::MAX_PACK_LEN", pack::MAX_PACK_LEN),
        ("pack::PADDING", wide(pack::PADDING)),
        ("pack::TRAILER_LEN", wide(pack::TRAILER_LEN)),
        ("object::HEADER_LEN", wide(object::HEADER_LEN)),
        ("blob::OVERHEAD", wide(blob::OVERHEAD)),
        ("aead::NONCE_LEN", wide(aead::NONCE_LEN)),
        ("aead::TAG_LEN", wide(aead::TAG_LEN)),
        ("wire::FRAME_HEADER_LEN", wide(wire::FRAME_HEADER_LEN)),
        ("wire::MAX_IDS", wide(wire::MAX_IDS)),
        ("wire::MAX_READ_LEN", wire::MAX_READ_LEN),
        ("wire::MAX_BLOBS_LEN", wire::MAX_BLOBS_LEN),
        ("wire::MAX_JSON_LEN", wire::MAX_JSON_LEN),
        ("keyring::MAX_LEN", wide(keyring::MAX_LEN)),
        ("keyring::MAX_SLOTS", wide(keyring::MAX_SLOTS)),
        ("keyring::MIN_PASSPHRASE", wide(keyring::MIN_PASSPHRASE)),
        ("keyring::MAX_TIME_LIMIT_S", keyring::MAX_TIME_LIMIT_S),
        ("paper::LINES", wide(paper::LINES)),
        ("paper::SYMBOLS", wide(paper::SYMBOLS)),
    ];
    // Checked in page/tests.rs, where they can be seen.
    let private = ["page::MIN_LEN", "page::CUT_LEN"];
    let mut stated = stated();
    stated.retain(|name, _| name.contains("::") || name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));

    for (name, value) in code {
        assert_eq!(stated.remove(name), Some(value), "{name}");
    }
    for name in private {
        assert!(stated.remove(name).is_some(), "{name}");
    }
    assert!(stated.is_empty(), "not checked: {stated:?}");
}

/// Twin: the tables are read, and a row that is not there is missed.
#[test]
fn the_tables_of_the_document_are_found() {
    assert_eq!(stated().get("pack::PADDING"), Some(&65_536));
    assert!(!stated().contains_key("pack::NO_SUCH"));
    assert_eq!(contexts()["blob nonce key"], "astacus v1 2026 blob nonce");
    assert!(std::panic::catch_unwind(|| Stranger::new().derive("no such key", &[])).is_err());
}
