//! Cassandra: a snapshot of its own, and live tables with and without the commit log.

mod cql;
mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tests::client::Done;
use tests::gear;
use tests::loop_image::FileSystem;

use self::cql::{Consistency, Row};
pub(crate) use self::node::{Cassandra, Node};
use crate::ledger::{Load, Rows, Writer, rows_after};
use crate::process::Daemon;
use crate::scene::{Database, Ground, Method, Push, Scene, as_restored};

/// One partition, so that both rows of a commit are one mutation. It is flushed all the time, and two tables of one
/// size are soon compacted.
const TABLE: &str = "CREATE TABLE suite.kv (p int, key bigint, value text, PRIMARY KEY (p, key)) \
     WITH memtable_flush_period_in_ms = 300 \
     AND compaction = {'class': 'SizeTieredCompactionStrategy', 'min_threshold': 2}";
const KEYSPACE: &str =
    "CREATE KEYSPACE suite WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";

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
            make_tables(&node)?;
        }
        Ok(Self { node, daemon })
    }

    fn writer(&self) -> Result<Writer, String> {
        writer(&self.node)
    }

    fn rows(&self) -> Result<Rows, String> {
        self.node.nodetool(&["verify", "--force", "--extended-verify", "suite", "kv"])?;
        rows(&self.node)
    }

    fn stop(self) {
        self.daemon.stop();
    }
}

fn make_tables(node: &Node) -> Result<(), String> {
    let mut cql = node.connect()?;
    let mut run = |statement| cql.run(statement, Consistency::One).map(drop);
    run(KEYSPACE).and_then(|()| run(TABLE)).map_err(|error| error.to_string())
}

fn writer(node: &Node) -> Result<Writer, String> {
    let mut cql = node.connect()?;
    Ok(Box::new(move |commit| {
        let puts = commit.puts().map(|(key, value)| {
            format!("INSERT INTO suite.kv (p, key, value) VALUES (0, {key}, '{value}');")
        });
        let statement = format!("BEGIN UNLOGGED BATCH {} APPLY BATCH", puts.concat());
        cql.run(&statement, Consistency::One).map(drop).map_err(|error| error.to_string())
    }))
}

/// All rows that a node has.
pub(crate) fn rows(node: &Node) -> Result<Rows, String> {
    let rows = node.connect()?.run("SELECT key, value FROM suite.kv WHERE p = 0", Consistency::One);
    rows.map_err(|error| error.to_string())?.into_iter().map(row).collect()
}

/// Starts a node, which stays, makes some commits, and returns what they make.
pub(crate) fn write_some(node: &Node) -> Rows {
    let daemon = node.start().expect("it starts");
    make_tables(node).expect("it takes a schema");
    let ledger = Arc::default();
    let load = Load::start(&ledger, writer(node).expect("a session"));
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
    let node = &push.database().node;
    node.nodetool(&["clearsnapshot", "-t", TAG]).expect("the last snapshot goes");
    push.promise_until_now();
    node.nodetool(&["snapshot", "-t", TAG]).expect("a snapshot");
    let data = node.data();
    // Live files have a dash in their names, live indexes begin with a dot.
    let live = ["*-*", ".*", "backups"].map(|name| format!("{}/*/*/{name}", data.display()));
    let [files, indexes, backups] = &live;
    let excludes = ["--exclude", files, "--exclude", indexes, "--exclude", backups];
    push.node.start_push_of(&[&data], &[&["--class-set", "cassandra"], &excludes[..]].concat()).wait()
}

/// Puts the files of a snapshot where those of the tables lie, and has Cassandra's own tool compare their checksums.
fn snapshot_in_place(_: &Push<'_, Single>, restored: &Path) -> Result<PathBuf, String> {
    let home = restored.with_extension("home");
    fs::create_dir(&home).map_err(|error| error.to_string())?;
    fs::rename(restored, home.join("data")).map_err(|error| error.to_string())?;
    for table in folders(&home.join("data")).iter().flat_map(|keyspace| folders(keyspace)) {
        for entry in fs::read_dir(table.join("snapshots").join(TAG)).into_iter().flatten().flatten() {
            fs::rename(entry.path(), table.join(entry.file_name())).map_err(|error| error.to_string())?;
        }
    }
    let cassandra = Cassandra::find().ok_or("there is no Cassandra")?;
    Node::alone(&cassandra, &home, &home.with_extension("config")).verify("suite", "kv")?;
    Ok(home)
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

/// D5: compactions delete tables all the time.
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
