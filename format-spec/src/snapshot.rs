//! A snapshot: the manifests of all nodes of a cluster for one moment.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::FormatError;
use crate::id::{ClusterName, ManifestId, NodeName, SnapshotId};
use crate::manifest::{PushStats, Totals};

/// Where a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Every file of every node is in it.
    #[n(0)]
    Complete,
    /// Some files could not be read; its manifests name them.
    #[n(1)]
    Partial,
}

/// One node's share of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ManifestRef {
    /// The node.
    #[n(0)]
    pub node: NodeName,
    /// Its manifest.
    #[n(1)]
    pub id: ManifestId,
    /// What the manifest adds up to.
    #[n(2)]
    pub totals: Totals,
    /// What its push did.
    #[n(3)]
    pub push: Option<PushStats>,
}

/// The manifests of all nodes for one moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Snapshot {
    /// Format version.
    #[n(0)]
    pub version: u16,
    /// Its id.
    #[n(1)]
    pub id: SnapshotId,
    /// The cluster.
    #[n(2)]
    pub cluster: ClusterName,
    /// Server time of the commit, in milliseconds since 1970.
    #[n(3)]
    pub created_ms: u64,
    /// Complete or partial.
    #[n(4)]
    pub state: SnapshotState,
    /// One manifest per node, sorted by node.
    #[n(5)]
    pub manifests: Vec<ManifestRef>,
}

impl Snapshot {
    /// Its CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The snapshot that `bytes` stand for.
    ///
    /// # Errors
    /// [`FormatError`]; an unknown version is an error, never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let snapshot: Self = cbor::decode("snapshot", bytes)?;
        crate::object::check_version("snapshot", snapshot.version)?;
        Ok(snapshot)
    }

    /// The share of `node`.
    pub fn manifest_of(&self, node: &NodeName) -> Option<&ManifestRef> {
        self.manifests.iter().find(|manifest| manifest.node == *node)
    }
}
