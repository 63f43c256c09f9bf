//! Tokens of people and machines: made, listed, revoked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use format_spec::access::{Network, NodeScope, Role, SecretHash, SecretText};
use format_spec::wire::{MAX_NETWORKS, MAX_ROLES, NewToken, TokenCreated, TokenInfo};
use format_spec::{NodeId, TokenName};
use serde::{Deserialize, Serialize};

use super::{Kind, NodeRights, Principal, Registry, Source};
use crate::error::ServerError;
use crate::time::rfc3339;

/// Tokens of one server, at most: each sign-in compares all of them.
pub(super) const MOST_TOKENS: usize = 1000;

/// A token as the file holds it: its secret as a hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRow {
    pub(super) hash: SecretHash,
    roles: Roles,
    #[serde(default)]
    from: Vec<Network>,
    created_ms: u64,
    created_by: String,
    #[serde(default)]
    expires_ms: Option<u64>,
    #[serde(default)]
    pub(super) last_used_ms: Option<u64>,
}

/// Roles that go together, with the nodes that they are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Roles {
    Admin,
    Operator,
    Monitor,
    NodePush(NodeScope),
    NodeRestore(NodeScope),
    NodePushAndRestore(NodeScope),
}

/// Reason for which a request has no principal. All reasons get the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no credential")]
    NoCredential,
    #[error("unknown token")]
    Unknown,
    #[error("token {0} has expired")]
    Expired(TokenName),
    #[error("token {0} may not be used from this address")]
    WrongNetwork(TokenName),
    #[error("unknown node {0}")]
    UnknownNode(NodeId),
    #[error("node {0} is revoked")]
    RevokedNode(NodeId),
    #[error("the certificate of node {0} is not one of its present ones")]
    OldCertificate(NodeId),
}

impl Roles {
    fn new(roles: &[Role], scope: Option<NodeScope>) -> Result<Self, ServerError> {
        let has = |role| roles.contains(&role);
        match (roles, scope) {
            ([] | [_, _, _, ..], _) => Err(bad(format!("a token needs 1 to {MAX_ROLES} roles"))),
            ([role], None) if role.is_of_nodes() => {
                Err(bad(format!("a token with the role {role} needs a cluster")))
            }
            ([Role::NodePush], Some(scope)) => Ok(Self::NodePush(scope)),
            ([Role::NodeRestore], Some(scope)) => Ok(Self::NodeRestore(scope)),
            ([role], Some(_)) => {
                Err(bad(format!("a token with the role {role} cannot be limited to a cluster")))
            }
            ([Role::Admin], None) => Ok(Self::Admin),
            ([Role::Operator], None) => Ok(Self::Operator),
            ([Role::Monitor], None) => Ok(Self::Monitor),
            ([_, _], Some(scope)) if has(Role::NodePush) && has(Role::NodeRestore) => {
                Ok(Self::NodePushAndRestore(scope))
            }
            _ => Err(bad("only node-push and node-restore go together, and they need a cluster".to_owned())),
        }
    }

    fn all(&self) -> Vec<Role> {
        match self {
            Self::Admin => vec![Role::Admin],
            Self::Operator => vec![Role::Operator],
            Self::Monitor => vec![Role::Monitor],
            Self::NodePush(_) => vec![Role::NodePush],
            Self::NodeRestore(_) => vec![Role::NodeRestore],
            Self::NodePushAndRestore(_) => vec![Role::NodePush, Role::NodeRestore],
        }
    }

    fn kind(&self) -> Kind {
        let node = |scope: &NodeScope, rights| Kind::Node { scope: scope.clone(), rights };
        match self {
            Self::Admin => Kind::Administrator,
            Self::Operator => Kind::Operator,
            Self::Monitor => Kind::Monitor,
            Self::NodePush(scope) => node(scope, NodeRights::Push),
            Self::NodeRestore(scope) => node(scope, NodeRights::Restore),
            Self::NodePushAndRestore(scope) => node(scope, NodeRights::PushAndRestore),
        }
    }
}

impl TokenRow {
    /// Refuses a token whose life is over, and one that comes from elsewhere than it may.
    pub(super) fn check(&self, name: &TokenName, peer: Option<IpAddr>, now_ms: u64) -> Result<(), Refusal> {
        if self.is_expired(now_ms) {
            return Err(Refusal::Expired(name.clone()));
        }
        let is_near = |peer| self.from.iter().any(|network| network.has(peer));
        if !self.from.is_empty() && !peer.is_some_and(is_near) {
            return Err(Refusal::WrongNetwork(name.clone()));
        }
        Ok(())
    }

    pub(super) fn principal(&self, name: &TokenName) -> Principal {
        Principal { kind: self.roles.kind(), source: Source::Token(name.clone()) }
    }

    pub(super) fn used_at(&mut self, used_ms: u64) {
        self.last_used_ms = self.last_used_ms.max(Some(used_ms));
    }

    fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    fn info(&self, name: &TokenName, last_used_ms: Option<u64>, now_ms: u64) -> TokenInfo {
        TokenInfo {
            name: name.clone(),
            roles: self.roles.all(),
            scope: self.principal(name).scope().cloned(),
            from: self.from.clone(),
            created: rfc3339(self.created_ms),
            created_by: self.created_by.clone(),
            expires: self.expires_ms.map(rfc3339),
            is_expired: self.is_expired(now_ms),
            last_used: last_used_ms.map(rfc3339),
        }
    }
}

fn bad(why: String) -> ServerError {
    ServerError::BadRequest { code: "bad_token", why }
}

/// Makes the token that `by` asks for, from `secret` bits. It is durable when this returns. Blocks.
///
/// # Errors
/// [`ServerError::BadRequest`] if the roles do not go together; [`ServerError::Refused`] if the name is taken or
/// there are too many tokens; [`ServerError::Access`].
pub(crate) fn create(
    registry: &Registry,
    asked: NewToken,
    by: &Source,
    secret: &[u8; 32],
    now_ms: u64,
) -> Result<TokenCreated, ServerError> {
    let NewToken { name, roles, scope, lasts_seconds, from } = asked;
    if from.len() > MAX_NETWORKS {
        return Err(bad(format!("a token takes at most {MAX_NETWORKS} networks")));
    }
    let token = SecretText::from_bits(secret);
    let ends = |seconds: u64| now_ms.saturating_add(seconds.saturating_mul(1000));
    let row = TokenRow {
        hash: SecretHash::of(token.reveal().as_bytes()),
        roles: Roles::new(&roles, scope)?,
        from,
        created_ms: now_ms,
        created_by: by.to_string(),
        expires_ms: lasts_seconds.map(ends),
        last_used_ms: None,
    };
    let info = row.info(&name, None, now_ms);
    registry.change(|document| add(&mut document.tokens, name, row))?;
    Ok(TokenCreated { token, info })
}

fn add(
    tokens: &mut BTreeMap<TokenName, TokenRow>,
    name: TokenName,
    row: TokenRow,
) -> Result<(), ServerError> {
    let refused = |code, why| Err(ServerError::Refused { code, why });
    if tokens.contains_key(&name) {
        return refused(
            "name_taken",
            format!("there is a token `{name}`: choose another name, or revoke it first"),
        );
    }
    if tokens.len() >= MOST_TOKENS {
        return refused(
            "too_many_tokens",
            format!("there are {MOST_TOKENS} tokens, the maximum: revoke some first"),
        );
    }
    tokens.insert(name, row);
    Ok(())
}

/// All tokens, sorted by name.
pub(crate) fn list(registry: &Registry, now_ms: u64) -> Vec<TokenInfo> {
    let document = registry.document();
    let info =
        |(name, token): (&TokenName, &TokenRow)| token.info(name, registry.last_use(name, token), now_ms);
    document.tokens.iter().map(info).collect()
}

/// Revokes a token, durably: it opens nothing from the next request on. Blocks.
///
/// # Errors
/// [`ServerError::NoToken`]; [`ServerError::Access`]: the token still works.
pub(crate) fn revoke(registry: &Registry, name: &TokenName) -> Result<(), ServerError> {
    registry.change(|document| match document.tokens.remove(name) {
        Some(_) => Ok(()),
        None => Err(ServerError::NoToken(name.clone())),
    })
}
