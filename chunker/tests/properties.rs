//! The promises of the crate, on generated data: every case is a seed and a few sizes, so it can be replayed.

mod data;

use std::io::{self, ErrorKind, Read};

use chunker::{Algorithm, Chunker, EndOfInput, Params, Splitter};
use data::{SplitMix64, gear, noise};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// A number below `end`.
fn below(random: &mut SplitMix64, end: usize) -> usize {
    let end = u64::try_from(end).expect("a length fits into 64 bits");
    usize::try_from(random.next() % end).expect("smaller than a length")
}

/// Stretches of noise, of a short pattern and of one byte: cuts by hash, by `max` and in between.
fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut random = SplitMix64(seed);
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let stretch = 1 + below(&mut random, 6000);
        let pattern_len = match below(&mut random, 3) {
            0 => stretch,
            1 => 1,
            _ => 2 + below(&mut random, 700),
        };
        let pattern = noise(random.next(), pattern_len);
        out.extend(pattern.iter().cycle().take(stretch));
    }
    out.truncate(len);
    out
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::FastCdc { min: 64, avg: 256, max: 1024 }),
        Just(Algorithm::FastCdc { min: 128, avg: 512, max: 1024 }),
        Just(Algorithm::FastCdc { min: 512, avg: 1024, max: 8192 }),
        Just(Algorithm::Fixed { size: 64 }),
        Just(Algorithm::Fixed { size: 1024 }),
    ]
}

fn chunker(algorithm: Algorithm) -> Chunker {
    Chunker::new(Params::new(algorithm).expect("the sizes above are allowed"), gear(1))
}

/// Boundaries of a stream that is in memory, by the pure function alone.
fn boundaries(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(len) = chunker.cut(data.get(at..).expect("within data"), EndOfInput::Reached) {
        at += len;
        found.push(at);
    }
    found
}

/// Boundaries by the splitter; also asserts that its chunks are the data.
fn split_boundaries(splitter: &mut Splitter, reader: impl Read, data: &[u8], limit: u64) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut chunks = splitter.split(reader, limit);
    while let Some(chunk) = chunks.next_chunk().expect("the reader does not fail") {
        let end = at + chunk.len();
        assert_eq!(Some(chunk), data.get(at..end), "the chunk at {at} is not the data");
        found.push(end);
        at = end;
    }
    assert!(chunks.next_chunk().expect("the end stays the end").is_none());
    found
}

/// Answers reads with random lengths and now and then with an interruption.
struct ShortReads<'a> {
    rest: &'a [u8],
    longest: usize,
    random: SplitMix64,
}

impl Read for ShortReads<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if below(&mut self.random, 8) == 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        let len = (1 + below(&mut self.random, self.longest)).min(buf.len());
        let part = buf.get_mut(..len).expect("not longer than buf");
        self.rest.read(part)
    }
}

/// The five lines of the crate's documentation, one byte at a time.
fn documented_cut(data: &[u8], [min, avg, max]: [usize; 3], gear: &[u64; 256]) -> usize {
    let mask = |bits: u32| fastcdc::v2020::MASKS.into_iter().find(|mask| mask.count_ones() == bits);
    let strict = mask(avg.ilog2() + 1).expect("there is a mask with that many bits");
    let loose = mask(avg.ilog2() - 1).expect("there is a mask with that many bits");
    let window = data.get(..max).unwrap_or(data);
    let looked_at = window.len() - window.len() % 2;
    let mut hash = 0_u64;
    for (at, byte) in window.iter().enumerate().take(looked_at).skip(min) {
        let word = gear.get(usize::from(*byte)).expect("the table has 256 words");
        hash = (hash << 1).wrapping_add(*word);
        if hash & (if at < avg { strict } else { loose }) == 0 {
            return at;
        }
    }
    window.len()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    /// Promise "restart".
    #[test]
    fn chunking_from_any_boundary_gives_the_later_boundaries(
        algorithm in algorithms(), seed: u64, len in 0..20_000_usize,
    ) {
        let (chunker, data) = (chunker(algorithm), mixed(seed, len));
        let mut splitter = Splitter::new(chunker.clone());
        let all = boundaries(&chunker, &data);
        prop_assert_eq!(all.last().copied().unwrap_or(0), len);
        for (index, start) in all.iter().enumerate() {
            let rest = &data[*start..];
            let later: Vec<_> = all[index + 1..].iter().map(|end| end - start).collect();
            prop_assert_eq!(&boundaries(&chunker, rest), &later);
            prop_assert_eq!(&split_boundaries(&mut splitter, rest, rest, u64::MAX), &later);
        }
    }

    /// Promise "growth".
    #[test]
    fn appending_moves_no_boundary_but_the_old_end(
        algorithm in algorithms(), seed: u64, old in 1..20_000_usize, added in 0..3_000_usize,
    ) {
        let (chunker, data) = (chunker(algorithm), mixed(seed, old + added));
        let mut before = boundaries(&chunker, &data[..old]);
        before.pop();
        prop_assert!(boundaries(&chunker, &data).starts_with(&before));
    }

    /// Promise "what a boundary depends on": not on reads.
    #[test]
    fn boundaries_do_not_depend_on_how_the_reader_splits_its_reads(
        algorithm in algorithms(), seed: u64, len in 0..40_000_usize, longest in 1..9_000_usize,
    ) {
        let (chunker, data) = (chunker(algorithm), mixed(seed, len));
        let reader = ShortReads { rest: &data, longest, random: SplitMix64(!seed) };
        let mut splitter = Splitter::new(chunker.clone());
        let found = split_boundaries(&mut splitter, reader, &data, u64::MAX);
        prop_assert_eq!(found, boundaries(&chunker, &data));
    }

    /// A frozen length is the end of the stream, whatever was appended since.
    #[test]
    fn what_lies_behind_the_limit_changes_nothing_and_is_not_read(
        algorithm in algorithms(), seed: u64, len in 0..20_000_usize, limit in 0..20_000_usize,
    ) {
        let (chunker, data) = (chunker(algorithm), mixed(seed, len));
        let kept = limit.min(len);
        let mut file = data.as_slice();
        let mut splitter = Splitter::new(chunker.clone());
        let found = split_boundaries(&mut splitter, &mut file, &data, u64::try_from(limit).unwrap());
        prop_assert_eq!(found, boundaries(&chunker, &data[..kept]));
        prop_assert_eq!(file.len(), len - kept);
    }

    /// Promise "lengths".
    #[test]
    fn only_the_last_chunk_is_shorter_than_min_and_none_is_longer_than_max(
        algorithm in algorithms(), seed: u64, len in 0..20_000_usize,
    ) {
        let (min, max) = match algorithm {
            Algorithm::FastCdc { min, max, .. } => (min, max),
            Algorithm::Fixed { size } => (size, size),
        };
        let ends = boundaries(&chunker(algorithm), &mixed(seed, len));
        let starts = std::iter::once(0).chain(ends.iter().copied());
        for (start, end) in starts.zip(&ends) {
            prop_assert!((1..=max).contains(&(end - start)));
            prop_assert!(end - start >= min || *end == len);
        }
    }

    /// The documentation is enough to write another implementation.
    #[test]
    fn a_cut_is_where_the_documentation_says(seed: u64, len in 1..5_000_usize) {
        let (data, table) = (mixed(seed, len), gear(seed));
        for sizes in [[64, 256, 1024], [256, 512, 4096]] {
            let [min, avg, max] = sizes;
            let params = Params::new(Algorithm::FastCdc { min, avg, max }).unwrap();
            let cut = Chunker::new(params, table.clone()).cut(&data, EndOfInput::Reached);
            prop_assert_eq!(cut, Some(documented_cut(&data, sizes, &table)));
        }
    }
}

#[test]
fn one_buffer_serves_every_chunk_of_every_file() {
    let algorithm = Algorithm::FastCdc { min: 64, avg: 256, max: 1024 };
    let mut splitter = Splitter::new(chunker(algorithm));
    let mut addresses = Vec::new();
    for file in 0..50 {
        let data = mixed(file, 30_000);
        let mut chunks = splitter.split(data.as_slice(), 30_000);
        while let Some(chunk) = chunks.next_chunk().unwrap() {
            let within = chunk.as_ptr_range();
            addresses.extend([within.start.addr(), within.end.addr()]);
        }
    }
    let span = addresses.iter().max().unwrap() - addresses.iter().min().unwrap();
    assert!(addresses.len() > 1000);
    assert!(span <= 4 * 1024, "chunks lie within {span} bytes");
}

/// A file given up half way leaves nothing behind for the next one.
#[test]
fn an_abandoned_file_does_not_show_in_the_next_one() {
    let chunker = chunker(Algorithm::FastCdc { min: 64, avg: 256, max: 1024 });
    let mut splitter = Splitter::new(chunker.clone());
    let (abandoned, next) = (noise(1, 9_000), noise(2, 9_000));
    assert!(splitter.split(abandoned.as_slice(), u64::MAX).next_chunk().unwrap().is_some());

    let found = split_boundaries(&mut splitter, next.as_slice(), &next, u64::MAX);

    assert_eq!(found, boundaries(&chunker, &next));
}

/// Fails once in the middle, then continues.
struct FailsOnce<'a> {
    before: &'a [u8],
    failed: bool,
    after: &'a [u8],
}

impl Read for FailsOnce<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.before.is_empty() && !self.failed {
            self.failed = true;
            return Err(ErrorKind::TimedOut.into());
        }
        if self.before.is_empty() { self.after.read(buf) } else { self.before.read(buf) }
    }
}

#[test]
fn a_read_error_is_passed_on_and_loses_nothing() {
    let data = noise(3, 5_000);
    let (before, after) = data.split_at(2_345);
    let mut splitter = Splitter::new(chunker(Algorithm::Fixed { size: 1024 }));
    let mut chunks = splitter.split(FailsOnce { before, failed: false, after }, u64::MAX);
    let (mut joined, mut errors) = (Vec::new(), Vec::new());
    loop {
        match chunks.next_chunk() {
            Ok(Some(chunk)) => joined.extend_from_slice(chunk),
            Ok(None) => break,
            Err(error) => errors.push(error.kind()),
        }
    }
    assert_eq!(errors, [ErrorKind::TimedOut]);
    assert_eq!(joined, data);
}

/// Breaks the contract of `Read`.
struct Liar;

impl Read for Liar {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(buf.len() + 1)
    }
}

#[test]
fn a_reader_that_claims_too_much_is_refused() {
    let mut splitter = Splitter::new(chunker(Algorithm::Fixed { size: 1024 }));
    assert!(splitter.split(Liar, u64::MAX).next_chunk().is_err());
}
