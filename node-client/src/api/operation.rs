//! Runs of the server that report their progress: an answer of lines, the last of which is the report.

use bytes::Bytes;
use format_spec::wire::{
    AuditReport, AuditRequest, GcReport, GcRequest, OperationEvent, Repair, VerifyReport, VerifyRequest,
};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Api, Call, MAX_ANSWER_LEN};
use crate::error::ClientError;

/// How far a run of the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The part of the run that is in progress, where it has parts.
    pub phase: Option<String>,
    /// How much is done of it.
    pub done: u64,
    /// How much there is to do, where that is known.
    pub total: Option<u64>,
}

impl Api {
    /// Runs the collector; `progress` hears of each step.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session). Work done before a failure is kept.
    pub async fn collect_garbage(
        &self,
        request: &GcRequest,
        progress: impl FnMut(Step),
    ) -> Result<GcReport, ClientError> {
        self.follow("/v1/gc", request, progress).await
    }

    /// Runs the requested check, such as everything at one level; `progress` receives each step. A check ends
    /// when its caller is gone.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn verify(
        &self,
        asked: impl Into<VerifyRequest>,
        progress: impl FnMut(Step),
    ) -> Result<VerifyReport, ClientError> {
        self.follow("/v1/verify", &asked.into(), progress).await
    }

    /// Compares the counts of the repository's index with what manifests and pages name; `progress` hears of each step.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn audit(
        &self,
        repair: Repair,
        progress: impl FnMut(Step),
    ) -> Result<AuditReport, ClientError> {
        self.follow("/v1/audit", &AuditRequest { repair }, progress).await
    }

    /// Asks for a run, and hands its steps to `progress` as they come, until the report. Memory: one line of bounded
    /// length.
    async fn follow<R: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        mut progress: impl FnMut(Step),
    ) -> Result<R, ClientError> {
        let call = Call::json(path.to_owned(), request);
        // Only until the answer begins: what ran once is not started again unasked.
        let mut body = self.again(|| self.send(&call)).await?.into_body();
        let mut lines = Lines::default();
        while let Some(piece) = body.frame().await {
            let piece = piece.map_err(|error| self.unreachable(error))?;
            lines.push(piece.data_ref().unwrap_or(&Bytes::new()));
            while let Some(line) = lines.next_line() {
                let event = serde_json::from_slice(&line).map_err(|error| self.protocol(&error))?;
                match event {
                    OperationEvent::Progress { phase, done, total } => progress(Step { phase, done, total }),
                    OperationEvent::Report(report) => return Ok(report),
                    OperationEvent::Failed(body) => return Err(self.refused(body)),
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
    /// Number of bytes of the rest that are known to hold no end of a line.
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
