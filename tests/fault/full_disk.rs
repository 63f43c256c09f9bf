//! A disk with no room left.

use std::path::{Path, PathBuf};

use tests::client::{Client, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::mount::Tmpfs;
use tests::seed::Random;
use tests::server::Server;
use tests::world::Folder;

const MIB: u64 = 1 << 20;

/// Takes all room of a disk but `left` bytes.
fn fill(disk: &Path, left: u64) -> PathBuf {
    let stat = rustix::fs::statvfs(disk).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let ballast = disk.join("ballast");
    let len = usize::try_from(free.saturating_sub(left)).unwrap();
    std::fs::write(&ballast, vec![7; len]).unwrap();
    ballast
}

/// What a test of a full disk needs, in the order in which it must go.
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
        let mut server = Server::start(&folder.path("disk/data"));
        server.allow_errors("space");
        server.allow_errors("free");
        let node = Client::new(&server, "c", "n", &folder.path("home"));
        let mut random = Random::printed();
        let root = folder.path("source");
        corpus::plain(&root, &mut random, 5, 500_000);
        Some(Self { server, node, root, random, disk, folder })
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
    let ballast = fill(setup.disk.path(), 3 * MIB);
    let big = setup.random.bytes(20_000_000);
    std::fs::write(setup.root.join("big"), big).unwrap();

    let refused = setup.node.start_push(&setup.root).wait().exits(14);
    assert!(refused.stderr.contains("space"), "{}", refused.stderr);
    assert!(setup.server.runs(), "a full disk ends no server");
    assert_eq!(setup.node.snapshot_ids(), std::slice::from_ref(&first));
    setup.restore(&first, "restored-full", &copy);
    std::fs::remove_file(ballast).unwrap();

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
