mod server;

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::clock::SystemClock;
use crate::leftover::TEMPORARY;
use format_spec::manifest::Problem;
use format_spec::snapshot::SnapshotState;
use format_spec::{Entry, EntryKind, ErrorClass, FileEnd, Xattr, wire};
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
        among: Among::default(),
        partial: Partial::Refuse,
        to: to.to_owned(),
        paths: Vec::new(),
        excludes: Vec::new(),
        placement: Placement::WholePath,
        existing: Existing::Refuse,
        extra: Extra::Stays,
        foreign: Foreign::Refuse,
        unset: Unset::IsNoted,
        owners: Owners::AsPushed,
        setuid: Setuid::Drop,
        max_rate: None,
        durable: Durable::Later,
    }
}

fn restore(server: &Server, options: &RestoreOptions) -> Result<RestoreReport, ClientError> {
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    Ok(run(&server.api, server.runtime.handle(), options, &hooks)?)
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
        among: Among::default(),
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

/// C3: where others may write, they could change what root restores.
#[test]
fn root_restores_into_no_folder_that_others_may_write_to_unless_told() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = sample().serve();
    let other = |owner: u32, mode: u32| {
        let to = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(to.path(), Some(owner), None).unwrap();
        std::fs::set_permissions(to.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        to
    };

    for (owner, mode) in [(12_345, 0o700), (0, 0o777)] {
        let to = other(owner, mode);
        let refused = restore(&server, &options(to.path()));
        assert!(matches!(refused, Err(ClientError::Usage(_))) && names(to.path()).is_empty(), "{mode:o}");
        let meant = RestoreOptions { foreign: Foreign::Meant, ..options(to.path()) };
        assert_eq!(restore(&server, &meant).unwrap().files, 5);
    }
    for mode in [0o700, 0o775, 0o1777] {
        restore(&server, &options(other(0, mode).path())).unwrap();
    }
}

/// Attributes that could not be set are counted; a flag makes them an exit code.
#[test]
fn an_attribute_that_could_not_be_set_can_be_an_exit_code() {
    let mut store = Store::new(&["r"]);
    store.add(&folder("r"));
    let odd = Xattr { name: b"nosuch.attribute".to_vec(), value: Vec::new() };
    store.file(Entry { xattrs: vec![odd], mode: 0o4755, ..file("r/file") }, &[b"content"]);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();
    let options = options(to.path());

    let report = restore(&server, &options).unwrap();

    assert_eq!((report.not_set.attributes, report.not_set.powers), (1, 1));
    let code = |unset, setuid| report.exit_code_of(&RestoreOptions { unset, setuid, ..options.clone() });
    assert_eq!(code(Unset::IsNoted, Setuid::Drop), 0);
    assert_eq!(code(Unset::IsPartial, Setuid::Drop), 3);
    let powers = NotSet { powers: 1, ..NotSet::default() };
    assert!(
        powers.lacks(Setuid::Keep) && !powers.lacks(Setuid::Drop),
        "left out only as they were asked to be"
    );
}

#[test]
fn a_link_in_the_target_is_never_followed() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("srv")).unwrap();
    std::os::unix::fs::symlink(outside.path(), to.path().join("srv/r")).unwrap();

    let into = RestoreOptions { existing: Existing::Replace, ..options(to.path()) };
    let report = restore(&server, &into).unwrap();

    assert_eq!((report.exit_code(), report.files, report.not_made_count), (3, 0, 8), "{report:?}");
    assert_eq!(names(outside.path()), Vec::<String>::new());
}

fn failed(report: &RestoreReport) -> Vec<(&str, FailedFor)> {
    report.failed.iter().map(|failed| (failed.path.as_str(), failed.why)).collect()
}

/// C15: only what needs a damaged or lost chunk is missing, with every name of it, and no name holds a part.
#[test]
fn a_restore_goes_on_past_damage_and_names_all_that_it_hurts() {
    for fate in [Fate::Altered, Fate::Lost] {
        let mut store = sample();
        let first = Entry { link_group: Some(9), ..file("srv/r/x") };
        let bad = store.file(first, &[b"good", b"bad"]);
        store.add(&Entry { link_group: Some(9), ..entry("srv/r/y", EntryKind::HardLink) });
        store.file(file("srv/r/z"), &[b"sound"]);
        store.fates.insert(bad[1], fate);
        let server = store.serve();
        let to = tempfile::tempdir().unwrap();

        let report = restore(&server, &options(to.path())).unwrap();

        let damaged = [("srv/r/x", FailedFor::Damaged), ("srv/r/y", FailedFor::Damaged)];
        assert_eq!(failed(&report), damaged, "{report:?}");
        assert_eq!(report.failed[0].object, Some(bad[1].to_string()));
        assert_eq!((report.damaged_count, report.not_made_count, report.exit_code()), (2, 0, 13));
        assert_eq!((report.files, report.state), (6, SnapshotState::Partial));
        let names = names(to.path());
        let wrong = |name: &&String| name.ends_with("/x") || name.ends_with("/y") || name.contains(TEMPORARY);
        assert_eq!(names.iter().find(wrong), None, "{names:?}");
        assert_eq!(std::fs::read(to.path().join("srv/r/z")).unwrap(), b"sound");
        assert_eq!(std::fs::metadata(to.path().join("srv/r")).unwrap().mtime(), 1_700_000_000);
    }
}

/// C15: a large file with a damaged chunk takes no byte into the next.
#[test]
fn what_follows_a_damaged_large_file_is_as_it_was_pushed() {
    let mut store = Store::new(&["r"]);
    store.add(&folder("r"));
    let piece = vec![7; 3 << 20];
    let other = vec![8; 3 << 20];
    let bad = store.file(file("r/a"), &[&piece, b"bad", &piece]);
    store.file(file("r/b"), &[&other, &piece]);
    store.fates.insert(bad[1], Fate::Altered);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();

    let report = restore(&server, &options(to.path())).unwrap();

    assert_eq!(failed(&report), [("r/a", FailedFor::Damaged)]);
    assert!(std::fs::read(to.path().join("r/b")).unwrap() == [other, piece].concat());
}

/// C15: the files of other pages come back, and the page is said.
#[test]
fn a_damaged_page_costs_only_what_it_names() {
    for fate in [Fate::Altered, Fate::Lost] {
        let mut store = Store::new(&["r"]);
        store.add(&folder("r"));
        for n in 0..4000 {
            store.file(file(&format!("r/{n:05}")), &[b"same"]);
        }
        store.totals.files = 4000;
        store.totals.folders = 1;
        let pages = store.seal();
        assert!(pages.len() > 2, "the scenario needs pages before and after");
        store.fates.insert(pages[1], fate);
        let server = store.serve();
        let to = tempfile::tempdir().unwrap();

        let report = restore(&server, &options(to.path())).unwrap();
        let (named, _) = send(&server, &["r/00000"], Partial::Refuse);
        let (matched, sent) = send(&server, &["r/0000[0]"], Partial::Refuse);

        assert_eq!(named.unwrap().exit_code(), 0);
        assert_eq!((matched.unwrap_err().exit_code(), sent.len()), (13, 0), "another name may match");
        let damaged: Vec<&str> = report.damaged_pages.iter().map(|page| page.object.as_str()).collect();
        assert_eq!(damaged, [pages[1].to_string()]);
        assert_eq!(report.exit_code(), 13);
        let lost = report.lost_entries.unwrap();
        assert_eq!(report.files + report.damaged_count + lost, 4000, "{report:?}");
        assert!(report.files > 2000 && lost > 100, "{report:?}");
        assert_eq!(names(to.path()).len(), usize::try_from(report.files).unwrap() + 1);
    }
}

#[test]
fn a_manifest_of_damaged_pages_only_restores_nothing_and_says_so() {
    let mut store = sample();
    let pages = store.seal();
    store.fates.insert(pages[0], Fate::Altered);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();

    let report = restore(&server, &options(to.path())).unwrap();

    assert_eq!((report.exit_code(), report.damaged_pages.len(), report.files), (13, 1, 0));
    assert_eq!(names(to.path()), Vec::<String>::new());
}

/// C15: what the target cannot have is named, with all in it and all names of it, and the rest is restored.
#[test]
fn a_restore_goes_on_past_what_cannot_be_made() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(to.path().join("srv/r/big/busy")).unwrap();
    std::fs::create_dir_all(to.path().join("srv/r/a/busy")).unwrap();
    std::fs::write(to.path().join("srv/r/d"), "no folder").unwrap();

    let into = RestoreOptions { existing: Existing::Replace, ..options(to.path()) };
    let report = restore(&server, &into).unwrap();

    let not_made =
        ["srv/r/a", "srv/r/big", "srv/r/d", "srv/r/d/empty", "srv/r/d/link", "srv/r/d/up", "srv/r/link"];
    assert_eq!(failed(&report), not_made.map(|name| (name, FailedFor::NotMade)), "{report:?}");
    assert_eq!((report.exit_code(), report.files, report.state), (3, 0, SnapshotState::Partial));
    let left = names(to.path()).into_iter().filter(|name| name.contains(TEMPORARY)).count();
    assert_eq!(left, 0, "{:?}", names(to.path()));
}

/// C15: what ends a restore says what is there, and folders have what they should.
#[test]
fn a_restore_that_ends_early_says_what_is_there() {
    let mut store = Store::new(&["r"]);
    store.add(&Entry { mode: 0o711, ..folder("r") });
    for n in 0..40 {
        let big = vec![n; 1 << 20];
        store.file(file(&format!("r/{n:02}")), &[&big]);
    }
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let on_progress = {
        let cancel = cancel.clone();
        move |progress: Progress| {
            if progress.files > 0 {
                cancel.cancel();
            }
        }
    };
    let clock = SystemClock::new();
    let hooks = Hooks { progress: &on_progress, cancel, clock: &clock };

    let ended = run(&server.api, server.runtime.handle(), &options(to.path()), &hooks).unwrap_err();

    let report = ended.report.unwrap();
    assert!(matches!(ended.error, ClientError::Stopped { .. }) && ended.error.exit_code() == 130);
    assert!((1..40).contains(&report.files), "{report:?}");
    assert_eq!(names(to.path()).len(), usize::try_from(report.files).unwrap() + 1);
    assert_eq!(std::fs::metadata(to.path().join("r")).unwrap().mode() & 0o777, 0o711);
}

/// C16: what was there before and was not asked for keeps its attributes, the target too.
#[test]
fn folders_that_were_there_and_lie_on_the_way_stay_as_they_were() {
    for placement in [Placement::WholePath, Placement::StripRoot] {
        let server = sample().serve();
        let to = tempfile::tempdir().unwrap();
        let base = match placement {
            Placement::WholePath => to.path().join("srv/r"),
            Placement::StripRoot => to.path().to_owned(),
        };
        std::fs::create_dir_all(base.join("d")).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(&base.join("d"), 0o731);
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for folder in [base.join("d"), base.clone(), to.path().to_owned()] {
            std::fs::File::open(folder).unwrap().set_modified(past).unwrap();
        }
        mode(to.path(), 0o1777);
        let all = [base.join("d"), base.clone(), to.path().to_owned()];
        let was = |path: &std::path::PathBuf| {
            let meta = std::fs::metadata(path).unwrap();
            (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec())
        };
        let before: Vec<_> = all.iter().map(was).collect();

        let paths = vec!["/srv/r/d/empty".to_owned(), "big".to_owned()];
        let into = RestoreOptions { existing: Existing::Replace, paths, placement, ..options(to.path()) };
        let report = restore(&server, &into).unwrap();

        assert_eq!((report.files, report.exit_code()), (2, 0), "{report:?}");
        assert_eq!(all.iter().map(was).collect::<Vec<_>>(), before, "{placement:?}");
        assert!(base.join("d/empty").exists());
    }
}

/// C16: a folder that was asked for gets what it was pushed with, also where it was there before; the target never.
#[test]
fn folders_that_were_asked_for_get_their_attributes() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("d")).unwrap();
    let before = std::fs::metadata(to.path()).unwrap();

    let strip = Placement::StripRoot;
    let into = RestoreOptions { existing: Existing::Replace, placement: strip, ..options(to.path()) };
    restore(&server, &into).unwrap();

    let (d, target) =
        (std::fs::metadata(to.path().join("d")).unwrap(), std::fs::metadata(to.path()).unwrap());
    assert_eq!((d.mode() & 0o777, d.mtime()), (0o555, 1_700_000_000));
    assert_eq!((target.mode(), target.mtime()), (before.mode(), before.mtime()));
}

/// C17: a pattern that fits nothing is named; it is an error only if none fits.
#[test]
fn each_pattern_that_matches_nothing_is_named() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let paths = vec!["/srv/r/d".to_owned(), "/srv/r/d/empty".to_owned(), "/srv/mistyped".to_owned()];

    let report = restore(&server, &RestoreOptions { paths, ..options(to.path()) }).unwrap();

    assert_eq!((report.unmatched, report.state), (vec!["/srv/mistyped".to_owned()], SnapshotState::Partial));
}

/// C17: a snapshot knows files by their paths without links; who asks through one is told where it leads.
#[test]
fn a_path_through_a_link_that_matches_nothing_is_told_where_it_leads() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let top = to.path().canonicalize().unwrap();
    std::fs::create_dir(top.join("real")).unwrap();
    std::os::unix::fs::symlink("real", top.join("link")).unwrap();
    let through = |name: &str| top.join(name).display().to_string();

    for (path, hint) in [("link/x", Some("real/x")), ("real/x", None), ("link", None)] {
        let paths = vec![through(path)];
        let error =
            restore(&server, &RestoreOptions { paths, ..options(&to.path().join("new")) }).unwrap_err();

        assert_eq!(error.exit_code(), 10);
        let text = error.to_string();
        assert_eq!(text.contains("symbolic links of this machine"), hint.is_some(), "{text}");
        assert!(hint.is_none_or(|hint| text.contains(&through(hint))), "{text}");
    }
}

#[test]
fn brackets_that_match_nothing_are_told_how_to_be_written() {
    let mut store = sample();
    store.file(file("srv/r/x[1]"), &[b"brackets"]);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();
    let restored = |path: &str| {
        let paths = vec![path.to_owned()];
        restore(&server, &RestoreOptions { paths, existing: Existing::Replace, ..options(to.path()) })
    };

    let error = restored("x[1]").unwrap_err();

    assert!(error.to_string().ends_with(r"if they belong to the name, write `x\[1\]`"), "{error}");
    assert_eq!(restored(r"x\[1\]").unwrap().files, 1);
    let plain = restored("no*such").unwrap_err().to_string();
    assert!(!plain.contains("between them"), "{plain}");
}

#[test]
fn what_is_excluded_does_not_come_back() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let excludes = vec!["/srv/r/d".to_owned(), "b?g".to_owned(), "none".to_owned()];

    let report = restore(&server, &RestoreOptions { excludes, ..options(to.path()) }).unwrap();

    assert_eq!(names(to.path()), ["srv", "srv/r", "srv/r/a", "srv/r/link"]);
    assert_eq!((report.exit_code(), report.unmatched_excludes), (0, vec!["none".to_owned()]));
}

#[test]
fn a_dry_run_names_what_would_be_made_and_makes_nothing() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("new");
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    let dry = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let options = RestoreOptions { paths, ..options(&target) };
        dry_run(&server.api, server.runtime.handle(), &options, &hooks)
    };

    let all = dry(&[]).unwrap();
    let link = dry(&["/srv/r/d/link", "typo"]).unwrap();
    let none = dry(&["typo"]).unwrap_err();
    let made = target.exists();
    let report = restore(&server, &options(&target)).unwrap();

    assert_eq!((all.files, all.folders, all.symlinks), (report.files, report.folders, report.symlinks));
    assert_eq!((all.bytes, all.exit_code()), (report.bytes, 0));
    let planned: Vec<String> = all.names.iter().map(|name| name.path.clone()).collect();
    assert_eq!(planned, names(&target)[1..], "all but the folder above the root");
    let planned: Vec<&str> = link.names.iter().map(|name| name.path.as_str()).collect();
    assert_eq!(planned, ["srv/r", "srv/r/d", "srv/r/d/link"]);
    assert_eq!((link.exit_code(), link.unmatched), (3, vec!["typo".to_owned()]));
    assert!(matches!(none, ClientError::NotFound(_)) && !made, "{none}");
}

/// C18: what is there already, with the same time and content, is not fetched; what only looks so is.
#[test]
fn a_restore_into_what_it_made_before_fetches_only_what_differs() {
    let mut store = sample();
    let big = Entry { size: 0, ..file("srv/r/x-big") };
    store.file(big, &[&vec![1; 3 << 20], &vec![2; 3 << 20]]);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();
    restore(&server, &options(to.path())).unwrap();
    let before = tree(to.path());
    let inode = |name: &str| std::fs::metadata(to.path().join(name)).unwrap().ino();
    let kept = inode("srv/r/x-big");
    // The length and the time are those that were pushed.
    let path = to.path().join("srv/r/big");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, vec![b'x'; before.iter().find(|(name, _)| name == "srv/r/big").unwrap().1.len()])
        .unwrap();
    std::fs::File::open(&path).unwrap().set_modified(modified).unwrap();
    std::fs::set_permissions(
        to.path().join("srv/r/x-big"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();

    let into = RestoreOptions { existing: Existing::Replace, ..options(to.path()) };
    let report = restore(&server, &into).unwrap();

    assert_eq!(tree(to.path()), before);
    assert_eq!((report.files, report.unchanged, report.exit_code()), (6, 3, 0), "{report:?}");
    assert!(report.bytes_fetched < 100, "{report:?}");
    assert_eq!(inode("srv/r/x-big"), kept);
    let meta = |name: &str| std::fs::metadata(to.path().join(name)).unwrap();
    assert_eq!(meta("srv/r/x-big").mode() & 0o777, 0o640, "it gets the other attributes");
    assert_eq!(meta("srv/r/a").nlink(), 3);
}

/// C3: a server cannot fill the memory of a client, nor give it something else.
#[test]
fn an_answer_with_other_or_more_blobs_than_were_asked_for_is_not_read() {
    for fate in [Fate::Longer, Fate::Swapped, Fate::Doubled] {
        let mut store = sample();
        let bad = store.file(file("srv/r/x"), &[b"good", b"bad"]);
        store.fates.insert(bad[1], fate);
        let server = store.serve();
        let to = tempfile::tempdir().unwrap();

        let report = restore(&server, &options(to.path())).unwrap();

        assert_eq!(failed(&report), [("srv/r/x", FailedFor::Damaged)], "{fate:?}: {report:?}");
    }
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

    assert!(matches!(ended, Err(Ended { error: ClientError::Interrupted, report: None })), "{ended:?}");
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

/// C15: what no restore would take is named with its page, and the check goes on.
#[test]
fn a_check_names_entries_that_break_a_rule() {
    let mut store = Store::new(&["r"]);
    store.add(&folder("r"));
    let other_digest = |_| FileEnd::Whole(format_spec::FileDigest::from_bytes([9; 32]));
    store.file_that_ends(Entry { link_group: Some(7), ..file("r/a") }, &[b"content"], other_digest);
    store.add(&Entry { size: 0, link_group: Some(7), ..entry("r/b", EntryKind::HardLink) });
    store.file(file("r/c/x"), &[b"in no folder"]);
    store.file(file("r/d"), &[b"sound"]);
    let pages = store.seal();
    let server = store.serve();

    let report = check(&server);

    let found = |path: &str, object: Option<&format_spec::ChunkId>, problem: &str| Damage {
        node: "n".parse().unwrap(),
        path: Some(path.to_owned()),
        object: object.map(ToString::to_string),
        problem: problem.to_owned(),
    };
    let page = pages.first();
    let expected = [
        found("r/a", page, "has other extents than its digest says"),
        found("r/b", None, "its first name cannot be restored"),
        found("r/c/x", page, "has a parent that is not a folder of this manifest"),
    ];
    assert_eq!((report.problems.as_slice(), report.problem_count, report.files), (&expected[..], 3, 2));
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

/// A file whose attributes were too long is there; a file that could not be read is not.
#[test]
fn what_is_there_in_part_is_not_said_to_be_missing() {
    let mut store = sample();
    store.unreadable(&file("srv/r/secret"));
    let problem = |(name, reason): (&str, &str)| Problem { path: path(name), reason: reason.to_owned() };
    let problems = [
        ("srv/r/a", "extended attributes are over the limit"),
        ("srv/r/d", "cannot be listed"),
        ("srv/r/link", "extended attributes are over the limit"),
        ("srv/r/secret", "cannot be read"),
        ("srv/r/vanished", "is not there any more"),
    ];
    store.problems = problems.map(problem).to_vec();
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();

    let report = restore(&server, &RestoreOptions { partial: Partial::Allow, ..options(to.path()) }).unwrap();

    let names = |skipped: &[Skipped]| skipped.iter().map(|name| name.path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&report.incomplete), ["srv/r/a", "srv/r/d", "srv/r/link"]);
    assert_eq!(names(&report.skipped), ["srv/r/secret", "srv/r/vanished"]);
    assert_eq!((report.exit_code(), report.files), (3, 5));
}

/// Files in a target beside those restored from [`sample`].
fn with_extra(to: &Path) -> Vec<String> {
    let before = [
        "other/x",
        "srv/beside",
        "srv/r/d/old",
        "srv/r/gone/deep/f",
        "srv/r/keep/a.db",
        "srv/r/keep/b",
        "srv/r/z",
    ];
    for name in before {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    names(to)
}

fn dry(server: &Server, options: &RestoreOptions) -> DryRun {
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    dry_run(&server.api, server.runtime.handle(), options, &hooks).unwrap()
}

/// C21: only from folders that were chosen whole, never what an exclude fits, nor through links; and a dry run tells all.
#[test]
fn what_the_snapshot_does_not_have_goes_only_from_restored_folders_and_only_when_told() {
    let server = sample().serve();
    let (to, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("precious"), "").unwrap();
    with_extra(to.path());
    std::os::unix::fs::symlink(outside.path(), to.path().join("srv/r/link-out")).unwrap();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, to.path().join("srv/r/pipe"), fifo, mode, 0).unwrap();
    let before = names(to.path());
    let stays = RestoreOptions {
        existing: Existing::Replace,
        excludes: vec!["*.db".to_owned()],
        ..options(to.path())
    };
    let goes = RestoreOptions { extra: Extra::Goes, ..stays.clone() };
    let expected = ["d/old", "gone", "gone/deep", "gone/deep/f", "keep/b", "link-out", "z"];
    let mut expected = expected.map(|name| format!("srv/r/{name}")).to_vec();

    let planned = dry(&server, &goes);
    assert_eq!(names(to.path()), before, "a dry run changes nothing");
    let kept = restore(&server, &stays).unwrap();
    let with_all = names(to.path());
    let done = restore(&server, &goes).unwrap();

    assert_eq!((kept.removed_count, done.removed_count, planned.to_remove_count), (0, 7, 7));
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(done.removed.clone()), expected);
    assert_eq!(sorted(planned.to_remove), expected);
    expected.push("srv/r/keep".to_owned());
    let left: Vec<String> = with_all.into_iter().filter(|name| !expected.contains(name)).collect();
    let there: Vec<String> = names(to.path()).into_iter().filter(|name| name != "srv/r/keep").collect();
    assert_eq!(there, left);
    assert_eq!(names(outside.path()), ["precious"]);
    assert_eq!((done.exit_code(), done.not_removed_count), (0, 0), "{done:?}");
    let meta = |name: &str| std::fs::metadata(to.path().join(name)).unwrap();
    assert_eq!((meta("srv/r").mtime(), meta("srv/r/d").mtime()), (1_700_000_000, 1_700_000_000));
    assert_eq!(meta("srv/r/d").mode() & 0o777, 0o555);
    assert_eq!(std::fs::read(to.path().join("srv/r/keep/a.db")).unwrap(), b"srv/r/keep/a.db");
}

/// C21: a folder on the way to what was chosen keeps what it has.
#[test]
fn nothing_goes_from_folders_that_were_not_chosen() {
    let server = sample().serve();
    let to = tempfile::tempdir().unwrap();
    with_extra(to.path());
    let paths = vec!["big".to_owned(), "d".to_owned()];

    let into =
        RestoreOptions { existing: Existing::Replace, extra: Extra::Goes, paths, ..options(to.path()) };
    let report = restore(&server, &into).unwrap();

    assert_eq!(report.removed, ["srv/r/d/old"]);
}

/// C21: what could not be restored is the snapshot's all the same, and of a damaged page no name is known.
#[test]
fn what_the_snapshot_has_never_goes_though_it_was_not_restored() {
    let mut store = sample();
    let bad = store.file(file("srv/r/m"), &[b"bad"]);
    store.unreadable(&file("srv/r/n"));
    store.fates.insert(bad[0], Fate::Lost);
    let server = store.serve();
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(to.path().join("srv/r")).unwrap();
    for name in ["m", "n", "o"] {
        std::fs::write(to.path().join("srv/r").join(name), "old").unwrap();
    }
    let goes = |to: &Path| RestoreOptions {
        existing: Existing::Replace,
        extra: Extra::Goes,
        partial: Partial::Allow,
        ..options(to)
    };

    let report = restore(&server, &goes(to.path())).unwrap();

    assert_eq!((report.removed.as_slice(), report.exit_code()), (&["srv/r/o".to_owned()][..], 13));

    let mut damaged = sample();
    let pages = damaged.seal();
    damaged.fates.insert(pages[0], Fate::Altered);
    // The content of a folder that could not be listed is unknown.
    let mut partial = sample();
    partial.problems = vec![Problem { path: path("srv/r/d"), reason: "cannot be listed".to_owned() }];
    partial.totals.problems = 1;
    for (store, code) in [(damaged, 13), (partial, 3)] {
        let server = store.serve();
        let report = restore(&server, &goes(to.path())).unwrap();
        assert_eq!((report.removed_count, report.not_removed_count, report.exit_code()), (0, 1, code));
        let planned = dry(&server, &goes(to.path()));
        assert_eq!((planned.to_remove_count, planned.exit_code()), (0, code));
        assert_eq!(planned.not_removed, report.not_removed, "a dry run tells why");
        assert!(to.path().join("srv/r/m").exists());
    }
}

fn send(server: &Server, paths: &[&str], partial: Partial) -> (Result<Sent, ClientError>, Vec<u8>) {
    let (clock, progress) = (SystemClock::new(), |_| ());
    let hooks = Hooks { progress: &progress, cancel: Cancel::new(), clock: &clock };
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let options = RestoreOptions { paths, partial, ..options(Path::new("-")) };
    let mut out = Vec::new();
    let sent = to_output(&server.api, server.runtime.handle(), &options, &hooks, &mut out);
    (sent, out)
}

#[test]
fn one_file_is_sent_and_nothing_of_several() {
    let mut store = sample();
    let large: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 1 << 20]).collect();
    store.file(file("srv/r/z"), &large.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let server = store.serve();

    for (path, content) in [
        ("big", b"firstthe second chunkfirst".to_vec()),
        ("empty", Vec::new()),
        // A name of a link group whose first name is not chosen.
        ("/srv/r/link", b"linked".to_vec()),
        ("a", b"linked".to_vec()),
        ("z", large.concat()),
    ] {
        let (sent, out) = send(&server, &[path], Partial::Refuse);
        let sent = sent.unwrap();
        assert!(out == content, "{path}: {} bytes", out.len());
        assert_eq!((sent.bytes, sent.exit_code()), (u64::try_from(content.len()).unwrap(), 0), "{path}");
    }
    for (paths, code) in
        [(&[][..], 2), (&["d"], 2), (&["up"], 2), (&["big", "empty"], 2), (&["link"], 2), (&["none"], 10)]
    {
        let (refused, out) = send(&server, paths, Partial::Refuse);
        assert_eq!((refused.unwrap_err().exit_code(), out.len()), (code, 0), "{paths:?}");
    }
}

/// C15: what is sent of a damaged file is its beginning, and the error says how much that is.
#[test]
fn a_damaged_file_is_sent_up_to_the_damage() {
    for fate in [Fate::Altered, Fate::Lost] {
        let mut store = sample();
        let bad = store.file(file("srv/r/x"), &[b"good", b"bad", b"good"]);
        store.fates.insert(bad[1], fate);
        let server = store.serve();

        let (error, out) = send(&server, &["x"], Partial::Refuse);

        let error = error.unwrap_err();
        assert!(matches!(&error, ClientError::Damaged { sent: 4, .. }), "{error:?}");
        assert_eq!((error.exit_code(), out), (13, b"good".to_vec()));
        assert_eq!(send(&server, &["big"], Partial::Refuse).0.unwrap().bytes, 26);
    }
}

#[test]
fn a_torn_or_unreadable_file_is_sent_only_as_far_as_that_is_allowed() {
    let mut store = sample();
    store.file_that_ends(file("srv/r/torn"), &[b"torn"], FileEnd::Torn);
    store.unreadable(&file("srv/r/unreadable"));
    store.problems = ["torn", "unreadable"]
        .map(|name| Problem { path: path(&format!("srv/r/{name}")), reason: String::new() })
        .to_vec();
    let server = store.serve();

    let refused = send(&server, &["torn"], Partial::Refuse);
    let (torn, out) = send(&server, &["torn"], Partial::Allow);
    let unreadable = send(&server, &["unreadable"], Partial::Allow);

    assert!(matches!(refused, (Err(ClientError::Partial { .. }), out) if out.is_empty()));
    assert_eq!((torn.unwrap().exit_code(), out), (3, b"torn".to_vec()));
    assert_eq!((unreadable.0.unwrap_err().exit_code(), unreadable.1.len()), (10, 0));
}
