//! Cassandra: a snapshot of its own, and live tables with and without the commit log.

mod cql;
mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tests::client::{Client, Done, text};
use tests::gear;
use tests::loop_image::FileSystem;
use tests::wait;

pub(crate) use self::cql::Consistency;
use self::cql::Row;
pub(crate) use self::node::{Cassandra, Node};
use crate::ledger::{Load, Rows, Writer, judge, rows_after};
use crate::process::Daemon;
use crate::scene::{Database, Ground, Method, Push, Scene, as_restored};

/// One partition, so that both rows of a commit are one mutation. It is flushed all the time, and two tables of one
/// size are soon compacted.
const TABLE: &str = "CREATE TABLE suite.kv (p int, key bigint, value text, PRIMARY KEY (p, key)) \
     WITH memtable_flush_period_in_ms = 300 \
     AND compaction = {'class': 'SizeTieredCompactionStrategy', 'min_threshold': 2}";

/// A cluster of one node.
struct Single {
    node: Node,
    daemon: Daemon,
}

impl Database for Single {
    const NAME: &'static str = "Cassandra";

    fn start(data: &Path) -> Result<Self, String> {
        let cassandra = Cassandra::find().ok_or("there is no Cassandra")?;
        let node = Node::alone(&cassandra, data, &data.with_extension("config"));
        let is_new = !node.data().exists();
        let daemon = node.start()?;
        if is_new {
            make_tables(&node, 1)?;
        }
        Ok(Self { node, daemon })
    }

    fn writer(&self) -> Result<Writer, String> {
        writer(&self.node, Consistency::One)
    }

    fn rows(&self) -> Result<Rows, String> {
        self.node.nodetool(&["verify", "--force", "--extended-verify", "suite", "kv"])?;
        rows(&self.node, Consistency::One)
    }

    fn stop(self) {
        self.daemon.stop();
    }
}

fn make_tables(node: &Node, replicas: usize) -> Result<(), String> {
    let mut cql = node.connect()?;
    let mut run = |statement: &str| cql.run(statement, Consistency::One).map(drop);
    let keyspace = format!(
        "CREATE KEYSPACE suite WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
    );
    run(&keyspace).and_then(|()| run(TABLE)).map_err(|error| error.to_string())
}

fn writer(node: &Node, consistency: Consistency) -> Result<Writer, String> {
    let mut cql = node.connect()?;
    Ok(Box::new(move |commit| {
        let puts = commit.puts().map(|(key, value)| {
            format!("INSERT INTO suite.kv (p, key, value) VALUES (0, {key}, '{value}');")
        });
        let statement = format!("BEGIN UNLOGGED BATCH {} APPLY BATCH", puts.concat());
        cql.run(&statement, consistency).map(drop).map_err(|error| error.to_string())
    }))
}

/// All rows that a node has.
pub(crate) fn rows(node: &Node, consistency: Consistency) -> Result<Rows, String> {
    let rows = node.connect()?.run("SELECT key, value FROM suite.kv WHERE p = 0", consistency);
    rows.map_err(|error| error.to_string())?.into_iter().map(row).collect()
}

/// Starts a node, which stays, makes some commits, and returns what they make.
pub(crate) fn write_some(node: &Node) -> Rows {
    let daemon = node.start().expect("it starts");
    make_tables(node, 1).expect("it takes a schema");
    let ledger = Arc::default();
    let load = Load::start(&ledger, writer(node, Consistency::One).expect("a session"));
    ledger.wait_for_more(200);
    drop(load.stop());
    daemon.leave();
    rows_after(ledger.acknowledged())
}

fn row(columns: Row) -> Result<(u64, String), String> {
    let [Some(key), Some(value)]: [_; 2] = columns.try_into().map_err(|row| format!("{row:?}"))? else {
        return Err("a null".to_owned());
    };
    let key = key.try_into().map(u64::from_be_bytes).map_err(|key| format!("{key:?}"))?;
    Ok((key, String::from_utf8(value).map_err(|error| error.to_string())?))
}

/// The tag of the snapshots. One that stays lets the next push know the files again.
const TAG: &str = "astacus";

/// A snapshot of the node's own, and a push of that alone.
fn own_snapshot(push: &Push<'_, Single>) -> Done {
    push.promise_until_now();
    push_snapshot(&push.database().node, &push.node)
}

fn push_snapshot(node: &Node, client: &Client) -> Done {
    for command in ["clearsnapshot", "snapshot"] {
        node.nodetool(&[command, "-t", TAG]).expect("a snapshot");
    }
    let data = node.data();
    // Live files have a dash in their names, live indexes begin with a dot.
    let live = ["*-*", ".*", "backups"].map(|name| format!("{}/*/*/{name}", data.display()));
    let [files, indexes, backups] = &live;
    let excludes = ["--exclude", files, "--exclude", indexes, "--exclude", backups];
    client.start_push_of(&[&data], &[&["--class-set", "cassandra"], &excludes[..]].concat()).wait()
}

fn snapshot_in_place(_: &Push<'_, Single>, restored: &Path) -> Result<PathBuf, String> {
    let cassandra = Cassandra::find().ok_or("there is no Cassandra")?;
    let home = restored.with_extension("home");
    put_in_place(&Node::alone(&cassandra, &home, &home.with_extension("config")), restored)?;
    Ok(home)
}

/// Makes the files of a snapshot those of the tables of `node`, and has Cassandra's own tool compare their checksums.
#[expect(clippy::disallowed_methods, reason = "what a test puts in place need not outlive a power cut")]
fn put_in_place(node: &Node, restored: &Path) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    fs::create_dir_all(node.home()).and_then(|()| fs::rename(restored, node.data())).map_err(said)?;
    for table in folders(&node.data()).iter().flat_map(|keyspace| folders(keyspace)) {
        for entry in fs::read_dir(table.join("snapshots").join(TAG)).into_iter().flatten().flatten() {
            fs::rename(entry.path(), table.join(entry.file_name())).map_err(said)?;
        }
    }
    node.verify("suite", "kv").map(drop)
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// All files of a running node.
fn live(push: &Push<'_, Single>, more: &[&str]) -> Done {
    push.run(&[&["--class-set", "cassandra"], more].concat())
}

/// Its tables alone, after a flush.
fn flushed(push: &Push<'_, Single>) -> Done {
    let node = &push.database().node;
    push.promise_until_now();
    node.nodetool(&["flush"]).expect("a flush");
    live(push, &["--exclude", &node.commit_log().display().to_string()])
}

fn scene(ground: Ground) -> Option<Scene> {
    Cassandra::find().and_then(|_| Scene::on(ground))
}

#[test]
fn a_snapshot_of_cassandra_comes_back_and_starts() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method { name: "nodetool snapshot", push: own_snapshot, ready: snapshot_in_place };
    scene.under_load(&method, gear::rounds(1, 40)).is_always_right();
}

/// Compactions delete tables all the time.
#[test]
fn live_tables_come_back_with_all_that_was_flushed() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method { name: "live tables after a flush", push: flushed, ready: as_restored };
    scene.under_load(&method, gear::rounds(1, 40)).is_never_wrong();
}

#[test]
fn live_tables_and_the_commit_log_come_back_with_every_write() {
    let Some(scene) = scene(Ground::Image(FileSystem::Xfs)) else { return };
    let push = |push: &Push<'_, Single>| live(push, &["--freeze", "reflink"]);
    let method = Method { name: "live, with the commit log, reflink", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(1, 40)).is_never_wrong();
}

/// Each node by its own snapshot, made at another moment while a repair runs. It takes three starts of three nodes.
#[test]
fn a_cluster_of_three_comes_back_from_snapshots_of_each() {
    if !gear::is_set(gear::NIGHTLY) {
        gear::skip("three nodes of Cassandra are for nightly runs");
        return;
    }
    let Some(cassandra) = Cassandra::find() else { return };
    let scene = Scene::on(Ground::with_links()).expect("a place for three nodes");
    let homes = |kind: &str| ["1", "2", "3"].map(|n| scene.dir(&format!("{kind}-{n}")));
    let nodes = Node::cluster(&cassandra, &homes("home"), &homes("config"));
    let start =
        |nodes: &[Node]| nodes.iter().map(|node| node.start().expect("it starts")).collect::<Vec<_>>();
    let daemons = start(&nodes);
    let [first, second, _] = &nodes[..] else { panic!("there are three") };
    make_tables(first, nodes.len()).expect("it takes a schema");
    let ledger = Arc::default();
    wait::for_state("the others to know the table", || {
        nodes.iter().all(|node| rows(node, Consistency::Quorum).is_ok()).then_some(())
    });
    let load = Load::start(&ledger, writer(first, Consistency::Quorum).expect("a session"));
    ledger.wait_for_more(500);
    let promised = ledger.acknowledged();

    let reports: Vec<Value> = std::thread::scope(|scope| {
        let repair = scope.spawn(|| second.nodetool(&["repair", "suite"]));
        let client = |n| scene.world.node(&format!("cassandra{n}"));
        let reports = nodes.iter().zip(1..).map(|(node, n)| push_snapshot(node, &client(n)).exits(0).json());
        let reports = reports.collect();
        repair.join().expect("it does not panic").expect("a repair");
        reports
    });
    drop(load.stop());
    drop(daemons);

    let restored: Vec<Node> =
        nodes.iter().zip(homes("restored")).map(|(node, home)| node.moved_to(&home)).collect();
    for (node, (report, n)) in restored.iter().zip(reports.iter().zip(1..)) {
        let to = scene.dir("to").join(n.to_string());
        let client = scene.world.node(&format!("cassandra{n}"));
        client.restore(&text(report, "snapshot"), &to, &["--strip-root"]).exits(0);
        put_in_place(node, &to).expect("its files are whole");
    }
    let _daemons = start(&restored);
    restored[0].nodetool(&["repair", "--full", "suite"]).expect("a repair");
    let rows = rows(&restored[0], Consistency::Quorum).expect("all rows");
    judge(&rows, &(promised..=ledger.begun())).expect("every commit before the first snapshot");
}
