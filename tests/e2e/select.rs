//! Which names a push takes, and how it tells of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::client::{Done, number, text};
use tests::corpus::set_time;
use tests::world::World;

/// Years ago: a file that was written a moment ago is read again by the next push.
const LONG_AGO: i64 = 1_500_000_000;

fn write(root: &Path, name: &str, len: usize) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![b'x'; len]).unwrap();
}

/// The options that left something out, each with how many entries and bytes.
fn left_out(report: &Value) -> Vec<(String, u64, u64)> {
    let rows = report.get("left_out").and_then(Value::as_array).unwrap();
    rows.iter().map(|row| (text(row, "by"), number(row, "entries"), number(row, "bytes"))).collect()
}

/// A line of `--verbose` names a file by its path in the root.
fn named_in<'a>(done: &'a Done, root: &Path) -> Vec<(&'a str, &'a str)> {
    let within = format!("{}/", root.canonicalize().unwrap().display());
    let line =
        |line: &'a str| line.split_once(char::is_whitespace).map(|(word, path)| (word, path.trim_start()));
    let lines = done.stderr.lines().filter_map(line);
    lines.filter_map(|(word, path)| Some((word, path.strip_prefix(&within)?))).collect()
}

/// C19: a push leaves out nothing silently.
#[test]
fn what_options_leave_out_is_counted_named_and_not_in_the_snapshot() {
    let world = World::new();
    let root = world.dir("source");
    let kept = ["data/a", "data/keep.log", "cache/CACHEDIR.TAG", "scratch/.nobackup"];
    let out = [("data/x.log", 10), ("data/y.log", 20), ("cache/c", 5), ("scratch/s", 7), ("data/big", 3000)];
    kept.iter().for_each(|name| write(&root, name, 3));
    out.iter().for_each(|(name, len)| write(&root, name, *len));
    fs::write(root.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    kept.iter().for_each(|name| set_time(&root.join(name), LONG_AGO, 1));
    let patterns = world.path("patterns");
    fs::write(&patterns, "# logs\n\n*.log\n!keep.log\n*.none\n").unwrap();
    let node = world.node("n");

    let options = [
        "--exclude-file",
        patterns.to_str().unwrap(),
        "--exclude-if-present",
        ".nobackup",
        "--exclude-caches",
        "--exclude-larger-than",
        "2K",
        "-v",
    ];
    let done = node.start_push_of(&[&root], &options).wait().exits(0);

    let report = done.json();
    let place = patterns.display();
    assert_eq!(
        left_out(&report),
        [
            (format!("{place}:3 *.log"), 2, 30),
            ("--exclude-if-present .nobackup".to_owned(), 1, 7),
            ("--exclude-caches".to_owned(), 1, 5),
            ("--exclude-larger-than 2K".to_owned(), 1, 3000),
        ]
    );
    assert_eq!(report.get("unmatched").unwrap(), &serde_json::json!([format!("{place}:5 *.none")]));
    let named = named_in(&done, &root);
    let of = |fate: &str| {
        named.iter().filter(|(word, _)| *word == fate).map(|(_, name)| *name).collect::<Vec<_>>()
    };
    assert_eq!(of("excluded"), ["cache/c", "data/big", "data/x.log", "data/y.log", "scratch/s"]);
    assert_eq!(of("new"), ["cache/CACHEDIR.TAG", "data/a", "data/keep.log", "scratch/.nobackup"]);
    let to = world.path("restored");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    for (name, _) in out {
        assert!(!to.join(name).exists(), "{name}");
    }
    assert!(kept.iter().all(|name| to.join(name).exists()));

    let quiet = node.run(["push", root.to_str().unwrap()]).exits(0);
    assert_eq!(quiet.stderr, "", "nothing is named that nobody asked for");
    let all = node.run(["push", "-vv", root.to_str().unwrap()]).exits(0);
    assert!(named_in(&all, &root).contains(&("unchanged", "data/a")), "{}", all.stderr);
}

/// C19, S6, S11: the roots stay those of the command line, and so does the series.
#[test]
fn a_list_chooses_below_the_roots_and_what_is_not_there_makes_the_snapshot_partial() {
    let world = World::new();
    let root = world.dir("source");
    for name in ["a/1", "a/2", "b/deep/3", "c/4\n5", "c/6"] {
        write(&root, name, 4);
    }
    let list = world.path("list");
    let node = world.node("n");
    let push = |paths: &[&str]| {
        let bytes: String = paths.iter().map(|path| format!("{}\0", root.join(path).display())).collect();
        fs::write(&list, bytes).unwrap();
        let mut command = node.command();
        command.args(["push", "--json", "--files-from0", "-"]).arg(&root);
        let output = command.stdin(File::open(&list).unwrap()).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };

    let (code, report) = push(&["a/1", "b", "c/4\n5"]);

    assert_eq!((code, number(&report, "files"), number(&report, "folders")), (Some(0), 3, 5));
    let to = world.path("restored");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    assert!(to.join("c/4\n5").exists() && to.join("b/deep/3").exists() && !to.join("a/2").exists());

    let (code, report) = push(&["a/1", "a/gone", "b", "c"]);
    assert_eq!((code, number(&report, "files"), number(&report, "problem_count")), (Some(3), 4, 1));
    assert!(report.to_string().contains("/a/gone"), "{report}");
    let snapshots = node.snapshots();
    assert!(snapshots.iter().all(|snapshot| snapshot.get("origins") == snapshots[0].get("origins")));

    for paths in [&[][..], &["../elsewhere"]] {
        let (code, report) = push(paths);
        assert_eq!(code, Some(2), "{report}");
    }
    assert_eq!(node.snapshots().len(), 2);
}

/// C20: neither a server nor a token is there.
#[test]
fn a_dry_run_tells_what_a_push_would_read_and_changes_nothing() {
    let world = World::new();
    let root = world.dir("source");
    let names = ["same", "rewritten", "log", "gone"];
    names.iter().for_each(|name| write(&root, name, 1000));
    names.iter().for_each(|name| set_time(&root.join(name), LONG_AGO, 1));
    let node = world.node("n");
    node.push(&root);
    fs::remove_file(root.join("gone")).unwrap();
    write(&root, "rewritten", 1000);
    write(&root, "log", 1500);
    write(&root, "new", 77);
    write(&root, "x.tmp", 9);
    let state = || files_of(&node.home().join("state"));
    let before = state();
    // No server listens there, and there is no token.
    let alone = node.at("http://127.0.0.1:1").with_token_file(&world.path("no-token"));

    let options = ["--dry-run", "--exclude", "*.tmp", "-v"];
    let done = alone.start_push_of(&[&root], &options).wait().exits(0);

    let planned = done.json();
    let of = |fate: &str| {
        let row = planned.get(fate).unwrap();
        (number(row, "files"), number(row, "bytes"), number(row, "bytes_to_read"))
    };
    assert_eq!((of("new"), of("changed")), ((1, 77, 77), (1, 1000, 1000)));
    assert_eq!((of("appended"), of("unchanged")), ((1, 1500, 1500), (1, 1000, 0)));
    assert_eq!((number(&planned, "gone"), number(&planned, "bytes_to_read")), (1, 2577));
    assert_eq!(left_out(&planned), [("--exclude *.tmp".to_owned(), 1, 9)]);
    let named = named_in(&done, &root);
    assert_eq!(named, [("appended", "log"), ("new", "new"), ("changed", "rewritten"), ("excluded", "x.tmp")]);
    assert!(state() == before && node.snapshots().len() == 1 && !root.join(".astacus").exists());

    let report = node.push_with(&root, &["--exclude", "*.tmp"]);
    for (kind, fate) in
        [("new", "new"), ("whole", "changed"), ("appended", "appended"), ("unchanged", "unchanged")]
    {
        assert_eq!(number(&report, kind), of(fate).0, "{kind}: {report}");
    }
    let text = alone.run(["push", "--dry-run", root.to_str().unwrap()]).exits(0).stdout;
    assert!(
        text.starts_with("dry run: no file was read, no data was sent and no state was saved\n"),
        "{text}"
    );
}

/// Every file below a folder, with its content.
fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_of(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// C19: an option without effect would be silently ignored.
#[test]
fn what_could_have_no_effect_is_refused_before_anything_is_sent() {
    let world = World::new();
    let root = world.dir("source");
    write(&root, "cache/keep", 1);
    let patterns = world.path("patterns");
    fs::write(&patterns, "*.tmp\nsrc/cache\n").unwrap();
    let cache = root.join("cache").display().to_string();
    let node = world.node("n");
    let back = format!("!{cache}/keep");
    for (options, words) in [
        (&["--exclude-file", patterns.to_str().unwrap()][..], "patterns:2"),
        (&["--exclude", &cache, "--exclude", &back], "is not entered"),
        (&["--nice", "10"], "--nice=10"),
        (&["--jobs", "0"], "a number of threads, at least 1"),
    ] {
        let done = node.start_push_of(&[&root], options).wait().exits(2);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    assert!(node.snapshots().is_empty());
}
