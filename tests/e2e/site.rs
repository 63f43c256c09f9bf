//! A site that another server has, or that is not there.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use tests::client::{run_to_end, text};
use tests::gear;
use tests::server::{CONFIG, Server, command, refused};
use tests::world::{Folder, World};

/// L6: a second server over one site is refused and told of the first; after a kill the next one starts at once.
#[test]
fn a_second_server_over_the_same_site_is_refused_and_told_of_the_first() {
    let folder = Folder::new();
    let (data, other, site) = (folder.path("data"), folder.path("other"), folder.dir("site"));
    let arguments = [OsStr::new("--site"), site.as_os_str()];
    let mut server = Server::start_as(&data, Path::new(CONFIG), &arguments);
    server.stop();
    let mut rebuild = command();
    rebuild.arg("rebuild").arg("--data-dir").arg(&other).arg("--from-site").arg(&site);
    rebuild.arg("--keyring").arg(data.join("master.key"));
    run_to_end(rebuild).exits(0);
    server.start_again();
    let mut second = command();
    second.arg("--data-dir").arg(&other).arg("--site").arg(&site).args(["--listen", "127.0.0.1:0"]);

    let refused = run_to_end(second).exits(11);

    let pid = format!("process {}", server.pid().as_raw_nonzero());
    assert!(refused.stderr.contains(&pid), "{}", refused.stderr);
    server.kill();
    server.start_again();
}

/// G13: a site whose packs are gone takes no push, until they are back.
#[test]
fn a_site_without_its_packs_takes_no_push_until_they_are_back() {
    let mut world = World::new();
    let node = world.node("n");
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let snapshot = text(&node.push(&root), "snapshot");
    world.server.stop();
    let packs = world.server.data().join("site/packs");
    let away = world.path("away");
    rustix::fs::rename(&packs, &away).unwrap();
    fs::create_dir(&packs).unwrap();
    world.server.start_again();

    let node = world.node("n");
    assert_eq!(node.status()["alarms"][0]["code"], "site_incomplete");
    world.server.allow_errors("site_incomplete");
    let refused = node.start_push(&root).wait().exits(14);
    assert!(refused.stderr.contains("--accept-loss"), "{}", refused.stderr);
    node.admin(&["gc", "--now"]).exits(11);

    world.server.stop();
    fs::remove_dir(&packs).unwrap();
    rustix::fs::rename(&away, &packs).unwrap();
    world.server.start_again();
    let node = world.node("n");
    assert!(node.status().get("alarms").is_none(), "{}", node.status());
    node.restore(&snapshot, &world.path("to"), &[]).exits(0);
    node.push(&root);
}

/// G13: a data folder whose disk is not mounted does not become a new repository, if told.
#[test]
fn a_server_that_must_find_a_repository_makes_none() {
    let folder = Folder::new();
    let data = folder.dir("data");
    let arguments = ["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--must-exist"];

    let refused = refused(&arguments).exits(10);

    assert!(refused.stderr.contains("mount its disk"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    let mut server = Server::start(&data);
    server.stop();
    Server::start_as(&data, Path::new(CONFIG), &[OsStr::new("--must-exist")]);
}

/// G13: what an operator takes as lost is sent again by the next push.
#[test]
fn packs_that_are_taken_as_lost_are_sent_again() {
    let mut world = World::new();
    let node = world.node("n");
    let root = world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let snapshot = text(&node.push(&root), "snapshot");
    world.server.stop();
    fs::remove_dir_all(world.server.data().join("site/packs")).unwrap();
    world.server.start_again();
    world.server.allow_errors("site_incomplete");
    let node = world.node("n");

    node.admin(&["verify", "--level", "exists", "--accept-loss"]).exits(13);

    assert_eq!(node.status()["alarms"][0]["code"], "damaged_blobs");
    node.push(&root);
    node.restore(&snapshot, &world.path("to"), &[]).exits(0);
}

/// The documented way to a second copy: whatever is committed meanwhile, an index can be made from the copy, and
/// nothing that its snapshots need is missing.
#[test]
fn a_second_copy_of_a_running_site_has_all_that_its_snapshots_need() {
    if !gear::has("rsync") {
        return;
    }
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")).unwrap();
    let (_, lines) = page.split_once("```sh\nls \"$SITE").unwrap();
    let lines = format!("ls \"$SITE{}", lines.split_once("```").unwrap().0);
    let world = World::new();
    let (node, root, copy) = (world.node("n"), world.dir("source"), world.path("copy"));
    let push = |content: &str| {
        fs::write(root.join("file"), content).unwrap();
        text(&node.push(&root), "snapshot")
    };
    let first = push("first");
    let run = |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", line]).env("SITE", world.server.data().join("site")).env("COPY", &copy);
        run_to_end({
            shell.env("LIST", world.path("list"));
            shell
        })
        .exits(0);
    };

    for line in lines.lines() {
        run(line);
        push(line);
    }

    let (data, key) = (world.path("rebuilt"), world.server.data().join("master.key"));
    let mut rebuild = command();
    rebuild.arg("rebuild").arg("--json").arg("--data-dir").arg(&data).arg("--from-site").arg(&copy);
    rebuild.arg("--keyring").arg(key);
    let report = run_to_end(rebuild).exits(0).json();
    assert_eq!(report["snapshots"], 1, "{report}");
    let copied = fs::read_dir(copy.join("snapshots")).unwrap().next().unwrap().unwrap();
    assert_eq!(copied.file_name().to_str(), Some(first.as_str()));
}
