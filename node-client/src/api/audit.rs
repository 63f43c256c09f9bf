//! Audits: lines of events until the report.

use bytes::Bytes;
use format_spec::wire::{AuditEvent, AuditReport, AuditRequest, Repair};
use http_body_util::BodyExt;

use super::{Api, Call};
use crate::error::ClientError;

impl Api {
    /// Compares the counts of the repository's index with what manifests and pages name; `progress` hears
    /// of steps done and steps in all.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn audit(
        &self,
        repair: Repair,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<AuditReport, ClientError> {
        let call = Call::json("/v1/audit".to_owned(), &AuditRequest { repair });
        let mut body = self.again(|| self.send(&call)).await?.into_body();
        let mut lines = Vec::new();
        while let Some(piece) = body.frame().await {
            let piece = piece.map_err(|error| self.unreachable(error))?;
            lines.extend_from_slice(piece.data_ref().unwrap_or(&Bytes::new()));
            while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                match serde_json::from_slice(&line).map_err(|error| self.protocol(&error))? {
                    AuditEvent::Progress { done, total } => progress(done, total),
                    AuditEvent::Report(report) => return Ok(report),
                    AuditEvent::Failed(body) => return Err(self.refused(body)),
                }
            }
        }
        Err(self.protocol(&"the audit ended without a report"))
    }
}
