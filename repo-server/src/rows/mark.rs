//! Decisions about a snapshot after its commit.

use serde::{Deserialize, Serialize};

/// Deletion or protection of a snapshot. As JSON; a snapshot without a row has neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRow {
    /// It is deleted, and not yet purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<Tombstone>,
    /// It must stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
}

/// A deleted snapshot that is not yet purged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// When that was decided; server time.
    pub since_ms: u64,
    /// Until when it can be undone; server time.
    pub until_ms: u64,
}

/// A snapshot that must stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    /// Why; for people.
    pub reason: String,
    /// The object that says so on the site.
    pub object: String,
}

impl MarkRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a mark is plain JSON")
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// True if it holds no decision, so that there need be no row.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
