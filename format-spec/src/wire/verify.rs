//! Bodies of checks: is everything that a snapshot needs there, and as it was written?

use serde::{Deserialize, Serialize};

use super::Amount;
use crate::id::{NodeName, SnapshotId};

/// Depth of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLevel {
    /// Every page and chunk that a snapshot needs is in the index.
    Index,
    /// Like `Index`, and every pack that the index names exists on the site with the right length.
    Exists,
    /// Like `Exists`, and every byte of every pack is correct.
    Read,
    /// Like `Read`, and every file of every snapshot can be restored: order of its parts, length, digest.
    Restore,
}

/// Asks for a check: of everything, of one snapshot, or of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// How deep.
    pub level: VerifyLevel,
    /// Only what this snapshot needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// How much of it, and how fast.
    #[serde(default)]
    pub limits: VerifyLimits,
    /// Packs that are not on the site are lost, even if they are most of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}

impl From<VerifyLevel> for VerifyRequest {
    /// A check of everything.
    fn from(level: VerifyLevel) -> Self {
        Self { level, snapshot: None, limits: VerifyLimits::default(), accept_loss: false }
    }
}

/// How much of the packs one run looks at. It begins with those whose last check is longest ago, so that
/// runs with limits come round to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyLimits {
    /// Share of the bytes of all packs, in millionths: 50,000 is 5 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_ppm: Option<u32>,
    /// No pack is begun that would make it more bytes than this, but for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Time in milliseconds after which no new work starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
    /// Bytes per second of packs that are read at most, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u64>,
}

impl VerifyLimits {
    /// True if a run with these limits may skip packs.
    pub fn is_partial(&self) -> bool {
        self.sample_ppm.is_some() || self.max_bytes.is_some() || self.max_time_ms.is_some()
    }
}

/// In which way something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The bytes are there, and are not what was written.
    Corrupt,
    /// The site says that it does not have the object.
    Missing,
    /// The site did not answer, twice: nothing is known.
    Unreadable,
    /// Rows of the index contradict each other, or a row that must be there is not.
    Index,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The node.
    pub node: NodeName,
    /// The path, for people: bytes that are no UTF-8 are escaped.
    pub path: String,
}

/// Files that cannot be named, because what lists them is lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LostRange {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The node.
    pub node: NodeName,
    /// The last path before them; none if they are the node's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The first path after them; none if they are the node's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// One thing that a check found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// In which way.
    pub kind: FindingKind,
    /// The object, by its id or name.
    pub object: String,
    /// Description of the problem.
    pub problem: String,
    /// The affected snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
    /// The affected files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRef>,
    /// How many more files, which the report has no room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_files: u64,
    /// Runs of affected files that cannot be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<LostRange>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How many findings there are of each kind, those included that the report has no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FindingCounts {
    /// Number of [`FindingKind::Corrupt`] findings.
    pub corrupt: u64,
    /// Number of [`FindingKind::Missing`] findings.
    pub missing: u64,
    /// Number of [`FindingKind::Unreadable`] findings.
    pub unreadable: u64,
    /// Number of [`FindingKind::Index`] findings.
    pub index: u64,
}

impl FindingCounts {
    /// The count of one kind.
    pub fn of(&mut self, kind: FindingKind) -> &mut u64 {
        match kind {
            FindingKind::Corrupt => &mut self.corrupt,
            FindingKind::Missing => &mut self.missing,
            FindingKind::Unreadable => &mut self.unreadable,
            FindingKind::Index => &mut self.index,
        }
    }

    /// Things that are known to be wrong.
    pub fn damage(&self) -> u64 {
        self.corrupt + self.missing + self.index
    }
}

/// Why a run ended before all that it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// The bytes it might read were read.
    Bytes,
    /// Its time was over.
    Time,
}

/// Result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyReport {
    /// Snapshots checked.
    pub snapshots: u64,
    /// Pages read.
    pub pages: u64,
    /// References to chunks that were looked up.
    pub references: u64,
    /// Files whose parts were put together.
    pub files: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Blobs opened.
    pub blobs: u64,
    /// Bytes of packs read.
    pub bytes_read: u64,
    /// Blobs that are newly known to be damaged: the next push of their content replaces them.
    pub quarantined: u64,
    /// Blobs that were known to be damaged, and are good again.
    pub recovered: u64,
    /// Packs of what was asked for that this run left out, with their bytes.
    pub left: Amount,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Packs that have never passed a full check.
    pub never_verified: u64,
    /// When every byte was found right of the pack for which that is longest ago, RFC 3339 in UTC; of
    /// those for which it ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_verified: Option<String>,
    /// How much is wrong.
    pub counts: FindingCounts,
    /// Problems found; empty if there are none.
    pub findings: Vec<Finding>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_everything_names_nothing_but_its_level() {
        let asked: VerifyRequest = serde_json::from_str(r#"{"level":"read"}"#).unwrap();

        assert_eq!(asked, VerifyRequest::from(VerifyLevel::Read));
        assert!(!asked.limits.is_partial());
        assert!(serde_json::from_str::<VerifyRequest>(r#"{"level":"read","only":"x"}"#).is_err());
    }

    #[test]
    fn a_rate_alone_leaves_nothing_out() {
        let rate = VerifyLimits { max_rate: Some(1), ..VerifyLimits::default() };
        let sample = VerifyLimits { sample_ppm: Some(50_000), ..rate };

        assert_eq!((rate.is_partial(), sample.is_partial()), (false, true));
        assert_eq!(serde_json::to_string(&sample).unwrap(), r#"{"sample_ppm":50000,"max_rate":1}"#);
    }

    #[test]
    fn what_is_unreadable_is_no_damage() {
        let mut counts = FindingCounts::default();
        *counts.of(FindingKind::Unreadable) += 1;
        assert_eq!(counts.damage(), 0);

        for kind in [FindingKind::Corrupt, FindingKind::Missing, FindingKind::Index] {
            *counts.of(kind) += 1;
        }
        assert_eq!(counts.damage(), 3);
    }
}
