//! A stream is pushed as the one file of a snapshot: standard input, or the output of a command.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tests::client::{Client, number};
use tests::wait;
use tests::world::World;

/// Pushes the output of a line of shell as `dump.sql`.
fn of_shell(line: &str) -> [&str; 8] {
    ["push", "--json", "--command", "dump.sql", "--", "sh", "-c", line]
}

fn restored(world: &World, node: &Client, to: &str, more: &[&str]) -> Vec<u8> {
    node.restore("latest", &world.path(to), more).exits(0);
    fs::read(world.path(to).join("dump.sql")).unwrap()
}

/// S12: what comes through a pipe is in the snapshot under its name, and belongs to the series of that name.
#[test]
fn standard_input_becomes_a_file_that_is_restored() {
    let world = World::new();
    let node = world.node("n");
    let piped = node.wrapped(&["sh", "-c", "seq 1 400000 | \"$@\"", "sh"]);

    let first = piped.run(["push", "--stdin", "dump.sql", "--json"]).exits(0).json();
    let again = piped.run(["push", "--stdin", "dump.sql", "--json"]).exits(0).json();

    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(
        (number(&first, "files"), number(&first, "bytes")),
        (1, u64::try_from(expected.len()).unwrap())
    );
    assert_eq!(first["warnings"], serde_json::json!([]));
    assert_eq!(number(&again, "bytes_stored") / 10_000, 0, "the same chunks are stored once: {again}");
    assert!(restored(&world, &node, "restored", &[]) == expected.as_bytes());
    let mode = fs::metadata(world.path("restored/dump.sql")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    node.admin(&["verify", "--level", "restore"]).exits(0);
    node.run(["verify", "latest"]).exits(0);
    // A folder of the node is another series.
    fs::write(world.dir("source").join("file"), "content").unwrap();
    node.push(&world.path("source"));
    let listed = node.snapshots();
    assert_eq!(listed[1]["origins"][0]["roots"], serde_json::json!(["stream:dump.sql"]));
    assert_eq!(listed[0]["series"], listed[1]["series"]);
    node.restore("latest", &world.path("unsure"), &[]).exits(2);
    let chosen = restored(&world, &node, "chosen", &["--series", "stream:dump.sql"]);
    assert!(chosen == expected.as_bytes());
}

/// S12: half a dump is no snapshot, and the exit code says so.
#[test]
fn a_command_that_fails_makes_no_snapshot() {
    let world = World::new();
    let node = world.node("n");

    for (end, how) in [("exit 7", "exit status: 7"), ("kill -KILL $$", "signal: 9")] {
        let line = format!("head -c 3000000 /dev/urandom; echo trouble >&2; {end}");
        let failed = node.run(of_shell(&line)).exits(14);

        assert_eq!(failed.json()["error"]["code"], "command_failed");
        for part in ["trouble", how, "no snapshot was made"] {
            assert!(failed.stderr.contains(part), "{}", failed.stderr);
        }
    }
    let missing = node.run(["push", "--command", "dump.sql", "--", "/nowhere/pg_dump"]).exits(10);
    assert!(missing.stderr.contains("/nowhere/pg_dump"), "{}", missing.stderr);
    assert_eq!((node.snapshots().len(), number(&node.status(), "open_sessions")), (0, 0));
    // A command that succeeds, and one that writes nothing.
    node.run(of_shell("printf data")).exits(0);
    assert_eq!(restored(&world, &node, "restored", &[]), b"data");
    node.run(["push", "--command", "empty", "--", "true"]).exits(0);
}

/// S12: an interrupted push of a stream commits nothing, and its command is ended.
#[test]
fn an_interrupted_stream_commits_nothing_and_its_command_ends() {
    let world = World::new();
    let node = world.node("n");
    let mut command = node.command();
    command.args(of_shell("echo $$ > pid.new; mv pid.new pid; exec sleep 1000"));
    let push = tests::client::Running::start(command);
    let pid = wait::for_state("the command", || fs::read_to_string(node.home().join("pid")).ok());
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();

    push.interrupt();

    push.wait().exits(130);
    assert!(test_kill_process(pid).is_err(), "the command outlived the push");
    let mut piped = node.command();
    piped.args(["push", "--stdin", "dump.sql"]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds: the push has begun to read it.
    input.write_all(&[b'x'; 1 << 20]).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(node.snapshots().len(), 0);
}

/// S12: two streams at once stay apart, and a command is told nothing that a shell would take apart.
#[test]
fn a_command_gets_its_words_as_they_are() {
    let world = World::new();
    let node = world.node("n");

    node.run(["push", "--command", "dump.sql", "--", "printf", "%s|", "a b", "$HOME", "*"]).exits(0);

    assert_eq!(restored(&world, &node, "restored", &[]), b"a b|$HOME|*|");
}
