//! Packs as they are read back: whole, by their tail, damaged in every bit, and forged.

use std::ops::Range;

use super::*;
use crate::blob::Decompressor;
use crate::key::{DomainKey, MasterKey};

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);
const GENERATION: u32 = 1;

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn keys() -> SealKeys {
    master().seal_keys(GENERATION)
}

fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

fn domain() -> DomainKey {
    master().domain(&cluster("c"))
}

fn sealer(name: &str) -> BlobSealer {
    BlobSealer::new(keys(), REPOSITORY, cluster(name))
}

fn builder(salt: u8) -> PackBuilder {
    PackBuilder::new(GENERATION, REPOSITORY, cluster("c"), [salt; 32])
}

fn append(pack: &mut PackBuilder, kind: BlobKind, plain: &[u8]) -> PackEntry {
    let id = domain().id_of(kind, plain);
    let plain_len = u32::try_from(plain.len()).unwrap();
    let info = BlobInfo { kind, id, plain_len, compression: Compression::Raw };
    let mut blob = Vec::new();
    sealer("c").seal(&info, plain, &mut blob);
    pack.append(&info, &blob, Vec::new());
    pack.entries().last().unwrap().clone()
}

/// Three blobs, two of them of one length.
fn small_builder(salt: u8) -> PackBuilder {
    let mut pack = builder(salt);
    append(&mut pack, BlobKind::Chunk, b"the first chunk");
    append(&mut pack, BlobKind::Chunk, b"the other chunk");
    append(&mut pack, BlobKind::Page, b"a page");
    pack
}

fn small() -> SealedPack {
    small_builder(3).seal(&keys())
}

fn place(range: Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// A reader of packs whose name fits them, whatever they are: a forger gives a damaged pack its new
/// name.
struct Reader {
    keys: SealKeys,
    sealer: BlobSealer,
    domain: DomainKey,
    decompressor: Decompressor,
}

impl Reader {
    fn new(sealer: BlobSealer) -> Self {
        Self { keys: keys(), sealer, domain: domain(), decompressor: Decompressor::new().unwrap() }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let directory = open_unnamed(&self.keys, REPOSITORY, bytes)?;
        for entry in &directory.entries {
            let blob = &bytes[place(entry.range())];
            check_blob(&self.sealer, &self.domain, &mut self.decompressor, entry, blob)?;
        }
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<(), FormatError> {
    Reader::new(sealer("c")).read(bytes)
}

/// The directory, from header and tail alone.
fn open_by_tail(bytes: &[u8]) -> Result<Directory, FormatError> {
    let (trailer, _, footer) = split_tail(bytes).unwrap();
    open_footer(&keys(), REPOSITORY, bytes.first_chunk().unwrap(), &trailer, footer)
}

/// A pack whose directory is `change`d before it is sealed: what only a holder of the keys can write.
fn with_directory(change: impl FnOnce(&mut Vec<PackEntry>)) -> SealedPack {
    let mut pack = small_builder(3);
    change(&mut pack.directory.entries);
    pack.seal(&keys())
}

/// The bits within `places` that a detector misses, looked for on two threads, each with a detector of
/// its own.
fn missed_bits<D: FnMut(&[u8]) -> bool>(
    bytes: &[u8],
    places: Range<usize>,
    detector: impl Fn() -> D + Sync,
) -> Vec<usize> {
    let search = |places: Range<usize>| {
        let (mut bytes, mut detects) = (bytes.to_vec(), detector());
        let missed = (places.start * 8..places.end * 8).filter(|bit| {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let missed = !detects(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            missed
        });
        missed.collect::<Vec<_>>()
    };
    let half = places.start.midpoint(places.end);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| search(places.start..half));
        let second = search(half..places.end);
        [first.join().expect("the search does not panic"), second].concat()
    })
}

#[test]
fn a_pack_reads_back_by_its_name() {
    let mut pack = builder(3);
    let plains =
        [&b"one"[..], b"two", b"three"].map(|plain| (append(&mut pack, BlobKind::Chunk, plain), plain));
    let before = pack.entries().to_vec();

    let sealed = pack.seal(&keys());

    assert_eq!(sealed.id, PackId::of(&sealed.bytes));
    assert_eq!(sealed.bytes.len() % PADDING, 0);
    let directory = open(&keys(), REPOSITORY, sealed.id, &sealed.bytes).unwrap();
    assert_eq!(directory, sealed.directory);
    assert_eq!(directory.entries, before);
    for (entry, plain) in plains {
        let blob = &sealed.bytes[place(entry.range())];
        assert_eq!(sealer("c").open(&entry.info(), blob).unwrap(), plain);
    }
}

#[test]
fn an_open_pack_gives_back_its_blobs() {
    let mut pack = builder(3);
    assert!(pack.is_empty());

    let entry = append(&mut pack, BlobKind::Chunk, b"plain");

    assert_eq!(pack.len(), HEADER_LEN + usize::try_from(entry.stored_len).unwrap());
    assert_eq!(sealer("c").open(&entry.info(), pack.blob(&entry).unwrap()).unwrap(), b"plain");
    assert!(pack.blob(&PackEntry { stored_len: entry.stored_len + 1, ..entry }).is_none());
}

#[test]
fn every_length_is_padded_to_64_kib() {
    for len in [0, 1, 40_000, 65_000, 65_100, 65_200, 65_300, 65_400, 65_536, 200_000] {
        let mut pack = builder(3);
        append(&mut pack, BlobKind::Chunk, &vec![5; len]);

        let sealed = pack.seal(&keys());

        assert_eq!(sealed.bytes.len() % PADDING, 0, "a blob of {len}");
        assert!(sealed.bytes.len() < len + 2 * PADDING, "a blob of {len}");
        read(&sealed.bytes).unwrap();
    }
}

/// P2: a pack has one form: no unit of padding more than it needs, and none less.
#[test]
fn a_pack_that_is_padded_otherwise_is_refused() {
    let padding = |pack: &SealedPack| {
        let end = place(pack.directory.entries[0].range()).end;
        usize::try_from(look(&pack.bytes).unwrap().trailer.footer_offset).unwrap() - end
    };
    let of_len = |len: usize, zeros: usize| {
        let mut pack = builder(3);
        append(&mut pack, BlobKind::Chunk, &vec![5; len]);
        pack.bytes.resize(pack.bytes.len() + zeros, 0);
        pack.seal(&keys())
    };
    let unpadded = 60_000 + padding(&of_len(60_000, 0));
    let (exact, too_long) = (of_len(unpadded, 0), of_len(unpadded, PADDING));
    assert_eq!((padding(&exact), padding(&too_long)), (0, PADDING));
    let (tail, len) = (exact.bytes.last_chunk().unwrap(), u64::try_from(exact.bytes.len()).unwrap());
    let mut shorter = *tail;
    shorter[..8].copy_from_slice(&(look(&exact.bytes).unwrap().trailer.footer_offset - 1).to_le_bytes());

    let found = read(&too_long.bytes);

    assert!(matches!(found, Err(FormatError::Malformed { .. })), "{found:?}");
    assert!(matches!(Trailer::decode(&shorter, len - 1), Err(FormatError::Malformed { .. })));
    assert!(Trailer::decode(tail, len).is_ok());
    read(&exact.bytes).unwrap();
}

#[test]
fn the_tail_and_the_header_alone_give_the_directory() {
    let sealed = small();
    let pack_len = u64::try_from(sealed.bytes.len()).unwrap();
    let (before, tail) = sealed.bytes.split_last_chunk::<TRAILER_LEN>().unwrap();

    let trailer = Trailer::decode(tail, pack_len).unwrap();
    let footer = &before[usize::try_from(trailer.footer_offset).unwrap()..];
    let header = sealed.bytes.first_chunk().unwrap();

    assert_eq!(footer.len(), usize::try_from(trailer.footer_len).unwrap());
    let directory = open_footer(&keys(), REPOSITORY, header, &trailer, footer).unwrap();
    assert_eq!(directory, sealed.directory);
    assert!(Trailer::decode(tail, pack_len - 1).is_err());
    assert!(Trailer::decode(tail, pack_len + 65_536).is_err());
}

/// P2: whatever bit of a pack changes, its name no longer fits.
#[test]
fn every_flipped_bit_breaks_the_name() {
    let sealed = small();
    let keys = keys();
    let refused = |bytes: &[u8]| {
        matches!(open(&keys, REPOSITORY, sealed.id, bytes), Err(FormatError::WrongPack { .. }))
    };

    assert_eq!(sealed.bytes.len(), 65_536);
    assert_eq!(missed_bits(&sealed.bytes, 0..65_536, || refused), Vec::<usize>::new());
}

/// P2: a damaged pack under a fitting name is still detected, in header, blobs, padding, footer and
/// trailer.
#[test]
fn every_flipped_bit_is_found_under_a_new_name_too() {
    let sealed = small();
    let detector = || {
        let mut reader = Reader::new(sealer("c"));
        move |bytes: &[u8]| reader.read(bytes).is_err()
    };
    read(&sealed.bytes).unwrap();

    assert_eq!(missed_bits(&sealed.bytes, 0..65_536, detector), Vec::<usize>::new());
}

/// Twin: the search for missed bits shows them. Without the keys, salts and blobs cannot be checked.
#[test]
fn the_search_sees_the_bits_that_a_keyless_look_cannot() {
    let sealed = small();
    let salt = 32..HEADER_LEN;
    let blobs_end = place(sealed.directory.entries[2].range()).end;

    let missed = missed_bits(&sealed.bytes, 0..blobs_end, || |bytes: &[u8]| look(bytes).is_err());

    assert!((salt.start * 8..blobs_end * 8).all(|bit| missed.contains(&bit)));
    assert!(!missed.contains(&0), "the magic needs no key");
}

/// P2: what needs no key is checked without one.
#[test]
fn a_keyless_look_sees_every_flipped_bit_of_footer_and_trailer() {
    let sealed = small();
    let footer = usize::try_from(look(&sealed.bytes).unwrap().trailer.footer_offset).unwrap();

    let missed = missed_bits(&sealed.bytes, footer..65_536, || |bytes: &[u8]| look(bytes).is_err());

    assert_eq!(missed, Vec::<usize>::new());
}

/// P2: a pack that ends early, or has more bytes, is not a pack.
#[test]
fn every_cut_and_every_appended_byte_is_detected() {
    let sealed = small();

    for len in 0..sealed.bytes.len() {
        let cut = &sealed.bytes[..len];
        assert!(open_unnamed(&keys(), REPOSITORY, cut).is_err(), "cut at {len}");
        assert!(look(cut).is_err(), "cut at {len}");
    }
    for len in [0, 1, HEADER_LEN, TRAILER_LEN, 65_535] {
        assert!(open(&keys(), REPOSITORY, sealed.id, &sealed.bytes[..len]).is_err(), "cut at {len}");
    }
    for more in [1, TRAILER_LEN, PADDING] {
        let longer = [&sealed.bytes[..], &vec![0; more]].concat();
        assert!(open_unnamed(&keys(), REPOSITORY, &longer).is_err(), "{more} more");
    }
}

/// P2: a blob passes only under the id that its directory gives it.
#[test]
fn a_blob_of_another_pack_is_detected() {
    let mut other = builder(4);
    append(&mut other, BlobKind::Chunk, b"a third chunk!!");
    let other = other.seal(&keys());
    let mut spliced = small().bytes.to_vec();
    let from = place(other.directory.entries[0].range());
    let to = place(small().directory.entries[0].range());

    spliced[to].copy_from_slice(&other.bytes[from]);

    assert!(matches!(read(&spliced), Err(FormatError::Unauthentic { what: "blob" })));
}

/// P2: a blob is at the place that its directory names.
#[test]
fn two_swapped_blobs_are_detected() {
    let sealed = small();
    let [first, second] = [0, 1].map(|n: usize| place(sealed.directory.entries[n].range()));
    let mut swapped = sealed.bytes.to_vec();

    swapped[first.clone()].copy_from_slice(&sealed.bytes[second.clone()]);
    swapped[second].copy_from_slice(&sealed.bytes[first]);

    assert!(matches!(read(&swapped), Err(FormatError::Unauthentic { what: "blob" })));
}

/// P2: header, footer and trailer of two packs do not mix.
#[test]
fn a_footer_opens_only_in_its_own_pack() {
    let (sealed, other) = (small_builder(3).seal(&keys()), small_builder(4).seal(&keys()));
    let offset = usize::try_from(look(&sealed.bytes).unwrap().trailer.footer_offset).unwrap();

    let tail = [&sealed.bytes[..offset], &other.bytes[offset..]].concat();
    let head = [&other.bytes[..HEADER_LEN], &sealed.bytes[HEADER_LEN..]].concat();

    for mixed in [tail, head] {
        assert!(look(&mixed).is_ok(), "without a key there is nothing to see");
        assert!(matches!(read(&mixed), Err(FormatError::Unauthentic { what: "pack footer" })));
    }
}

/// P2: even a directory that its writer got wrong releases no plaintext under a wrong id.
#[test]
fn swapped_and_misplaced_directory_entries_are_detected() {
    let swapped_order = with_directory(|entries| entries.swap(0, 1));
    let swapped_ids = with_directory(|entries| {
        let first = entries[0].id;
        entries[0].id = entries[1].id;
        entries[1].id = first;
    });
    let gap = with_directory(|entries| entries[2].offset += 1);
    let overlap = with_directory(|entries| entries[1].offset -= 1);
    let beyond = with_directory(|entries| entries[2].stored_len = 1 << 20);
    let wrap = with_directory(|entries| entries[2].stored_len = u32::MAX);
    let huge = with_directory(|entries| entries[2].plain_len = crate::MAX_CHUNK_LEN + 1);
    let forgotten = with_directory(|entries| drop(entries.pop()));

    assert!(matches!(read(&swapped_ids.bytes), Err(FormatError::Unauthentic { what: "blob" })));
    for pack in [&swapped_order, &gap, &overlap, &beyond, &wrap, &huge, &forgotten] {
        let opened = open(&keys(), REPOSITORY, pack.id, &pack.bytes);
        assert!(matches!(opened, Err(FormatError::Malformed { .. })), "{opened:?}");
    }
    for pack in [&swapped_order, &gap, &overlap, &beyond, &wrap, &huge] {
        let opened = open_by_tail(&pack.bytes);
        assert!(matches!(opened, Err(FormatError::Malformed { .. })), "{opened:?}");
    }
}

/// P2: a blob that was sealed under an id that is not its own is found by its content.
#[test]
fn a_plaintext_under_a_wrong_id_is_detected() {
    let info = BlobInfo {
        kind: BlobKind::Chunk,
        id: ChunkId::from_bytes([9; 32]),
        plain_len: 5,
        compression: Compression::Raw,
    };
    let mut blob = Vec::new();
    sealer("c").seal(&info, b"plain", &mut blob);
    let mut pack = builder(3);
    pack.append(&info, &blob, Vec::new());

    let found = read(&pack.seal(&keys()).bytes).unwrap_err();

    assert_eq!(found, FormatError::WrongChunk { expected: info.id });
}

#[test]
fn other_keys_repositories_and_domains_open_nothing() {
    let sealed = small();
    let opened = |keys: &SealKeys, repository| open(keys, repository, sealed.id, &sealed.bytes);

    assert!(opened(&master().seal_keys(2), REPOSITORY).is_err());
    assert!(opened(&MasterKey::from_bytes([8; 32]).seal_keys(GENERATION), REPOSITORY).is_err());
    assert!(opened(&keys(), RepositoryId::from_bytes([2; 16])).is_err());
    assert!(Reader::new(sealer("d")).read(&sealed.bytes).is_err());
}

/// P7: no two messages meet the same key and nonce; the same message gives the same bytes.
#[test]
fn no_two_messages_share_a_key_and_a_nonce() {
    let mut seen = std::collections::HashMap::new();
    let sealer = sealer("c");
    for n in 0..4000_u32 {
        // Few ids, so that many messages share a key.
        let id = ChunkId::from_bytes([u8::try_from(n % 3).unwrap(); 32]);
        let compression = [Compression::Raw, Compression::Zstd][usize::from(n % 2 == 0)];
        let info = BlobInfo { kind: BlobKind::Chunk, id, plain_len: n / 6 % 5, compression };
        let payload = [u8::try_from(n / 30 % 7).unwrap(); 9];
        let mut blob = Vec::new();
        sealer.seal(&info, &payload, &mut blob);
        let nonce = <[u8; NONCE_LEN]>::try_from(&blob[..NONCE_LEN]).unwrap();
        let message = (id, compression, info.plain_len, payload, blob);

        let before = seen.entry((id, nonce)).or_insert_with(|| message.clone());

        assert_eq!(*before, message);
    }
    assert_eq!(seen.len(), 3 * 2 * 5 * 7, "the scenario no longer has that many messages");
}

/// P7: objects with the same payload have keys of their own.
#[test]
fn equal_packs_with_other_salts_share_no_sealed_byte_and_no_name() {
    let (one, two) = (small_builder(3).seal(&keys()), small_builder(4).seal(&keys()));
    let footer = |pack: &SealedPack| {
        let trailer = look(&pack.bytes).unwrap().trailer;
        pack.bytes[usize::try_from(trailer.footer_offset).unwrap()..][..NONCE_LEN].to_vec()
    };

    assert_eq!(one.directory, two.directory);
    assert_ne!(footer(&one), footer(&two));
    assert_ne!(one.id, two.id);
}

#[test]
fn an_empty_pack_and_page_references_read_back() {
    let empty = builder(3).seal(&keys());
    let mut pack = builder(3);
    let page = append(&mut pack, BlobKind::Page, b"page");
    pack.directory.entries[0].references = vec![ChunkId::from_bytes([1; 32]), ChunkId::from_bytes([2; 32])];
    let pack = pack.seal(&keys());

    assert_eq!(open(&keys(), REPOSITORY, empty.id, &empty.bytes).unwrap().entries, []);
    let directory = open(&keys(), REPOSITORY, pack.id, &pack.bytes).unwrap();
    assert_eq!(directory.entries[0].id, page.id);
    assert_eq!(directory.entries[0].references.len(), 2);
}

/// P4: a footer in another encoding than ours is refused, though it is authentic.
#[test]
fn a_footer_with_something_unknown_is_refused() {
    let directory = cbor::encode(&small().directory);
    let entries_key = 1 + 1 + 2;
    let mut wide = directory.clone();
    wide.splice(entries_key..=entries_key, [0x18, 0x01]);
    let mut longer = directory.clone();
    longer[0] += 1;
    longer.extend_from_slice(&[9, 0]);

    assert_eq!(directory[entries_key], 1, "the key of the entries");
    assert!(cbor::decode::<Directory>("pack footer", &directory).is_ok());
    for odd in [wide, longer, [directory.clone(), vec![0]].concat()] {
        assert!(cbor::decode::<Directory>("pack footer", &odd).is_err(), "{odd:?}");
    }
    for len in 0..directory.len() {
        assert!(cbor::decode::<Directory>("pack footer", &directory[..len]).is_err(), "cut at {len}");
    }
}

proptest::proptest! {
    /// P4: whatever a site serves as a pack, a reader only says that it is none.
    #[test]
    fn no_bytes_make_a_reader_panic(
        start in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        end in proptest::array::uniform32(proptest::prelude::any::<u8>()),
    ) {
        let sealed = small();
        let mut forged = [&start[..], &sealed.bytes[start.len()..]].concat();
        let at = forged.len() - TRAILER_LEN;
        forged[at..at + 32].copy_from_slice(&end);

        proptest::prop_assert!(open_unnamed(&keys(), REPOSITORY, &start).is_err());
        proptest::prop_assert!(open_unnamed(&keys(), REPOSITORY, &forged).is_err());
    }
}
