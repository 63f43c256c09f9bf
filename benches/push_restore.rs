//! Push and restore of the mixed set, in turn with restic when it is installed.
//!
//! `cargo bench -p benches --bench push_restore -- [--dir DIR] [--mib 2048] [--rounds 5] [--seed 1]`
//!
//! `--data-only DIR` makes the data set in DIR and ends.
//!
//! Each round runs, for each tool: a first push into a new repository, a push of the same tree, and a
//! restore into a new folder. Client and server run on this machine, encryption on, with each tool's
//! defaults. Figures are wall-clock medians over the rounds; memory is the peak of the largest round,
//! as the kernel reports it. Nothing is deleted before the end: ext4 looks hard for inodes that were not
//! deleted lately, which would be measured with the next restore. Needs room for three sets a round, and
//! the release binaries: `cargo build --release --bins`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use benches::{median, mixed};

struct Arguments {
    dir: Option<PathBuf>,
    mib: u64,
    rounds: usize,
    seed: u64,
    data_only: Option<PathBuf>,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed = Self { dir: None, mib: 2048, rounds: 5, seed: 1, data_only: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            if flag == "--bench" {
                continue;
            }
            let value = arguments.next().expect("a value after each flag");
            let number = || value.parse().expect("a number");
            match flag.as_str() {
                "--dir" => parsed.dir = Some(PathBuf::from(&value)),
                "--data-only" => parsed.data_only = Some(PathBuf::from(&value)),
                "--mib" => parsed.mib = number(),
                "--rounds" => parsed.rounds = usize::try_from(number()).expect("a small number"),
                "--seed" => parsed.seed = number(),
                other => panic!("unknown flag {other}"),
            }
        }
        parsed
    }
}

/// Figures of one tool over all rounds.
#[derive(Default)]
struct Figures {
    first: Vec<f64>,
    again: Vec<f64>,
    restore: Vec<f64>,
    repository: u64,
    client_kib: u64,
    server_kib: u64,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(dir) = &arguments.data_only {
        return mixed(dir, arguments.seed, arguments.mib << 20).expect("the data set");
    }
    let scratch = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.expect("a scratch folder");
    let source = scratch.path().join("source");
    mixed(&source, arguments.seed, arguments.mib << 20).expect("the data set");
    say(&format!("data: {} MiB, seed {}, in {}", arguments.mib, arguments.seed, source.display()));
    let has_restic = Command::new("restic").arg("version").output().is_ok();
    let (mut ours, mut restic) = (Figures::default(), Figures::default());
    for round in 0..arguments.rounds {
        say(&format!("round {} of {}", round + 1, arguments.rounds));
        run_ours(&scratch.path().join(format!("ours-{round}")), &source, &mut ours);
        if has_restic {
            run_restic(&scratch.path().join(format!("restic-{round}")), &source, &mut restic);
        }
    }
    report(&arguments, &ours, has_restic.then_some(&restic));
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "figures for people")]
fn report(arguments: &Arguments, ours: &Figures, restic: Option<&Figures>) {
    let mib = arguments.mib as f64;
    let row = |what: &str, of: fn(&Figures) -> &Vec<f64>| {
        let cell = |figures: &Figures| {
            let seconds = median(of(figures).clone());
            (seconds, format!("{seconds:.2} s, {:.0} MiB/s", mib / seconds))
        };
        let (our_seconds, our_cell) = cell(ours);
        match restic.map(cell) {
            Some((seconds, theirs)) => {
                say(&format!("| {what} | {our_cell} | {theirs} | {:.2} |", seconds / our_seconds));
            }
            None => say(&format!("| {what} | {our_cell} | - | - |")),
        }
    };
    say("| | Astacus | restic | restic / Astacus |");
    say("|---|---|---|---|");
    row("first push", |figures| &figures.first);
    row("push of the same tree", |figures| &figures.again);
    row("restore", |figures| &figures.restore);
    let size = |figures: &Figures| figures.repository >> 10;
    let their_size = restic.map_or(0, size);
    say(&format!(
        "| repository, KiB | {} | {their_size} | {:.3} |",
        size(ours),
        their_size as f64 / size(ours) as f64
    ));
    let their_memory = restic.map_or(0, |figures| figures.client_kib);
    say(&format!("| peak memory of the client, KiB | {} | {their_memory} | - |", ours.client_kib));
    say(&format!("| peak memory of the server, KiB | {} | - | - |", ours.server_kib));
}

fn run_ours(scratch: &Path, source: &Path, figures: &mut Figures) {
    std::fs::create_dir(scratch).expect("a folder for the round");
    let data = scratch.join("astacus");
    let state = scratch.join("state");
    let target = scratch.join("restored");
    let mut server = Server::start(&data);
    let client = |arguments: &[&str]| {
        let mut command = Command::new(binary("astacus-client"));
        command.args(arguments).args([
            "--server",
            &server.address,
            "--cluster",
            "bench",
            "--node",
            "node",
            "--json",
        ]);
        command.arg("--token-file").arg(data.join("admin.token")).env("ASTACUS_STATE_DIR", &state);
        command
    };
    let source_text = source.to_str().expect("a plain path");
    let seconds = timed(client(&["push", source_text]), figures);
    figures.first.push(seconds);
    let seconds = timed(client(&["push", source_text]), figures);
    figures.again.push(seconds);
    let target_text = target.to_str().expect("a plain path");
    let seconds = timed(client(&["restore", "latest", "--to", target_text]), figures);
    figures.restore.push(seconds);
    figures.server_kib = figures.server_kib.max(server.peak_kib());
    server.stop();
    figures.repository = folder_len(&data.join("site"));
}

fn run_restic(scratch: &Path, source: &Path, figures: &mut Figures) {
    std::fs::create_dir(scratch).expect("a folder for the round");
    let repository = scratch.join("restic");
    let cache = scratch.join("cache");
    let target = scratch.join("restored");
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.args(arguments).arg("--repo").arg(&repository).arg("--cache-dir").arg(&cache).arg("--quiet");
        command.env("RESTIC_PASSWORD", "benchmark");
        command
    };
    let mut unused = Figures::default();
    timed(restic(&["init"]), &mut unused);
    let source_text = source.to_str().expect("a plain path");
    let seconds = timed(restic(&["backup", source_text]), figures);
    figures.first.push(seconds);
    let seconds = timed(restic(&["backup", source_text]), figures);
    figures.again.push(seconds);
    let target_text = target.to_str().expect("a plain path");
    let seconds = timed(restic(&["restore", "latest", "--target", target_text]), figures);
    figures.restore.push(seconds);
    figures.repository = folder_len(&repository);
}

/// Wall-clock seconds of a command that must succeed; notes its peak memory.
#[expect(clippy::disallowed_methods, reason = "measuring is what a benchmark is for")]
fn timed(mut command: Command, figures: &mut Figures) -> f64 {
    let mut with_time = Command::new("/usr/bin/time");
    with_time.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        with_time.env(name, value.expect("only set variables"));
    }
    let has_time = Path::new("/usr/bin/time").exists();
    // What the run before left unwritten would be written at this one's expense.
    Command::new("sync").status().expect("sync is there");
    let started = Instant::now();
    let output = if has_time { with_time.output() } else { command.output() };
    let seconds = started.elapsed().as_secs_f64();
    let output = output.expect("the command starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {told}");
    let peak = told.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    figures.client_kib = figures.client_kib.max(peak);
    seconds
}

fn binary(name: &str) -> PathBuf {
    // A bench binary lies in target/release/deps.
    let here = std::env::current_exe().expect("this program has a path");
    let release = here.parent().and_then(Path::parent).expect("target/release/deps");
    let path = release.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --release --bins` first", path.display());
    path
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(binary("astacus-server"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the server says where it listens");
        let address = line.trim().strip_prefix("listening on ").expect("the ready line").to_owned();
        Self { process, address }
    }

    fn peak_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(self.process.wait().expect("it ends").success(), "the server stops cleanly");
    }
}

fn folder_len(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a readable folder");
    let len = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().expect("a readable entry");
        if meta.is_dir() { folder_len(&entry.path()) } else { meta.len() }
    };
    entries.map(|entry| len(entry.expect("a readable entry"))).sum()
}
