//! Restores return the pushed files: all of them, or the chosen part.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, XattrFlags};
use tests::client::{Client, number, text};
use tests::compare::{assert_same, differences};
use tests::corpus;
use tests::gear;
use tests::loop_image::{FileSystem, LoopImage};
use tests::seed::Random;
use tests::wait;
use tests::world::{Folder, World, restored};

/// A pushed tree: its folder, and the node that it was pushed from.
fn pushed(world: &World) -> (PathBuf, Client) {
    let root = world.path("source");
    corpus::mixed(&root, &mut Random::printed());
    let node = world.node("n");
    node.push(&root);
    (root, node)
}

/// Names below `folder`, sorted.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// S1, C2: everything that a file system can hold comes back as it was.
#[test]
fn everything_that_a_file_system_holds_comes_back() {
    let world = World::new();
    let (root, node) = pushed(&world);
    let to = world.path("restored");

    let report = node.restore("latest", &to, &[]).exits(0).json();

    assert_same(&root, &restored(&to, &root));
    assert_eq!(text(&report, "state"), "complete");
    assert_eq!(report["skipped"], serde_json::json!([]));
}

/// Content that compresses a hundredfold fits into one body, and is more than a server inflates at once.
#[test]
fn content_that_compresses_very_well_is_sent_in_several_bodies() {
    let world = World::new();
    let root = world.dir("source");
    let mut content = vec![0; 80 << 20];
    for (n, block) in (0_u64..).zip(content.chunks_mut(4096)) {
        block[..8].copy_from_slice(&n.to_le_bytes());
    }
    fs::write(root.join("file"), content).unwrap();
    let node = world.node("n");

    let report = node.push_with(&root, &["--jobs", "1"]);

    assert!(number(&report, "bytes_sent") < 8 << 20, "all of it would fit into one body: {report}");
    node.run(["verify", "latest"]).exits(0);
}

#[test]
fn with_strip_root_the_content_lies_in_the_target_itself() {
    let world = World::new();
    let (root, node) = pushed(&world);
    let to = world.path("restored");

    node.restore("latest", &to, &["--strip-root"]).exits(0);

    assert_eq!(names(&to), names(&root));
    assert_same(&root, &to);
}

#[test]
fn only_what_a_path_pattern_matches_is_restored() {
    let world = World::new();
    let (root, node) = pushed(&world);
    let (by_name, by_path) = (world.path("by-name"), world.path("by-path"));

    node.restore("latest", &by_name, &["--strip-root", "--path", "*.txt"]).exits(0);
    let pattern = format!("{}/small/1*", root.display());
    node.restore("latest", &by_path, &["--strip-root", "--path", &pattern, "--path", "sub"]).exits(0);

    assert_eq!(names(&by_name), ["log.txt", "order.txt"]);
    assert_eq!(fs::read(by_name.join("log.txt")).unwrap(), fs::read(root.join("log.txt")).unwrap());
    assert_eq!(names(&by_path), ["small", "sub"]);
    assert_eq!(names(&by_path.join("sub")), ["twin-b"]);
    let ones = names(&root.join("small")).into_iter().filter(|name| name.starts_with('1'));
    assert_eq!(names(&by_path.join("small")), ones.collect::<Vec<_>>());
}

#[test]
fn a_pattern_that_matches_nothing_is_told_as_not_found() {
    let world = World::new();
    let (_, node) = pushed(&world);

    node.restore("latest", &world.path("restored"), &["--path", "no-such-name"]).exits(10);
}

#[test]
fn a_hard_link_whose_file_was_not_asked_for_comes_back_with_its_content() {
    let world = World::new();
    let (root, node) = pushed(&world);
    let to = world.path("restored");

    node.restore("latest", &to, &["--strip-root", "--path", "hard-c"]).exits(0);

    let linked = fs::read(to.join("small/hard-c")).unwrap();
    assert_eq!(linked, fs::read(root.join("links/hard-a")).unwrap());
}

#[test]
fn each_node_gets_its_own_files_back() {
    let world = World::new();
    let (one, two) = (world.dir("one"), world.dir("two"));
    fs::write(one.join("file"), "of one").unwrap();
    fs::write(two.join("file"), "of two").unwrap();
    let (node_one, node_two) = (world.node("one"), world.node("two"));
    node_one.push(&one);
    node_two.push(&two);

    node_one.restore("latest", &world.path("own"), &["--strip-root"]).exits(0);
    node_one.restore("latest", &world.path("other"), &["--strip-root", "--node", "two"]).exits(0);
    let missing = node_one.restore("latest", &world.path("none"), &["--node", "three"]);

    assert_same(&one, &world.path("own"));
    assert_same(&two, &world.path("other"));
    missing.exits(10);
}

/// C3: a folder that holds something is not touched.
#[test]
fn a_target_that_is_not_empty_is_refused_and_stays_as_it_was() {
    let world = World::new();
    let (_, node) = pushed(&world);
    let target = world.dir("target");
    fs::write(target.join("mine"), "do not touch").unwrap();
    corpus::copy(&target, &world.path("before"));

    let refused = node.restore("latest", &target, &[]).exits(2);

    assert!(refused.stderr.contains("target"), "{}", refused.stderr);
    assert_same(&world.path("before"), &target);
}

#[test]
fn a_target_that_is_not_empty_takes_the_files_when_told_to() {
    let world = World::new();
    let (root, node) = pushed(&world);
    let target = world.dir("target");
    fs::write(target.join("mine"), "stays").unwrap();
    fs::write(target.join("log.txt"), "is replaced").unwrap();

    node.restore("latest", &target, &["--strip-root", "--into-existing"]).exits(0);

    assert_eq!(fs::read(target.join("mine")).unwrap(), b"stays");
    let differ = differences(&root, &target);
    // The target keeps what it had.
    let only_mine = |difference: &String| ["\"mine\"", "\".\""].iter().any(|own| difference.starts_with(own));
    assert!(differ.iter().all(only_mine), "{differ:#?}");
}

/// C3: a symbolic link that lies in the target already leads nowhere.
#[test]
fn a_symbolic_link_in_the_target_is_never_followed() {
    let world = World::new();
    let (_, node) = pushed(&world);
    let (target, outside) = (world.dir("target"), world.dir("outside"));
    std::os::unix::fs::symlink(&outside, target.join("small")).unwrap();

    let done = node.restore("latest", &target, &["--strip-root", "--into-existing"]);

    assert_eq!(names(&outside), Vec::<String>::new(), "{done:?}");
}

#[test]
fn latest_is_the_newest_and_an_older_one_is_found_by_its_id() {
    let world = World::new();
    let root = world.dir("source");
    let node = world.node("n");
    fs::write(root.join("file"), "old").unwrap();
    let old = text(&node.push(&root), "snapshot");
    corpus::copy(&root, &world.path("old"));
    fs::write(root.join("file"), "new and longer").unwrap();
    node.push(&root);

    node.restore("latest", &world.path("a"), &["--strip-root"]).exits(0);
    node.restore(&old, &world.path("b"), &["--strip-root"]).exits(0);

    assert_same(&root, &world.path("a"));
    assert_same(&world.path("old"), &world.path("b"));
}

#[test]
fn several_roots_lie_beside_each_other_and_only_one_of_them_can_be_stripped() {
    let world = World::new();
    let (one, two) = (world.dir("one"), world.dir("two"));
    fs::write(one.join("file"), "1").unwrap();
    fs::write(two.join("file"), "2").unwrap();
    let node = world.node("n");
    let roots = [Path::new("push"), &two, &one];
    node.run(roots).exits(0);

    let to = world.path("restored");
    node.restore("latest", &to, &[]).exits(0);
    let stripped = node.restore("latest", &world.path("stripped"), &["--strip-root"]);

    assert_same(&one, &restored(&to, &one));
    assert_same(&two, &restored(&to, &two));
    stripped.exits(2);
}

/// C3: no device, pipe or socket is ever made by a restore.
#[test]
fn pipes_and_sockets_are_passed_over_and_counted() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    rustix::fs::mkfifoat(CWD, root.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let node = world.node("n");

    let report = node.push(&root);
    node.restore("latest", &world.path("restored"), &["--strip-root"]).exits(0);

    assert_eq!(number(&report, "skipped"), 2);
    assert_eq!(text(&report, "state"), "complete");
    assert_eq!(names(&world.path("restored")), ["file"]);
}

/// C4: a push changes nothing in the folders that it reads, not even a time.
#[test]
fn a_push_leaves_its_source_as_it_was() {
    let world = World::new();
    let root = world.path("source");
    corpus::mixed(&root, &mut Random::printed());
    corpus::copy(&root, &world.path("before"));

    world.node("n").push(&root);

    assert_same(&world.path("before"), &root);
}

/// C1: a push that runs while its files change ends, and what it kept of each file is a state that
/// the file has had.
#[test]
fn files_that_grow_during_a_push_come_back_as_a_prefix_of_what_they_became() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    corpus::plain(&root, &mut random, 20, 2_000_000);
    let node = world.node("n");

    let running = node.start_push(&root);
    let done = wait::for_state("the push to end", || {
        let path = root.join(format!("file-{}", random.index(20)));
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(random.text(1000));
        fs::write(&path, &bytes).unwrap();
        running.within(std::time::Duration::ZERO)
    });
    // A file that was found shorter than it was is a problem, and never a short file.
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    let to = world.path("restored");
    let restored_all = node.restore("latest", &to, &["--strip-root", "--allow-partial"]);

    assert_eq!(restored_all.code, done.code, "{restored_all:?}");
    for name in names(&to) {
        let (then, now) = (fs::read(to.join(&name)).unwrap(), fs::read(root.join(&name)).unwrap());
        assert!(now.starts_with(&then), "{name} is not a prefix of what it became");
    }
}

/// C7: an interrupted push says so, and leaves no snapshot.
#[test]
fn an_interrupted_push_exits_with_130_and_leaves_no_snapshot() {
    let world = World::new();
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 60, 4_000_000);
    let node = world.node("n");
    let wire = world.wire();

    let running = node.start_push(&root);
    wait::for_state("the push to have a session", || (wire.status().open_sessions > 0).then_some(()));
    running.interrupt();
    let done = running.wait();

    done.exits(130);
    assert_eq!(node.snapshot_ids(), Vec::<String>::new());
    node.push(&root);
}

/// S11: a file that is named is a root; what lies in another root is a part of that, and said.
#[test]
fn a_file_that_is_named_comes_back_and_what_is_named_twice_is_pushed_once() {
    let world = World::new();
    let top = world.path("top");
    fs::create_dir_all(top.join("data")).unwrap();
    for name in ["hosts", "other", "data/file"] {
        fs::write(top.join(name), name).unwrap();
    }
    let node = world.node("n");
    let (hosts, inner) = (top.join("hosts"), top.join("data/file"));

    let both = node.push_with(&top.join("data"), &[hosts.to_str().unwrap(), inner.to_str().unwrap()]);
    let again = node.push_with(&hosts, &[top.join("data").to_str().unwrap()]);
    let file = node.push_with(&hosts, &[]);

    assert_eq!(
        (number(&both, "files"), number(&again, "files"), number(&again, "new")),
        (2, 2, 0),
        "the same series"
    );
    let told = both["warnings"].to_string();
    assert!(told.contains("data/file` is a part of"), "{told}");
    let to = world.path("restored");
    node.restore(&text(&both, "snapshot"), &to, &[]).exits(0);
    assert_eq!(names(&restored(&to, &top)), ["data", "hosts"]);
    let to = world.path("stripped");
    node.restore(&text(&file, "snapshot"), &to, &["--strip-root"]).exits(0);
    assert_eq!(
        (names(&to), fs::read(to.join("hosts")).unwrap()),
        (vec!["hosts".to_owned()], b"hosts".to_vec())
    );
}

/// Patterns for all that lies beside `path`, whatever comes there while the test runs.
fn all_but(path: &Path) -> Vec<String> {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let cut = |at: usize| format!("{folder}/{}", &name[..at]);
    let others = (0..name.len()).map(|at| format!("{}[!{}]*", cut(at), &name[at..=at]));
    let shorter = (1..name.len()).map(cut);
    others.chain(shorter).chain([format!("{folder}/{name}?*")]).collect()
}

/// All of a machine is one root.
#[test]
fn the_top_of_the_tree_is_a_root() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(source.join("folder")).unwrap();
    fs::write(source.join("folder/file"), "content").unwrap();
    let on_the_way = source.ancestors().filter(|folder| *folder != Path::new("/"));
    let excludes: Vec<String> =
        on_the_way.flat_map(all_but).flat_map(|glob| ["--exclude".to_owned(), glob]).collect();
    let more: Vec<&str> = excludes.iter().map(String::as_str).collect();
    let node = world.node("n");

    let first = node.push_with(Path::new("/"), &more);
    let second = node.push_with(Path::new("/"), &more);

    assert_eq!((number(&first, "files"), number(&second, "new")), (1, 0));
    assert_eq!(text(&first, "state"), "complete");
    let to = world.path("restored");
    node.restore("latest", &to, &["--series", "/"]).exits(0);
    assert_same(&source, &restored(&to, &source));
    let to = world.path("stripped");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    assert_same(&source, &restored(&to, &source));
    node.run(["verify", "latest"]).exits(0);
}

/// Attributes that only root may read and write are restored for root.
#[test]
fn trusted_attributes_come_back_to_root() {
    let world = World::new();
    let root = world.dir("source");
    let file = root.join("file");
    fs::write(&file, "content").unwrap();
    let names = ["trusted.overlay.origin", "user.plain"];
    for name in names {
        if let Err(error) = rustix::fs::setxattr(&file, name, b"value", XattrFlags::empty()) {
            gear::skip(&format!("`{name}` cannot be set here: {error}"));
            return;
        }
    }
    let node = world.node("n");
    node.push(&root);
    let to = world.path("restored");

    let report = node.restore("latest", &to, &["--strip-root"]).exits(0).json();

    assert_eq!(number(&report["not_set"], "attributes"), 0, "{report}");
    for name in names {
        let mut value = [0; 16];
        let len = rustix::fs::getxattr(to.join("file"), name, &mut value[..]).unwrap();
        assert_eq!(&value[..len], b"value", "{name}");
    }
}

/// More attributes than a snapshot takes of a name cost the attributes, and not the file.
#[test]
fn attributes_over_the_limit_are_told_of_a_file_that_is_restored() {
    let world = World::new();
    let folder = Folder::new();
    let Some(image) = LoopImage::make(FileSystem::Xfs, &folder, "attributes") else { return };
    let root = image.path().join("source");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "content").unwrap();
    for n in 0..9 {
        let name = format!("user.long-{n}");
        rustix::fs::setxattr(root.join("file"), name, &[b'x'; 65_536], XattrFlags::empty()).unwrap();
    }
    let node = world.node("n");

    let pushed = node.start_push(&root).wait().exits(3).json();
    let to = world.path("restored");
    let more = ["--strip-root", "--allow-partial"];
    let restored = node.restore("latest", &to, &more).exits(3).json();

    assert!(pushed["problems"][0]["reason"].as_str().unwrap().contains("extended attributes"), "{pushed}");
    let incomplete = restored["incomplete"].as_array().unwrap();
    assert_eq!((incomplete.len(), &restored["skipped"]), (1, &serde_json::json!([])), "{restored}");
    assert_eq!(fs::read(to.join("file")).unwrap(), b"content");
}
