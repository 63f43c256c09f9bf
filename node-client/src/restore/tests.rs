mod server;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::clock::SystemClock;
use format_spec::manifest::Problem;
use format_spec::snapshot::SnapshotState;
use format_spec::{Entry, EntryKind, ErrorClass, FileEnd, wire};
use server::{Fate, Server, Store, entry, path};

fn elsewhere() -> NodeChoice {
    NodeChoice::Assumed("elsewhere".parse().unwrap())
}

fn options(to: &Path) -> RestoreOptions {
    RestoreOptions {
        snapshot: SnapshotChoice::Latest,
        cluster: None,
        node: elsewhere(),
        series: None,
        partial: Partial::Refuse,
        to: to.to_owned(),
        paths: Vec::new(),
        placement: Placement::WholePath,
        existing: Existing::Refuse,
        setuid: Setuid::Drop,
        durable: Durable::Later,
    }
}

fn restore(server: &Server, options: &RestoreOptions) -> Result<RestoreReport, ClientError> {
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    run(&server.api, server.runtime.handle(), options, &hooks)
}

fn check(server: &Server) -> VerifyReport {
    check_with(server, Partial::Refuse).unwrap()
}

fn check_with(server: &Server, partial: Partial) -> Result<VerifyReport, ClientError> {
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    let options = VerifyOptions {
        snapshot: SnapshotChoice::Latest,
        cluster: None,
        node: elsewhere(),
        series: None,
        partial,
    };
    verify(&server.api, server.runtime.handle(), &options, &hooks)
}

/// Every name beneath `folder`, with its bytes if it is a file.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for name in std::fs::read_dir(&next).unwrap() {
            let at = name.unwrap().path();
            let kind = std::fs::symlink_metadata(&at).unwrap().file_type();
            let bytes = if kind.is_file() { std::fs::read(&at).unwrap() } else { Vec::new() };
            found.push((at.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), bytes));
            if kind.is_dir() {
                folders.push(at);
            }
        }
    }
    found.sort();
    found
}

fn names(folder: &Path) -> Vec<String> {
    tree(folder).into_iter().map(|(name, _)| name).collect()
}

fn file(text: &str) -> Entry {
    entry(text, EntryKind::File)
}

fn folder(text: &str) -> Entry {
    entry(text, EntryKind::Folder)
}

/// A node with something of everything; the second chunk of `r/big` is `BIG`.
fn sample() -> Store {
    let mut store = Store::new(&["srv/r"]);
    let linked = |name: &str, kind| Entry { link_group: Some(5), ..entry(name, kind) };
    store.add(&folder("srv/r"));
    store.file(linked("srv/r/a", EntryKind::File), &[b"linked"]);
    store.file(file("srv/r/big"), &[b"first", BIG, b"first"]);
    store.add(&Entry { mode: 0o555, ..folder("srv/r/d") });
    store.file(file("srv/r/d/empty"), &[]);
    store.add(&linked("srv/r/d/link", EntryKind::HardLink));
    store.add(&Entry { target: Some(b"../..".to_vec()), ..entry("srv/r/d/up", EntryKind::Symlink) });
    store.add(&linked("srv/r/link", EntryKind::HardLink));
    store
}

const BIG: &[u8] = b"the second chunk";

#[test]
fn a_node_comes_back_whole() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();

    let report = restore(&server, &options(to.path())).unwrap();

    let expected: Vec<(String, Vec<u8>)> = [
        ("srv", &b""[..]),
        ("srv/r", b""),
        ("srv/r/a", b"linked"),
        ("srv/r/big", b"firstthe second chunkfirst"),
        ("srv/r/d", b""),
        ("srv/r/d/empty", b""),
        ("srv/r/d/link", b"linked"),
        ("srv/r/d/up", b""),
        ("srv/r/link", b"linked"),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
    .to_vec();
    assert_eq!(tree(to.path()), expected);
    assert_eq!((report.files, report.folders, report.symlinks), (5, 2, 1));
    assert_eq!((report.bytes, report.state), (32, SnapshotState::Complete));
    let meta = |name: &str| std::fs::metadata(to.path().join(name)).unwrap();
    assert_eq!(meta("srv/r/a").nlink(), 3);
    assert_eq!(meta("srv/r/d").mode() & 0o777, 0o555);
    assert_eq!((meta("srv/r").mtime(), meta("srv/r/d").mtime_nsec()), (1_700_000_000, 7));
}

#[test]
fn a_stripped_root_lies_at_the_target() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("new");

    restore(&server, &RestoreOptions { placement: Placement::StripRoot, ..options(&target) }).unwrap();

    assert_eq!(names(&target), ["a", "big", "d", "d/empty", "d/link", "d/up", "link"]);
    assert_eq!(std::fs::metadata(&target).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn a_wanted_link_brings_the_content_of_its_unwanted_first_name() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let paths = vec!["link".to_owned()];

    let report = restore(&server, &RestoreOptions { paths, ..options(to.path()) }).unwrap();

    assert_eq!(names(to.path()), ["srv", "srv/r", "srv/r/d", "srv/r/d/link", "srv/r/link"]);
    assert_eq!(std::fs::read(to.path().join("srv/r/link")).unwrap(), b"linked");
    let inode = |name: &str| std::fs::metadata(to.path().join(name)).unwrap().ino();
    assert_eq!(inode("srv/r/link"), inode("srv/r/d/link"));
    assert_eq!(std::fs::metadata(to.path().join("srv/r/d")).unwrap().mode() & 0o777, 0o555);
    assert_eq!(report.files, 2);
}

#[test]
fn nothing_that_matches_is_not_found() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let paths = vec!["nothing*".to_owned()];

    let refused = restore(&server, &RestoreOptions { paths, ..options(to.path()) });

    assert!(matches!(refused, Err(ClientError::NotFound(_))), "{refused:?}");
}

#[test]
fn a_second_restore_replaces_what_is_there_only_when_told() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    restore(&server, &options(to.path())).unwrap();
    let before = tree(to.path());
    std::fs::write(to.path().join("srv/r/big"), "scratched").unwrap();

    let refused = restore(&server, &options(to.path()));
    let again = RestoreOptions { existing: Existing::Replace, ..options(to.path()) };
    restore(&server, &again).unwrap();

    assert!(matches!(refused, Err(ClientError::Usage(_))));
    assert_eq!(tree(to.path()), before);
}

#[test]
fn a_link_in_the_target_is_never_followed() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("srv")).unwrap();
    std::os::unix::fs::symlink(outside.path(), to.path().join("srv/r")).unwrap();

    let into = RestoreOptions { existing: Existing::Replace, ..options(to.path()) };
    let refused = restore(&server, &into);

    assert!(matches!(refused, Err(ClientError::Usage(_))), "{refused:?}");
    assert_eq!(names(outside.path()), Vec::<String>::new());
}

#[test]
fn a_file_with_a_bad_chunk_is_named_and_gets_no_name() {
    for fate in [Fate::Altered, Fate::Lost] {
        let mut store = sample();
        let bad = store.file(file("srv/r/x"), &[b"good", b"bad"]);
        store.fates.insert(bad[1], fate);
        let server = store.serve();
        let to = tempfile::tempdir().unwrap();

        let error = restore(&server, &options(to.path())).unwrap_err();

        let named = matches!(&error, ClientError::Corrupt { id, path } if *id == bad[1] && path == "srv/r/x");
        assert!(named, "{error:?}");
        assert_eq!(error.class(), ErrorClass::Integrity);
        let names = names(to.path());
        let wrong = names.iter().find(|name| name.ends_with("/x") || name.contains(write::TEMPORARY));
        assert_eq!(wrong, None, "{names:?}");
    }
}

#[test]
fn an_altered_page_ends_a_restore() {
    let mut store = sample();
    let pages = store.seal();
    store.fates.insert(pages[0], Fate::Altered);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();

    let error = restore(&server, &options(to.path())).unwrap_err();

    assert_eq!(error.class(), ErrorClass::Integrity, "{error:?}");
    assert_eq!(names(to.path()), Vec::<String>::new());
}

#[test]
fn a_manifest_that_would_write_through_its_own_link_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let mut store = Store::new(&["r"]);
    let away = outside.path().to_str().unwrap().as_bytes().to_vec();
    store.add(&folder("r"));
    store.add(&Entry { target: Some(away), ..entry("r/s", EntryKind::Symlink) });
    store.file(file("r/s/x"), &[b"evil"]);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();

    let error = restore(&server, &options(to.path())).unwrap_err();

    assert_eq!(error.class(), ErrorClass::Integrity, "{error:?}");
    assert_eq!(names(outside.path()), Vec::<String>::new());
}

/// [`sample`] with a file that could not be read, one that was gone, and copies of two that were written to.
fn partial_sample() -> Server {
    let mut store = sample();
    store.unreadable(&file("srv/r/secret"));
    store.file_that_ends(file("srv/r/t-fuzzy"), &[b"fuzzy"], FileEnd::Fuzzy);
    store.file_that_ends(file("srv/r/torn"), &[b"torn"], FileEnd::Torn);
    let problem = |name: &str, reason: &str| Problem { path: path(name), reason: reason.to_owned() };
    store.problems = vec![problem("srv/r/gone", "vanished"), problem("srv/r/torn", "was written to")];
    store.totals.problems = 3;
    let info = Store::snapshot();
    store.listed = vec![wire::SnapshotInfo { state: SnapshotState::Partial, problems: 3, ..info }];
    store.serve()
}

fn served() -> SnapshotChoice {
    SnapshotChoice::Id(Store::snapshot().id)
}

/// S8: it comes back without the file only if that was said to be all right, and then everything is named.
#[test]
fn what_is_missing_or_torn_makes_a_restore_partial() {
    let server = partial_sample();
    let to = tempfile::tempdir().unwrap();

    for snapshot in [SnapshotChoice::Latest, served()] {
        let to = tempfile::tempdir().unwrap();
        let report =
            restore(&server, &RestoreOptions { snapshot, partial: Partial::Allow, ..options(to.path()) });

        let report = report.unwrap();
        let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.as_str()).collect();
        assert_eq!((report.state, skipped), (SnapshotState::Partial, vec!["srv/r/gone", "srv/r/secret"]));
        assert_eq!((report.torn, report.torn_count), (vec!["srv/r/torn".to_owned()], 1));
        assert_eq!((report.fuzzy, report.fuzzy_count), (vec!["srv/r/t-fuzzy".to_owned()], 1));
        assert_eq!(std::fs::read(to.path().join("srv/r/torn")).unwrap(), b"torn");
        assert_eq!(std::fs::read(to.path().join("srv/r/t-fuzzy")).unwrap(), b"fuzzy");
        assert!(!to.path().join("srv/r/secret").exists());
    }
    let paths = vec!["t-fuzzy".to_owned()];
    let fuzzy = RestoreOptions { snapshot: served(), partial: Partial::Allow, paths, ..options(to.path()) };
    assert_eq!(restore(&server, &fuzzy).unwrap().state, SnapshotState::Complete, "its owner repairs it");
}

/// S8: nothing is written, not even the target.
#[test]
fn a_partial_snapshot_is_refused_before_anything_is_written() {
    let server = partial_sample();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("new");

    let by_id = restore(&server, &RestoreOptions { snapshot: served(), ..options(&target) }).unwrap_err();
    let latest = restore(&server, &options(&target)).unwrap_err();
    for name in ["secret", "gone", "/srv/r/torn", "srv"] {
        let paths = vec![name.to_owned()];
        let part = restore(&server, &RestoreOptions { snapshot: served(), paths, ..options(&target) });
        assert!(matches!(part, Err(ClientError::Partial { .. })), "{name}: {part:?}");
    }

    let ClientError::Partial { lack, .. } = &by_id else { panic!("{by_id}") };
    assert_eq!((lack.files, lack.first.len(), by_id.exit_code()), (3, 2, 2));
    assert!(by_id.to_string().contains("`/srv/r/gone` (vanished)"), "{by_id}");
    assert!(by_id.to_string().contains("--allow-partial"), "{by_id}");
    assert_eq!(latest.exit_code(), 10, "{latest}");
    assert!(!target.exists());
}

#[test]
fn a_part_that_is_whole_comes_back_from_a_partial_snapshot() {
    let server = partial_sample();
    let to = tempfile::tempdir().unwrap();
    let paths = vec!["/srv/r/d".to_owned(), "/srv/r/t-fuzzy".to_owned()];

    let part = RestoreOptions { snapshot: served(), paths, ..options(to.path()) };
    let report = restore(&server, &part).unwrap();

    assert_eq!((report.state, report.files, report.fuzzy_count), (SnapshotState::Complete, 3, 1));
    assert_eq!(report.skipped, []);
}

#[test]
fn the_latest_passes_over_a_newer_partial_one_and_says_so() {
    let mut store = sample();
    let newer = wire::SnapshotInfo {
        id: SnapshotId::new(2, [2; 10]),
        state: SnapshotState::Partial,
        problems: 7,
        ..Store::snapshot()
    };
    store.listed.push(newer.clone());
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();

    let report = restore(&server, &options(to.path())).unwrap();
    let checked = check(&server);

    for passed_over in [&report.passed_over, &checked.passed_over] {
        let found = passed_over.as_ref().unwrap();
        assert_eq!((found.snapshot, found.missing), (newer.id, 7));
    }
    assert_eq!((report.state, report.snapshot), (SnapshotState::Complete, Store::snapshot().id));
    assert_eq!(checked.snapshot, report.snapshot);
}

/// To read it all changes nothing: a partial one that is named is checked, and its mixtures are whole.
#[test]
fn a_check_takes_mixtures_as_whole_and_the_newest_partial_one_only_when_told() {
    let server = partial_sample();

    let refused = check_with(&server, Partial::Refuse);
    let report = check_with(&server, Partial::Allow).unwrap();

    assert!(matches!(refused, Err(ClientError::NotFound(_))), "{refused:?}");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.files, report.unreadable), (5, 1));
}

#[test]
fn a_restore_that_is_interrupted_says_so() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    hooks.cancel.cancel();

    let ended = run(&server.api, server.runtime.handle(), &options(to.path()), &hooks);

    assert!(matches!(ended, Err(ClientError::Interrupted)), "{ended:?}");
}

#[test]
fn a_sound_snapshot_verifies() {
    let server = sample().serve();

    let report = check(&server);

    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.files, report.chunks, report.bytes, report.pages), (3, 4, 32, 1));
}

/// The twin: whatever is damaged is found, with the names that it hurts, and the check goes on.
#[test]
fn a_check_names_every_damaged_chunk_and_file() {
    let mut store = sample();
    let altered = store.file(file("srv/r/x"), &[b"one", b"two"]);
    let lost = store.file(file("srv/r/y"), &[b"three"]);
    store.file(file("srv/r/z"), &[b"two"]);
    store.fates.insert(altered[1], Fate::Altered);
    store.fates.insert(lost[0], Fate::Lost);
    let server = store.serve();

    let report = check(&server);

    let found: HashSet<(String, String)> = report
        .problems
        .iter()
        .map(|damage| (damage.path.clone().unwrap(), damage.object.clone().unwrap()))
        .collect();
    let expected = [("srv/r/x", altered[1]), ("srv/r/y", lost[0]), ("srv/r/z", altered[1])];
    assert_eq!(found, expected.map(|(path, id)| (path.to_owned(), id.to_string())).into());
    assert_eq!((report.is_sound(), report.problem_count, report.chunks), (false, 3, 5));
}

#[test]
fn a_check_goes_on_after_a_damaged_page() {
    let mut store = Store::new(&["r"]);
    store.add(&folder("r"));
    for n in 0..4000 {
        store.file(file(&format!("r/{n:05}")), &[b"same"]);
    }
    let pages = store.seal();
    assert!(pages.len() > 2, "the scenario needs pages before and after");
    store.fates.insert(pages[1], Fate::Altered);
    let server = store.serve();

    let report = check(&server);

    let objects: Vec<_> = report.problems.iter().map(|damage| damage.object.clone()).collect();
    assert_eq!(objects, [Some(pages[1].to_string())], "{:?}", report.problems);
    assert!(report.files > 2000 && report.files < 4000, "{}", report.files);
}

#[test]
fn many_small_files_come_back() {
    let mut store = Store::new(&["r"]);
    store.add(&folder("r"));
    for outer in 0..20 {
        store.add(&folder(&format!("r/{outer:02}")));
        for n in 0..300 {
            store.file(file(&format!("r/{outer:02}/{n:05}")), &[format!("{outer} {n}").as_bytes()]);
        }
    }
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();
    let seen = Mutex::new(0);
    let progress = |progress: Progress| {
        let mut seen = seen.lock().unwrap();
        *seen = progress.files.max(*seen);
    };
    let clock = SystemClock::new();
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };

    let report = run(&server.api, server.runtime.handle(), &options(to.path()), &hooks).unwrap();

    assert_eq!((report.files, *seen.lock().unwrap(), names(to.path()).len()), (6000, 6000, 6021));
    assert_eq!(std::fs::read(to.path().join("r/07/00123")).unwrap(), b"7 123");
}

#[test]
fn patterns_may_narrow_several_roots_to_one() {
    let mut store = Store::new(&["etc", "srv"]);
    store.add(&folder("etc"));
    store.file(file("etc/x"), &[b"1"]);
    store.add(&folder("srv"));
    store.file(file("srv/x"), &[b"2"]);
    store.file(file("srv/y"), &[b"3"]);
    let server = store.serve();
    let strip = |to: &tempfile::TempDir, pattern: Option<&str>| {
        let paths = pattern.into_iter().map(str::to_owned).collect();
        let strip = RestoreOptions { paths, placement: Placement::StripRoot, ..options(to.path()) };
        restore(&server, &strip)
    };
    let (one, two, three) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

    assert!(matches!(strip(&one, None), Err(ClientError::Usage(_))));
    assert!(matches!(strip(&two, Some("x")), Err(ClientError::Usage(_))));
    strip(&three, Some("/srv/*")).unwrap();

    assert_eq!(names(three.path()), ["x", "y"]);
}
