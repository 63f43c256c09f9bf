//! Files that cannot be read: told, counted, and never a wrong file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use format_spec::manifest::{MAX_PROBLEMS, Manifest, Moment, Problem, PushStats, Totals};
use format_spec::wire::{Committed, FileProblems, FileState};
use format_spec::{EntryPath, FileEnd};
use serde_json::{Value, json};
use tests::bodies::{self, HandMade, plain_manifest};
use tests::client::{Client, number, text};
use tests::gear;
use tests::world::World;

use crate::session::Session;

/// The node, run so that the mode of a file counts; `None` if that cannot be had here.
fn ordinary(node: &Client) -> Option<Client> {
    if !gear::is_root() {
        return Some(node.clone());
    }
    // Still the owner of everything, but without the power to read what a mode forbids.
    let bounded = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"];
    gear::has("setpriv").then(|| node.wrapped(&bounded))
}

fn forbid(path: &std::path::Path) {
    fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
}

fn paths(problems: &Value) -> Vec<&str> {
    problems.as_array().unwrap().iter().map(|problem| problem["path"].as_str().unwrap()).collect()
}

/// S6, C1: what could not be read is missing from the snapshot, which says so, and the rest is in it.
#[test]
fn a_push_with_an_unreadable_file_exits_with_3_and_the_snapshot_says_so() {
    let world = World::new();
    let root = world.dir("source");
    for name in ["a", "secret", "z"] {
        fs::write(root.join(name), name.repeat(1000)).unwrap();
    }
    forbid(&root.join("secret"));
    let Some(node) = ordinary(&world.node("n")) else { return };

    let report = node.start_push(&root).wait().exits(3).json();
    let snapshots = node.snapshots();
    let anyway = ["--strip-root", "--allow-partial"];
    let restore = node.restore("latest", &world.path("restored"), &anyway).exits(3).json();

    assert_eq!(text(&report, "state"), "partial");
    assert_eq!(number(&report, "problem_count"), 1);
    assert_eq!(paths(&report["problems"]), [root.join("secret").to_str().unwrap()]);
    assert_eq!(text(&snapshots[0], "state"), "partial");
    assert_eq!(paths(&restore["skipped"]).len(), 1, "{restore}");
    assert!(!world.path("restored/secret").exists());
    for name in ["a", "z"] {
        assert_eq!(fs::read(world.path("restored").join(name)).unwrap(), fs::read(root.join(name)).unwrap());
    }
    assert_eq!(node.admin(&["verify", "--level", "read"]).code, Some(0), "a partial snapshot is sound");
}

/// S6: a folder that cannot be listed is a problem too.
#[test]
fn a_push_with_an_unreadable_folder_exits_with_3() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    fs::write(root.join("closed/inside"), "unseen").unwrap();
    forbid(&root.join("closed"));
    let Some(node) = ordinary(&world.node("n")) else { return };

    let report = node.start_push(&root).wait().exits(3).json();

    assert_eq!(number(&report, "problem_count"), 1, "{report}");
}

/// S6: a file that can be read again is in the next snapshot, which is complete.
#[test]
fn the_next_push_after_the_mode_was_mended_is_complete() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("secret"), "found").unwrap();
    forbid(&root.join("secret"));
    let Some(node) = ordinary(&world.node("n")) else { return };
    node.start_push(&root).wait().exits(3);
    fs::set_permissions(root.join("secret"), Permissions::from_mode(0o600)).unwrap();

    let report = node.push(&root);
    node.restore("latest", &world.path("restored"), &["--strip-root"]).exits(0);

    assert_eq!(text(&report, "state"), "complete");
    assert_eq!(fs::read(world.path("restored/secret")).unwrap(), b"found");
}

/// A node whose first push was complete, and the second not: the snapshots, and the folder.
struct Years {
    world: World,
    node: Client,
    root: PathBuf,
    complete: String,
    partial: String,
}

impl Years {
    /// `None` if an unreadable file cannot be had here.
    fn new() -> Option<Self> {
        let world = World::new();
        let root = world.dir("source");
        fs::write(root.join("plain"), "plain").unwrap();
        fs::write(root.join("secret"), "secret").unwrap();
        let node = ordinary(&world.node("n"))?;
        let complete = text(&node.push(&root), "snapshot");
        fs::write(root.join("secret"), "changed").unwrap();
        forbid(&root.join("secret"));
        let partial = text(&node.start_push(&root).wait().exits(3).json(), "snapshot");
        Some(Self { world, node, root, complete, partial })
    }
}

/// S8, G9: `latest` is the last complete one, as policies have it, and the newer partial one is not passed over
/// in silence.
#[test]
fn latest_passes_over_a_newer_partial_snapshot_and_says_so() {
    let Some(Years { world, node, root, complete, partial }) = Years::new() else { return };
    let to = world.path("restored");

    let restored = node.restore("latest", &to, &["--strip-root"]).exits(0);
    let checked = node.run(["verify", "latest", "--json"]).exits(0).json();
    let told = node.run(["verify", "latest", "--quiet"]).exits(0).stdout;
    let newest = node.run(["verify", "latest", "--allow-partial", "--json"]).exits(0).json();

    assert!(restored.stderr.contains(&partial), "before the work begins: {}", restored.stderr);
    for report in [&restored.json(), &checked] {
        assert_eq!(text(report, "snapshot"), complete);
        let passed_over = &report["passed_over"];
        assert_eq!(
            (text(passed_over, "snapshot"), text(passed_over, "why")),
            (partial.clone(), "partial".to_owned())
        );
        assert_eq!(number(passed_over, "missing"), 1);
    }
    assert!(told.contains(&partial) && told.contains("1 file is missing"), "{told}");
    assert_eq!((text(&newest, "snapshot"), &newest["passed_over"]), (partial, &Value::Null));
    assert_eq!(fs::read(to.join("secret")).unwrap(), b"secret");
    assert_eq!(node.admin(&["forget", &complete]).code, Some(11), "the last complete one of a policy");
    drop(root);
}

/// S8: nothing is written, and the way out is named.
#[test]
fn latest_of_partial_snapshots_only_is_refused_with_the_way_out() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("secret"), "secret").unwrap();
    forbid(&root.join("secret"));
    let Some(node) = ordinary(&world.node("n")) else { return };
    let partial = text(&node.start_push(&root).wait().exits(3).json(), "snapshot");
    let to = world.path("restored");

    let refused = node.restore("latest", &to, &[]).exits(10);
    let unchecked = node.run(["verify", "latest", "--json"]).exits(10).json();

    for error in [&refused.json()["error"], &unchecked["error"]] {
        let message = text(error, "message");
        assert!(message.contains(&partial) && message.contains("--allow-partial"), "{message}");
    }
    assert!(!to.exists());
    node.restore("latest", &to, &["--allow-partial"]).exits(3);
    assert!(to.exists());
}

/// S8: one that is named is refused too, but for what is whole in it.
#[test]
fn a_partial_snapshot_that_is_named_needs_the_flag_unless_the_part_is_whole() {
    let Some(Years { world, node, partial, .. }) = Years::new() else { return };
    let to = world.path("restored");

    let refused = node.restore(&partial, &to, &[]).exits(2).json();
    for path in ["secret", "source", "*"] {
        node.restore(&partial, &to, &["--path", path]).exits(2);
    }
    let is_untouched = !to.exists();
    let whole = node.restore(&partial, &to, &["--strip-root", "--path", "plain"]).exits(0).json();
    let all =
        node.restore(&partial, &world.path("all"), &["--strip-root", "--allow-partial"]).exits(3).json();

    let error = &refused["error"];
    assert_eq!(text(error, "code"), "partial_snapshot");
    let message = text(error, "message");
    for part in ["1 file is missing", "source/secret` (", "--allow-partial"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(is_untouched, "the target was made although nothing was restored");
    assert_eq!((number(&whole, "files"), text(&whole, "state")), (1, "complete".to_owned()));
    assert_eq!(text(&all, "state"), "partial");
    assert_eq!(paths(&all["skipped"]).len(), 1);
    assert!(world.path("all/plain").exists() && !world.path("all/secret").exists());
}

fn hand_made(
    name: &str,
    content: &'static [u8],
    end: fn(format_spec::id::FileDigest) -> FileEnd,
) -> HandMade {
    HandMade { name: name.to_owned(), content, end }
}

fn unreadable(name: &str) -> HandMade {
    hand_made(name, b"", |_| FileEnd::Unreadable)
}

/// Pushes by hand the folder `data` with these files; `change` has the last word on the manifest.
fn push_by_hand(world: &World, files: &[HandMade], change: impl FnOnce(Manifest) -> Manifest) -> String {
    let session = Session::open(world);
    let (frames, pages) = bodies::pages_of(&session.domain, files);
    assert_eq!(session.send(&frames).status, 200);
    let totals = Totals { files: u64::try_from(files.len()).unwrap(), ..Totals::default() };
    let manifest = change(Manifest { totals, ..plain_manifest("n", pages) });
    session.post("commit", &manifest.encode()).json::<Committed>().snapshot.id.to_string()
}

fn problem(name: &str, reason: &str) -> Problem {
    Problem { path: EntryPath::new(format!("data/{name}").into_bytes()).unwrap(), reason: reason.to_owned() }
}

/// A snapshot with something of everything: a file that could not be read, one that has gone, a mixture that its
/// owner repairs, and one that nobody does.
fn mixed(world: &World) -> String {
    let files = [
        hand_made("fuzzy", b"almost", FileEnd::Fuzzy),
        unreadable("secret"),
        hand_made("torn", b"half and half", FileEnd::Torn),
        hand_made("whole", b"whole", FileEnd::Whole),
    ];
    push_by_hand(world, &files, |manifest| {
        let moment = Some(Moment { freeze_ms: 5, moved_on: 3, fuzzy: 1, torn: 1, restless: 0 });
        Manifest {
            problems: vec![problem("gone", "vanished"), problem("torn", "was written to during each read")],
            totals: Totals { problems: 3, ..manifest.totals },
            push: Some(PushStats { moment, ..PushStats::default() }),
            ..manifest
        }
    })
}

/// S6, S8: what its owner wrote to while it was read comes back, with a mark, and a torn one makes it partial.
#[test]
fn torn_and_fuzzy_files_are_restored_and_named() {
    let world = World::new();
    let node = world.node("n");
    let id = mixed(&world);
    let to = world.path("restored");

    let refused = node.restore(&id, &to, &["--path", "torn"]).exits(2).json();
    // The kind of a vanished name is unknown: a folder could have contained a name that the pattern matches.
    let unknown = node.restore(&id, &to, &["--path", "fuzzy"]).exits(2).json();
    let whole = ["--path", "/data/fuzzy", "--path", "/data/whole"];
    let part = node.restore(&id, &world.path("part"), &whole).exits(0).json();
    let restored = node.restore(&id, &to, &["--strip-root", "--allow-partial"]).exits(3).json();
    let mut command = node.command();
    command.args(["restore", &id, "--allow-partial", "--quiet", "--to"]).arg(world.path("quiet"));
    let told = tests::client::run_to_end(command).exits(3).stdout;

    assert!(text(&refused["error"], "message").contains("was written to during each read"), "{refused}");
    assert!(text(&unknown["error"], "message").contains("/data/gone` (vanished; "), "{unknown}");
    assert_eq!((&part["fuzzy"], &part["torn"]), (&json!(["data/fuzzy"]), &json!([])));
    assert_eq!((&restored["fuzzy"], &restored["torn"]), (&json!(["data/fuzzy"]), &json!(["data/torn"])));
    assert_eq!((number(&restored, "fuzzy_count"), number(&restored, "torn_count")), (1, 1));
    assert_eq!(paths(&restored["skipped"]), ["data/gone", "data/secret"]);
    assert_eq!(fs::read(to.join("torn")).unwrap(), b"half and half");
    assert_eq!(fs::read(to.join("fuzzy")).unwrap(), b"almost");
    for line in
        ["TORN, a mixture of states: data/torn", "fuzzy, ", "data/fuzzy", "NOT in the snapshot: data/gone"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    for check in [&["verify", id.as_str()][..], &["verify", "latest", "--allow-partial"]] {
        node.run(check).exits(0);
    }
    node.admin(&["verify", "--level", "restore"]).exits(0);
}

/// S6: what is not of one moment is said wherever snapshots are listed.
#[test]
fn a_snapshot_that_is_not_one_moment_is_marked_in_every_list() {
    let world = World::new();
    let node = world.node("n");
    let id = mixed(&world);
    push_by_hand(&world, &[hand_made("whole", b"whole", FileEnd::Whole)], |manifest| manifest);

    let mark = "partial (2 missing), not one moment (3 moved on, 1 fuzzy, 1 torn)";
    for list in [node.run(["list"]), node.admin(&["snapshots"]), node.admin(&["show", &id])] {
        let text = list.exits(0).stdout;
        assert_eq!(text.matches(mark).count(), 1, "{text}");
        assert_eq!(text.matches("not one moment").count(), 1, "{text}");
    }
}

/// S6: a manifest names the first thousand, and yet each has a name and a state.
#[test]
fn all_that_is_missing_is_named_however_much_it_is() {
    let world = World::new();
    let node = world.node("n");
    let mut files: Vec<HandMade> = (0..2_500).map(|n| unreadable(&format!("{n:05}"))).collect();
    files.push(hand_made("x-fuzzy", b"almost", FileEnd::Fuzzy));
    files.push(hand_made("x-torn", b"half", FileEnd::Torn));
    let id = push_by_hand(&world, &files, |manifest| {
        let named = files.iter().take(MAX_PROBLEMS - 1).map(|file| problem(&file.name, "closed"));
        Manifest {
            problems: named.chain([problem("zz-gone", "vanished")]).collect(),
            totals: Totals { problems: 2_502, ..manifest.totals },
            ..manifest
        }
    });

    let told = node.admin(&["show", &id]).exits(0).stdout;
    let document = node.admin(&["show", &id, "--json"]).exits(0).json();
    let few = node.admin(&["show", &id, "--limit", "3"]).exits(0).stdout;

    let lines = |state: &str| told.lines().filter(|line| line.trim_start().starts_with(state)).count();
    assert_eq!((lines("missing "), lines("torn "), lines("fuzzy ")), (2_501, 1, 1));
    for name in files.iter().map(|file| file.name.as_str()).chain(["zz-gone"]) {
        assert_eq!(told.matches(&format!("/data/{name}")).count(), 1, "{name}");
    }
    assert!(told.contains("/data/00000: closed") && told.contains("/data/zz-gone: vanished"), "{few}");
    let named = document["not_whole"].as_array().unwrap();
    assert_eq!((named.len(), &document["all_named"]), (2_503, &json!(true)));
    assert_eq!(named[2_501], json!({ "node": "n", "path": "/data/x-torn", "state": "torn" }));
    assert_eq!(few.matches("/data/").count(), 3, "{few}");
    assert!(few.contains("--limit"), "{few}");
    assert_eq!(part_by_part(&world, &id), 2_503);
}

/// The server's answers one after another, of at most 700 each: how many files all of them name.
fn part_by_part(world: &World, id: &str) -> usize {
    let wire = world.wire();
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/snapshots/{id}/problems?node=n&limit=700{after}");
        let part: FileProblems = wire.send("GET", &path, b"").json();
        assert!(part.problems.len() <= 700);
        found.extend(part.problems);
        let Some(next) = part.next else { break };
        after = format!("&after={next}");
    }
    assert!(found.iter().zip(found.iter().skip(1)).all(|(a, b)| a.path < b.path), "in order, each once");
    assert_eq!(found.iter().filter(|file| file.state == FileState::Fuzzy).count(), 1);
    found.len()
}

#[test]
fn a_question_for_what_is_missing_that_makes_no_sense_is_refused() {
    let world = World::new();
    let id = mixed(&world);
    let wire = world.wire();
    let refused =
        |query: &str| wire.send("GET", &format!("/v1/snapshots/{id}/problems{query}"), b"").refusal();

    assert_eq!(refused(""), (400, "bad_query".to_owned()));
    assert_eq!(refused("?node=n&limit=many"), (400, "bad_query".to_owned()));
    assert_eq!(refused("?node=n&after=../x"), (400, "bad_query".to_owned()));
    assert_eq!(refused("?node=a%20b"), (400, "bad_id".to_owned()));
    assert_eq!(refused("?node=m"), (404, "no_such_node".to_owned()));
}

/// A list is of what was named, and a name without snapshots is an error that names others.
#[test]
fn a_list_is_of_the_node_that_is_named() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let (one, two) = (world.node("one"), world.node("two"));
    let first = text(&one.push(&root), "snapshot");
    two.push(&root);

    let of_one = two.run(["list", "--json", "--node", "one"]).exits(0).json();
    let of_all = two.snapshot_ids();
    let no_node = two.run(["list", "--json", "--node", "three"]).exits(10).json();
    let no_cluster = two.run(["list", "--json", "--cluster", "typo"]).exits(10).json();
    let unused = world.node_of("new", "n").run(["list", "--json"]).exits(0).json();

    assert_eq!((of_one.as_array().unwrap().len(), text(&of_one[0], "id")), (1, first));
    assert_eq!(of_all.len(), 2, "the node of the environment is no filter");
    assert!(text(&no_node["error"], "message").ends_with("snapshots: one, two"), "{no_node}");
    assert!(text(&no_cluster["error"], "message").ends_with("snapshots: c"), "{no_cluster}");
    assert_eq!(unused, json!([]), "a cluster of the settings may have none yet");
}

/// A node that somebody wrote down is the one that is meant, also by the environment.
#[test]
fn a_node_of_the_environment_is_the_one_that_is_restored_and_verified() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let (one, two) = (world.node("one"), world.node("two"));
    let of_one = text(&one.push(&root), "snapshot");
    let of_two = text(&two.push(&root), "snapshot");

    for (node, id) in [(&one, &of_one), (&two, &of_two)] {
        let verified = node.run(["verify", "latest", "--json"]).exits(0).json();
        let restored = node.restore("latest", &world.path(id), &[]).exits(0).json();
        assert_eq!((&text(&verified, "snapshot"), &text(&restored, "snapshot")), (id, id));
    }
    let nobody = world.node("three");
    nobody.run(["verify", "latest"]).exits(10);
    nobody.restore("latest", &world.path("none"), &[]).exits(10);
    assert!(!world.path("none").exists());
}

/// A mistyped cluster must not look like an empty repository.
#[test]
fn a_cluster_without_snapshots_is_not_found_by_any_command() {
    let world = World::new();
    let node = world.node("one");
    node.push(&world.dir("source"));
    let elsewhere = ["--cluster", "nosuch"];

    let to = world.path("restored");
    let asked = [
        node.run([&["list"][..], &elsewhere].concat()),
        node.run([&["verify", "latest"][..], &elsewhere].concat()),
        node.restore("latest", &to, &elsewhere),
        node.admin(&[&["snapshots"][..], &elsewhere].concat()),
        node.admin(&[&["stats"][..], &elsewhere].concat()),
        node.admin(&[&["last", "nosuch"][..]].concat()),
        node.admin(&[&["forget", "--dry-run"][..], &elsewhere].concat()),
    ];

    for done in asked {
        let done = done.exits(10);
        assert!(done.stderr.contains("nosuch"), "{done:?}");
    }
    assert!(!to.exists());
}
