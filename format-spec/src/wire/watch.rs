//! Alarms, and how old the last good snapshot of a series may be.

use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, NodeName};

/// How soon an operator must look at an alarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Within days.
    #[default]
    Warning,
    /// At once: backups are not made, or bytes are lost.
    Critical,
}

impl Severity {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that an operator must look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable name, for programs: `counts_differ`, `clock_jumped`, `damaged_blobs`, `low_space`, …
    pub code: String,
    /// How soon an operator must look.
    #[serde(default)]
    pub severity: Severity,
    /// The series or the channel that the alarm is about, if its code can be up for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Description of the problem and the way out, for people.
    pub message: String,
    /// Since when.
    pub since: String,
    /// An operator's word that it is known, as long as that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
}

/// An operator's word that an alarm is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Why it may stay up.
    pub reason: String,
    /// Since when it is acknowledged.
    pub since: String,
    /// Until when; not given: until the alarm is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Alarms that are up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarms {
    /// Alarms, sorted by code and subject.
    pub alarms: Vec<Alarm>,
}

/// Asks the server to take an alarm as known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// Its code.
    pub code: String,
    /// Its subject or a part of it that fits no other; not given: that of the only alarm with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why it may stay up: one line.
    pub reason: String,
    /// For how long; not given: until the alarm is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
}

/// The series that a rule of freshness is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesScope {
    /// Their cluster.
    pub cluster: ClusterName,
    /// A node of theirs; not given: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Their name or one of their folders; not given: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
}

/// An operator's word on the series of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Oldest age in seconds of the last good snapshot.
    MaxAgeSeconds(u64),
    /// The series is no longer pushed, and raises no alarm for that.
    Retired,
    /// The configuration and the history of the series decide.
    Usual,
}

/// A rule of freshness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreshnessRule {
    /// The series that it is about.
    #[serde(flatten)]
    pub scope: SeriesScope,
    /// The operator's word on them.
    pub expect: Expectation,
}

/// The origin of the age that a series may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgeSource {
    /// `astacus-admin freshness`.
    Set,
    /// A rule of the server's configuration.
    Configured,
    /// The configuration's age for all series.
    All,
    /// The series' own history.
    Usual,
}

/// How a series stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreshnessState {
    /// Its last good snapshot is no older than it may be.
    Fresh,
    /// Its last good snapshot is older, or there is none.
    Overdue,
    /// An operator said that nothing is pushed any more.
    Retired,
    /// There is no maximum age.
    NoLimit,
}

/// How old the last good snapshot of a series is, and how old it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesFreshness {
    /// The series as alarms name it.
    pub subject: String,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Names of its nodes with commas between them; empty if a rule names none.
    pub nodes: String,
    /// Its name or its folders; empty if a rule names none.
    pub series: String,
    /// The last snapshot that is complete, listed, sound and not suspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_complete: Option<String>,
    /// Seconds since then, by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// How old it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Where that comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_source: Option<AgeSource>,
    /// How it stands.
    pub state: FreshnessState,
    /// Number of its newest snapshots in a row that are partial.
    pub partial_in_a_row: u64,
    /// Its snapshots that are listed.
    pub snapshots: u64,
}

/// All series, and the rules that `astacus-admin freshness` has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreshnessReport {
    /// Series, sorted by subject, including those that a rule expects and that have no snapshot.
    pub series: Vec<SeriesFreshness>,
    /// Rules, sorted by scope.
    pub rules: Vec<FreshnessRule>,
}
