//! Streaming: chunks of a reader, lent from one buffer that all files of a thread share.

use std::io::{self, ErrorKind, Read, Take};

use crate::cut::{Chunker, EndOfInput};

/// How many of the longest chunks fit into the buffer. With 4, at most one byte in three is ever moved within
/// the buffer, and that once.
const CHUNKS_PER_BUFFER: usize = 4;

/// Cuts one reader after the other and keeps its buffer: memory is bounded by four times the longest
/// chunk, and nothing is allocated per file or per chunk.
pub struct Splitter {
    chunker: Chunker,
    buffer: Box<[u8]>,
}

impl Splitter {
    /// A splitter with a buffer of its own.
    pub fn new(chunker: Chunker) -> Self {
        let len = CHUNKS_PER_BUFFER * chunker.params().max_chunk();
        Self { chunker, buffer: vec![0; len].into_boxed_slice() }
    }

    /// Starts on `reader`, which stands at a boundary: its start, or where an earlier chunk ended.
    ///
    /// The stream ends after `limit` bytes: later bytes are never read, even if the file has grown since. It
    /// ends earlier where the reader ends; the sum of the chunk lengths is less then.
    pub fn split<R: Read>(&mut self, reader: R, limit: u64) -> Chunks<'_, R> {
        Chunks {
            splitter: self,
            reader: reader.take(limit),
            start: 0,
            filled: 0,
            end: EndOfInput::NotReached,
        }
    }
}

/// The chunks of one reader, in order.
pub struct Chunks<'a, R> {
    splitter: &'a mut Splitter,
    reader: Take<R>,
    /// `start..filled` of the buffer is read and not yet handed out.
    start: usize,
    filled: usize,
    end: EndOfInput,
}

impl<R: Read> Chunks<'_, R> {
    /// The next chunk, lent until the next call, or `None` at the end of the stream.
    ///
    /// The result is the same however the reader splits its reads.
    ///
    /// # Errors
    /// The errors of the reader, except interruptions, which are retried. No data is lost by an error: the
    /// next call continues reading where this one stopped.
    pub fn next_chunk(&mut self) -> io::Result<Option<&[u8]>> {
        self.fill()?;
        let unread = self.splitter.buffer.get(self.start..self.filled).expect("both are within the buffer");
        let Some(len) = self.splitter.chunker.cut(unread, self.end) else { return Ok(None) };
        self.start += len;
        Ok(unread.get(..len))
    }

    /// Reads until a final cut is possible: the longest chunk fits, or the stream has ended.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = self.splitter.chunker.params().max_chunk();
        if self.start + wanted > self.splitter.buffer.len() && self.end == EndOfInput::NotReached {
            self.splitter.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        while self.filled - self.start < wanted && self.end == EndOfInput::NotReached {
            self.read_once()?;
        }
        Ok(())
    }

    /// One read into all the room there is. There is room: a full buffer holds the longest chunk.
    fn read_once(&mut self) -> io::Result<()> {
        let room = self.splitter.buffer.get_mut(self.filled..).expect("filled is within the buffer");
        match self.reader.read(room) {
            Ok(0) => self.end = EndOfInput::Reached,
            Ok(read) if read > room.len() => {
                return Err(io::Error::other("the reader returned more bytes than requested"));
            }
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
