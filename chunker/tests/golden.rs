//! Boundaries that may never move: stored chunks are found again only if they are cut where they were cut.
//!
//! Table and data come from SplitMix64 (`tests/data/mod.rs`). A failure here means that repositories written
//! so far would stop deduplicating: it is the code that must change, not the numbers.

mod data;

use chunker::{Algorithm, Chunker, Params, Splitter};
use data::{gear, noise};

const GEAR_SEED: u64 = 0x6173_7461_6375_7301;
const DATA_SEED: u64 = 0x6173_7461_6375_7302;

/// Six eighths of noise, one of a pattern of 1000 bytes, and zeros.
fn content(len: usize) -> Vec<u8> {
    let eighth = len / 8;
    let mut content = noise(DATA_SEED, 6 * eighth);
    content.extend(noise(!DATA_SEED, 1000).iter().cycle().take(eighth));
    content.resize(len, 0);
    content
}

fn chunk_lengths(algorithm: Algorithm, gear: Box<[u64; 256]>, content: &[u8]) -> Vec<usize> {
    let params = Params::new(algorithm).expect("the sizes are allowed");
    let mut splitter = Splitter::new(Chunker::new(params, gear));
    let mut chunks = splitter.split(content, u64::MAX);
    let mut lengths = Vec::new();
    while let Some(chunk) = chunks.next_chunk().expect("a slice can be read") {
        lengths.push(chunk.len());
    }
    lengths
}

fn assert_golden(algorithm: Algorithm, len: usize, expected: &[usize]) {
    assert_eq!(expected.iter().sum::<usize>(), len, "the committed lengths do not cover the data");
    assert_eq!(chunk_lengths(algorithm, gear(GEAR_SEED), &content(len)), expected);
}

#[test]
fn the_generator_is_the_published_one() {
    assert_eq!(data::SplitMix64(1234567).next(), 6457827717110365317);
}

#[test]
fn smallest_sizes() {
    assert_golden(
        Algorithm::FastCdc { min: 64, avg: 256, max: 1024 },
        40_001,
        &[
            637, 395, 611, 125, 460, 393, 357, 280, 277, 248, 474, 131, 504, 91, 426, 116, 163, 306, 162,
            111, 129, 607, 273, 358, 75, 128, 333, 271, 532, 800, 193, 437, 268, 82, 105, 337, 332, 183, 312,
            348, 193, 111, 245, 191, 366, 271, 309, 127, 455, 476, 348, 327, 452, 310, 206, 397, 532, 572,
            269, 107, 403, 181, 601, 400, 274, 439, 260, 172, 484, 221, 308, 141, 170, 126, 534, 348, 147,
            366, 307, 265, 287, 172, 240, 176, 259, 270, 380, 222, 558, 712, 522, 95, 550, 266, 193, 269,
            683, 214, 302, 484, 214, 302, 484, 214, 302, 484, 214, 302, 484, 214, 1024, 1024, 1024, 1024,
            1024, 32,
        ],
    );
}

#[test]
fn sizes_of_one_to_sixteen_kib() {
    assert_golden(
        Algorithm::FastCdc { min: 1024, avg: 4096, max: 16384 },
        150_000,
        &[
            5196, 4220, 4636, 3914, 4480, 1717, 7475, 1466, 3021, 4570, 1820, 4378, 6714, 12176, 1962, 3602,
            1855, 8245, 1265, 4178, 3488, 4142, 2536, 4522, 4361, 1165, 6176, 5000, 5000, 5000, 16384, 5336,
        ],
    );
}

#[test]
fn default_sizes() {
    assert_golden(
        Params::default().algorithm(),
        12_000_003,
        &[
            640095, 208507, 287071, 145310, 286456, 505565, 282167, 187405, 323142, 224579, 299790, 214743,
            263228, 324306, 285366, 422751, 230314, 185880, 178658, 376934, 334426, 497321, 101757, 324404,
            292973, 346952, 358307, 186987, 138462, 189679, 67357, 230590, 1048576, 1048576, 961369,
        ],
    );
}

#[test]
fn largest_sizes() {
    assert_golden(
        Algorithm::FastCdc { min: 1 << 20, avg: 1 << 22, max: 1 << 24 },
        40_000_000,
        &[3604830, 4849026, 5278413, 4604277, 1379007, 5436781, 14847666],
    );
}

#[test]
fn fixed_pieces() {
    let algorithm = Algorithm::Fixed { size: 4096 };
    assert_golden(algorithm, 10_001, &[4096, 4096, 1809]);
    assert_eq!(chunk_lengths(algorithm, gear(1), &content(8192)), [4096, 4096]);
    assert_eq!(chunk_lengths(algorithm, gear(1), &[]), [0; 0]);
}

/// Twin: the golden data sees the smallest change of any word of the table.
#[test]
fn one_flipped_bit_anywhere_in_the_table_moves_golden_boundaries() {
    let (algorithm, content) = (Algorithm::FastCdc { min: 64, avg: 256, max: 1024 }, content(40_001));
    let golden = chunk_lengths(algorithm, gear(GEAR_SEED), &content);
    for index in 0..256 {
        let mut flipped = gear(GEAR_SEED);
        flipped[index] ^= 1;
        assert_ne!(chunk_lengths(algorithm, flipped, &content), golden, "word {index}");
    }
}

#[test]
fn two_tables_share_almost_no_boundary() {
    let content = noise(DATA_SEED, 4_000_000);
    let algorithm = Algorithm::FastCdc { min: 1024, avg: 4096, max: 16384 };
    let ends = |seed| {
        chunk_lengths(algorithm, gear(seed), &content).into_iter().scan(0, |at, len| {
            *at += len;
            Some(*at)
        })
    };
    let first: std::collections::BTreeSet<usize> = ends(1).collect();
    let shared = ends(2).filter(|end| first.contains(end)).count();
    assert!(first.len() > 500, "{} boundaries", first.len());
    assert!(shared <= 2, "{shared} of {} boundaries are shared", first.len());
}
