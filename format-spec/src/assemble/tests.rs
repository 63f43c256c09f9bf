mod model;

use super::*;
use crate::entry::{Timestamp, Xattr};
use crate::key::MasterKey;

const PAGE: ChunkId = ChunkId::from_bytes([0xaa; 32]);

/// A part without borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Entry(String),
    Link(String, Ending),
    Content(u64, Vec<Extent>),
    End(Ending),
    Nameless(usize),
    Fault(Option<ChunkId>, Option<String>, FaultKind),
}

fn seen(part: Part<'_>) -> Seen {
    match part {
        Part::Entry(entry) => Seen::Entry(entry.path.to_string()),
        Part::Link { entry, first } => Seen::Link(entry.path.to_string(), first),
        Part::Content { offset, extents } => Seen::Content(offset, extents.to_vec()),
        Part::End(ending) => Seen::End(ending),
        Part::Nameless(extents) => Seen::Nameless(extents.len()),
        Part::Fault(Fault { page, path, kind }) => Seen::Fault(page, path.map(|path| path.to_string()), kind),
    }
}

fn domain() -> DomainKey {
    MasterKey::from_bytes([7; 32]).domain(&"c".parse().unwrap())
}

fn path(text: &str) -> EntryPath {
    if text.is_empty() { EntryPath::top() } else { EntryPath::new(text.as_bytes().to_vec()).unwrap() }
}

fn entry(text: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path(text),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: 0,
        xattrs: Vec::new(),
        target: (kind == EntryKind::Symlink).then(|| b"there".to_vec()),
        link_group: None,
    }
}

fn folder(text: &str) -> Vec<Record> {
    vec![Record::Entry(entry(text, EntryKind::Folder))]
}

fn symlink(text: &str) -> Vec<Record> {
    vec![Record::Entry(entry(text, EntryKind::Symlink))]
}

fn link(text: &str, group: u64) -> Vec<Record> {
    vec![Record::Entry(Entry { link_group: Some(group), ..entry(text, EntryKind::HardLink) })]
}

fn chunk(n: u8) -> Extent {
    Extent::Chunk { id: ChunkId::from_bytes([n; 32]), len: 10 }
}

fn digest(extents: &[Extent]) -> FileDigest {
    let mut digester = domain().file_digester();
    extents.iter().for_each(|extent| digester.push(extent));
    digester.finish()
}

fn content(extents: &[Extent], end: Option<FileEnd>) -> Vec<Record> {
    vec![Record::Content(Content { extents: extents.to_vec(), end })]
}

fn file_entry(text: &str, size: u64, group: Option<u64>) -> Vec<Record> {
    vec![Record::Entry(Entry { size, link_group: group, ..entry(text, EntryKind::File) })]
}

/// A file with one chunk.
fn file_of(text: &str, group: Option<u64>) -> Vec<Record> {
    let end = FileEnd::Whole(digest(&[chunk(1)]));
    [file_entry(text, 10, group), content(&[chunk(1)], Some(end))].concat()
}

fn file(text: &str) -> Vec<Record> {
    file_of(text, None)
}

/// The beginning of a file with two chunks, and the rest of it.
fn cut_file(text: &str, group: Option<u64>) -> [Vec<Record>; 2] {
    let end = FileEnd::Whole(digest(&[chunk(1), chunk(2)]));
    let begin = [file_entry(text, 20, group), content(&[chunk(1)], None)].concat();
    [begin, content(&[chunk(2)], Some(end))]
}

/// A page, or one that is missing.
type Page<'a> = Option<&'a [Vec<Record>]>;

fn assemble_at(depth: Depth, roots: &[&str], pages: &[Page<'_>]) -> Vec<Seen> {
    let roots: Vec<_> = roots.iter().map(|root| path(root)).collect();
    let mut assembler = Assembler::new(domain(), Roots::new(&roots), depth);
    let mut parts = Vec::new();
    let mut sink = |part: Part<'_>| -> Result<(), ()> {
        parts.push(seen(part));
        Ok(())
    };
    for page in pages {
        match page {
            Some(records) => drop(assembler.page(PAGE, records.concat(), &mut sink).unwrap()),
            None => assembler.missing_page(&mut sink).unwrap(),
        }
    }
    assembler.finish(&mut sink).unwrap();
    parts
}

fn assemble(pages: &[Page<'_>]) -> Vec<Seen> {
    assemble_at(Depth::Content, &["r"], pages)
}

fn faults(parts: &[Seen]) -> Vec<(Option<&str>, &FaultKind)> {
    parts
        .iter()
        .filter_map(|part| match part {
            Seen::Fault(_, path, kind) => Some((path.as_deref(), kind)),
            _ => None,
        })
        .collect()
}

/// The only fault of one page of these records, at both depths.
#[track_caller]
fn is_fault(records: &[Vec<Record>], path: Option<&str>, kind: &FaultKind) {
    is_fault_within(&["r"], records, path, kind);
}

#[track_caller]
fn is_fault_within(roots: &[&str], records: &[Vec<Record>], path: Option<&str>, kind: &FaultKind) {
    for depth in [Depth::Tree, Depth::Content] {
        let parts = assemble_at(depth, roots, &[Some(records)]);
        assert_eq!(faults(&parts), [(path, kind)], "{depth:?}: {parts:?}");
    }
}

#[test]
fn a_sound_page_gives_each_entry_and_its_content() {
    let end = FileEnd::Fuzzy(digest(&[chunk(1), Extent::Hole { len: 5 }]));
    let fuzzy = [
        file_entry("r/a/f", 15, Some(9)),
        content(&[chunk(1)], None),
        content(&[Extent::Hole { len: 5 }], Some(end)),
    ]
    .concat();

    let parts = assemble(&[Some(&[folder("r"), folder("r/a"), fuzzy, symlink("r/b"), link("r/c", 9)])]);

    let expected = [
        Seen::Entry("r".to_owned()),
        Seen::Entry("r/a".to_owned()),
        Seen::Entry("r/a/f".to_owned()),
        Seen::Content(0, vec![chunk(1)]),
        Seen::Content(10, vec![Extent::Hole { len: 5 }]),
        Seen::End(Ending::Fuzzy),
        Seen::Entry("r/b".to_owned()),
        Seen::Link("r/c".to_owned(), Ending::Fuzzy),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn roots_need_no_folder_around_them() {
    for (roots, records) in [
        (&["x/y/r"][..], vec![folder("x/y/r"), symlink("x/y/r/s")]),
        (&["x/r", "x/s"], vec![folder("x/r"), file("x/r/f"), file("x/s")]),
        (&["x/r"], vec![folder("x"), folder("x/r"), symlink("x/r/s")]),
        (&["x", "x/y"], vec![folder("x"), folder("x/y"), file("x/y/f"), folder("x/z"), file("x/z/f")]),
        (&[""], vec![folder("a"), file("a/f"), file("b")]),
    ] {
        assert_eq!(faults(&assemble_at(Depth::Content, roots, &[Some(&records)])), [], "{roots:?}");
    }
}

#[test]
fn entries_out_of_order_or_twice_are_faults() {
    is_fault(&[folder("r"), file("r/b"), file("r/a")], Some("r/a"), &FaultKind::Order);
    is_fault(&[folder("r"), file("r/a"), file("r/a")], Some("r/a"), &FaultKind::Order);
    is_fault(&[folder("r"), folder("r/a"), folder("r")], Some("r"), &FaultKind::Order);
}

#[test]
fn an_entry_that_lies_in_no_folder_is_a_fault() {
    is_fault(&[folder("r"), file("r/f"), file("r/f/x")], Some("r/f/x"), &FaultKind::NoFolder);
    is_fault(&[folder("r"), symlink("r/s"), file("r/s/x")], Some("r/s/x"), &FaultKind::NoFolder);
    is_fault(&[folder("r"), file("r/no/folder")], Some("r/no/folder"), &FaultKind::NoFolder);
    is_fault(&[symlink("r"), file("r/x")], Some("r/x"), &FaultKind::NoFolder);
    is_fault(&[folder("r"), folder("r/a"), folder("r/b"), file("r/ab")], Some("r/ab"), &FaultKind::Order);
    is_fault(&[folder("r"), folder("r/a"), file("r/ab/c")], Some("r/ab/c"), &FaultKind::NoFolder);
}

#[test]
fn an_entry_outside_of_the_roots_is_a_fault() {
    is_fault(&[file("elsewhere")], Some("elsewhere"), &FaultKind::OutsideRoots);
    is_fault_within(&["x/r"], &[file("y")], Some("y"), &FaultKind::OutsideRoots);
    is_fault_within(&["x/r"], &[file("x/s")], Some("x/s"), &FaultKind::OutsideRoots);
    is_fault_within(&["x/r"], &[folder("x"), file("x/l")], Some("x/l"), &FaultKind::OutsideRoots);
    is_fault_within(&[], &[file("a")], Some("a"), &FaultKind::OutsideRoots);
}

#[test]
fn a_root_in_something_that_is_no_folder_is_a_fault() {
    is_fault_within(&["r/x"], &[symlink("r"), file("r/x")], Some("r"), &FaultKind::HoldsRoot);
    is_fault_within(&["r", "r/x/y"], &[folder("r"), file("r/x")], Some("r/x"), &FaultKind::HoldsRoot);
}

#[test]
fn content_without_its_file_is_a_fault() {
    let end = content(&[], Some(FileEnd::Unreadable));

    is_fault(&[folder("r"), end.clone()], None, &FaultKind::NoEntry);
    is_fault(&[folder("r"), file("r/f"), end.clone()], None, &FaultKind::NoEntry);
    is_fault(&[folder("r"), content(&[chunk(1)], None), end], None, &FaultKind::NoEntry);
}

#[test]
fn a_file_without_its_end_is_a_fault() {
    let [begin, _] = cut_file("r/f", None);

    is_fault(&[folder("r"), begin.clone(), file("r/g")], Some("r/f"), &FaultKind::NoEnd);
    let parts = assemble(&[Some(&[folder("r"), begin])]);

    let no_end = Seen::Fault(None, Some("r/f".to_owned()), FaultKind::NoEnd);
    assert_eq!(parts[3..], [no_end, Seen::End(Ending::Broken)]);
}

#[test]
fn fields_that_break_a_rule_are_faults() {
    let altered = |kind, change: &dyn Fn(&mut Entry)| {
        let mut entry = entry("r", kind);
        change(&mut entry);
        faults(&assemble(&[Some(&[vec![Record::Entry(entry)]])]))
            .into_iter()
            .filter(|(path, kind)| *path == Some("r") && matches!(kind, FaultKind::Fields(_)))
            .count()
    };
    let unnamed = |entry: &mut Entry| entry.xattrs.push(Xattr { name: Vec::new(), value: Vec::new() });
    let zero = |entry: &mut Entry| entry.xattrs.push(Xattr { name: b"a\0".to_vec(), value: Vec::new() });

    assert_eq!(altered(EntryKind::Folder, &|_| ()), 0);
    assert_eq!(altered(EntryKind::Folder, &|entry| entry.mode = 0o10644), 1);
    assert_eq!(altered(EntryKind::Folder, &|entry| entry.mtime.nanos = 1_000_000_000), 1);
    assert_eq!(altered(EntryKind::Folder, &|entry| entry.size = 1), 1);
    assert_eq!(altered(EntryKind::Folder, &unnamed), 1);
    assert_eq!(altered(EntryKind::Folder, &zero), 1);
    assert_eq!(altered(EntryKind::Symlink, &|entry| entry.target = None), 1);
    assert_eq!(altered(EntryKind::HardLink, &|entry| entry.link_group = None), 1);
    assert_eq!(altered(EntryKind::File, &|entry| entry.size = u64::MAX), 1);
}

#[test]
fn links_without_a_first_name_or_with_two_are_faults() {
    is_fault(&[folder("r"), link("r/b", 9)], Some("r/b"), &FaultKind::NoFirst);
    let early = [folder("r"), link("r/a", 9), file_of("r/b", Some(9))];
    is_fault(&early, Some("r/a"), &FaultKind::NoFirst);
    let two = [folder("r"), file_of("r/a", Some(9)), file_of("r/b", Some(9))];
    is_fault(&two, Some("r/b"), &FaultKind::SecondFirst);
}

/// Lengths and digests are looked at only where they are asked for.
#[test]
fn sizes_and_digests_that_do_not_fit_are_faults_of_content() {
    let end = |extents: &[Extent]| Some(FileEnd::Whole(digest(extents)));
    let with = |size, extents: &[Extent], end| [file_entry("r", size, None), content(extents, end)].concat();
    let size = |size, covered| FaultKind::Size { size, covered };
    let huge = [chunk(1), Extent::Hole { len: u64::MAX }];
    for (records, kind) in [
        (with(9, &[chunk(1)], end(&[chunk(1)])), size(9, 10)),
        (with(9, &[chunk(1)], None), size(9, 10)),
        (with(11, &[chunk(1)], end(&[chunk(1)])), size(11, 10)),
        (with(10, &huge, end(&huge)), size(10, u64::MAX)),
        (with(10, &[chunk(2)], end(&[chunk(1)])), FaultKind::Digest),
        (with(10, &[chunk(1)], end(&[])), FaultKind::Digest),
    ] {
        let parts = assemble(&[Some(std::slice::from_ref(&records))]);

        assert_eq!(faults(&parts), [(Some("r"), &kind)]);
        assert_eq!(parts.last(), Some(&Seen::End(Ending::Broken)));
        assert!(kind == FaultKind::Digest || size(11, 10) == kind || parts.len() == 3, "none of its extents");
        let tree = assemble_at(Depth::Tree, &["r"], &[Some(&[records])]);
        assert!(faults(&tree).iter().all(|(_, kind)| **kind == FaultKind::NoEnd), "{tree:?}");
    }
}

/// The rest of a file that is too long belongs to it: that is one fault.
#[test]
fn a_file_that_goes_on_too_long_is_one_fault() {
    let [begin, rest] = cut_file("r/f", None);
    let begin = [file_entry("r/f", 9, None), begin[1..].to_vec()].concat();

    let parts = assemble(&[Some(&[folder("r"), begin]), Some(&[rest, file("r/g")])]);

    assert_eq!(faults(&parts), [(Some("r/f"), &FaultKind::Size { size: 9, covered: 10 })]);
    assert_eq!(parts[4..6], [Seen::Nameless(1), Seen::Entry("r/g".to_owned())]);
}

/// An unreadable file has no content that is to be used, whatever its size says.
#[test]
fn an_unreadable_file_is_no_fault_and_its_links_know() {
    let cut = [
        file_entry("r/f", 999, Some(9)),
        content(&[chunk(1)], None),
        content(&[chunk(2)], Some(FileEnd::Unreadable)),
    ]
    .concat();

    let parts = assemble(&[Some(&[folder("r"), cut, link("r/g", 9)])]);

    let rest = [Seen::End(Ending::Unreadable), Seen::Link("r/g".to_owned(), Ending::Unreadable)];
    assert_eq!(parts[2..], [&[Seen::Content(0, vec![chunk(1)])][..], &rest].concat());
}

#[test]
fn an_entry_that_breaks_a_rule_is_left_out_with_all_that_is_its_own() {
    let second = [file_of("r/b", Some(9)), link("r/c", 9)].concat();

    let parts = assemble(&[Some(&[folder("r"), file_of("r/a", Some(9)), second])]);

    let fault = Seen::Fault(Some(PAGE), Some("r/b".to_owned()), FaultKind::SecondFirst);
    let rest = [fault, Seen::Nameless(1), Seen::Link("r/c".to_owned(), Ending::Whole)];
    assert_eq!(parts[4..], rest);
    // And links of it are broken, not without a first name.
    let odd = |mut records: Vec<Record>| {
        if let Some(Record::Entry(entry)) = records.first_mut() {
            entry.mode = 0o10000;
        }
        records
    };
    let parts = assemble(&[Some(&[folder("r"), odd(file_of("r/a", Some(9))), link("r/b", 9)])]);
    assert_eq!(parts.last(), Some(&Seen::Link("r/b".to_owned(), Ending::Broken)));
    // Content of an excluded folder may be missing there.
    let parts = assemble(&[Some(&[folder("r"), odd(folder("r/a")), file("r/a/f"), file("r/a/g")])]);
    assert_eq!(faults(&parts).len(), 1, "{parts:?}");
}

#[test]
fn a_file_is_lost_with_a_missing_page_and_its_links_know() {
    let [begin, _] = cut_file("r/a", Some(9));

    let parts = assemble(&[Some(&[folder("r"), begin]), None, Some(&[link("r/b", 9), file("r/c")])]);

    assert_eq!(parts[3..5], [Seen::End(Ending::Lost), Seen::Link("r/b".to_owned(), Ending::Lost)]);
    assert_eq!(faults(&parts), []);
}

#[test]
fn after_a_missing_page_folders_and_first_names_may_be_unknown() {
    let [_, rest] = cut_file("r/lost", None);
    let pages = [None, Some(&[rest, file("r/lost/f"), file("r/lost/g"), link("r/lost/l", 4)][..])];

    let parts = assemble(&pages);

    assert_eq!(parts[..2], [Seen::Nameless(1), Seen::Entry("r/lost/f".to_owned())]);
    assert_eq!(parts.last(), Some(&Seen::Link("r/lost/l".to_owned(), Ending::Lost)));
    assert_eq!(faults(&parts), []);
}

/// Only the folders of the next entry can have been on the page.
#[test]
fn a_missing_page_does_not_excuse_what_it_cannot_have_held() {
    let after = |before: &[Vec<Record>], after: &[Vec<Record>]| {
        let parts = assemble(&[Some(before), None, Some(after)]);
        faults(&parts)
            .into_iter()
            .map(|(path, kind)| (path.map(str::to_owned), kind.clone()))
            .collect::<Vec<_>>()
    };
    let fault = |text: &str, kind| vec![(Some(text.to_owned()), kind)];

    let root = || folder("r");
    assert_eq!(after(&[root()], &[file("r/x/f"), file("r/y/f")]), fault("r/y/f", FaultKind::NoFolder));
    assert_eq!(after(&[root(), file("r/f")], &[file("r/f/x")]), fault("r/f/x", FaultKind::NoFolder));
    assert_eq!(after(&[root(), file("r/b")], &[file("r/a")]), fault("r/a", FaultKind::Order));
    assert_eq!(after(&[root()], &[file("s/f")]), fault("s/f", FaultKind::OutsideRoots));
    let end = content(&[chunk(1)], None);
    assert_eq!(after(&[root()], &[file("r/a"), end]), vec![(None, FaultKind::NoEntry)]);
}

/// Summary of a page for its neighbours, if the page may be skipped.
fn seam_of(roots: &[&str], records: &[Vec<Record>]) -> Option<Seam> {
    let roots: Vec<_> = roots.iter().map(|root| path(root)).collect();
    let mut assembler = Assembler::new(domain(), Roots::new(&roots), Depth::Content);
    assembler.missing_page(|_| Ok::<(), ()>(())).unwrap();
    assembler.page(PAGE, records.concat(), |_| Ok::<(), ()>(())).unwrap()
}

#[test]
fn a_known_page_is_as_good_as_the_page_itself() {
    let second = [folder("r/b"), file("r/b/f"), folder("r/c")];
    let seam = seam_of(&["r"], &second).unwrap();
    let with = |before: &[Vec<Record>], after: &[Vec<Record>], is_known: bool| {
        let mut assembler = Assembler::new(domain(), Roots::new(&[path("r")]), Depth::Content);
        let mut parts = Vec::new();
        let mut sink = |part: Part<'_>| -> Result<(), ()> {
            parts.push(seen(part));
            Ok(())
        };
        assembler.page(PAGE, before.concat(), &mut sink).unwrap();
        match is_known {
            true => assembler.known_page(PAGE, &seam, &mut sink).unwrap(),
            false => drop(assembler.page(PAGE, second.concat(), &mut sink).unwrap()),
        }
        assembler.page(PAGE, after.concat(), &mut sink).unwrap();
        assembler.finish(&mut sink).unwrap();
        faults(&parts)
            .into_iter()
            .map(|(path, kind)| (path.map(str::to_owned), kind.clone()))
            .collect::<Vec<_>>()
    };
    let [begin, _] = cut_file("r/a", None);
    for (before, after, count) in [
        (vec![folder("r")], vec![file("r/c/f"), file("r/d")], 0),
        (vec![folder("r")], vec![file("r/b/g")], 1),
        (vec![folder("r")], vec![file("r/d/f")], 1),
        (vec![folder("r"), begin], vec![], 1),
        (vec![folder("r"), file("r/b")], vec![], 1),
        (vec![symlink("r")], vec![], 1),
    ] {
        let known = with(&before, &after, true);
        assert_eq!(known.len(), count, "{known:?}");
        assert_eq!(known.first(), with(&before, &after, false).first());
    }
    assert!(seam.holds_for(&Roots::new(&[path("r"), path("r")])));
    assert!(!seam.holds_for(&Roots::new(&[path("r"), path("r/b/f/x")])));
}

#[test]
fn a_page_that_concerns_others_is_not_passed_over() {
    let [begin, rest] = cut_file("r/f", None);

    assert!(seam_of(&["r"], &[folder("r"), file("r/f")]).is_some());
    for records in [
        vec![folder("r"), begin],
        vec![rest, file("r/g")],
        vec![folder("r"), file_of("r/f", Some(9))],
        vec![folder("r"), file("r/f"), file("r/f/x")],
        vec![],
    ] {
        assert!(seam_of(&["r"], &records).is_none(), "{records:?}");
    }
}

#[test]
fn a_fault_names_entry_and_rule() {
    let fault =
        |path: Option<&str>, kind| Fault { page: None, path: path.map(super::tests::path), kind }.to_string();

    assert_eq!(fault(Some("a/b"), FaultKind::Order), "`a/b` is not in path order");
    assert_eq!(fault(None, FaultKind::NoEntry), "content of a file that has no entry");
    let size = FaultKind::Size { size: 5, covered: 7 };
    assert_eq!(fault(Some("a"), size), "`a` has a size of 5 bytes, and extents of 7");
}
