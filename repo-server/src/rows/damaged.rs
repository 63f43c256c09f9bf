//! Blobs whose stored bytes are not what was written.

use serde::{Deserialize, Serialize};

/// Problem of a blob, as JSON. Its chunk row says [`super::Health::Damaged`] as long as there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamagedRow {
    /// The dedup domain.
    pub cluster: String,
    /// Description of the problem, for people.
    pub problem: String,
    /// When; server time.
    pub found_ms: u64,
}

impl DamagedRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain JSON")
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
