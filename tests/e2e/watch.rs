//! Monitoring of the server: figures for Prometheus, readiness, the age of the last good snapshot, and
//! alarms.

use std::fs;
use std::path::{Path, PathBuf};

use tests::client::{Client, number, text};
use tests::http::{Length, Request, Wire};
use tests::server::Server;
use tests::world::{Folder, World};

/// The server does no work of its own: only the test raises and clears alarms.
const BY_HAND: &str = "[gc]\nevery_minutes = 0\n";

/// A node that has pushed one file.
struct Watched {
    world: World,
    node: Client,
    root: PathBuf,
    /// Its first snapshot.
    first: String,
}

impl Watched {
    fn new() -> Self {
        let world = World::with_config(BY_HAND);
        let (node, root) = (world.node("n"), world.dir("source"));
        fs::write(root.join("file"), "content").unwrap();
        let first = text(&node.push(&root), "snapshot");
        Self { world, node, root, first }
    }

    /// Pushes the folder without its file, as if a volume were not mounted.
    fn push_nothing(&self) {
        fs::remove_file(self.root.join("file")).unwrap();
        self.node.start_push(&self.root).wait().exits(3);
    }

    #[track_caller]
    fn figures(&self) -> Vec<String> {
        let answer = self.world.wire().send("GET", "/metrics", b"");
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The labels of the only series.
fn labels(root: &Path) -> String {
    format!("{{cluster=\"c\",nodes=\"n\",series=\"{}\"}}", root.display())
}

#[track_caller]
fn has(figures: &[String], line: &str) {
    assert!(figures.iter().any(|found| found == line), "no `{line}` in {figures:#?}");
}

fn begins(figures: &[String], start: &str) -> bool {
    figures.iter().any(|line| line.starts_with(start))
}

#[test]
fn metrics_hold_the_figures_of_a_push_and_each_alarm() {
    let watched = Watched::new();
    let (status, labels) = (watched.node.status(), labels(&watched.root));
    let age = format!("astacus_last_complete_age_seconds{labels} ");

    let pushed = watched.figures();

    for line in ["astacus_snapshots 1", "astacus_sessions_open 0"] {
        has(&pushed, line);
    }
    has(&pushed, &format!("astacus_packs {}", number(&status, "packs")));
    has(&pushed, &format!("astacus_blobs {}", number(&status, "chunks")));
    has(&pushed, &format!("astacus_stored_bytes {}", number(&status, "stored_bytes")));
    has(&pushed, &format!("astacus_series_snapshots{labels} 1"));
    assert!(begins(&pushed, &age) && !begins(&pushed, "astacus_alarm{"), "{pushed:#?}");

    watched.push_nothing();
    let suspect = watched.figures();
    has(&suspect, "astacus_alarm{code=\"suspect_snapshot\"} 1");
    has(&suspect, &format!("astacus_series_snapshots{labels} 2"));
    assert!(begins(&suspect, &age), "{suspect:#?}");

    watched.node.admin(&["forget", "--even-last", &watched.first]).exits(0);
    let none = watched.figures();
    assert!(!begins(&none, &age), "a suspect and a forgotten snapshot have an age: {none:#?}");
}

#[test]
fn figures_need_the_token_and_readiness_does_not() {
    let world = World::new();
    let (wire, token) = (world.wire(), format!("Bearer {}", world.server.token()));
    let status = |path: &str, authorization: Option<&str>| {
        let request = Request { method: "GET", path, authorization, body: b"", length: Length::True };
        wire.try_send(&request).unwrap().status
    };

    assert_eq!((status("/metrics", None), status("/metrics", Some(&token))), (401, 200));
    assert_eq!(status("/readyz", None), 200);
}

/// Status and text of the answer about readiness.
fn ready(server: &Server) -> (u16, String) {
    let answer = Wire::to(server).send("GET", "/readyz", b"");
    (answer.status, String::from_utf8(answer.body).unwrap())
}

fn answer(status: u16, text: &str) -> (u16, String) {
    (status, format!("{text}\n"))
}

/// G13: a server that takes no push because its site is away is not ready.
#[test]
fn a_server_is_ready_while_its_site_is_there() {
    let mut watched = Watched::new();
    let server = &mut watched.world.server;
    assert_eq!(ready(server), answer(200, "ready"));
    let (packs, away) = (server.data().join("site/packs"), server.data().with_file_name("away"));
    server.stop();
    rustix::fs::rename(&packs, &away).unwrap();
    fs::create_dir(&packs).unwrap();
    server.start_again();
    server.allow_errors("site_incomplete");

    assert_eq!(ready(server), answer(503, "site_incomplete"));

    server.stop();
    fs::remove_dir(&packs).unwrap();
    rustix::fs::rename(&away, &packs).unwrap();
    server.start_again();
    assert_eq!(ready(server), answer(200, "ready"));
}

#[test]
fn a_server_whose_disk_has_little_room_is_not_ready() {
    let folder = Folder::new();
    let config = folder.path("server.toml");
    let write = |below: &str| {
        fs::write(&config, format!("[space]\nballast_mib = 0\nrefuse_below_mib = {below}\n")).unwrap();
    };
    write("1000000000");
    let mut server = Server::start_with(&folder.path("data"), &config);

    assert_eq!(ready(&server), answer(503, "full"));

    write("0");
    server.stop();
    server.start_again();
    assert_eq!(ready(&server), answer(200, "ready"));
}

#[test]
fn the_age_of_the_last_good_snapshot_decides_the_exit_code() {
    let watched = Watched::new();
    let last = |more: &[&str]| watched.node.admin(&[&["last"], more].concat());

    last(&[]).exits(0);
    last(&["c", "--max-age", "26h"]).exits(0);
    let overdue = last(&["--max-age", "0s"]).exits(3);
    assert!(overdue.stdout.contains("OVERDUE"), "{}", overdue.stdout);
    last(&["nowhere"]).exits(10);

    watched.push_nothing();
    let before = last(&["--json", "--max-age", "26h"]).exits(0).json();
    assert_eq!(text(&before["series"][0], "snapshot"), watched.first, "{before}");
    watched.node.admin(&["forget", "--even-last", &watched.first]).exits(0);
    let never = last(&["--max-age", "26h"]).exits(3);
    assert!(never.stdout.contains("never"), "{}", never.stdout);
    last(&[]).exits(0);
}

#[test]
fn an_alarm_decides_the_exit_code_of_a_status_if_that_is_asked_for() {
    let watched = Watched::new();
    let asked = || watched.node.admin(&["status", "--fail-on-alarm"]);
    asked().exits(0);

    watched.push_nothing();

    asked().exits(3);
    watched.node.admin(&["status"]).exits(0);
    watched.node.push_with(&watched.root, &["--accept-smaller"]);
    asked().exits(0);
}
