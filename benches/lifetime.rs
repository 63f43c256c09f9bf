//! The later life of a repository, in turn with restic when it is installed: every byte is read and
//! checked, then all snapshots but the newest are forgotten and what they held is freed.
//!
//! `cargo bench -p benches --bench lifetime -- --help`
//!
//! Both tools push the same versions of the mixed set: in each, a file of a tenth of the set is replaced by a
//! new one, the log grows by a hundredth, and every tenth small file is rewritten. Then, in turn:
//!
//! | row | Astacus | restic |
//! |---|---|---|
//! | check | `verify --level read` | `check --read-data` |
//! | free | `forget --keep-last 1`, then `gc --now` | `forget --keep-last 1 --prune` |
//!
//! Whole commands are measured, on repositories that the page cache holds (both were just written or
//! copied). Each round frees from a fresh copy; copying is not measured. How much a tool frees is its own
//! choice: restic copies until 5 % of the rest is of no use, ours where less than `--repack-below` percent
//! of a pack is. Needs room for two repositories a round.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::programs::{Server, folder_len, timed};
use benches::{Content, Random, Scratch, median, mixed, write_content};
use clap::Parser;
use tests::binaries::program;

const MIB: u64 = 1 << 20;
const SMALL_FILES: u64 = 20_000;

/// Checking and freeing, in turn with restic when it is installed
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scratch: Scratch,
    /// How much data
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Snapshots that are pushed before
    #[arg(long, default_value_t = 4)]
    versions: u64,
    /// Percent of a pack that live, below which it is copied
    #[arg(long, default_value_t = 50)]
    repack_below: u64,
}

/// Figures of one tool over all rounds.
#[derive(Default)]
struct Figures {
    check: Vec<f64>,
    free: Vec<f64>,
    before: u64,
    after: u64,
    check_kib: u64,
    free_kib: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let scratch = arguments.scratch.folder();
    let place = Place::new(scratch.path(), &arguments);
    let has_restic = Command::new("restic").arg("version").output().is_ok();
    push_versions(&place, &arguments, has_restic);
    let (mut ours, mut restic) = (Figures::default(), Figures::default());
    for round in 0..arguments.rounds {
        say(&format!("check, round {} of {}", round + 1, arguments.rounds));
        place.check_ours(&mut ours);
        if has_restic {
            place.check_restic(&mut restic);
        }
    }
    for round in 0..arguments.rounds {
        say(&format!("free, round {} of {}", round + 1, arguments.rounds));
        place.free_ours(&mut ours, round);
        if has_restic {
            place.free_restic(&mut restic, round);
        }
    }
    report(&ours, has_restic.then_some(&restic));
}

/// Folders of the benchmark.
struct Place {
    dir: PathBuf,
    source: PathBuf,
    config: PathBuf,
}

impl Place {
    fn new(dir: &Path, arguments: &Arguments) -> Self {
        let config = dir.join("server.toml");
        let repack_below = arguments.repack_below;
        // The server does no work of its own, and reserves no space that would be copied.
        let text =
            format!("[gc]\nevery_minutes = 0\nrepack_below = {repack_below}\n[space]\nballast_mib = 0\n");
        std::fs::write(&config, text).expect("a small file");
        Self { dir: dir.to_owned(), source: dir.join("source"), config }
    }

    fn ours(&self) -> PathBuf {
        self.dir.join("ours")
    }

    fn restic(&self) -> PathBuf {
        self.dir.join("restic")
    }

    fn server(&self, data: &Path) -> Server {
        Server::start_with(&self.config, data)
    }

    fn restic_command(&self, repository: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command.args(arguments).arg("--quiet").arg("--repo").arg(repository);
        command.arg("--cache-dir").arg(self.dir.join("cache")).env("RESTIC_PASSWORD", "benchmark");
        command
    }

    fn check_ours(&self, figures: &mut Figures) {
        let data = self.ours();
        let mut server = self.server(&data);
        let run = timed(admin(&server, &data, &["verify", "--level", "read", "--json"]));
        figures.check.push(run.seconds);
        figures.check_kib = figures.check_kib.max(server.peak_kib());
        server.stop();
        assert!(run.number("blobs") > 0, "blobs were read: {}", run.stdout);
    }

    fn check_restic(&self, figures: &mut Figures) {
        let run = timed(self.restic_command(&self.restic(), &["check", "--read-data"]));
        figures.check.push(run.seconds);
        figures.check_kib = figures.check_kib.max(run.peak_kib);
    }

    fn free_ours(&self, figures: &mut Figures, round: u64) {
        let data = self.dir.join(format!("ours-{round}"));
        copy(&self.ours(), &data);
        let site = data.join("site");
        figures.before = folder_len(&site);
        let mut server = self.server(&data);
        let run = |arguments: &[&str]| timed(admin(&server, &data, arguments));
        let forgotten = run(&["forget", "--keep-last", "1", "--minimum", "1", "--quiet"]);
        let collected = run(&["gc", "--now", "--allow-large", "--json"]);
        figures.free.push(forgotten.seconds + collected.seconds);
        figures.free_kib = figures.free_kib.max(server.peak_kib());
        server.stop();
        figures.after = folder_len(&site);
        say(&format!("forget {:.2} s, gc {:.2} s", forgotten.seconds, collected.seconds));
    }

    fn free_restic(&self, figures: &mut Figures, round: u64) {
        let repository = self.dir.join(format!("restic-{round}"));
        copy(&self.restic(), &repository);
        figures.before = folder_len(&repository);
        let run = timed(self.restic_command(&repository, &["forget", "--keep-last", "1", "--prune"]));
        figures.free.push(run.seconds);
        figures.free_kib = figures.free_kib.max(run.peak_kib);
        figures.after = folder_len(&repository);
    }
}

fn admin(server: &Server, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("astacus-admin"));
    command.args(arguments).args(["--server", &server.address]);
    command.arg("--token-file").arg(data.join("admin.token"));
    command
}

fn push_versions(place: &Place, arguments: &Arguments, has_restic: bool) {
    let total = arguments.mib * MIB;
    mixed(&place.source, 1, total).expect("the data set");
    let data = place.ours();
    let mut server = place.server(&data);
    if has_restic {
        timed(place.restic_command(&place.restic(), &["init"]));
    }
    for version in 0..arguments.versions {
        change(&place.source, version, total).expect("a version of the data set");
        timed(push(place, &server, &data));
        if has_restic {
            let mut command = place.restic_command(&place.restic(), &["backup"]);
            command.arg(&place.source);
            timed(command);
        }
    }
    server.stop();
    say(&format!("data: {} versions of {} MiB", arguments.versions, arguments.mib));
}

fn push(place: &Place, server: &Server, data: &Path) -> Command {
    let mut command = Command::new(program("astacus-client"));
    command.args(["push", "--json", "--cluster", "bench", "--node", "node", "--server", &server.address]);
    command.arg(&place.source).arg("--token-file").arg(data.join("admin.token"));
    command.env("ASTACUS_STATE_DIR", place.dir.join("state"));
    command
}

/// Makes the next version: about a tenth of it is not in the one before.
fn change(source: &Path, version: u64, total: u64) -> std::io::Result<()> {
    let mut random = Random::new(1000 + version);
    let file = |version: u64| source.join(format!("data/version-{version:04}.db"));
    write(File::create(file(version))?, Content::Sstable, &mut random, total / 10)?;
    let Some(before) = version.checked_sub(1) else { return Ok(()) };
    std::fs::remove_file(file(before))?;
    let log = File::options().append(true).open(source.join("log/commit.log"))?;
    write(log, Content::Log, &mut random, total / 100)?;
    for number in (version..SMALL_FILES).step_by(10) {
        let path = source.join(format!("small/{:03}/{number:05}.db", number % 100));
        let len = 64 + random.below(8 * 1024 - 64);
        write(File::create(path)?, Content::Sstable, &mut random, len)?;
    }
    Ok(())
}

fn write(file: File, content: Content, random: &mut Random, len: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write_content(content, random, len, &mut out)?;
    out.flush()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("cp is there").success(), "a repository can be copied");
}

fn report(ours: &Figures, restic: Option<&Figures>) {
    say("| | Astacus | restic | restic / Astacus |");
    say("|---|---|---|---|");
    let seconds = |what: &str, of: fn(&Figures) -> &Vec<f64>| {
        let our = median(of(ours).clone());
        match restic.map(|figures| median(of(figures).clone())) {
            Some(their) => say(&format!("| {what} | {our:.2} s | {their:.2} s | {:.2} |", their / our)),
            None => say(&format!("| {what} | {our:.2} s | - | - |")),
        }
    };
    seconds("read and check everything", |figures| &figures.check);
    seconds("forget all but the newest, and free", |figures| &figures.free);
    let number = |what: &str, of: fn(&Figures) -> u64| {
        let theirs = restic.map_or("-".to_owned(), |figures| of(figures).to_string());
        say(&format!("| {what} | {} | {theirs} | |", of(ours)));
    };
    number("repository before, MiB", |figures| figures.before / MIB);
    number("repository after, MiB", |figures| figures.after / MIB);
    number("freed, MiB", |figures| figures.before.saturating_sub(figures.after) / MIB);
    number("peak memory of the check, KiB (server; restic)", |figures| figures.check_kib);
    number("peak memory of freeing, KiB (server; restic)", |figures| figures.free_kib);
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn say(line: &str) {
    println!("{line}");
}
