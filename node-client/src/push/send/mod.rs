//! Ask what is missing, compress it, send it: three kinds of threads with bounded queues between them.
//!
//! Batches circulate: the feeder takes an empty one, a full one is asked for, what is missing of it
//! is compressed into bodies, and the batch is empty again. So the number of batches bounds memory,
//! and a slow stage holds up the others.

mod again;
mod late;
pub(crate) mod session;

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use format_spec::blob::{BlobInfo, Compressor};
use format_spec::key::BlobKind;
use format_spec::page::MAX_PAGE_LEN;
use format_spec::wire::{FrameHeader, MAX_IDS, MAX_READ_LEN, encode_end};
use format_spec::{ChunkId, SessionId};
use tokio::runtime::Handle;

use super::guest::Guest;
use super::read::Reader;
use super::read::batch::{Batch, Feeder, Late, READ_LEN};
use super::report::Tally;
use super::send::session::Session;
use super::stop::{Stop, Stopped};
use crate::api::{Api, Coming, Segments};
use crate::clock::Clock;
use crate::error::ClientError;
use crate::pace::Pace;
use crate::progress::Progress;

/// Most chunks that are left to another node until it has sent them. More chunks are sent twice.
const MOST_LATE: usize = 65_536;
/// Questions in flight.
const ASKING: usize = 2;
/// Bodies in flight.
const SENDING: usize = 2;
/// Most plaintext in a batch, and about the length of a body.
const MAX_BATCH_LEN: usize = 8 << 20;
/// Plaintext in all batches together, and the length of all bodies together.
const MEMORY: usize = 64 << 20;

/// One session, as the threads of a push use it.
pub(crate) struct Uplink<'a> {
    pub(crate) api: &'a Api,
    pub(crate) runtime: &'a Handle,
    pub(crate) session: SessionId,
    pub(crate) stop: &'a Stop,
    pub(crate) tally: &'a Tally,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) level: i32,
    pub(crate) jobs: NonZeroUsize,
    /// Longest chunk.
    pub(crate) max_chunk: usize,
    pub(crate) pace: &'a Pace,
    pub(crate) clock: &'a dyn Clock,
    /// Chunks that were left to other nodes, which are sending them.
    pub(crate) late: Mutex<Vec<Late>>,
}

impl Uplink<'_> {
    /// Runs `fill`, and sends what it feeds and the server does not have. When this returns, the
    /// server has acknowledged every blob but those that are [`late`](Self::late).
    pub(crate) fn upload<T>(
        &self,
        kind: BlobKind,
        coming: Coming,
        fill: impl FnOnce(Feeder<'_>) -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        let batches = self.jobs.get() + ASKING + 2;
        let batch_len = (MEMORY / batches).clamp(1 << 20, MAX_BATCH_LEN);
        let body_len = self.pace.body_len(batch_len);
        let (give, free) = bounded(batches);
        let (full, asked) = bounded::<Batch>(batches);
        let (wanted, to_compress) = bounded::<Batch>(batches);
        let (bodies, to_send) = bounded::<Body>(1);
        for _ in 0..batches {
            let batch = Batch::with_len(batch_len + self.max_chunk.max(MAX_PAGE_LEN) + READ_LEN);
            give.send(batch).map_err(|_| Stopped)?;
        }
        std::thread::scope(|scope| {
            for _ in 0..ASKING {
                let (asked, wanted, give) = (asked.clone(), wanted.clone(), give.clone());
                self.spawn(scope, "ask", move || self.ask(coming, &asked, &wanted, &give))?;
            }
            for _ in 0..self.jobs.get() {
                let (todo, bodies, give) = (to_compress.clone(), bodies.clone(), give.clone());
                self.spawn(scope, "compress", move || self.compress(kind, body_len, &todo, &bodies, &give))?;
            }
            for _ in 0..SENDING {
                let to_send = to_send.clone();
                self.spawn(scope, "send", move || self.send(&to_send))?;
            }
            // Each stage ends when the one before has ended, so no other code may hold its queue.
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
        coming: Coming,
        asked: &Receiver<Batch>,
        wanted: &Sender<Batch>,
        free: &Sender<Batch>,
    ) -> Result<(), Stopped> {
        for mut batch in asked {
            self.stop.check()?;
            let ids = batch.ids();
            let held = self.api.have(self.session, &ids, coming);
            let held = self.stop.wait_for(self.runtime, held)?;
            batch.forget(&held, &mut self.late(), MOST_LATE);
            let next = if batch.is_empty() { free } else { wanted };
            // The feeder may have ended: then it needs no empty batch.
            let _ = next.send(batch);
        }
        Ok(())
    }

    /// Reads files into `feeder`, as the repository behind `session` has them cut.
    pub(crate) fn reader<'x>(&'x self, session: &Session, feeder: Feeder<'x>) -> Reader<'x> {
        Reader {
            feeder,
            chunker: session.chunker.clone(),
            domain: session.domain.clone(),
            tally: self.tally,
            progress: self.progress,
            scratch: Vec::new(),
            guest: Guest::default(),
        }
    }

    /// The chunks that are left to other nodes.
    pub(crate) fn late(&self) -> MutexGuard<'_, Vec<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
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
                if body.bytes.len() >= body_len || !body.has_room(plain) {
                    bodies.send(std::mem::take(&mut body)).map_err(|_| Stopped)?;
                }
                self.stop.pass(body.push(&mut compressor, kind, id, plain))?;
            }
            let _ = free.send(batch.cleared());
        }
        if body.frames > 0 {
            bodies.send(body).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    /// Lets some time pass, unless the push ends.
    pub(crate) fn wait(&self, time: Duration) -> Result<(), Stopped> {
        if time.is_zero() {
            return Ok(());
        }
        self.stop.wait_for(self.runtime, async {
            tokio::time::sleep(time).await;
            Ok(())
        })
    }

    fn send(&self, bodies: &Receiver<Body>) -> Result<(), Stopped> {
        for body in bodies {
            self.stop.check()?;
            let (frames, segments) = (body.frames, body.finish());
            let len = segments.len();
            self.wait(self.pace.reserve(self.clock.elapsed(), len))?;
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
    /// Bytes of its blobs before compression.
    plain_len: u64,
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
        self.plain_len += u64::from(info.plain_len);
        Ok(())
    }

    /// True if the server accepts one more blob in the same body: it limits frames and their inflated length.
    fn has_room(&self, plain: &[u8]) -> bool {
        let has_frame = usize::try_from(self.frames).is_ok_and(|frames| frames < MAX_IDS);
        has_frame && self.plain_len + u64::from(short(plain.len())) <= MAX_READ_LEN
    }

    fn finish(mut self) -> Segments {
        self.bytes.extend_from_slice(&encode_end(self.frames));
        Segments::from(Bytes::from(self.bytes))
    }
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("a chunk is at most 16 MiB")
}
