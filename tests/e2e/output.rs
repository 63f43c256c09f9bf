//! Logs and reports that cannot be written: no program ends because of one, and no work is lost.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

use tests::client::Client;
use tests::server::Server;
use tests::world::{Folder, World};

fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// The writing end of a pipe that nobody reads any more.
fn closed_pipe() -> File {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    File::from(std::os::fd::OwnedFd::from(writer))
}

#[test]
fn a_server_whose_log_cannot_be_written_serves_and_stops() {
    for log in [full_disk(), closed_pipe()] {
        let folder = Folder::new();
        let mut server = Server::start_logging_to(&folder.path("data"), log);
        let node = Client::new(&server, "c", "n", &folder.path("home"));
        let source = folder.dir("source");

        for content in ["one", "two"] {
            fs::write(source.join("file"), content).unwrap();
            node.push(&source);
        }

        assert!(server.runs());
        assert!(server.stop().success());
    }
}

/// The pipe of its log is full, and nobody reads it.
#[test]
fn a_server_whose_log_nobody_reads_serves_and_stops() {
    let (unread, mut log) = std::io::pipe().unwrap();
    // One write fills the pipe.
    log.write_all(&[b'.'; 64 << 10]).unwrap();
    let folder = Folder::new();
    let log = File::from(std::os::fd::OwnedFd::from(log));
    let mut server = Server::start_logging_to(&folder.path("data"), log);
    let node = Client::new(&server, "c", "n", &folder.path("home"));
    let source = folder.dir("source");

    fs::write(source.join("file"), "content").unwrap();
    node.push(&source);

    assert!(server.stop().success());
    drop(unread);
}

#[test]
fn a_client_whose_log_cannot_be_written_does_its_work() {
    let world = World::new();
    let source = world.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let node = world.node("n");
    for (program, arguments) in
        [("astacus-client", vec!["push", source.to_str().unwrap()]), ("astacus-admin", vec!["status"])]
    {
        let mut command = node.program(program);
        command.env("ASTACUS_LOG", "trace").args(arguments).stderr(full_disk());

        assert!(command.status().unwrap().success(), "{program}");
    }
}

/// C7: the snapshot is there, and the exit code says that it is not told.
#[test]
fn a_push_whose_report_cannot_be_written_keeps_its_snapshot_and_exits_with_15() {
    let world = World::new();
    let source = world.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let node = world.node("n");
    let full = node.wrapped(&["sh", "-c", "exec \"$@\" > /dev/full", "sh"]);

    let pushed = full.run(["push", source.to_str().unwrap()]).exits(15);
    let restored = full.restore("latest", &world.path("restored"), &["--strip-root"]).exits(15);

    let [id] = node.snapshot_ids().try_into().unwrap();
    assert!(pushed.stderr.contains(&format!("snapshot {id} was committed")), "{}", pushed.stderr);
    assert!(restored.stderr.contains("1 files of snapshot"), "{}", restored.stderr);
    assert_eq!(fs::read_to_string(world.path("restored").join("file")).unwrap(), "content");
}

/// The saved share is a number for programs; a ratio of almost nothing is not printed for people.
#[test]
fn a_push_tells_people_bytes_and_programs_the_ratio() {
    let world = World::new();
    let (node, root) = (world.node("n"), world.dir("source"));
    fs::write(root.join("file"), "the same words ".repeat(10_000)).unwrap();

    let first = node.push(&root);
    let again = node.run([OsStr::new("push"), root.as_os_str()]).exits(0).stdout;
    let nothing = node.push(&root);

    assert!(first["dedup_ratio"].as_f64().is_some_and(|ratio| ratio > 10.0), "{first}");
    assert!(nothing.get("dedup_ratio").is_some(), "{nothing}");
    let line = again.lines().find(|line| line.trim_start().starts_with("bytes ")).unwrap();
    let words: Vec<&str> =
        line.split(", ").map(|part| part.split_whitespace().rev().nth(2).unwrap()).collect();
    assert_eq!(words, ["read", "hashed", "sent", "stored"], "{again}");
    assert!(!again.contains("(1 for"), "{again}");
}
