//! Files that cannot be read: told, counted, and never a wrong file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tests::client::{Client, number, text};
use tests::gear;
use tests::world::World;

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
    let restore = node.restore("latest", &world.path("restored"), &["--strip-root"]).exits(3).json();

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
