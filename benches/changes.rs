//! Cost of a push when little has changed, in turn with restic and borg when they are installed.
//!
//! `cargo bench -p benches --bench changes -- --help`
//!
//! | row | data | before each round |
//! |---|---|---|
//! | `log` | a log of 4 GiB | 40 MiB are appended |
//! | `small` | 200,000 files of 64 to 4,159 bytes | nothing |
//! | `links` | the mixed set of 2 GiB | a hard link of each file is made elsewhere: every ctime moves |
//! | `million` | 1,000,000 files, ours only | nothing |
//! | `xfs` | 100,000 files on an xfs image, ours only, nothing remembered | nothing |
//!
//! All files are an hour old, unless `--fresh` is given. The log has grown twice before the rounds, so that `auto` takes it for one.
//! Each tool pushes the data once before the rounds, and once in each. Figures are medians over the rounds;
//! bytes read are by our own report, memory is the largest of all rounds. Needs room for 20 GiB.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use benches::programs::{Run, Server, timed};
use benches::{Content, Random, Scratch, median, mixed, small_files, write_content};
use clap::Parser;
use tests::binaries::program;
use tests::corpus::make_old;
use tests::mount::Xfs;

const MIB: u64 = 1 << 20;
/// Growths of a file before `auto` takes it for a log.
const PROOFS: usize = 2;

const ROWS: [&str; 5] = ["log", "small", "links", "million", "xfs"];
/// Room for the files of the row `xfs`.
const XFS_LEN: u64 = 3 << 30;

/// Pushes when little has changed, in turn with restic and borg where they are installed
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scratch: Scratch,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measures this row and no other
    #[arg(long, value_parser = ROWS)]
    only: Option<String>,
    /// Pushes files that were made a moment before
    #[arg(long)]
    fresh: bool,
}

impl Arguments {
    fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == row)
    }
}

fn main() {
    let arguments = Arguments::parse();
    let scratch = arguments.scratch.folder();
    for row in ROWS {
        if arguments.wants(row) {
            let dir = scratch.path().join(row);
            std::fs::create_dir(&dir).expect("a folder for the row");
            measure(row, &dir, &arguments);
            std::fs::remove_dir_all(&dir).expect("our own folder");
        }
    }
}

fn measure(row: &str, dir: &Path, arguments: &Arguments) {
    let rounds = arguments.rounds;
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).expect("a folder for a disk");
    let _xfs = if row == "xfs" {
        match Xfs::mount_of(&dir.join("image"), disk.clone(), XFS_LEN) {
            Some(xfs) => Some(xfs),
            None => return,
        }
    } else {
        None
    };
    let source = disk.join("source");
    std::fs::create_dir(&source).expect("a folder for the data");
    let mut random = Random::new(7);
    let made = match row {
        "log" => append(&source, &mut random, 4096 * MIB),
        "small" => small_files(&source, 7, 200_000),
        "xfs" => small_files(&source, 7, 100_000),
        "links" => mixed(&source, 1, 2048 * MIB),
        _ => small_files(&source, 7, 1_000_000),
    };
    made.expect("the data");
    if !arguments.fresh {
        make_old(&source);
    }
    let mut tools = tools(row, dir, &source);
    for tool in &mut tools {
        tool.first = Some(tool.push());
    }
    for _ in 0..if row == "log" { PROOFS } else { 0 } {
        append(&source, &mut random, 40 * MIB).expect("room for more");
        for tool in &mut tools {
            tool.proof = Some(tool.push());
        }
    }
    for round in 0..rounds {
        match row {
            "log" => append(&source, &mut random, 40 * MIB).expect("room for more"),
            "links" => link(&source, &dir.join(format!("links-{round}"))),
            _ => {}
        }
        for tool in &mut tools {
            let run = tool.push();
            tool.runs.push(run);
        }
    }
    show(row, &tools);
}

/// A program that pushes the data, and what came of it.
struct Tool {
    name: &'static str,
    command: Box<dyn Fn() -> Command>,
    first: Option<Run>,
    /// A push while trust is earned.
    proof: Option<Run>,
    runs: Vec<Run>,
    _server: Option<Stopped>,
}

impl Tool {
    fn new(name: &'static str, command: impl Fn() -> Command + 'static) -> Self {
        Self { name, command: Box::new(command), first: None, proof: None, runs: Vec::new(), _server: None }
    }

    fn push(&self) -> Run {
        timed((self.command)())
    }
}

/// A server that is stopped when it is not needed any more.
struct Stopped(Server);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn tools(row: &str, dir: &Path, source: &Path) -> Vec<Tool> {
    let classes: &[(&'static str, &[&str])] = match row {
        "links" => &[
            ("Astacus, auto", &[]),
            ("Astacus, immutable", &["--class", "immutable=*"]),
            ("Astacus, append-only", &["--class", "append-only=*"]),
        ],
        "log" => &[("Astacus, auto", &[]), ("Astacus, append-only", &["--class", "append-only=*"])],
        "xfs" => &[
            ("Astacus, auto", &["--no-state"]),
            ("Astacus, hardlink", &["--no-state", "--freeze", "hardlink"]),
            ("Astacus, none", &["--no-state", "--freeze", "none"]),
        ],
        _ => &[("Astacus", &[])],
    };
    let mut tools: Vec<Tool> = classes.iter().map(|(name, more)| ours(name, dir, source, more)).collect();
    if row == "million" || row == "xfs" {
        return tools;
    }
    if is_installed("restic") {
        tools.push(restic(dir, source));
    }
    if is_installed("borg") {
        tools.push(borg(dir, source));
    }
    tools
}

fn ours(name: &'static str, dir: &Path, source: &Path, more: &[&str]) -> Tool {
    let data = dir.join(name);
    let server = Server::start(&data);
    let (address, state, source) =
        (server.address.clone(), dir.join(format!("{name} state")), source.to_owned());
    let more: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
    let mut tool = Tool::new(name, move || {
        let mut command = Command::new(program("astacus-client"));
        command.args(["push", "--json", "--cluster", "bench", "--node", "node", "--server", &address]);
        command.args(&more).arg(&source).arg("--token-file").arg(data.join("admin.token"));
        command.env("ASTACUS_STATE_DIR", &state);
        command
    });
    tool._server = Some(Stopped(server));
    tool
}

fn restic(dir: &Path, source: &Path) -> Tool {
    let (repository, cache, source) = (dir.join("restic"), dir.join("restic cache"), source.to_owned());
    let run = move |arguments: &[&str], source: Option<&Path>| {
        let mut command = Command::new("restic");
        command.args(arguments).args(source).arg("--repo").arg(&repository).arg("--cache-dir").arg(&cache);
        command.arg("--quiet").env("RESTIC_PASSWORD", "benchmark");
        command
    };
    timed(run(&["init"], None));
    Tool::new("restic", move || run(&["backup"], Some(&source)))
}

fn borg(dir: &Path, source: &Path) -> Tool {
    let (repository, base, source) = (dir.join("borg"), dir.join("borg base"), source.to_owned());
    let run = move |arguments: &[&str]| {
        let mut command = Command::new("borg");
        command.args(arguments).env("BORG_REPO", &repository).env("BORG_PASSPHRASE", "benchmark");
        command.env("BORG_BASE_DIR", &base);
        command
    };
    timed(run(&["init", "--encryption", "repokey-blake2"]));
    let archive = std::cell::Cell::new(0);
    Tool::new("borg", move || {
        archive.set(archive.get() + 1);
        let mut command = run(&["create", &format!("::a{}", archive.get())]);
        command.arg(&source);
        command
    })
}

fn append(source: &Path, random: &mut Random, len: u64) -> std::io::Result<()> {
    let file = File::options().create(true).append(true).open(source.join("commit.log"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write_content(Content::Log, random, len, &mut out)?;
    out.flush()
}

/// Imitates the snapshot of a database: a hard link for each file.
fn link(source: &Path, target: &Path) {
    let status = Command::new("cp").arg("-al").arg(source).arg(target).status();
    assert!(status.expect("cp is there").success(), "the links can be made");
}

fn is_installed(program: &str) -> bool {
    Command::new("which").arg(program).output().is_ok_and(|output| output.status.success())
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "figures for people")]
fn show(row: &str, tools: &[Tool]) {
    say(&format!(
        "\n{row}: | tool | first push, s | push that proves, s | push, s | others / ours | MiB read | MiB sent | freeze, ms | peak memory, KiB |"
    ));
    let seconds = |tool: &Tool| median(tool.runs.iter().map(|run| run.seconds).collect());
    let ours = tools.first().map_or(f64::NAN, seconds);
    for tool in tools {
        let numbers = |field: &str| median(tool.runs.iter().map(|run| run.number(field) as f64).collect());
        let mib = |field: &str| match tool.name.starts_with("Astacus") {
            true => format!("{:.2}", numbers(field) / MIB as f64),
            false => "-".to_owned(),
        };
        let peak = tool.runs.iter().map(|run| run.peak_kib).max().unwrap_or(0);
        say(&format!(
            "| {} | {:.2} | {:.2} | {:.3} | {:.2} | {} | {} | {} | {peak} |",
            tool.name,
            tool.first.as_ref().map_or(f64::NAN, |run| run.seconds),
            tool.proof.as_ref().map_or(f64::NAN, |run| run.seconds),
            seconds(tool),
            seconds(tool) / ours,
            mib("bytes_read"),
            mib("bytes_sent"),
            median(tool.runs.iter().map(freeze_ms).collect()),
        ));
    }
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "figures for people")]
fn freeze_ms(run: &Run) -> f64 {
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap_or_default();
    let ms = document.pointer("/moment/freeze_ms").and_then(serde_json::Value::as_u64);
    ms.map_or(f64::NAN, |ms| ms as f64)
}

#[expect(clippy::print_stdout, reason = "figures are what a benchmark prints")]
fn say(line: &str) {
    println!("{line}");
}
