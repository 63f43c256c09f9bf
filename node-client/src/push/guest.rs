//! Reads as a guest: a push leaves the page cache and the access times to the programs that the machine is for.
//!
//! Linux 6.14 and later can read without adding pages to the page cache. Elsewhere a few pages of the file
//! are checked before it is read: if none is cached, the file is not in use, and its pages are dropped again
//! after the read. ADR 0024 has the figures.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

/// `RWF_DONTCACHE` of `linux/fs.h`, which rustix does not name yet.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// Bytes that are dropped together: pages of the cache may be as large as several reads.
const DROPPED_LEN: u64 = 8 << 20;
/// Distance of the checked pages in bytes.
const LOOK_EVERY: u64 = 16 << 20;
/// and not more than this in all: a disk has to seek for each that is not there.
const MOST_LOOKS: u64 = 32;

/// How a file is opened: whatever took its place in the meantime is not waited for, nor followed.
pub(crate) const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// How a folder is opened.
pub(crate) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens `name` in `folder` and leaves its access time alone, where this process may: it owns the file, or is root.
pub(super) fn open(
    folder: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&folder, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&folder, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// One run of reads of one file.
#[derive(Debug, Default)]
pub(super) struct Guest {
    way: Way,
    /// Range that is not yet read.
    range: Range<u64>,
}

/// How the page cache is left as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Way {
    /// The kernel sees to it.
    #[default]
    Uncached,
    /// Content read since this offset is dropped.
    Dropped(u64),
    /// No part: the file was in the cache, or that is unknown.
    Kept,
}

impl Guest {
    /// Reads of `range`, from its start.
    pub(super) fn new(range: Range<u64>) -> Self {
        Self { way: Way::default(), range }
    }

    /// Reads like `pread`.
    pub(super) fn read(&mut self, file: &OwnedFd, room: &mut [u8], at: u64) -> Result<usize, Errno> {
        if self.way == Way::Uncached {
            match rustix::io::preadv2(file, &mut [IoSliceMut::new(room)], at, DONT_CACHE) {
                // An older kernel, or a file system that does not know of it.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.way = without(file, &self.range),
                read => return read,
            }
        }
        let read = rustix::io::pread(file, room, at)?;
        if let Way::Dropped(since) = self.way {
            self.way = Way::Dropped(drop_read(file, since, at.saturating_add(wide(read))));
        }
        Ok(read)
    }
}

/// How to read `range` where the kernel cannot leave the cache alone.
fn without(file: &OwnedFd, range: &Range<u64>) -> Way {
    let len = range.end.saturating_sub(range.start);
    let looks = (len / LOOK_EVERY).clamp(1, MOST_LOOKS);
    // Looking for one page must not make the kernel read others.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
    let is_used = (0..looks).any(|nth| is_cached(file, range.start + len / looks * nth));
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Normal);
    if is_used { Way::Kept } else { Way::Dropped(range.start) }
}

fn is_cached(file: &OwnedFd, at: u64) -> bool {
    let mut byte = [0];
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
    // A file system that cannot tell: then nothing is dropped.
    read != Err(Errno::AGAIN)
}

/// Drops what was read from `since` to `end`; returns from where on there may be more to drop.
fn drop_read(file: &OwnedFd, since: u64, end: u64) -> u64 {
    let len = end.saturating_sub(since);
    // It is for others: whether it works changes nothing for the push.
    let _ = rustix::fs::fadvise(file, since, NonZeroU64::new(len), Advice::DontNeed);
    if len < DROPPED_LEN { since } else { end }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const LEN: usize = 1 << 20;

    /// A file on disk without pages in the page cache; `None` where the cache cannot be checked.
    fn cold() -> Option<OwnedFd> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; LEN], 0).unwrap();
        file.sync_all().unwrap();
        let file = OwnedFd::from(file);
        drop_read(&file, 0, wide(LEN));
        let mut byte = [0];
        let looked = rustix::io::preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
        (looked == Err(Errno::AGAIN)).then(|| {
            drop_read(&file, 0, wide(LEN));
            file
        })
    }

    fn read_all(guest: &mut Guest, file: &OwnedFd) {
        let mut room = vec![0; 256 << 10];
        let mut at = 0;
        while at < wide(LEN) {
            at += wide(guest.read(file, &mut room, at).unwrap());
            assert!(room.iter().all(|byte| *byte == 7));
        }
    }

    fn guests(file: &OwnedFd) -> [Guest; 2] {
        let range = 0..wide(LEN);
        [Guest::new(range.clone()), Guest { way: without(file, &range), range }]
    }

    #[test]
    fn a_file_that_nobody_uses_is_not_in_the_page_cache_afterwards() {
        let Some(file) = cold() else { return };
        for mut guest in guests(&file) {
            read_all(&mut guest, &file);
            assert!(guest.way != Way::Kept && !is_cached(&file, wide(LEN / 2)), "{guest:?}");
            drop_read(&file, 0, wide(LEN));
        }
    }

    #[test]
    fn a_file_that_is_in_the_page_cache_stays_there() {
        let Some(file) = cold() else { return };
        let mut room = vec![0; LEN];
        let file = File::from(file);
        file.read_exact_at(&mut room, 0).unwrap();
        let file = OwnedFd::from(file);
        for mut guest in guests(&file) {
            read_all(&mut guest, &file);
            assert!(is_cached(&file, wide(LEN / 2)), "{guest:?}");
        }
    }

    /// The access time is of the user's programs.
    #[test]
    fn reading_leaves_the_access_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        let times = std::fs::FileTimes::new().set_accessed(old);
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        let folder = File::open(temp.path()).unwrap();

        let file = open(&folder, "file", OFlags::RDONLY).unwrap();
        let read = Guest::new(0..7).read(&file, &mut [0; 7], 0).unwrap();

        assert_eq!((read, std::fs::metadata(&path).unwrap().accessed().unwrap()), (7, old));
    }
}
