//! Requests of operators: forget, undelete, protect, stats.

use format_spec::wire;
use format_spec::{ChunkId, NodeName, SnapshotId};
use hyper::Method;

use super::{Api, Call, OCTETS, Segments};
use crate::error::ClientError;

impl Api {
    /// One snapshot, with what costs a little to find out.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn snapshot_detail(&self, id: SnapshotId) -> Result<wire::SnapshotDetail, ClientError> {
        self.json(Call::get(format!("/v1/snapshots/{id}/detail"))).await
    }

    /// Some of one node's files that are not as they should be in a snapshot: at most `limit` of those that
    /// follow `after`, the [`next`](wire::FileProblems::next) of the answer before.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn snapshot_problems(
        &self,
        id: SnapshotId,
        node: &NodeName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<wire::FileProblems, ClientError> {
        // A foreign server must not choose the path of the next request.
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
    /// The errors of [`open_session`](Self::open_session).
    pub async fn protect(&self, id: SnapshotId, reason: String) -> Result<wire::SnapshotInfo, ClientError> {
        let path = format!("/v1/snapshots/{id}/protection");
        let call = Call::json(path, &wire::ProtectRequest { reason });
        self.json(Call { method: Method::PUT, ..call }).await
    }

    /// Removes the protection of a snapshot.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn unprotect(&self, id: SnapshotId) -> Result<wire::SnapshotInfo, ClientError> {
        let path = format!("/v1/snapshots/{id}/protection");
        self.json(Call { method: Method::DELETE, ..Call::get(path) }).await
    }

    /// Brings back a snapshot that was forgotten.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session); a purged snapshot is not found.
    pub async fn undelete(&self, id: SnapshotId) -> Result<wire::SnapshotInfo, ClientError> {
        let path = format!("/v1/snapshots/{id}/undelete");
        self.json(Call::post(path, OCTETS, Segments::default())).await
    }

    /// Deletes snapshots, or returns the ones that it would delete.
    ///
    /// If the first answer was lost, the second has as [`Verdict::Going`](wire::Verdict::Going) what the first
    /// request forgot.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn forget(&self, request: &wire::ForgetRequest) -> Result<wire::ForgetReport, ClientError> {
        self.json(Call::json("/v1/forget".to_owned(), request)).await
    }

    /// Sizes of the repository, its clusters, nodes and snapshots.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn stats(&self) -> Result<wire::StatsReport, ClientError> {
        self.json(Call::get("/v1/stats".to_owned())).await
    }

    /// Place of a chunk or page.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn locate_chunk(&self, id: ChunkId) -> Result<wire::ChunkLocation, ClientError> {
        self.json(Call::get(format!("/v1/chunks/{id}"))).await
    }
}
