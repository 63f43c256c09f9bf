//! Enrolled nodes: their certificates, and the operators' decisions about them.
//!
//! A node is known by its id, which its certificates name. The registry knows the serial number of each certificate that
//! it has given to a node; one that it does not know opens nothing, whoever has signed it.

use std::collections::BTreeMap;
use std::time::Duration;

use format_spec::access::NodeScope;
use format_spec::wire::{NodeCertificate, NodeInfo, NodeSelf};
use format_spec::{ClusterName, NodeId, NodeName};
use serde::{Deserialize, Serialize};

use super::{Kind, NodeRights, Principal, Refusal, Registry, Source};
use crate::error::ServerError;
use crate::time::{later, rfc3339};

/// Valid certificates of one node, at most: the oldest are refused beyond that.
const MOST_CERTIFICATES: usize = 8;

/// A node as the file holds it. It stays when the node is revoked, so that its id and its history are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRow {
    pub(super) cluster: ClusterName,
    /// The name in snapshots.
    pub(super) node: NodeName,
    /// The name in lists.
    title: NodeName,
    rights: NodeRights,
    enrolled_ms: u64,
    invited_by: String,
    certificates: Vec<CertificateRow>,
    /// True from a demand for a new certificate to the next one.
    #[serde(default)]
    rotates: bool,
    #[serde(default)]
    revoked_ms: Option<u64>,
}

/// A certificate of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateRow {
    serial: String,
    made_ms: u64,
    until_ms: u64,
}

/// A certificate that the CA has just signed.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) certificate_pem: String,
    pub(crate) serial: String,
    pub(crate) not_after_ms: u64,
}

impl Issued {
    pub(super) fn wire(&self) -> NodeCertificate {
        NodeCertificate { certificate: self.certificate_pem.clone(), expires: rfc3339(self.not_after_ms) }
    }
}

/// Identity of a new node.
pub(super) struct Enrolment {
    pub(super) cluster: ClusterName,
    pub(super) node: NodeName,
    pub(super) rights: NodeRights,
    pub(super) invited_by: String,
}

impl NodeRow {
    pub(super) fn new(of: Enrolment, now_ms: u64) -> Self {
        let Enrolment { cluster, node, rights, invited_by } = of;
        Self {
            cluster,
            title: node.clone(),
            node,
            rights,
            enrolled_ms: now_ms,
            invited_by,
            certificates: Vec::new(),
            rotates: false,
            revoked_ms: None,
        }
    }

    pub(super) fn rights(&self) -> NodeRights {
        self.rights
    }

    pub(super) fn is_active(&self) -> bool {
        self.revoked_ms.is_none()
    }

    /// Takes note of a new certificate. Those that have ended are dropped.
    pub(super) fn received(&mut self, issued: &Issued, now_ms: u64) {
        self.certificates.retain(|known| known.until_ms > now_ms);
        let surplus = (self.certificates.len() + 1).saturating_sub(MOST_CERTIFICATES);
        self.certificates.drain(..surplus);
        let (serial, until_ms) = (issued.serial.clone(), issued.not_after_ms);
        self.certificates.push(CertificateRow { serial, made_ms: now_ms, until_ms });
        self.rotates = false;
    }

    /// The certificate with this serial number, if it opens anything at `now_ms`.
    fn check(&self, id: NodeId, serial: &str, now_ms: u64) -> Result<&CertificateRow, Refusal> {
        if !self.is_active() {
            return Err(Refusal::RevokedNode(id));
        }
        let known = self.certificates.iter().find(|known| known.serial == serial);
        known.filter(|known| known.until_ms > now_ms).ok_or(Refusal::OldCertificate(id))
    }

    fn principal(&self, id: NodeId) -> Principal {
        let scope = NodeScope { cluster: self.cluster.clone(), node: Some(self.node.clone()) };
        Principal { kind: Kind::Node { scope, rights: self.rights }, source: Source::Node(id) }
    }

    fn info(&self, id: NodeId) -> NodeInfo {
        let ends_ms = self.certificates.iter().map(|known| known.until_ms).max();
        NodeInfo {
            id,
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            title: self.title.clone(),
            roles: self.rights.roles(),
            enrolled: rfc3339(self.enrolled_ms),
            invited_by: self.invited_by.clone(),
            expires: rfc3339(ends_ms.unwrap_or(self.enrolled_ms)),
            rotates: self.rotates,
            revoked: self.revoked_ms.map(rfc3339),
        }
    }
}

impl CertificateRow {
    /// True if a third of its life or less is left.
    fn is_due(&self, now_ms: u64) -> bool {
        self.until_ms.saturating_sub(now_ms) <= self.until_ms.saturating_sub(self.made_ms) / 3
    }
}

impl Registry {
    /// The principal of a connection that has shown the certificate `serial` of the node `id`.
    ///
    /// # Errors
    /// [`Refusal`]: for the log, and never for the caller.
    pub(crate) fn sign_in_node(&self, id: NodeId, serial: &str, now_ms: u64) -> Result<Principal, Refusal> {
        let document = self.document();
        let row = document.nodes.get(&id).ok_or(Refusal::UnknownNode(id))?;
        row.check(id, serial, now_ms)?;
        Ok(row.principal(id))
    }
}

/// The row of a node.
fn row(nodes: &mut BTreeMap<NodeId, NodeRow>, id: NodeId) -> Result<&mut NodeRow, ServerError> {
    nodes.get_mut(&id).ok_or(ServerError::UnknownNode(id))
}

/// The row of a node that has access.
fn active(nodes: &mut BTreeMap<NodeId, NodeRow>, id: NodeId) -> Result<&mut NodeRow, ServerError> {
    let row = row(nodes, id)?;
    if row.is_active() {
        return Ok(row);
    }
    let why = format!("node {id} is revoked: invite it again to give it access");
    Err(ServerError::Refused { code: "node_revoked", why })
}

/// All nodes, the oldest first.
pub(crate) fn nodes(registry: &Registry) -> Vec<NodeInfo> {
    registry.document().nodes.iter().map(|(id, row)| row.info(*id)).collect()
}

/// The node `id`, which shows the certificate `serial`, about itself.
///
/// # Errors
/// [`ServerError::Unauthorized`] if the certificate opens nothing by now.
pub(crate) fn about(
    registry: &Registry,
    id: NodeId,
    serial: &str,
    now_ms: u64,
) -> Result<NodeSelf, ServerError> {
    let document = registry.document();
    let row = document.nodes.get(&id).ok_or(ServerError::Unauthorized)?;
    let shown = row.check(id, serial, now_ms).map_err(|_| ServerError::Unauthorized)?;
    Ok(NodeSelf {
        id,
        cluster: row.cluster.clone(),
        node: row.node.clone(),
        roles: row.rights.roles(),
        renew: row.rotates || shown.is_due(now_ms),
    })
}

/// Gives the next certificate to the node `id`, which shows the certificate `serial`. That one stays valid until its
/// end. The new one opens the server from the return on. Blocks.
///
/// # Errors
/// Those of `sign`; [`ServerError::Unauthorized`] if the shown certificate opens nothing by now;
/// [`ServerError::Access`]: the new certificate opens nothing.
pub(crate) fn renew(
    registry: &Registry,
    id: NodeId,
    serial: &str,
    now_ms: u64,
    sign: impl FnOnce(NodeId) -> Result<Issued, ServerError>,
) -> Result<NodeCertificate, ServerError> {
    registry.change(|document| {
        let row = document.nodes.get_mut(&id).ok_or(ServerError::Unauthorized)?;
        row.check(id, serial, now_ms).map_err(|_| ServerError::Unauthorized)?;
        let issued = sign(id)?;
        row.received(&issued, now_ms);
        Ok(issued.wire())
    })
}

/// Takes all access from a node, durably. Its snapshots stay. Blocks.
///
/// # Errors
/// [`ServerError::UnknownNode`]; [`ServerError::Access`]: the node still has access.
pub(crate) fn revoke_node(registry: &Registry, id: NodeId, now_ms: u64) -> Result<NodeInfo, ServerError> {
    registry.change(|document| {
        let row = row(&mut document.nodes, id)?;
        row.revoked_ms = row.revoked_ms.or(Some(now_ms));
        Ok(row.info(id))
    })
}

/// Asks a node for a new key at its next push, and ends its present certificates after `grace`. Blocks.
///
/// # Errors
/// [`ServerError::UnknownNode`]; [`ServerError::Refused`] if it is revoked; [`ServerError::Access`].
pub(crate) fn rotate(
    registry: &Registry,
    id: NodeId,
    grace: Duration,
    now_ms: u64,
) -> Result<NodeInfo, ServerError> {
    registry.change(|document| {
        let row = active(&mut document.nodes, id)?;
        for known in &mut row.certificates {
            known.until_ms = known.until_ms.min(later(now_ms, grace));
        }
        row.rotates = true;
        Ok(row.info(id))
    })
}

/// Gives a node another name in lists. Its id, and its name in snapshots, stay. Blocks.
///
/// # Errors
/// [`ServerError::UnknownNode`]; [`ServerError::Access`].
pub(crate) fn rename(registry: &Registry, id: NodeId, title: NodeName) -> Result<NodeInfo, ServerError> {
    registry.change(|document| {
        let row = row(&mut document.nodes, id)?;
        row.title = title;
        Ok(row.info(id))
    })
}
