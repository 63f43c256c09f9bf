//! Enrolment of nodes: invitations, certificates, and the list of nodes.

use format_spec::{NodeId, wire};
use hyper::Method;

use super::{Api, Call, OCTETS};
use crate::api::Segments;
use crate::error::ClientError;

impl Api {
    /// Exchanges the code of an invitation for a certificate. Needs no other credential.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session); an invitation that cannot be used is denied.
    pub async fn enrol(&self, request: &wire::EnrolRequest) -> Result<wire::Enrolled, ClientError> {
        self.json(Call::json("/v1/enroll".to_owned(), request)).await
    }

    /// This node, as the server knows it by its certificate.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn this_node(&self) -> Result<wire::NodeSelf, ClientError> {
        self.json(Call::get("/v1/nodes/self".to_owned())).await
    }

    /// The next certificate of this node. The present one stays valid until its end.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn next_certificate(
        &self,
        request: &wire::RenewRequest,
    ) -> Result<wire::NodeCertificate, ClientError> {
        self.json(Call::json("/v1/nodes/self/certificate".to_owned(), request)).await
    }

    /// Invites a node. The code in the answer is nowhere else.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn invite(&self, asked: &wire::NewInvite) -> Result<wire::InviteCreated, ClientError> {
        self.json(Call::json("/v1/nodes/invites".to_owned(), asked)).await
    }

    /// The invitations whose life is not over, the oldest first.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn invites(&self) -> Result<wire::Invites, ClientError> {
        self.json(Call::get("/v1/nodes/invites".to_owned())).await
    }

    /// Withdraws an invitation.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn uninvite(&self, id: NodeId) -> Result<(), ClientError> {
        let call = Call::get(format!("/v1/nodes/invites/{id}"));
        self.bytes(Call { method: Method::DELETE, ..call }).await.map(|_| ())
    }

    /// All nodes, also revoked ones, the oldest first.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn nodes(&self) -> Result<wire::Nodes, ClientError> {
        self.json(Call::get("/v1/nodes".to_owned())).await
    }

    /// Takes all access from a node.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn revoke_node(&self, id: NodeId) -> Result<wire::NodeInfo, ClientError> {
        self.json(Call::post(format!("/v1/nodes/{id}/revoke"), OCTETS, Segments::default())).await
    }

    /// Asks a node for a new key at its next command.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn rotate_node(
        &self,
        id: NodeId,
        asked: &wire::RotateRequest,
    ) -> Result<wire::NodeInfo, ClientError> {
        self.json(Call::json(format!("/v1/nodes/{id}/rotate"), asked)).await
    }

    /// Gives a node another name in lists.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn rename_node(
        &self,
        id: NodeId,
        asked: &wire::RenameRequest,
    ) -> Result<wire::NodeInfo, ClientError> {
        self.json(Call::json(format!("/v1/nodes/{id}/rename"), asked)).await
    }
}
