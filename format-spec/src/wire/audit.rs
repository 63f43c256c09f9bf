//! JSON bodies of an audit: the counts of the index against what manifests and pages name.

use serde::{Deserialize, Serialize};

/// Permission for an audit to repair wrong counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// The audit only reports.
    #[default]
    No,
    /// The audit repairs counts.
    Yes,
}

/// Asks for an audit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditRequest {
    /// Permission to repair.
    pub repair: Repair,
}

/// Outcome of a problem that an audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditState {
    /// It is as it was.
    Open,
    /// It is right now.
    Mended,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditFinding {
    /// The object or row, by its id or name.
    pub object: String,
    /// Description of the problem.
    pub problem: String,
    /// Outcome of the problem.
    pub state: AuditState,
}

/// Result of an audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Permission that the request gave to repair.
    pub repair: Repair,
    /// Manifests read.
    pub manifests: u64,
    /// Packs in the index.
    pub packs: u64,
    /// Rows of chunks and pages.
    pub rows: u64,
    /// References that were counted.
    pub references: u64,
    /// Rows that were exempt because they changed meanwhile.
    pub changed: u64,
    /// Counts that are higher than what could be read explains: something that could not be read may
    /// be the reason, so they are left alone.
    pub unexplained: u64,
    /// Things found wrong. At most 10,000 are listed.
    pub found: u64,
    /// Those of them that are right now.
    pub mended: u64,
    /// The first of them.
    pub findings: Vec<AuditFinding>,
}

impl AuditReport {
    /// True if no problem remains.
    pub fn is_sound(&self) -> bool {
        self.found == self.mended
    }
}
