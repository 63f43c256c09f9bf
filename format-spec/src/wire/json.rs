//! JSON bodies. Unknown fields are ignored, so that either side can be newer.

use serde::{Deserialize, Serialize};

use crate::error::ErrorClass;
use crate::id::{
    ChunkId, ClusterName, ManifestId, NodeName, RepositoryId, SeriesId, SeriesName, SessionId, SnapshotId,
};
use crate::label::About;
use crate::manifest::PushStats;
use crate::snapshot::{Shrunk, SnapshotState};

/// Asks for a session: one push of one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenSession {
    /// Cluster that the node belongs to.
    pub cluster: ClusterName,
    /// Node that pushes.
    pub node: NodeName,
    /// The manifest of the node's last push, if the client remembers its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ManifestId>,
    /// The session of an earlier push of this node that died: it is over once the new one is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<SessionId>,
    /// Bytes that the push will send, if the client knows: without space for them the push is refused before
    /// it sends any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_bytes: Option<u64>,
}

/// Validity of a client's saved state of an earlier push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseState {
    /// The manifest is there, and its chunks stay for the session.
    Pinned,
    /// No such manifest: every id must be asked for.
    Unknown,
}

/// How the chunks of a dedup domain are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "snake_case")]
pub enum ChunkerSpec {
    /// FastCDC (v2020) with the domain's secret gear table; lengths in bytes, powers of two.
    FastCdc {
        /// Shortest chunk, but for the last of a file.
        min_len: u32,
        /// Average chunk.
        avg_len: u32,
        /// Longest chunk.
        max_len: u32,
    },
    /// Pieces of one length in bytes.
    Fixed {
        /// The length.
        len: u32,
    },
}

impl ChunkerSpec {
    /// Longest chunk that it cuts, in bytes.
    pub fn max_len(&self) -> u32 {
        match self {
            Self::FastCdc { max_len, .. } => *max_len,
            Self::Fixed { len } => *len,
        }
    }
}

/// A session, and what the client needs to push.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionOpened {
    /// Names the session in every later request.
    pub session: SessionId,
    /// Grows with every session that the server opens.
    pub fencing_token: u64,
    /// The session ends this long after its last request.
    pub ttl_ms: u64,
    /// The repository.
    pub repository: RepositoryId,
    /// The dedup domain's key: 64 hex digits.
    pub domain_key: String,
    /// How to cut.
    pub chunker: ChunkerSpec,
    /// Validity of the requested base.
    pub base: BaseState,
    /// True if the session to adopt was open; it has ended now.
    #[serde(default)]
    pub adopted: bool,
}

/// The sessions that are open, the oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenSessions {
    /// One for each push in progress.
    pub sessions: Vec<OpenSessionInfo>,
}

/// An open session, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSessionInfo {
    /// Its id.
    pub session: SessionId,
    /// Cluster of the push.
    pub cluster: ClusterName,
    /// The node that pushes.
    pub node: NodeName,
    /// Seconds since it was granted, or since the server's start if that is later.
    pub age_seconds: u64,
    /// Bytes of blobs that it has sent since then, compressed.
    pub sent_bytes: u64,
}

/// A renewed session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRenewed {
    /// It ends this long after its last request.
    pub ttl_ms: u64,
}

/// Result of a body of frames.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct BlobsStored {
    /// Blobs that were new.
    pub stored: u64,
    /// Blobs that were there already.
    pub known: u64,
    /// Bytes that the new blobs take in packs.
    pub stored_bytes: u64,
}

/// How safe an acknowledged snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// On stable storage of the server's own site.
    Local,
}

/// An acknowledged snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Committed {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// The manifest that was committed: the base of the node's next push.
    pub manifest: ManifestId,
    /// How safe it is when this answer is sent.
    pub durability: Durability,
    /// True if the server's clock jumped, so that the time of the snapshot may be wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_jumped: bool,
}

/// A snapshot for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The nodes in it.
    pub nodes: Vec<NodeName>,
    /// Server time of the commit, RFC 3339 in UTC.
    pub created: String,
    /// Complete or partial.
    pub state: SnapshotState,
    /// Regular files.
    pub files: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Files that are missing from it.
    pub problems: u64,
    /// Statistics of each node's push, where known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pushes: Vec<NodePush>,
    /// For a deleted snapshot: the time until which it can be undeleted, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub going_until: Option<String>,
    /// If it must stay: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<String>,
    /// If it is known that it cannot be restored as it was: what is damaged or lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Its series: snapshots that take each other's place. Servers of earlier builds do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesId>,
    /// The folders of each node, as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<NodeOrigin>,
    /// Its place in the order of all commits; 0 if it is of an earlier build.
    #[serde(default)]
    pub number: u64,
    /// True if it is from a moment that the server's clock has not reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead_of_clock: bool,
    /// If it is suspect: the snapshot that held more than twice as much, and what that held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Shrunk>,
    /// Its labels and its note.
    #[serde(flatten)]
    pub about: About,
}

/// Where one node's share of a snapshot comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOrigin {
    /// The node.
    pub node: NodeName,
    /// The name that the push gave its series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesName>,
    /// The first 16 of its folders at most, as absolute paths; or `stream:NAME` for a stream. Bytes that are no UTF-8
    /// are replaced.
    pub roots: Vec<String>,
    /// How many folders there are.
    pub folders: u32,
}

/// Statistics of the push of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePush {
    /// The node.
    pub node: NodeName,
    /// The statistics.
    #[serde(flatten)]
    pub stats: PushStats,
}

/// Most snapshots that one answer lists.
pub const MAX_SNAPSHOTS: u32 = 1_000;

/// Length of a list in one answer, in bytes; a single snapshot may be longer.
pub const MAX_SNAPSHOTS_LEN: usize = 8 << 20;

/// Snapshots in the order of their commits: all of them, or a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// `after` of the question for the next part; `None` if this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Keys that a reader needs to check the chunks of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotKey {
    /// The dedup domain's key: 64 hex digits.
    pub domain_key: String,
}

/// State of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name and version of the server program.
    pub server: String,
    /// The repository.
    pub repository: RepositoryId,
    /// Index engine in use.
    pub engine: String,
    /// Snapshots.
    pub snapshots: u64,
    /// Packs.
    pub packs: u64,
    /// Chunks and pages.
    pub chunks: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Sessions that are open.
    pub open_sessions: u64,
    /// Active alarms; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<super::Alarm>,
}

/// Why a request failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable name of the error, for programs.
    pub code: String,
    /// Action that the caller can take.
    pub class: ErrorClass,
    /// The error and its causes, for people.
    pub message: String,
    /// For `missing_chunks`: the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<ChunkId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: &str = r#"{
        "session": "01890a5d-ac96-774b-bcce-b302099a8057", "fencing_token": 1, "ttl_ms": 2,
        "repository": "01890a5d-ac96-774b-bcce-b302099a8057", "domain_key": "",
        "chunker": {"algorithm": "fixed", "len": 4096}, "base": "unknown"
    }"#;

    #[test]
    fn a_side_that_knows_nothing_of_adoption_is_understood() {
        let asked: OpenSession = serde_json::from_str(r#"{"cluster": "c", "node": "n"}"#).unwrap();
        let opened: SessionOpened = serde_json::from_str(OPENED).unwrap();

        assert_eq!((asked.adopt, opened.adopted), (None, false));
        assert_eq!(serde_json::to_string(&asked).unwrap(), r#"{"cluster":"c","node":"n"}"#);
    }

    #[test]
    fn a_session_to_adopt_is_named_by_its_id() {
        let id = SessionId::from_bytes([7; 16]);
        let asked = OpenSession {
            cluster: "c".parse().unwrap(),
            node: "n".parse().unwrap(),
            base: None,
            adopt: Some(id),
            expected_bytes: None,
        };

        let back: OpenSession = serde_json::from_slice(&serde_json::to_vec(&asked).unwrap()).unwrap();

        assert_eq!(back.adopt, Some(id));
    }

    #[test]
    fn a_session_may_say_how_much_it_is_going_to_send() {
        let asked: OpenSession =
            serde_json::from_str(r#"{"cluster":"c","node":"n","expected_bytes":5000000000}"#).unwrap();

        assert_eq!(asked.expected_bytes, Some(5_000_000_000));
    }
}
