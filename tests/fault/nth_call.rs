//! The n-th system call of a real server that changes files fails, for every n: while it makes its index
//! and starts, while it works, and while it rebuilds. Ordinary runs try some n, others each time; a nightly
//! run tries all.
//!
//! strace counts the calls of each thread by itself, so the n-th call of any thread fails, and perhaps one
//! more before the server has ended.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;

use format_spec::wire::{Delays, ForgetRequest, GcRequest, LargeDelete, Repair, RunMode};
use format_spec::{SessionId, SnapshotId};
use node_client::error::ClientError;
use repo_server::index::{Engine, open_existing};
use repo_server::rebuild::{Plan, RebuildReport};
use repo_server::site::{Prefix, StoreSite};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tests::gear;
use tests::mount::Tmpfs;
use tests::seed::Random;
use tests::server;
use tests::wait;
use tests::world::Folder;

use crate::judge;
use crate::nth_failure::{needed, pushes};
use crate::process::{Process, Push, Stores};
use crate::rebuild::{Pushed, rows, rows_in, run, start};
use crate::switch::Switch;

/// Calls that fail.
#[derive(Debug, Clone, Copy)]
struct Calls {
    name: &'static str,
    errno: &'static str,
    /// Only those on this file of the data folder.
    of: Option<&'static str>,
    /// How many an ordinary run tries.
    few: usize,
}

/// The journal of the index, into which every batch goes.
const JOURNAL: Option<&str> = Some("index/db/data/0.jnl");

const fn calls(name: &'static str, errno: &'static str, few: usize) -> Calls {
    Calls { name, errno, of: None, few }
}

/// Which call of each thread fails; shown when a test fails.
#[derive(Debug, Clone, Copy)]
struct Injected {
    #[expect(dead_code, reason = "shown when a test fails")]
    calls: Calls,
    nth: usize,
}

/// Line of the log when the program is told to stop.
const TOLD_TO_STOP: &str = "--- SIGTERM";

/// A program under strace. It ends with this value.
struct Traced {
    strace: Child,
    said: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Traced {
    /// Starts `program`, whose data folder is `data`.
    fn start(folder: &Folder, data: &Path, calls: Calls, nth: Option<usize>, program: &Command) -> Self {
        let log = folder.path("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "--seccomp-bpf", "-qq", "-y", "-o"]).arg(&log);
        command.arg("-e").arg(format!("trace={}", calls.name)).args(["-e", "signal=SIGTERM"]);
        if let Some(nth) = nth {
            let Calls { name, errno, .. } = calls;
            command.arg("-e").arg(format!("inject={name}:error={errno}:when={nth}"));
        }
        if let Some(of) = calls.of {
            command.arg("-P").arg(data.join(of));
        }
        command.arg(program.get_program()).args(program.get_args()).env("NO_COLOR", "1");
        let errors = std::fs::File::create(folder.path("stderr.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut strace = command.spawn().expect("strace is installed");
        let stdout = BufReader::new(strace.stdout.take().expect("it is piped"));
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The receiver may be gone.
                let _ = sender.send(line);
            }
        });
        Self { strace, said, log }
    }

    /// Where the server listens; `None` if it ends without.
    fn address(&self) -> Option<String> {
        match self.said.recv_timeout(wait::PATIENCE) {
            Ok(line) => Some(line.strip_prefix("listening on ").expect("nothing else is said").to_owned()),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the server neither listens nor ends"),
        }
    }

    /// Waits until the program ends by itself, as it must after a failed sync.
    fn ends(&mut self) -> ExitStatus {
        wait::for_state("the program to end", || self.strace.try_wait().expect("it is our child"))
    }

    /// How often each thread made the call, at most; and how many calls were made to fail.
    fn counted(&self) -> (usize, usize) {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut by_thread: BTreeMap<&str, usize> = BTreeMap::new();
        for line in log.lines().filter(|line| !line.contains(" resumed>") && !line.contains(TOLD_TO_STOP)) {
            *by_thread.entry(line.split(' ').next().unwrap_or_default()).or_default() += 1;
        }
        (by_thread.into_values().max().unwrap_or(0), log.matches("(INJECTED)").count())
    }

    /// The calls that were made to fail before it was told to stop.
    fn failed_before_the_stop(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let before = log.lines().take_while(|line| !line.contains(TOLD_TO_STOP));
        before.filter(|line| line.contains("(INJECTED)")).map(str::to_owned).collect()
    }

    /// Ends it, if it has not ended.
    fn stop(&mut self) {
        if let Some(program) = self.program() {
            // It may end by itself at this very moment.
            let _ = kill_process(program, Signal::TERM);
        }
        let ended = wait::within(wait::PATIENCE, || self.strace.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.program().map(|program| kill_process(program, Signal::KILL));
            let _ = self.strace.wait();
        }
    }

    /// The program, while it runs: strace takes no signals for it.
    fn program(&self) -> Option<Pid> {
        let strace = Pid::from_child(&self.strace).as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Folders that outlive servers, and the state of clients.
struct Machine {
    // In this order they go: the disk, where it is mounted.
    disk: Tmpfs,
    folder: Folder,
    acknowledged: BTreeMap<usize, SnapshotId>,
    sessions: Vec<SessionId>,
    is_forgetting: bool,
}

impl Machine {
    /// A data folder with nothing in it but the key. `None`, said aloud, where that cannot be had.
    fn new() -> Option<Self> {
        if !gear::has("strace") {
            return None;
        }
        let folder = Folder::new();
        let disk = Tmpfs::mount(folder.dir("disk"), "size=1g")?;
        let data = disk.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let key = data.join("master.key");
        std::fs::write(&key, Stores::master().to_file_text()).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let (acknowledged, sessions) = (BTreeMap::new(), Vec::new());
        Some(Self { disk, folder, acknowledged, sessions, is_forgetting: false })
    }

    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn start(&self, calls: Calls, nth: Option<usize>) -> Traced {
        Traced::start(&self.folder, &self.data(), calls, nth, &server::over(&self.data()))
    }

    fn client(&self, address: &str) -> Process {
        let token = std::fs::read_to_string(self.data().join("admin.token")).unwrap();
        Process::elsewhere(address, token.trim_end())
    }

    /// Two pushes, forgetting the first, and a run of the collector.
    fn work(&mut self, process: &Process) -> Result<(), ClientError> {
        for (number, push) in pushes().iter().take(2).enumerate() {
            let (session, domain) = Push::open(process)?;
            self.sessions.push(session);
            self.acknowledged.insert(number, push.run(process, session, &domain)?);
        }
        self.is_forgetting = true;
        let snapshots = self.acknowledged.get(&0).copied().into_iter().collect();
        let request = ForgetRequest { mode: RunMode::Apply, snapshots, ..ForgetRequest::default() };
        process.wait(process.api.forget(&request))?;
        collect(process).map(drop)
    }

    /// Problems that a server finds once no call fails any more, after it has repeated the work.
    fn findings(&mut self) -> Vec<String> {
        let server = server::Server::start(&self.data());
        self.found_by(server)
    }

    fn found_by(&mut self, server: server::Server) -> Vec<String> {
        let process = self.client(server.address());
        let mut found = self.served(&process);
        if let Err(error) = self.work(&process) {
            found.push(format!("the work that was cut short: {error}"));
        }
        for session in &self.sessions {
            // One that has ended has ended.
            let _ = process.wait(process.api.abort(*session));
        }
        let listed = process.wait(process.api.snapshots(None)).unwrap();
        let second = self.acknowledged.get(&1).copied();
        let snapshots: Vec<_> = listed.iter().map(|info| info.id).filter(|id| Some(*id) != second).collect();
        if !snapshots.is_empty() {
            let request = ForgetRequest { mode: RunMode::Apply, snapshots, ..ForgetRequest::default() };
            process.wait(process.api.forget(&request)).unwrap();
        }
        for _ in 0..2 {
            found.extend(collect(&process).err().map(|error| format!("collect: {error}")));
        }
        found.extend(self.served(&process));
        drop((process, server));
        found.extend(self.leftovers());
        found
    }

    fn served(&self, process: &Process) -> Vec<String> {
        let [first, second, _] = pushes();
        let known = [&first, &second];
        let kept = self.acknowledged.iter().filter(|(number, _)| **number > 0 || !self.is_forgetting);
        let kept: Vec<_> = kept.map(|(number, id)| (*id, known[*number])).collect();
        let mut found = judge::served(process, &kept, &known);
        match process.wait(process.api.audit(Repair::No, |_| {})) {
            Ok(report) => found.extend(report.findings.iter().map(|found| format!("audit: {found:?}"))),
            Err(error) => found.push(format!("audit: {error}")),
        }
        found
    }

    /// Objects that no row names, and rows whose objects are gone. No server may run.
    fn leftovers(&self) -> Vec<String> {
        wait_until_free(&self.data());
        let index = open_existing(Engine::Fjall, &self.data().join("index")).unwrap();
        let site = StoreSite::folder(&self.data().join("site")).unwrap();
        let stores = Stores { index, site: Arc::new(site) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let listed = runtime.block_on(stores.site.list(&Prefix::everything())).unwrap();
        let listed = listed.into_iter().map(|object| object.name.to_string());
        let found: std::collections::BTreeSet<_> =
            listed.filter(|name| !name.starts_with("keyring/")).collect();
        let needed = needed(&stores);
        found.symmetric_difference(&needed).map(|name| format!("{name} is left over, or lost")).collect()
    }
}

/// Waits until nobody has the index open. A program that another test is just starting may still have the
/// lock that was let go here.
fn wait_until_free(data: &Path) {
    wait::for_state("the index to be free", || {
        let Ok(lock) = std::fs::File::open(data.join("index/lock")) else { return Some(()) };
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        flock(&lock, FlockOperation::Unlock).ok()
    });
}

fn collect(process: &Process) -> Result<(), ClientError> {
    let (delays, large) = (Delays::Skip, LargeDelete::Allow);
    let request = GcRequest { mode: RunMode::Apply, delays, large, ..GcRequest::default() };
    process.wait(process.api.collect_garbage(&request, |_| {})).map(drop)
}

/// Counts of attempts.
#[derive(Debug, Default)]
struct Tally {
    /// Calls that one thread makes, when none fails.
    #[expect(dead_code, reason = "shown to people")]
    calls: usize,
    tried: usize,
    fired: usize,
    /// Runs that ended because of it.
    ended: usize,
}

/// Tries the n-th of `calls` for n = 1, 2, … until none fires; in an ordinary run some of them. `attempt` runs
/// once with such a call failing, or with none; `None` where that cannot be had.
fn each(
    calls: Calls,
    random: &mut Random,
    mut attempt: impl FnMut(Option<Injected>) -> Option<(usize, usize, bool)>,
) -> Option<Tally> {
    let (count, _, _) = attempt(None)?;
    assert!(count > 0, "nobody makes the call: {calls:?}");
    let stride = count.div_ceil(gear::rounds(calls.few, count));
    let mut tally = Tally { calls: count, ..Tally::default() };
    let mut nth = 1 + random.index(stride);
    loop {
        let (_, fired, ended) = attempt(Some(Injected { calls, nth }))?;
        if fired == 0 {
            break;
        }
        tally.tried += 1;
        tally.fired += fired;
        tally.ended += usize::from(ended);
        nth += stride;
    }
    println!("{} {}: {tally:?}", calls.name, calls.errno);
    assert!(tally.tried > 0, "{calls:?}: none fired");
    Some(tally)
}

/// Calls while an index is made, and a repository; and what an ordinary run tries of them. Not `write`: the
/// runtime wakes its threads by writes as well, and one of those that fails is no fault of a disk.
const AT_THE_START: [Calls; 5] = [
    calls("fsync", "EIO", 6),
    calls("fdatasync", "EIO", 2),
    calls("renameat,renameat2", "EIO", 3),
    calls("mkdir", "ENOSPC", 3),
    calls("ftruncate", "ENOSPC", 1),
];

/// Failed syncs that fjall passes over while it makes a database: when it merges its own table of tables, and
/// of the journal when it closes that, after we have synced it. As it does when it closes that at the end of a
/// server, when each commit has been synced.
const PASSED_OVER: [&str; 2] = ["/db.new/data/keyspaces/0", "/db.new/data/0.jnl"];

/// P8, X1, X2: a start of a new repository that fails at any system call ends, or has what it needs; the next
/// start goes on from there without anybody's help.
#[test]
fn a_first_start_that_fails_at_any_system_call_is_made_good_by_the_next() {
    let mut random = Random::printed();
    for calls in AT_THE_START {
        let attempt = |injected: Option<Injected>| {
            let mut machine = Machine::new()?;
            let mut server = machine.start(calls, injected.map(|injected| injected.nth));
            let address = server.address();
            if address.is_none() {
                assert!(!server.ends().success(), "{injected:?}: it ended as if all were well");
            }
            server.stop();
            let (count, fired) = server.counted();
            if injected.is_some() && fired > 0 {
                let is_sync = calls.name.contains("sync");
                let failed = server.failed_before_the_stop();
                let is_excused = |call: &String| PASSED_OVER.iter().any(|part| call.contains(part));
                let told = !is_sync || address.is_none() || failed.iter().all(is_excused);
                assert!(told, "{injected:?}: {failed:#?}");
                let found = machine.findings();
                assert!(found.is_empty(), "{injected:?}: {found:#?}");
            }
            Some((count, fired, address.is_none()))
        };
        if each(calls, &mut random, attempt).is_none() {
            return;
        }
    }
}

/// Calls on the index while a server works.
const AT_WORK: [Calls; 3] = [
    Calls { name: "fsync", errno: "EIO", of: JOURNAL, few: 8 },
    Calls { name: "write", errno: "EIO", of: JOURNAL, few: 5 },
    Calls { name: "write", errno: "ENOSPC", of: JOURNAL, few: 5 },
];

/// P8, S1, X1, X2: a server that fails to write or to sync its index ends at once; what it acknowledged is there,
/// the next server does the rest, and nothing is left over.
#[test]
fn a_server_that_fails_at_any_write_or_sync_of_its_index_ends_and_loses_nothing() {
    let mut random = Random::printed();
    for calls in AT_WORK {
        let attempt = |injected: Option<Injected>| {
            let mut machine = Machine::new()?;
            drop(server::Server::start(&machine.data()));
            let mut server = machine.start(calls, injected.map(|injected| injected.nth));
            let done = match server.address() {
                None => None,
                Some(address) => {
                    let process = machine.client(&address);
                    Some(machine.work(&process))
                }
            };
            let ends_alone = !matches!(done, Some(Ok(())));
            if ends_alone {
                assert!(!server.ends().success(), "{injected:?}: {done:?}");
            }
            server.stop();
            let (count, fired) = server.counted();
            assert_eq!(fired > 0, ends_alone, "{injected:?}: {done:?}");
            if ends_alone {
                let found = machine.findings();
                assert!(found.is_empty(), "{injected:?}: {found:#?}");
            }
            Some((count, fired, ends_alone))
        };
        if each(calls, &mut random, attempt).is_none() {
            return;
        }
    }
}

/// Calls of a rebuild; not `write`, as above.
const AT_A_REBUILD: [Calls; 3] =
    [calls("fdatasync", "EIO", 3), calls("renameat,renameat2", "EIO", 3), calls("mkdir", "ENOSPC", 3)];

/// P8, X2: a rebuild that fails at any system call ends and says so; the next one is whole, or this one was.
#[test]
fn a_rebuild_that_fails_at_any_system_call_is_started_again_and_whole() {
    let mut random = Random::printed();
    if !gear::has("strace") {
        return;
    }
    let pushed = Pushed::new();
    let before = rows(pushed.stores.index.as_ref());
    let folder = Folder::new();
    let mut number = 0;
    for calls in AT_A_REBUILD {
        let attempt = |injected: Option<Injected>| {
            number += 1;
            let disk = Tmpfs::mount(folder.dir(&format!("disk-{number}")), "size=1g")?;
            let plan = Plan { data_dir: disk.path().join("data"), ..pushed.plan("unused") };
            let mut command = server::command();
            command.args(["rebuild", "--json", "--data-dir"]).arg(&plan.data_dir);
            command.arg("--from-site").arg(plan.site.to_string()).arg("--keyring").arg(&plan.key_file);
            let nth = injected.map(|injected| injected.nth);
            let mut rebuild = Traced::start(&folder, &plan.data_dir, calls, nth, &command);
            let ended = rebuild.ends();
            let (count, fired) = rebuild.counted();
            if !ended.success() && start(&plan).is_err() {
                wait_until_free(&plan.data_dir);
                let report = run(&plan, &Switch::at(None));
                assert!(report.as_ref().is_ok_and(RebuildReport::is_sound), "{injected:?}: {report:?}");
            }
            wait_until_free(&plan.data_dir);
            assert!(rows_in(&plan.data_dir) == before, "{injected:?}: other rows than before");
            wait_until_free(&plan.data_dir);
            start(&plan).unwrap();
            Some((count, fired, !ended.success()))
        };
        if each(calls, &mut random, attempt).is_none() {
            return;
        }
    }
}

/// The twin, S1: an index that has forgotten what was acknowledged is seen.
#[test]
fn the_judge_sees_an_index_that_went_back_in_time() {
    let Some(mut machine) = Machine::new() else { return };
    drop(server::Server::start(&machine.data()));
    let (index, old) = (machine.data().join("index"), machine.folder.path("old"));
    let copied = Command::new("cp").arg("-r").arg(&index).arg(&old).status();
    assert!(copied.unwrap().success());
    let server = server::Server::start(&machine.data());
    let process = machine.client(server.address());
    machine.work(&process).unwrap();
    drop((process, server));
    std::fs::remove_dir_all(&index).unwrap();
    let copied = Command::new("cp").arg("-r").arg(&old).arg(&index).status();
    assert!(copied.unwrap().success());

    let mut server = server::Server::start(&machine.data());
    server.allow_errors("index_behind");
    let found = machine.found_by(server);

    // The server sees it by itself, and takes nothing in and nothing away.
    for what in
        ["was acknowledged and is not listed", "is left over, or lost", "the index is older than the site"]
    {
        assert!(found.iter().any(|found| found.contains(what)), "{what}: {found:#?}");
    }
}
