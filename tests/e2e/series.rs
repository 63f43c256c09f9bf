//! Pushes of different folders of one node are series of their own: for policies, `latest`, and whoever reads a list.

use std::fs;
use std::path::PathBuf;

use tests::client::{Client, Done, text};
use tests::world::World;

/// The server does no work of its own, so that each test decides the time.
const BY_HAND: &str = "[gc]\nevery_minutes = 0\n";

/// A node with two jobs: its settings, pushed once, and its data, pushed often.
struct Jobs {
    world: World,
    node: Client,
    etc: PathBuf,
    data: PathBuf,
}

impl Jobs {
    fn new() -> Self {
        let world = World::with_config(BY_HAND);
        let (etc, data) = (world.dir("etc"), world.dir("db"));
        fs::write(etc.join("conf"), "the settings").unwrap();
        let jobs = Self { node: world.node("n"), world, etc, data };
        jobs.node.push(&jobs.etc);
        for n in 0..3 {
            fs::write(jobs.data.join("table"), format!("table {n}")).unwrap();
            jobs.node.push(&jobs.data);
        }
        jobs
    }

    fn restore(&self, to: &str, more: &[&str]) -> Done {
        self.node.restore("latest", &self.world.path(to), &[&["--strip-root"], more].concat())
    }
}

/// G8: the only snapshot of a folder does not go because another one was pushed often.
#[test]
fn a_policy_keeps_the_last_of_each_series_and_its_plan_says_which_folders_go() {
    let jobs = Jobs::new();
    let policy = ["forget", "--minimum", "1", "--keep-last", "2"];

    let plan = jobs.node.admin(&[&policy[..], &["--dry-run"]].concat()).exits(0);
    let gone = plan.stdout.lines().filter(|line| line.contains("FORGET")).collect::<Vec<_>>();
    assert_eq!(gone.len(), 1, "{}", plan.stdout);
    for part in ["  n  ", "/db "] {
        assert!(gone[0].contains(part), "{}", plan.stdout);
    }
    jobs.node.admin(&policy).exits(0);

    jobs.restore("etc-again", &["--series", jobs.etc.to_str().unwrap()]).exits(0);
    assert_eq!(fs::read_to_string(jobs.world.path("etc-again/conf")).unwrap(), "the settings");
    jobs.node.admin(&["forget", "--node", "nobody", "--keep-last", "1"]).exits(2);
}

/// S11: `latest` is never of whichever folder happened to be pushed last.
#[test]
fn latest_of_several_series_is_asked_for_unless_folders_or_paths_decide() {
    let jobs = Jobs::new();
    let (etc, data) = (jobs.etc.to_str().unwrap(), jobs.data.to_str().unwrap());

    let refused = jobs.restore("none", &[]).exits(2);
    for part in [etc, data, "--series"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert!(!jobs.world.path("none").exists());
    let verified = jobs.node.run(["verify", "latest"]).exits(2);
    assert!(verified.stderr.contains("--series"), "{}", verified.stderr);

    jobs.restore("one", &["--series", data]).exits(0);
    assert_eq!(fs::read_to_string(jobs.world.path("one/table")).unwrap(), "table 2");
    jobs.restore("two", &["--path", &format!("{etc}/conf")]).exits(0);
    assert!(jobs.world.path("two/conf").exists());
    jobs.node.run(["verify", "latest", "--series", etc]).exits(0);
    let unknown = jobs.restore("three", &["--series", "/nowhere"]).exits(10);
    assert!(unknown.stderr.contains(etc), "{}", unknown.stderr);
}

#[test]
fn lists_reports_and_documents_name_folders_and_series() {
    let jobs = Jobs::new();
    let (etc, data) = (jobs.etc.to_str().unwrap(), jobs.data.to_str().unwrap());
    let named = jobs.node.push_with(&jobs.data, &["--series", "nightly"]);

    for list in [jobs.node.run(["list"]), jobs.node.admin(&["snapshots"]), jobs.node.admin(&["stats"])] {
        let list = list.exits(0).stdout;
        assert!(list.contains("FOLDERS") && list.contains("nightly"), "{list}");
        assert_eq!(list.matches(&etc[..20]).count(), 4, "{list}");
    }
    let shown = jobs.node.admin(&["show", &text(&named, "snapshot")]).exits(0).stdout;
    assert!(shown.contains(&format!("series nightly: {data}")), "{shown}");
    let listed = jobs.node.run(["list", "--json"]).exits(0).json();
    let series = |n: usize| text(&listed[n], "series");
    assert_eq!(listed[0]["origins"][0]["roots"][0], etc);
    assert_eq!((series(1), series(2)), (series(3), series(3)));
    assert!(series(0) != series(1) && series(4) != series(1), "{listed}");
    assert_eq!(listed[4]["origins"][0]["series"], "nightly");
}

/// S10: a volume that is not mounted looks like an empty folder.
#[test]
fn a_source_that_is_suddenly_empty_is_suspect_until_somebody_says_that_it_is_meant() {
    let jobs = Jobs::new();
    let before = jobs.node.run(["list", "--json"]).exits(0).json();
    fs::remove_file(jobs.data.join("table")).unwrap();

    let pushed = jobs.node.start_push_of(&[&jobs.data], &[]).wait().exits(3).json();
    assert_eq!((&pushed["suspect"]["files"], &pushed["state"]), (&1.into(), &"complete".into()), "{pushed}");
    let status = jobs.node.admin(&["status"]);
    assert!(status.stdout.contains("suspect_snapshot"), "{}", status.stdout);
    jobs.node.admin(&["forget", "--minimum", "1", "--keep-last", "1"]).exits(0);
    let last = text(&before[3], "id");
    let restored = jobs.restore("before", &["--series", jobs.data.to_str().unwrap()]).exits(0);
    assert!(restored.stderr.contains("much smaller"), "{}", restored.stderr);
    assert!(restored.stdout.contains(&last), "{}", restored.stdout);
    assert_eq!(fs::read_to_string(jobs.world.path("before/table")).unwrap(), "table 2");

    jobs.node.push_with(&jobs.data, &["--accept-smaller"]);
    let status = jobs.node.admin(&["status"]);
    assert!(!status.stdout.contains("suspect_snapshot"), "{}", status.stdout);
    jobs.restore("empty", &["--series", jobs.data.to_str().unwrap()]).exits(0);
    assert_eq!(fs::read_dir(jobs.world.path("empty")).unwrap().count(), 0);
}

#[test]
fn a_snapshot_can_be_named_by_how_its_id_begins_or_ends() {
    let jobs = Jobs::new();
    let listed = jobs.node.run(["list", "--json"]).exits(0).json();
    let id = text(&listed[0], "id");

    jobs.node.restore(&id[28..], &jobs.world.path("by-its-end"), &["--strip-root"]).exits(0);
    assert!(jobs.world.path("by-its-end/conf").exists());
    let several = jobs.node.run(["verify", &id[..6]]).exits(2);
    assert!(several.stderr.contains("begin or end with"), "{}", several.stderr);
    jobs.node.run(["verify", "ffffffff"]).exits(10);
}
