//! Counting any number of ids in little memory: an external sort.
//!
//! Ids are collected in a buffer. A full buffer is sorted, equal ids are added up, and the result is written
//! to a temporary file as a *run*. At the end the runs and the buffer are merged into one sorted stream in
//! which each id comes once. The files serve no other purpose: each is unlinked as soon as it is made, so
//! that a crash leaves at most an empty one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Key of a count: the bytes of an id.
pub(crate) type Key = [u8; 32];

/// Memory that one sort takes for its buffer.
pub(crate) const BUFFER_BYTES: usize = 64 << 20;

/// Runs that are merged at once, each with a buffer and an open file of its own. More are merged into
/// one first.
const MAX_RUNS: usize = 64;

/// Buffer of a run while it is read.
const READ_BYTES: usize = 64 << 10;

/// Counts ids under `N` headings at once.
pub(crate) struct Sorter<const N: usize> {
    dir: PathBuf,
    /// Entries that the buffer may have.
    limit: usize,
    buffer: Vec<(Key, [u64; N])>,
    runs: Vec<File>,
}

impl<const N: usize> Sorter<N> {
    /// An empty sorter. Runs are written to the folder `dir`, which is made with the first one.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::with_buffer(dir, BUFFER_BYTES)
    }

    /// Like [`new`](Self::new), with about `bytes` for the buffer.
    pub(crate) fn with_buffer(dir: &Path, bytes: usize) -> Self {
        let limit = (bytes / size_of::<(Key, [u64; N])>()).max(1);
        Self { dir: dir.to_owned(), limit, buffer: Vec::new(), runs: Vec::new() }
    }

    /// Adds `counts` to those of `key`.
    ///
    /// # Errors
    /// A run could not be written; the sort is of no use any more.
    pub(crate) fn add(&mut self, key: Key, counts: [u64; N]) -> io::Result<()> {
        if self.buffer.len() >= self.limit {
            add_up(&mut self.buffer);
            // Many equal ids leave room. Otherwise sorting again and again would gain little.
            if self.buffer.len() > self.limit / 2 {
                self.spill()?;
            }
        }
        self.buffer.push((key, counts));
        Ok(())
    }

    /// All counts.
    ///
    /// # Errors
    /// A run could not be written or read.
    pub(crate) fn finish(mut self) -> io::Result<Counts<N>> {
        add_up(&mut self.buffer);
        let memory = Source::Memory(self.buffer.into_iter());
        Counts::merge(std::mem::take(&mut self.runs), Some(memory))
    }

    /// Writes the buffer, which is sorted and added up, to a run.
    fn spill(&mut self) -> io::Result<()> {
        if self.runs.len() >= MAX_RUNS {
            let mut merged = Counts::<N>::merge(std::mem::take(&mut self.runs), None)?;
            let mut run = BufWriter::new(temporary(&self.dir)?);
            while let Some((key, counts)) = merged.next()? {
                write(&mut run, &key, &counts)?;
            }
            self.runs.push(rewound(run)?);
        }
        let mut run = BufWriter::new(temporary(&self.dir)?);
        for (key, counts) in self.buffer.drain(..) {
            write(&mut run, &key, &counts)?;
        }
        self.runs.push(rewound(run)?);
        Ok(())
    }
}

/// Sorts, and makes one entry of those with the same key.
fn add_up<const N: usize>(entries: &mut Vec<(Key, [u64; N])>) {
    entries.sort_unstable_by_key(|entry| entry.0);
    entries.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        if is_same {
            sum(&mut first.1, &later.1);
        }
        is_same
    });
}

fn sum<const N: usize>(to: &mut [u64; N], more: &[u64; N]) {
    for (to, more) in to.iter_mut().zip(more) {
        *to = to.saturating_add(*more);
    }
}

fn write<const N: usize>(run: &mut impl Write, key: &Key, counts: &[u64; N]) -> io::Result<()> {
    run.write_all(key)?;
    counts.iter().try_for_each(|count| run.write_all(&count.to_le_bytes()))
}

fn rewound(run: BufWriter<File>) -> io::Result<File> {
    let mut file = run.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// A file without a name.
fn temporary(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Something sorted, in which each key comes once.
enum Source<const N: usize> {
    Memory(std::vec::IntoIter<(Key, [u64; N])>),
    Run(BufReader<File>),
}

impl<const N: usize> Source<N> {
    fn next(&mut self) -> io::Result<Option<(Key, [u64; N])>> {
        match self {
            Self::Memory(entries) => Ok(entries.next()),
            Self::Run(run) => read(run),
        }
    }
}

/// The next entry of a run; an end within an entry is an error.
fn read<const N: usize>(run: &mut impl io::BufRead) -> io::Result<Option<(Key, [u64; N])>> {
    if run.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut key = [0; 32];
    run.read_exact(&mut key)?;
    let mut counts = [0; N];
    for count in &mut counts {
        let mut bytes = [0; 8];
        run.read_exact(&mut bytes)?;
        *count = u64::from_le_bytes(bytes);
    }
    Ok(Some((key, counts)))
}

/// Counts: keys in order, each once.
pub(crate) struct Counts<const N: usize> {
    sources: Vec<Source<N>>,
    /// The next entry of each source that is not at its end.
    heads: BinaryHeap<Reverse<(Key, usize, [u64; N])>>,
}

impl<const N: usize> Counts<N> {
    fn merge(runs: Vec<File>, memory: Option<Source<N>>) -> io::Result<Self> {
        let runs = runs.into_iter().map(|run| Source::Run(BufReader::with_capacity(READ_BYTES, run)));
        let mut counts = Self { sources: runs.chain(memory).collect(), heads: BinaryHeap::new() };
        for at in 0..counts.sources.len() {
            counts.refill(at)?;
        }
        Ok(counts)
    }

    fn refill(&mut self, at: usize) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(at) else { return Ok(()) };
        if let Some((key, counts)) = source.next()? {
            self.heads.push(Reverse((key, at, counts)));
        }
        Ok(())
    }

    /// The key that comes next.
    pub(crate) fn peek(&self) -> Option<&Key> {
        self.heads.peek().map(|Reverse((key, _, _))| key)
    }

    /// The next key, and what was counted of it.
    ///
    /// # Errors
    /// A run could not be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Key, [u64; N])>> {
        let Some(Reverse((key, at, mut counts))) = self.heads.pop() else { return Ok(None) };
        self.refill(at)?;
        while self.peek() == Some(&key) {
            let Some(Reverse((_, at, more))) = self.heads.pop() else { break };
            sum(&mut counts, &more);
            self.refill(at)?;
        }
        Ok(Some((key, counts)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u64) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        key
    }

    fn all<const N: usize>(mut counts: Counts<N>) -> Vec<(Key, [u64; N])> {
        std::iter::from_fn(|| counts.next().unwrap()).collect()
    }

    /// A buffer for exactly as many entries.
    fn sorter<const N: usize>(dir: &Path, entries: usize) -> Sorter<N> {
        Sorter::with_buffer(dir, entries * size_of::<(Key, [u64; N])>())
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_a_map_counts(
            named in prop::collection::vec((0_u64..60, 0_usize..2, 1_u64..5), 0..600),
            buffer in 1_usize..40,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut sorter = sorter::<2>(folder.path(), buffer);
            let mut map: BTreeMap<Key, [u64; 2]> = BTreeMap::new();
            for (n, heading, times) in named {
                let mut counts = [0; 2];
                counts[heading] = times;
                sorter.add(key(n), counts).unwrap();
                sum(map.entry(key(n)).or_default(), &counts);
            }

            let counted = all(sorter.finish().unwrap());

            prop_assert_eq!(counted, map.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn more_runs_than_are_merged_at_once_are_merged_in_steps() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = sorter::<1>(folder.path(), 2);
        let ids = u64::try_from(MAX_RUNS).unwrap() * 5;
        for n in 0..ids {
            sorter.add(key(n), [1]).unwrap();
        }
        assert!((2..=MAX_RUNS).contains(&sorter.runs.len()), "{}", sorter.runs.len());
        for n in 0..ids {
            sorter.add(key(n), [2]).unwrap();
        }

        let counted = all(sorter.finish().unwrap());

        let expected: BTreeMap<Key, [u64; 1]> = (0..ids).map(|n| (key(n), [3])).collect();
        assert_eq!(counted, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn equal_ids_take_no_room_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = sorter::<1>(folder.path(), 8);
        for n in 0..10_000 {
            sorter.add(key(n % 3), [1]).unwrap();
        }
        assert!(sorter.runs.is_empty());
        for n in 0..100 {
            sorter.add(key(n), [1]).unwrap();
        }

        assert!(!sorter.runs.is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "runs have no names");
        assert_eq!(all(sorter.finish().unwrap()).len(), 100);
    }

    #[test]
    fn a_run_that_ends_within_an_entry_is_an_error() {
        let mut whole = Vec::new();
        write(&mut whole, &key(1), &[7_u64]).unwrap();

        assert_eq!(read::<1>(&mut whole.as_slice()).unwrap(), Some((key(1), [7])));
        assert!(read::<1>(&mut &whole[..39]).is_err());
        assert_eq!(read::<1>(&mut &whole[..0]).unwrap(), None);
    }
}
