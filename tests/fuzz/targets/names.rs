//! Texts that name something: ids, names, keys, paths, and objects on a site.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use format_spec::id::{parse_hex_32, to_hex};
use format_spec::key::{DomainKey, MasterKey};
use format_spec::path::{MAX_COMPONENT_LEN, MAX_PATH_LEN};
use format_spec::{
    ChunkId, ClusterName, EntryPath, FileDigest, ManifestId, NodeName, PackId, RepositoryId, SessionId,
    SnapshotId,
};
use repo_server::durable::FileName;
use repo_server::site::{Area, ObjectName, Prefix};

use super::{Seed, Verdict, seed, text};

/// Decodes `text` as a `T`, and compares the encoding of the result with `text`.
fn is_exactly<T: FromStr + Display>(text: &str) -> bool {
    let Ok(value) = text.parse::<T>() else { return false };
    assert_eq!(value.to_string(), text, "an id has two texts");
    true
}

/// Decodes `text` as a `T`, of which UUIDs have several forms, and checks that the output always has the same
/// form.
fn is_uuid<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) -> bool {
    let Ok(value) = text.parse::<T>() else { return false };
    let shown = value.to_string();
    assert_eq!((shown.len(), shown.to_ascii_lowercase() == shown), (36, true), "{shown}");
    assert_eq!(shown.parse::<T>().ok(), Some(value), "what is shown is another id");
    true
}

/// An id: of one kind at most, and safe in paths and URLs as it is shown.
///
/// # Panics
/// If not.
pub fn id_text(bytes: &[u8]) -> Verdict {
    let Some(text) = text(bytes) else { return Verdict::Refused };
    if let Some(raw) = parse_hex_32(text) {
        assert_eq!(to_hex(&raw), text, "hex has two texts");
    }
    let hashes = [
        is_exactly::<ChunkId>(text),
        is_exactly::<PackId>(text),
        is_exactly::<ManifestId>(text),
        is_exactly::<FileDigest>(text),
    ];
    let uuids = [is_uuid::<SnapshotId>(text), is_uuid::<RepositoryId>(text), is_uuid::<SessionId>(text)];
    let kinds = hashes.into_iter().filter(|is| *is).count();
    let any_uuid = uuids.contains(&true);
    assert!(kinds + usize::from(any_uuid) <= 1, "an id of two kinds");
    assert!(uuids.iter().all(|is| *is == any_uuid));
    Verdict::of(kinds == 1 || any_uuid)
}

/// The name of a cluster or a node: safe as a file name, as an argument and in a URL.
///
/// # Panics
/// If one is accepted that is not.
pub fn name(bytes: &[u8]) -> Verdict {
    let Some(text) = text(bytes) else { return Verdict::Refused };
    let cluster = text.parse::<ClusterName>();
    assert_eq!(cluster.is_ok(), text.parse::<NodeName>().is_ok(), "names of two kinds");
    let json = serde_json::to_vec(text).expect("a text is JSON");
    let from_json = serde_json::from_slice::<ClusterName>(&json).ok();
    assert_eq!(from_json, cluster.clone().ok(), "JSON lets other names in");
    let cbor = minicbor::to_vec(text).expect("writing to memory does not fail");
    assert_eq!(minicbor::decode::<ClusterName>(&cbor).ok(), from_json, "CBOR lets other names in");
    let Ok(cluster) = cluster else { return Verdict::Refused };
    assert_eq!(cluster.as_str(), text);
    assert!((1..=128).contains(&text.len()) && !text.starts_with(['.', '-']), "{text:?}");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{text:?}");
    Verdict::Accepted
}

/// A path of an entry: it stays below its root, and comes apart as it was put together.
///
/// # Panics
/// If not.
pub fn entry_path(bytes: &[u8]) -> Verdict {
    let Ok(path) = EntryPath::new(bytes.to_vec()) else { return Verdict::Refused };
    assert_eq!(path.as_bytes(), bytes);
    assert!(bytes.len() <= MAX_PATH_LEN && !bytes.contains(&0));
    for component in path.components() {
        assert!((1..=MAX_COMPONENT_LEN).contains(&component.len()), "{path}");
        assert!(component != b"." && component != b".." && !component.contains(&b'/'), "{path}");
    }
    assert!(!path.to_string().chars().any(char::is_control), "{path} moves the cursor");
    assert_eq!(path.below(&path), Some(&b""[..]));
    if let Some((folder, name)) = path.split_last() {
        assert_eq!(folder.join(name).as_ref(), Ok(&path));
        assert_eq!(path.below(&folder), Some(name));
        assert!(folder < path, "a folder comes before what it holds");
    }
    Verdict::Accepted
}

/// The name of a file that a server publishes: it stays in its folder, and passes for no temporary one.
///
/// # Panics
/// If not.
pub fn file_name(bytes: &[u8]) -> Verdict {
    let Some(Ok(name)) = text(bytes).map(str::parse::<FileName>) else { return Verdict::Refused };
    assert_eq!(name.as_str().as_bytes(), bytes);
    let component = EntryPath::new(bytes.to_vec()).expect("a file name is a path of one component");
    assert_eq!(component.components().count(), 1);
    assert!(!name.as_str().starts_with(repo_server::durable::TEMPORARY_PREFIX));
    Verdict::Accepted
}

/// The name of an object on a site, or a prefix of names: it stays on the site, in its area.
///
/// # Panics
/// If not.
pub fn object_name(bytes: &[u8]) -> Verdict {
    let Some(text) = text(bytes) else { return Verdict::Refused };
    let prefix = Prefix::new(text);
    let is_prefix = prefix.is_ok_and(|prefix| {
        assert_eq!(prefix.to_string(), text);
        true
    });
    let name = ObjectName::new(text);
    assert!(is_prefix || name.is_err(), "a name that is no prefix");
    let Ok(name) = name else { return Verdict::of(is_prefix) };
    assert_eq!(name.as_str(), text);
    let (area, _) = text.split_once('/').expect("it has an area");
    assert!(Area::ALL.iter().any(|known| known.as_str() == area), "{area}");
    let path = EntryPath::new(bytes.to_vec()).expect("the name of an object is a harmless path");
    let components: Vec<&[u8]> = path.components().collect();
    assert!((2..=4).contains(&components.len()) && components.iter().all(|part| !part.starts_with(b".")));
    assert!(text.len() <= 512 && text.is_ascii());
    Verdict::Accepted
}

/// The file of a master key, and the text of a domain key: what is accepted is written as it was, but for
/// what follows the digits in a file.
///
/// # Panics
/// If not.
pub fn key_text(bytes: &[u8]) -> Verdict {
    let Some(text) = text(bytes) else { return Verdict::Refused };
    if let Some(domain) = DomainKey::parse(text) {
        assert_eq!(domain.to_hex(), text, "a domain key has two texts");
    }
    let Some(master) = MasterKey::parse(text) else { return Verdict::Refused };
    assert_eq!(master.to_file_text().trim_end(), text.trim_end(), "a master key has two texts");
    let again = MasterKey::parse(&master.to_file_text()).expect("what was written is read");
    assert_eq!(again.fingerprint(), master.fingerprint());
    Verdict::Accepted
}

/// Seeds of [`id_text`].
pub fn id_texts() -> Vec<Seed> {
    let hash = [0xa7; 32];
    let chunk = ChunkId::from_bytes(hash).to_string();
    let uuid = SnapshotId::new(1_790_000_000_123, [0x5a; 10]).to_string();
    vec![
        seed("chunk", chunk.clone()),
        seed("pack", PackId::from_bytes(hash).to_string()),
        seed("manifest", ManifestId::from_bytes(hash).to_string()),
        seed("file", FileDigest::from_bytes(hash).to_string()),
        seed("hex", to_hex(&hash)),
        seed("uuid", uuid.clone()),
        seed("uuid-in-braces", format!("{{{uuid}}}")),
        seed("uuid-urn", format!("urn:uuid:{uuid}")),
        seed("uuid-simple", uuid.replace('-', "")),
        seed("upper-case", chunk.to_uppercase()),
        seed("two-kinds", format!("pack:{chunk}")),
        seed("not-utf-8", [0xff, 0xfe]),
        seed("empty", []),
    ]
}

/// Seeds of [`name`].
pub fn name_texts() -> Vec<Seed> {
    vec![
        seed("plain", "node-1.example"),
        seed("longest", "x".repeat(128)),
        seed("too-long", "x".repeat(129)),
        seed("parent", ".."),
        seed("option", "-x"),
        seed("slash", "a/b"),
        seed("line-end", "a\n"),
        seed("letters-of-others", "é"),
        seed("empty", []),
    ]
}

/// Seeds of [`entry_path`].
pub fn entry_paths() -> Vec<Seed> {
    vec![
        seed("plain", "var/lib/data/file.db"),
        seed("odd", b"caf\xc3\xa9/\xff\x1b[31m".to_vec()),
        seed("deep", "a/".repeat(2000) + "b"),
        seed("too-deep", "a/".repeat(2048) + "b"),
        seed("wide", "x".repeat(255)),
        seed("too-wide", "x".repeat(256)),
        seed("parent", "a/../b"),
        seed("absolute", "/etc/passwd"),
        seed("nul", "a\0b"),
        seed("empty", []),
    ]
}

/// Seeds of [`file_name`].
pub fn file_names() -> Vec<Seed> {
    let prefix = repo_server::durable::TEMPORARY_PREFIX;
    vec![
        seed("plain", "master.key"),
        seed("temporary", format!("{prefix}0")),
        seed("parent", ".."),
        seed("slash", "a/b"),
        seed("long", "x".repeat(300)),
        seed("nul", "a\0"),
        seed("empty", []),
    ]
}

/// Seeds of [`object_name`].
pub fn object_names() -> Vec<Seed> {
    vec![
        seed("pack", format!("packs/ab/{}", "ab".repeat(32))),
        seed("descriptor", "keyring/repository"),
        seed("prefix", "packs"),
        seed("deepest", "heads/a/b/c"),
        seed("too-deep", "heads/a/b/c/d"),
        seed("parent", "packs/../keyring/repository"),
        seed("hidden", "packs/.tmp"),
        seed("absolute", "/packs/a"),
        seed("escaped", "packs/%2e%2e"),
        seed("another-area", "other/a"),
        seed("long", format!("heads/{0}/{0}/{0}", "x".repeat(200))),
        seed("empty", []),
    ]
}

/// Seeds of [`key_text`].
pub fn key_texts() -> Vec<Seed> {
    let text = MasterKey::from_bytes([7; 32]).to_file_text();
    vec![
        seed("file", text.clone()),
        seed("no-line-end", text.trim_end()),
        seed("windows", text.replace('\n', "\r\n")),
        seed("upper-case", MasterKey::from_bytes([0xab; 32]).to_file_text().to_uppercase()),
        seed("one-digit-less", text.trim_end().split_at(63).0),
        seed("leading-space", format!(" {text}")),
        seed("empty", []),
    ]
}
