//! Server and clients, killed at random moments while several nodes push and the collector runs all the time.
//!
//! Trees are small and share content, which is dropped and comes back, so that garbage appears, goes, and is
//! wanted again. Each tree says which attempt it is of, so that a snapshot whose acknowledgement was lost can
//! be judged as well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use format_spec::SnapshotId;
use format_spec::wire::{Delays, ForgetRequest, GcReport, GcRequest, LargeDelete, LastComplete, RunMode};
use node_client::api::{Api, Retry};
use node_client::error::ClientError;
use serde_json::Value;
use tests::client::{Client, Done, Running, number, seconds, text};
use tests::gear;
use tests::relay::Relay;
use tests::seed::Random;
use tests::server::Server;
use tests::wait;
use tests::world::{Folder, World};
use tokio::runtime::Runtime;

use crate::judge::leftovers;

/// Small chunks, packs that are soon thin, and nothing that holds the collector back but sessions.
const CONFIG: &str = "
[space]
ballast_mib = 0
refuse_below_mib = 0
[chunker]
min_kib = 4
avg_kib = 16
max_kib = 64
[gc]
every_minutes = 0
undelete_hours = 0
delete_delay_hours = 0
repack_below = 80
max_daily_percent = 100
";
const NODES: usize = 3;
const FILES: usize = 6;
/// Contents that all nodes pick from, again and again.
const POOL: u64 = 24;
/// Number of snapshots that are kept.
const KEPT: usize = 4;
/// Everything is looked at after so many kills.
const CHECK_EVERY: usize = 10;
/// The file that says of which attempt a tree is.
const STAMP: &str = "stamp";
/// Exit code of a client whose server stays away.
const UNAVAILABLE: i32 = 14;
/// More exit codes that are allowed after this many kills, because a client restarts a push only so often.
const MET_TOO_MANY: (usize, [i32; 3]) = (2, [1, 2, 11]);

/// A tree: what is in each file.
type Tree = BTreeMap<String, Vec<u8>>;

/// The content with this number.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let len = 5_000 + random.index(80_000);
    random.bytes(len)
}

fn read_tree(root: &Path) -> Tree {
    let files = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

/// Pushed trees, by the numbers of their contents: the trees of a long run fit into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pushed {
    stamp: String,
    files: [u64; FILES],
}

impl Pushed {
    fn tree(&self) -> Tree {
        let files = self.files.iter().enumerate();
        let mut tree: Tree = files.map(|(n, number)| (format!("file-{n}"), content(*number))).collect();
        tree.insert(STAMP.to_owned(), self.stamp.clone().into_bytes());
        tree
    }
}

/// A node whose files change from push to push.
struct Node {
    name: String,
    home: PathBuf,
    root: PathBuf,
    now: Pushed,
    running: Option<Running>,
    /// Kills of the server that the running push has met.
    met: usize,
}

impl Node {
    fn new(folder: &Folder, n: usize) -> Self {
        let name = format!("n{n}");
        let (home, root) = (folder.path(&format!("home-{n}")), folder.dir(&format!("source-{n}")));
        Self {
            name,
            home,
            root,
            now: Pushed { stamp: String::new(), files: [0; FILES] },
            running: None,
            met: 0,
        }
    }

    /// Changes a few files: to what some node has or had, or to what nobody ever had.
    fn work(&mut self, attempt: u64, random: &mut Random) {
        self.now.stamp = format!("{}-{attempt}", self.name);
        for _ in 0..3 {
            let number = if random.below(4) == 0 { POOL + attempt } else { random.below(POOL) };
            let slot = random.index(FILES);
            self.now.files[slot] = number;
        }
        for (name, bytes) in self.now.tree() {
            let path = self.root.join(name);
            if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// Counts of actions and observations.
#[derive(Debug, Default)]
struct Tally {
    kills_of_the_server: usize,
    kills_of_clients: usize,
    /// Pushes that were under way when their server was killed.
    met_a_kill: usize,
    acknowledged: usize,
    /// Pushes that were killed before they were acknowledged.
    killed: usize,
    /// Pushes that gave up.
    given_up: usize,
    /// Snapshots that are there, and of which nobody was told.
    unheard: usize,
    /// Sessions that were left open by pushes that had ended.
    sessions_left: usize,
    checks: usize,
    restored: usize,
    forgotten: usize,
    /// Runs of the collector, and those that a kill has cut after they had done something.
    runs: usize,
    runs_cut: usize,
    purged: usize,
    pages_dropped: u64,
    chunks_dropped: u64,
    repacked: u64,
    deleted: u64,
    /// Problems that no kill explains.
    problems: Vec<String>,
}

impl Tally {
    fn ran(&mut self, report: &GcReport) {
        self.runs += 1;
        self.purged += report.purged.len();
        self.pages_dropped += report.pages.count;
        self.chunks_dropped += report.chunks.count;
        self.repacked += report.repacked.count;
        self.deleted += report.deleted.count;
        self.problems.extend(report.problems.iter().chain(&report.stopped).cloned());
    }

    /// True if kills have interrupted pushes and runs of the collector, and have caused all kinds of repair.
    fn has_met_all(&self) -> bool {
        let cut = self.killed > 0 && self.met_a_kill > 0 && self.runs_cut > 0;
        cut && self.chunks_dropped > 0 && self.repacked > 0 && self.deleted > 0
    }

    /// Adds what an operator has seen.
    fn add(&mut self, other: Self) {
        self.forgotten += other.forgotten;
        self.runs += other.runs;
        self.runs_cut += other.runs_cut;
        self.purged += other.purged;
        self.pages_dropped += other.pages_dropped;
        self.chunks_dropped += other.chunks_dropped;
        self.repacked += other.repacked;
        self.deleted += other.deleted;
        self.problems.extend(other.problems);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("memory can be had")
}

fn gc_now() -> GcRequest {
    let (delays, large) = (Delays::Skip, LargeDelete::Allow);
    GcRequest { mode: RunMode::Apply, delays, large, max_copy_bytes: None }
}

/// Forgets what it is told to, and runs the collector again and again, whatever becomes of the server.
struct Operator {
    orders: Sender<SnapshotId>,
    thread: JoinHandle<Tally>,
}

impl Operator {
    const PAUSE: Duration = Duration::from_millis(20);

    fn start(api: Api) -> Self {
        let (orders, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || Self::work(&api, &receiver));
        Self { orders, thread }
    }

    fn work(api: &Api, orders: &Receiver<SnapshotId>) -> Tally {
        let (runtime, mut tally) = (runtime(), Tally::default());
        loop {
            match orders.recv_timeout(Self::PAUSE) {
                Ok(id) => match runtime.block_on(api.forget(&forget(vec![id]))) {
                    Ok(_) => tally.forgotten += 1,
                    Err(error) => Self::excuse(&mut tally, &error),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return tally,
            }
            let mut done_something = false;
            match runtime.block_on(api.collect_garbage(&gc_now(), |_| done_something = true)) {
                Ok(report) => tally.ran(&report),
                Err(error) => {
                    tally.runs_cut += usize::from(done_something);
                    Self::excuse(&mut tally, &error);
                }
            }
        }
    }

    /// A server that is killed gives no answer; any other error is none that a kill explains.
    fn excuse(tally: &mut Tally, error: &ClientError) {
        if !matches!(error, ClientError::Unreachable { .. }) {
            tally.problems.push(format!("{error:?}"));
        }
    }

    fn stop(self) -> Tally {
        drop(self.orders);
        self.thread.join().expect("an operator does not panic")
    }
}

fn forget(snapshots: Vec<SnapshotId>) -> ForgetRequest {
    let (mode, last_complete) = (RunMode::Apply, LastComplete::MayGo);
    ForgetRequest { mode, snapshots, last_complete, ..ForgetRequest::default() }
}

/// Several nodes that push to one server, through a relay, as that is somewhere else after each start.
struct Load {
    // The server goes before its folder.
    server: Server,
    relay: Relay,
    random: Random,
    nodes: Vec<Node>,
    operator: Option<Operator>,
    attempts: u64,
    /// How long a push takes when nobody disturbs it.
    usual: f64,
    /// Every attempt, by its stamp.
    tried: BTreeMap<String, Pushed>,
    /// The snapshots that were acknowledged or seen, with the stamps of their trees.
    known: BTreeMap<String, String>,
    /// Those that somebody was told to forget: they may be there or not.
    going: BTreeSet<String>,
    tally: Tally,
    folder: Folder,
}

impl Load {
    fn new() -> Self {
        let folder = Folder::new();
        let config = folder.path("server.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let server = Server::start_with(&folder.path("data"), &config);
        let relay = Relay::to(&server);
        let nodes = (0..NODES).map(|n| Node::new(&folder, n)).collect();
        Self {
            server,
            relay,
            random: Random::printed(),
            nodes,
            operator: None,
            attempts: 0,
            usual: 0.0,
            tried: BTreeMap::new(),
            known: BTreeMap::new(),
            going: BTreeSet::new(),
            tally: Tally::default(),
            folder,
        }
    }

    fn client(&self, n: usize) -> Client {
        let Node { name, home, .. } = &self.nodes[n];
        Client::new(&self.server, "c", name, home).at(self.relay.address())
    }

    fn api(&self) -> Api {
        let retry = Retry::once();
        Api::new(self.relay.address(), &self.server.token(), retry).unwrap()
    }

    /// Changes the files of each node that does nothing, and lets it push them.
    fn push_all(&mut self) {
        for n in 0..NODES {
            if self.nodes[n].running.is_none() {
                self.attempts += 1;
                self.nodes[n].work(self.attempts, &mut self.random);
                let now = self.nodes[n].now.clone();
                self.tried.insert(now.stamp.clone(), now);
                // The log explains a push that never ends.
                let client = self.client(n).wrapped(&["env", "ASTACUS_LOG=debug"]);
                let running = client.start_push(&self.nodes[n].root);
                self.nodes[n].running = Some(running);
                self.nodes[n].met = 0;
            }
        }
    }

    /// Hears what became of pushes that have ended, and starts the next ones.
    fn go_on(&mut self) {
        for n in 0..NODES {
            let ended = self.nodes[n].running.as_ref().and_then(|running| running.within(Duration::ZERO));
            if let Some(done) = ended {
                self.nodes[n].running = None;
                self.hear(n, &done);
            }
        }
        self.push_all();
    }

    /// Takes note of what a push was told.
    fn hear(&mut self, n: usize, done: &Done) {
        let report: Option<Value> = serde_json::from_str(&done.stdout).ok();
        let snapshot = report.as_ref().and_then(|report| report.get("snapshot")).and_then(Value::as_str);
        match (done.code, snapshot) {
            (Some(0) | None, Some(id)) => self.acknowledged(n, id.to_owned()),
            (None, None) => self.tally.killed += 1,
            (Some(UNAVAILABLE), _) => self.tally.given_up += 1,
            (Some(code), _) if self.nodes[n].met >= MET_TOO_MANY.0 && MET_TOO_MANY.1.contains(&code) => {
                self.tally.given_up += 1;
            }
            _ => panic!("push {}: {done:?}", self.nodes[n].now.stamp),
        }
    }

    fn acknowledged(&mut self, n: usize, id: String) {
        self.tally.acknowledged += 1;
        self.known.insert(id, self.nodes[n].now.stamp.clone());
        self.forget_some();
    }

    /// Tells the operator to forget some of the snapshots, if there are too many.
    fn forget_some(&mut self) {
        let Some(operator) = &self.operator else { return };
        let staying = self.known.keys().filter(|id| !self.going.contains(*id));
        let mut staying: Vec<String> = staying.cloned().collect();
        while staying.len() > KEPT {
            let chosen = staying.swap_remove(self.random.index(staying.len()));
            operator.orders.send(chosen.parse().unwrap()).unwrap();
            self.going.insert(chosen);
        }
    }

    /// Lets everything go on for a while, and then kills the server, a client, or both.
    fn round(&mut self) {
        if self.operator.is_none() {
            self.operator = Some(Operator::start(self.api()));
            self.forget_some();
        }
        self.push_all();
        let pause = self.random.moment(self.usual);
        wait::within(pause, || {
            self.go_on();
            None::<()>
        });
        let choice = self.random.below(5);
        if choice > 1 {
            self.kill_a_client();
        }
        if choice < 4 {
            self.kill_the_server();
        }
    }

    fn kill_a_client(&mut self) {
        let n = self.random.index(NODES);
        if let Some(running) = self.nodes[n].running.take() {
            self.tally.kills_of_clients += 1;
            let done = running.kill();
            self.hear(n, &done);
        }
    }

    fn kill_the_server(&mut self) {
        self.tally.kills_of_the_server += 1;
        for node in self.nodes.iter_mut().filter(|node| node.running.is_some()) {
            node.met += 1;
            self.tally.met_a_kill += 1;
        }
        self.server.start_again();
        self.relay.point_to(&self.server);
    }

    /// Lets the pushes come to their end, and the operator stop.
    fn calm_down(&mut self) {
        for n in 0..NODES {
            if let Some(running) = self.nodes[n].running.take() {
                let done = running.wait();
                self.hear(n, &done);
            }
        }
        if let Some(operator) = self.operator.take() {
            self.tally.add(operator.stop());
        }
        assert_eq!(self.tally.problems, Vec::<String>::new());
    }

    /// Fails unless every snapshot that must be there is, all that are there are whole, and counts are right.
    fn check(&mut self, when: &str) {
        self.tally.checks += 1;
        let snapshots = self.client(0).snapshots();
        let listed: Vec<String> = snapshots.iter().map(|info| text(info, "id")).collect();
        let staying = self.known.keys().filter(|id| !self.going.contains(*id));
        let lost: Vec<&String> = staying.filter(|id| !listed.contains(id)).collect();
        assert!(lost.is_empty(), "{when}: acknowledged, and lost: {lost:?}");
        for info in &snapshots {
            let node = info["nodes"][0].as_str().expect("each is of a node");
            self.check_one(&text(info, "id"), node, when);
        }
        self.forget_again(&listed);
        for level in ["read", "refs"] {
            let verified = self.client(0).admin(&["verify", "--level", level, "--json"]);
            assert_eq!(verified.code, Some(0), "{when}: {verified:?}");
        }
    }

    /// Forgets what a server that was killed has not heard of.
    fn forget_again(&self, listed: &[String]) {
        let going = listed.iter().filter(|id| self.going.contains(*id)).map(|id| id.parse().unwrap());
        let request = forget(going.collect());
        if !request.snapshots.is_empty() {
            runtime().block_on(self.api().forget(&request)).unwrap();
        }
    }

    fn check_one(&mut self, id: &str, node: &str, when: &str) {
        let to = self.folder.path("restored");
        self.client(0).restore(id, &to, &["--strip-root", "--node", node]).exits(0);
        let restored = read_tree(&to);
        std::fs::remove_dir_all(&to).unwrap();
        self.tally.restored += 1;
        let stamp = restored.get(STAMP).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let stamp = stamp.unwrap_or_else(|| panic!("{when}: {id} has lost its stamp"));
        let pushed = self.tried.get(&stamp).unwrap_or_else(|| panic!("{when}: {id} is of nobody: {stamp}"));
        assert!(pushed.tree() == restored, "{when}: {id} is not what was pushed as {stamp}");
        match self.known.get(id) {
            Some(told) => assert_eq!(*told, stamp, "{when}: {id}"),
            None => {
                self.tally.unheard += 1;
                self.known.insert(id.to_owned(), stamp);
            }
        }
    }

    /// Runs the collector once, which has to succeed.
    fn collect(&mut self, request: &GcRequest) -> GcReport {
        let collected = runtime().block_on(self.api().collect_garbage(request, |_| {}));
        collected.unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Ends the sessions that killed clients have left, as two minutes would.
    fn end_sessions(&mut self) {
        let plan = self.collect(&GcRequest::default());
        for pinning in &plan.pinned {
            runtime().block_on(self.api().abort(pinning.session)).unwrap();
        }
        self.tally.sessions_left += plan.pinned.len();
    }

    /// Fails unless all garbage can go, and a last push comes back as it was pushed.
    fn end(&mut self) {
        assert!(self.server.stop().success());
        self.server.start_again();
        self.relay.point_to(&self.server);
        self.end_sessions();
        self.nodes[0].work(self.attempts + 1, &mut self.random);
        let now = self.nodes[0].now.clone();
        let report = self.client(0).push(&self.nodes[0].root);
        self.known.insert(text(&report, "snapshot"), now.stamp.clone());
        self.tried.insert(now.stamp.clone(), now);
        let first = self.collect(&gc_now());
        self.tally.ran(&first);
        let last = self.collect(&gc_now());
        assert!(last.pinned.is_empty() && last.waiting.is_empty(), "{last:?}");
        self.check("at the end");
        assert_eq!(number(&self.client(0).status(), "open_sessions"), 0);
        assert!(self.server.stop().success());
        assert_eq!(leftovers(self.server.data()), Vec::<String>::new());
        self.server.start_again();
    }
}

/// S1, S3, X1, X7, X8: whoever is killed while the collector runs beside pushes, what was acknowledged and
/// not forgotten is listed, all that is listed restores byte for byte, counts are right, and in the end all
/// garbage goes.
#[test]
#[ignore = "kills at moments of chance: `.ci/nightly fault`"]
fn kills_beside_the_collector_lose_nothing_and_leak_nothing() {
    let mut load = Load::new();
    load.nodes[0].work(0, &mut load.random);
    let now = load.nodes[0].now.clone();
    let report = load.client(0).push(&load.nodes[0].root);
    load.usual = seconds(&report);
    load.known.insert(text(&report, "snapshot"), now.stamp.clone());
    load.tried.insert(now.stamp.clone(), now);
    let (rounds, mut round) = (gear::rounds(100, 3000), 0);
    while gear::goes_on(round, rounds, load.tally.has_met_all()) {
        round += 1;
        load.round();
        if round % CHECK_EVERY == 0 {
            load.calm_down();
            load.check(&format!("after round {round}"));
            // The next push of a killed node adopts what it has left, or finds it gone.
            if load.random.below(3) > 0 {
                load.end_sessions();
            }
        }
        if round % 100 == 0 {
            println!("{round} of {rounds} rounds, {:?}", load.tally);
        }
    }
    load.calm_down();
    load.end();

    assert!(load.tally.has_met_all(), "too little was cut short, or too little collected: {:?}", load.tally);
}

#[test]
fn the_judge_sees_objects_and_rows_that_nothing_needs() {
    let mut world = World::new();
    let (kept, gone) = (world.dir("kept"), world.dir("gone"));
    std::fs::write(kept.join("file"), content(1)).unwrap();
    std::fs::write(gone.join("file"), content(2)).unwrap();
    let node = world.node("n");
    node.push(&kept);
    let id = text(&node.push(&gone), "snapshot");
    assert!(world.server.stop().success());
    let sound = leftovers(world.server.data());
    let leaked = world.server.data().join("site/manifests").join("0".repeat(64));
    std::fs::write(&leaked, b"nobody's").unwrap();
    let with_object = leftovers(world.server.data());
    std::fs::remove_file(leaked).unwrap();
    world.server.start_again();
    // An open session holds what becomes idle after its start.
    let node = world.node("n");
    let (_session, _) = world.wire().session("c", "n");
    node.admin(&["forget", &id, "--even-last"]).exits(0);
    node.admin(&["gc", "--now"]).exits(0);
    assert!(world.server.stop().success());
    let with_rows = leftovers(world.server.data());
    world.server.start_again();

    assert_eq!(sound, Vec::<String>::new());
    assert_eq!(with_object.len(), 1, "{with_object:?}");
    assert!(!with_rows.is_empty());
}
