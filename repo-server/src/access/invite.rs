//! Invitations: a code that one node exchanges for its first certificate, once.

use std::collections::BTreeMap;

use format_spec::access::{SecretHash, SecretText};
use format_spec::wire::{EnrolRequest, InviteInfo, InviteState, NewInvite, NodeCertificate};
use format_spec::{ClusterName, NodeId, NodeName};
use serde::{Deserialize, Serialize};

use super::node::{Enrolment, Issued, NodeRow};
use super::{Document, NodeRights, Registry, Source};
use crate::error::ServerError;
use crate::time::rfc3339;

/// Longest life of an invitation.
pub(super) const LONGEST_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Invitations whose life is not over, at most.
pub(super) const MOST_INVITES: usize = 1000;
/// Enrolled nodes of one server, at most, also revoked ones.
const MOST_NODES: usize = 20_000;

/// An invitation as the file holds it: its code as a hash. A used one stays until the end of its life, so that a node
/// that lost the answer can ask again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteRow {
    hash: SecretHash,
    cluster: ClusterName,
    #[serde(default)]
    node: Option<NodeName>,
    rights: NodeRights,
    created_ms: u64,
    created_by: String,
    expires_ms: u64,
    /// Hash of the request that used it.
    #[serde(default)]
    used_by: Option<SecretHash>,
}

/// A new invitation.
pub(crate) struct Invited {
    pub(crate) code: SecretText,
    pub(crate) info: InviteInfo,
}

/// A node with its first certificate.
pub(crate) struct Admitted {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeName,
    pub(crate) rights: NodeRights,
    pub(crate) certificate: NodeCertificate,
}

impl InviteRow {
    fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms <= now_ms
    }

    fn info(&self, id: NodeId, now_ms: u64) -> InviteInfo {
        let state = match self.used_by {
            Some(_) => InviteState::Used,
            None if self.is_expired(now_ms) => InviteState::Expired,
            None => InviteState::Open,
        };
        InviteInfo {
            id,
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            roles: self.rights.roles(),
            created: rfc3339(self.created_ms),
            created_by: self.created_by.clone(),
            expires: rfc3339(self.expires_ms),
            state,
        }
    }

    /// The name of the node that uses it.
    fn name(&self, offered: Option<&NodeName>) -> Result<NodeName, ServerError> {
        match (&self.node, offered) {
            (Some(name), Some(offered)) if name != offered => {
                let why = format!("the invitation is for the node `{name}`, not for `{offered}`");
                Err(ServerError::Refused { code: "other_node", why })
            }
            (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
            (None, None) => {
                let why = "the invitation names no node: give one with --node".to_owned();
                Err(ServerError::BadRequest { code: "no_node", why })
            }
        }
    }
}

/// Makes the invitation that `by` asks for, from `secret` bits. It is durable when this returns. Blocks.
///
/// # Errors
/// [`ServerError::BadRequest`] for roles that are not those of nodes, or a life that is too long;
/// [`ServerError::Refused`] if there are too many; [`ServerError::Access`].
pub(crate) fn invite(
    registry: &Registry,
    asked: NewInvite,
    by: &Source,
    id: NodeId,
    secret: &[u8; 32],
    now_ms: u64,
) -> Result<Invited, ServerError> {
    let bad = |why: String| ServerError::BadRequest { code: "bad_invite", why };
    let NewInvite { cluster, node, roles, lasts_seconds } = asked;
    let rights = NodeRights::of(&roles)
        .ok_or_else(|| bad("a node has the role node-push, node-restore, or both".to_owned()))?;
    if !(1..=LONGEST_SECONDS).contains(&lasts_seconds) {
        return Err(bad(format!("the life of an invitation is 1 to {LONGEST_SECONDS} seconds")));
    }
    let code = SecretText::from_bits(secret);
    let row = InviteRow {
        hash: SecretHash::of(code.reveal().as_bytes()),
        cluster,
        node,
        rights,
        created_ms: now_ms,
        created_by: by.to_string(),
        expires_ms: now_ms.saturating_add(lasts_seconds * 1000),
        used_by: None,
    };
    let info = row.info(id, now_ms);
    registry.change(|document| {
        document.invites.retain(|_, invite| !invite.is_expired(now_ms));
        if document.invites.len() >= MOST_INVITES {
            let why = format!("there are {MOST_INVITES} invitations, the maximum: withdraw some first");
            return Err(ServerError::Refused { code: "too_many_invites", why });
        }
        document.invites.insert(id, row);
        Ok(())
    })?;
    Ok(Invited { code, info })
}

/// Invitations, the oldest first.
pub(crate) fn invites(registry: &Registry, now_ms: u64) -> Vec<InviteInfo> {
    registry.document().invites.iter().map(|(id, invite)| invite.info(*id, now_ms)).collect()
}

/// Withdraws an invitation, durably. A node that has used it keeps its access. Blocks.
///
/// # Errors
/// [`ServerError::UnknownInvite`]; [`ServerError::Access`]: the invitation can still be used.
pub(crate) fn uninvite(registry: &Registry, id: NodeId) -> Result<(), ServerError> {
    registry.change(|document| document.invites.remove(&id).map(|_| ()).ok_or(ServerError::UnknownInvite(id)))
}

/// Enrols the node that offers the code of an invitation, with a certificate by `sign`. Node, certificate and the use of
/// the invitation are durable when this returns, as one. The same request again, while the life of the invitation lasts,
/// gives another certificate to the same node. Blocks.
///
/// # Errors
/// [`ServerError::NoInvite`] for a code that is unknown, used, withdrawn or expired; those of `sign`;
/// [`ServerError::Refused`] if the name is taken or another than that of the invitation; [`ServerError::Access`]. The
/// invitation is unused after all of these.
pub(crate) fn enrol(
    registry: &Registry,
    asked: &EnrolRequest,
    now_ms: u64,
    sign: impl FnOnce(NodeId) -> Result<Issued, ServerError>,
) -> Result<Admitted, ServerError> {
    let offered = SecretHash::of(asked.code.reveal().as_bytes());
    let request = SecretHash::of(asked.request.as_bytes());
    registry.change(|document| {
        let Document { nodes, invites, .. } = document;
        let (id, invite) = find(invites, &offered, now_ms)?;
        let row = match invite.used_by {
            Some(used_by) if used_by != request => return Err(ServerError::NoInvite),
            Some(_) => nodes.get_mut(&id).filter(|row| row.is_active()).ok_or(ServerError::NoInvite)?,
            None => {
                let node = new_node(nodes, invite, asked.node.as_ref(), now_ms)?;
                nodes.entry(id).or_insert(node)
            }
        };
        let issued = sign(id)?;
        row.received(&issued, now_ms);
        invite.used_by = Some(request);
        Ok(Admitted {
            id,
            cluster: row.cluster.clone(),
            node: row.node.clone(),
            rights: row.rights(),
            certificate: issued.wire(),
        })
    })
}

/// The invitation with the offered code. Takes a time that depends on the number of invitations alone.
fn find<'a>(
    invites: &'a mut BTreeMap<NodeId, InviteRow>,
    offered: &SecretHash,
    now_ms: u64,
) -> Result<(NodeId, &'a mut InviteRow), ServerError> {
    let mut found = None;
    for (id, invite) in invites {
        if invite.hash == *offered {
            found = Some((*id, invite));
        }
    }
    found.filter(|(_, invite)| !invite.is_expired(now_ms)).ok_or(ServerError::NoInvite)
}

fn new_node(
    nodes: &BTreeMap<NodeId, NodeRow>,
    invite: &InviteRow,
    offered: Option<&NodeName>,
    now_ms: u64,
) -> Result<NodeRow, ServerError> {
    let refused = |code, why| ServerError::Refused { code, why };
    let (cluster, node) = (invite.cluster.clone(), invite.name(offered)?);
    let is_same = |row: &NodeRow| row.is_active() && row.cluster == cluster && row.node == node;
    if let Some((id, _)) = nodes.iter().find(|(_, row)| is_same(row)) {
        let why = format!(
            "the cluster `{cluster}` has a node `{node}` (id {id}): revoke it first with `astacus-admin node revoke {id}`"
        );
        return Err(refused("node_taken", why));
    }
    if nodes.len() >= MOST_NODES {
        return Err(refused("too_many_nodes", format!("there are {MOST_NODES} nodes, the maximum")));
    }
    let of = Enrolment { cluster, node, rights: invite.rights, invited_by: invite.created_by.clone() };
    Ok(NodeRow::new(of, now_ms))
}
