//! Objects and snapshots that are known to be damaged.

use serde::{Deserialize, Serialize};

/// Problem of an object or of a snapshot's files, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemRow {
    /// Description of the problem, for people.
    pub problem: String,
    /// When; server time.
    pub found_ms: u64,
}

impl ProblemRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain JSON")
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
