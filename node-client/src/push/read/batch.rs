//! Batches of plaintext: files are read straight into them, cut in place, and asked for together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use format_spec::ChunkId;
use format_spec::wire::{Held, MAX_IDS};

use crate::push::find::list::FoundFile;
use crate::push::stop::{Stop, Stopped};

/// Bytes that one read takes at most: small enough to be in the cache when they are cut and hashed.
pub(crate) const READ_LEN: usize = 256 << 10;

/// Between two looks at whether the push has ended, while no batch is free.
const LOOK: Duration = Duration::from_millis(100);

/// A run of plaintext with the chunks in it.
pub(crate) struct Batch {
    bytes: Box<[u8]>,
    chunks: Vec<Plain>,
}

/// A chunk in a batch.
struct Plain {
    id: ChunkId,
    start: usize,
    len: usize,
    held: Held,
    whence: Option<Whence>,
}

/// Where a chunk can be read again.
#[derive(Debug, Clone)]
pub(crate) struct Whence {
    /// The file.
    pub(crate) found: Arc<FoundFile>,
    /// Where in it.
    pub(crate) at: u64,
}

/// A chunk that another node is sending.
#[derive(Debug, Clone)]
pub(crate) struct Late {
    pub(crate) id: ChunkId,
    pub(crate) len: usize,
    pub(crate) whence: Whence,
}

impl Batch {
    /// Room for `len` bytes.
    pub(crate) fn with_len(len: usize) -> Self {
        Self { bytes: vec![0; len].into_boxed_slice(), chunks: Vec::new() }
    }

    /// The ids of its chunks, in order.
    pub(crate) fn ids(&self) -> Vec<ChunkId> {
        self.chunks.iter().map(|chunk| chunk.id).collect()
    }

    /// Drops the chunks that the server has. Returns those that are on their way from elsewhere, as far
    /// as `late` takes more; the rest is to be sent.
    pub(crate) fn forget(&mut self, held: &[Held], late: &mut Vec<Late>, most_late: usize) {
        for (chunk, held) in self.chunks.iter_mut().zip(held) {
            chunk.held = *held;
        }
        self.chunks.retain_mut(|chunk| match (chunk.held, chunk.whence.take()) {
            (Held::Here, _) => false,
            (Held::Coming, Some(whence)) if late.len() < most_late => {
                late.push(Late { id: chunk.id, len: chunk.len, whence });
                false
            }
            _ => true,
        });
    }

    /// True if nothing needs to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Its chunks with their plaintext.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (ChunkId, &[u8])> {
        self.chunks.iter().map(|chunk| {
            let plain = self.bytes.get(chunk.start..chunk.start + chunk.len);
            (chunk.id, plain.expect("a chunk lies within its batch"))
        })
    }

    /// The same memory without chunks.
    pub(crate) fn cleared(mut self) -> Self {
        self.chunks.clear();
        self
    }
}

/// Fills batches. Bytes are added at the end, and chunks cut off at the start of what is pending.
pub(crate) struct Feeder<'a> {
    stop: &'a Stop,
    free: Receiver<Batch>,
    full: Sender<Batch>,
    batch: Batch,
    /// `start..filled` of the batch is read and not yet cut.
    start: usize,
    filled: usize,
    /// Length of chunks from which a batch is passed on.
    batch_len: usize,
    recent: Recent,
}

impl<'a> Feeder<'a> {
    /// A feeder that takes empty batches from `free` and puts full ones into `full`.
    pub(crate) fn new(
        stop: &'a Stop,
        free: Receiver<Batch>,
        full: Sender<Batch>,
        batch_len: usize,
    ) -> Result<Self, Stopped> {
        let batch = free.recv().map_err(|_| Stopped)?;
        Ok(Self { stop, free, full, batch, start: 0, filled: 0, batch_len, recent: Recent::default() })
    }

    /// Bytes that are read and not yet cut.
    pub(crate) fn pending(&self) -> &[u8] {
        self.batch.bytes.get(self.start..self.filled).expect("both ends lie within the batch")
    }

    /// Buffer for the next bytes: at least [`READ_LEN`] long, while less than the longest chunk is pending.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.batch.bytes.get_mut(self.filled..).expect("filled lies within the batch")
    }

    /// Says that `len` bytes of the room were filled.
    pub(crate) fn filled(&mut self, len: usize) {
        self.filled += len;
    }

    /// Cuts a chunk of `len` bytes off what is pending. It is asked for unless that was done lately.
    pub(crate) fn cut(&mut self, id: ChunkId, len: usize, whence: Option<Whence>) -> Result<(), Stopped> {
        if self.recent.is_new(id) {
            self.batch.chunks.push(Plain { id, start: self.start, len, held: Held::Missing, whence });
        }
        self.start += len;
        if self.start >= self.batch_len || self.batch.chunks.len() >= MAX_IDS {
            self.turn_over()?;
        }
        Ok(())
    }

    /// Drops what is pending.
    pub(crate) fn drop_pending(&mut self) {
        self.filled = self.start;
    }

    /// Adds one chunk whose bytes are elsewhere.
    pub(crate) fn add(
        &mut self,
        id: ChunkId,
        mut plain: &[u8],
        whence: Option<Whence>,
    ) -> Result<(), Stopped> {
        let len = plain.len();
        while !plain.is_empty() {
            let room = self.room();
            let part = plain.len().min(room.len());
            let (now, later) = plain.split_at(part);
            room.get_mut(..part).expect("it was just measured").copy_from_slice(now);
            self.filled(part);
            plain = later;
        }
        self.cut(id, len, whence)
    }

    /// Sends the last batch on its way.
    pub(crate) fn finish(self) -> Result<(), Stopped> {
        if self.batch.chunks.is_empty() {
            return Ok(());
        }
        self.full.send(self.batch).map_err(|_| Stopped)
    }

    /// Goes on at the start of an empty batch; what is pending moves along.
    fn turn_over(&mut self) -> Result<(), Stopped> {
        self.stop.check()?;
        let pending = self.start..self.filled;
        if self.batch.chunks.is_empty() {
            self.batch.bytes.copy_within(pending.clone(), 0);
        } else {
            let mut next = self.next_free()?;
            let target = next.bytes.get_mut(..pending.len()).expect("batches have one length");
            target.copy_from_slice(self.pending());
            let full = std::mem::replace(&mut self.batch, next);
            self.full.send(full).map_err(|_| Stopped)?;
        }
        self.start = 0;
        self.filled = pending.len();
        Ok(())
    }
}

impl Feeder<'_> {
    /// Waits for an empty batch. Stages that stop take theirs with them, and one that waits for more would keep
    /// the queue open: so the end of the push is looked for as well.
    fn next_free(&self) -> Result<Batch, Stopped> {
        loop {
            match self.free.recv_timeout(LOOK) {
                Ok(batch) => return Ok(batch),
                Err(RecvTimeoutError::Timeout) => self.stop.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }
}

/// Ids that were asked for lately, in bounded memory: two generations, the older is dropped.
#[derive(Default)]
struct Recent {
    now: HashSet<ChunkId>,
    before: HashSet<ChunkId>,
}

impl Recent {
    /// Ids per generation: a few megabytes.
    const LEN: usize = 100_000;

    fn is_new(&mut self, id: ChunkId) -> bool {
        if self.before.contains(&id) || !self.now.insert(id) {
            return false;
        }
        if self.now.len() >= Self::LEN {
            self.before = std::mem::take(&mut self.now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;

    fn id(n: u64) -> ChunkId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        ChunkId::from_bytes(bytes)
    }

    #[test]
    fn chunks_keep_their_bytes_across_batches_and_doubles_are_asked_once() {
        let stop = Stop::new(Cancel::new());
        let (give, free) = crossbeam_channel::unbounded();
        let (full, batches) = crossbeam_channel::unbounded();
        (0..9).for_each(|_| give.send(Batch::with_len(40)).unwrap());
        let mut feeder = Feeder::new(&stop, free, full, 10).unwrap();

        // Twelve bytes are read at once and cut in threes; the second and third chunk are alike.
        for round in 0..2_u8 {
            for (target, n) in feeder.room().iter_mut().zip([1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3]) {
                *target = n + round * 10;
            }
            feeder.filled(12);
            for n in [1, 2, 2, 3] {
                feeder.cut(id(u64::from(n + round * 10)), 3, None).unwrap();
            }
        }
        feeder.finish().unwrap();

        let plain = |batch: Batch| batch.chunks().map(|(id, p)| (id, p.to_vec())).collect::<Vec<_>>();
        let found: Vec<_> = batches.iter().flat_map(plain).collect();
        let expected: Vec<_> = [1, 2, 3, 11, 12, 13].map(|n: u8| (id(n.into()), vec![n; 3])).into();
        assert_eq!(found, expected);
    }

    #[test]
    fn recent_ids_stay_bounded_and_the_newest_are_known() {
        let mut recent = Recent::default();
        let many = 3 * u64::try_from(Recent::LEN).unwrap();

        for n in 0..many {
            assert!(recent.is_new(id(n)));
        }

        assert!(!recent.is_new(id(many - 1)) && recent.is_new(id(0)));
        assert!(recent.now.len() + recent.before.len() <= 2 * Recent::LEN);
    }
}
