//! What operators ask for: forget, bring back, protect, collect, count.

use std::ops::ControlFlow;

use bytes::Bytes;
use format_spec::wire::{self, GcEvent};
use format_spec::{ChunkId, NodeName, SnapshotId};
use http_body_util::BodyExt;
use hyper::Method;
use serde::de::DeserializeOwned;

use super::{Api, Call, MAX_ANSWER_LEN, OCTETS, Segments};
use crate::error::ClientError;

impl Api {
    /// One snapshot, with what costs a little to find out.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn snapshot_detail(&self, id: SnapshotId) -> Result<wire::SnapshotDetail, ClientError> {
        self.json(Call::get(format!("/v1/snapshots/{id}/detail"))).await
    }

    /// Some of one node's files that are not as they should be in a snapshot: at most `limit` of those that
    /// follow `after`, the [`next`](wire::FileProblems::next) of the answer before.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn snapshot_problems(
        &self,
        id: SnapshotId,
        node: &NodeName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<wire::FileProblems, ClientError> {
        // A foreign server must not choose where the next request goes.
        if after.is_some_and(|after| after.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-')) {
            return Err(self.protocol(&"`next` is not valid for an Astacus server"));
        }
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let path = format!("/v1/snapshots/{id}/problems?node={node}&limit={limit}{after}");
        self.json(Call::get(path)).await
    }

    /// Says that a snapshot must stay, and why. A reason that was given before is replaced.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn protect(&self, id: SnapshotId, reason: String) -> Result<wire::SnapshotInfo, ClientError> {
        let path = format!("/v1/snapshots/{id}/protection");
        let call = Call::json(path, &wire::ProtectRequest { reason });
        self.json(Call { method: Method::PUT, ..call }).await
    }

    /// Says that a snapshot may go as any other.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn unprotect(&self, id: SnapshotId) -> Result<wire::SnapshotInfo, ClientError> {
        let path = format!("/v1/snapshots/{id}/protection");
        self.json(Call { method: Method::DELETE, ..Call::get(path) }).await
    }

    /// Brings back a snapshot that was forgotten.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session); a snapshot that is gone for good is not found.
    pub async fn undelete(&self, id: SnapshotId) -> Result<wire::SnapshotInfo, ClientError> {
        let path = format!("/v1/snapshots/{id}/undelete");
        self.json(Call::post(path, OCTETS, Segments::default())).await
    }

    /// Forgets snapshots, or tells which it would forget.
    ///
    /// If the first answer was lost, the second has as [`Verdict::Going`](wire::Verdict::Going) what the first
    /// request forgot.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn forget(&self, request: &wire::ForgetRequest) -> Result<wire::ForgetReport, ClientError> {
        self.json(Call::json("/v1/forget".to_owned(), request)).await
    }

    /// Runs the collector; `progress` hears of each phase, and how much of it is done.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session). What was done before a run failed stays done.
    pub async fn collect_garbage(
        &self,
        request: &wire::GcRequest,
        mut progress: impl FnMut(&str, u64),
    ) -> Result<wire::GcReport, ClientError> {
        let call = Call::json("/v1/gc".to_owned(), request);
        let end = self.events(&call, |event| match event {
            GcEvent::Progress { phase, done } => {
                progress(&phase, done);
                ControlFlow::Continue(())
            }
            GcEvent::Report(report) => ControlFlow::Break(Ok(report)),
            GcEvent::Failed(body) => ControlFlow::Break(Err(body)),
        });
        end.await?.map_err(|body| self.refused(body))
    }

    /// What the repository takes, and for whom.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn stats(&self) -> Result<wire::StatsReport, ClientError> {
        self.json(Call::get("/v1/stats".to_owned())).await
    }

    /// Where a chunk or page lies.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn locate_chunk(&self, id: ChunkId) -> Result<wire::ChunkLocation, ClientError> {
        self.json(Call::get(format!("/v1/chunks/{id}"))).await
    }

    /// Hands the lines of an answer to `heed` as they come, until one ends it. Memory: one line of bounded length.
    pub(super) async fn events<E: DeserializeOwned, T>(
        &self,
        call: &Call,
        mut heed: impl FnMut(E) -> ControlFlow<T>,
    ) -> Result<T, ClientError> {
        // Only until the answer begins: what ran once is not started again unasked.
        let mut body = self.again(|| self.send(call)).await?.into_body();
        let mut lines = Lines::default();
        while let Some(piece) = body.frame().await {
            let piece = piece.map_err(|error| self.unreachable(error))?;
            lines.push(piece.data_ref().unwrap_or(&Bytes::new()));
            while let Some(line) = lines.next_line() {
                let event = serde_json::from_slice(&line).map_err(|error| self.protocol(&error))?;
                if let ControlFlow::Break(end) = heed(event) {
                    return Ok(end);
                }
            }
            if lines.rest.len() > MAX_ANSWER_LEN {
                return Err(self.protocol(&"a line is too long"));
            }
        }
        Err(self.protocol(&"the answer ended without a report"))
    }
}

/// Cuts a body that comes in pieces into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    /// So many bytes of the rest are known to hold no end of a line.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next whole line, with its end.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().skip(self.searched).position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = self.rest.len();
            return None;
        };
        let line = self.rest.drain(..=self.searched + end).collect();
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests;
