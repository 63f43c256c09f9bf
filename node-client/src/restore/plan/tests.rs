use super::*;
use format_spec::id::FileDigest;
use format_spec::key::MasterKey;
use format_spec::page::Content;
use format_spec::{ErrorClass, FileEnd, Timestamp};

const PAGE: ChunkId = ChunkId::from_bytes([0xaa; 32]);

fn domain() -> DomainKey {
    MasterKey::from_bytes([7; 32]).domain(&"c".parse().unwrap())
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes().to_vec()).unwrap()
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

fn whole(extents: &[Extent]) -> FileEnd {
    let mut digester = domain().file_digester();
    extents.iter().for_each(|extent| digester.push(extent));
    FileEnd::Whole(digester.finish())
}

fn file_of(text: &str, extents: &[Extent], group: Option<u64>) -> Vec<Record> {
    let size = extents.iter().map(Extent::covered).sum();
    let entry = Entry { size, link_group: group, ..entry(text, EntryKind::File) };
    let content = Content { extents: extents.to_vec(), end: Some(whole(extents)) };
    vec![Record::Entry(entry), Record::Content(content)]
}

fn file(text: &str) -> Vec<Record> {
    file_of(text, &[chunk(1)], None)
}

fn planner(roots: &[&str], layout: Layout, patterns: &[&str]) -> Planner {
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    let roots: Vec<EntryPath> = roots.iter().map(|root| path(root)).collect();
    Planner::new(domain(), Roots::new(&roots), layout, Filter::new(&patterns, &[]).unwrap())
}

/// A step in one word, for comparison.
fn word(step: &Step) -> String {
    match step {
        Step::EnterFolder { at, entry: Some((_, Choice::Wanted)), .. } => format!("enter {at}"),
        Step::EnterFolder { at, entry: Some((_, Choice::OnTheWay)), .. } => format!("pass {at}"),
        Step::EnterFolder { at, entry: None, .. } => format!("enter bare {at}"),
        Step::LeaveFolder => "leave".to_owned(),
        Step::Symlink { at, .. } => format!("symlink {at}"),
        Step::BeginFile { at, .. } => format!("begin {at}"),
        Step::Chunk { offset, .. } => format!("chunk at {offset}"),
        Step::EndFile { data_len } => format!("end with {data_len}"),
        Step::AbandonFile => "abandon".to_owned(),
        Step::Skip { path } => format!("skip {path}"),
        Step::Mark { path, mixture } => format!("{mixture:?} {path}"),
        Step::Lose { path, lost } => format!("lose {path}: {lost:?}"),
        Step::Link { at, leader, .. } => format!("link {at} to {leader}"),
        Step::Owe { at, .. } => format!("owe {at}"),
    }
}

fn run(mut planner: Planner, records: &[Vec<Record>]) -> Result<(Vec<String>, Option<Planner>), ClientError> {
    let mut words = Vec::new();
    let mut sink = |step: Step| {
        words.push(word(&step));
        Ok(())
    };
    planner.page(PAGE, records.concat(), &mut sink)?;
    let next = planner.finish(&mut sink)?;
    Ok((words, next))
}

fn steps(records: &[Vec<Record>]) -> Vec<String> {
    run(planner(&["r"], Layout::WholePath, &[]), records).unwrap().0
}

#[test]
fn folders_are_entered_before_and_left_after_what_they_hold() {
    let steps = steps(&[folder("r"), folder("r/a"), file("r/a/f"), symlink("r/a/s"), file("r/b")]);

    let expected = [
        "enter r",
        "enter r/a",
        "begin r/a/f",
        "chunk at 0",
        "end with 10",
        "symlink r/a/s",
        "leave",
        "begin r/b",
        "chunk at 0",
        "end with 10",
        "leave",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn what_lies_above_a_root_is_made_without_attributes() {
    let planner = planner(&["x/y/r"], Layout::WholePath, &[]);

    let (steps, _) = run(planner, &[folder("x/y/r"), symlink("x/y/r/s")]).unwrap();

    let expected =
        ["enter bare x", "enter bare x/y", "enter x/y/r", "symlink x/y/r/s", "leave", "leave", "leave"];
    assert_eq!(steps, expected);
}

#[test]
fn a_stripped_root_enters_the_target_itself() {
    let planner = planner(&["x/r"], Layout::Strip(path("x/r")), &[]);

    let (steps, _) = run(planner, &[folder("x/r"), symlink("x/r/s")]).unwrap();

    assert_eq!(steps, ["enter .", "symlink s", "leave"]);
}

#[test]
fn parents_of_what_matches_come_and_others_do_not() {
    let records = [
        folder("r"),
        folder("r/a"),
        file("r/a/f"),
        folder("r/b"),
        folder("r/b/c"),
        symlink("r/b/c/wanted"),
        symlink("r/z"),
    ];

    let (steps, _) = run(planner(&["r"], Layout::WholePath, &["wanted"]), &records).unwrap();

    assert_eq!(
        steps,
        ["pass r", "pass r/b", "pass r/b/c", "symlink r/b/c/wanted", "leave", "leave", "leave"]
    );
}

#[test]
fn holes_move_the_offset_and_are_not_data() {
    let extents = [chunk(1), Extent::Hole { len: 1000 }, chunk(2), Extent::Hole { len: 5 }];

    let steps = steps(&[folder("r"), file_of("r/f", &extents, None)]);

    assert_eq!(steps[1..5], ["begin r/f", "chunk at 0", "chunk at 1010", "end with 20"]);
}

#[test]
fn a_file_that_was_unreadable_is_skipped_with_its_links() {
    let mut cut = file_of("r/f", &[chunk(1)], Some(9));
    cut[1] = Record::Content(Content { extents: vec![chunk(1)], end: None });
    cut.push(Record::Content(Content { extents: vec![], end: Some(FileEnd::Unreadable) }));

    let steps = steps(&[folder("r"), cut, link("r/g", 9)]);

    let expected = ["enter r", "begin r/f", "chunk at 0", "abandon", "skip r/f", "skip r/g", "leave"];
    assert_eq!(steps, expected);
}

fn mixture_of(text: &str, end: fn(FileDigest) -> FileEnd, group: Option<u64>) -> Vec<Record> {
    let mut records = file_of(text, &[chunk(1)], group);
    if let Some(Record::Content(Content { end: Some(whole), .. })) = records.last_mut() {
        *whole = end(whole.digest().unwrap());
    }
    records
}

#[test]
fn mixtures_come_back_and_each_of_their_names_is_marked() {
    let records = [
        folder("r"),
        mixture_of("r/fuzzy", FileEnd::Fuzzy, None),
        mixture_of("r/torn", FileEnd::Torn, Some(9)),
    ];

    let steps = steps(&[&records[..], &[link("r/u", 9)]].concat());

    let fuzzy = ["begin r/fuzzy", "chunk at 0", "end with 10", "Fuzzy r/fuzzy"];
    let torn = ["begin r/torn", "chunk at 0", "end with 10", "Torn r/torn", "Torn r/u", "link r/u to r/torn"];
    assert_eq!(steps[1..], [&fuzzy[..], &torn, &["leave"]].concat());
}

#[test]
fn a_wanted_link_of_an_unwanted_torn_file_is_marked_once() {
    let records = [folder("r"), mixture_of("r/a", FileEnd::Torn, Some(9)), link("r/wanted", 9)];

    let (first, next) = run(planner(&["r"], Layout::WholePath, &["wanted"]), &records).unwrap();
    let (second, _) = run(next.unwrap(), &records).unwrap();

    assert_eq!(first, ["pass r", "Torn r/wanted", "owe r/wanted", "leave"]);
    assert_eq!(second, ["begin r/wanted", "chunk at 0", "end with 10"]);
}

#[test]
fn links_go_to_the_first_name() {
    let first = file_of("r/a", &[], Some(9));

    let steps = steps(&[folder("r"), first, link("r/b", 9), link("r/c", 9)]);

    assert_eq!(steps[3..5], ["link r/b to r/a", "link r/c to r/a"]);
}

#[test]
fn a_wanted_link_of_an_unwanted_file_gets_the_content_in_a_second_pass() {
    let records = [
        folder("r"),
        file_of("r/a", &[chunk(3)], Some(9)),
        file("r/b"),
        link("r/wanted", 9),
        link("r/wanted2", 9),
    ];

    let (first, next) = run(planner(&["r"], Layout::WholePath, &["wanted*"]), &records).unwrap();
    let (second, last) = run(next.unwrap(), &records).unwrap();

    assert_eq!(first, ["pass r", "owe r/wanted", "link r/wanted2 to r/wanted", "leave"]);
    assert_eq!(second, ["begin r/wanted", "chunk at 0", "end with 10"]);
    assert!(last.is_none());
}

#[test]
fn content_may_go_on_in_later_records() {
    let extents = [chunk(1), chunk(2)];
    let size = 20;
    let records = [
        Record::Entry(Entry { size, ..entry("r", EntryKind::File) }),
        Record::Content(Content { extents: vec![chunk(1)], end: None }),
        Record::Content(Content { extents: vec![chunk(2)], end: Some(whole(&extents)) }),
    ];

    assert_eq!(steps(&[records.to_vec()]), ["begin r", "chunk at 0", "chunk at 10", "end with 20"]);
}

/// A record that breaks a rule ends a restore, and nothing is done for it.
#[test]
fn a_fault_ends_the_plan_and_names_its_entry() {
    let [entry, content] = <[Record; 2]>::try_from(file("r/b")).unwrap();
    let Record::Content(Content { extents, .. }) = content else {
        unreachable!("a file ends with its content")
    };
    let other_digest = Record::Content(Content { extents, end: Some(whole(&[])) });
    let end = Record::Content(Content { extents: vec![], end: Some(whole(&[])) });
    for (bad, name, steps) in [
        (file("r"), "`r`", 1),
        (file("r/f/x"), "`r/f/x`", 1),
        (link("r/b", 9), "`r/b`", 1),
        (vec![entry, other_digest], "`r/b`", 3),
        (vec![end], "the manifest", 1),
    ] {
        let mut planner = planner(&["r"], Layout::WholePath, &[]);
        let mut words = Vec::new();
        let mut sink = |step: Step| {
            words.push(word(&step));
            Ok(())
        };
        let error = planner.page(PAGE, [folder("r"), bad].concat(), &mut sink).unwrap_err();

        assert_eq!(error.class(), ErrorClass::Integrity, "{error}");
        assert!(matches!(&error, ClientError::Format { what, .. } if what.starts_with(name)), "{error}");
        assert_eq!(words.len(), steps, "{words:?}");
    }
    let cut = vec![file("r").remove(0)];
    let cut = run(planner(&["r"], Layout::WholePath, &[]), &[cut]).err().map(|error| error.class());
    assert_eq!(cut, Some(ErrorClass::Integrity));
}

#[test]
fn a_check_goes_on_after_damage() {
    let mut planner = planner(&["r"], Layout::WholePath, &[]);
    let mut words = Vec::new();
    let mut sink = |step: Step| {
        words.push(word(&step));
        Ok(())
    };
    planner.missing_page(&mut sink).unwrap();

    let rest = Record::Content(Content { extents: vec![chunk(9)], end: Some(whole(&[])) });
    let records = [vec![rest], file("r/lost/f"), link("r/lost/l", 4), symlink("r/s")];
    planner.page(PAGE, records.concat(), &mut sink).unwrap();
    planner.finish(&mut sink).unwrap();

    assert!(
        words.contains(&"begin r/lost/f".to_owned()) && words.contains(&"symlink r/s".to_owned()),
        "{words:?}"
    );
    assert!(words.contains(&"lose r/lost/l: Leader".to_owned()), "{words:?}");
}

/// C15: what was begun before damaged records is given up and named, with all its links, and what follows comes.
#[test]
fn a_file_whose_content_is_on_a_damaged_page_is_lost_with_its_links() {
    let all = [
        "enter r",
        "begin r/a",
        "chunk at 0",
        "abandon",
        "lose r/a: Content",
        "lose r/b: Leader",
        "begin r/c",
        "chunk at 0",
        "end with 10",
        "leave",
    ];
    for (pattern, expected) in [("**", &all[..]), ("b", &["pass r", "lose r/b: Leader", "leave"])] {
        let mut planner = planner(&["r"], Layout::WholePath, &[pattern]);
        let mut words = Vec::new();
        let mut sink = |step: Step| {
            words.push(word(&step));
            Ok(())
        };
        let mut cut = file_of("r/a", &[chunk(1)], Some(9));
        cut[1] = Record::Content(Content { extents: vec![chunk(1)], end: None });
        planner.page(PAGE, [folder("r"), cut].concat(), &mut sink).unwrap();
        planner.missing_page(&mut sink).unwrap();
        planner.page(PAGE, [link("r/b", 9), file("r/c")].concat(), &mut sink).unwrap();
        planner.finish(&mut sink).unwrap();

        assert_eq!(words, expected);
    }
}

/// C15: a link whose content is on a page that is damaged in the second pass too is named.
#[test]
fn content_that_is_owed_and_lost_is_named() {
    let records = [folder("r"), file_of("r/a", &[chunk(3)], Some(9)), link("r/wanted", 9)];
    let (_, next) = run(planner(&["r"], Layout::WholePath, &["wanted"]), &records).unwrap();
    let mut words = Vec::new();
    let mut sink = |step: Step| {
        words.push(word(&step));
        Ok(())
    };

    let mut second = next.unwrap();
    second.missing_page(&mut sink).unwrap();
    let last = second.finish(&mut sink).unwrap();

    assert!(last.is_none());
    assert_eq!(words, ["lose r/wanted: Leader"]);
}
