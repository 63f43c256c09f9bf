//! JSON bodies of what operators do: forget, protect, collect, check, count. Times are RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

use super::json::{NodeOrigin, SnapshotInfo};
use crate::id::{ChunkId, ClusterName, NodeName, PackId, SeriesId, SessionId, SnapshotId};
use crate::key::BlobKind;
use crate::label::LabelChoice;
use crate::snapshot::SnapshotState;

/// Which snapshots of a series stay: of the same nodes of a cluster, and of the same folders or the same name. Without
/// any rule all do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionPolicy {
    /// Number of the newest complete snapshots that are always kept; 3 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u32>,
    /// No more complete snapshots than this stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<u32>,
    /// Snapshots stay for as many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    /// The newest complete ones stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Keep the newest snapshot of each of the last N hours that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<u32>,
    /// The same for days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<u32>,
    /// The same for ISO weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<u32>,
    /// The same for months.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<u32>,
    /// The same for years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<u32>,
}

/// Choice between a change and a dry run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunMode {
    /// Dry run: nothing changes.
    #[default]
    Plan,
    /// It is done.
    Apply,
}

/// Treatment of the newest complete snapshot of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastComplete {
    /// It is kept.
    #[default]
    Stays,
    /// It may be deleted like any other.
    MayGo,
}

/// Asks to forget snapshots: those named, or those that a policy does not keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForgetRequest {
    /// Plan or apply.
    pub mode: RunMode,
    /// The snapshots; if there are none, a policy decides.
    pub snapshots: Vec<SnapshotId>,
    /// Only this cluster; otherwise all clusters, each with its own count.
    pub cluster: Option<ClusterName>,
    /// Only series of this node; otherwise all nodes, each with its own count.
    pub node: Option<NodeName>,
    /// Only snapshots with these labels: a policy counts no others.
    pub labels: Vec<LabelChoice>,
    /// The policy; if there is none, that of the server's configuration.
    pub policy: Option<RetentionPolicy>,
    /// Permission to delete the last complete snapshot.
    pub last_complete: LastComplete,
    /// Accepts the server's time as correct after a clock jump, so that retention continues.
    pub accept_clock: bool,
}

/// Decision about a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is kept.
    Keep,
    /// It is forgotten, now or by the same request without `plan`.
    Forget,
    /// It was deleted before, and can still be undeleted.
    Going,
}

/// One snapshot, and the reason why it is kept or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetLine {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The nodes in it.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    /// Its series: the policy decided among the snapshots of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesId>,
    /// The folders of each node, as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<NodeOrigin>,
    /// When it was committed.
    pub created: String,
    /// Complete or partial.
    pub state: SnapshotState,
    /// Decision about it.
    pub verdict: Verdict,
    /// Why, for people.
    pub reasons: Vec<String>,
    /// Stored bytes that nothing but this snapshot needs; none if its manifests cannot be read.
    pub frees_bytes: Option<u64>,
    /// For a deleted snapshot: the time until which it can be undeleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Result of a request to forget, or of its dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetReport {
    /// Mode of the request.
    pub mode: RunMode,
    /// Every snapshot that was looked at, oldest first.
    pub snapshots: Vec<ForgetLine>,
    /// Stored bytes that those to be forgotten free together: at least the sum of each alone. None if one of
    /// their manifests cannot be read.
    pub frees_bytes: Option<u64>,
}

/// Says why a snapshot must stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectRequest {
    /// Why; 1 to 1,000 characters.
    pub reason: String,
}

/// Time of deletion of doomed objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delays {
    /// When their delay is over.
    #[default]
    Wait,
    /// In this run: deleted snapshots can no longer be undeleted. Data that sessions need is still kept.
    Skip,
}

/// Behaviour at the daily deletion limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LargeDelete {
    /// The run stops there.
    #[default]
    Refuse,
    /// The run continues.
    Allow,
}

/// Asks for a run of the collector.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcRequest {
    /// Plan or apply.
    pub mode: RunMode,
    /// Treatment of delays.
    pub delays: Delays,
    /// Behaviour at the daily deletion limit.
    pub large: LargeDelete,
    /// Bytes that repacking may copy in this run; without, that of the configuration.
    pub max_copy_bytes: Option<u64>,
}

/// A number of things, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl Amount {
    /// One more, of `bytes`.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// A session that holds up the collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinning {
    /// The session.
    pub session: SessionId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its node.
    pub node: NodeName,
    /// All data that is idle since the start of the session or later. It can be deleted only after this
    /// session and all earlier ones have ended.
    pub holds: Amount,
}

/// An object or a snapshot that will be deleted later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its id or name.
    pub object: String,
    /// Its bytes, if known.
    pub bytes: u64,
    /// Time from which it may be deleted.
    pub until: String,
}

/// Result of a run of the collector, or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Mode of the request.
    pub mode: RunMode,
    /// Deleted snapshots whose delay was over, which are purged.
    pub purged: Vec<SnapshotId>,
    /// Pages that nothing needs.
    pub pages: Amount,
    /// Chunks that nothing needs.
    pub chunks: Amount,
    /// Packs without live blobs, with all their bytes.
    pub dead_packs: Amount,
    /// Packs that were rewritten because little was left of them: their bytes before.
    pub repacked: Amount,
    /// Bytes that repacking copied.
    pub copied_bytes: u64,
    /// Objects that were deleted from the site.
    pub deleted: Amount,
    /// Open sessions with the data that is kept for them, the longest first.
    pub pinned: Vec<Pinning>,
    /// Objects that will be deleted later. At most 1,000 are listed.
    pub waiting: Vec<Waiting>,
    /// Sum of all objects that will be deleted later.
    pub waiting_total: Amount,
    /// Why the run ended before everything was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Objects that could not be processed and are unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Size of data, by three measures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes of all files in all snapshots.
    pub logical_bytes: u64,
    /// Bytes of the different chunks among them.
    pub unique_bytes: u64,
    /// Bytes that those chunks take in packs, compressed and sealed.
    pub stored_bytes: u64,
}

/// A cluster's share of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStats {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its snapshots.
    pub snapshots: u64,
    /// Size of its data. Unique and stored bytes include pages, and what is not collected yet.
    #[serde(flatten)]
    pub space: Space,
}

/// Size of the snapshots of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStats {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// Snapshots that hold it.
    pub snapshots: u64,
    /// Size of its data.
    #[serde(flatten)]
    pub space: Space,
}

/// Size of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStats {
    /// The snapshot.
    pub id: SnapshotId,
    /// The cluster.
    pub cluster: ClusterName,
    /// The folders of each node, as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<NodeOrigin>,
    /// When it was committed.
    pub created: String,
    /// Size of its data.
    #[serde(flatten)]
    pub space: Space,
    /// Stored bytes that only this snapshot needs: its deletion frees them.
    pub alone_bytes: u64,
}

/// A snapshot whose size cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotCounted {
    /// The snapshot.
    pub id: SnapshotId,
    /// The cluster.
    pub cluster: ClusterName,
    /// Unreadable object and reason.
    pub why: String,
}

/// Sizes of the repository, its clusters, nodes and snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsReport {
    /// Sizes by cluster.
    pub clusters: Vec<ClusterStats>,
    /// Sizes by node.
    pub nodes: Vec<NodeStats>,
    /// Sizes by snapshot, oldest first.
    pub snapshots: Vec<SnapshotStats>,
    /// Snapshots that are in none of the lists but `clusters`, as something of them cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_counted: Vec<NotCounted>,
    /// Packs on the site.
    pub packs: Amount,
    /// Bytes in packs that no row names: repacking or deleting gives them back.
    pub dead_bytes: u64,
}

/// Place of a chunk or page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkLocation {
    /// The chunk or page.
    pub id: ChunkId,
    /// Which of the two.
    pub kind: BlobKind,
    /// Its dedup domain.
    pub cluster: ClusterName,
    /// The pack.
    pub pack: PackId,
    /// Its object on the site.
    pub object: String,
    /// Where the blob starts in the pack.
    pub offset: u32,
    /// Length of the blob.
    pub stored_bytes: u32,
    /// Length of the plaintext.
    pub plain_bytes: u32,
    /// How many pages (of a chunk) or manifests (of a page) refer to it.
    pub references: u64,
    /// Without references: since which epoch of the collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<u64>,
    /// Description of known damage to its stored bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// One snapshot with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDetail {
    /// Fields that every list has.
    #[serde(flatten)]
    pub info: SnapshotInfo,
    /// Stored bytes that nothing but this snapshot needs, if they can be counted.
    pub alone_bytes: Option<u64>,
    /// Why they cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_counted: Option<String>,
}
