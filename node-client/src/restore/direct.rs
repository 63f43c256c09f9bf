//! Large files past the page cache: few large aligned writes, straight from our memory to the disk.
//!
//! A restore through the page cache costs a copy and a fresh page for each 4 KiB, and removes cached pages of
//! the database beside it. Unaligned parts, the ends of a run, still use the cache; those pages are never
//! written directly, so the two ways do not meet. Where the file system cannot write directly, all writes use
//! the cache.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::attributes::by_handle;

/// Files below this length are written through the page cache.
pub(super) const FROM_LEN: u64 = 4 << 20;

/// Alignment of memory, offsets and lengths of a direct write.
const ALIGN: usize = 4096;
/// Bytes of one direct write at most.
const RUN_LEN: usize = 4 << 20;

/// A second handle on an open file that writes directly; `None` where that cannot be had. It is opened by the
/// first handle: another process may have given the file's name to something else.
pub(super) fn open(file: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    rustix::fs::open(by_handle(file), flags, Mode::empty()).ok()
}

/// The two handles on a file.
#[derive(Clone, Copy)]
pub(super) struct Handles<'a> {
    pub(super) cached: &'a OwnedFd,
    pub(super) direct: &'a OwnedFd,
}

/// Gathers neighbouring bytes of one file. In memory a byte is as far from an aligned address as it will be
/// in the file from an aligned offset.
pub(super) struct Gather {
    memory: Vec<u8>,
    /// Where the first aligned address of `memory` is.
    base: usize,
    /// File offset of the byte at `base`.
    offset: u64,
    /// Offset of the gathered bytes, counted from `base`.
    start: usize,
    end: usize,
}

impl Gather {
    /// An empty buffer. The memory is allocated with the first byte.
    pub(super) fn new() -> Self {
        Self { memory: Vec::new(), base: 0, offset: 0, start: 0, end: 0 }
    }

    /// Adds `bytes` at `offset`, and writes out what is full or does not continue.
    pub(super) fn add(&mut self, to: Handles<'_>, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        if self.start != self.end && offset != self.offset + wide(self.end) {
            self.flush(to)?;
        }
        if self.start == self.end {
            self.begin(offset);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(RUN_LEN - self.end));
            let place = self.base + self.end;
            let room = self.memory.get_mut(place..place + now.len()).expect("a run fits in the memory");
            room.copy_from_slice(now);
            self.end += now.len();
            bytes = later;
            if self.end == RUN_LEN {
                self.flush(to)?;
                self.begin(self.offset + wide(RUN_LEN));
            }
        }
        Ok(())
    }

    /// Drops what is gathered: its file is given up.
    pub(super) fn forget(&mut self) {
        self.start = self.end;
    }

    fn begin(&mut self, offset: u64) {
        if self.memory.is_empty() {
            self.memory = vec![0; RUN_LEN + ALIGN];
            self.base = self.memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        }
        self.start = usize::try_from(offset % wide(ALIGN)).expect("it is below 4096");
        self.end = self.start;
        self.offset = offset - wide(self.start);
    }

    /// Writes out what is gathered.
    pub(super) fn flush(&mut self, to: Handles<'_>) -> io::Result<()> {
        let (start, end) = (self.start, self.end);
        self.start = self.end;
        let first = start.next_multiple_of(ALIGN).min(end);
        let last = (end - end % ALIGN).max(first);
        self.write(to.cached, start, first)?;
        match self.write(to.direct, first, last) {
            // The device wants more than 4 KiB, or the file system changed its mind.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.write(to.cached, first, last)?;
            }
            written => written?,
        }
        self.write(to.cached, last, end)
    }

    fn write(&self, file: &OwnedFd, start: usize, end: usize) -> io::Result<()> {
        let bytes = self.memory.get(self.base + start..self.base + end).unwrap_or_default();
        write_all(file, bytes, self.offset + wide(start))
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += u64::try_from(written).expect("a length fits in 64 bits");
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files(dir: &std::path::Path) -> (OwnedFd, OwnedFd) {
        let path = dir.join("file");
        let cached = OwnedFd::from(std::fs::File::create(&path).unwrap());
        // Where nothing can be written directly, both ways use the cache.
        let direct = open(&cached).unwrap_or_else(|| cached.try_clone().unwrap());
        (cached, direct)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// C2: whatever the pieces, every byte comes to lie where it belongs.
        #[test]
        fn pieces_of_any_length_end_up_in_place(
            lens in proptest::collection::vec(prop_oneof![1..9000_usize, Just(4096), 900_000..2_000_000_usize], 1..8),
            gaps in proptest::collection::vec(prop_oneof![Just(0_usize), Just(0), 1..10_000_usize], 8),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (cached, direct) = files(dir.path());
            let to = Handles { cached: &cached, direct: &direct };
            let (mut gather, mut expected) = (Gather::new(), Vec::new());

            for (number, (len, gap)) in lens.into_iter().zip(gaps).enumerate() {
                expected.resize(expected.len() + gap, 0);
                let piece: Vec<u8> = (0..len).map(|n| u8::try_from((n + number) % 251).unwrap() + 1).collect();
                gather.add(to, wide(expected.len()), &piece).unwrap();
                expected.extend_from_slice(&piece);
            }
            gather.flush(to).unwrap();

            prop_assert!(std::fs::read(dir.path().join("file")).unwrap() == expected);
        }
    }

    /// C2: two threads that write neighbouring runs of a file share a page, and lose nothing of it.
    #[test]
    fn neighbouring_runs_of_several_threads_keep_each_other_s_bytes() {
        const RUN: usize = 1_000_003;
        let dir = tempfile::tempdir().unwrap();
        let (cached, direct) = files(dir.path());
        rustix::fs::ftruncate(&cached, wide(RUN * 8)).unwrap();

        std::thread::scope(|scope| {
            for run in 0..8_u8 {
                let to = Handles { cached: &cached, direct: &direct };
                scope.spawn(move || {
                    let mut gather = Gather::new();
                    gather.add(to, wide(RUN) * u64::from(run), &vec![run + 1; RUN]).unwrap();
                    gather.flush(to).unwrap();
                });
            }
        });

        let found = std::fs::read(dir.path().join("file")).unwrap();
        assert!(
            (0..8_u8).all(|run| found.chunks(RUN).nth(run.into()).unwrap().iter().all(|b| *b == run + 1))
        );
    }
}
