use format_spec::id::FileDigest;
use format_spec::key::MasterKey;
use format_spec::manifest::{MAX_PROBLEMS, Moment, Problem, PushStats, Totals};
use format_spec::page::{Content, Record};
use format_spec::{ChunkId, FORMAT_VERSION, FileEnd, NodeName, Timestamp};

use super::*;

const DIGEST: FileDigest = FileDigest::from_bytes([1; 32]);
const WHOLE: FileEnd = FileEnd::Whole(DIGEST);
const TORN: FileEnd = FileEnd::Torn(DIGEST);
const FUZZY: FileEnd = FileEnd::Fuzzy(DIGEST);

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes().to_vec()).unwrap()
}

fn entry(text: &str, kind: EntryKind, link_group: Option<u64>) -> Record {
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
        link_group,
    })
}

fn folder(text: &str) -> Vec<Record> {
    vec![entry(text, EntryKind::Folder, None)]
}

fn file(text: &str, end: FileEnd) -> Vec<Record> {
    linked(text, end, None)
}

fn linked(text: &str, end: FileEnd, group: Option<u64>) -> Vec<Record> {
    let content = Content { extents: Vec::new(), end: Some(end) };
    vec![entry(text, EntryKind::File, group), Record::Content(content)]
}

fn manifest(problems: &[&str]) -> Manifest {
    let named = problems.iter().map(|text| Problem { path: path(text), reason: "why".to_owned() });
    Manifest {
        version: FORMAT_VERSION,
        cluster: "c".parse().unwrap(),
        node: "n".parse().unwrap(),
        roots: vec![path("r")],
        pages: Vec::new(),
        totals: Totals { problems: u64::try_from(problems.len()).unwrap(), ..Totals::default() },
        problems: named.collect(),
        tool: String::new(),
        host: String::new(),
        push: None,
        series: None,
        about: None,
        roots_are: None,
    }
}

/// Files of these records that `pattern` chooses and that are not whole: `None` if all are.
fn lack(manifest: &Manifest, records: &[Vec<Record>], pattern: &str) -> Option<(u64, Vec<String>)> {
    let filter = Filter::new(&[pattern.to_owned()], &[]).unwrap();
    let mut survey = Survey::new(manifest, &filter);
    let domain = MasterKey::from_bytes([7; 32]).domain(&manifest.cluster);
    let mut assembler = Assembler::new(domain, Roots::new(&manifest.roots), Depth::Tree);
    assembler.page(ChunkId::from_bytes([1; 32]), records.concat(), |part| survey.part(part)).unwrap();
    let Lack { files, first, .. } = survey.finish()?;
    Some((files, first.into_iter().map(|(path, _)| path.to_string()).collect()))
}

fn names(files: u64, first: &[&str]) -> Option<(u64, Vec<String>)> {
    Some((files, first.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn a_part_that_is_whole_lacks_nothing_whatever_else_is_missing() {
    let manifest = manifest(&["r/bad", "r/torn"]);
    let records = [
        folder("r"),
        file("r/bad", FileEnd::Unreadable),
        file("r/fuzzy", FUZZY),
        file("r/good", WHOLE),
        file("r/torn", TORN),
    ];

    assert_eq!(lack(&manifest, &records, "good"), None);
    assert_eq!(lack(&manifest, &records, "fuzzy"), None);
    assert_eq!(lack(&manifest, &records, "bad"), names(1, &["r/bad"]));
    assert_eq!(lack(&manifest, &records, "torn"), names(1, &["r/torn"]));
    assert_eq!(lack(&manifest, &records, "r"), names(2, &["r/bad", "r/torn"]));
}

#[test]
fn other_names_of_a_file_that_is_not_whole_are_not_whole() {
    let manifest = manifest(&["r/a"]);
    for end in [FileEnd::Unreadable, TORN] {
        let link = vec![entry("r/b", EntryKind::HardLink, Some(9))];
        let records = [folder("r"), linked("r/a", end, Some(9)), link, linked("r/c", WHOLE, Some(8))];

        assert_eq!(lack(&manifest, &records, "b"), names(1, &["r/b"]));
        assert_eq!(lack(&manifest, &records, "c"), None);
    }
}

/// A folder that could not be listed may hold what a pattern would choose.
#[test]
fn what_may_lie_in_an_unknown_folder_is_not_known_to_be_whole() {
    let manifest = manifest(&["r/closed", "r/gone", "r/plain"]);
    let records = [folder("r"), folder("r/closed"), file("r/open", WHOLE), file("r/plain", WHOLE)];

    assert_eq!(lack(&manifest, &records, "/r/open"), None);
    assert_eq!(lack(&manifest, &records, "/r/closed/in/it"), names(1, &["r/closed"]));
    assert_eq!(lack(&manifest, &records, "/r/gone"), names(1, &["r/gone"]));
    assert_eq!(lack(&manifest, &records, "open"), names(2, &["r/closed", "r/gone"]));
    assert_eq!(lack(&manifest, &records, "/r/plain/x"), None, "a file holds nothing");
}

/// The manifest names the first thousand problems only: more can be told by how files end, or not at all.
#[test]
fn problems_without_a_name_are_found_in_the_pages_or_refused() {
    let many: Vec<String> = (0..MAX_PROBLEMS).map(|n| format!("r/{n:04}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut manifest = manifest(&many);
    manifest.totals.problems += 1;
    let mut records = vec![folder("r")];
    records.extend(many.iter().map(|name| file(name, FileEnd::Unreadable)));
    records.push(file("r/good", WHOLE));

    let not_known = lack(&manifest, &records, "good");
    records.push(file("r/last", TORN));

    assert_eq!(not_known, names(1_001, &[]));
    assert_eq!(lack(&manifest, &records, "good"), None);
    assert_eq!(lack(&manifest, &records, "last"), names(1, &["r/last"]));
    assert_eq!(lack(&manifest, &records, "r").unwrap().0, 1_001);
}

#[test]
fn torn_files_that_nobody_counted_as_problems_count() {
    let moment = Some(Moment { torn: 1, ..Moment::default() });
    let push = Some(PushStats { moment, ..PushStats::default() });
    let manifest = Manifest { push, ..manifest(&[]) };

    assert_eq!(problems_of(&manifest), 1);
    assert_eq!(lack(&manifest, &[folder("r"), file("r/a", TORN), file("r/b", WHOLE)], "b"), None);
}

#[test]
fn a_lack_names_the_first_few_and_counts_the_others() {
    let first = vec![(path("r/a"), "vanished".to_owned()), (path("r/b"), "closed".to_owned())];
    let node: NodeName = "n".parse().unwrap();
    let text = |files, first| Lack { node: node.clone(), files, first }.to_string();

    assert_eq!(text(1, first[..1].to_vec()), "1 file is missing or torn on node `n`: `/r/a` (vanished)");
    assert_eq!(
        text(1_500, first),
        "1,500 files are missing or torn on node `n`: `/r/a` (vanished), `/r/b` (closed) and 1,498 more"
    );
    assert!(text(2, Vec::new()).ends_with("the snapshot does not name them"));
}
