//! Runs of consecutive extents that are fetched with one request.
//!
//! Many small files share a batch, a big file spans several. What a batch needs of memory when its
//! chunks arrive is bounded by [`PLAIN_LEN`] and one more chunk.

use std::collections::HashMap;

use format_spec::ChunkId;

use crate::api::Asked;

/// A batch is full when its chunks have this many bytes: large enough that a request costs
/// nothing beside them, small enough for several in memory.
const PLAIN_LEN: u64 = 6 << 20;
/// Most chunks of a batch.
const IDS: usize = 2000;
/// Most extents of a batch; many may be of one chunk.
const EXTENTS: usize = 8192;

/// Destination of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Which chunk of the batch.
    pub(super) slot: usize,
    /// Offset in the file, in bytes.
    pub(super) offset: u64,
    /// Length that the file's extent says, in bytes.
    pub(super) len: u32,
}

/// Extents of one file.
#[derive(Debug)]
pub(super) struct Piece<T> {
    /// The file.
    pub(super) file: T,
    /// Its extents in this batch; none if only its end is left.
    pub(super) extents: Vec<Placed>,
}

/// Chunks that one request fetches, and their destinations.
#[derive(Debug)]
pub(super) struct Batch<T> {
    /// The chunks, each once.
    pub(super) chunks: Vec<Asked>,
    /// How often each is used.
    pub(super) uses: Vec<u32>,
    /// The files, in order.
    pub(super) pieces: Vec<Piece<T>>,
}

impl<T> Batch<T> {
    fn new() -> Self {
        Self { chunks: Vec::new(), uses: Vec::new(), pieces: Vec::new() }
    }
}

/// Gathers extents into batches. Each file is returned in pieces that hold a clone of its `T`; the value that
/// was given to [`begin`](Self::begin) is returned with the last.
pub(super) struct Batcher<T> {
    batch: Batch<T>,
    slots: HashMap<ChunkId, usize>,
    plain_len: u64,
    extents: usize,
    file: Option<T>,
    /// True if the last piece of the batch is of `file`.
    joined: bool,
}

impl<T: Clone> Batcher<T> {
    /// A batcher without anything.
    pub(super) fn new() -> Self {
        Self {
            batch: Batch::new(),
            slots: HashMap::new(),
            plain_len: 0,
            extents: 0,
            file: None,
            joined: false,
        }
    }

    /// Extents of `file` follow.
    pub(super) fn begin(&mut self, file: T) {
        self.file = Some(file);
        self.joined = false;
    }

    /// The file whose extents come.
    pub(super) fn file(&self) -> Option<&T> {
        self.file.as_ref()
    }

    /// Adds an extent; returns a batch when one is full.
    pub(super) fn chunk(&mut self, offset: u64, id: ChunkId, len: u32) -> Option<Batch<T>> {
        let slot = self.slot(id, len);
        let placed = Placed { slot, offset, len };
        self.extents += 1;
        match (self.batch.pieces.last_mut(), &self.file) {
            (Some(piece), _) if self.joined => piece.extents.push(placed),
            (_, Some(file)) => {
                self.batch.pieces.push(Piece { file: file.clone(), extents: vec![placed] });
                self.joined = true;
            }
            (_, None) => {}
        }
        self.take_if_full()
    }

    /// Ends the file: its last piece is in this batch or the next.
    pub(super) fn end(&mut self) -> Option<Batch<T>> {
        let file = self.file.take()?;
        if !std::mem::take(&mut self.joined) {
            self.batch.pieces.push(Piece { file, extents: Vec::new() });
            self.extents += 1;
        }
        self.take_if_full()
    }

    /// The rest of the batch.
    pub(super) fn finish(&mut self) -> Option<Batch<T>> {
        (!self.batch.pieces.is_empty()).then(|| self.take())
    }

    fn slot(&mut self, id: ChunkId, len: u32) -> usize {
        let next = self.batch.chunks.len();
        let slot = *self.slots.entry(id).or_insert(next);
        if slot == next {
            self.batch.chunks.push(Asked { id, max_len: len });
            self.batch.uses.push(0);
            self.plain_len += u64::from(len);
        }
        if let Some(uses) = self.batch.uses.get_mut(slot) {
            *uses += 1;
        }
        // Whichever length is wrong is found when the chunk is there.
        if let Some(chunk) = self.batch.chunks.get_mut(slot) {
            chunk.max_len = chunk.max_len.max(len);
        }
        slot
    }

    fn take_if_full(&mut self) -> Option<Batch<T>> {
        let full = self.plain_len >= PLAIN_LEN || self.batch.chunks.len() >= IDS || self.extents >= EXTENTS;
        full.then(|| self.take())
    }

    fn take(&mut self) -> Batch<T> {
        self.slots.clear();
        self.plain_len = 0;
        self.extents = 0;
        self.joined = false;
        std::mem::replace(&mut self.batch, Batch::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ChunkId {
        ChunkId::from_bytes([n; 32])
    }

    #[test]
    fn small_files_share_a_batch_and_a_chunk_is_asked_for_once() {
        let mut batcher = Batcher::new();
        for (name, chunk) in [("a", 1), ("b", 2), ("c", 1)] {
            batcher.begin(name);
            assert!(batcher.chunk(0, id(chunk), 10).is_none());
            assert!(batcher.end().is_none());
        }

        let batch = batcher.finish().unwrap();

        assert_eq!(batch.chunks, [id(1), id(2)].map(|id| Asked { id, max_len: 10 }));
        assert_eq!(batch.uses, [2, 1]);
        assert_eq!(batch.pieces.iter().map(|piece| piece.file).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(batcher.finish().is_none());
    }

    #[test]
    fn a_big_file_spans_batches_and_its_end_always_comes() {
        let mut batcher = Batcher::new();
        batcher.begin("big");
        let len = u32::try_from(PLAIN_LEN / 2).unwrap();

        assert!(batcher.chunk(0, id(1), len).is_none());
        let first = batcher.chunk(u64::from(len), id(2), len).unwrap();
        assert!(batcher.end().is_none());
        let last = batcher.finish().unwrap();

        assert_eq!(first.pieces[0].extents.len(), 2);
        assert_eq!((last.pieces[0].file, last.pieces[0].extents.len()), ("big", 0));
    }

    #[test]
    fn a_file_of_one_repeated_chunk_does_not_grow_a_batch_without_end() {
        let mut batcher = Batcher::new();
        batcher.begin("zeros");
        let full = (0..).find_map(|n| batcher.chunk(n, id(0), 1)).unwrap();

        assert_eq!(full.chunks.len(), 1);
        assert_eq!(full.pieces[0].extents.len(), EXTENTS);
    }
}
