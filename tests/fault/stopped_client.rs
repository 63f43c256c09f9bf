//! A client that stands still for longer than its lease lasts, while what it relies on is collected.
//!
//! The client is a real one. The server is in the test, whose clock stands still until it is told to move.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use format_spec::wire::{
    Delays, ForgetRequest, GcRequest, LargeDelete, LastComplete, Repair, RunMode, VerifyLevel,
};
use repo_server::background::expire_sessions;
use repo_server::clock::Clock;
use rustix::process::{Signal, kill_process};
use tests::client::{Client, Running, number, text};
use tests::compare::differences;
use tests::corpus;
use tests::gear;
use tests::seed::Random;
use tests::wait;
use tests::world::Folder;

use crate::power_cut::freeze;
use crate::process::{Process, Stores, TOKEN};

/// More than a session lives after its last request.
const LEASE: Duration = Duration::from_secs(121);
/// How often the server looks for sessions that are over.
const LOOK: Duration = Duration::from_millis(5);
/// How fast a push may send: slow enough to be met at any moment of it.
const RATE: &str = "1M";
/// Exit codes of a push that says that it has failed, and that another one may help.
const TRY_AGAIN: [i32; 2] = [11, 14];

/// A clock that stands still until it is told to move.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A server with a clock of its own, and a node with files.
struct Setup {
    process: Process,
    clock: Arc<ManualClock>,
    root: PathBuf,
    random: Random,
    folder: Folder,
}

impl Setup {
    fn new() -> Self {
        let (folder, clock, stores) = (Folder::new(), Arc::new(ManualClock::default()), Stores::new());
        let server = stores.server_at(Arc::<ManualClock>::clone(&clock));
        let process = Process::serving(&server, TOKEN, Arc::new(AtomicUsize::new(0)));
        process.wait(async { drop(tokio::spawn(expire_sessions(server, LOOK))) });
        let (root, mut random) = (folder.path("source"), Random::printed());
        corpus::plain(&root, &mut random, 6, 400_000);
        std::fs::write(folder.path("token"), TOKEN).unwrap();
        Self { process, clock, root, random, folder }
    }

    fn node(&self) -> Client {
        let home = self.folder.path("home");
        Client::of(self.process.api.server(), &self.folder.path("token"), "c", "n", &home)
    }

    fn open_sessions(&self) -> u64 {
        self.process.wait(self.process.api.status()).unwrap().open_sessions
    }

    /// Changes most files, so that a push takes a while, and leaves some, which it will not send again.
    fn work(&mut self) {
        for n in 0..4 {
            let bytes = self.random.bytes(500_000);
            std::fs::write(self.root.join(format!("file-{n}")), bytes).unwrap();
        }
    }

    /// Forgets these snapshots, and collects all that no session needs.
    fn forget_and_collect(&self, snapshots: &[String]) {
        let api = &self.process.api;
        let (mode, last_complete) = (RunMode::Apply, LastComplete::MayGo);
        let snapshots = snapshots.iter().map(|id| id.parse().unwrap()).collect();
        let request = ForgetRequest { mode, snapshots, last_complete, ..ForgetRequest::default() };
        self.process.wait(api.forget(&request)).unwrap();
        let (delays, large) = (Delays::Skip, LargeDelete::Allow);
        let request = GcRequest { mode: RunMode::Apply, delays, large, max_copy_bytes: None };
        for _ in 0..2 {
            self.process.wait(api.collect_garbage(&request, |_| {})).unwrap();
        }
    }

    /// Starts a push, and stops it at some moment within its session. `None` if it had ended by then.
    fn start_and_stop(&mut self) -> Option<Running> {
        let push = self.node().start_push_of(&[&self.root], &["--max-rate", RATE]);
        wait::for_state("a session", || (self.open_sessions() > 0).then_some(()));
        let pause = self.random.moment(0.8);
        if let Some(done) = push.within(pause) {
            done.exits(0);
            return None;
        }
        if freeze(push.pid()) {
            return Some(push);
        }
        // It had come to its end meanwhile.
        push.wait().exits(0);
        None
    }

    /// Fails unless what is listed is exactly `expected`, and all of the repository is sound.
    fn check(&self, expected: &[String], round: usize) {
        assert_eq!(self.node().snapshot_ids(), expected, "round {round}");
        let api = &self.process.api;
        let verified = self.process.wait(api.verify(VerifyLevel::Read, |_| {})).unwrap();
        assert!(verified.findings.is_empty(), "round {round}: {verified:?}");
        let audited = self.process.wait(api.audit(Repair::No, |_| {})).unwrap();
        assert!(audited.is_sound(), "round {round}: {audited:?}");
        for id in expected {
            let to = self.folder.path("restored");
            self.node().restore(id, &to, &["--strip-root"]).exits(0);
            assert_eq!(differences(&self.root, &to), Vec::<String>::new(), "round {round}");
            std::fs::remove_dir_all(&to).unwrap();
        }
    }
}

/// L2, L3, S3: a client that stands still past its lease, while the collector takes all that it relied on,
/// ends with a whole snapshot, or says that it has failed.
#[test]
#[ignore = "kills at moments of chance: `.ci/nightly fault`"]
fn a_client_that_is_stopped_past_its_lease_makes_a_whole_snapshot_or_none() {
    let mut setup = Setup::new();
    let (mut stopped, mut again, mut failed, mut round) = (0, 0, 0, 0);
    while gear::goes_on(round, gear::rounds(8, 400), again > 0) {
        round += 1;
        setup.node().push(&setup.root);
        let before = setup.node().snapshot_ids();
        setup.work();
        let Some(push) = setup.start_and_stop() else { continue };
        stopped += 1;
        setup.clock.advance(LEASE);
        wait::for_state("the session to be over", || (setup.open_sessions() == 0).then_some(()));
        setup.forget_and_collect(&before);
        kill_process(push.pid(), Signal::CONT).unwrap();

        let done = push.wait();

        let listed = setup.node().snapshot_ids();
        match done.code {
            Some(0) => {
                let report = done.json();
                again += usize::from(number(&report, "attempts") > 1);
                setup.check(&[text(&report, "snapshot")], round);
            }
            Some(code) if TRY_AGAIN.contains(&code) => {
                failed += 1;
                setup.check(&listed, round);
            }
            _ => panic!("round {round}: {done:?}"),
        }
    }
    println!("{stopped} pushes were stopped, {again} of them started again, {failed} failed");
    assert!(again > 0, "no push had to start again: all were stopped too early or too late");
}
