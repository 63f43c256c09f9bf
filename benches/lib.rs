//! Data for benchmarks: made from a seed, so that every machine measures the same bytes.
//!
//! [`mixed`] is the set that push and restore are measured on: half sstable-like files with a zstd-3
//! ratio near 2, a log, and many small files.

pub mod programs;
mod scratch;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use scratch::Scratch;

/// A small fast generator (SplitMix64, Steele et al., OOPSLA 2014).
pub struct Random(u64);

impl Random {
    /// The generator that `seed` starts.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let bits = self.bits().to_le_bytes();
            piece.copy_from_slice(bits.get(..piece.len()).expect("a piece has at most 8 bytes"));
        }
    }
}

const WORDS: &[&str] = &[
    "compaction finished ",
    "flushing memtable to ",
    "received mutation for keyspace ",
    "hinted handoff replayed to ",
    "status=delivered;region=eu-north-1;",
    "country=Finland;currency=EUR;plan=",
    "commit log segment recycled ",
    "repair session completed for range ",
    "user-agent=astronomy-client/3.14;",
    "gossip state changed to NORMAL by ",
    "index summary redistributed over ",
    "sstable promoted to level ",
];

/// Kind of bytes to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Rows of which about half is random: zstd level 3 halves it.
    Sstable,
    /// Lines with a time, a message and a random id.
    Log,
}

/// Writes `len` bytes of `content` to `out`.
///
/// # Errors
/// The errors of `out`.
pub fn write_content(
    content: Content,
    random: &mut Random,
    len: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut written = 0;
    let mut row = Vec::with_capacity(256);
    let mut time = 1_700_000_000_000_u64;
    while written < len {
        row.clear();
        match content {
            Content::Sstable => sstable_row(random, &mut row),
            Content::Log => log_line(random, &mut time, &mut row)?,
        }
        let left = usize::try_from(len - written).unwrap_or(usize::MAX);
        let piece = row.get(..row.len().min(left)).expect("bounded by its length");
        out.write_all(piece)?;
        written += u64::try_from(piece.len()).expect("a row is short");
    }
    Ok(())
}

fn word(random: &mut Random) -> &'static [u8] {
    let place = usize::try_from(random.below(12)).expect("a small number");
    WORDS.get(place).expect("there are twelve words").as_bytes()
}

fn sstable_row(random: &mut Random, row: &mut Vec<u8>) {
    let mut value = [0; 28];
    random.fill(&mut value);
    row.extend_from_slice(&value);
    row.extend_from_slice(word(random));
    row.extend_from_slice(&[0, 0, 0, 28]);
}

fn log_line(random: &mut Random, time: &mut u64, row: &mut Vec<u8>) -> io::Result<()> {
    *time += random.below(50);
    write!(row, "{time} INFO [node-{}] ", random.below(16))?;
    row.extend_from_slice(word(random));
    writeln!(row, "request={:016x} took={}ms", random.bits(), random.below(900))
}

/// The mixed set of `total` bytes in `dir`: a log of half of it, 20,000 files under 8 KiB, and the rest
/// in files of 16 to 128 MiB.
///
/// # Errors
/// If a file cannot be written.
pub fn mixed(dir: &Path, seed: u64, total: u64) -> io::Result<()> {
    const SMALL_FILES: u64 = 20_000;
    let mut random = Random::new(seed);
    let mut left = total;
    for folder in 0..100 {
        std::fs::create_dir_all(dir.join(format!("small/{folder:03}")))?;
    }
    for number in 0..SMALL_FILES {
        let len = 64 + random.below(8 * 1024 - 64);
        let path = dir.join(format!("small/{:03}/{number:05}.db", number % 100));
        write_file(&path, Content::Sstable, &mut random, len)?;
        left = left.saturating_sub(len);
    }
    std::fs::create_dir_all(dir.join("log"))?;
    let log = total / 2;
    write_file(&dir.join("log/commit.log"), Content::Log, &mut random, log)?;
    left = left.saturating_sub(log);
    std::fs::create_dir_all(dir.join("data"))?;
    for number in 0.. {
        if left == 0 {
            break;
        }
        let len = ((16 << 20) + random.below(112 << 20)).min(left);
        write_file(
            &dir.join(format!("data/nb-{number:04}-big-Data.db")),
            Content::Sstable,
            &mut random,
            len,
        )?;
        left -= len;
    }
    Ok(())
}

/// `count` files of 64 to 4,159 bytes in folders of 1,000.
///
/// # Errors
/// If a file cannot be written.
pub fn small_files(dir: &Path, seed: u64, count: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    for number in 0..count {
        let folder = dir.join(format!("{:04}", number / 1000));
        if number % 1000 == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        let len = 64 + random.below(4096);
        write_file(&folder.join(format!("{number:07}.db")), Content::Sstable, &mut random, len)?;
    }
    Ok(())
}

fn write_file(path: &Path, content: Content, random: &mut Random, len: u64) -> io::Result<()> {
    let mut out =
        BufWriter::with_capacity(usize::try_from(len.min(1 << 20)).unwrap_or(1 << 20), File::create(path)?);
    write_content(content, random, len, &mut out)?;
    out.flush()
}

/// The middle of an odd number of measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
