//! Alarms that are up.

use serde::{Deserialize, Serialize};

/// An alarm that is up, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRow {
    /// Its text, for people.
    pub message: String,
    /// Since when; server time.
    pub since_ms: u64,
    /// Set once an operator has acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<AcknowledgedRow>,
}

/// The word of an operator on an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgedRow {
    /// Why it is known.
    pub reason: String,
    /// Since when; server time.
    pub since_ms: u64,
    /// Until when that holds; `None`: as long as the alarm is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl AlarmRow {
    /// Its value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain JSON")
    }

    /// The row that a value stands for.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
