//! The server's disk is gone: the site and the key are enough.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use format_spec::PackId;
use repo_server::checkpoint::{self, When};
use repo_server::index::{Engine, Index, KeyRange, Table, open_existing};
use repo_server::rows::{ChunkRow, Epoch, PackNumber, PackRow};
use repo_server::start::open_or_create;
use serde_json::Value;
use tests::client::{Client, Done, number, run_to_end, text};
use tests::compare::differences;
use tests::corpus;
use tests::seed::Random;
use tests::server::{Server, command};
use tests::world::{World, objects, restored};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Rows of an index, as they are with any numbers for packs.
#[derive(Debug, PartialEq, Eq)]
struct Rows {
    chunks: BTreeMap<Vec<u8>, (PackId, ChunkRow)>,
    packs: BTreeMap<PackId, PackRow>,
    snapshots: Pairs,
    manifests: Pairs,
}

fn scan(index: &dyn Index, table: Table) -> Pairs {
    let (mut all, mut next) = (Vec::new(), Some(KeyRange::all()));
    while let Some(range) = next {
        let found = index.scan(table, &range, NonZeroUsize::MAX).unwrap();
        all.extend(found.rows.into_iter().map(|row| (row.key, row.value)));
        next = found.rest;
    }
    all
}

/// The rows of a server that does not run.
fn rows(data: &Path) -> Rows {
    let index = open_existing(Engine::Fjall, &data.join("index")).unwrap();
    let pack = |(key, value): (Vec<u8>, Vec<u8>)| {
        (PackNumber::from_key(&key).unwrap(), PackRow::decode(&value).unwrap())
    };
    let packs: BTreeMap<PackNumber, PackRow> =
        scan(index.as_ref(), Table::Pack).into_iter().map(pack).collect();
    let chunk = |(key, value): (Vec<u8>, Vec<u8>)| {
        let row = ChunkRow::decode(&value).unwrap();
        let anywhere = ChunkRow { pack: PackNumber(0), idle_since: Epoch(0), ..row };
        (key, (packs[&row.pack].id, anywhere))
    };
    Rows {
        chunks: scan(index.as_ref(), Table::Chunk).into_iter().map(chunk).collect(),
        snapshots: scan(index.as_ref(), Table::Snapshot),
        manifests: scan(index.as_ref(), Table::Manifest),
        packs: packs.into_values().map(|row| (row.id, row)).collect(),
    }
}

fn rebuild(data: &Path, site: &str, key: &Path) -> Done {
    let mut command = command();
    command.args(["rebuild", "--json", "--from-site", site, "--data-dir"]).arg(data);
    command.arg("--keyring").arg(key);
    run_to_end(command)
}

/// Every path below a folder, and how long it is.
fn tree(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path(), if meta.is_dir() { 0 } else { meta.len() });
        }
    }
    found
}

/// A repository of two clusters with three nodes, each pushed twice, whose server has stopped.
struct Pushed {
    world: World,
    nodes: Vec<(Client, PathBuf)>,
    listed: String,
    rows: Rows,
    key: PathBuf,
}

impl Pushed {
    fn new() -> Self {
        Self::with_config("")
    }

    fn with_config(config: &str) -> Self {
        let mut world = World::with_config(config);
        let mut random = Random::printed();
        let mut nodes = Vec::new();
        for (cluster, node) in [("c", "n"), ("c", "m"), ("d", "n")] {
            let root = world.path(&format!("source-{cluster}-{node}"));
            corpus::plain(&root, &mut random, 12, 400_000);
            let client = world.node_of(cluster, node);
            client.push(&root);
            corpus::work_on(&root, &mut random);
            client.push(&root);
            nodes.push((client, root));
        }
        let listed = list(&nodes[0].0);
        world.server.stop();
        let data = world.server.data().to_owned();
        let key = world.path("key-on-paper");
        fs::copy(data.join("master.key"), &key).unwrap();
        Self { rows: rows(&data), nodes, listed, key, world }
    }

    fn data(&self) -> &Path {
        self.world.server.data()
    }

    fn site(&self) -> PathBuf {
        self.data().join("site")
    }

    /// Writes a checkpoint of all packs, as a server does in the background.
    fn checkpoint(&self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let written = runtime.block_on(async {
            let settings = repo_server::config::Config::default().settings().unwrap();
            let on_halt = Arc::new(|error: &dyn std::error::Error| panic!("{error}"));
            let opened = open_or_create(self.data(), None, settings, on_halt).await.unwrap();
            checkpoint::run(&opened.server, When::Now).await.unwrap()
        });
        assert!(written.packs >= 6, "{written:?}");
    }

    /// Loses all but the site.
    fn lose_the_disk(&self) {
        for entry in fs::read_dir(self.data()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("site") {
                fs::remove_dir_all(path).unwrap();
            } else if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(fs::read_dir(self.data()).unwrap().count(), 1);
    }

    /// The nodes, asking another server.
    fn nodes_at<'a>(&'a self, server: &'a Server) -> impl Iterator<Item = (Client, &'a Path)> {
        let at = |(client, root): &'a (Client, PathBuf)| {
            (client.at(server.address()).with_token_file(&server.token_file()), root.as_path())
        };
        self.nodes.iter().map(at)
    }
}

/// Output of `list` for all clusters.
fn list(node: &Client) -> String {
    node.admin(&["snapshots", "--json"]).exits(0).stdout + &node.run(["list", "--json"]).exits(0).stdout
}

/// S1, X8: from the site and the key alone come the same snapshots, the same rows and counts, and the same bytes.
#[test]
fn a_server_whose_disk_is_gone_is_rebuilt_from_site_and_key() {
    let mut pushed = Pushed::new();
    let sites = tree(&pushed.site());
    pushed.lose_the_disk();

    let report = rebuild(pushed.data(), &format!("file://{}", pushed.site().display()), &pushed.key);
    let report = report.exits(0).json();

    assert_eq!((number(&report, "snapshots"), number(&report, "found")), (6, 0), "{report}");
    assert_eq!(report["notes"], serde_json::json!([]));
    assert_eq!(tree(&pushed.site()), sites, "nothing on the site changes");
    assert_eq!(rows(pushed.data()), pushed.rows);
    assert_eq!(report["start_with"], format!("astacus-server --data-dir {}", pushed.data().display()));
    pushed.world.server.start_again();
    for (at, (node, root)) in pushed.nodes_at(&pushed.world.server).enumerate() {
        if at == 0 {
            assert_eq!(list(&node), pushed.listed);
        }
        let to = pushed.world.path(&format!("restored-{at}"));
        node.restore("latest", &to, &[]).exits(0);
        assert_eq!(differences(root, &restored(&to, root)), Vec::<String>::new());
    }
    for (node, root) in pushed.nodes_at(&pushed.world.server) {
        fs::write(root.join("more"), "after the rebuild").unwrap();
        let pushed = node.push(root);
        assert!(!text(&pushed, "snapshot").is_empty());
    }
    let (node, _) = pushed.nodes_at(&pushed.world.server).next().unwrap();
    for level in ["refs", "read"] {
        node.admin(&["verify", "--level", level]).exits(0);
    }
    assert_eq!(node.status()["alarms"], Value::Null);
}

/// A site elsewhere is named to the rebuild and to the server, which does not take a folder without it for an empty one.
#[test]
fn a_site_elsewhere_is_rebuilt_from_with_a_checkpoint_and_served() {
    let pushed = Pushed::new();
    pushed.checkpoint();
    let (data, site) = (pushed.world.path("new"), pushed.world.path("site-elsewhere"));
    rustix::fs::rename(pushed.site(), &site).unwrap();

    let report = rebuild(&data, site.to_str().unwrap(), &pushed.key).exits(0).json();

    assert_eq!(number(&report, "packs_of_checkpoints"), number(&report, "packs"), "{report}");
    assert_eq!(rows(&data), pushed.rows);
    let refused = tests::server::refused(&["--data-dir", data.to_str().unwrap()]).exits(10);
    assert!(refused.stderr.contains("--site"), "{}", refused.stderr);
    let site_url = format!("file://{}", site.display());
    assert_eq!(
        report["start_with"],
        format!("astacus-server --data-dir {} --site {}", data.display(), site.display())
    );
    let server = Server::start_as(
        &data,
        Path::new(tests::server::CONFIG),
        &[OsStr::new("--site"), OsStr::new(&site_url)],
    );
    let (node, root) = pushed.nodes_at(&server).next().unwrap();
    assert_eq!(list(&node), pushed.listed);
    let to = pushed.world.path("restored");
    node.restore("latest", &to, &[]).exits(0);
    assert_eq!(differences(root, &restored(&to, root)), Vec::<String>::new());
    node.push(root);
    drop(server);
    let config = pushed.world.path("server.toml");
    fs::write(&config, format!("[site]\nurl = '{site_url}'\n")).unwrap();
    let server = Server::start_with(&data, &config);
    let (node, _) = pushed.nodes_at(&server).next().unwrap();
    node.admin(&["verify", "--level", "read"]).exits(0);
}

/// P2: a damaged checkpoint costs nothing but a note.
#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let pushed = Pushed::new();
    pushed.checkpoint();
    let checkpoint = objects(pushed.data(), "heads").remove(0);
    let mut bytes = fs::read(&checkpoint).unwrap();
    bytes[200] ^= 1;
    fs::write(&checkpoint, bytes).unwrap();
    pushed.lose_the_disk();

    let report = rebuild(pushed.data(), pushed.site().to_str().unwrap(), &pushed.key).exits(0).json();

    assert_eq!((number(&report, "packs_of_checkpoints"), number(&report, "found")), (0, 0), "{report}");
    assert!(report["notes"].to_string().contains("checkpoint:"), "{report}");
    assert_eq!(rows(pushed.data()), pushed.rows);
}

/// A list of snapshots without what is said of damage.
fn without_damage(listed: &str) -> String {
    let mut left = String::new();
    for (at, part) in listed.split(",\"damaged\":\"").enumerate() {
        left += if at == 0 { part } else { part.split_once('"').unwrap().1 };
    }
    left
}

/// P2: what is lost is named, exit code 13, and the rest can be used.
#[test]
fn lost_manifests_and_packs_are_named_and_the_rest_is_served() {
    let mut pushed = Pushed::new();
    let manifest = objects(pushed.data(), "manifests").remove(0);
    fs::remove_file(&manifest).unwrap();
    let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let pack = objects(pushed.data(), "packs").into_iter().max_by_key(len).unwrap();
    fs::remove_file(&pack).unwrap();
    pushed.lose_the_disk();

    let report = rebuild(pushed.data(), pushed.site().to_str().unwrap(), &pushed.key).exits(13).json();

    let name = manifest.file_name().unwrap().to_str().unwrap();
    assert!(report["findings"].to_string().contains(name), "{report}");
    assert!(report["findings"].to_string().contains("are in no pack"), "{report}");
    assert_eq!(number(&report, "snapshots"), 6, "{report}");
    pushed.world.server.allow_errors("code=\"site\"");
    pushed.world.server.start_again();
    let nodes: Vec<_> = pushed.nodes_at(&pushed.world.server).collect();
    let listed = list(&nodes[0].0);
    assert!(listed.contains("\"damaged\":\"the manifest of node"), "{listed}");
    assert_eq!(without_damage(&listed), pushed.listed);
    let status = nodes[0].0.status();
    assert_eq!(status["alarms"][0]["code"], "damaged_objects", "{status}");
    for (node, root) in &nodes {
        // The client compares its state of earlier pushes with the server.
        node.push(root);
        let to = pushed.world.path(&format!("restored-{}", root.display().to_string().replace('/', "-")));
        node.restore("latest", &to, &[]).exits(0);
        assert_eq!(differences(root, &restored(&to, root)), Vec::<String>::new());
    }
}

#[test]
fn a_rebuild_that_cannot_be_right_is_refused_and_changes_nothing() {
    let pushed = Pushed::new();
    let other = World::new();
    let site = pushed.site();
    let site = site.to_str().unwrap();
    let fresh = pushed.world.path("fresh");
    let foreign = pushed.world.dir("foreign");
    fs::write(foreign.join("letter"), "dear").unwrap();
    let no_key = pushed.world.path("no-key");
    fs::write(&no_key, "not a key").unwrap();
    let other_key = other.server.data().join("master.key");
    let before = tree(pushed.data());
    let check = |done: Done, code: i32, why: &str| {
        let done = done.exits(code);
        assert!(done.stderr.contains(why), "no `{why}` in: {}", done.stderr);
    };

    check(rebuild(&fresh, site, &other_key), 2, "another repository");
    check(rebuild(&fresh, site, &no_key), 13, "not a master key");
    check(rebuild(&fresh, site, &pushed.world.path("missing")), 10, "is missing");
    check(rebuild(&fresh, foreign.to_str().unwrap(), &pushed.key), 10, "not a site of a repository");
    check(rebuild(&fresh, "/does/not/exist", &pushed.key), 10, "not a site of a repository");
    check(rebuild(&fresh, "s3://bucket/site", &pushed.key), 2, "only folders are supported");
    check(rebuild(&foreign, site, &pushed.key), 2, "letter");
    check(rebuild(pushed.data(), site, &pushed.key), 2, "already has an index");
    let place = other.path("other-data");
    fs::create_dir_all(place.join("site/keyring")).unwrap();
    fs::copy(other.server.data().join("site/keyring/repository"), place.join("site/keyring/repository"))
        .unwrap();
    check(rebuild(&place, site, &pushed.key), 2, "contains another site");
    let theirs = pushed.world.dir("theirs");
    fs::copy(&other_key, theirs.join("master.key")).unwrap();
    check(rebuild(&theirs, site, &pushed.key), 2, "another repository");

    assert!(!fresh.exists());
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
    assert_eq!(tree(pushed.data()), before);
    let gone = tests::server::refused(&["rebuild", "--data-dir", "x"]).exits(2);
    assert!(gone.stderr.contains("--from-site"), "{}", gone.stderr);
    tests::server::refused(&[]).exits(2);
}

/// S1, G4: after years of forgetting, collecting and repacking, what was kept is rebuilt as it was, and what was
/// protected still is.
#[test]
fn a_repository_that_was_collected_is_rebuilt_with_its_protections() {
    let mut pushed = Pushed::with_config("[gc]\nevery_minutes = 0\nrepack_below = 100\n");
    pushed.world.server.start_again();
    let at = |pushed: &Pushed| pushed.nodes_at(&pushed.world.server).next().unwrap().0;
    let node = at(&pushed);
    let ids = node.snapshot_ids();
    node.admin(&["protect", &ids[1], "--reason", "audit of 2026"]).exits(0);
    node.admin(&["protect", &ids[3], "--reason", "for a moment"]).exits(0);
    node.admin(&["protect", &ids[3], "--off"]).exits(0);
    node.admin(&["forget", "--even-last", &ids[0], &ids[2]]).exits(0);
    let collected = node.admin(&["gc", "--now", "--json"]).exits(0).json();
    assert!(number(&collected["repacked"], "count") > 0, "{collected}");
    node.admin(&["forget", "--even-last", &ids[3]]).exits(0);
    node.admin(&["undelete", &ids[3]]).exits(0);
    let listed = list(&node);
    assert!(listed.contains("audit of 2026") && !listed.contains("for a moment"), "{listed}");
    node.admin(&["verify", "--level", "refs"]).exits(0);
    pushed.world.server.stop();
    let before = rows(pushed.data());
    pushed.lose_the_disk();

    let report = rebuild(pushed.data(), pushed.site().to_str().unwrap(), &pushed.key).exits(0).json();

    assert_eq!((number(&report, "snapshots"), number(&report, "found")), (4, 0), "{report}");
    assert_eq!(report["notes"], serde_json::json!([]));
    assert_eq!(rows(pushed.data()), before);
    pushed.world.server.start_again();
    let node = at(&pushed);
    assert_eq!(list(&node), listed);
    let refused = node.admin(&["forget", "--even-last", &ids[1]]).exits(11);
    assert!(refused.stderr.contains("audit of 2026"), "{}", refused.stderr);
    for (at, (node, root)) in pushed.nodes_at(&pushed.world.server).enumerate() {
        let to = pushed.world.path(&format!("restored-{at}"));
        node.restore("latest", &to, &[]).exits(0);
        assert_eq!(differences(root, &restored(&to, root)), Vec::<String>::new());
    }
    for level in ["refs", "restore"] {
        node.admin(&["verify", "--level", level]).exits(0);
    }
    node.admin(&["protect", &ids[1], "--off"]).exits(0);
    node.admin(&["forget", "--even-last", &ids[1]]).exits(0);
    node.admin(&["gc", "--now"]).exits(0);
    assert_eq!(objects(pushed.data(), "protections"), Vec::<PathBuf>::new());
    node.admin(&["verify", "--level", "refs"]).exits(0);
}

/// P2: a protection that cannot be read is named; that of a snapshot which is gone is a note.
#[test]
fn protections_that_are_damaged_or_of_no_use_are_told() {
    let mut pushed = Pushed::new();
    pushed.world.server.start_again();
    let node = pushed.nodes_at(&pushed.world.server).next().unwrap().0;
    let ids = node.snapshot_ids();
    for id in &ids[..2] {
        node.admin(&["protect", id, "--reason", "must stay"]).exits(0);
    }
    pushed.world.server.stop();
    let objects = objects(pushed.data(), "protections");
    let of = |id: &String| objects.iter().find(|path| path.display().to_string().contains(id)).unwrap();
    let mut bytes = fs::read(of(&ids[0])).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(of(&ids[0]), bytes).unwrap();
    fs::remove_file(pushed.site().join("snapshots").join(&ids[1])).unwrap();
    pushed.lose_the_disk();

    let report = rebuild(pushed.data(), pushed.site().to_str().unwrap(), &pushed.key).exits(13).json();

    assert_eq!(number(&report, "found"), 1, "{report}");
    assert!(report["findings"].to_string().contains(&format!("protections/{}", ids[0])), "{report}");
    assert!(report["notes"].to_string().contains("protects a snapshot that does not exist"), "{report}");
    assert!(report["notes"].to_string().contains(&format!("protections/{}", ids[1])), "{report}");
    assert_eq!(number(&report, "snapshots"), 5, "{report}");
}
