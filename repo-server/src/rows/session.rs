//! A push in progress, or one that has committed.

use format_spec::{ClusterName, NodeName, SnapshotId};
use serde::{Deserialize, Serialize};

use super::Epoch;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It is open.
    Open,
    /// It has committed this snapshot.
    #[expect(missing_docs, reason = "the line above covers the fields")]
    Committed { snapshot: SnapshotId, at_ms: u64 },
}

/// A session's row in the index, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Cluster of the push.
    pub cluster: ClusterName,
    /// The node that pushes.
    pub node: NodeName,
    /// Its fencing token.
    pub token: u64,
    /// The epoch at its grant: data that became idle then or later is kept while it is open (G3).
    pub start: Epoch,
    /// Open, or what it has committed.
    pub state: SessionState,
}

impl SessionRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a session row is plain JSON")
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
