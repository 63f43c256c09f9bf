//! Bytes from the server, and the check that they are what was asked for.

use std::collections::HashMap;
use std::time::Duration;

use format_spec::blob::Decompressor;
use format_spec::key::{BlobKind, DomainKey};
use format_spec::wire::Frame;
use format_spec::{ErrorClass, FormatError, SnapshotId};
use tokio::runtime::Handle;

use super::batch::Placed;
use crate::api::{Api, Asked, wait_for};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::error::ClientError;
use crate::pace::Pace;

/// Reads blobs of one snapshot from a thread that may block.
#[derive(Clone, Copy)]
pub(super) struct Fetcher<'a> {
    pub(super) api: &'a Api,
    pub(super) runtime: &'a Handle,
    pub(super) snapshot: SnapshotId,
    pub(super) cancel: &'a Cancel,
    /// How fast all together may receive.
    pub(super) pace: &'a Pace,
    pub(super) clock: &'a dyn Clock,
}

impl Fetcher<'_> {
    /// The blobs that are asked for, in order, not yet checked: in as many answers as an even flow takes.
    ///
    /// # Errors
    /// The errors of [`Api::read_blobs`].
    fn frames(&self, asked: &[Asked]) -> Result<Vec<Frame>, ClientError> {
        let mut frames = Vec::with_capacity(asked.len());
        let mut rest = asked;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.at_once(rest));
            rest = later;
            let answer = self.answer(now)?;
            self.rest_for(answer.iter().map(|frame| wide(frame.payload.len())).sum())?;
            frames.extend(answer);
        }
        Ok(frames)
    }

    /// How many of the next blobs one answer may bring, at least one.
    fn at_once(&self, asked: &[Asked]) -> usize {
        let most = wide(self.pace.body_len(usize::MAX));
        let mut len = 0;
        let fits = |asked: &&Asked| {
            len += u64::from(asked.max_len);
            len <= most
        };
        asked.iter().take_while(fits).count().max(1)
    }

    /// Waits until so many bytes more may come, which did.
    fn rest_for(&self, bytes: u64) -> Result<(), ClientError> {
        match self.pace.reserve(self.clock.elapsed(), bytes) {
            Duration::ZERO => Ok(()),
            rest => self.wait_for(async {
                tokio::time::sleep(rest).await;
                Ok(())
            }),
        }
    }

    fn answer(&self, asked: &[Asked]) -> Result<Vec<Frame>, ClientError> {
        // On a thread of the runtime: there, a piece of the answer wakes no other thread.
        let (api, snapshot, asked) = (self.api.clone(), self.snapshot, asked.to_vec());
        let reading = self.runtime.spawn(async move { api.read_blobs(snapshot, &asked).await });
        self.wait_for(async { reading.await.unwrap_or(Err(ClientError::Worker("read"))) })
    }

    /// Waits for a request on this thread, unless everything is to stop.
    ///
    /// # Errors
    /// [`ClientError::Interrupted`], or what the request comes to.
    pub(super) fn wait_for<T>(
        &self,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        wait_for(self.runtime, self.cancel, request)
    }

    /// Fetches the requested frames one by one: if the server cannot send all of a request, halves are
    /// requested until each missing chunk is known.
    ///
    /// # Errors
    /// Those that no smaller question can help with, such as an unreachable server.
    pub(super) fn each_frame(&self, asked: &[Asked]) -> Result<Vec<Result<Frame, ClientError>>, ClientError> {
        match self.frames(asked) {
            Ok(frames) => Ok(frames.into_iter().map(Ok).collect()),
            Err(error) if !is_about_blobs(&error) => Err(error),
            Err(error) if asked.len() <= 1 => Ok(vec![Err(error)]),
            Err(_) => {
                let (left, right) = asked.split_at(asked.len() / 2);
                let mut frames = self.each_frame(left)?;
                frames.extend(self.each_frame(right)?);
                Ok(frames)
            }
        }
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// True if an error may concern one blob of many.
pub(super) fn is_about_blobs(error: &ClientError) -> bool {
    let of_snapshot = error.code() == Some("no_such_snapshot");
    matches!(error.class(), ErrorClass::Integrity | ErrorClass::NotFound) && !of_snapshot
}

/// Decompresses blobs and checks their ids. One per thread: it reuses its memory.
pub(super) struct Opener<'a> {
    domain: &'a DomainKey,
    decompressor: Decompressor,
}

impl<'a> Opener<'a> {
    /// An opener for blobs of `domain`.
    ///
    /// # Errors
    /// [`ClientError::Compression`]: out of memory.
    pub(super) fn new(domain: &'a DomainKey) -> Result<Self, ClientError> {
        Ok(Self { domain, decompressor: Decompressor::new().map_err(ClientError::Compression)? })
    }

    /// The plaintext of a blob, which has the id that it is asked for by and this length.
    ///
    /// # Errors
    /// [`FormatError`] if anything differs.
    pub(super) fn open<'b>(
        &'b mut self,
        kind: BlobKind,
        frame: &'b Frame,
        len: u32,
    ) -> Result<&'b [u8], FormatError> {
        let info = &frame.info;
        if info.kind != kind || info.plain_len != len {
            return Err(FormatError::WrongChunk { expected: info.id });
        }
        let plain = self.decompressor.decompress(info.compression, &frame.payload, info.plain_len)?;
        if self.domain.id_of(kind, plain) != info.id {
            return Err(FormatError::WrongChunk { expected: info.id });
        }
        Ok(plain)
    }
}

/// The plaintexts of one batch. A chunk that is used again in the batch is kept, the others are
/// opened when their turn comes.
pub(super) struct Plaintexts<'o, 'a> {
    opener: &'o mut Opener<'a>,
    frames: Vec<Option<Frame>>,
    uses: Vec<u32>,
    kept: HashMap<usize, Vec<u8>>,
}

impl<'o, 'a> Plaintexts<'o, 'a> {
    /// The plaintexts of `frames`, of which each is used `uses` times.
    pub(super) fn new(opener: &'o mut Opener<'a>, frames: Vec<Option<Frame>>, uses: Vec<u32>) -> Self {
        Self { opener, frames, uses, kept: HashMap::new() }
    }

    /// The checked bytes of an extent; `None` if the server did not give them.
    pub(super) fn of(&mut self, placed: &Placed) -> Option<Result<&[u8], FormatError>> {
        let frame = self.frames.get(placed.slot)?.as_ref()?;
        if self.uses.get(placed.slot).is_none_or(|uses| *uses <= 1) {
            return Some(self.opener.open(BlobKind::Chunk, frame, placed.len));
        }
        if !self.kept.contains_key(&placed.slot) {
            match self.opener.open(BlobKind::Chunk, frame, placed.len) {
                Ok(plain) => drop(self.kept.insert(placed.slot, plain.to_vec())),
                Err(error) => return Some(Err(error)),
            }
        }
        let plain = self.kept.get(&placed.slot)?;
        if u32::try_from(plain.len()) == Ok(placed.len) {
            return Some(Ok(plain));
        }
        Some(Err(FormatError::WrongChunk { expected: frame.info.id }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use format_spec::blob::{BlobInfo, Compression};
    use format_spec::key::MasterKey;

    fn domain() -> DomainKey {
        MasterKey::from_bytes([7; 32]).domain(&"c".parse().unwrap())
    }

    fn frame(kind: BlobKind, plain: &'static [u8]) -> Frame {
        let id = domain().id_of(kind, plain);
        let plain_len = u32::try_from(plain.len()).unwrap();
        let info = BlobInfo { kind, id, plain_len, compression: Compression::Raw };
        Frame { info, payload: Bytes::from_static(plain) }
    }

    #[test]
    fn a_blob_of_another_kind_length_or_content_is_refused() {
        let domain = domain();
        let mut opener = Opener::new(&domain).unwrap();
        let good = frame(BlobKind::Chunk, b"hello");
        let altered = Frame { payload: Bytes::from_static(b"hellO"), ..good.clone() };

        assert_eq!(opener.open(BlobKind::Chunk, &good, 5).unwrap(), b"hello");
        assert!(opener.open(BlobKind::Chunk, &good, 4).is_err());
        assert!(opener.open(BlobKind::Chunk, &altered, 5).is_err());
        assert!(opener.open(BlobKind::Chunk, &frame(BlobKind::Page, b"hello"), 5).is_err());
        assert!(opener.open(BlobKind::Page, &good, 5).is_err());
    }

    #[test]
    fn a_chunk_that_is_used_twice_is_the_same_both_times() {
        let domain = domain();
        let mut opener = Opener::new(&domain).unwrap();
        let frames = vec![Some(frame(BlobKind::Chunk, b"hello")), None];
        let mut plaintexts = Plaintexts::new(&mut opener, frames, vec![3, 1]);
        let placed = |slot, len| Placed { slot, offset: 0, len };

        assert_eq!(plaintexts.of(&placed(0, 5)).unwrap().unwrap(), b"hello");
        assert_eq!(plaintexts.of(&placed(0, 5)).unwrap().unwrap(), b"hello");
        assert!(plaintexts.of(&placed(0, 6)).unwrap().is_err());
        assert!(plaintexts.of(&placed(1, 5)).is_none());
    }
}
