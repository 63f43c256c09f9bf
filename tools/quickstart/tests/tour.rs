//! The program as its user meets it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in what tests share as well")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The program, with nothing of this machine's settings.
fn quickstart(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astacus-quickstart"));
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    quickstart(folder, arguments).output().expect("the program was built for this test")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// A folder `source` with one of each kind of file.
fn source() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join("source").join(name);
    fs::create_dir_all(at("deep/er/empty")).unwrap();
    fs::write(at("large"), vec![7; 3 << 20]).unwrap();
    fs::write(at("deep/small"), "small").unwrap();
    fs::write(at("nothing"), "").unwrap();
    fs::write(temp.path().join("source").join(OsStr::from_bytes(b"no \xff text")), "bytes").unwrap();
    symlink("nowhere", at("link")).unwrap();
    fs::hard_link(at("large"), at("deep/same")).unwrap();
    fs::write(at("program"), "#!/bin/sh").unwrap();
    fs::set_permissions(at("program"), Permissions::from_mode(0o4755)).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    fs::set_permissions(at("deep/er"), Permissions::from_mode(0o555)).unwrap();
    temp
}

/// S1, C2: what was pushed comes back, and a second push sends none of it.
#[test]
fn a_folder_with_one_of_each_kind_makes_the_whole_tour() {
    let temp = source();

    let first = run(temp.path(), &["source"]);
    let again = run(temp.path(), &["source"]);

    for output in [&first, &again] {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(stdout(output).contains("The second push sent no data"), "{}", stdout(output));
        assert!(stdout(output).contains("The restored tree equals the source"), "{}", stdout(output));
    }
    let left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the source and the data folder: {left:?}");
}

#[test]
fn a_data_folder_within_the_folder_is_refused_and_not_made() {
    let temp = source();

    let output = run(temp.path(), &["source", "--data-dir", "source/data"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(str::from_utf8(&output.stderr).unwrap().contains("--data-dir"), "{output:?}");
    assert!(!temp.path().join("source/data").exists());
}

#[test]
fn a_folder_that_is_none_makes_no_repository() {
    let temp = source();

    let missing = run(temp.path(), &["gone"]);
    let file = run(temp.path(), &["source/large"]);

    assert_eq!((missing.status.code(), file.status.code()), (Some(10), Some(2)));
    assert!(!temp.path().join("astacus-data").exists());
}

#[test]
fn a_folder_of_something_else_does_not_become_a_repository() {
    let temp = source();
    fs::create_dir(temp.path().join("photos")).unwrap();
    fs::write(temp.path().join("photos/one.jpg"), "not ours").unwrap();

    let output = run(temp.path(), &["source", "--data-dir", "photos"]);

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(fs::read_dir(temp.path().join("photos")).unwrap().count(), 1);
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let temp = source();
    let mut serving = quickstart(temp.path(), &["source", "--serve"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines().map(Result::unwrap);

    let command = lines.find(|line| line.contains("astacus-client list")).unwrap();
    let address = command.split_once("http://").unwrap().1.split_once(' ').unwrap().0.to_owned();
    let reached = std::net::TcpStream::connect(&address);
    kill_process(Pid::from_child(&serving), Signal::TERM).unwrap();

    assert!(reached.is_ok(), "{address}: {reached:?}");
    assert!(serving.wait().unwrap().success());
    assert!(std::net::TcpStream::connect(&address).is_err());
}
