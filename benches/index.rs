//! Measures an index engine with random keys, in durable batches, as the server uses it.
//!
//! ```text
//! cargo bench -p benches --bench index -- --engine fjall --keys 1000000
//! ```
//! Keys have 32 bytes and values 28, both from a fixed seed, in batches of 10,000, each safe from a power
//! cut before the next is begun. Then random keys are looked up, present and absent ones, a thousand
//! at a time, and at last all keys are deleted. One process per run: memory and bytes written are its own.
#![expect(clippy::print_stdout, reason = "the printed table is what this program is for")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use repo_server::index::{self, Batch, Engine, Index, Table};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Changes in one commit.
const BATCH: u64 = 10_000;

/// Keys in one lookup, and keys looked up in all.
const LOOKUP: u64 = 1_000;
const LOOKUPS: u64 = 1_000_000;

/// An engine that needs more than this is stopped: the machine may have other things to do.
const RSS_LIMIT: u64 = 6 << 30;

fn main() -> Outcome<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let index = index::open(options.engine, dir.path())?;
    println!("| step | keys | per second | at the end | written | RSS | peak RSS | on disk |");
    println!("|---|---|---|---|---|---|---|---|");
    let step = Step { dir: dir.path(), keys: options.keys };
    if step.run("insert", |keys| commit(index.as_ref(), keys, Change::Insert))? == Ended::AtLimit {
        return Ok(());
    }
    step.lookups(index.as_ref(), "warm up", Keys::Present)?;
    step.lookups(index.as_ref(), "look up present", Keys::Present)?;
    step.lookups(index.as_ref(), "look up absent", Keys::Absent)?;
    step.run("delete", |keys| commit(index.as_ref(), keys, Change::Delete))?;
    let started = now();
    drop(index);
    println!("\nclosed in {:.2} s", started.elapsed().as_secs_f64());
    let started = now();
    let reopened = index::open_existing(options.engine, dir.path())?;
    println!("opened again in {:.2} s", started.elapsed().as_secs_f64());
    drop(reopened);
    Ok(())
}

/// An index engine with random keys
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t)]
    engine: Engine,
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Flag that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// One line of the table.
struct Step<'a> {
    dir: &'a Path,
    keys: u64,
}

#[derive(PartialEq, Eq)]
enum Ended {
    Done,
    AtLimit,
}

#[derive(Clone, Copy)]
enum Keys {
    Present,
    Absent,
}

#[derive(Clone, Copy)]
enum Change {
    Insert,
    Delete,
}

impl Step<'_> {
    /// Works through all keys in batches; the last tenth of them is measured on its own as well.
    fn run(&self, name: &str, work: impl Fn(std::ops::Range<u64>) -> Outcome<()>) -> Outcome<Ended> {
        let written_before = written_bytes()?;
        let last_tenth = self.keys - self.keys / 10;
        let started = now();
        let mut tail = (0, Duration::ZERO);
        let mut done = 0;
        let mut ended = Ended::Done;
        while done < self.keys && ended == Ended::Done {
            let batch = done..(done + BATCH).min(self.keys);
            let batch_started = now();
            work(batch.clone())?;
            if batch.start >= last_tenth {
                tail = (tail.0 + batch.end - batch.start, tail.1 + batch_started.elapsed());
            }
            done = batch.end;
            if status("VmRSS:")? > RSS_LIMIT {
                ended = Ended::AtLimit;
            }
        }
        let elapsed = started.elapsed();
        let written = written_bytes()? - written_before;
        self.print(name, done, rate(done, elapsed), rate(tail.0, tail.1), written)?;
        if ended == Ended::AtLimit {
            println!("\nstopped at {done} keys: more than {} in memory", bytes(RSS_LIMIT));
        }
        Ok(ended)
    }

    fn lookups(&self, index: &dyn Index, name: &str, keys: Keys) -> Outcome<()> {
        let mut random = Random(7);
        let started = now();
        for _ in 0..LOOKUPS / LOOKUP {
            let wanted: Vec<_> = (0..LOOKUP)
                .map(|_| match keys {
                    Keys::Present => key(random.next() % self.keys),
                    Keys::Absent => key(self.keys + random.next() % self.keys),
                })
                .collect();
            let wanted: Vec<&[u8]> = wanted.iter().map(<[u8; 32]>::as_slice).collect();
            let found = index.multi_get(Table::Chunk, &wanted)?;
            let expected = matches!(keys, Keys::Present);
            if found.iter().any(|value| value.is_some() != expected) {
                return Err(format!("{name}: a key was found that is absent, or not found").into());
            }
        }
        self.print(name, LOOKUPS, rate(LOOKUPS, started.elapsed()), String::new(), 0)
    }

    fn print(&self, name: &str, keys: u64, mean: String, tail: String, written: u64) -> Outcome<()> {
        let (rss, peak) = (bytes(status("VmRSS:")?), bytes(status("VmHWM:")?));
        let on_disk = bytes(disk_usage(self.dir)?);
        println!("| {name} | {keys} | {mean} | {tail} | {} | {rss} | {peak} | {on_disk} |", bytes(written));
        Ok(())
    }
}

fn commit(index: &dyn Index, keys: std::ops::Range<u64>, change: Change) -> Outcome<()> {
    let mut batch = Batch::new();
    for n in keys {
        match change {
            Change::Insert => batch.put(Table::Chunk, key(n), value(n)),
            Change::Delete => batch.delete(Table::Chunk, key(n)),
        };
    }
    Ok(index.commit(batch)?)
}

/// The `n`th key: always the same, and like no other.
fn key(n: u64) -> [u8; 32] {
    let mut random = Random(n);
    let mut key = [0; 32];
    for part in key.chunks_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes());
    }
    key
}

fn value(n: u64) -> Vec<u8> {
    key(!n).into_iter().take(28).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn rate(count: u64, elapsed: Duration) -> String {
    let micros = elapsed.as_micros().max(1);
    format!("{}", u128::from(count) * 1_000_000 / micros)
}

fn bytes(count: u64) -> String {
    format!("{} MB", count / 1_000_000)
}

/// Bytes that this process has caused to be sent to the disk.
fn written_bytes() -> Outcome<u64> {
    field("/proc/self/io", "write_bytes:")
}

/// A size in bytes from the kernel's account of this process.
fn status(name: &str) -> Outcome<u64> {
    Ok(field("/proc/self/status", name)? * 1024)
}

fn field(path: &str, name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    Ok(value.ok_or_else(|| format!("{path} has no `{name}`"))?.parse()?)
}

/// Blocks that the files at and below `path` take up: less than their length where they have holes.
fn disk_usage(path: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match fs::symlink_metadata(path) {
        // The engine deletes files meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        found => found?,
    };
    let mut total = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            total += disk_usage(&entry?.path())?;
        }
    }
    Ok(total)
}
