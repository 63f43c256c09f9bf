//! Restores that meet what they cannot have: they go on, and name all of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::client::{Client, Done, number, run_to_end, text};
use tests::compare::assert_same;
use tests::gear;
use tests::loop_image::{FileSystem, LoopImage};
use tests::mount::{Bound, Tmpfs};
use tests::seed::Random;
use tests::world::{Folder, World, restored};

/// A node whose folder `source` was pushed.
fn pushed(world: &World, files: &[&str]) -> (Client, PathBuf) {
    let root = world.path("source");
    for name in files {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("{name}\n").repeat(100)).unwrap();
    }
    let node = world.node("n");
    node.push(&root);
    (node, root)
}

/// The same restore with its text.
fn told(node: &Client, to: &Path, more: &[&str]) -> Done {
    let mut command = node.command();
    command.args(["restore", "latest", "--strip-root", "--to"]).arg(to).args(more);
    run_to_end(command)
}

fn failed(report: &Value) -> Vec<(String, String)> {
    let names = report["failed"].as_array().unwrap().iter();
    names.map(|name| (text(name, "path"), text(name, "why"))).collect()
}

fn not_made(root: &Path, names: &[&str]) -> Vec<(String, String)> {
    let path = |name: &&str| root.join(name).strip_prefix("/").unwrap().to_str().unwrap().to_owned();
    names.iter().map(|name| (path(name), "not_made".to_owned())).collect()
}

/// C15: a folder where a file must come keeps nothing else from being restored.
#[test]
fn a_name_that_is_in_the_way_costs_one_file() {
    let world = World::new();
    let (node, root) = pushed(&world, &["a/1", "m/2", "z/3"]);
    let to = world.path("to");
    fs::create_dir_all(to.join("m/2/busy")).unwrap();

    let report = node.restore("latest", &to, &["--strip-root", "--into-existing"]).exits(3).json();
    let again = told(&node, &to, &["--into-existing", "--quiet"]).exits(3).stdout;

    assert_eq!(failed(&report), not_made(&root, &["m/2"]), "{report}");
    assert_eq!((number(&report, "not_made_count"), number(&report, "files")), (1, 2));
    for name in ["a/1", "z/3"] {
        assert_eq!(fs::read(to.join(name)).unwrap(), fs::read(root.join(name)).unwrap());
    }
    assert!(again.contains("NOT restored: ") && again.contains("source/m/2: "), "{again}");
}

/// C15: nor does a file that nobody may change.
#[test]
fn an_immutable_file_costs_one_file() {
    let world = World::new();
    let (node, root) = pushed(&world, &["a", "b", "c"]);
    let to = world.dir("to");
    fs::write(to.join("b"), "fixed").unwrap();
    let change = |flag: &str| {
        let done = Command::new("chattr").arg(flag).arg(to.join("b")).output();
        done.is_ok_and(|done| done.status.success())
    };
    if !gear::has("chattr") {
        return;
    }
    if !change("+i") {
        gear::skip("no file can be made immutable here");
        return;
    }

    let done = node.restore("latest", &to, &["--strip-root", "--into-existing"]);
    change("-i");

    let report = done.exits(3).json();
    assert_eq!(failed(&report), not_made(&root, &["b"]), "{report}");
    let names: Vec<_> = fs::read_dir(&to).unwrap().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "no temporary name is left: {names:?}");
    assert_eq!(fs::read(to.join("b")).unwrap(), b"fixed");
}

/// C15: nor do links and names that the target cannot have, as on vfat and exFAT; modes that it refuses are notes.
#[test]
fn a_target_without_links_modes_or_some_names_gets_all_else() {
    if !gear::has("strace") {
        return;
    }
    let world = World::new();
    let (node, root) = pushed(&world, &["a", "b:c", "d/e"]);
    symlink("a", root.join("link")).unwrap();
    node.push(&root);
    let refusing = |more: &[&str], to: &str| {
        let calls = "trace=symlinkat,fchmod,linkat";
        let strace = [&["strace", "-f", "-qq", "-o", "/dev/null", "-e", calls][..], more].concat();
        node.wrapped(&strace).restore("latest", &world.path(to), &["--strip-root"])
    };

    let no_links = ["-e", "inject=symlinkat:error=EPERM", "-e", "inject=fchmod:error=EPERM"];
    let no_links = refusing(&no_links, "no-links").exits(3).json();
    let no_colons = refusing(&["-P", "b:c", "-e", "inject=linkat:error=EINVAL"], "no-colons").exits(3).json();

    assert_eq!(failed(&no_links), not_made(&root, &["link"]), "{no_links}");
    assert_eq!((number(&no_links, "files"), number(&no_links["not_set"], "modes")), (3, 5), "{no_links}");
    assert_eq!(failed(&no_colons), not_made(&root, &["b:c"]), "{no_colons}");
    assert_eq!((number(&no_colons, "files"), number(&no_colons, "symlinks")), (2, 1), "{no_colons}");
    for name in ["a", "d/e"] {
        for to in ["no-links", "no-colons"] {
            assert_eq!(fs::read(world.path(to).join(name)).unwrap(), fs::read(root.join(name)).unwrap());
        }
    }
}

/// C16: of two names that the target takes for one, the first stays, and the second is named.
#[test]
fn names_that_the_target_takes_for_one_do_not_replace_each_other() {
    let world = World::new();
    let (node, root) = pushed(&world, &["Docs/x", "Readme", "docs/x", "other", "readme"]);
    let folder = Folder::new();
    let Some(image) = LoopImage::make(FileSystem::Ext4Folding, &folder, "folding") else { return };
    let to = image.path().join("to");
    fs::create_dir(&to).unwrap();
    let folds = Command::new("chattr").arg("+F").arg(&to).status();
    if !folds.is_ok_and(|done| done.success()) {
        gear::skip("no folder can be made to fold cases here");
        return;
    }

    let again = ["--strip-root", "--into-existing"];
    for more in [&again[..1], &again, &[&again[..], &["--delete"]].concat()] {
        let report = node.restore("latest", &to, more).exits(3).json();

        assert_eq!(failed(&report), not_made(&root, &["docs", "docs/x", "readme"]), "{report}");
        assert_eq!(fs::read(to.join("readme")).unwrap(), fs::read(root.join("Readme")).unwrap());
        assert_eq!(fs::read(to.join("docs/x")).unwrap(), fs::read(root.join("Docs/x")).unwrap());
    }
}

/// C16: the target, and folders on the way to what was asked for, keep mode, owner and time.
#[test]
fn a_shared_folder_keeps_its_mode_owner_and_time() {
    let world = World::new();
    let (node, root) = pushed(&world, &["one", "d/two"]);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    node.push(&root);
    let to = world.dir("shared");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o1777)).unwrap();
    let what = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec())
    };
    let before = what(&to);

    node.restore("latest", &to, &["--path", "one", "--strip-root", "--into-existing"]).exits(0);

    assert_eq!(what(&to), before);
    assert_eq!(fs::read(to.join("one")).unwrap(), fs::read(root.join("one")).unwrap());
}

/// C4, C15: what a restore that was killed left goes with the next, and is no data of a push.
#[test]
fn unfinished_files_of_a_killed_restore_are_removed_and_never_pushed() {
    let world = World::new();
    let (node, root) = pushed(&world, &["d/f"]);
    let to = world.path("to");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    let leftover = |folder: &Path, n| folder.join(format!(".astacus-tmp-0123456789abcdef-{n}"));
    fs::write(leftover(&to, 0), "half").unwrap();
    fs::write(leftover(&to.join("d"), 7), "half").unwrap();
    symlink("nowhere", leftover(&to.join("d"), 8)).unwrap();

    let push = node.start_push(&to).wait().exits(0).json();
    let of = root.to_str().unwrap();
    let restored = node.restore("latest", &to, &["--series", of, "--into-existing", "--strip-root"]).exits(0);

    assert_eq!((number(&push, "files"), number(&push, "symlinks")), (1, 0), "{push}");
    assert!(push["fallbacks"].to_string().contains("unfinished file of a restore"), "{push}");
    assert_eq!(number(&restored.json(), "leftovers_removed"), 3);
    assert_eq!(fs::read(to.join("d/f")).unwrap(), fs::read(root.join("d/f")).unwrap());
    assert!(!leftover(&to, 0).exists());
}

/// C17: the same in what people and programs read.
#[test]
fn a_mistyped_path_is_named_and_changes_the_exit_code() {
    let world = World::new();
    let (node, root) = pushed(&world, &["a/f", "b/g"]);
    let (good, bad) = (root.join("a"), root.join("mistyped"));
    let both = ["--path", good.to_str().unwrap(), "--path", bad.to_str().unwrap()];

    let report = node.restore("latest", &world.path("one"), &both).exits(3).json();
    let text = told(&node, &world.path("two"), &both).exits(3).stdout;
    node.restore("latest", &world.path("three"), &["--path", bad.to_str().unwrap()]).exits(10);

    assert_eq!(report["unmatched"], serde_json::json!([bad.to_str().unwrap()]), "{report}");
    assert!(text.contains("mistyped"), "{text}");
    assert_eq!(number(&report, "files"), 1);
}

/// C18: a restore that was cut short goes on, and fetches nothing that is there.
#[test]
fn a_second_restore_fetches_nothing_that_is_there() {
    let world = World::new();
    let (node, root) = pushed(&world, &["a", "b/c", "d"]);
    let to = world.path("to");
    node.restore("latest", &to, &["--strip-root"]).exits(0);
    fs::remove_file(to.join("d")).unwrap();

    let report = node.restore("latest", &to, &["--strip-root", "--into-existing"]).exits(0).json();

    assert_eq!((number(&report, "files"), number(&report, "unchanged")), (3, 2), "{report}");
    assert_eq!(fs::read(to.join("d")).unwrap(), fs::read(root.join("d")).unwrap());
}

/// C15: a full disk ends a restore, which says what is there, and goes on when there is room.
#[test]
fn a_full_target_ends_a_restore_that_goes_on_later() {
    let world = World::new();
    let root = world.dir("source");
    for n in 0..8 {
        fs::write(root.join(format!("f{n}")), Random::new(n).bytes(300_000)).unwrap();
    }
    let node = world.node("n");
    node.push(&root);
    let Some(disk) = Tmpfs::mount(world.dir("disk"), "size=1m") else { return };
    let to = disk.path().join("to");

    let full = node.restore("latest", &to, &["--strip-root"]).exits(14).json();
    let there = fs::read_dir(&to).unwrap().count();
    disk.resize("size=8m");
    let rest = node.restore("latest", &to, &["--strip-root", "--into-existing"]).exits(0).json();

    let restored = number(&full["restored"], "files");
    assert!(restored > 0 && u64::try_from(there) == Ok(restored), "{full}");
    assert_eq!((number(&rest, "files"), number(&rest, "unchanged")), (8, restored), "{rest}");
    assert_same(&root, &to);
}

/// In a pipe, as it is meant to be used: content on standard output, words beside it.
#[test]
fn one_file_goes_to_standard_output_as_it_was_pushed() {
    let world = World::new();
    let root = world.dir("source");
    let content = Random::printed().bytes(3_000_000);
    fs::write(root.join("dump"), &content).unwrap();
    fs::write(root.join("other"), "other").unwrap();
    let node = world.node("n");
    node.push(&root);
    let copy = world.path("copy");
    let piped = node.wrapped(&["sh", "-c", &format!("\"$@\" | cat > {}", copy.display()), "sh"]);
    let send = |node: &Client, more: &[&str]| {
        let mut command = node.command();
        command.args(["restore", "latest", "--to", "-", "--path", "dump"]).args(more);
        run_to_end(command)
    };

    let done = send(&piped, &[]).exits(0);
    let json = send(&node, &["--json"]).exits(2);
    let flag = send(&node, &["--strip-root"]).exits(2);
    let several = send(&node, &["--path", "other"]).exits(2);
    let full = send(&node.wrapped(&["sh", "-c", "exec \"$@\" > /dev/full", "sh"]), &[]).exits(15);

    assert!(fs::read(&copy).unwrap() == content);
    assert!(done.stderr.contains("dump, 2.86 MiB, of n from snapshot "), "{}", done.stderr);
    assert!(send(&piped, &["--quiet"]).exits(0).stderr.is_empty());
    assert!(
        json.stderr.contains("--json") && flag.stderr.contains("--strip-root is about a folder"),
        "{}",
        flag.stderr
    );
    assert!(several.stderr.contains("choose one file") && several.stdout.is_empty(), "{}", several.stderr);
    assert!(full.stderr.contains("standard output"), "{}", full.stderr);
}

/// A rate is kept by the restore's own clock: the first second's worth comes at once, the rest takes its time.
#[test]
fn a_restore_with_a_rate_takes_as_long_as_that() {
    let world = World::new();
    let root = world.dir("source");
    fs::write(root.join("file"), Random::printed().bytes(1_048_576)).unwrap();
    let node = world.node("n");
    node.push(&root);

    let to = world.path("to");
    let report = node.restore("latest", &to, &["--strip-root", "--max-rate", "512K"]).exits(0).json();

    assert!(number(&report, "bytes_fetched") > 1_000_000, "{report}");
    assert!(report["seconds"].as_f64().unwrap() >= 0.9, "{report}");
    assert_same(&root, &to);
}

/// C21: the same with the real programs, and what goes is told before.
#[test]
fn a_restore_that_deletes_leaves_the_folder_as_it_was_pushed() {
    let world = World::new();
    let (node, root) = pushed(&world, &["a", "d/b"]);
    let to = world.path("to");
    let copy = restored(&to, &root);
    node.restore("latest", &to, &[]).exits(0);
    fs::create_dir_all(copy.join("d/new/deep")).unwrap();
    fs::write(copy.join("d/new/deep/f"), "new").unwrap();
    fs::write(copy.join("extra"), "new").unwrap();
    let more = ["--into-existing", "--delete"];

    let planned = node.restore("latest", &to, &[&more[..], &["--dry-run"]].concat()).exits(0).json();
    let report = node.restore("latest", &to, &more).exits(0).json();

    let below = |name: &&str| restored(Path::new(""), &root).join(name).to_str().unwrap().to_owned();
    let names: Vec<String> = ["d/new/deep/f", "d/new/deep", "d/new", "extra"].iter().map(below).collect();
    assert_eq!(
        (&planned["to_remove"], &report["removed"]),
        (&serde_json::json!(names), &serde_json::json!(names))
    );
    assert_same(&root, &copy);
}

/// C21: a snapshot may have a mount point as an empty folder. What is mounted there in the target stays, and so does a
/// folder that is mounted a second time.
#[test]
fn a_restore_that_deletes_leaves_mounts_alone() {
    let world = World::new();
    let (node, root) = pushed(&world, &["a", "d/b"]);
    fs::create_dir(root.join("disk")).unwrap();
    node.push(&root);
    let to = world.path("to");
    let copy = restored(&to, &root);
    node.restore("latest", &to, &[]).exits(0);
    let other = world.dir("other");
    fs::create_dir(copy.join("d/new")).unwrap();
    let Some(disk) = Tmpfs::mount(copy.join("disk"), "size=1m") else { return };
    let Some(_bound) = Bound::mount(&other, copy.join("d/new")) else { return };
    fs::write(disk.path().join("kept"), "of another disk").unwrap();
    fs::write(other.join("kept"), "of another folder").unwrap();
    fs::write(copy.join("extra"), "new").unwrap();

    let report = node.restore("latest", &to, &["--into-existing", "--delete"]).exits(3).json();

    assert_eq!(report["removed"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["not_removed"].as_array().unwrap().len(), 2, "{report}");
    assert!(!copy.join("extra").exists());
    assert_eq!(fs::read(disk.path().join("kept")).unwrap(), b"of another disk");
    assert_eq!(fs::read(other.join("kept")).unwrap(), b"of another folder");
}
