//! The unit of systemd that comes with the server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::client::{Client, run_to_end};
use tests::gear;
use tests::server::Server;
use tests::wait;
use tests::world::Folder;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/astacus-server.service");

/// The greatest exposure, in tenths, that `systemd-analyze security` may find.
const EXPOSURE: &str = "20";

/// The values of `key` in the unit, in their order.
fn values(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(UNIT).unwrap();
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    unit.lines().filter_map(value).collect()
}

/// The names of the system calls in the groups that `groups` names.
fn calls(groups: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    let mut left: Vec<String> = groups.split_whitespace().map(str::to_owned).collect();
    while let Some(group) = left.pop() {
        let mut command = Command::new("systemd-analyze");
        command.args(["syscall-filter", "--no-pager", &group]);
        for name in run_to_end(command).exits(0).stdout.lines().skip(1).map(str::trim) {
            match name.chars().next() {
                None | Some('#') => {}
                Some('@') => left.push(name.to_owned()),
                Some(_) => {
                    calls.insert(name.to_owned());
                }
            }
        }
    }
    calls
}

/// The system calls in a trace that has ended.
fn traced(trace: &Path) -> BTreeSet<String> {
    let text = wait::for_state("the end of the trace", || {
        fs::read_to_string(trace).ok().filter(|text| text.trim_end().ends_with("+++ exited with 0 +++"))
    });
    let name = |line: &str| {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let (name, _) = call.split_once('(')?;
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

fn push_and_tidy(server: &Server, home: &Path, root: &Path) {
    let node = Client::new(server, "prod", "db1", home);
    node.push(root);
    node.restore("latest", &home.join("restored"), &[]).exits(0);
    for command in [&["gc"][..], &["verify", "--read-all"], &["audit"], &["checkpoint"]] {
        node.admin(command);
    }
}

/// The sandbox is as tight as promised, by the judgement of systemd itself.
#[test]
fn the_unit_exposes_little() {
    if !gear::has("systemd-analyze") {
        return;
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=yes", "--threshold", EXPOSURE, UNIT]);

    run_to_end(command).exits(0);
}

/// Every system call of a working server passes the filter of the unit.
#[test]
fn the_unit_lets_a_working_server_through() {
    if !gear::has("systemd-analyze") || !gear::has("strace") {
        return;
    }
    let folder = Folder::new();
    let (trace, root): (PathBuf, PathBuf) = (folder.path("trace"), folder.dir("root"));
    fs::write(root.join("file"), vec![7; 3 << 20]).unwrap();
    let mut server = Server::start_traced(&folder.path("data"), &trace);
    push_and_tidy(&server, &folder.dir("home"), &root);
    assert!(server.stop().success());

    let [granted, refused] = values("SystemCallFilter").try_into().unwrap();
    let allowed = &calls(&granted) - &calls(refused.strip_prefix('~').unwrap());
    let made = traced(&trace);

    assert!(made.contains("execve") && made.contains("renameat2"), "{made:?}");
    let refused: Vec<&String> = made.difference(&allowed).collect();
    assert_eq!(refused, Vec::<&String>::new());
}
