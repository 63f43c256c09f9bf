//! Every bit and every cut of the stored data of a repository: the golden pack, manifest, snapshot,
//! descriptor and master key of version 1. The format must either refuse the changed data or read it as
//! unchanged.
//!
//! Damage is looked for under a name that fits it, as a forger would give it one: the name alone, which is a
//! hash of all bytes, is tried as well. Every padding byte of the pack has one of its eight bits flipped;
//! with `ASTACUS_NIGHTLY=1` all of them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "whatever stops here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use format_spec::blob::{BlobSealer, Decompressor};
use format_spec::descriptor::Descriptor;
use format_spec::key::{DomainKey, MasterKey, SealKeys};
use format_spec::manifest::Manifest;
use format_spec::object::{self, ObjectKind};
use format_spec::pack::{self, Directory, PADDING, PackEntry};
use format_spec::snapshot::Snapshot;
use format_spec::{ManifestId, PackId, RepositoryId};

const REPOSITORY: RepositoryId = RepositoryId::from_bytes(*b"repository-id-16");
const GENERATION: u32 = 1;

/// True if it detects that some bytes differ from the stored ones.
type Detector<'a> = &'a dyn Fn(&[u8]) -> bool;

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1")).join(name)).unwrap()
}

fn parse_master(text: &[u8]) -> Option<MasterKey> {
    MasterKey::parse(std::str::from_utf8(text).ok()?)
}

fn master() -> MasterKey {
    parse_master(&golden("master.key")).unwrap()
}

fn keys() -> SealKeys {
    master().seal_keys(GENERATION)
}

/// The bits among `bits` whose flip `detects` does not see.
fn missed_flips(
    bytes: &[u8],
    bits: impl IntoIterator<Item = usize>,
    mut detects: impl FnMut(&[u8]) -> bool,
) -> Vec<usize> {
    let mut bytes = bytes.to_vec();
    let missed = bits.into_iter().filter(|bit| {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let missed = !detects(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
        missed
    });
    missed.collect()
}

/// The lengths to which `bytes` can be cut without `detects` seeing it.
fn missed_cuts(bytes: &[u8], mut detects: impl FnMut(&[u8]) -> bool) -> Vec<usize> {
    (0..bytes.len()).filter(|len| !detects(&bytes[..*len])).collect()
}

fn bits_of(places: Range<usize>) -> Range<usize> {
    places.start * 8..places.end * 8
}

fn place(entry: &PackEntry) -> Range<usize> {
    usize::try_from(entry.range().start).unwrap()..usize::try_from(entry.range().end).unwrap()
}

/// Reads whole packs, whatever their name.
struct Reader {
    keys: SealKeys,
    sealer: BlobSealer,
    domain: DomainKey,
    decompressor: Decompressor,
}

impl Reader {
    fn new() -> Self {
        let cluster = "cluster-1".parse().unwrap();
        Self {
            keys: keys(),
            domain: master().domain(&cluster),
            sealer: BlobSealer::new(keys(), REPOSITORY, cluster),
            decompressor: Decompressor::new().unwrap(),
        }
    }

    /// True if the pack, under the name of its present bytes, is refused before all of it was released.
    fn refuses(&mut self, bytes: &[u8]) -> bool {
        let opened = pack::open(&self.keys, REPOSITORY, PackId::of(bytes), bytes);
        opened.is_err() || opened.is_ok_and(|directory| !self.blobs_are_right(&directory, bytes))
    }

    fn blobs_are_right(&mut self, directory: &Directory, bytes: &[u8]) -> bool {
        directory.entries.iter().all(|entry| self.releases(entry, bytes))
    }

    /// True if the one blob can be opened, as by a server that knows it from its index.
    fn releases(&mut self, entry: &PackEntry, bytes: &[u8]) -> bool {
        let blob = bytes.get(place(entry)).unwrap_or_default();
        pack::check_blob(&self.sealer, &self.domain, &mut self.decompressor, entry, blob).is_ok()
    }
}

/// The golden pack, and where its blobs end and its footer starts.
fn golden_pack() -> (Vec<u8>, Directory, Range<usize>) {
    let bytes = golden("blobs.pack");
    let outside = pack::look(&bytes).unwrap();
    let directory = pack::open(&keys(), REPOSITORY, outside.id, &bytes).unwrap();
    assert_eq!(directory.entries.len(), 3, "two chunks and a page");
    let padding = place(&directory.entries[2]).end..usize::try_from(outside.trailer.footer_offset).unwrap();
    assert!(padding.len() > PADDING / 2, "the golden pack is small");
    (bytes, directory, padding)
}

/// One bit of every byte, another in each; every bit in a nightly run.
fn bits_of_padding(padding: Range<usize>) -> Vec<usize> {
    let all = std::env::var_os("ASTACUS_NIGHTLY").is_some_and(|value| value == "1");
    if all { bits_of(padding).collect() } else { padding.map(|at| at * 8 + at % 8).collect() }
}

/// P2: a pack of chunks and a page is refused with any bit flipped, though its name was made to fit.
#[test]
fn every_flipped_bit_of_a_pack_is_seen_under_a_name_that_fits() {
    let (bytes, _, padding) = golden_pack();
    let mut reader = Reader::new();
    assert!(!reader.refuses(&bytes), "the reader refuses what is good");

    let outside = bits_of(0..padding.start).chain(bits_of(padding.end..bytes.len()));
    let missed = missed_flips(&bytes, outside.chain(bits_of_padding(padding)), |bytes| reader.refuses(bytes));

    assert_eq!(missed, Vec::<usize>::new());
}

/// P2: and under its own name before anything else is looked at. So is every bit of padding.
#[test]
fn a_pack_with_a_flipped_bit_has_another_name() {
    let (bytes, _, padding) = golden_pack();
    let id = PackId::of(&bytes);

    let outside = bits_of(0..padding.start).chain(bits_of(padding.end..bytes.len()));
    let bits = outside.chain(bits_of_padding(padding));
    let missed = missed_flips(&bytes, bits, |bytes| id.check(bytes).is_err());

    assert_eq!(missed, Vec::<usize>::new());
}

/// P2: a blob that is read alone, by what the index says of it, releases nothing with any of its bits flipped,
/// and does not depend on the rest of the pack.
#[test]
fn every_flipped_bit_of_a_blob_is_seen_when_it_is_read_alone() {
    let (bytes, directory, padding) = golden_pack();
    let mut reader = Reader::new();

    for entry in &directory.entries {
        let missed = missed_flips(&bytes, bits_of(0..padding.start), |bytes| !reader.releases(entry, bytes));

        let elsewhere: Vec<usize> =
            bits_of(0..padding.start).filter(|bit| !place(entry).contains(&(bit / 8))).collect();
        assert_eq!(missed, elsewhere, "{}", entry.id);
    }
}

/// P2: a pack that was cut is none, at whatever byte.
#[test]
fn every_cut_of_a_pack_is_seen() {
    let (bytes, directory, padding) = golden_pack();
    let mut reader = Reader::new();

    assert_eq!(missed_cuts(&bytes, |bytes| reader.refuses(bytes)), Vec::<usize>::new());

    for entry in &directory.entries {
        let missed = missed_cuts(&bytes[..padding.start], |bytes| !reader.releases(entry, bytes));
        assert_eq!(missed, (place(entry).end..padding.start).collect::<Vec<_>>(), "{}", entry.id);
    }
}

/// P2: a manifest and a snapshot open whole and as they were, or not at all.
#[test]
fn every_flipped_bit_and_every_cut_of_a_manifest_and_a_snapshot_is_seen() {
    let keys = keys();
    let manifest = |bytes: &[u8]| {
        let payload = object::open(ObjectKind::Manifest, &keys, REPOSITORY, bytes);
        payload.and_then(|payload| Manifest::decode(&payload)).is_err()
    };
    let snapshot = |bytes: &[u8]| {
        let payload = object::open(ObjectKind::Snapshot, &keys, REPOSITORY, bytes);
        payload.and_then(|payload| Snapshot::decode(&payload)).is_err()
    };
    let (sealed_manifest, sealed_snapshot) = (golden("manifest.sealed"), golden("snapshot.sealed"));
    let id = ManifestId::of(&sealed_manifest);
    let other_name = |bytes: &[u8]| ManifestId::of(bytes) != id;
    let checks: [(&[u8], Detector<'_>); 3] =
        [(&sealed_manifest, &manifest), (&sealed_snapshot, &snapshot), (&sealed_manifest, &other_name)];

    for (sealed, detects) in checks {
        assert!(!detects(sealed), "what is good is refused");
        assert_eq!(missed_flips(sealed, bits_of(0..sealed.len()), detects), Vec::<usize>::new());
        assert_eq!(missed_cuts(sealed, detects), Vec::<usize>::new());
    }
}

/// P2: a key file with a flipped bit or a cut is no key, or one that does not fit the descriptor, or the same key.
#[test]
fn a_changed_master_key_is_never_taken_for_the_right_one() {
    let text = golden("master.key");
    let descriptor = Descriptor::decode(&golden("repository.json")).unwrap();
    let fingerprint = master().fingerprint();
    let mut others = 0;
    let mut detects = |bytes: &[u8]| match parse_master(bytes) {
        Some(key) if key.fingerprint() == fingerprint => false,
        Some(key) => {
            others += 1;
            assert!(!descriptor.fits(&key), "another key fits");
            true
        }
        None => true,
    };
    assert!(!detects(&text));

    let flips = missed_flips(&text, bits_of(0..text.len()), &mut detects);
    let cuts = missed_cuts(&text, &mut detects);

    // Only the line end may change: it is no part of the key.
    assert!(flips.iter().all(|bit| bit / 8 == 64), "{flips:?}");
    assert_eq!(cuts, [64], "the key without its line end");
    assert!(others > 64, "no flip gave another key, so the fingerprint was never asked");
}

/// The fields in which a descriptor that still opens says something else.
fn changed_fields(good: &Descriptor, found: &Descriptor) -> Vec<&'static str> {
    let fields = [
        ("format_version", good.format_version == found.format_version),
        ("repository", good.repository == found.repository),
        ("master_key_fingerprint", good.master_key_fingerprint == found.master_key_fingerprint),
        ("generation", good.generation == found.generation),
        ("chunker", good.chunker == found.chunker),
    ];
    fields.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// The descriptor that a server would accept; `None` if it refuses to start.
fn accepted(bytes: &[u8], master: &MasterKey) -> Option<Descriptor> {
    Descriptor::decode(bytes).ok().filter(|descriptor| descriptor.fits(master))
}

/// The fields that any of these damaged descriptors change without being refused.
fn unnoticed<'a>(damaged: impl Iterator<Item = Vec<u8>> + 'a) -> BTreeSet<&'static str> {
    let (master, good) = (master(), Descriptor::decode(&golden("repository.json")).unwrap());
    damaged
        .filter_map(|bytes| accepted(&bytes, &master))
        .flat_map(|found| changed_fields(&good, &found))
        .collect()
}

/// The descriptor is in clear, and nothing of it is authenticated but the key's fingerprint, by the key. Version
/// and fingerprint are refused with any bit flipped, and no cut changes what it says. Three fields are not
/// covered: a changed repository or generation opens no object, and a changed chunker cuts other chunks.
#[test]
fn a_flipped_bit_of_the_descriptor_is_refused_or_changes_only_these_fields() {
    let text = golden("repository.json");
    let flipped = |bit: usize| {
        let mut bytes = text.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };

    let by_flips = unnoticed(bits_of(0..text.len()).map(flipped));
    let by_cuts = unnoticed((0..text.len()).map(|len| text[..len].to_vec()));

    assert_eq!(by_flips, BTreeSet::from(["chunker", "generation", "repository"]));
    assert_eq!(by_cuts, BTreeSet::new(), "a cut changes what a descriptor says");
}

/// P2: what was written under another id or key generation than the descriptor says opens nowhere.
#[test]
fn a_descriptor_with_another_repository_or_generation_opens_no_object() {
    let (manifest, pack) = (golden("manifest.sealed"), golden("blobs.pack"));
    let name = PackId::of(&pack);
    let opens = |keys: &SealKeys, repository| {
        let whole = pack::open(keys, repository, name, &pack).is_ok();
        assert_eq!(whole, object::open(ObjectKind::Manifest, keys, repository, &manifest).is_ok());
        whole
    };
    assert!(opens(&keys(), REPOSITORY));

    for bit in 0..128 {
        let mut id = *REPOSITORY.as_bytes();
        id[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&keys(), RepositoryId::from_bytes(id)), "bit {bit} of the id");
    }
    for bit in 0..32 {
        assert!(!opens(&master().seal_keys(GENERATION ^ (1 << bit)), REPOSITORY), "bit {bit}");
    }
}

/// Twin: a reader that looks away from one byte is caught in all its bits, and at each cut that it allows.
#[test]
fn the_search_finds_a_byte_that_a_reader_ignores() {
    let good = golden("snapshot.sealed");
    let keys = keys();
    let ignored = good.len() - 1;
    // A detector that does not compare the last byte of the tag.
    let looks_away = |bytes: &[u8]| {
        let mut seen = bytes.to_vec();
        seen.resize(good.len(), 0);
        seen[ignored] = good[ignored];
        object::open(ObjectKind::Snapshot, &keys, REPOSITORY, &seen).is_err()
    };

    let flips = missed_flips(&good, bits_of(0..good.len()), looks_away);
    let cuts = missed_cuts(&good, looks_away);

    assert_eq!(flips, bits_of(ignored..ignored + 1).collect::<Vec<_>>());
    assert_eq!(cuts, [ignored]);
}
