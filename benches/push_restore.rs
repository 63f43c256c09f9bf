//! Push and restore of the mixed set, in turn with restic when it is installed.
//!
//! `cargo bench -p benches --bench push_restore -- --help`
//!
//! Each round runs, for each tool: a first push into a new repository, a push of the same tree, and a
//! restore into a new folder. Client and server run on this machine, encryption on, with each tool's
//! defaults. Figures are wall-clock medians over the rounds; memory is the peak of the largest round,
//! as the kernel reports it. Nothing is deleted before the end: ext4 looks hard for inodes that were not
//! deleted lately, which would be measured with the next restore. Needs room for three sets a round.

use std::path::{Path, PathBuf};
use std::process::Command;

use benches::programs::{Run, Server, folder_len, timed};
use benches::{Scratch, median, mixed};
use clap::Parser;
use tests::binaries::program;

/// Push and restore of the mixed set, in turn with restic when it is installed
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scratch: Scratch,
    /// How much data
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The same seed makes the same data
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Makes the data set in this folder, and ends
    #[arg(long, value_name = "DIR")]
    data_only: Option<PathBuf>,
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

impl Figures {
    /// Notes the memory of a run, and returns its seconds.
    fn note(&mut self, run: &Run) -> f64 {
        self.client_kib = self.client_kib.max(run.peak_kib);
        run.seconds
    }

    fn add(&mut self, first: f64, again: f64, restore: f64) {
        self.first.push(first);
        self.again.push(again);
        self.restore.push(restore);
    }
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(dir) = &arguments.data_only {
        return mixed(dir, arguments.seed, arguments.mib << 20).expect("the data set");
    }
    let scratch = arguments.scratch.folder();
    let source = scratch.path().join("source");
    mixed(&source, arguments.seed, arguments.mib << 20).expect("the data set");
    tests::corpus::make_old(&source);
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
        let mut command = Command::new(program("astacus-client"));
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
    let mut run = |arguments: &[&str]| figures.note(&timed(client(arguments)));
    let first = run(&["push", source_text]);
    let again = run(&["push", source_text]);
    let target_text = target.to_str().expect("a plain path");
    let restore = run(&["restore", "latest", "--to", target_text]);
    figures.add(first, again, restore);
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
    timed(restic(&["init"]));
    let source_text = source.to_str().expect("a plain path");
    let mut run = |arguments: &[&str]| figures.note(&timed(restic(arguments)));
    let first = run(&["backup", source_text]);
    let again = run(&["backup", source_text]);
    let target_text = target.to_str().expect("a plain path");
    let restore = run(&["restore", "latest", "--target", target_text]);
    figures.add(first, again, restore);
    figures.repository = folder_len(&repository);
}
