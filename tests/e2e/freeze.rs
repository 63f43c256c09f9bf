//! Second names: what they keep, where they cannot be had, and that nothing is left of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tests::client::{Client, Running, number, text};
use tests::compare::assert_same;
use tests::corpus::{self, set_time};
use tests::gear;
use tests::mount::Tmpfs;
use tests::seed::Random;
use tests::wait;
use tests::world::{World, restored};

/// Name of the folder for second names.
const BASE: &str = ".astacus";

fn small_tree(root: &Path, files: usize) {
    fs::create_dir_all(root).unwrap();
    for n in 0..files {
        fs::write(root.join(format!("file-{n}")), format!("content of {n}")).unwrap();
    }
}

/// Reasons and files of the fallbacks in a report.
fn fallbacks(report: &Value) -> Vec<(String, u64)> {
    let all = report["fallbacks"].as_array().unwrap();
    all.iter().map(|fallback| (text(fallback, "reason"), number(fallback, "files"))).collect()
}

/// Fails unless all `files` were read where they lie, for one reason, which has `words` in it.
#[track_caller]
fn assert_read_directly(report: &Value, files: u64, words: &str) {
    match fallbacks(report).as_slice() {
        [(reason, count)]
            if *count == files && reason.contains("read without protection") && reason.contains(words) => {}
        other => panic!("not {files} files that were not frozen ({words}): {other:?}"),
    }
}

fn changed_at(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.ctime(), meta.ctime_nsec())
}

#[track_caller]
fn assert_restores(world: &World, node: &Client, root: &Path) {
    let to = world.path("restored");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    assert_same(root, &to);
    fs::remove_dir_all(&to).unwrap();
}

/// Where the second names of a node's pushes lie: with what it remembers.
fn base(node: &Client) -> PathBuf {
    node.home().join("state").join(BASE)
}

/// A push that takes its time, once all it will read has its second name.
fn slow_push(node: &Client, roots: &[&Path]) -> Running {
    slow_push_with(node, roots, &[])
}

fn slow_push_with(node: &Client, roots: &[&Path], more: &[&str]) -> Running {
    let file = roots[0].join("file-0");
    let names = || fs::metadata(&file).unwrap().nlink();
    let before = names();
    let push = node.start_push_of(roots, &[&["--max-rate", "256K"], more].concat());
    wait::for_state("the files to be frozen", || (names() > before).then_some(()));
    push
}

/// C4: what a push makes in a root goes with it, and the root's time tells nothing.
#[test]
fn a_push_leaves_no_trace_of_its_second_names() {
    let world = World::new();
    let root = world.path("source");
    small_tree(&root, 20);
    set_time(&root, 1_600_000_000, 123_456_789);
    corpus::copy(&root, &world.path("before"));
    let node = world.node("n");

    for _ in 0..2 {
        node.push(&root);

        assert!(!root.join(BASE).exists() && !base(&node).exists() && !world.path(BASE).exists());
        assert_same(&world.path("before"), &root);
        assert_eq!(fs::metadata(root.join("file-0")).unwrap().nlink(), 1);
        fs::write(root.join("file-0"), "changed").unwrap();
        fs::write(world.path("before/file-0"), "changed").unwrap();
        corpus::set_time(&root.join("file-0"), 1_700_000_000, 5);
        corpus::set_time(&world.path("before/file-0"), 1_700_000_000, 5);
    }
}

/// S1: data that has the name of our folder is data.
#[test]
fn a_users_own_folder_of_that_name_is_backed_up_and_nothing_is_made_in_it() {
    let world = World::new();
    let root = world.path("source");
    small_tree(&root, 3);
    fs::create_dir(root.join(BASE)).unwrap();
    fs::write(root.join(BASE).join("mine"), "mine").unwrap();
    corpus::copy(&root, &world.path("before"));
    let node = world.node("n");

    let report = node.push(&root);

    assert_eq!((fallbacks(&report), number(&report, "files")), (vec![], 4));
    assert_same(&world.path("before"), &root);
    assert_restores(&world, &node, &root);
}

/// Without a freeze no file gets a name; with one each does, or this test would see nothing.
#[test]
fn with_freeze_none_no_link_is_made() {
    let world = World::new();
    let root = world.path("source");
    small_tree(&root, 5);
    let node = world.node("n");
    let times = || (0..5).map(|n| changed_at(&root.join(format!("file-{n}")))).collect::<Vec<_>>();
    let before = times();
    let root_before = changed_at(&root);

    let direct = node.push_with(&root, &["--freeze", "none"]);
    let after_direct = times();
    assert_eq!(changed_at(&root), root_before);
    world.node("other").push(&root);

    assert_eq!(after_direct, before);
    assert_eq!(fallbacks(&direct), []);
    assert!(times().iter().zip(&before).all(|(now, then)| now != then));
    assert_restores(&world, &node, &root);
}

#[test]
fn a_chosen_folder_on_the_same_file_system_is_used_in_place_of_one_in_the_root() {
    let world = World::new();
    let root = world.path("source");
    small_tree(&root, 5);
    let dir = world.dir("names");
    let node = world.node("n");
    let (root_before, file_before) = (changed_at(&root), changed_at(&root.join("file-0")));

    let report = node.push_with(&root, &["--freeze-dir", dir.to_str().unwrap()]);

    assert_eq!(fallbacks(&report), []);
    assert_eq!(changed_at(&root), root_before, "something was made in the root");
    assert_ne!(changed_at(&root.join("file-0")), file_before, "the file was not linked");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert_restores(&world, &node, &root);
}

#[test]
fn a_chosen_folder_on_another_file_system_is_of_no_use_and_that_is_told() {
    let world = World::new();
    let root = world.path("source");
    small_tree(&root, 5);
    let other = Path::new("/dev/shm");
    let dev = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    if dev(other).is_none() || dev(other) == dev(&root) {
        gear::skip("/dev/shm is no file system of its own");
        return;
    }
    let Ok(dir) = tempfile::tempdir_in(other) else {
        gear::skip("/dev/shm cannot be written");
        return;
    };
    let node = world.node("n");

    let report = node.push_with(&root, &["--freeze-dir", dir.path().to_str().unwrap()]);

    assert_read_directly(&report, 5, "another file system");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_restores(&world, &node, &root);
}

/// C7: what cannot be meant is refused before anything is sent: no server is needed to be told so.
#[test]
fn roots_and_folders_that_make_no_sense_are_refused_before_a_session_is_opened() {
    let world = World::new();
    let root = world.path("source");
    small_tree(&root.join("inner"), 2);
    let (gone, pipe, used) = (world.path("gone"), root.join("inner/pipe"), world.path("used"));
    mkfifoat(CWD, &pipe, Mode::RUSR).unwrap();
    small_tree(&used, 1);
    let token = || world.wire().open_session("c", "other", None).fencing_token;
    let before = token();
    let inner = root.join("inner");
    let freeze_dir = |dir: &Path| ["--freeze-dir".to_owned(), dir.to_str().unwrap().to_owned()];
    let both = ["--require-freeze", "--freeze", "none"].map(str::to_owned).to_vec();
    let cases: [(i32, &[&Path], Vec<String>); 6] = [
        (2, &[&inner], both),
        (10, &[&gone], vec![]),
        (2, &[&pipe], vec![]),
        (10, &[&inner], freeze_dir(&gone).to_vec()),
        (2, &[&inner], freeze_dir(&root).to_vec()),
        (2, &[&inner], freeze_dir(&used).to_vec()),
    ];
    for (code, roots, more) in &cases {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        for node in [world.node("n"), world.node("n").at("http://127.0.0.1:1")] {
            let done = node.start_push_of(roots, &more).wait();

            assert_eq!(done.code, Some(*code), "{roots:?} {more:?}: {done:?}");
            assert_eq!(done.json()["error"]["exit_code"], *code);
        }
    }

    assert_eq!(token(), before + 1, "a session was opened in between");
    assert_eq!(world.wire().status().snapshots, 0);
}

#[test]
fn a_root_that_cannot_be_written_is_read_directly_and_that_is_told() {
    let world = World::new();
    let root = world.dir("source");
    let Some(disk) = Tmpfs::mount(root.clone(), "size=10m") else { return };
    small_tree(&root, 5);
    disk.make_read_only();
    let node = world.node("n");

    let report = node.push(&root);
    let again = node.push(&root);

    assert_read_directly(&report, 5, "Read-only file system");
    assert_eq!(number(&again, "files"), 5);
    assert_restores(&world, &node, &root);
}

/// A node whose client runs as a user who may do nothing special; `None`, said aloud, where that
/// cannot be had.
fn nobody(world: &World) -> Option<Client> {
    const NOBODY: u32 = 65_534;
    if !gear::is_root() {
        gear::skip("only root can run a program as another user");
        return None;
    }
    if !gear::has("setpriv") {
        return None;
    }
    let node = world.node("nobody");
    let token = world.path("token");
    fs::write(&token, world.server.token()).unwrap();
    for path in [&token, node.home()] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let node = node.with_token_file(&token).wrapped(&as_nobody);
    let starts = node.run(["--version"]).code == Some(0);
    if !starts {
        gear::skip("the programs are where other users cannot run them");
    }
    starts.then_some(node)
}

/// The kernel lets nobody link the files of others that they may only read.
#[test]
fn files_of_other_users_are_read_directly_and_that_is_told() {
    let world = World::new();
    let Some(node) = nobody(&world) else { return };
    if fs::read_to_string("/proc/sys/fs/protected_hardlinks").is_ok_and(|value| value.trim() == "0") {
        gear::skip("this machine does not protect hard links");
        return;
    }
    let root = world.path("source");
    small_tree(&root, 5);
    let owner = fs::metadata(node.home()).unwrap().uid();
    chown(&root, Some(owner), None).unwrap();
    chown(root.join("file-0"), Some(owner), None).unwrap();

    let report = node.push(&root);

    assert_read_directly(&report, 4, "not permitted");
    assert!(!root.join(BASE).exists());
    assert_restores(&world, &node.wrapped(&[]), &root);
}

#[test]
fn a_folder_of_another_user_is_read_directly_and_that_is_told() {
    let world = World::new();
    let Some(node) = nobody(&world) else { return };
    let root = world.path("source");
    small_tree(&root, 5);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();

    let report = node.push(&root);

    assert_read_directly(&report, 5, "not permitted");
    assert_restores(&world, &node.wrapped(&[]), &root);
}

/// Where there is room for no more names, a push that went on would read files that nothing keeps.
#[test]
fn a_disk_with_no_room_for_names_ends_the_push_and_leaves_nothing_behind() {
    let world = World::new();
    let root = world.dir("source");
    // A link takes an inode there: room for the files, the folders for names, and half of the names.
    let Some(_disk) = Tmpfs::mount(root.clone(), "size=10m,nr_inodes=70") else { return };
    small_tree(&root, 40);
    let node = world.node("n");

    let refused = node.start_push_of(&[&root], &[]).wait().exits(14);

    assert!(refused.stderr.contains(root.join(BASE).to_str().unwrap()), "{}", refused.stderr);
    assert!(refused.stderr.contains("No space left"), "{}", refused.stderr);
    assert!(!root.join(BASE).exists());
    assert_eq!(world.wire().status().open_sessions, 0);
    let report = node.push_with(&root, &["--freeze", "none"]);
    assert_eq!(number(&report, "files"), 40);
}

/// Roots `a` and `b` with a few files that take a slow push its time.
fn two_roots(world: &World) -> [PathBuf; 2] {
    let mut random = Random::printed();
    ["a", "b"].map(|name| {
        let root = world.dir(name);
        for n in 0..3 {
            let file = root.join(format!("file-{n}"));
            fs::write(&file, random.bytes(400_000)).unwrap();
            set_time(&file, 1_600_000_000, 1);
        }
        root
    })
}

/// Fails unless the root has no second names any more, and its files no other name.
#[track_caller]
fn assert_clean(root: &Path) {
    assert!(!root.join(BASE).exists());
    for entry in fs::read_dir(root).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().nlink(), 1);
    }
}

/// C4: the second names of a push that was killed are no data, and go with the next push of its folders.
#[test]
fn what_a_killed_push_left_is_taken_over_by_the_next_one() {
    let world = World::new();
    let [root, _] = two_roots(&world);
    let node = world.node("n");
    slow_push(&node, &[&root]).kill();
    assert!(base(&node).is_dir(), "the kill came too late");
    assert!(!root.join(BASE).exists(), "the owner of the files sees second names");
    fs::remove_file(root.join("file-1")).unwrap();

    let report = node.push(&root);

    assert_eq!((number(&report, "files"), number(&report, "folders")), (2, 1), "{report}");
    assert_eq!(fallbacks(&report), []);
    assert_clean(&root);
    assert_restores(&world, &node, &root);
    assert_eq!(number(&node.push(&root), "bytes_read"), 0);
}

/// C4: and with any other push that meets them, wherever that has its own.
#[test]
fn what_a_killed_push_left_is_removed_by_pushes_of_other_folders_and_of_other_modes() {
    let world = World::new();
    let [first, second] = two_roots(&world);
    let node = world.node("n");
    for (killed, more) in [(&first, &[][..]), (&second, &[]), (&second, &["--freeze", "none"])] {
        // Without a memory, second names lie in the folder above.
        slow_push_with(&world.node_of("other", "n"), &[killed], &["--no-state"]).kill();
        assert!(world.path(BASE).is_dir(), "the kill came too late");

        let report = node.start_push_of(&[&first, &second], more).wait().exits(0).json();

        assert_eq!((number(&report, "files"), number(&report, "folders")), (6, 2), "{report}");
        assert_clean(&first);
        assert_clean(&second);
        assert!(!world.path(BASE).exists());
    }
    let to = world.path("restored");
    node.restore("latest", &to, &[]).exits(0);
    assert_same(&first, &restored(&to, &first));
    assert_same(&second, &restored(&to, &second));
}

/// C1: a push that meets another one leaves the other's names alone, and both are right.
#[test]
fn two_pushes_that_share_a_root_keep_their_names_apart() {
    let world = World::new();
    let [root, other] = two_roots(&world);
    // The nodes are in two clusters: in one cluster, the fast push would wait for chunks that the slow one
    // has promised.
    let (slow, fast) = (world.node("slow"), world.node_of("other", "fast"));
    let push = slow_push_with(&slow, &[&root], &["--no-state"]);

    let both = fast.start_push_of(&[&root, &other], &["--no-state"]).wait().exits(0).json();
    assert!(push.within(std::time::Duration::ZERO).is_none(), "the slow push was over too soon");
    assert!(world.path(BASE).is_dir(), "the fast push has removed what the slow one needs");
    let one = push.wait().exits(0).json();

    assert_eq!((number(&both, "files"), number(&one, "files")), (6, 3));
    assert_clean(&root);
    let to = world.path("of-fast");
    fast.restore("latest", &to, &[]).exits(0);
    assert_same(&root, &restored(&to, &root));
    assert_same(&other, &restored(&to, &other));
    assert_restores(&world, &slow, &root);
}

/// C1: files whose names go, or come to stand for others, while a push is at work are in its snapshot as they
/// were frozen; one that was written in place meanwhile is there as it was then.
#[test]
fn files_that_change_after_the_freeze_come_back_as_one_of_their_states() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    // The first fills all queues of the push, so that the others are read when it is half sent.
    fs::write(root.join("file-0"), random.bytes(90_000_000)).unwrap();
    for name in ["goes", "grows", "gets-a-link", "gets-a-mode", "is-replaced", "is-rewritten"] {
        fs::write(root.join(name), random.bytes(700_000)).unwrap();
    }
    corpus::copy(&root, &world.path("before"));
    let node = world.node("n");
    let names = || fs::metadata(root.join("is-rewritten")).unwrap().nlink();
    let push = node.start_push_of(&[&root], &["--max-rate", "16M"]);
    wait::for_state("the last file to be frozen", || (names() > 1).then_some(()));

    fs::remove_file(root.join("goes")).unwrap();
    fs::write(world.path("new"), random.bytes(700_000)).unwrap();
    rustix::fs::rename(world.path("new"), root.join("is-replaced")).unwrap();
    // The file is not trusted as a log: its old length would belong to another state.
    let more = random.bytes(10_000);
    for grows in [root.join("grows"), world.path("before/grows")] {
        fs::OpenOptions::new().append(true).open(grows).unwrap().write_all(&more).unwrap();
    }
    fs::hard_link(root.join("gets-a-link"), world.path("link")).unwrap();
    fs::set_permissions(root.join("gets-a-mode"), fs::Permissions::from_mode(0o600)).unwrap();
    let rewritten = random.bytes(700_000);
    fs::write(world.path("before/is-rewritten"), &rewritten).unwrap();
    let in_place = fs::OpenOptions::new().write(true).open(root.join("is-rewritten")).unwrap();
    in_place.write_all_at(&rewritten, 0).unwrap();
    let report = push.wait().exits(0).json();

    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(number(&report["moment"], "moved_on"), 2, "{report}");
    let to = world.path("as-frozen");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    for entry in fs::read_dir(world.path("before")).unwrap() {
        let name = entry.unwrap().file_name();
        let (then, now) = (world.path("before").join(&name), to.join(&name));
        assert!(fs::read(then).unwrap() == fs::read(now).unwrap(), "{name:?} is not as it should be");
    }
    let next = node.push(&root);
    assert_eq!(number(&next, "gone"), 1, "{next}");
    assert_restores(&world, &node, &root);
}

/// Second names are no way around the mode of a folder that holds files.
#[test]
fn the_folder_of_second_names_is_open_to_its_owner_only() {
    let world = World::new();
    let [root, _] = two_roots(&world);
    let node = world.node("n");

    let push = slow_push(&node, &[&root]);
    let mode = fs::metadata(base(&node)).unwrap().mode() & 0o777;
    push.interrupt();

    push.wait().exits(130);
    assert_eq!(mode, 0o700);
    assert_clean(&root);
}

/// C4: a terminal that is closed leaves nothing behind, and signals that other programs take for their own do nothing.
#[test]
fn a_push_that_is_hung_up_tidies_up_and_outlives_user_signals() {
    let world = World::new();
    let [root, _] = two_roots(&world);
    let node = world.node("n");

    let push = slow_push(&node, &[&root]);
    kill_process(push.pid(), Signal::USR1).unwrap();
    kill_process(push.pid(), Signal::USR2).unwrap();
    kill_process(push.pid(), Signal::HUP).unwrap();

    push.wait().exits(130);
    assert_clean(&root);
    assert!(!base(&node).exists());
}

/// C4: what a kill leaves is removed without another push, by the command that a unit runs when it stops.
#[test]
fn tidying_removes_what_a_killed_push_left_and_spares_a_living_one() {
    let world = World::new();
    let [root, other] = two_roots(&world);
    let node = world.node("n");
    let tidy = |more: &[&str]| node.run([&["tidy", "--json"], more].concat()).exits(0).json();
    slow_push(&node, &[&root]).kill();
    let living = slow_push_with(&node, &[&other], &["--no-state"]);

    let tidied = tidy(&[root.to_str().unwrap(), other.to_str().unwrap()]);

    assert_eq!(tidied["removed"], serde_json::json!([base(&node)]), "{tidied}");
    assert_eq!(tidied["in_use"], serde_json::json!([world.path(BASE)]), "{tidied}");
    assert_clean(&root);
    assert_eq!(fs::metadata(other.join("file-0")).unwrap().nlink(), 2, "a living push lost its second names");
    living.interrupt();
    living.wait().exits(130);
    assert_eq!(tidy(&[]), serde_json::json!({ "removed": [], "in_use": [], "left": [] }));
    let missing = node.run(["tidy", world.path("nowhere").to_str().unwrap()]);
    assert_eq!(missing.code, Some(10), "{missing:?}");
}

/// C4: where nothing else is on the file system of a root, second names are in it, and that is said.
#[test]
fn a_root_that_is_a_file_system_of_its_own_holds_its_second_names_and_that_is_told() {
    let world = World::new();
    let root = world.dir("source");
    let Some(_disk) = Tmpfs::mount(root.clone(), "size=10m") else { return };
    small_tree(&root, 3);
    let node = world.node("n");

    let done = node.start_push_of(&[&root], &[]).wait().exits(0);

    assert!(done.stderr.contains("--freeze-dir") && done.stderr.contains(root.join(BASE).to_str().unwrap()));
    assert_eq!(text(&done.json()["frozen"][0], "folder"), root.join(BASE).to_str().unwrap());
    assert!(!root.join(BASE).exists());
}

/// C13: a push that must freeze makes no snapshot where it cannot.
#[test]
fn a_push_that_must_freeze_makes_no_snapshot_where_it_cannot() {
    let world = World::new();
    let root = world.dir("source");
    let Some(disk) = Tmpfs::mount(root.clone(), "size=10m") else { return };
    small_tree(&root, 3);
    let node = world.node("n");
    node.start_push_of(&[&root], &["--require-freeze"]).wait().exits(0);
    disk.make_read_only();

    let refused = node.start_push_of(&[&root], &["--require-freeze", "--no-state"]).wait().exits(2);

    assert!(
        refused.stderr.contains("cannot be frozen") && refused.stderr.contains("file-0"),
        "{}",
        refused.stderr
    );
    assert_eq!((world.wire().status().snapshots, world.wire().status().open_sessions), (1, 0));
}
