//! JSON bodies of the enrolment of nodes: invitations, certificates, and the list of nodes. Times are RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

use crate::access::{Role, SecretText};
use crate::fingerprint::Fingerprint;
use crate::id::{ClusterName, NodeId, NodeName};

/// Invites a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInvite {
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// The node; not given: the node says its name when it enrols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Roles of the node: `node-push`, `node-restore` or both.
    pub roles: Vec<Role>,
    /// Life of the invitation in seconds.
    pub lasts_seconds: u64,
}

/// A new invitation. Its code is in this answer, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteCreated {
    /// The code that opens the server once.
    pub code: SecretText,
    /// The CA by which a client recognises the server.
    pub ca: Fingerprint,
    /// The rest of it.
    #[serde(flatten)]
    pub info: InviteInfo,
}

/// An invitation without its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteInfo {
    /// The id that the node will have.
    pub id: NodeId,
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// The node, if the invitation is for one name only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Roles of the node.
    pub roles: Vec<Role>,
    /// Time of its creation.
    pub created: String,
    /// Its creator: a token by name, or the first token.
    pub created_by: String,
    /// The end of its life.
    pub expires: String,
    /// State of the invitation.
    pub state: InviteState,
}

/// State of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InviteState {
    /// A node can use it.
    Open,
    /// A node has used it.
    Used,
    /// Its life is over.
    Expired,
}

/// All invitations whose life was not over at the last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invites {
    /// Invitations, the oldest first.
    pub invites: Vec<InviteInfo>,
}

/// Exchanges the code of an invitation for a certificate. A repetition with the same request has the same effect as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The code of the invitation.
    pub code: SecretText,
    /// Request for a certificate (PKCS #10, PEM), signed by the key that was made on the node.
    pub request: String,
    /// Name of the node: needed if the invitation has none, and must be the same if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
}

/// A node that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its id, which never changes.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name in snapshots.
    pub node: NodeName,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Its certificate.
    #[serde(flatten)]
    pub certificate: NodeCertificate,
    /// Certificate of the CA by which it recognises the server, in PEM format.
    pub ca: String,
}

/// Asks for the next certificate of a node. The one that the connection shows stays valid until its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Request for a certificate (PKCS #10, PEM), signed by a new key.
    pub request: String,
}

/// A certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificate {
    /// The certificate and that of its CA, in PEM format.
    pub certificate: String,
    /// The end of its life.
    pub expires: String,
}

/// A node about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSelf {
    /// Its id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name in snapshots.
    pub node: NodeName,
    /// Its roles.
    pub roles: Vec<Role>,
    /// True if the node is to ask for its next certificate now.
    pub renew: bool,
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id, which never changes.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name in snapshots, which never changes.
    pub node: NodeName,
    /// The name that lists show.
    pub title: NodeName,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Time of its enrolment.
    pub enrolled: String,
    /// Creator of its invitation: a token by name, or the first token.
    pub invited_by: String,
    /// The end of its newest certificate.
    pub expires: String,
    /// True if an operator has asked for a new certificate that the node has not fetched yet.
    #[serde(default)]
    pub rotates: bool,
    /// Time at which it was revoked; absent while it has access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// All nodes, also revoked ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Nodes, the oldest first.
    pub nodes: Vec<NodeInfo>,
}

/// Asks a node for a new key and certificate at its next push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// Time in seconds after which the present certificates of the node are refused.
    pub grace_seconds: u64,
}

/// Gives a node another name in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// The name.
    pub title: NodeName,
}
