//! The power of the server's machine, cut at the acknowledgement and at random moments.
//!
//! The data folder lies on a file system in an image. To cut the power, the server is frozen, and the
//! image is copied without a sync: what only the kernel's memory had is not in the copy. Work then goes
//! on from the copy, so that each cut finds what earlier cuts have left.
//!
//! A frozen thread has ended the system call that it was in. What is left in the middle of one is for
//! the model of a disk in `repo_server::durable`, and what a drive loses of its own cache for nobody here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::client::{Client, Done, Running, seconds, text};
use tests::compare::differences;
use tests::corpus;
use tests::gear;
use tests::loop_image::{self, FileSystem, LoopImage};
use tests::mount::Tmpfs;
use tests::seed::{Moments, Random};
use tests::server::Server;
use tests::wait;
use tests::world::{Folder, objects};

/// Rounds on one image, before a new one is made.
const ROUNDS_OF_AN_IMAGE: usize = 5;

/// Cuts in runs of the collector, one after the other.
const CUTS_IN_RUNS: usize = 3;

/// A snapshot that was acknowledged before a cut, and a copy of its files.
#[derive(Clone)]
struct Kept {
    id: String,
    copy: PathBuf,
}

/// Something that is done between two pushes.
type Action = fn(&mut Machine, &mut Random);

/// Actions between the two pushes of a round, by turns.
const BETWEEN: [(&str, Action); 5] = [
    ("nothing", |_, _| {}),
    ("a restart", |machine, _| machine.restart()),
    ("a power cut at rest", |machine, _| machine.cut_at_rest()),
    ("a run of the collector", Machine::forget_and_collect),
    ("power cuts in runs of the collector", Machine::cut_in_runs),
];

/// Counts of actions and checks, over all images.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// Pushes that were cut before they were acknowledged.
    cut_short: usize,
    /// Snapshots of these that are there all the same, whole.
    unheard: usize,
    listed: usize,
    restored: usize,
    forgotten: usize,
    /// Runs of the collector that were cut before they had ended, and those that had done something by then.
    runs_cut: usize,
    runs_cut_at_work: usize,
}

/// A machine with a server, whose power goes at times, and a node elsewhere.
pub(crate) struct Machine {
    // In this order they go: who has files open on the image, the image, where all of it lies.
    server: Server,
    image: LoopImage,
    /// Holds the files that the node syncs: on the disk of the host, a sync would write out that whole disk.
    node_disk: Tmpfs,
    root: PathBuf,
    kept: Vec<Kept>,
    tally: Tally,
    /// Moments of a run of the collector.
    run_moments: Moments,
    images: usize,
    /// Error that servers may log from the next cut on.
    allowed: Option<&'static str>,
    folder: Folder,
}

impl Machine {
    /// A new repository on a new file system, and files to push. `None` where none can be mounted.
    pub(crate) fn new(kind: FileSystem, random: &mut Random) -> Option<Self> {
        let folder = Folder::new();
        let image = LoopImage::make(kind, &folder, "disk-0")?;
        let node_disk = Tmpfs::mount(loop_image::mount_point(&folder, "node"), "size=256m")?;
        let server = Server::start(&data(&image));
        let root = folder.path("source");
        corpus::plain(&root, random, 8, 500_000);
        let (kept, tally, run_moments) = (Vec::new(), Tally::default(), Moments::new(0.06));
        let (images, allowed) = (1, None);
        Some(Self { server, image, node_disk, root, kept, tally, run_moments, images, allowed, folder })
    }

    fn node(&self) -> Client {
        Client::new(&self.server, "c", "n", &self.node_disk.path().join("home"))
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Lets the servers after the next cut find something damaged.
    pub(crate) fn expect_damage(&mut self) {
        self.allowed = Some("damaged");
    }

    /// Changes files, and keeps a copy of the tree for later.
    fn work(&mut self, random: &mut Random) -> PathBuf {
        corpus::work_on(&self.root, random);
        let copy = self.folder.path(&format!("copy-{}", self.kept.len() + self.tally.forgotten));
        if copy.exists() {
            // The interrupted push has left nothing.
            std::fs::remove_dir_all(&copy).unwrap();
        }
        corpus::copy_data(&self.root, &copy);
        copy
    }

    fn keep(&mut self, id: String, copy: &Path) {
        self.kept.push(Kept { id, copy: copy.to_owned() });
    }

    /// State after a power cut at this moment: the server is stopped until it ends.
    fn freeze(&mut self) -> LoopImage {
        assert!(freeze(self.server.pid()), "the server is there");
        self.tally.cuts += 1;
        let name = format!("disk-{}", self.images);
        self.images += 1;
        self.image.after_a_power_cut(&self.folder, &name)
    }

    /// Goes on from what the power cut has left.
    fn boot(&mut self, image: LoopImage) {
        self.server.kill();
        self.server = Server::start(&data(&image));
        self.allowed.iter().for_each(|text| self.server.allow_errors(text));
        self.image = image;
    }

    /// Cuts the power `pause` after `running` was started, or when it ends if that is earlier. Returns how
    /// it ended: with success only if it had been told so before the cut.
    fn cut_within(&mut self, running: Running, pause: Duration) -> Done {
        let early = running.within(pause);
        let image = self.freeze();
        // It may have ended by itself: what it had heard was said before the server stood still.
        let done = early.unwrap_or_else(|| running.kill());
        self.boot(image);
        done
    }

    /// Pushes, and cuts the power as soon as that is acknowledged. Returns what was lost of the objects on
    /// the site.
    ///
    /// # Panics
    /// If the push does not succeed.
    pub(crate) fn cut_at_the_acknowledgement(&mut self, random: &mut Random) -> Vec<String> {
        let copy = self.work(random);
        let report = self.node().push(&self.root);
        self.keep(text(&report, "snapshot"), &copy);
        let image = self.freeze();
        let lost = lost_objects(&data(&self.image), &data(&image));
        self.boot(image);
        lost
    }

    /// Pushes, and cuts the power in the middle of it. What was not acknowledged and is there all the same
    /// has to be whole from now on.
    fn cut_in_a_push(&mut self, moments: &mut Moments, random: &mut Random) {
        let copy = self.work(random);
        let push = self.node().start_push(&self.root);
        let done = self.cut_within(push, moments.next(random));
        let known = |id: &String| self.kept.iter().any(|kept| kept.id == *id);
        let unheard = self.node().snapshot_ids().into_iter().find(|id| !known(id));
        if done.code == Some(0) {
            moments.too_late();
            self.keep(text(&done.json(), "snapshot"), &copy);
        } else {
            self.tally.cut_short += 1;
            self.tally.unheard += usize::from(unheard.is_some());
            unheard.into_iter().for_each(|id| self.keep(id, &copy));
        }
    }

    fn cut_at_rest(&mut self) {
        let image = self.freeze();
        self.boot(image);
    }

    fn restart(&mut self) {
        assert!(self.server.stop().success());
        self.server.start_again();
    }

    /// Forgets one of the snapshots, and returns it.
    fn forget(&mut self, random: &mut Random) -> Kept {
        let gone = self.kept.remove(random.index(self.kept.len()));
        self.node().admin(&["forget", "--even-last", &gone.id]).exits(0);
        self.tally.forgotten += 1;
        gone
    }

    /// Starts a run of the collector that waits for nothing but sessions.
    fn start_run(&self) -> Running {
        let mut command = self.node().program("astacus-admin");
        command.args(["gc", "--now", "--allow-large", "--json"]);
        Running::start(command)
    }

    fn forget_and_collect(&mut self, random: &mut Random) {
        self.forget(random);
        self.start_run().wait().exits(0);
    }

    /// Cuts the power in the middle of some runs of the collector, and lets the next one go on.
    fn cut_in_runs(&mut self, random: &mut Random) {
        for _ in 0..CUTS_IN_RUNS {
            self.cut_in_a_run(random);
        }
        self.start_run().wait().exits(0);
    }

    /// Cuts the power in the middle of a run of the collector. What was forgotten is there, whole, or gone.
    fn cut_in_a_run(&mut self, random: &mut Random) {
        let gone = self.forget(random);
        let (run, pause) = (self.start_run(), self.run_moments.next(random));
        let done = self.cut_within(run, pause);
        let is_there = self.node().snapshot_ids().contains(&gone.id);
        match done.code {
            None => {
                self.tally.runs_cut += 1;
                self.tally.runs_cut_at_work += usize::from(!is_there);
            }
            code => {
                self.run_moments.too_late();
                assert!(code == Some(0) && !is_there, "{done:?}");
            }
        }
        let found = if is_there { self.restore(&gone) } else { Vec::new() };
        fail_on(&found, "a snapshot that was forgotten");
        if is_there {
            // The next run takes it.
            self.start_run().wait().exits(0);
        }
        fail_on(&self.findings(1), "after a cut in a run of the collector");
    }

    /// Problems: the list differs from the acknowledged snapshots, something is damaged, or one of the newest
    /// `count` snapshots does not restore as pushed.
    pub(crate) fn findings(&mut self, count: usize) -> Vec<String> {
        let node = self.node();
        let mut found = Vec::new();
        let (listed, kept) = (node.snapshot_ids(), self.kept.iter().map(|kept| &kept.id));
        if !listed.iter().eq(kept.clone()) {
            found.push(format!("listed are {listed:?} instead of {:?}", kept.collect::<Vec<_>>()));
        }
        found.extend(self.verify());
        self.tally.listed += listed.len();
        let newest: Vec<Kept> = self.kept.iter().rev().take(count).cloned().collect();
        newest.iter().for_each(|kept| found.extend(self.restore(kept)));
        found
    }

    /// Damaged objects and wrong counts.
    fn verify(&self) -> Vec<String> {
        let verify = |level| self.node().admin(&["verify", "--level", level, "--json"]);
        let verified = ["read", "refs"].map(verify).into_iter();
        verified.filter(|done| done.code != Some(0)).map(|done| format!("verify: {done:?}")).collect()
    }

    fn restore(&mut self, kept: &Kept) -> Vec<String> {
        let to = self.node_disk.path().join("restored");
        let done = self.node().restore(&kept.id, &to, &["--strip-root"]);
        self.tally.restored += 1;
        if done.code != Some(0) {
            return vec![format!("restore of {}: {done:?}", kept.id)];
        }
        let found = differences(&kept.copy, &to);
        std::fs::remove_dir_all(&to).unwrap();
        found.into_iter().map(|what| format!("snapshot {}: {what}", kept.id)).collect()
    }
}

fn data(image: &LoopImage) -> PathBuf {
    image.path().join("data")
}

/// Stops every thread of a process, and returns when all of them stand still. False if it had ended by then.
pub(crate) fn freeze(pid: Pid) -> bool {
    if kill_process(pid, Signal::STOP).is_err() {
        return false;
    }
    let threads = format!("/proc/{pid}/task", pid = pid.as_raw_nonzero());
    let stands_still = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
        // The state comes after the name, which is in brackets and may have any in it.
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't'])))
    };
    wait::for_state("a process to stand still", || match std::fs::read_dir(&threads) {
        Ok(mut threads) => threads.all(stands_still).then_some(true),
        Err(_) => Some(false),
    })
}

/// The objects of the site in the data folder `before` that are not in `after`, or not the same.
fn lost_objects(before: &Path, after: &Path) -> Vec<String> {
    let object = |path: &Path| path.strip_prefix(before).expect("it was found there").to_owned();
    let all = objects(before, "");
    assert!(all.len() >= 4, "a push leaves packs, a manifest and a snapshot: {all:?}");
    let is_kept = |path: &PathBuf| {
        let now = std::fs::read(after.join(object(path)));
        now.is_ok_and(|now| std::fs::read(path).is_ok_and(|then| then == now))
    };
    let lost = all.iter().filter(|path| !is_kept(path));
    lost.map(|path| format!("{} was acknowledged and is lost", object(path).display())).collect()
}

fn fail_on(found: &[String], when: &str) {
    assert!(found.is_empty(), "{when}: {found:#?}");
}

/// Rounds on one image: a push that is cut at its acknowledgement, something in between, and a push that is
/// cut anywhere. `None` where no image can be mounted.
fn run_rounds(kind: FileSystem, rounds: usize, random: &mut Random) -> Option<Tally> {
    let mut machine = Machine::new(kind, random)?;
    let report = machine.node().push(&machine.root);
    let copy = machine.folder.path("copy-0");
    corpus::copy_data(&machine.root, &copy);
    machine.keep(text(&report, "snapshot"), &copy);
    let mut moments = Moments::new(seconds(&report));
    for round in 1..=rounds {
        let lost = machine.cut_at_the_acknowledgement(random);
        fail_on(&lost, &format!("round {round}, objects at the acknowledgement"));
        fail_on(&machine.findings(1), &format!("round {round}, cut at the acknowledgement"));
        let (name, action) = BETWEEN[round % BETWEEN.len()];
        action(&mut machine, random);
        machine.cut_in_a_push(&mut moments, random);
        fail_on(&machine.findings(2), &format!("round {round}, cut in a push after {name}"));
    }
    let copy = machine.work(random);
    let last = text(&machine.node().push(&machine.root), "snapshot");
    machine.keep(last, &copy);
    fail_on(&machine.findings(usize::MAX), "after the last push");
    Some(machine.tally)
}

fn run(kind: FileSystem) {
    let mut random = Random::printed();
    let (rounds, mut done) = (gear::rounds(10, 300), 0);
    let mut all = Tally::default();
    while gear::goes_on(done, rounds, all.cut_short > 0 && all.runs_cut > 0) {
        let Some(tally) = run_rounds(kind, ROUNDS_OF_AN_IMAGE, &mut random) else { return };
        done += ROUNDS_OF_AN_IMAGE;
        all.add(&tally);
        println!("{kind:?}: {done} of {rounds} rounds, {all:?}");
    }
    assert!(all.cut_short > 0, "no push was cut short: the cuts come too late");
    assert!(all.runs_cut > 0, "no run of the collector was cut short: the cuts come too late");
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.cut_short += other.cut_short;
        self.unheard += other.unheard;
        self.listed += other.listed;
        self.restored += other.restored;
        self.forgotten += other.forgotten;
        self.runs_cut += other.runs_cut;
        self.runs_cut_at_work += other.runs_cut_at_work;
    }
}

/// S1, S3, X1, P5: after any power cut every acknowledged snapshot is listed, sound and restores byte for
/// byte; one that was not acknowledged is whole or not there; and the next push succeeds.
#[test]
#[ignore = "cuts at moments of chance: `.ci/nightly fault`"]
fn power_cuts_on_ext4_lose_nothing_that_was_acknowledged() {
    run(FileSystem::Ext4);
}

/// S1, S3, X1, P5: as on ext4.
#[test]
#[ignore = "cuts at moments of chance: `.ci/nightly fault`"]
fn power_cuts_on_xfs_lose_nothing_that_was_acknowledged() {
    run(FileSystem::Xfs);
}

/// Cuts the power of a machine while its server makes a repository, and starts it on what is left. Returns
/// whether that was a repository already. `None` where no image can be mounted.
fn cut_the_first_start(kind: FileSystem, pause: Duration) -> Option<bool> {
    let folder = Folder::new();
    let image = LoopImage::make(kind, &folder, "disk-0")?;
    let mut command = tests::server::command();
    command.arg("--data-dir").arg(data(&image)).args(["--listen", "127.0.0.1:0"]);
    let running = Running::start(command);
    let early = running.within(pause);
    assert!(early.is_none(), "{early:?}");
    assert!(freeze(running.pid()), "it is still running");
    let left = image.after_a_power_cut(&folder, "disk-1");
    running.kill();

    let is_whole = data(&left).join("site/keyring/repository").exists();
    let server = Server::start(&data(&left));
    let source = folder.dir("source");
    std::fs::write(source.join("file"), b"content").unwrap();
    let node = Client::new(&server, "c", "n", &folder.path("home"));
    let pushed = text(&node.push(&source), "snapshot");
    assert_eq!(node.snapshot_ids(), [pushed]);
    drop(server);
    drop(left);
    Some(is_whole)
}

/// X1, X2: a power cut while a repository is made leaves a folder in which the next start makes or finds one.
#[test]
fn power_cuts_during_the_first_start_leave_a_folder_that_starts() {
    let mut random = Random::printed();
    for kind in [FileSystem::Ext4, FileSystem::Xfs] {
        let (rounds, mut whole) = (gear::rounds(6, 150), 0);
        // The length of a first start is unknown here: the cuts approach its end.
        let mut longest = 100_000;
        for _ in 0..rounds {
            let pause = Duration::from_micros(random.below(longest));
            let Some(is_whole) = cut_the_first_start(kind, pause) else { return };
            whole += usize::from(is_whole);
            longest = if is_whole { longest / 2 } else { longest * 2 };
        }
        println!("{kind:?}: {rounds} first starts were cut, {whole} of them when the repository was whole");
    }
}
