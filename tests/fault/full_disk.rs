//! A disk with no room left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use node_client::error::ClientError;
use repo_server::config::{Config, SpaceConfig};
use repo_server::health::space::{release_ballast, restore_ballast};
use repo_server::settings::{Amount, SpaceSettings};
use repo_server::space::{BALLAST, Room, Space, Volume};
use repo_server::start::{Opened, open_or_create};
use tests::client::{Client, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::http::Wire;
use tests::mount::Tmpfs;
use tests::seed::Random;
use tests::server::Server;
use tests::world::Folder;

use crate::process::{Process, Push, Stores};

pub(crate) const MIB: u64 = 1 << 20;

/// Takes all room of a disk but `left` bytes.
pub(crate) fn fill(disk: &Path, left: u64) -> PathBuf {
    let stat = rustix::fs::statvfs(disk).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let filling = disk.join("filling");
    let len = usize::try_from(free.saturating_sub(left)).unwrap();
    std::fs::write(&filling, vec![7; len]).unwrap();
    filling
}

/// Resources of a full-disk test, in the order in which they must be dropped.
struct Setup {
    server: Server,
    node: Client,
    root: PathBuf,
    random: Random,
    disk: Tmpfs,
    folder: Folder,
}

impl Setup {
    fn new(mebibytes: u32) -> Option<Self> {
        let folder = Folder::new();
        let disk = Tmpfs::mount(folder.dir("disk"), &format!("size={mebibytes}m"))?;
        let server = Server::start(&folder.path("disk/data"));
        Some(Self::over(server, folder, disk))
    }

    /// The same with a configuration of its own.
    fn with_config(mebibytes: u32, config: &str) -> Option<Self> {
        let folder = Folder::new();
        let disk = Tmpfs::mount(folder.dir("disk"), &format!("size={mebibytes}m"))?;
        std::fs::write(folder.path("server.toml"), config).unwrap();
        let server = Server::start_with(&folder.path("disk/data"), &folder.path("server.toml"));
        Some(Self::over(server, folder, disk))
    }

    fn over(mut server: Server, folder: Folder, disk: Tmpfs) -> Self {
        server.allow_errors("space");
        server.allow_errors("free");
        let node = Client::new(&server, "c", "n", &folder.path("home"));
        let mut random = Random::printed();
        let root = folder.path("source");
        corpus::plain(&root, &mut random, 5, 500_000);
        Self { server, node, root, random, disk, folder }
    }

    fn restore(&self, snapshot: &str, to: &str, expected: &Path) {
        let to = self.folder.path(to);
        self.node.restore(snapshot, &to, &["--strip-root"]).exits(0);
        assert_same(expected, &to);
    }
}

/// P8: a full disk refuses the push in clear words and keeps what is there; with room the push works.
#[test]
fn a_full_disk_refuses_the_push_keeps_reads_up_and_takes_pushes_again_with_room() {
    let Some(mut setup) = Setup::new(300) else { return };
    let first = text(&setup.node.push(&setup.root), "snapshot");
    let copy = setup.folder.path("copy");
    corpus::copy(&setup.root, &copy);
    let filling = fill(setup.disk.path(), 3 * MIB);
    let big = setup.random.bytes(20_000_000);
    std::fs::write(setup.root.join("big"), big).unwrap();

    let refused = setup.node.start_push(&setup.root).wait().exits(14);
    assert!(refused.stderr.contains("space"), "{}", refused.stderr);
    assert!(setup.server.runs(), "a full disk ends no server");
    assert_eq!(setup.node.snapshot_ids(), std::slice::from_ref(&first));
    setup.restore(&first, "restored-full", &copy);
    std::fs::remove_file(filling).unwrap();

    let second = text(&setup.node.push(&setup.root), "snapshot");
    setup.restore(&second, "restored-second", &setup.root);
    setup.restore(&first, "restored-first", &copy);
    setup.node.admin(&["verify", "--level", "read"]).exits(0);
}

/// P8, S1: pushes until nothing fits any more, then a kill and a start on the full disk: all that was
/// acknowledged is there.
#[test]
fn a_disk_that_fills_up_push_by_push_loses_nothing() {
    let Some(mut setup) = Setup::new(200) else { return };
    let mut acknowledged = Vec::new();
    let full = (0..200).find(|_| {
        let len = 4_000_000 + setup.random.index(4_000_000);
        let bytes = setup.random.bytes(len);
        std::fs::write(setup.root.join("grows"), bytes).unwrap();
        let done = setup.node.start_push(&setup.root).wait();
        if done.code == Some(0) {
            acknowledged.push(text(&done.json(), "snapshot"));
            return false;
        }
        assert_eq!(done.code, Some(14), "{done:?}");
        true
    });
    assert!(full.is_some() && !acknowledged.is_empty(), "the disk never filled up");

    setup.server.kill();
    setup.server.start_again();
    let node = Client::new(&setup.server, "c", "n", &setup.folder.path("home"));

    assert_eq!(node.snapshot_ids(), acknowledged);
    node.admin(&["verify", "--level", "read"]).exits(0);
    let last = acknowledged.last().unwrap();
    node.restore(last, &setup.folder.path("restored"), &["--strip-root"]).exits(0);
}

/// A push that would find no room is refused before it sends anything, and told the way out; all else goes on.
#[test]
fn a_disk_with_little_room_refuses_pushes_early_and_takes_them_again_with_room() {
    let config = "[space]\nballast_mib = 20\nrefuse_below_mib = 180\n";
    let Some(mut setup) = Setup::with_config(400, config) else { return };
    assert_eq!(ballast_len(setup.server.data()), 20 * MIB);
    let first = text(&setup.node.push(&setup.root), "snapshot");
    let copy = setup.folder.path("copy");
    corpus::copy(&setup.root, &copy);
    let filling = fill(setup.disk.path(), 160 * MIB);
    let new = setup.random.bytes(100_000);
    std::fs::write(setup.root.join("new"), new).unwrap();

    let refused = setup.node.start_push(&setup.root).wait().exits(14);

    let data = setup.server.data().display().to_string();
    for part in
        [data.as_str(), " MiB free", "180 MiB are reserved", "astacus-admin forget", "astacus-admin gc --now"]
    {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let asked = Wire::to(&setup.server).send("POST", "/v1/sessions", br#"{"cluster":"c","node":"n"}"#);
    assert_eq!(asked.status, 507, "the push was refused before it sent anything");
    assert_eq!(setup.node.snapshot_ids(), std::slice::from_ref(&first));
    setup.restore(&first, "restored-low", &copy);
    std::fs::remove_file(filling).unwrap();

    let second = text(&setup.node.push(&setup.root), "snapshot");
    setup.restore(&second, "restored-second", &setup.root);
}

#[test]
fn a_push_that_says_that_it_is_larger_than_the_room_is_refused_and_a_smaller_one_is_not() {
    let Some(mut setup) = Setup::with_config(400, "[space]\nrefuse_below_mib = 150\n") else { return };
    setup.server.allow_errors("expects to send");
    let ask = |mebibytes: u64| {
        let body = format!(r#"{{"cluster":"c","node":"n","expected_bytes":{}}}"#, mebibytes * MIB);
        Wire::to(&setup.server).send("POST", "/v1/sessions", body.as_bytes()).status
    };

    assert_eq!(ask(300), 507);
    assert_eq!(ask(50), 200);
}

/// P8, S1: on a disk that is full to the brim, forgetting and collecting make the room for the next push.
#[test]
fn forgetting_and_collecting_make_room_on_a_full_disk() {
    let config = "[space]\nballast_mib = 30\nrefuse_below_mib = 0\n[gc]\nevery_minutes = 0\n";
    let Some(mut setup) = Setup::with_config(500, config) else { return };
    assert_eq!(ballast_len(setup.server.data()), 30 * MIB);
    let big = setup.random.bytes(60_000_000);
    std::fs::write(setup.root.join("big"), big).unwrap();
    let first = text(&setup.node.push(&setup.root), "snapshot");
    std::fs::remove_file(setup.root.join("big")).unwrap();
    let second = text(&setup.node.push(&setup.root), "snapshot");
    let copy = setup.folder.path("copy");
    corpus::copy(&setup.root, &copy);
    let free = || {
        let stat = rustix::fs::statvfs(setup.disk.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    fill(setup.disk.path(), 110 * MIB);
    std::fs::write(setup.root.join("next"), vec![1; 1000]).unwrap();
    setup.node.start_push(&setup.root).wait().exits(14);
    let scrubbed = setup.node.admin(&["scrub", "--json"]).exits(0).json();
    assert!(scrubbed["bytes_read"].as_u64().unwrap() > 60_000_000, "a check needs no room: {scrubbed}");
    setup.restore(&second, "restored-full", &copy);

    setup.node.admin(&["forget", &first]).exits(0);
    assert_eq!(ballast_len(setup.server.data()), 0, "forgetting took the room of the ballast");
    let done = setup.node.admin(&["gc", "--now", "--json"]).exits(0).json();

    assert!(done["deleted"]["bytes"].as_u64().unwrap() > 55_000_000, "{done}");
    assert!(free() > 150 * MIB, "{} bytes are free", free());
    let third = text(&setup.node.push(&setup.root), "snapshot");
    setup.restore(&third, "restored-third", &setup.root);
    setup.restore(&second, "restored-second", &copy);
    for level in ["refs", "read"] {
        setup.node.admin(&["verify", "--level", level]).exits(0);
    }
}

fn ballast_len(data: &Path) -> u64 {
    std::fs::metadata(data.join(BALLAST)).map_or(0, |found| found.len())
}

/// A repository on `disk` within this process, which holds a ballast and lets the index refuse alone.
pub(crate) fn open(data: &Path, ballast_mib: u32) -> Opened {
    let space = SpaceConfig { ballast_mib: Some(ballast_mib), refuse_below_mib: Some(0) };
    let settings = Config { space, ..Config::default() }.settings().unwrap();
    let on_halt = Arc::new(|error: &dyn std::error::Error| panic!("halted: {error}"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(open_or_create(data, None, settings, on_halt)).unwrap()
}

/// P8: the disk is so full that the index takes no batch; what the ballast held is room for one.
#[test]
fn a_released_ballast_lets_the_index_commit_again() {
    let folder = Folder::new();
    let Some(disk) = Tmpfs::mount(folder.dir("disk"), "size=500m") else { return };
    let data = disk.path().join("data");
    let Opened { server, token, .. } = open(&data, 30);
    let process = Process::serving(&server, &token, Arc::new(AtomicUsize::new(0)));
    assert_eq!(release_ballast(server.store()).unwrap(), 0, "there is room");
    assert_eq!(ballast_len(&data), 30 * MIB);
    let filling = fill(disk.path(), 110 * MIB);
    let is_full = |refused: Result<_, ClientError>| refused.is_err_and(|error| error.code() == Some("full"));
    assert!(is_full(Push::open(&process)), "the index must take nothing any more");

    assert_eq!(release_ballast(server.store()).unwrap(), 30 * MIB);

    Push::open(&process).unwrap();
    assert_eq!(ballast_len(&data), 0);
    std::fs::remove_file(filling).unwrap();
    assert_eq!(restore_ballast(server.store()), 30 * MIB);
    assert_eq!(ballast_len(&data), 30 * MIB);
}

/// A disk that says that it has more room than it has, as one with a quota does.
struct Boaster;

impl Volume for Boaster {
    fn room(&self) -> std::io::Result<Room> {
        Ok(Room::of_bytes(1 << 40, 1 << 40))
    }
}

#[test]
fn a_ballast_that_does_not_fit_takes_nothing_and_one_that_cannot_grow_stays() {
    let folder = Folder::new();
    let Some(disk) = Tmpfs::mount(folder.dir("disk"), "size=16m") else { return };
    let restore = |mebibytes: u64| {
        let settings = SpaceSettings { ballast: Amount::Bytes(mebibytes * MIB), ..SpaceSettings::default() };
        let space = Space::on(Box::new(Boaster), disk.path(), settings);
        let Stores { index, site } = Stores::new();
        let (_process, server) = Process::with_space(index, site, space);
        restore_ballast(server.store())
    };
    let free = || rustix::fs::statvfs(disk.path()).unwrap().f_bavail;
    let at_first = free();

    assert_eq!(restore(20), 0);
    assert_eq!(free(), at_first);
    assert!(!disk.path().join(BALLAST).exists());
    assert_eq!(restore(4), 4 * MIB);
    let with_ballast = free();
    assert_eq!(restore(20), 4 * MIB);

    assert_eq!(free(), with_ballast);
    assert_eq!(ballast_len(disk.path()), 4 * MIB);
}
