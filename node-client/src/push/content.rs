//! The content of one file: holes, runs of data, chunks.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use chunker::{Chunker, EndOfInput};
use format_spec::Extent;
use format_spec::key::{BlobKind, DomainKey};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::batch::{Feeder, READ_LEN};
use super::stat::Stat;
use super::stop::Stopped;

/// Why a file was not read to its end.
#[derive(Debug)]
pub(super) enum Unread {
    /// The push ends.
    Stopped,
    /// The file ended before the length it had when it was opened.
    Shrunk,
    /// The file system refused.
    Refused(Errno),
}

impl From<Stopped> for Unread {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Reads files into batches, and cuts and hashes them there.
pub(super) struct Reader<'a> {
    pub(super) feeder: Feeder<'a>,
    pub(super) chunker: Chunker,
    pub(super) domain: DomainKey,
}

impl Reader<'_> {
    /// Reads `[0, size)` of `file`, with the size in `stat`, and hands each extent to `sink` in order.
    pub(super) fn read(
        &mut self,
        file: &OwnedFd,
        stat: &Stat,
        mut sink: impl FnMut(Extent) -> Result<(), Stopped>,
    ) -> Result<(), Unread> {
        let size = stat.identity.size;
        let mut at = 0;
        while at < size {
            let (data, end) = if stat.allocated < size { next_data(file, at, size) } else { (at, size) };
            if data > at {
                sink(Extent::Hole { len: data - at })?;
            }
            self.run(file, data..end, &mut sink)?;
            at = end;
        }
        Ok(())
    }

    fn run(
        &mut self,
        file: &OwnedFd,
        range: Range<u64>,
        sink: &mut impl FnMut(Extent) -> Result<(), Stopped>,
    ) -> Result<(), Unread> {
        let mut at = range.start;
        loop {
            let end = if at == range.end { EndOfInput::Reached } else { EndOfInput::NotReached };
            let pending = self.feeder.pending();
            match self.chunker.cut(pending, end).and_then(|len| pending.get(..len)) {
                Some(plain) => {
                    let (id, len) = (self.domain.id_of(BlobKind::Chunk, plain), plain.len());
                    self.feeder.cut(id, len)?;
                    sink(Extent::Chunk { id, len: u32::try_from(len).expect("a chunk is at most 16 MiB") })?;
                }
                None if end == EndOfInput::Reached => return Ok(()),
                None => at += self.fill(file, at, range.end).inspect_err(|_| self.feeder.drop_pending())?,
            }
        }
    }

    /// Reads once, and returns how far that went.
    fn fill(&mut self, file: &OwnedFd, at: u64, end: u64) -> Result<u64, Unread> {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(READ_LEN);
        let room = self.feeder.room();
        let room_len = room.len().min(left);
        let room = room.get_mut(..room_len).expect("it was just measured");
        match rustix::io::pread(file, room, at) {
            Ok(0) => Err(Unread::Shrunk),
            Ok(read) => {
                self.feeder.filled(read);
                Ok(u64::try_from(read).expect("a length fits in 64 bits"))
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(Unread::Refused(error)),
        }
    }
}

/// Where the next data starts at or behind `at`, and where it ends; both are `size` when only a hole
/// is left. A file system that does not tell has data everywhere.
fn next_data(file: impl AsFd, at: u64, size: u64) -> (u64, u64) {
    let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, size),
        Err(Errno::NXIO) => size,
        Err(_) => at,
    };
    match rustix::fs::seek(&file, SeekFrom::Hole(data)) {
        Ok(end) if end > data => (data, end.min(size)),
        _ => (data, size),
    }
}
