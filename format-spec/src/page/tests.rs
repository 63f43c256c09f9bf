//! Pages as they are read back, what a change costs, and pages that strangers wrote.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::entry::{MAX_XATTRS_LEN, Timestamp, Xattr};
use crate::id::FileDigest;
use crate::key::{BlobKind, MasterKey};

/// An entry with all that follows it.
type Item = (Entry, Vec<Extent>, Option<FileEnd>);

fn domain() -> DomainKey {
    MasterKey::from_bytes([7; 32]).domain(&"c".parse().unwrap())
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: EntryPath::new(path.as_bytes().to_vec()).unwrap(),
        kind,
        mode: 0o644,
        uid: 999,
        gid: 999,
        mtime: Timestamp { seconds: 1_790_000_000, nanos: 123_456_789 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

/// An id that looks like one: boundaries read its bits.
fn id(n: u32) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn extents(first: u32, count: u32) -> Vec<Extent> {
    (first..first + count).map(|n| Extent::Chunk { id: id(n), len: 200_000 }).collect()
}

fn file(path: &str, extents: Vec<Extent>) -> Item {
    let mut digester = domain().file_digester();
    extents.iter().for_each(|extent| digester.push(extent));
    let size = extents.iter().map(Extent::covered).sum();
    (Entry { size, ..entry(path, EntryKind::File) }, extents, Some(FileEnd::Whole(digester.finish())))
}

fn other(entry: Entry) -> Item {
    (entry, Vec::new(), None)
}

/// The pages of `items`.
fn build(items: &[Item]) -> Vec<Vec<u8>> {
    let mut builder = PageBuilder::new(domain());
    let mut pages = Vec::new();
    add(&mut builder, items, &mut pages);
    pages.extend(builder.finish());
    pages.into_iter().map(|page| page.bytes).collect()
}

fn add(builder: &mut PageBuilder, items: &[Item], pages: &mut Vec<Page>) {
    for (entry, extents, end) in items {
        pages.extend(builder.entry(entry));
        for extent in extents {
            pages.extend(builder.extent(*extent));
        }
        pages.extend(end.and_then(|end| builder.end_file(end)));
    }
}

/// Joins the records of the pages again.
fn read(pages: &[Vec<u8>]) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for record in pages.iter().flat_map(|page| decode(page).unwrap()) {
        match record {
            Record::Entry(entry) => items.push((entry, Vec::new(), None)),
            Record::Content(content) => {
                let (_, extents, end) = items.last_mut().expect("content follows its file");
                extents.extend(content.extents);
                *end = content.end;
            }
        }
    }
    items
}

fn ids(pages: &[Vec<u8>]) -> HashSet<ChunkId> {
    pages.iter().map(|page| domain().id_of(BlobKind::Page, page)).collect()
}

/// How many pages of `after` are not among those of `before`.
fn new_pages(before: &[Item], after: &[Item]) -> usize {
    let known = ids(&build(before));
    ids(&build(after)).difference(&known).count()
}

/// A folder of small files of one chunk each.
fn small_files(count: u32) -> Vec<Item> {
    let file = |n| file(&format!("var/lib/table-{n:05}/data.db"), extents(n, 1));
    (0..count).map(file).collect()
}

/// A page of these records, whether or not the builder would write it.
fn page_of(records: &[Record]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for record in records {
        minicbor::encode(record, &mut bytes).unwrap();
    }
    bytes
}

fn content(extents: Vec<Extent>, end: Option<FileEnd>) -> Record {
    Record::Content(Content { extents, end })
}

fn whole() -> Option<FileEnd> {
    Some(FileEnd::Whole(FileDigest::from_bytes([4; 32])))
}

#[test]
fn every_kind_of_entry_reads_back() {
    let odd_name = EntryPath::new(b"z/caf\xe9 \xff\x01\n".to_vec()).unwrap();
    let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
    let linked = Entry { link_group: Some(u64::MAX), ..file("b", extents(0, 2)).0 };
    let sparse = vec![
        Extent::Hole { len: 1 << 40 },
        Extent::Chunk { id: id(1), len: 1 },
        Extent::Chunk { id: id(2), len: crate::MAX_CHUNK_LEN },
        Extent::Hole { len: u64::from(u32::MAX) },
    ];
    let items = [
        other(Entry { mode: 0o7777, ..entry("a", EntryKind::Folder) }),
        (linked, extents(0, 2), whole()),
        other(Entry { link_group: Some(u64::MAX), ..entry("b2", EntryKind::HardLink) }),
        file("c.empty", Vec::new()),
        file("d.sparse", sparse),
        (entry("e.unreadable", EntryKind::File), Vec::new(), Some(FileEnd::Unreadable)),
        other(Entry { target: Some(b"../\xff".to_vec()), ..entry("f", EntryKind::Symlink) }),
        other(Entry {
            mtime: Timestamp { seconds: i64::MIN, nanos: 999_999_999 },
            xattrs: vec![xattr(b"security.x", b"\0\xff"), xattr(b"user.y", b"")],
            uid: u32::MAX,
            ..entry("g", EntryKind::Folder)
        }),
        other(Entry { path: odd_name, ..entry("x", EntryKind::Folder) }),
    ];

    let pages = build(&items);

    assert_eq!(pages.len(), 1);
    assert_eq!(read(&pages), items);
}

#[test]
fn a_file_of_50_000_extents_spans_pages_and_reads_back() {
    let mut long = extents(0, 50_000);
    long[777] = Extent::Hole { len: 1 << 30 };
    let items = [file("a", extents(90_000, 1)), file("b.log", long), file("c", extents(90_001, 1))];

    let pages = build(&items);

    assert!(pages.len() > 8, "{} pages", pages.len());
    assert!(pages.iter().all(|page| page.len() < CUT_LEN + 1000), "a page is cut in time");
    assert!(pages.iter().rev().skip(1).all(|page| page.len() >= MIN_LEN), "and not too early");
    assert_eq!(read(&pages), items);
}

/// Content that never ends a page by itself, such as one repeated chunk, does not make it endless. A rewind
/// to the mark leaves no trace of later records, however many pages they filled.
#[test]
fn a_builder_that_goes_back_builds_what_it_would_have_built() {
    let (before, after) = (small_files(300), small_files(900));
    for detour in [0, 1, 2000] {
        let mut builder = PageBuilder::new(domain());
        let mut pages = Vec::new();
        add(&mut builder, &before, &mut pages);
        let (mark, mut dropped) = (builder.mark(), Vec::new());
        add(&mut builder, &[file("x", extents(7, detour))], &mut dropped);
        builder.rewind(mark, dropped.first().map(|page: &Page| page.bytes.clone()));
        add(&mut builder, &after[300..], &mut pages);
        pages.extend(builder.finish());

        let pages: Vec<_> = pages.into_iter().map(|page| page.bytes).collect();
        assert_eq!(pages, build(&after), "{detour} extents were taken back");
    }
}

#[test]
fn a_page_ends_in_time_whatever_its_content() {
    let never = (0..).map(id).find(|id| low_bits(id) & EXTENT_MASK != 0).unwrap();
    let same = vec![Extent::Chunk { id: never, len: 200_000 }; 20_000];
    let items = [file("a", same), file("b", vec![Extent::Hole { len: 1 }; 20_000])];

    let pages = build(&items);

    assert!(pages.iter().all(|page| page.len() < CUT_LEN + CUT_LEN / 16));
    assert_eq!(read(&pages), items);
}

#[test]
fn references_are_the_chunks_of_all_files_and_no_holes() {
    let records = [
        content(vec![Extent::Chunk { id: id(1), len: 5 }, Extent::Hole { len: 5 }], whole()),
        Record::Entry(entry("f", EntryKind::File)),
        content(vec![Extent::Chunk { id: id(1), len: 5 }, Extent::Chunk { id: id(2), len: 5 }], None),
    ];

    assert_eq!(references(&decode(&page_of(&records)).unwrap()).collect::<Vec<_>>(), [id(1), id(1), id(2)]);
}

#[test]
fn no_entries_make_no_page() {
    assert!(PageBuilder::new(domain()).finish().is_none());
}

#[test]
fn one_changed_mtime_among_20_000_files_changes_two_pages_at_most() {
    let before = small_files(20_000);
    assert!(build(&before).len() > 20, "the scenario no longer has many pages");

    for n in [0, 1, 7_777, 12_345, 19_999] {
        let mut after = before.clone();
        after[n].0.mtime.nanos += 1;

        assert!((1..=2).contains(&new_pages(&before, &after)), "file {n}: {}", new_pages(&before, &after));
    }
}

#[test]
fn a_file_that_comes_or_goes_changes_three_pages_at_most() {
    let all = small_files(20_000);
    for n in [0, 1, 7_777, 12_345, 19_999] {
        let mut without = all.clone();
        without.remove(n);

        assert!(new_pages(&all, &without) <= 3, "file {n} goes: {}", new_pages(&all, &without));
        assert!(new_pages(&without, &all) <= 3, "file {n} comes: {}", new_pages(&without, &all));
    }
}

#[test]
fn a_log_of_10_000_extents_that_grows_by_ten_changes_three_pages_at_most() {
    let tree = |count| {
        let mut items = small_files(1000);
        items.push(file("var/log", extents(1_000_000, count)));
        items.extend((0..1000).map(|n| file(&format!("var/tail-{n:04}"), extents(2_000_000 + n, 1))));
        items
    };
    let before = tree(10_000);
    assert!(build(&before).len() > 8, "the scenario no longer has many pages");

    for grown in [10_001, 10_010, 10_100] {
        assert!(new_pages(&before, &tree(grown)) <= 3, "{grown}: {}", new_pages(&before, &tree(grown)));
    }
}

/// Twin: pages of a fixed number of entries would not pass the locality tests.
#[test]
fn the_locality_tests_see_boundaries_that_only_count() {
    let counted = |items: &[Item]| {
        let pages = items.chunks(500).flat_map(build).collect::<Vec<_>>();
        ids(&pages)
    };
    let before = small_files(20_000);
    let mut after = before.clone();
    after.remove(1);

    assert!(counted(&after).difference(&counted(&before)).count() > 20);
}

#[test]
fn records_out_of_order_are_refused() {
    let file = |path| Record::Entry(entry(path, EntryKind::File));
    let folder = |path| Record::Entry(entry(path, EntryKind::Folder));
    let some = || extents(1, 1);
    let odd: [(&str, &[Record]); 12] = [
        ("no record", &[]),
        ("the same path", &[folder("a"), folder("a")]),
        ("descending", &[folder("b"), folder("a")]),
        ("by bytes and not by component", &[folder("a-b"), folder("a/b")]),
        ("descending after a file", &[file("b"), content(some(), whole()), folder("a")]),
        ("descending past a file", &[folder("c"), file("d"), content(some(), whole()), folder("b")]),
        ("a file without content", &[file("a"), folder("b")]),
        ("a file without content at the end", &[file("a")]),
        ("content of a folder", &[folder("a"), content(some(), whole())]),
        ("content twice", &[file("a"), content(some(), whole()), content(some(), whole())]),
        ("more after content without an end", &[file("a"), content(some(), None), folder("b")]),
        ("content of nothing", &[file("a"), content(Vec::new(), None)]),
    ];
    for (what, records) in odd {
        assert!(matches!(decode(&page_of(records)), Err(FormatError::Malformed { .. })), "{what}");
    }
    let plain = [content(some(), whole()), folder("a"), file("a/b"), content(some(), None)];
    assert_eq!(decode(&page_of(&plain)).unwrap(), plain);
}

#[test]
fn entries_that_break_their_own_rules_are_refused() {
    let folder = || entry("a", EntryKind::Folder);
    let link = |target: &[u8]| Entry { target: Some(target.to_vec()), ..entry("a", EntryKind::Symlink) };
    let xattr = |name: &[u8], len: usize| Xattr { name: name.to_vec(), value: vec![0; len] };
    let odd = [
        Entry { mtime: Timestamp { seconds: 0, nanos: 1_000_000_000 }, ..folder() },
        Entry { mode: 0o10_000, ..folder() },
        Entry { size: 1, ..folder() },
        Entry { target: Some(b"x".to_vec()), ..folder() },
        entry("a", EntryKind::Symlink),
        entry("a", EntryKind::HardLink),
        link(b""),
        link(b"a\0b"),
        link(&[b'x'; 4097]),
        Entry { xattrs: vec![xattr(b"b", 0), xattr(b"a", 0)], ..folder() },
        Entry { xattrs: vec![xattr(b"a", 0), xattr(b"a", 1)], ..folder() },
        Entry { xattrs: vec![xattr(b"a", MAX_XATTRS_LEN)], ..folder() },
    ];
    for entry in odd {
        assert!(entry.check().is_err(), "{entry:?}");
        assert!(decode(&page_of(&[Record::Entry(entry)])).is_err());
    }
    assert!(link(b"../anywhere").check().is_ok());
    let top = Entry { path: EntryPath::top(), ..entry("a", EntryKind::Folder) };
    assert!(top.check().is_err() && decode(&page_of(&[Record::Entry(top)])).is_err());
}

#[test]
fn the_largest_entry_fits_in_a_page() {
    let mut items = small_files(1);
    items[0].0.xattrs = vec![Xattr { name: b"a".to_vec(), value: vec![1; MAX_XATTRS_LEN - 1] }];
    let nearly_full = extents(1, u32::try_from(CUT_LEN / EXTENT_LEN - 1).unwrap());
    items.insert(0, file("a", nearly_full));

    let pages = build(&items);

    assert!(pages.iter().any(|page| page.len() > MAX_XATTRS_LEN));
    assert_eq!(read(&pages), items);
}

/// P4: another version, or no page at all, is named and not guessed at.
#[test]
fn what_is_no_page_of_this_version_is_refused() {
    let page = build(&small_files(2)).remove(0);
    let mut newer = page.clone();
    newer[3] = 2;

    assert!(matches!(decode(&newer), Err(FormatError::Version { found: 2, expected: 1, .. })));
    assert!(matches!(decode(b""), Err(FormatError::Magic { .. })));
    assert!(matches!(decode(b"APG"), Err(FormatError::Magic { .. })));
    assert!(matches!(decode(&vec![0; MAX_PAGE_LEN + 1]), Err(FormatError::TooLong { .. })));
    for len in 0..page.len() {
        let records = decode(&page[..len]);
        assert!(records.is_err() || records.unwrap().len() < 4, "cut at {len}");
    }
}

/// P4: a field, a variant or a width that this version does not write is refused, not skipped.
#[test]
fn records_in_another_encoding_are_refused() {
    let extent = [0x81, 0x05];
    let record = |content: &[u8]| [&MAGIC[..], &[0x82, 0x01, 0x81], content].concat();
    let of = |parts: [&[u8]; 3]| record(&parts.concat());
    let good = of([&[0x81, 0x81], &extent, &[]]);
    let odd = [
        ("an end of an unknown kind", of([&[0x82, 0x81], &extent, &[0x82, 0x07, 0x80]])),
        ("a null end", of([&[0x82, 0x81], &extent, &[0xf6]])),
        ("an unknown field", of([&[0x83, 0x81], &extent, &[0xf6, 0x00]])),
        ("a wide number", of([&[0x81, 0x81], &[0x81, 0x18, 0x05], &[]])),
        ("a list without a length", of([&[0x81, 0x9f], &extent, &[0xff]])),
        ("a record of an unknown kind", [&MAGIC[..], &[0x82, 0x02, 0x80]].concat()),
        ("a number for a record", [&MAGIC[..], &[0x05]].concat()),
    ];

    assert_eq!(decode(&good).unwrap(), [content(vec![Extent::Hole { len: 5 }], None)]);
    for (what, page) in odd {
        assert!(matches!(decode(&page), Err(FormatError::Malformed { .. })), "{what}");
    }
}

/// P4: a false length is found by reading, before anything of that length is allocated. An attempt to
/// allocate 2^63 bytes would abort the test.
#[test]
fn lengths_beyond_the_page_cost_no_memory() {
    let huge =
        |major: u8| [&[major << 5 | 27][..], &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    let (bytes, text, list, map) = (huge(2), huge(3), huge(4), huge(5));
    let record = |kind: u8, fields: &[u8]| [&MAGIC[..], &[0x82, kind, 0x81], fields].concat();
    let folder = page_of(&[Record::Entry(Entry {
        xattrs: vec![Xattr { name: b"n".to_vec(), value: b"v".to_vec() }],
        ..entry("a", EntryKind::Folder)
    })]);
    let mut xattrs = folder.clone();
    let at = folder.len() - 6;
    assert_eq!(folder[at..], [0x81, 0x82, 0x41, b'n', 0x41, b'v'], "the last field is the attributes");
    xattrs.splice(at..at + 1, list.clone());

    for page in [
        record(1, &list),
        record(1, &[&[0x81][..], &list].concat()),
        record(1, &[&[0x81, 0x81][..], &list].concat()),
        record(0, &[&[0x8a][..], &bytes].concat()),
        record(0, &[&[0x8a][..], &text].concat()),
        record(0, &map),
        [&MAGIC[..], &list].concat(),
        [&MAGIC[..], &bytes].concat(),
        xattrs,
    ] {
        assert!(matches!(decode(&page), Err(FormatError::Malformed { .. })), "{page:x?}");
    }
}

/// P4: the shortest records that are accepted cost at most 64 bytes of memory for each of theirs. A
/// growing list takes three times its content for a moment: the old room and the doubled new one.
#[test]
fn short_records_cost_memory_in_proportion() {
    const GROWTH: usize = 3;
    // The least that the system's allocator gives for a path, a name or a short list.
    const SMALL: usize = 32;
    let hole = Extent::Hole { len: 1 };
    let shortest_file = [
        Record::Entry(Entry {
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 0, nanos: 0 },
            ..entry("a", EntryKind::File)
        }),
        content(Vec::new(), Some(FileEnd::Unreadable)),
    ];
    let file_len = page_of(&shortest_file).len() - MAGIC.len();
    let one = page_of(&[content(vec![hole], None)]).len();
    let hole_len = page_of(&[content(vec![hole, hole], None)]).len() - one;

    assert!(GROWTH * size_of::<Extent>() <= 64 * hole_len, "{} for {hole_len}", size_of::<Extent>());
    let file_memory = GROWTH * 2 * size_of::<Record>() + SMALL;
    assert!(file_memory <= 64 * file_len, "{file_memory} for {file_len}");
}

fn any_extent() -> impl Strategy<Value = Extent> {
    prop_oneof![
        4 => (any::<[u8; 32]>(), 1..=crate::MAX_CHUNK_LEN)
            .prop_map(|(id, len)| Extent::Chunk { id: ChunkId::from_bytes(id), len }),
        1 => (1..=u64::MAX).prop_map(|len| Extent::Hole { len }),
    ]
}

fn any_content() -> impl Strategy<Value = Record> {
    let extents = proptest::collection::vec(any_extent(), 0..8);
    let end = prop_oneof![
        any::<[u8; 32]>().prop_map(|digest| FileEnd::Whole(FileDigest::from_bytes(digest))),
        Just(FileEnd::Unreadable),
    ];
    (extents, end).prop_map(|(extents, end)| content(extents, Some(end)))
}

proptest! {
    #[test]
    fn any_content_reads_back(first in any_content(), second in any_content()) {
        let records = [first, Record::Entry(entry("a", EntryKind::File)), second];

        prop_assert_eq!(decode(&page_of(&records)).unwrap(), records);
    }

    /// P4: random bytes are refused or read; nothing else.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decode(&bytes);
        let _ = decode(&[&MAGIC[..], &bytes].concat());
    }

    /// P4: what is read from a damaged page is what those bytes say: it encodes to them again.
    #[test]
    fn damaged_pages_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut page = build(&small_files(5)).remove(0);
        for (at, byte) in changes {
            let at = at.index(page.len());
            page[at] = byte;
        }

        if let Ok(records) = decode(&page) {
            prop_assert_eq!(page_of(&records), page.clone());
        }
        let _ = decode(&page[..cut.index(page.len())]);
    }
}

/// The lengths that `docs/format.md` states and only this module knows.
#[test]
fn boundaries_are_where_the_document_says() {
    let document = include_str!("../../../docs/format.md");

    for (name, value) in [("page::MIN_LEN", MIN_LEN), ("page::CUT_LEN", CUT_LEN)] {
        assert!(document.contains(&format!("| `{name}` | {value} |")), "{name}");
    }
    assert!(document.contains(&format!("as {EXTENT_LEN} bytes each")));
    assert!(
        document.contains(&format!("the low {} bits of the boundary number", ENTRY_MASK.trailing_ones()))
    );
    assert!(document.contains(&format!("the low {} bits of the first 8 bytes", EXTENT_MASK.trailing_ones())));
}
