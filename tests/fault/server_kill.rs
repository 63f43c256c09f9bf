//! The server process, killed at random moments.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tests::client::{Client, number, seconds, text};
use tests::compare::differences;
use tests::corpus;
use tests::gear;
use tests::seed::{Moments, Random};
use tests::wait;
use tests::world::World;

/// A snapshot, and a copy of what was pushed as it.
struct Kept {
    id: String,
    copy: PathBuf,
}

/// A node whose files change from round to round, and what it was acknowledged.
struct Rounds {
    world: World,
    random: Random,
    root: PathBuf,
    kept: Vec<Kept>,
}

impl Rounds {
    fn new() -> Self {
        let mut random = Random::printed();
        let world = World::new();
        let root = world.path("source");
        corpus::plain(&root, &mut random, 12, 1_500_000);
        Self { world, random, root, kept: Vec::new() }
    }

    fn node(&self) -> Client {
        self.world.node("n")
    }

    /// Changes files, and keeps a copy of the tree for later.
    fn work(&mut self, round: usize) -> PathBuf {
        corpus::work_on(&self.root, &mut self.random);
        let copy = self.world.path(&format!("copy-{round}"));
        corpus::copy_data(&self.root, &copy);
        copy
    }

    fn keep(&mut self, id: String, copy: &std::path::Path) {
        if !self.kept.iter().any(|kept| kept.id == id) {
            self.kept.push(Kept { id, copy: copy.to_owned() });
        }
    }

    /// Fails unless exactly what is kept is listed, the repository is sound, and the snapshots `restored`
    /// come back as they were.
    fn check(&self, round: usize, restored: &[Kept]) {
        let node = self.node();
        let kept: Vec<&String> = self.kept.iter().map(|kept| &kept.id).collect();
        assert_eq!(node.snapshot_ids().iter().collect::<Vec<_>>(), kept, "round {round}");
        let verified = node.admin(&["verify", "--level", "read", "--json"]);
        assert_eq!(verified.code, Some(0), "round {round}: {verified:?}");
        for Kept { id, copy } in restored {
            let to = self.world.path(&format!("restored-{round}-{id}"));
            node.restore(id, &to, &["--strip-root"]).exits(0);
            let found = differences(copy, &to);
            assert!(found.is_empty(), "round {round}, snapshot {id}: {found:#?}");
            std::fs::remove_dir_all(&to).unwrap();
        }
    }
}

/// S1, S3, X1: after any kill every acknowledged snapshot is listed, sound and restores byte for byte; one
/// that was not acknowledged is whole or not there; and the next push succeeds.
#[test]
#[ignore = "kills at moments of chance: `.ci/nightly fault`"]
fn kills_of_the_server_lose_nothing_that_was_acknowledged() {
    let mut rounds = Rounds::new();
    let copy = rounds.work(0);
    let report = rounds.node().push(&rounds.root);
    rounds.keep(text(&report, "snapshot"), &copy);
    let (mut cut, mut round) = (0, 0);
    let mut moments = Moments::new(seconds(&report));
    while gear::goes_on(round, gear::rounds(10, 500), cut > 0) {
        round += 1;
        let copy = rounds.work(round);
        let push = rounds.node().start_push(&rounds.root);
        let pause = moments.next(&mut rounds.random);
        let early = push.within(pause);
        rounds.world.server.kill();
        // It finds no server any more, and there will be none at this address.
        let done = early.unwrap_or_else(|| push.kill());
        rounds.world.server.start_again();

        if done.code == Some(0) {
            rounds.keep(text(&done.json(), "snapshot"), &copy);
        }
        cut += usize::from(done.code != Some(0));
        if done.code == Some(0) {
            moments.too_late();
        }
        println!("round {round}: killed after {pause:?}, the push ended with {:?}", done.code);
        // A commit whose answer was lost may have made a snapshot: then it is a whole one.
        let node = rounds.node();
        let unheard = node.snapshot_ids().into_iter().find(|id| !rounds.kept.iter().any(|k| k.id == *id));
        if let Some(id) = unheard {
            rounds.keep(id, &copy);
        }
        let newest = rounds.kept.last().map(|kept| Kept { id: kept.id.clone(), copy: kept.copy.clone() });
        rounds.check(round, &newest.into_iter().collect::<Vec<_>>());
    }
    assert!(cut > 0, "no push was cut short: the kills come too late");
    let copy = rounds.work(usize::MAX);
    let id = text(&rounds.node().push(&rounds.root), "snapshot");
    rounds.keep(id, &copy);
    let all: Vec<Kept> =
        rounds.kept.iter().map(|kept| Kept { id: kept.id.clone(), copy: kept.copy.clone() }).collect();
    rounds.check(usize::MAX, &all);
}

/// S1, S4, C5: a push rides through a server that is killed and comes back at the same address, and what it
/// is told then is true.
#[test]
fn a_push_rides_through_a_server_that_is_killed_and_comes_back() {
    let mut rounds = Rounds::new();
    let report = rounds.node().push(&rounds.root);
    let copy = rounds.world.path("copy");
    corpus::copy(&rounds.root, &copy);
    rounds.keep(text(&report, "snapshot"), &copy);
    for round in 0..gear::rounds(5, 100) {
        let copy = rounds.work(round);
        let push = rounds.node().start_push(&rounds.root);
        let pause = rounds.random.moment(seconds(&report));
        let early = push.within(pause);
        rounds.world.server.start_again_here();

        let done = early.unwrap_or_else(|| push.wait()).exits(0);

        rounds.keep(text(&done.json(), "snapshot"), &copy);
        // A commit whose answer was lost and a push from the start make two of the same files.
        for id in rounds.node().snapshot_ids() {
            rounds.keep(id, &copy);
        }
        rounds.kept.sort_by(|a, b| a.id.cmp(&b.id));
    }
    let all: Vec<Kept> =
        rounds.kept.iter().map(|kept| Kept { id: kept.id.clone(), copy: kept.copy.clone() }).collect();
    rounds.check(0, &all);
}

/// S1, C5: a client that has stopped in the middle of a body keeps a restart from nobody else's push: the server cuts it
/// off, and the others ride through.
#[test]
fn a_push_rides_through_a_restart_beside_a_client_that_stands_still() {
    let mut world = World::new();
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 6, 1_000_000);
    let (session, _) = world.wire().session("c", "stalled");
    let mut stalled = world.wire().connect();
    let (wire, host) = (world.wire(), world.server.host().to_owned());
    let authorization = wire.authorization();
    let request = format!(
        "POST /v1/sessions/{session}/blobs HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\
         Content-Length: 60000\r\n\r\nAFR"
    );
    stalled.write_all(request.as_bytes()).unwrap();
    let node = world.node("n");
    let push = node.start_push_of(&[&root], &["--max-rate", "1M"]);
    let sessions = || number(&node.status(), "open_sessions");
    wait::for_state("both sessions", || (sessions() == 2).then_some(()));

    assert!(world.server.stop().success());
    world.server.start_again_here();
    let report = push.wait().exits(0).json();

    assert!(world.server.log().contains("were aborted"), "{}", world.server.log());
    let to = world.path("restored");
    world.node("n").restore(&text(&report, "snapshot"), &to, &["--strip-root"]).exits(0);
    assert_eq!(differences(&root, &to), Vec::<String>::new());
    drop(stalled);
}

/// X1: a server that is killed while it starts starts the next time.
#[test]
fn kills_during_the_first_start_leave_a_folder_that_starts() {
    let mut random = Random::printed();
    let folder = tests::world::Folder::new();
    let data = folder.path("data");
    for _ in 0..gear::rounds(15, 300) {
        let running = tests::client::Running::start(tests::server::over(&data));
        let ended = running.within(Duration::from_micros(random.below(60_000)));
        assert!(ended.is_none(), "{ended:?}");
        running.kill();
    }

    drop(tests::server::Server::start(&data));
}
