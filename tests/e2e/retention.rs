//! Which snapshots go and which stay, by name and by policy, and how they come back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::client::{Client, Done, number, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::gear;
use tests::seed::Random;
use tests::world::World;

/// The server does no work of its own, so that each test decides the time.
const BY_HAND: &str = "[gc]\nevery_minutes = 0\n";

/// One node, and the trees of its snapshots.
struct Years {
    world: World,
    node: Client,
    root: PathBuf,
    random: Random,
}

impl Years {
    fn new() -> Self {
        Self::with_config(BY_HAND)
    }

    fn with_config(config: &str) -> Self {
        let world = World::with_config(config);
        let root = world.dir("source");
        fs::write(root.join("common"), "in each snapshot").unwrap();
        Self { node: world.node("n"), root, random: Random::printed(), world }
    }

    /// Pushes a new file beside all that is there, keeps a copy of the tree, and returns the snapshot.
    fn push(&mut self) -> String {
        fs::write(self.root.join("changes"), self.random.bytes(100_000)).unwrap();
        let id = text(&self.node.push(&self.root), "snapshot");
        corpus::copy(&self.root, &self.world.path(&id));
        id
    }

    fn pushes<const N: usize>(&mut self) -> [String; N] {
        [(); N].map(|()| self.push())
    }

    fn admin(&self, words: &[&str]) -> Done {
        self.node.admin(&[words, &["--json"]].concat())
    }

    fn forget(&self, words: &[&str]) -> Value {
        self.admin(&[&["forget"], words].concat()).exits(0).json()
    }

    /// A refusal to forget, whose reason holds `why`.
    #[track_caller]
    fn refuses(&self, words: &[&str], code: i32, why: &str) {
        let before = self.listed();
        let done = self.node.admin(&[&["forget"], words].concat()).exits(code);
        assert!(done.stderr.contains(why), "no `{why}` in: {}", done.stderr);
        assert_eq!(self.listed(), before, "what is refused changes nothing");
    }

    /// All snapshots, and whether each is going.
    fn listed(&self) -> Vec<(String, bool)> {
        let listed = self.admin(&["snapshots"]).exits(0).json();
        let listed = listed.as_array().unwrap().iter();
        listed.map(|info| (text(info, "id"), info["going_until"].is_string())).collect()
    }

    fn assert_restores(&self, id: &str) {
        let to = self.world.path(&format!("restored-{id}"));
        self.node.restore(id, &to, &["--strip-root"]).exits(0);
        assert_same(&self.world.path(id), &to);
        fs::remove_dir_all(to).unwrap();
    }
}

/// Snapshots and verdicts of a report, in its order.
fn verdicts(report: &Value) -> Vec<(String, String)> {
    let lines = report["snapshots"].as_array().unwrap().iter();
    lines.map(|line| (text(line, "id"), text(line, "verdict"))).collect()
}

fn pairs(ids: &[&String], verdict: &[&str]) -> Vec<(String, String)> {
    ids.iter().map(|id| (*id).clone()).zip(verdict.iter().map(|verdict| (*verdict).to_owned())).collect()
}

#[test]
fn a_dry_run_tells_the_verdict_on_each_snapshot_and_applying_it_does_the_same() {
    let mut years = Years::new();
    let [one, two, three, four] = years.pushes();
    let policy = ["--minimum", "0", "--keep-last", "2"];

    let plan = years.forget(&[&policy[..], &["--dry-run"]].concat());
    let untouched = years.listed();
    let shown = years.node.admin(&[&["forget", "--dry-run"], &policy[..]].concat()).exits(0).stdout;
    let applied = years.forget(&policy);

    let verdict = ["forget", "forget", "keep", "keep"];
    assert_eq!(verdicts(&plan), pairs(&[&one, &two, &three, &four], &verdict));
    assert!(untouched.iter().all(|(_, going)| !going), "{untouched:?}");
    for line in plan["snapshots"].as_array().unwrap() {
        assert!(!line["reasons"].as_array().unwrap().is_empty(), "{line}");
        assert!(number(line, "frees_bytes") > 100_000, "{line}");
        assert_eq!(line["until"].is_string(), text(line, "verdict") == "forget", "{line}");
    }
    for (id, verdict) in verdicts(&plan) {
        let line = shown.lines().find(|line| line.starts_with(&id)).unwrap();
        assert!(line.to_lowercase().contains(&verdict) && line.contains("KiB"), "{line}");
    }
    assert!(shown.contains("nothing was changed"), "{shown}");
    assert_eq!(verdicts(&applied), verdicts(&plan));
    assert_eq!(applied["frees_bytes"], plan["frees_bytes"]);
    let going: Vec<bool> = years.listed().into_iter().map(|(_, going)| going).collect();
    assert_eq!(going, [true, true, false, false]);
    let again = years.forget(&policy);
    assert_eq!(verdicts(&again), pairs(&[&one, &two, &three, &four], &["going", "going", "keep", "keep"]));
    assert_eq!(number(&again, "frees_bytes"), 0);
}

/// S1: what is forgotten restores until it is purged, and undeleted it stays.
#[test]
fn what_was_forgotten_comes_back_until_it_is_purged() {
    let mut years = Years::new();
    let [one, two, three] = years.pushes();
    years.forget(&[&one, &two]);
    years.assert_restores(&one);
    let show = years.node.admin(&["show", &one]).exits(0).stdout;
    assert!(show.contains("DELETED"), "{show}");

    years.admin(&["undelete", &one]).exits(0);
    let waiting = years.admin(&["gc", "--explain"]).exits(0).json();
    years.admin(&["gc"]).exits(0);
    assert_eq!(years.listed(), [(one.clone(), false), (two.clone(), true), (three.clone(), false)]);
    assert!(waiting["waiting"].to_string().contains(&two), "{waiting}");
    let purged = years.admin(&["gc", "--now"]).exits(0).json();

    assert_eq!(purged["purged"], json!([two]));
    assert_eq!(years.listed(), [(one.clone(), false), (three.clone(), false)]);
    years.admin(&["undelete", &two]).exits(10);
    years.admin(&["show", &two]).exits(10);
    assert_eq!(years.node.restore(&two, &years.world.path("gone"), &[]).code, Some(10));
    let some = years.admin(&["undelete", &two, &one]).exits(3).json();
    assert_eq!((text(&some["snapshots"][0], "id"), text(&some["failed"][0], "id")), (one.clone(), two));
    years.assert_restores(&one);
    years.assert_restores(&three);
}

/// A delay of nothing: forgotten is gone with the next run of the collector, without `--now`.
#[test]
fn without_delays_a_forgotten_snapshot_goes_with_the_next_run() {
    let config = "[gc]\nevery_minutes = 0\nundelete_hours = 0\ndelete_delay_hours = 0\n";
    let mut years = Years::with_config(config);
    let [one, two] = years.pushes();
    years.forget(&[&one]);

    let report = years.admin(&["gc"]).exits(0).json();

    assert_eq!((&report["purged"], &report["waiting"]), (&json!([one]), &json!([])), "{report}");
    assert_eq!(years.listed(), [(two.clone(), false)]);
    years.assert_restores(&two);
}

#[test]
fn a_protected_snapshot_stays_until_its_protection_is_taken_off() {
    let mut years = Years::new();
    let [one, two, _] = years.pushes();
    years.admin(&["protect", &one, "--reason", "audit of 2026"]).exits(0);

    years.refuses(&[&one], 11, "audit of 2026");
    years.refuses(&[&two, &one], 11, "protect --off");
    let by_policy = years.forget(&["--minimum", "0", "--keep-last", "1", "--maximum", "1", "--dry-run"]);
    assert_eq!(verdicts(&by_policy)[0].1, "keep", "{by_policy}");
    assert!(by_policy["snapshots"][0]["reasons"].to_string().contains("protected"), "{by_policy}");
    for command in [&["snapshots"][..], &["show", &one]] {
        let shown = years.node.admin(command).exits(0).stdout;
        assert!(shown.contains("audit of 2026"), "{shown}");
    }
    years.admin(&["protect", &one, "--off"]).exits(0);
    years.forget(&[&one]);

    assert_eq!(years.listed()[0], (one.clone(), true));
    let done = years.node.admin(&["protect", &one, "--reason", "too late"]).exits(11);
    assert!(done.stderr.contains("undelete"), "{}", done.stderr);
}

#[test]
fn the_last_complete_snapshot_of_a_cluster_goes_only_if_that_is_meant() {
    let mut years = Years::new();
    let [one, two] = years.pushes();
    let other = years.world.node_of("d", "n");
    let third = text(&other.push(&years.root), "snapshot");

    years.refuses(&[&one, &two], 11, "--even-last");
    years.refuses(&[&third], 11, "--even-last");
    years.refuses(&["--keep-last", "1", "--cluster", "typo"], 10, "`typo`");
    let policy = ["--minimum", "0", "--keep-last", "0", "--cluster", "c"];
    assert_eq!(verdicts(&years.forget(&policy)), pairs(&[&one, &two], &["forget", "keep"]));
    years.refuses(&[&two], 11, "--even-last");
    let all = years.forget(&[&policy[..], &["--even-last"]].concat());

    assert_eq!(verdicts(&all), pairs(&[&one, &two], &["going", "forget"]));
    assert_eq!(years.listed(), [(one, true), (two, true), (third, false)]);
}

/// S6: a partial snapshot never stands in for a complete one.
#[test]
fn partial_snapshots_do_not_count() {
    let mut years = Years::new();
    let [one, two] = years.pushes();
    let secret = years.root.join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    let node = if gear::is_root() {
        if !gear::has("setpriv") {
            return;
        }
        years.node.wrapped(&["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"])
    } else {
        years.node.clone()
    };
    let partial: [String; 3] =
        [(); 3].map(|()| text(&node.start_push(&years.root).wait().exits(3).json(), "snapshot"));

    let plan = years.forget(&["--minimum", "0", "--keep-last", "1", "--dry-run"]);
    years.refuses(&[&one, &two], 11, "--even-last");

    assert_eq!(verdicts(&plan)[0].1, "forget", "{plan}");
    assert_eq!(verdicts(&plan)[1], (two.clone(), "keep".to_owned()), "{plan}");
    years.forget(&[&partial[0]]);
    assert_eq!(years.listed()[2], (partial[0].clone(), true));
}

#[test]
fn zero_is_a_rule_and_no_rule_is_none() {
    let mut years = Years::new();
    let [one, two, three, four] = years.pushes();
    let ids = [&one, &two, &three, &four];

    years.refuses(&[], 2, "no policy");
    years.refuses(&["--cluster", "c"], 2, "no policy");
    let zero = years.forget(&["--keep-last", "0", "--dry-run"]);
    let nothing = years.forget(&["--minimum", "0", "--keep-daily", "0", "--keep-last", "0", "--dry-run"]);
    let today = years.forget(&["--minimum", "0", "--keep-days", "0", "--dry-run"]);
    let most = years.forget(&["--minimum", "0", "--maximum", "2", "--dry-run"]);
    let daily = years.forget(&["--minimum", "2", "--keep-daily", "7", "--dry-run"]);

    assert_eq!(verdicts(&zero), pairs(&ids, &["forget", "keep", "keep", "keep"]), "the minimum is 3");
    assert_eq!(verdicts(&nothing), pairs(&ids, &["forget", "forget", "forget", "keep"]));
    assert_eq!(verdicts(&today), pairs(&ids, &["keep"; 4]), "none is a day old");
    assert_eq!(verdicts(&most), pairs(&ids, &["forget", "forget", "keep", "keep"]));
    assert_eq!(verdicts(&daily)[3].1, "keep", "{daily}");
    years.refuses(&["--minimum", "3", "--maximum", "2"], 2, "maximum");
    years.refuses(&["01890a5d-ac96-774b-bcce-b302099a8057"], 10, "01890a5d");
}

#[test]
fn the_configured_policy_of_a_cluster_decides_if_no_other_is_given() {
    let config = format!("{BY_HAND}[retention.clusters.c]\nminimum = 1\nkeep_last = 1\n");
    let mut years = Years::with_config(&config);
    let [one, two] = years.pushes();

    let plan = years.forget(&["--dry-run", "--cluster", "c"]);

    assert_eq!(verdicts(&plan), pairs(&[&one, &two], &["forget", "keep"]));
}

/// The nodes of a cluster push by themselves, and the snapshots of one never take the place of another's.
#[test]
fn a_policy_counts_the_snapshots_of_each_node_by_itself() {
    let config = format!("{BY_HAND}[retention]\nminimum = 0\nkeep_daily = 7\n");
    let mut years = Years::with_config(&config);
    let other = years.world.node("m");
    let theirs = text(&other.push(&years.root), "snapshot");
    let [one, two] = years.pushes();

    let plan = years.forget(&["--dry-run"]);
    let given = years.forget(&["--minimum", "1", "--maximum", "1", "--dry-run"]);
    years.refuses(&[&theirs], 11, "last complete snapshot of node `m`");
    years.forget(&[]);

    let expected = pairs(&[&theirs, &one, &two], &["keep", "forget", "keep"]);
    assert_eq!((verdicts(&plan), verdicts(&given)), (expected.clone(), expected));
    assert_eq!(years.listed(), [(theirs, false), (one, true), (two, false)]);
}

/// Only what the named node pushed is looked at, and a node without snapshots is an error.
#[test]
fn a_policy_for_one_node_lets_nothing_of_others_go() {
    let world = World::with_config(BY_HAND);
    let root = world.dir("source");
    let (one, two) = (world.node("one"), world.node("two"));
    for n in 0..2 {
        fs::write(root.join("file"), format!("content {n}")).unwrap();
        one.push(&root);
        two.push(&root);
    }
    let policy = ["forget", "--minimum", "1", "--keep-last", "1", "--node"];

    one.admin(&[&policy[..], &["one"]].concat()).exits(0);
    let unknown = one.admin(&[&policy[..], &["nobody"]].concat()).exits(2);

    let listed = one.admin(&["snapshots", "--json"]).exits(0).json();
    let going = listed.as_array().unwrap().iter().filter(|found| found["going_until"].is_string());
    let nodes: Vec<_> = going.map(|found| found["nodes"].clone()).collect();
    assert_eq!(nodes, [serde_json::json!(["one"])], "{listed}");
    assert!(unknown.stderr.contains("`nobody`"), "{}", unknown.stderr);
}
