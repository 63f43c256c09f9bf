//! The content of one file: holes, runs of data, chunks. It is read, or compared with known content.

pub(crate) mod batch;

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use chunker::{Chunker, EndOfInput};
use format_spec::key::{BlobKind, DomainKey};
use format_spec::{ChunkId, Extent};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::find::list::FoundFile;
use super::guest::Guest;
use super::read::batch::{Feeder, READ_LEN, Whence};
use super::report::Tally;
use super::stat::Stat;
use super::stop::Stopped;
use crate::progress::Progress;

/// Why a file was not read to its end.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The push ends.
    Stopped,
    /// The file ended before the length it should have.
    Shrunk,
    /// The file system refused.
    Refused(Errno),
}

impl From<Stopped> for Unread {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Comparison of a file with its known content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    Same,
    Differs,
}

/// Storage of a file on its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Dense,
    Sparse,
}

/// Layout of a file on its disk.
pub(crate) fn layout(stat: &Stat) -> Layout {
    if stat.allocated < stat.identity.size { Layout::Sparse } else { Layout::Dense }
}

/// Reads files into batches, and cuts and hashes them there.
pub(crate) struct Reader<'a> {
    pub(crate) feeder: Feeder<'a>,
    pub(crate) chunker: Chunker,
    pub(crate) domain: DomainKey,
    pub(crate) tally: &'a Tally,
    pub(crate) progress: &'a dyn Progress,
    /// A chunk that is compared.
    pub(crate) scratch: Vec<u8>,
    /// The part of the file that is being read.
    pub(crate) guest: Guest,
}

/// A file that is being read.
pub(crate) struct Reading<'a> {
    pub(crate) found: &'a Arc<FoundFile>,
    pub(crate) file: &'a OwnedFd,
    pub(crate) layout: Layout,
}

impl Reader<'_> {
    /// Reads `range` of a file, which starts at a boundary and ends with the file, and hands each extent and
    /// its place to `sink` in order.
    pub(crate) fn read(
        &mut self,
        reading: &Reading<'_>,
        range: Range<u64>,
        mut sink: impl FnMut(u64, Extent) -> Result<(), Stopped>,
    ) -> Result<(), Unread> {
        self.guest = Guest::new(range.clone());
        let mut at = range.start;
        while at < range.end {
            let (data, end) = match reading.layout {
                Layout::Sparse => next_data(reading.file, at, range.end),
                Layout::Dense => (at, range.end),
            };
            if data > at {
                sink(at, Extent::Hole { len: data - at })?;
            }
            self.run(reading, data..end, &mut sink)?;
            at = end;
        }
        Ok(())
    }

    fn run(
        &mut self,
        reading: &Reading<'_>,
        range: Range<u64>,
        sink: &mut impl FnMut(u64, Extent) -> Result<(), Stopped>,
    ) -> Result<(), Unread> {
        let (mut cut, mut at) = (range.start, range.start);
        loop {
            let end = if at == range.end { EndOfInput::Reached } else { EndOfInput::NotReached };
            let pending = self.feeder.pending();
            match self.chunker.cut(pending, end).and_then(|len| pending.get(..len)) {
                Some(plain) => {
                    let len = plain.len();
                    let whence = Whence { found: Arc::clone(reading.found), at: cut };
                    let extent = self.cut_off(len, Some(whence))?;
                    sink(cut, extent)?;
                    cut += extent.covered();
                }
                None if end == EndOfInput::Reached => return Ok(()),
                None => {
                    at +=
                        self.fill(reading.file, at, range.end).inspect_err(|_| self.feeder.drop_pending())?
                }
            }
        }
    }

    /// Takes the next bytes of a stream, and hands each chunk that they complete to `sink`: at the end of the stream,
    /// all that is left.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        end: EndOfInput,
        mut sink: impl FnMut(Extent) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let read = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        self.tally.read(read);
        self.progress.read(read);
        loop {
            let so_far = if bytes.is_empty() { end } else { EndOfInput::NotReached };
            let pending = self.feeder.pending();
            match self.chunker.cut(pending, so_far).and_then(|len| pending.get(..len)).map(<[u8]>::len) {
                // Its bytes cannot be read again: no other node's promise to send them will do.
                Some(len) => sink(self.cut_off(len, None)?)?,
                None if bytes.is_empty() => return Ok(()),
                None => {
                    let room = self.feeder.room();
                    let (now, later) = bytes.split_at(room.len().min(bytes.len()));
                    room.get_mut(..now.len()).expect("it was just measured").copy_from_slice(now);
                    self.feeder.filled(now.len());
                    bytes = later;
                }
            }
        }
    }

    /// Sends the first `len` bytes of what is pending on their way as a chunk.
    fn cut_off(&mut self, len: usize, whence: Option<Whence>) -> Result<Extent, Stopped> {
        let plain = self.feeder.pending().get(..len).expect("a chunk is cut from what is pending");
        let id = self.domain.id_of(BlobKind::Chunk, plain);
        self.feeder.cut(id, len, whence)?;
        self.tally.chunk(len);
        Ok(Extent::Chunk { id, len: u32::try_from(len).expect("a chunk is at most 16 MiB") })
    }

    /// Reads once, and returns how far that went.
    fn fill(&mut self, file: &OwnedFd, at: u64, end: u64) -> Result<u64, Unread> {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(READ_LEN);
        let room = self.feeder.room();
        let room_len = room.len().min(left);
        let room = room.get_mut(..room_len).expect("it was just measured");
        let read = pread(&mut self.guest, file, room, at)?;
        self.feeder.filled(read);
        let read = u64::try_from(read).expect("a length fits in 64 bits");
        self.tally.read(read);
        self.progress.read(read);
        Ok(read)
    }

    /// Compares `extent` with the content of the file at `at`.
    pub(crate) fn compare(&mut self, file: &OwnedFd, at: u64, extent: &Extent) -> Result<Compared, Unread> {
        match *extent {
            Extent::Hole { len } => {
                let (data, _) = next_data(file, at, at + len);
                Ok(if data == at + len { Compared::Same } else { Compared::Differs })
            }
            Extent::Chunk { id, len } => self.load(file, at, id, len),
        }
    }

    /// Reads a chunk that is known and sends it on its way, if the file still holds it.
    pub(crate) fn resend(
        &mut self,
        reading: &Reading<'_>,
        at: u64,
        id: ChunkId,
        len: u32,
    ) -> Result<Compared, Unread> {
        let compared = self.load(reading.file, at, id, len)?;
        if compared == Compared::Same {
            let whence = Whence { found: Arc::clone(reading.found), at };
            self.feeder.add(id, &self.scratch, Some(whence))?;
        }
        Ok(compared)
    }

    /// Fills the scratch with a chunk's bytes, and hashes them.
    fn load(&mut self, file: &OwnedFd, at: u64, id: ChunkId, len: u32) -> Result<Compared, Unread> {
        self.scratch.resize(usize::try_from(len).expect("a chunk is at most 16 MiB"), 0);
        let mut filled = 0;
        let mut guest = Guest::new(at..at + u64::from(len));
        while let Some(room @ [_, ..]) = self.scratch.get_mut(filled..) {
            match pread(&mut guest, file, room, at + u64::try_from(filled).expect("a length fits in 64 bits"))
            {
                Err(Unread::Shrunk) => return Ok(Compared::Differs),
                read => filled += read?,
            }
        }
        self.tally.compared(len.into());
        self.progress.read(len.into());
        let same = self.domain.id_of(BlobKind::Chunk, &self.scratch) == id;
        Ok(if same { Compared::Same } else { Compared::Differs })
    }
}

/// Reads once, at least a byte unless the call was interrupted.
fn pread(guest: &mut Guest, file: &OwnedFd, room: &mut [u8], at: u64) -> Result<usize, Unread> {
    match guest.read(file, room, at) {
        Ok(0) => Err(Unread::Shrunk),
        Ok(read) => Ok(read),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(Unread::Refused(error)),
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
