//! Ask what is missing, compress it, send it: three kinds of threads with bounded queues between them.
//!
//! Batches circulate: the feeder takes an empty one, a full one is asked for, what is missing of it
//! is compressed into bodies, and the batch is empty again. So the number of batches bounds memory,
//! and a slow stage holds up the others.

use std::num::NonZeroUsize;
use std::thread::{Builder, Scope};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use format_spec::blob::{BlobInfo, Compressor};
use format_spec::key::BlobKind;
use format_spec::wire::{FrameHeader, encode_end};
use format_spec::{ChunkId, SessionId};
use tokio::runtime::Handle;

use super::batch::{Batch, Feeder, READ_LEN};
use super::report::Tally;
use super::stop::{Stop, Stopped};
use crate::api::{Api, Segments};
use crate::error::ClientError;
use crate::progress::Progress;

/// Questions in flight.
const ASKING: usize = 2;
/// Bodies in flight.
const SENDING: usize = 2;
/// Most plaintext in a batch, and about the length of a body.
const MAX_BATCH_LEN: usize = 8 << 20;
/// Plaintext in all batches together, and the length of all bodies together.
const MEMORY: usize = 64 << 20;

/// One session, as the threads of a push use it.
pub(super) struct Uplink<'a> {
    pub(super) api: &'a Api,
    pub(super) runtime: &'a Handle,
    pub(super) session: SessionId,
    pub(super) stop: &'a Stop,
    pub(super) tally: &'a Tally,
    pub(super) progress: &'a dyn Progress,
    pub(super) level: i32,
    pub(super) jobs: NonZeroUsize,
    /// Longest chunk.
    pub(super) max_chunk: usize,
}

impl Uplink<'_> {
    /// Runs `fill`, and sends what it feeds and the server does not have. When this returns, the
    /// server has acknowledged every blob.
    pub(super) fn upload<T>(
        &self,
        kind: BlobKind,
        fill: impl FnOnce(Feeder<'_>) -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        let batches = self.jobs.get() + ASKING + 2;
        let batch_len = (MEMORY / batches).clamp(1 << 20, MAX_BATCH_LEN);
        let (give, free) = bounded(batches);
        let (full, asked) = bounded::<Batch>(batches);
        let (wanted, to_compress) = bounded::<Batch>(batches);
        let (bodies, to_send) = bounded::<Body>(1);
        for _ in 0..batches {
            let batch = Batch::with_len(batch_len + self.max_chunk + READ_LEN);
            give.send(batch).map_err(|_| Stopped)?;
        }
        std::thread::scope(|scope| {
            for _ in 0..ASKING {
                let (asked, wanted, give) = (asked.clone(), wanted.clone(), give.clone());
                self.spawn(scope, "ask", move || self.ask(&asked, &wanted, &give))?;
            }
            for _ in 0..self.jobs.get() {
                let (todo, bodies, give) = (to_compress.clone(), bodies.clone(), give.clone());
                self.spawn(scope, "compress", move || self.compress(kind, batch_len, &todo, &bodies, &give))?;
            }
            for _ in 0..SENDING {
                let to_send = to_send.clone();
                self.spawn(scope, "send", move || self.send(&to_send))?;
            }
            // Each stage ends when the one before has ended, so nobody else may hold its queue.
            drop((asked, wanted, give, to_compress, bodies, to_send));
            fill(Feeder::new(self.stop, free, full, batch_len)?)
        })
        .and_then(|filled| self.stop.check().map(|()| filled))
    }

    fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
        work: impl FnOnce() -> Result<(), Stopped> + Send + 'scope,
    ) -> Result<(), Stopped> {
        // How a thread ended is kept in `stop`.
        let started = Builder::new().name(name.to_owned()).spawn_scoped(scope, move || {
            let _ = work();
        });
        match started {
            Ok(_) => Ok(()),
            Err(source) => Err(self.stop.fail(ClientError::Thread { name, source })),
        }
    }

    fn ask(
        &self,
        asked: &Receiver<Batch>,
        wanted: &Sender<Batch>,
        free: &Sender<Batch>,
    ) -> Result<(), Stopped> {
        for mut batch in asked {
            self.stop.check()?;
            let have = self.stop.wait_for(self.runtime, self.api.have(self.session, &batch.ids()))?;
            let next = if batch.forget(&have) > 0 { wanted } else { free };
            // The feeder may have ended: then nobody needs an empty batch.
            let _ = next.send(batch);
        }
        Ok(())
    }

    fn compress(
        &self,
        kind: BlobKind,
        body_len: usize,
        todo: &Receiver<Batch>,
        bodies: &Sender<Body>,
        free: &Sender<Batch>,
    ) -> Result<(), Stopped> {
        let compressor = Compressor::new(self.level).map_err(ClientError::Compression);
        let mut compressor = self.stop.pass(compressor)?;
        let mut body = Body::default();
        for batch in todo {
            for (id, plain) in batch.chunks() {
                self.stop.check()?;
                self.stop.pass(body.push(&mut compressor, kind, id, plain))?;
                if body.bytes.len() >= body_len {
                    bodies.send(std::mem::take(&mut body)).map_err(|_| Stopped)?;
                }
            }
            let _ = free.send(batch.cleared());
        }
        if body.frames > 0 {
            bodies.send(body).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn send(&self, bodies: &Receiver<Body>) -> Result<(), Stopped> {
        for body in bodies {
            self.stop.check()?;
            let (frames, segments) = (body.frames, body.finish());
            let len = segments.len();
            let call = self.api.send_blobs(self.session, segments);
            let stored = self.stop.wait_for(self.runtime, call)?;
            self.tally.sent(frames.into(), len, stored.stored_bytes);
            self.progress.sent(len);
        }
        Ok(())
    }
}

/// Frames on their way.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    frames: u32,
}

impl Body {
    fn push(
        &mut self,
        compressor: &mut Compressor,
        kind: BlobKind,
        id: ChunkId,
        plain: &[u8],
    ) -> Result<(), ClientError> {
        let (compression, payload) = compressor.compress(plain).map_err(ClientError::Compression)?;
        let info = BlobInfo { kind, id, plain_len: short(plain.len()), compression };
        let header = FrameHeader { info, payload_len: short(payload.len()) };
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(payload);
        self.frames += 1;
        Ok(())
    }

    fn finish(mut self) -> Segments {
        self.bytes.extend_from_slice(&encode_end(self.frames));
        Segments::from(Bytes::from(self.bytes))
    }
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("a chunk is at most 16 MiB")
}
