//! Labels of snapshots, jobs of a configuration file, and progress without a terminal.

use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tests::client::{Client, Running, text};
use tests::wait;
use tests::world::World;

/// Writes the user's file of a node.
fn configure(node: &Client, file: &str) {
    let folder = node.home().join(".config/astacus");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("client.toml"), file).unwrap();
}

#[test]
fn labels_and_notes_are_listed_and_choose_snapshots_in_all_programs() {
    let world = World::with_config("[gc]\nevery_minutes = 0\n");
    let (node, source) = (world.node("n"), world.dir("source"));
    let push = |content: &str, more: &[&str]| {
        fs::write(source.join("file"), content).unwrap();
        text(&node.push_with(&source, more), "snapshot")
    };
    let before = push("before", &["--label", "release=4.1", "--note", "before the migration"]);
    push("between", &["--label", "release=4.2", "--label", "env=prod"]);
    let after = push("after", &[]);

    let listed = node.snapshots();
    assert_eq!(listed[0]["labels"], json!({"release": "4.1"}));
    assert_eq!(listed[0]["note"], "before the migration");
    assert_eq!((listed[2].get("labels"), listed[2].get("note")), (None, None));
    let chosen = node.run(["list", "--label", "release"]).exits(0).stdout;
    for part in ["LABELS", "release=4.1 \"before the migration\"", "env=prod release=4.2"] {
        assert!(chosen.contains(part) && !chosen.contains(&after), "{chosen}");
    }
    let of_admin = node.admin(&["snapshots", "--label", "release=4.1"]).exits(0).stdout;
    assert!(of_admin.contains(&before) && of_admin.lines().count() == 2, "{of_admin}");
    let shown = node.admin(&["show", &before]).exits(0).stdout;
    assert!(shown.contains("release=4.1") && shown.contains("before the migration"), "{shown}");
    node.restore("latest", &world.path("to"), &["--strip-root", "--label", "release=4.1"]).exits(0);
    assert_eq!(fs::read_to_string(world.path("to/file")).unwrap(), "before");
    node.restore("latest", &world.path("none"), &["--label", "release=9"]).exits(10);
    node.restore(&before, &world.path("none"), &["--label", "release"]).exits(2);
    node.run(["verify", "latest", "--label", "env"]).exits(0);
    // A rule counts those with the label only, and no other goes.
    node.admin(&["forget", "--label", "release", "--minimum", "1", "--keep-last", "1"]).exits(0);
    let going = |snapshot: &&Value| snapshot.get("going_until").is_some();
    let going: Vec<String> = node.snapshots().iter().filter(going).map(|one| text(one, "id")).collect();
    assert_eq!(going, [before]);
    node.admin(&["forget", "--label", "team", "--keep-last", "1"]).exits(2);
}

#[test]
fn a_job_of_the_configuration_is_listed_and_pushed() {
    let world = World::new();
    let (node, source) = (world.node("n"), world.dir("source"));
    fs::write(source.join("file"), "content").unwrap();
    fs::write(source.join("scratch.tmp"), "scratch").unwrap();
    let roots = source.display();
    configure(
        &node,
        &format!(
            "[job.etc]\nroots = ['{roots}']\nexclude = ['*.tmp']\nseries = 'settings'\nlabel = ['env=prod']\n\
             schedule = 'each night'\n[job.db]\ncommand = 'db.sql'\nprogram = ['printf', 'data']\n"
        ),
    );

    let listed = node.run(["jobs", "--json"]).exits(0).json();
    let pushed = node.run(["push", "--job", "etc", "--json", "--label", "by=hand"]).exits(0).json();
    node.run(["push", "--job", "db"]).exits(0);

    let names: Vec<String> = listed.as_array().unwrap().iter().map(|job| text(job, "name")).collect();
    assert_eq!((names, text(&listed[1], "schedule")), (vec!["db".into(), "etc".into()], "each night".into()));
    assert_eq!(pushed["files"], 1, "the exclude is that of the job");
    let snapshots = node.snapshots();
    assert_eq!(snapshots[0]["labels"], json!({"by": "hand", "env": "prod"}));
    assert_eq!(snapshots[0]["origins"][0]["series"], "settings");
    assert_eq!(snapshots[1]["origins"][0]["roots"], json!(["stream:db.sql"]));
    let unknown = node.run(["push", "--job", "var"]).exits(10);
    assert!(unknown.stderr.contains("known jobs: db, etc"), "{}", unknown.stderr);
    configure(&node, &format!("[job.etc]\nroots = ['{roots}']\nexcludes = ['*.tmp']\n"));
    let refused = node.run(["push", "--job", "etc"]).exits(2);
    for part in ["client.toml", "job `etc`", "`excludes`"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    // A mistake in a job is in the way of nothing else.
    node.run(["list"]).exits(0);
}

#[test]
fn progress_is_told_as_json_lines_without_a_terminal() {
    let world = World::new();
    let (node, source) = (world.node("n"), world.dir("source"));
    fs::write(source.join("file"), "content").unwrap();
    let lines = |done: tests::client::Done| -> Vec<Value> {
        done.exits(0).stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let push = lines(node.start_push_of(&[&source], &["--progress", "json"]).wait());
    let restore = lines(node.restore("latest", &world.path("to"), &["--progress", "json"]));
    let quiet = node.start_push_of(&[&source], &[]).wait().exits(0);

    let phases: Vec<&str> = push.iter().filter_map(|line| line["phase"].as_str()).collect();
    assert_eq!(phases, ["listing", "sending", "committing", "committing"]);
    let last = push.last().unwrap();
    assert_eq!((&last["bytes"], &last["bytes_total"]), (&json!(7), &json!(7)));
    assert_eq!(restore.last().unwrap()["bytes"], 7, "{restore:?}");
    assert_eq!(quiet.stderr, "", "nothing is told unless it was asked for");
}

#[test]
fn a_user_signal_asks_for_one_line_of_progress() {
    let world = World::new();
    let node = world.node("n").wrapped(&["sh", "-c", "exec \"$@\" 2> progress", "sh"]);
    let mut command = node.command();
    // The command waits for whoever writes into the pipe `gate`.
    let line = "printf 12345; mkfifo gate.new; mv gate.new gate; cat gate";
    command.args(["push", "--command", "data", "--", "sh", "-c", line]);
    let push = Running::start(command);
    let gate = node.home().join("gate");
    wait::for_state("the command", || gate.exists().then_some(()));

    kill_process(push.pid(), Signal::USR1).unwrap();

    let told = || fs::read_to_string(node.home().join("progress")).ok().filter(|text| text.ends_with('\n'));
    let text = wait::for_state("a line of progress", told);
    assert!(text.starts_with("read ") && text.lines().count() == 1, "{text}");
    fs::write(gate, "6789").unwrap();
    push.wait().exits(0);
}
