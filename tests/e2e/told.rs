//! Alarms reach people, are acknowledged, and end; what nobody pushes any more is told; logs name what they are about.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use format_spec::notice::{Event, Notice, signature};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tests::client::{Client, text};
use tests::server::{CONFIG, Server};
use tests::wait;
use tests::world::{Folder, World};

const SECRET: &str = "a secret of sixteen bytes";

/// Listens on a port of the kernel's choice, and hands on each body whose signature fits.
struct Hook {
    url: String,
    bodies: Receiver<Notice>,
}

impl Hook {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/alarms", listener.local_addr().unwrap());
        let (sender, bodies) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let body = signed_body(&stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { url, bodies }
    }

    #[track_caller]
    fn next(&self) -> (Event, String) {
        let notice = self.bodies.recv_timeout(wait::PATIENCE).unwrap();
        (notice.event, notice.code)
    }
}

fn signed_body(stream: impl Read) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let (mut len, mut at, mut signed) = (0, 0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            None if line.trim_end().is_empty() => break,
            Some(("Content-Length", value)) => len = value.parse().unwrap(),
            Some(("Astacus-Timestamp", value)) => at = value.parse().unwrap(),
            Some(("Astacus-Signature", value)) => signed = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    assert_eq!(signed, signature(SECRET.as_bytes(), at, &body));
    body
}

/// A server with a configuration that may change, and a node.
struct Watched {
    folder: Folder,
    server: Server,
}

impl Watched {
    fn with(more: &str) -> Self {
        let folder = Folder::new();
        write(&folder.path("secret"), SECRET, 0o600);
        configure(&folder, more);
        let server = Server::start_with(&folder.path("data"), &folder.path("server.toml"));
        Self { folder, server }
    }

    fn node(&self) -> Client {
        Client::new(&self.server, "c", "n", &self.folder.dir("home"))
    }

    fn root(&self) -> PathBuf {
        self.folder.dir("source")
    }

    /// Pushes a file, and then nothing of it.
    fn push_and_lose(&self) {
        let (node, root) = (self.node(), self.root());
        fs::write(root.join("file"), "content").unwrap();
        node.push(&root);
        fs::remove_file(root.join("file")).unwrap();
        node.start_push(&root).wait().exits(3);
    }

    fn hang_up(&self) {
        kill_process(self.server.pid(), Signal::HUP).unwrap();
    }

    #[track_caller]
    fn logs(&self, what: &str) {
        self.server.logged(what, 1);
    }

    /// Codes of the alarms that are up.
    fn codes(&self) -> Vec<String> {
        let told = self.node().admin(&["alarms", "--json"]).exits(0).json();
        told["alarms"].as_array().unwrap().iter().map(|alarm| text(alarm, "code")).collect()
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn configure(folder: &Folder, more: &str) {
    let all = fs::read_to_string(CONFIG).unwrap();
    fs::write(folder.path("server.toml"), format!("{all}[gc]\nevery_minutes = 0\n{more}\n")).unwrap();
}

fn webhook(folder: &Folder, url: &str) -> String {
    format!("webhook = {{ url = \"{url}\", secret_file = \"{}\" }}\n", folder.path("secret").display())
}

/// A4: by a script and by a webhook, once when it is up and once when it is over; a restart repeats nothing, and tells
/// what the server that was killed did not.
#[test]
fn an_alarm_reaches_people_by_a_script_and_by_a_webhook_once() {
    let hook = Hook::listen();
    let mut watched = Watched::with("");
    let (script, told) = (watched.folder.path("tell"), watched.folder.path("told"));
    write(&script, &format!("#!/bin/sh\necho $ASTACUS_EVENT $ASTACUS_ALARM >> {}\n", told.display()), 0o700);
    watched.push_and_lose();
    watched.server.kill();
    let command = format!("command = [\"{}\"]\n", script.display());
    configure(&watched.folder, &format!("[notify]\n{command}{}", webhook(&watched.folder, &hook.url)));
    watched.server.start_again();

    assert_eq!(hook.next(), (Event::Raised, "suspect_snapshot".to_owned()));
    let lines = |count: usize| {
        let read = || fs::read_to_string(&told).ok().filter(|told| told.lines().count() == count);
        wait::for_state("the script to be run", read)
    };
    assert_eq!(lines(1), "raised suspect_snapshot\n");
    for channel in ["command", "webhook"] {
        watched.logs(&format!("channel=\"{channel}\" event=\"raised\""));
    }

    watched.server.start_again();
    watched.node().push_with(&watched.root(), &["--accept-smaller"]);
    assert_eq!(hook.next(), (Event::Cleared, "suspect_snapshot".to_owned()));
    assert_eq!(lines(2), "raised suspect_snapshot\ncleared suspect_snapshot\n");
}

/// A4: a webhook that nobody answers is an alarm of its own, and holds nothing up.
#[test]
fn a_webhook_that_fails_is_shown_and_holds_nothing_up() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let watched = Watched::with("");
    configure(
        &watched.folder,
        &format!("[notify]\n{}", webhook(&watched.folder, &format!("http://{gone}/"))),
    );
    watched.hang_up();
    watched.logs("reloaded [retention], [freshness] and [notify]");

    watched.push_and_lose();

    let both = || (watched.codes() == ["notify_failing", "suspect_snapshot"]).then_some(());
    wait::for_state("the failure to be shown", both);
    let status = watched.node().admin(&["status"]).exits(0).stdout;
    assert!(status.contains("notify_failing webhook"), "{status}");
    configure(&watched.folder, "");
    watched.hang_up();
    wait::for_state("the end of it", || (watched.codes() == ["suspect_snapshot"]).then_some(()));
}

/// A1: an acknowledged alarm is shown, and fails no check, until it is over.
#[test]
fn an_alarm_that_is_acknowledged_is_shown_and_fails_no_check() {
    let watched = Watched::with("");
    let node = watched.node();
    watched.push_and_lose();
    let check = || node.admin(&["status", "--fail-on-alarm"]);
    check().exits(3);
    node.admin(&["alarms", "ack", "low_space", "--reason", "x"]).exits(10);

    node.admin(&["alarms", "ack", "suspect_snapshot", "c/n", "--reason", "a test", "--for", "7d"]).exits(0);

    let shown = check().exits(0).stdout;
    assert!(shown.contains("suspect_snapshot c/n:") && shown.contains(": a test"), "{shown}");
    node.push_with(&watched.root(), &["--accept-smaller"]);
    watched.push_and_lose();
    check().exits(3);
}

/// A2: somebody is told of a node that is expected and does not push, until it is retired.
#[test]
fn a_node_that_is_expected_and_never_pushed_is_overdue_until_it_is_retired() {
    let watched = Watched::with("");
    let (node, root) = (watched.node(), watched.root());
    fs::write(root.join("file"), "content").unwrap();
    node.push(&root);
    let rule = |words: &[&str]| node.admin(&[&["freshness"], words].concat()).exits(0);

    rule(&["set", "c", "--node", "n", "--max-age", "26h"]);
    assert_eq!(watched.codes(), Vec::<String>::new());
    rule(&["set", "c", "--node", "away", "--max-age", "26h"]);
    node.admin(&["status", "--fail-on-alarm"]).exits(3);
    assert_eq!(watched.codes(), ["overdue"]);
    let shown = rule(&[]).stdout;
    assert!(shown.contains("c/away") && shown.contains("OVERDUE"), "{shown}");
    assert!(shown.contains("rule: c --node n is at most 1d 2h old"), "{shown}");

    rule(&["retire", "c", "--node", "away"]);
    assert_eq!(watched.codes(), Vec::<String>::new());
}

/// A server that is hung up reads its configuration again, and goes on if that cannot be used.
#[test]
fn a_hang_up_reads_the_configuration_again() {
    let mut watched = Watched::with("");
    let expected = |watched: &Watched| {
        let told = watched.node().admin(&["freshness", "--json"]).exits(0).json();
        told["series"].as_array().unwrap().len()
    };
    assert_eq!(expected(&watched), 0);

    configure(
        &watched.folder,
        "[[freshness.expect]]\ncluster = \"c\"\nmax_age_hours = 26\n[log]\nformat = \"json\"",
    );
    watched.hang_up();
    watched.logs("take effect at the next start");
    assert_eq!(expected(&watched), 1);
    configure(&watched.folder, "[freshness]\nunknown = 1");
    watched.hang_up();
    watched.logs("the configuration is invalid");
    assert_eq!(expected(&watched), 1);
    assert!(watched.server.runs());
}

/// A log for programs names cluster, node and series of each commit, and the rule that let a snapshot go.
#[test]
fn a_log_in_json_names_what_was_committed_and_why_a_policy_let_it_go() {
    let watched = Watched::with("[log]\nformat = \"json\"\n");
    let (node, root) = (watched.node(), watched.root());
    let pushed: Vec<String> = ["one", "two", "three", "four"]
        .map(|content| {
            fs::write(root.join("file"), content).unwrap();
            text(&node.push(&root), "snapshot")
        })
        .into();
    node.admin(&["forget", "--keep-last", "1", "--minimum", "1"]).exits(0);

    let log = watched.server.logged("snapshot deleted", 3);
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line.trim_start_matches("  | ")).unwrap()).collect();
    let of =
        |message: &str| lines.iter().filter(|line| line["message"] == message).cloned().collect::<Vec<_>>();
    let committed = of("committed");
    let ids: Vec<String> = committed.iter().map(|line| text(line, "snapshot")).collect();
    assert_eq!(ids, pushed);
    let line = &committed[0];
    let series = root.to_str().unwrap();
    assert_eq!(
        [&line["cluster"], &line["node"], &line["series"], &line["state"]],
        ["c", "n", series, "Complete"]
    );
    assert!(line["bytes"] == 3 && line["duration_ms"].is_u64() && line["level"] == "INFO", "{line}");
    let forgotten = of("snapshot deleted");
    assert_eq!(forgotten.len(), 3);
    assert!(
        forgotten.iter().all(|line| line["why"] == "no rule keeps it" && line["series"] == series),
        "{log}"
    );
}

/// A snapshot that a configured policy let go is in the log with the rule that did.
#[test]
fn a_log_in_text_names_the_rule_that_let_a_snapshot_go() {
    let world = World::new();
    let (node, root) = (world.node("n"), world.dir("source"));
    for content in ["one", "two"] {
        fs::write(root.join("file"), content).unwrap();
        node.push(&root);
    }
    node.admin(&["forget", "--maximum", "1", "--minimum", "1"]).exits(0);

    let log = world.server.logged("snapshot deleted", 1);
    let line = log.lines().find(|line| line.contains("snapshot deleted")).unwrap();
    for part in ["cluster=c", "node=\"n\"", &format!("series={root:?}"), "why=\"more than 1 (maximum)\""] {
        assert!(line.contains(part), "{part} {line}");
    }
}
