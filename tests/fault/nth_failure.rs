//! The n-th call to the disk of a site fails, for every n: through pushes, a dead push, a run of the
//! collector with all it does, and a checkpoint.
//!
//! After a call that is refused for lack of room or files the same process goes on. After any other the
//! process must halt; then the power is cut, and the next process finds all that was acknowledged, goes on
//! with the work, and its collector leaves nothing behind. The twin lies about each sync in turn, and each
//! lie must be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use format_spec::wire::{Delays, ForgetRequest, GcRequest, Held, LargeDelete, RunMode};
use format_spec::{SessionId, SnapshotId, id};
use node_client::api::Coming;
use node_client::error::ClientError;
use repo_server::checkpoint::{self, When};
use repo_server::durable::TemporaryName;
use repo_server::index::{MemoryIndex, Table};
use repo_server::rows::PackRow;
use repo_server::server::Server;
use repo_server::site::{Prefix, StoreSite};
use repo_server::space::Space;
use rustix::io::Errno;
use tests::bodies::chunk_frame;
use tests::world::Folder;

use crate::failing_disk::{Call, FailingDisk, Failure, Fault, Stake};
use crate::judge;
use crate::process::{Process, Push, Stores, send};

/// The work, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    PushFirst,
    /// A push that sends chunks and ends there.
    PushHalf,
    /// Shares little with the first: what stays of that is repacked.
    PushSecond,
    Checkpoint,
    Forget,
    Collect,
}

const STEPS: [Step; 6] =
    [Step::PushFirst, Step::PushHalf, Step::PushSecond, Step::Checkpoint, Step::Forget, Step::Collect];

pub(crate) fn pushes() -> [Push; 3] {
    [
        Push::of(&["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]),
        Push::of(&["zeta", "eta"]),
        Push::of(&["sent", "and", "never", "committed"]),
    ]
}

/// Why a step was not done.
#[derive(Debug)]
enum Refused {
    Halted,
    Full,
    Other(#[expect(dead_code, reason = "shown when a test fails")] String),
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Self {
        match error.code() {
            Some("halted") => Self::Halted,
            Some("full") => Self::Full,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// A process over the machine's disk.
struct Running {
    process: Process,
    server: Arc<Server>,
    stores: Stores,
}

/// Folders that outlive processes, and the state of clients.
struct Machine {
    folder: Folder,
    disk: FailingDisk,
    index: MemoryIndex,
    sessions: Vec<SessionId>,
    first: Option<SnapshotId>,
    second: Option<SnapshotId>,
    /// The first was named in a request to forget.
    is_forgetting: bool,
}

impl Machine {
    fn new() -> Self {
        let (folder, disk, index) = (Folder::new(), FailingDisk::default(), MemoryIndex::new());
        folder.dir("site");
        Self { folder, disk, index, sessions: Vec::new(), first: None, second: None, is_forgetting: false }
    }

    fn start(&self) -> Running {
        let site = StoreSite::folder_on(Arc::new(self.disk.clone()), &self.folder.path("site"));
        let stores = Stores { index: Arc::new(self.index.clone()), site: Arc::new(site.unwrap()) };
        let (index, site) = (Arc::clone(&stores.index), Arc::clone(&stores.site));
        let (process, server) = Process::with_space(index, site, Space::unlimited());
        Running { process, server, stores }
    }

    fn step(&mut self, running: &Running, step: Step) -> Result<(), Refused> {
        let [first, second, _] = pushes();
        match step {
            Step::PushFirst => self.first = Some(self.push(running, &first)?),
            Step::PushHalf => self.push_half(running)?,
            Step::PushSecond => self.second = Some(self.push(running, &second)?),
            Step::Checkpoint => checkpoint(running)?,
            Step::Forget => self.forget(running)?,
            Step::Collect => collect(running)?,
        }
        Ok(())
    }

    fn push(&mut self, running: &Running, push: &Push) -> Result<SnapshotId, Refused> {
        let (session, domain) = Push::open(&running.process)?;
        self.sessions.push(session);
        Ok(push.run(&running.process, session, &domain)?)
    }

    /// Its chunks are on the site, as another push makes way for its pages.
    fn push_half(&mut self, running: &Running) -> Result<(), Refused> {
        let Running { process, .. } = running;
        let (session, domain) = Push::open(process)?;
        self.sessions.push(session);
        let [_, _, half] = pushes();
        let (ids, frames): (Vec<_>, Vec<_>) =
            half.contents.iter().map(|content| chunk_frame(&domain, content)).unzip();
        let held = process.wait(process.api.have(session, &ids, Coming::Send))?;
        if held.contains(&Held::Missing) {
            send(process, session, &frames)?;
        }
        Ok(process.wait(process.api.abort(session))?)
    }

    fn forget(&mut self, running: &Running) -> Result<(), Refused> {
        let Some(first) = self.first else { return Ok(()) };
        self.is_forgetting = true;
        let request =
            ForgetRequest { mode: RunMode::Apply, snapshots: vec![first], ..ForgetRequest::default() };
        running.process.wait(running.process.api.forget(&request))?;
        Ok(())
    }

    /// Problems of the repository that this process serves.
    fn findings(&self, running: &Running) -> Vec<String> {
        let [first, second, _] = pushes();
        let kept = self.first.filter(|_| !self.is_forgetting);
        let kept = kept.map(|id| (id, &first)).into_iter().chain(self.second.map(|id| (id, &second)));
        let mut found =
            judge::findings(&running.stores, &running.process, &kept.collect::<Vec<_>>(), &[&first, &second]);
        let objects = objects(running);
        // Also of what no reader depends on, as of checkpoints.
        let is_there = |name: &String| objects.get(name).is_some_and(|len| *len > 0);
        let missing = needed(&running.stores).into_iter().filter(|name| !is_there(name));
        found.extend(missing.map(|name| format!("{name} is lost")));
        found
    }

    /// Cuts the power after the last process, and has the next one look, and do the rest of the work: from
    /// `rest` on. Says what it found wrong at first and at the end.
    fn findings_of_the_next(&mut self, rest: &[Step]) -> Vec<String> {
        self.disk.cut_power();
        self.disk.arm(None);
        let running = self.start();
        let mut found = self.findings(&running);
        for step in rest {
            if let Err(refused) = self.step(&running, *step) {
                found.push(format!("{step:?}: {refused:?}"));
            }
        }
        found.extend(self.tidy(&running));
        found.extend(self.findings(&running));
        found
    }

    /// Ends what clients left open, and collects; says what stays that nothing needs.
    fn tidy(&self, running: &Running) -> Vec<String> {
        let Running { process, stores, .. } = running;
        for session in &self.sessions {
            // One that has ended has ended.
            let _ = process.wait(process.api.abort(*session));
        }
        let mut found = Vec::new();
        for _ in 0..2 {
            found.extend(collect(running).err().map(|refused| format!("collect: {refused:?}")));
        }
        let needed = needed(stores);
        let left = objects(running).into_keys().filter(|name| !needed.contains(name));
        found.extend(left.map(|name| format!("{name} is left over")));
        found.extend(
            judge::rows(stores.index.as_ref(), Table::Doomed)
                .iter()
                .map(|(key, _)| format!("doomed: {key:?}")),
        );
        found
    }
}

fn checkpoint(running: &Running) -> Result<(), Refused> {
    let written = running.process.wait(checkpoint::run(&running.server, When::Now));
    let refused = written.err().map(|error| match error.code() {
        "halted" => Refused::Halted,
        "full" => Refused::Full,
        _ => Refused::Other(error.to_string()),
    });
    refused.map_or(Ok(()), Err)
}

/// A whole run, past all delays.
fn collect(running: &Running) -> Result<(), Refused> {
    let (delays, large) = (Delays::Skip, LargeDelete::Allow);
    let request = GcRequest { mode: RunMode::Apply, delays, large, ..GcRequest::default() };
    let report = running.process.wait(running.process.api.collect_garbage(&request, |_| {}))?;
    match (report.problems.as_slice(), report.stopped) {
        ([], None) => Ok(()),
        (problems, stopped) => Err(Refused::Other(format!("{problems:?}, {stopped:?}"))),
    }
}

/// The objects that rows name.
pub(crate) fn needed(stores: &Stores) -> BTreeSet<String> {
    let keys = |table| judge::rows(stores.index.as_ref(), table).into_iter().map(|(key, _)| key);
    let snapshot = |key: Vec<u8>| SnapshotId::from_bytes(key.try_into().expect("a UUID"));
    let pack = |(_, value): (Vec<u8>, Vec<u8>)| {
        let hex = PackRow::decode(&value).expect("a pack's row").id.to_hex();
        format!("packs/{}/{hex}", &hex[..2])
    };
    let part = |key: Vec<u8>| {
        let key = String::from_utf8(key).ok()?;
        Some(format!("heads/checkpoint-{}", key.strip_prefix("checkpoint/part/")?))
    };
    let snapshots = keys(Table::Snapshot).map(|key| format!("snapshots/{}", snapshot(key)));
    let manifests = keys(Table::Manifest).map(|key| format!("manifests/{}", id::to_hex(&key)));
    let packs = judge::rows(stores.index.as_ref(), Table::Pack).into_iter().map(pack);
    snapshots.chain(manifests).chain(packs).chain(keys(Table::Meta).filter_map(part)).collect()
}

/// The objects of the site, and their lengths.
fn objects(running: &Running) -> BTreeMap<String, u64> {
    let listed = running.process.wait(running.stores.site.list(&Prefix::everything())).unwrap();
    listed.into_iter().map(|object| (object.name.to_string(), object.len)).collect()
}

fn all_rows(stores: &Stores) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    Table::ALL.into_iter().map(|table| judge::rows(stores.index.as_ref(), table)).collect()
}

/// How a run went until its fault fired.
struct Story {
    machine: Machine,
    running: Running,
    /// The step in which the fault fired, and what it answered.
    fired: Option<(usize, Stake, Result<(), Refused>)>,
}

fn run(fault: Option<Fault>) -> Story {
    let mut machine = Machine::new();
    let running = machine.start();
    machine.disk.arm(fault);
    for (number, step) in STEPS.into_iter().enumerate() {
        let answer = machine.step(&running, step);
        if let Some(stake) = machine.disk.fired() {
            return Story { machine, running, fired: Some((number, stake, answer)) };
        }
        answer.unwrap_or_else(|refused| panic!("{step:?} failed by itself: {refused:?}"));
    }
    Story { machine, running, fired: None }
}

/// True if the disk can be trusted after such a failure of a call.
fn can_go_on(call: Call, errno: Errno) -> bool {
    match errno {
        Errno::NOSPC => call != Call::SyncFolder,
        Errno::MFILE => call != Call::SyncFolder && call != Call::SyncFile,
        _ => false,
    }
}

/// P8: the process halts, acknowledges nothing more, and what it acknowledged is there after a power cut.
fn check_halt(story: Story, at: usize, answer: Result<(), Refused>, what: &str) {
    let Story { mut machine, running, .. } = story;
    assert!(answer.is_err(), "{what}: acknowledged");
    assert_eq!(running.process.halts(), 1, "{what}: {answer:?}");
    let known = (machine.first, machine.second, machine.is_forgetting);
    let before = all_rows(&running.stores);
    for step in STEPS {
        let later = machine.step(&running, step);
        // There may be nothing to forget, and nothing that a checkpoint would cover.
        let may_do_nothing = matches!(step, Step::Forget | Step::Checkpoint);
        assert!(later.is_err() || may_do_nothing, "{what}: {step:?} was acknowledged after the halt");
        assert!(all_rows(&running.stores) == before, "{what}: {step:?} changed rows after the halt");
    }
    (machine.first, machine.second, machine.is_forgetting) = known;
    drop(running);
    let found = machine.findings_of_the_next(&STEPS[at..]);
    assert!(found.is_empty(), "{what}: {found:#?}");
}

/// P8: the request is refused, everything stays readable, and the same process does it when asked again.
fn check_refusal(story: Story, at: usize, answer: Result<(), Refused>, errno: Errno, what: &str) {
    let Story { mut machine, running, .. } = story;
    let refused = answer.expect_err(what);
    if errno == Errno::NOSPC && STEPS[at] != Step::Collect {
        assert!(matches!(refused, Refused::Full), "{what}: {refused:?}");
    }
    assert_eq!(running.process.halts(), 0, "{what}: {refused:?}");
    let found = machine.findings(&running);
    assert!(found.is_empty(), "{what}, on the full disk: {found:#?}");
    for step in &STEPS[at..] {
        let again = machine.step(&running, *step);
        again.unwrap_or_else(|refused| panic!("{what}: {step:?} again: {refused:?}"));
    }
    drop(running);
    let found = machine.findings_of_the_next(&[]);
    assert!(found.is_empty(), "{what}: {found:#?}");
}

/// Lets each call of `calls` fail in turn, until none is left to fail; returns how many did, by call.
fn fail_each(calls: &[Call], failure: Failure, mut check: impl FnMut(Story, Fault)) -> BTreeMap<Call, usize> {
    let mut failed = BTreeMap::new();
    for call in calls {
        for at in 0.. {
            let fault = Fault { call: *call, at, failure };
            let story = run(Some(fault));
            if story.fired.is_none() {
                break;
            }
            *failed.entry(*call).or_default() += 1;
            check(story, fault);
        }
    }
    failed
}

fn fail_each_with(calls: &[Call], errno: Errno) {
    let failed = fail_each(calls, Failure::Refuses(errno), |mut story, fault| {
        let (at, _, answer) = story.fired.take().expect("just looked");
        let what = format!("{fault:?} in {:?}", STEPS[at]);
        if can_go_on(fault.call, errno) {
            check_refusal(story, at, answer, errno, &what);
        } else {
            check_halt(story, at, answer, &what);
        }
    });
    println!("{errno:?}: {failed:?}");
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), calls, "each kind of call failed at least once");
}

/// P5, S1: the work itself, with a power cut after each step: nothing is lost, nothing is left over.
#[test]
fn a_power_cut_after_any_step_loses_nothing_and_leaves_nothing_over() {
    for cut in 1..=STEPS.len() {
        let mut machine = Machine::new();
        let running = machine.start();
        machine.disk.arm(None);
        for step in &STEPS[..cut] {
            machine.step(&running, *step).unwrap_or_else(|refused| panic!("{step:?}: {refused:?}"));
        }
        if cut == STEPS.len() {
            let calls = machine.disk.calls();
            println!("{calls:?}");
            assert!(Call::WORKING.iter().all(|call| calls.get(call).is_some_and(|n| *n >= 3)), "{calls:?}");
        }
        drop(running);
        let found = machine.findings_of_the_next(&STEPS[cut..]);
        assert!(found.is_empty(), "after {:?}: {found:#?}", STEPS[cut - 1]);
    }
}

/// P8, S1, S7: an I/O error at any call halts the process; nothing acknowledged is lost, nothing stays over.
#[test]
fn an_io_error_at_any_call_of_a_site_halts_and_loses_nothing() {
    fail_each_with(&Call::WORKING, Errno::IO);
}

/// P8, S1, S7: a full disk at any call refuses what was asked, and the same process does it later. That of
/// a folder's sync halts.
#[test]
fn a_full_disk_at_any_call_of_a_site_refuses_and_loses_nothing() {
    fail_each_with(&Call::WORKING, Errno::NOSPC);
}

/// S1, S7: so does a process that has too many files open.
#[test]
fn too_many_open_files_at_any_call_of_a_site_refuse_and_lose_nothing() {
    fail_each_with(&[Call::OpenFolder, Call::Create], Errno::MFILE);
}

/// P8: a start that fails at any call says so, and the next one sweeps what the first has left.
#[test]
fn an_io_error_at_any_call_of_a_start_is_fatal_and_the_next_start_is_well() {
    let mut failed = BTreeMap::new();
    for call in [Call::OpenFolder, Call::ListFolder, Call::Remove] {
        for at in 0.. {
            let mut machine = Machine::new();
            let running = machine.start();
            machine.step(&running, Step::PushFirst).unwrap();
            drop(running);
            let left = machine.folder.path("site/packs").join(TemporaryName::numbered(7).as_str());
            std::fs::write(&left, b"half of a pack").unwrap();
            machine.disk.arm(Some(Fault { call, at, failure: Failure::Refuses(Errno::IO) }));

            let refused = StoreSite::folder_on(Arc::new(machine.disk.clone()), &machine.folder.path("site"));
            if machine.disk.fired().is_none() {
                break;
            }
            assert!(refused.is_err_and(|error| error.is_fatal()), "{call:?} {at}");
            *failed.entry(call).or_insert(0) += 1;
            let found = machine.findings_of_the_next(&STEPS[1..]);
            assert!(found.is_empty() && !left.exists(), "{call:?} {at}: {found:#?}");
        }
    }
    println!("at the start: {failed:?}");
    assert_eq!(failed.len(), 3, "{failed:?}");
}

/// The twin, P5, P8: each sync of a site that is left out and acknowledged, one at a time, is seen after a
/// power cut. Only the sync of a folder with nothing new in it is not missed.
#[test]
fn each_sync_of_a_site_that_is_left_out_is_missed() {
    let mut idle = 0;
    let lied = fail_each(&Call::SYNCS, Failure::Lies, |mut story, fault| {
        let (at, stake, answer) = story.fired.take().expect("just looked");
        assert!(answer.is_ok(), "{fault:?}: nobody can know yet: {answer:?}");
        let Story { mut machine, running, .. } = story;
        drop(running);
        let found = machine.findings_of_the_next(&STEPS[at + 1..]);
        match stake {
            Stake::Something => assert!(!found.is_empty(), "{fault:?} in {:?} was not missed", STEPS[at]),
            Stake::Nothing => {
                idle += 1;
                assert!(found.is_empty(), "{fault:?} in {:?}: {found:#?}", STEPS[at]);
            }
        }
    });
    println!("left out: {lied:?}, of which {idle} had nothing to sync");
    assert!(lied[&Call::SyncFile] >= 8 && lied[&Call::SyncFolder] > idle + 8, "{lied:?}, {idle}");
}
