//! Commands of operators, against a stand-in for the server: texts, documents, exit codes, and requests.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in what tests share as well")]

mod data;
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use format_spec::ErrorClass;
use format_spec::key::BlobKind;
use format_spec::manifest::Moment;
use format_spec::snapshot::SnapshotState;
use format_spec::wire::{
    Alarm, FileProblem, FileProblems, FileState, GcReport, NotCounted, OperationEvent, RunMode, Severity,
    SnapshotDetail, SnapshotInfo, SnapshotList, Status, Verdict,
};
use serde_json::{Value, json};
use server::{Done, Server, refusal};

const SHAPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upkeep");

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// Compares with the text in the file `shape`. When a change is meant, copy the new text there.
#[track_caller]
fn assert_shape(text: &str, shape: &str) {
    let expected = fs::read_to_string(Path::new(SHAPES).join(shape)).unwrap_or_default();
    assert!(text == expected, "{shape} no longer fits what is printed:\n{text}");
}

impl Done {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.output.status.code(), Some(code), "{}", stderr(&self.output));
        self
    }

    /// It went well and printed this text.
    #[track_caller]
    fn prints(self, shape: &str) -> Self {
        assert_eq!(stderr(&self.output), "");
        assert_shape(stdout(&self.output), shape);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout).unwrap()
    }

    /// The only request, and its body.
    #[track_caller]
    fn request(&self) -> (&str, &Value) {
        let [(request, body)] = &self.asked[..] else { panic!("{:?}", self.asked) };
        (request, body)
    }
}

fn status(alarms: Vec<Alarm>) -> Server {
    let status = Status {
        server: "astacus-server 1.2.3".to_owned(),
        repository: format_spec::RepositoryId::new(1_700_000_000_000, [7; 10]),
        engine: "fjall".to_owned(),
        snapshots: 3,
        packs: 12,
        chunks: 123_456,
        stored_bytes: 5 << 30,
        open_sessions: 1,
        alarms,
    };
    Server::default().answers("GET /v1/status", &status)
}

#[test]
fn a_status_tells_of_alarms_first_and_still_exits_with_0() {
    let alarm = |code: &str, message: &str| Alarm {
        severity: Severity::Warning,
        subject: None,
        acknowledged: None,
        code: code.to_owned(),
        message: message.to_owned(),
        since: "2023-12-01T22:13:20Z".to_owned(),
    };
    let alarms = vec![
        alarm("clock_jumped", "the clock went back; see `forget --accept-clock`"),
        alarm("low_space", "2% of the site is free"),
    ];

    status(alarms.clone()).admin(&["status"]).exits(0).prints("status.txt");
    let quiet = status(alarms.clone()).admin(&["status", "--quiet"]).exits(0);
    let document = status(alarms).admin(&["status", "--json"]).exits(0).json();

    assert!(stdout(&quiet.output).starts_with("ALARMS: 2\n"));
    assert_eq!(document["alarms"][1]["code"], "low_space");
}

#[test]
fn snapshots_that_are_damaged_going_or_protected_are_marked() {
    let mut snapshots = vec![data::info(1), data::info(2), data::info(3), data::info(4)];
    snapshots[3].damaged = Some("its object: is not on the site".to_owned());
    snapshots[0].going_until = Some("2024-01-01T22:13:20Z".to_owned());
    snapshots[1].protected = Some("audit of 2023".to_owned());
    snapshots[2].pushes = vec![data::push("db-1"), data::push("db-2")];
    // The server returns the first two, and the others on the request for the next part.
    let parts = [
        SnapshotList { snapshots: snapshots[..2].to_vec(), next: Some("2.a".to_owned()) },
        SnapshotList { snapshots: snapshots[2..].to_vec(), next: None },
    ];
    let server = || {
        Server::default()
            .answers("GET /v1/snapshots?cluster=orders", &parts[0])
            .answers("GET /v1/snapshots?cluster=orders&after=2.a", &parts[1])
    };

    server().admin(&["snapshots", "--cluster", "orders"]).exits(0).prints("snapshots.txt");
    let narrow = server().admin(&["snapshots", "--cluster", "orders", "--columns", "state,nodes"]).exits(0);
    let head: Vec<&str> = stdout(&narrow.output).lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["STATE", "NODES"]);
    let document = server().admin(&["snapshots", "--cluster", "orders", "--json"]).exits(0).json();
    let of_node =
        server().admin(&["snapshots", "--cluster", "orders", "--node", "db-1", "--json"]).exits(0).json();
    server().admin(&["snapshots", "--cluster", "orders", "--node", "nobody"]).exits(10);

    assert_eq!(document, serde_json::to_value(&snapshots).unwrap());
    assert_eq!(of_node, document, "all of them hold `db-1`");
}

#[test]
fn all_that_is_known_of_a_snapshot_is_shown() {
    let mut info = data::info(2);
    info.going_until = Some("2024-01-01T22:13:20Z".to_owned());
    info.protected = Some("audit of 2023".to_owned());
    info.damaged = Some("the manifest of node `db-1`: is not on the site".to_owned());
    info.pushes = vec![data::push("db-1"), data::push("db-2")];
    let detail = SnapshotDetail { info, alone_bytes: Some(700 << 20), not_counted: None };
    let id = data::id(2).to_string();
    let server = || Server::default().answers(&format!("GET /v1/snapshots/{id}/detail"), &detail);

    server().admin(&["show", &id]).exits(0).prints("show.txt");
    let document = server().admin(&["show", &id, "--json"]).exits(0).json();

    assert_eq!(document, serde_json::to_value(&detail).unwrap());
}

/// Texts from a node, its push and its protection add no rows, and move no cursor.
#[test]
fn texts_of_a_node_fake_no_rows() {
    let evil = "a\nsnapshot  fake\r\u{1b}[2J\u{9b}1m";
    let mut info = data::info(2);
    (info.protected, info.damaged) = (Some(evil.to_owned()), Some(evil.to_owned()));
    let mut push = data::push("db-1");
    push.stats.fallbacks[0].reason = evil.to_owned();
    info.pushes = vec![push];
    let detail = SnapshotDetail { info: info.clone(), alone_bytes: None, not_counted: Some(evil.to_owned()) };
    let alarm = Alarm {
        severity: Severity::Critical,
        subject: Some(evil.to_owned()),
        acknowledged: None,
        code: "overdue".to_owned(),
        message: evil.to_owned(),
        since: String::new(),
    };
    let list = SnapshotList { snapshots: vec![info], next: None };
    let id = data::id(2).to_string();

    let shown = [
        Server::default().answers(&format!("GET /v1/snapshots/{id}/detail"), &detail).admin(&["show", &id]),
        Server::default().answers("GET /v1/snapshots?cluster=c", &list).admin(&[
            "snapshots",
            "--cluster",
            "c",
        ]),
        status(vec![alarm]).admin(&["status"]),
    ];

    for ran in shown {
        let done = ran.exits(0);
        let text = stdout(&done.output);
        assert!(text.lines().all(|line| !line.trim_start().starts_with("snapshot  fake")), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}

/// S6: what is missing is asked for part by part, of each node, and only if there is any.
#[test]
fn files_that_are_not_whole_are_named_of_each_node() {
    let file = |path: &str, state, reason: Option<&str>| FileProblem {
        path: path.to_owned(),
        state,
        reason: reason.map(str::to_owned),
    };
    let part = |node: &str, problems: Vec<FileProblem>, next: Option<&str>| FileProblems {
        node: node.parse().unwrap(),
        problems,
        next: next.map(str::to_owned),
    };
    let mut info = data::info(2);
    (info.state, info.problems) = (SnapshotState::Partial, 3);
    let mut push = data::push("db-1");
    push.stats.moment = Some(Moment { freeze_ms: 5, moved_on: 1_200, fuzzy: 1, torn: 1, restless: 0 });
    info.pushes = vec![push];
    let detail = SnapshotDetail { info, alone_bytes: Some(700 << 20), not_counted: None };
    let id = data::id(2).to_string();
    let first = vec![file("/a", FileState::Missing, Some("vanished")), file("/b", FileState::Torn, None)];
    let ask = |node: &str, limit: u32, after: &str| {
        format!("GET /v1/snapshots/{id}/problems?node={node}&limit={limit}{after}")
    };
    let last = vec![file("/f", FileState::Fuzzy, None)];
    let other = vec![file("/c", FileState::Incomplete, Some("attributes cannot be read"))];
    let server = || {
        Server::default()
            .answers(&format!("GET /v1/snapshots/{id}/detail"), &detail)
            .answers(&ask("db-1", 1_000, ""), &part("db-1", first.clone(), Some("3-61")))
            .answers(&ask("db-1", 1_000, "&after=3-61"), &part("db-1", last.clone(), None))
            .answers(&ask("db-2", 1_000, ""), &part("db-2", other.clone(), None))
            .answers(&ask("db-1", 2, ""), &part("db-1", first.clone(), Some("3-61")))
    };

    server().admin(&["show", &id]).exits(0).prints("show-partial.txt");
    let document = server().admin(&["show", &id, "--json"]).exits(0).json();
    let few = server().admin(&["show", &id, "--json", "--limit", "2"]).exits(0).json();
    let none = server().admin(&["show", &id, "--limit", "0"]).exits(0);

    assert_eq!(document["problems"], 3);
    assert_eq!(
        (document["not_whole"].as_array().map(Vec::len), &document["all_named"]),
        (Some(4), &json!(true))
    );
    assert_eq!(document["not_whole"][1], json!({ "node": "db-1", "path": "/b", "state": "torn" }));
    assert_eq!((few["not_whole"].as_array().map(Vec::len), &few["all_named"]), (Some(2), &json!(false)));
    assert_eq!(none.asked.len(), 1, "{:?}", none.asked);
}

/// The twin of a list that ends: a server that leads elsewhere, or in circles, is not followed.
#[test]
fn a_server_that_names_no_place_to_go_on_is_not_followed() {
    let mut info = data::info(2);
    (info.state, info.problems, info.nodes) = (SnapshotState::Partial, 3, vec!["db-1".parse().unwrap()]);
    let detail = SnapshotDetail { info, alone_bytes: None, not_counted: None };
    let id = data::id(2).to_string();
    let ask = |after: &str| format!("GET /v1/snapshots/{id}/problems?node=db-1&limit=1000{after}");
    let server = |next: &str| {
        let part =
            FileProblems { node: "db-1".parse().unwrap(), problems: Vec::new(), next: Some(next.to_owned()) };
        Server::default()
            .answers(&format!("GET /v1/snapshots/{id}/detail"), &detail)
            .answers(&ask(""), &part)
            .answers(&ask("&after=3-61"), &part)
    };

    server("3-61").admin(&["show", &id]).exits(0);
    let astray = server("3-61 HTTP/1.1\r\nX: y").admin(&["show", &id]).exits(13);

    assert_eq!(astray.asked.len(), 2, "{:?}", astray.asked);
}

#[test]
fn a_plan_to_forget_is_a_table_with_reasons_and_a_total() {
    let server = || Server::default().answers("POST /v1/forget", &data::forget(RunMode::Plan));

    let done =
        server().admin(&["forget", "--dry-run", "--keep-daily", "0"]).exits(0).prints("forget-plan.txt");
    server().admin(&["forget", "--dry-run", "--json"]).exits(0).prints("forget-plan.json");

    let (_, body) = done.request();
    assert_eq!((&body["mode"], &body["policy"]), (&json!("plan"), &json!({"keep_daily": 0})));
}

#[test]
fn forgetting_says_what_went_and_with_nothing_given_leaves_the_choice_to_the_server() {
    let server = || Server::default().answers("POST /v1/forget", &data::forget(RunMode::Apply));

    let done = server().admin(&["forget"]).exits(0).prints("forget.txt");
    let quiet = server().admin(&["forget", "-q"]).exits(0);

    let (_, body) = done.request();
    assert_eq!(body["mode"], "apply");
    assert_eq!(
        (&body["policy"], &body["cluster"], &body["snapshots"]),
        (&Value::Null, &Value::Null, &json!([]))
    );
    assert_eq!(stdout(&quiet.output), "");
}

/// A script that deletes a snapshot by its id is informed if the snapshot is kept.
#[test]
fn a_snapshot_that_was_named_and_stays_is_told_by_exit_code_3() {
    let server = || Server::default().answers("POST /v1/forget", &data::forget(RunMode::Apply));
    let [going, goes, kept, unknown] = [1, 2, 3, 4].map(|day| data::id(day).to_string());

    server().admin(&["forget", &going, &goes]).exits(0);
    let named = server().admin(&["forget", &goes, &kept, "--quiet"]).exits(3);
    let missing = server().admin(&["forget", &unknown, "--json"]).exits(3);

    assert!(
        stdout(&named.output).ends_with(&format!("NOT DELETED although it was named: snapshot {kept}\n"))
    );
    assert_eq!(missing.json()["stayed"], json!([unknown]));
}

/// A script or a tired operator names a snapshot by a part of its id; what changes one is sure which it is.
#[test]
fn a_snapshot_can_be_named_by_a_part_of_its_id_or_as_the_latest() {
    let mut two_series = vec![data::info(1), data::info(2)];
    two_series[1].cluster = "other".parse().unwrap();
    let one_series = vec![data::info(1), data::info(2)];
    let id = data::id(2).to_string();
    let detail = SnapshotDetail { info: data::info(2), alone_bytes: Some(1), not_counted: None };
    let server = |snapshots: &[SnapshotInfo]| {
        let list = SnapshotList { snapshots: snapshots.to_vec(), next: None };
        Server::default()
            .answers("GET /v1/snapshots", &list)
            .answers(&format!("GET /v1/snapshots/{id}/detail"), &detail)
            .answers("POST /v1/forget", &data::forget(RunMode::Apply))
    };

    server(&two_series).admin(&["show", &id[28..]]).exits(0);
    server(&one_series).admin(&["show", "latest"]).exits(0);
    let several = server(&two_series).admin(&["show", "latest"]).exits(2);
    let none = server(&one_series).admin(&["show", "ffff"]).exits(10);
    let two_fit = server(&one_series).admin(&["forget", &id[..4]]).exits(2);
    let latest = server(&one_series).admin(&["forget", "latest"]).exits(2);
    let forgotten = server(&one_series).admin(&["forget", &id[28..]]).exits(0);

    assert!(stderr(&several.output).contains("2 series"));
    assert!(stderr(&none.output).contains("`ffff`"));
    assert!(stderr(&two_fit.output).contains("2 snapshots have ids"));
    assert!(stderr(&latest.output).contains("give the id of the snapshot"));
    for refused in [&two_fit, &latest] {
        assert!(!refused.asked.iter().any(|(line, _)| line.starts_with("POST")), "{:?}", refused.asked);
    }
    assert_eq!(forgotten.asked.last().unwrap().1["snapshots"], json!([id]));
}

#[test]
fn snapshots_come_back_each_by_itself() {
    let ids = [1, 2, 3].map(|day| data::id(day).to_string());
    let [first, second, third] = ids.each_ref().map(|id| format!("POST /v1/snapshots/{id}/undelete"));
    let server = || {
        let gone = refusal("no_such_snapshot", ErrorClass::NotFound, "it was purged");
        let server = Server::default().answers(&first, &data::info(1)).answers(&third, &data::info(3));
        server.refuses(&second, 404, &gone)
    };

    server().admin(&["undelete", &ids[2], &ids[0], &ids[0]]).exits(0).prints("undelete.txt");
    let partly = server().admin(&["undelete", &ids[0], &ids[1], &ids[2], "-q"]).exits(3);
    let document = server().admin(&["undelete", &ids[0], &ids[1], "--json"]).exits(3).json();
    let none = server().admin(&["undelete", &ids[1]]).exits(10);

    assert_eq!(partly.asked.len(), 3);
    assert!(stdout(&partly.output).contains(&format!("NOT undeleted: snapshot {}: ", ids[1])));
    assert_eq!(document["snapshots"][0]["id"], ids[0]);
    assert_eq!(document["failed"][0]["code"], "no_such_snapshot");
    assert_eq!(stdout(&none.output), "");
    assert!(stderr(&none.output).contains("purged"));
}

#[test]
fn a_snapshot_is_protected_and_freed_again() {
    let id = data::id(2).to_string();
    let path = format!("/v1/snapshots/{id}/protection");
    let mut protected = data::info(2);
    protected.protected = Some("audit of 2023".to_owned());
    let server = || {
        let server = Server::default().answers(&format!("PUT {path}"), &protected);
        server.answers(&format!("DELETE {path}"), &data::info(2))
    };

    let on = server().admin(&["protect", &id, "--reason", "audit of 2023"]).exits(0).prints("protect.txt");
    server().admin(&["protect", "--off", &id]).exits(0).prints("protect-off.txt");
    let document = server().admin(&["protect", "--off", &id, "--json"]).exits(0).json();

    assert_eq!(on.request().1, &json!({"reason": "audit of 2023"}));
    assert_eq!(document, serde_json::to_value(data::info(2)).unwrap());
}

fn collector(report: GcReport) -> Server {
    let progress =
        |phase: &str, done| OperationEvent::Progress { phase: Some(phase.to_owned()), done, total: None };
    let events = [progress("purge", 1), progress("chunks", 3_400), OperationEvent::Report(report)];
    Server::default().streams("POST /v1/gc", &events)
}

#[test]
fn a_run_of_the_collector_says_what_went_what_is_held_and_what_waits() {
    let run = || collector(data::gc(RunMode::Apply));

    let done = run().admin(&["gc", "--now", "--allow-large", "--max-copy", "0"]).exits(0).prints("gc.txt");
    run().admin(&["gc", "--json"]).exits(0).prints("gc.json");
    let quiet = run().admin(&["gc", "-q"]).exits(0);

    let expected = json!({"mode": "apply", "delays": "skip", "large": "allow", "max_copy_bytes": 0});
    assert_eq!(done.request(), ("POST /v1/gc", &expected));
    assert_eq!(stdout(&quiet.output), "");
}

#[test]
fn a_plan_is_short_and_an_explanation_lists_everything() {
    let plan = || collector(data::gc(RunMode::Plan));

    let short = plan().admin(&["gc", "--dry-run"]).exits(0).prints("gc-plan.txt");
    let whole = plan().admin(&["gc", "--explain"]).exits(0).prints("gc-explain.txt");

    assert_eq!([short.request().1, whole.request().1].map(|body| &body["mode"]), [&json!("plan"); 2]);
}

#[test]
fn a_run_that_did_not_do_everything_exits_with_3_and_says_why() {
    let stopped =
        |mode| GcReport { mode, stopped: Some("more than a day's share".to_owned()), ..GcReport::default() };
    let hurt = || GcReport { problems: vec!["pack:00: no answer".to_owned()], ..GcReport::default() };

    let reports = [stopped(RunMode::Apply), stopped(RunMode::Plan), hurt()];
    let told =
        reports.map(|report| stdout(&collector(report).admin(&["gc", "-q"]).exits(3).output).to_owned());

    let last = told.each_ref().map(|told| told.lines().last().unwrap());
    let expected = [
        "STOPPED EARLY: more than a day's share",
        "A RUN WOULD STOP EARLY: more than a day's share",
        "PROBLEM: pack:00: no answer",
    ];
    assert_eq!(last, expected);
}

#[test]
fn a_run_that_failed_half_way_has_the_servers_words_and_the_exit_code_of_its_class() {
    let failed = || {
        let full = refusal("full", ErrorClass::Unavailable, "no space left");
        Server::default().streams("POST /v1/gc", &[OperationEvent::<GcReport>::Failed(full)])
    };

    let text = failed().admin(&["gc"]).exits(14);
    let document = failed().admin(&["gc", "--json"]).exits(14).json();

    assert!(stderr(&text.output).contains("no space left (full, says http://"), "{}", stderr(&text.output));
    assert_eq!((&document["error"]["code"], &document["error"]["exit_code"]), (&json!("full"), &json!(14)));
}

#[test]
fn statistics_are_by_cluster_node_and_snapshot() {
    let server = || Server::default().answers("GET /v1/stats", &data::stats());

    server().admin(&["stats"]).exits(0).prints("stats.txt");
    server().admin(&["stats", "--cluster", "logs"]).exits(0).prints("stats-cluster.txt");
    let all = server().admin(&["stats", "--json"]).exits(0).json();
    server().admin(&["stats", "--cluster", "logs", "--json"]).exits(0).prints("stats-cluster.json");
    let none = server().admin(&["stats", "--cluster", "lgos"]).exits(10);

    let mut expected = serde_json::to_value(data::stats()).unwrap();
    expected["directory_bytes"] = json!(26_004_685);
    assert_eq!(all, expected);
    assert!(stderr(&none.output).contains("`lgos`"));
}

#[test]
fn what_cannot_be_counted_is_said_and_exits_with_3() {
    let why = "manifest 07: is not on the site";
    let mut stats = data::stats();
    let lost = stats.snapshots.pop().unwrap();
    stats.not_counted = vec![NotCounted { id: lost.id, cluster: lost.cluster, why: why.to_owned() }];
    let detail = SnapshotDetail { info: data::info(3), alone_bytes: None, not_counted: Some(why.to_owned()) };
    let id = lost.id.to_string();
    let server = || {
        let server = Server::default().answers("GET /v1/stats", &stats);
        server.answers(&format!("GET /v1/snapshots/{id}/detail"), &detail)
    };
    let said = format!("NOT COUNTED: {id}: {why}");

    let all = server().admin(&["stats"]).exits(3);
    let its_own = server().admin(&["stats", "--cluster", "orders", "--json"]).exits(3).json();
    let another = server().admin(&["stats", "--cluster", "logs"]).exits(0);
    let shown = server().admin(&["show", &id]).exits(0);

    assert!(stdout(&all.output).contains(&said), "{all:?}");
    assert_eq!(its_own["not_counted"], json!([{ "id": id, "cluster": "orders", "why": why }]));
    assert!(!stdout(&another.output).contains("NOT COUNTED"), "{another:?}");
    assert!(stdout(&shown.output).contains(&format!("NOT COUNTED: {why}")), "{shown:?}");
}

#[test]
fn a_chunk_is_located_and_known_damage_exits_with_13() {
    let chunk = data::location(BlobKind::Chunk);
    let mut page = data::location(BlobKind::Page);
    page.idle_since = Some(7);
    page.damaged = Some("fails authentication".to_owned());
    let id = chunk.id.to_string();
    let server = |place| Server::default().answers(&format!("GET /v1/chunks/{id}"), place);

    server(&chunk).admin(&["chunk", "locate", &id]).exits(0).prints("chunk.txt");
    server(&page).admin(&["chunk", "locate", &id]).exits(13).prints("page.txt");
    let document = server(&page).admin(&["chunk", "locate", &id, "--json"]).exits(13).json();

    assert_eq!(document, serde_json::to_value(&page).unwrap());
}

#[test]
fn a_refusal_is_one_document_and_its_class_is_the_exit_code() {
    let id = data::id(2).to_string();
    for (arguments, request, status, class, code) in [
        (&["forget", &id][..], "POST /v1/forget".to_owned(), 409, ErrorClass::Conflict, 11),
        (&["show", &id], format!("GET /v1/snapshots/{id}/detail"), 404, ErrorClass::NotFound, 10),
        (&["gc"], "POST /v1/gc".to_owned(), 409, ErrorClass::Conflict, 11),
        (&["stats"], "GET /v1/stats".to_owned(), 401, ErrorClass::Denied, 12),
        (
            &["protect", "--off", &id],
            format!("DELETE /v1/snapshots/{id}/protection"),
            400,
            ErrorClass::Usage,
            2,
        ),
    ] {
        let body = refusal("its_code", class, "its reason");
        let server = || Server::default().refuses(&request, status, &body);

        let text = server().admin(arguments).exits(code);
        let document = server().admin(&[arguments, &["--json"]].concat()).exits(code).json();

        assert_eq!(stdout(&text.output), "", "{arguments:?}");
        assert!(
            stderr(&text.output).contains("its reason (its_code, says http://"),
            "{}",
            stderr(&text.output)
        );
        assert!(!stderr(&text.output).contains("run the command again"), "{}", stderr(&text.output));
        assert_eq!(document["error"]["code"], "its_code", "{arguments:?}");
    }
}

/// A server of an earlier version does not know these paths, and says so in its own words; anybody else's 404 is no answer.
#[test]
fn a_path_that_the_server_does_not_know_is_not_found() {
    let id = data::id(1).to_string();
    let unknown = refusal("no_such_route", ErrorClass::NotFound, "there is no such route");
    for (arguments, request) in [
        (&["stats"][..], "GET /v1/stats".to_owned()),
        (&["gc"], "POST /v1/gc".to_owned()),
        (&["forget"], "POST /v1/forget".to_owned()),
        (&["undelete", &id], format!("POST /v1/snapshots/{id}/undelete")),
    ] {
        let ours = Server::default().refuses(&request, 404, &unknown).admin(arguments).exits(10);
        let foreign = Server::default().admin(arguments).exits(2);

        assert!(stderr(&ours.output).contains("there is no such route"), "{}", stderr(&ours.output));
        assert!(stderr(&foreign.output).contains("is not an Astacus server"), "{}", stderr(&foreign.output));
    }
}

/// Runs `rebuild` as a copy of the program in a folder of its own, beside this script if there is one.
fn rebuild(script: Option<&str>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("astacus-admin");
    fs::hard_link(env!("CARGO_BIN_EXE_astacus-admin"), &program)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_astacus-admin"), &program).map(|_| ()))
        .unwrap();
    if let Some(script) = script {
        let server = folder.path().join("astacus-server");
        fs::write(&server, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let line = ["rebuild", "--data-dir", "d d", "--from-site", "file:///s", "--keyring", "k"];
    let mut command = Command::new(program);
    command.args(line).args(arguments).env_clear().env("PATH", folder.path().join("empty"));
    command.output().unwrap()
}

#[test]
fn a_rebuild_is_the_servers_with_its_arguments_output_and_exit_code() {
    let script = "printf '%s|' \"$@\"; echo told >&2; exit 13";

    let plain = rebuild(Some(script), &[]);
    let more = rebuild(Some(script), &["--json", "--", "--jobs", "2"]);

    assert_eq!(plain.status.code(), Some(13));
    assert_eq!(stdout(&plain), "rebuild|--data-dir|d d|--from-site|file:///s|--keyring|k|");
    assert_eq!(stderr(&plain), "told\n");
    assert!(stdout(&more).ends_with("|--keyring|k|--json|--jobs|2|"), "{}", stdout(&more));
}

#[test]
fn a_rebuild_without_the_servers_program_says_what_is_missing() {
    let text = rebuild(None, &[]);
    let document = rebuild(None, &["--json"]);

    assert_eq!((text.status.code(), document.status.code()), (Some(10), Some(10)));
    assert!(stderr(&text).contains("`astacus-server` was not found"), "{}", stderr(&text));
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["error"]["class"], "not_found");
}

/// Every verdict has its word, so that no table shows one as another.
#[test]
fn verdicts_have_words_of_their_own() {
    let report = data::forget(RunMode::Apply);
    let done = Server::default().answers("POST /v1/forget", &report).admin(&["forget"]).exits(0);
    for (line, word) in report.snapshots.iter().zip(["going", "FORGET", "keep"]) {
        let row = stdout(&done.output).lines().find(|row| row.starts_with(&line.id.to_string())).unwrap();
        assert!(row.contains(word), "{row}");
        assert_eq!(row.contains("2024-01-"), line.verdict != Verdict::Keep, "{row}");
    }
}
