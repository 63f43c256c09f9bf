//! Audits: lines of events until the report.

use std::ops::ControlFlow;

use format_spec::wire::{AuditEvent, AuditReport, AuditRequest, Repair};

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
        let end = self.events(&call, |event| match event {
            AuditEvent::Progress { done, total } => {
                progress(done, total);
                ControlFlow::Continue(())
            }
            AuditEvent::Report(report) => ControlFlow::Break(Ok(report)),
            AuditEvent::Failed(body) => ControlFlow::Break(Err(body)),
        });
        end.await?.map_err(|body| self.refused(body))
    }
}
