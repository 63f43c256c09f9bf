//! The files of a state by their inodes, so that a file is known under another name as well.
//!
//! Behind its blocks a finished state has a row for each file that may be relied on, sorted: `inode u64 ·
//! position of the block u64 · number of the file in it u32`. A row is a hint: what it points at is checked as
//! any block is, and says itself which inode it was. Rows that were damaged cost the reading of some files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::{Fields, wide};

const ROW_LEN: usize = 20;
/// Rows that are read at once; the first of them is kept in memory.
const RUN: usize = 512;
/// Rows that are sorted at once: 6 MiB. More files need as many passes over their slots.
const SORTED_AT_ONCE: usize = 1 << 18;

/// Where the file with an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode {
    pub(super) ino: u64,
    pub(super) position: u64,
    pub(super) file: u32,
}

impl Inode {
    fn put(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.ino.to_le_bytes())?;
        out.write_all(&self.position.to_le_bytes())?;
        out.write_all(&self.file.to_le_bytes())
    }

    fn parse(bytes: &[u8; ROW_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self { ino: fields.u64()?, position: fields.u64()?, file: fields.u32()? })
    }
}

/// Writes the rows that `each` hands over, sorted, to `file` from `at` on. `each` may be called several times, and gives
/// the same rows in any order. Memory: bounded.
pub(super) fn write(
    file: &File,
    at: u64,
    each: impl FnMut(&mut dyn FnMut(Inode)) -> io::Result<()>,
) -> io::Result<()> {
    write_by(file, at, SORTED_AT_ONCE, each)
}

fn write_by(
    file: &File,
    at: u64,
    most: usize,
    mut each: impl FnMut(&mut dyn FnMut(Inode)) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(256 << 10, WriteAt { file, at });
    let mut last = None;
    loop {
        let mut rows: Vec<Inode> = Vec::new();
        let mut is_cut = false;
        each(&mut |row| {
            if last.is_some_and(|last| row <= last) {
                return;
            }
            rows.push(row);
            // The smallest of those that are left stay.
            if rows.len() == 2 * most {
                rows.select_nth_unstable(most);
                rows.truncate(most);
                is_cut = true;
            }
        })?;
        rows.sort_unstable();
        is_cut |= rows.len() > most;
        rows.truncate(most);
        rows.iter().try_for_each(|row| row.put(&mut out))?;
        last = rows.last().copied();
        if !is_cut {
            return out.flush();
        }
    }
}

struct WriteAt<'a> {
    file: &'a File,
    at: u64,
}

impl Write for WriteAt<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += wide(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The rows of a state. Memory: one number for each run of rows, and one run.
pub(super) struct Inodes {
    file: File,
    start: u64,
    rows: usize,
    /// The first inode of each run.
    fence: Vec<u64>,
    run: Option<(usize, Vec<Inode>)>,
}

impl Inodes {
    /// The rows in `file` from `start` to its end. `None` if there are none that can be used.
    pub(super) fn open(file: File, start: u64) -> Option<Self> {
        let len = file.metadata().ok()?.len().checked_sub(start)?;
        let rows = usize::try_from(len).ok()? / ROW_LEN;
        let mut inodes = Self { file, start, rows, fence: Vec::new(), run: None };
        for run in 0..rows.div_ceil(RUN) {
            let mut first = [0; 8];
            inodes.file.read_exact_at(&mut first, inodes.position(run)).ok()?;
            inodes.fence.push(u64::from_le_bytes(first));
        }
        (rows > 0).then_some(inodes)
    }

    fn position(&self, run: usize) -> u64 {
        self.start + wide(run * RUN * ROW_LEN)
    }

    /// The rows of the inode number `ino`: one, unless file systems share it.
    pub(super) fn find(&mut self, ino: u64) -> Vec<Inode> {
        let mut found = Vec::new();
        // The run before may end with it.
        let first = self.fence.partition_point(|first| *first < ino).saturating_sub(1);
        for run in first..self.fence.len() {
            if self.fence.get(run).is_some_and(|first| *first > ino) {
                break;
            }
            let Some(rows) = self.read(run) else { break };
            let from = rows.partition_point(|row| row.ino < ino);
            found.extend(rows.iter().skip(from).take_while(|row| row.ino == ino));
        }
        found
    }

    fn read(&mut self, run: usize) -> Option<&[Inode]> {
        if self.run.as_ref().is_none_or(|(at, _)| *at != run) {
            let rows = self.rows.saturating_sub(run * RUN).min(RUN);
            let mut bytes = vec![0; rows * ROW_LEN];
            self.file.read_exact_at(&mut bytes, self.position(run)).ok()?;
            let rows = bytes.as_chunks().0.iter().filter_map(Inode::parse).collect();
            self.run = Some((run, rows));
        }
        self.run.as_ref().map(|(_, rows)| rows.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64) -> Inode {
        // Each third number is that of two files.
        Inode {
            ino: n / 3 * 3 + u64::from(n % 3 == 2),
            position: n * 7,
            file: u32::try_from(n % 11).unwrap(),
        }
    }

    fn written(rows: u64, most: usize) -> (File, Vec<Inode>) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"before", 0).unwrap();
        let mut expected: Vec<Inode> = (0..rows).map(row).collect();
        let shuffled: Vec<Inode> = (0..rows).map(|n| row((n * 7919) % rows.max(1))).collect();
        expected.sort_unstable();
        let mut all = shuffled.clone();
        all.sort_unstable();
        assert_eq!(all, expected, "7919 shares no factor with the numbers of rows here");
        write_by(&file, 6, most, |put| {
            shuffled.iter().for_each(|row| put(*row));
            Ok(())
        })
        .unwrap();
        (file, expected)
    }

    #[test]
    fn rows_come_out_sorted_in_however_many_passes_and_each_is_found() {
        for (rows, most) in [(1, 4), (8, 4), (9, 4), (2000, 100), (2000, 4000)] {
            let (file, expected) = written(rows, most);
            let mut inodes = Inodes::open(file, 6).unwrap();

            for ino in 0..rows + 5 {
                let found = inodes.find(ino);

                let of: Vec<Inode> = expected.iter().filter(|row| row.ino == ino).copied().collect();
                assert_eq!(found, of, "{ino} of {rows} rows, {most} at once");
            }
        }
    }

    #[test]
    fn no_rows_and_cut_rows_are_no_reason_to_fail() {
        assert!(Inodes::open(written(0, 4).0, 6).is_none());
        let (file, _) = written(1500, 4000);
        let len = file.metadata().unwrap().len();
        for cut in [1, 19, 21, 10_000, 29_000] {
            file.set_len(len - cut).unwrap();
            if let Some(mut inodes) = Inodes::open(file.try_clone().unwrap(), 6) {
                (0..1600).for_each(|ino| drop(inodes.find(ino)));
            }
        }
    }
}
