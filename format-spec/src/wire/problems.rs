//! Bodies that name the files of a snapshot that are not as they should be.

use serde::{Deserialize, Serialize};

use crate::id::NodeName;

/// Most files in one answer.
pub const MAX_FILE_PROBLEMS: u32 = 1_000;

/// How much of a file or folder a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The snapshot has nothing of the file that could be restored.
    Missing,
    /// The file or folder, but not all that belongs to it: the reason says what is missing.
    Incomplete,
    /// A mixture of states that may never have been one.
    Torn,
    /// A mixture of states that the owner's own log repairs: the snapshot is not partial because of it.
    Fuzzy,
}

/// A file or folder that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProblem {
    /// Its path on the node.
    pub path: String,
    /// How much of it the snapshot holds.
    pub state: FileState,
    /// Why, for people; not known of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Some of one node's files that are not as they should be, in path order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProblems {
    /// The node.
    pub node: NodeName,
    /// The files. There may be none although more follow.
    pub problems: Vec<FileProblem>,
    /// Position to continue from: `after` of the next request. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
