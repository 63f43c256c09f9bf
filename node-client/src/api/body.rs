//! A request body of several pieces of memory, sent without joining them and sent again for free.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Pieces of memory that make up a body. Clones share the memory.
#[derive(Debug, Clone, Default)]
pub struct Segments {
    pieces: VecDeque<Bytes>,
    len: u64,
}

impl Segments {
    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        self.len += u64::try_from(piece.len()).expect("a length fits in 64 bits");
        self.pieces.push_back(piece);
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl From<Bytes> for Segments {
    fn from(piece: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(piece);
        segments
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.len -= u64::try_from(piece.len()).expect("a length fits in 64 bits");
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }
}
