//! Ids asked for and blobs sent in a session.
//!
//! A body of frames is read in pieces: groups of about a megabyte are processed by compute threads, and only
//! a few groups are in memory at once. A full pack pauses the reading until the site has stored it.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Request, State};
use format_spec::SessionId;
use format_spec::key::BlobKind;
use format_spec::page::MAX_PAGE_LEN;
use format_spec::wire::{self, BlobsStored, Frame, FrameReader};
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::body::{Pieces, UNCOUNTED};
use super::extract::{Path, Query};
use super::respond::{self, Answer, Reply};
use super::{App, body, octets, parse};
use crate::access::Principal;
use crate::error::ServerError;
use crate::pack;
use crate::pack::OpenDomain;
use crate::rows::Epoch;
use crate::server::Server;
use crate::session;

/// Memory that the frames of one compute thread take at once.
const GROUP_LEN: usize = 1 << 20;
/// Plaintext bytes that one compute thread gets at once: what it inflates and hashes.
const GROUP_PLAIN_LEN: u64 = 4 << 20;
/// Memory that a frame takes beside its payload.
const FRAME_LEN: usize = 128;
/// Frames of one body, at most.
const MAX_FRAMES: usize = wire::MAX_IDS;
/// Groups of one request that are computed at once.
const GROUPS: usize = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    coming: Option<String>,
}

/// Handling of chunks that others are sending.
enum Coming {
    /// It waits for them, and promises to send what is missing.
    Wait,
    /// It sends them as well.
    Send,
}

impl Asked {
    fn coming(&self) -> Result<Coming, ServerError> {
        match self.coming.as_deref() {
            None => Ok(Coming::Send),
            Some("wait") => Ok(Coming::Wait),
            Some(other) => Err(ServerError::BadRequest {
                code: "bad_query",
                why: format!("`coming` must be `wait`, not `{other}`"),
            }),
        }
    }
}

pub(super) async fn have(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Reply {
    let (id, coming) = (parse(&id)?, asked.coming()?);
    let session =
        session::renew_if(&app.server.sessions, id, |owner| caller.reaches(&owner.cluster, &owner.node))?;
    let ids = body::ids(request, &app.server.memory.bodies).await?;
    let domain = app.server.domain(&session.cluster);
    let held = app.server.blocking(move |server| match coming {
        Coming::Wait => session::have_or_promise(&server.sessions, &domain, id, &ids),
        Coming::Send => pack::have(&domain, session.start, &ids),
    });
    Ok(octets(wire::encode_held(&held.await?)))
}

pub(super) async fn put(
    State(app): State<App>,
    caller: Principal,
    Path(id): Path<String>,
    request: Request,
) -> Answer<BlobsStored> {
    let id = parse(&id)?;
    let session =
        session::renew_if(&app.server.sessions, id, |owner| caller.reaches(&owner.cluster, &owner.node))?;
    let mut body = Pieces::new(request, wire::MAX_BLOBS_LEN)?;
    let domain = app.server.domain(&session.cluster);
    let max_len = app.server.store.chunker().max_len().max(u32::try_from(MAX_PAGE_LEN).unwrap_or(u32::MAX));
    let mut intake = Intake::new(Arc::clone(&app.server), domain, id, session.start);
    let mut reader = FrameReader::of_at_most(max_len);
    let mut reserved = None;
    while let Some(piece) = body.next().await? {
        if reserved.is_none() && body.read_bytes() > UNCOUNTED {
            // A group, and the frame that is on its way.
            let bytes = u64::try_from(GROUP_LEN).unwrap_or(u64::MAX).saturating_add(max_len.into());
            reserved = Some(app.server.memory.bodies.reserve(bytes).await?);
        }
        reader.push(&piece);
        while let Some(frame) = reader.next_frame().map_err(ServerError::Malformed)? {
            intake.push(frame).await?;
        }
    }
    reader.finish().map_err(ServerError::Malformed)?;
    respond::json(intake.finish().await?)
}

/// Frames of one request on their way into packs.
struct Intake {
    server: Arc<Server>,
    domain: Arc<OpenDomain>,
    session: SessionId,
    /// When the session began.
    start: Epoch,
    group: Vec<Frame>,
    group_len: usize,
    group_plain_len: u64,
    frames: usize,
    /// Plaintext bytes of the whole body.
    plain_len: u64,
    running: VecDeque<JoinHandle<Result<BlobsStored, ServerError>>>,
    counts: BlobsStored,
    chunks_flushed: bool,
}

impl Intake {
    fn new(server: Arc<Server>, domain: Arc<OpenDomain>, session: SessionId, start: Epoch) -> Self {
        Self {
            server,
            domain,
            session,
            start,
            group: Vec::new(),
            group_len: 0,
            group_plain_len: 0,
            frames: 0,
            plain_len: 0,
            running: VecDeque::new(),
            counts: BlobsStored::default(),
            chunks_flushed: false,
        }
    }

    async fn push(&mut self, frame: Frame) -> Result<(), ServerError> {
        if frame.info.kind == BlobKind::Page && !self.chunks_flushed {
            self.settle_chunks().await?;
        }
        self.count(&frame)?;
        self.group.push(frame);
        let is_full = self.group_len >= GROUP_LEN || self.group_plain_len >= GROUP_PLAIN_LEN;
        if is_full { self.start_group().await } else { Ok(()) }
    }

    /// Bounds what a body costs: by frames, and by what they are inflated to.
    fn count(&mut self, frame: &Frame) -> Result<(), ServerError> {
        let plain_len = u64::from(frame.info.plain_len);
        self.frames += 1;
        self.plain_len += plain_len;
        self.group_plain_len += plain_len;
        self.group_len += frame.payload.len() + FRAME_LEN;
        let over = |what: &str, most: u64| ServerError::BadRequest {
            code: "too_many_blobs",
            why: format!("the body has more than {most} {what}: send several smaller requests"),
        };
        if self.frames > MAX_FRAMES {
            return Err(over("blobs", u64::try_from(MAX_FRAMES).unwrap_or(u64::MAX)));
        }
        if self.plain_len > wire::MAX_READ_LEN {
            return Err(over("bytes before compression", wire::MAX_READ_LEN));
        }
        Ok(())
    }

    /// X7: a page may refer only to chunks that the index has, so those that wait are stored first.
    async fn settle_chunks(&mut self) -> Result<(), ServerError> {
        self.start_group().await?;
        while !self.running.is_empty() {
            self.end_group().await?;
        }
        pack::flush(&self.domain, BlobKind::Chunk).await?;
        self.chunks_flushed = true;
        Ok(())
    }

    async fn start_group(&mut self) -> Result<(), ServerError> {
        if self.group.is_empty() {
            return Ok(());
        }
        if self.running.len() >= GROUPS {
            self.end_group().await?;
        }
        self.server.store.check_running()?;
        self.domain.wait_for_the_site().await;
        let frames = std::mem::take(&mut self.group);
        (self.group_len, self.group_plain_len) = (0, 0);
        let now = self.server.store.parts.clock.monotonic();
        self.domain.sends(self.session, frames.iter().map(|frame| &frame.info.id), now);
        session::took(&self.server.sessions, self.session, &frames);
        let permit = Arc::clone(&self.server.store.compute).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let domain = Arc::clone(&self.domain);
        let start = self.start;
        self.running.push_back(tokio::task::spawn_blocking(move || {
            let taken = pack::take_in(&domain, start, &frames);
            drop(permit);
            taken
        }));
        Ok(())
    }

    async fn end_group(&mut self) -> Result<(), ServerError> {
        let Some(group) = self.running.pop_front() else { return Ok(()) };
        let taken = group.await.unwrap_or(Err(ServerError::Bug("a worker thread panicked")))?;
        self.counts.stored += taken.stored;
        self.counts.known += taken.known;
        self.counts.stored_bytes += taken.stored_bytes;
        Ok(())
    }

    async fn finish(mut self) -> Result<BlobsStored, ServerError> {
        self.start_group().await?;
        while !self.running.is_empty() {
            self.end_group().await?;
        }
        Ok(self.counts)
    }
}
