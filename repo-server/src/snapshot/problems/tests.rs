use format_spec::Timestamp;
use format_spec::id::FileDigest;
use format_spec::page::Content;

use super::*;

const DIGEST: FileDigest = FileDigest::from_bytes([1; 32]);
const WHOLE: FileEnd = FileEnd::Whole(DIGEST);
const TORN: FileEnd = FileEnd::Torn(DIGEST);
const FUZZY: FileEnd = FileEnd::Fuzzy(DIGEST);

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes().to_vec()).unwrap()
}

fn entry(text: &str, kind: EntryKind) -> Record {
    Record::Entry(Entry {
        path: path(text),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    })
}

fn content(end: Option<FileEnd>) -> Record {
    Record::Content(Content { extents: Vec::new(), end })
}

fn file(text: &str, end: FileEnd) -> [Record; 2] {
    [entry(text, EntryKind::File), content(Some(end))]
}

fn named(problems: &[(&str, &str)]) -> Vec<Problem> {
    let problem = |(name, reason): &(&str, &str)| Problem { path: path(name), reason: (*reason).to_owned() };
    problems.iter().map(problem).collect()
}

/// One answer, as the server makes it, and where to go on.
fn ask(pages: &[Vec<Record>], problems: &[Problem], from: &Cursor, limit: usize) -> FileProblems {
    let mut at = from.page;
    let mut walk = Walk::new(problems.to_vec(), from.clone(), limit);
    for page in pages.iter().skip(at) {
        if walk.page(page).is_break() {
            return walk.answer(&"n".parse().unwrap(), at);
        }
        at += 1;
    }
    walk.finish();
    walk.answer(&"n".parse().unwrap(), at)
}

/// All answers one after another, in one word each.
fn all(pages: &[Vec<Record>], problems: &[Problem], limit: usize) -> Vec<String> {
    let mut told = Vec::new();
    let mut from = Cursor::default();
    loop {
        let FileProblems { problems: found, next, .. } = ask(pages, problems, &from, limit);
        assert!(found.len() <= limit);
        let word = |FileProblem { path, state, reason }: FileProblem| {
            format!("{state:?} {path} {}", reason.as_deref().unwrap_or("-"))
        };
        told.extend(found.into_iter().map(word));
        let Some(next) = next else { return told };
        assert_ne!(next, from.to_string(), "it does not get on");
        from = next.parse().unwrap();
    }
}

/// Pages with something of everything.
fn sample() -> (Vec<Vec<Record>>, Vec<Problem>) {
    let pages = vec![
        [&[entry("r", EntryKind::Folder)][..], &file("r/a", FileEnd::Unreadable), &file("r/b", WHOLE)]
            .concat(),
        [
            &[entry("r/closed", EntryKind::Folder)][..],
            &file("r/d", FUZZY),
            &[entry("r/long", EntryKind::File)],
        ]
        .concat(),
        vec![content(None)],
        [&[content(Some(TORN))][..], &file("r/m", FileEnd::Unreadable), &file("r/x", WHOLE)].concat(),
    ];
    let problems = named(&[
        ("r/z/gone", "vanished"),
        ("r/closed", "cannot be listed"),
        ("r/a", "cannot be opened"),
        ("r/c", "vanished"),
        ("r/b", "attributes cannot be read"),
        ("r/b", "too long"),
    ]);
    (pages, problems)
}

/// S6: all are named, in path order, with what is known of each.
#[test]
fn pages_and_manifest_together_name_everything_that_is_not_whole() {
    let (pages, problems) = sample();

    let expected = [
        "Missing /r/a cannot be opened",
        "Incomplete /r/b attributes cannot be read; too long",
        "Missing /r/c vanished",
        "Incomplete /r/closed cannot be listed",
        "Fuzzy /r/d -",
        "Torn /r/long -",
        "Missing /r/m -",
        "Missing /r/z/gone vanished",
    ];
    assert_eq!(all(&pages, &problems, 1_000), expected);
}

#[test]
fn answers_of_any_length_add_up_to_the_same() {
    let (pages, problems) = sample();
    let whole = all(&pages, &problems, 1_000);

    for limit in 1..=whole.len() {
        assert_eq!(all(&pages, &problems, limit), whole, "{limit} at once");
    }
}

/// The twin: an answer that went on at the wrong place would show.
#[test]
fn an_answer_that_goes_on_elsewhere_is_seen() {
    let (pages, problems) = sample();
    let first = ask(&pages, &problems, &Cursor::default(), 3);
    let right: Cursor = first.next.unwrap().parse().unwrap();
    let rest = |from: &Cursor| ask(&pages, &problems, from, 1_000).problems.len();

    assert_eq!(rest(&right), 5);
    assert_eq!(rest(&Cursor { after: None, ..right.clone() }), 8, "three names come twice");
    assert_eq!(rest(&Cursor { page: right.page + 1, ..right }), 3, "two names are lost");
}

/// C6: an answer ends after so many pages, also if nothing was found, and never within a file.
#[test]
fn an_answer_reads_so_many_pages_and_goes_on_behind_them() {
    let mut pages: Vec<Vec<Record>> =
        (0..PAGES_IN_ALL - 1).map(|n| file(&format!("r/{n:06}"), WHOLE).to_vec()).collect();
    pages.push(vec![entry("r/long", EntryKind::File)]);
    pages.push(vec![content(None)]);
    pages.push([&[content(Some(TORN))][..], &file("r/m", FileEnd::Unreadable)].concat());
    pages.push(file("r/n", FileEnd::Unreadable).to_vec());

    let first = ask(&pages, &[], &Cursor::default(), 1_000);
    let next: Cursor = first.next.unwrap().parse().unwrap();
    let rest = ask(&pages, &[], &next, 1_000);

    assert_eq!((first.problems.len(), next.page), (2, PAGES_IN_ALL + 2));
    assert_eq!((rest.problems.len(), rest.next), (1, None));
}

#[test]
fn a_cursor_reads_back_and_anything_else_is_refused() {
    let odd = EntryPath::new(vec![b'r', b'/', 0xff]).unwrap();
    for after in [None, Some(path("r/a b")), Some(odd)] {
        let cursor = Cursor { page: 7, after };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
    for wrong in ["", "7", "7-0", "7-zz", "x-", "-1-", "7-2e2e", "7-00", "7-\u{e9}\u{e9}"] {
        assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
    }
}

/// Pages that no push of ours makes are told as far as they go.
#[test]
fn strange_pages_neither_hang_nor_panic() {
    let pages = [
        vec![content(Some(TORN)), content(None)],
        [
            &file("r/b", TORN)[..],
            &file("r/a", TORN),
            &[entry("r/c", EntryKind::File), entry("r/d", EntryKind::File)],
        ]
        .concat(),
    ];

    assert_eq!(all(&pages, &named(&[("r/a", "why")]), 1), ["Missing /r/a why", "Torn /r/b -"]);
    assert_eq!(ask(&pages, &[], &Cursor { page: usize::MAX, after: None }, 9).problems, []);
}
