//! JSON bodies of access: tokens of people and machines. Times are RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

use crate::access::{Network, NodeScope, Role, SecretText};
use crate::id::TokenName;

/// Roles of one token, at most.
pub const MAX_ROLES: usize = 2;

/// Source networks of one token, at most.
pub const MAX_NETWORKS: usize = 64;

/// Asks for a new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Its name, which no other token has.
    pub name: TokenName,
    /// One role, or both roles of nodes.
    pub roles: Vec<Role>,
    /// The nodes that it is about: needed for the roles of nodes, refused for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<NodeScope>,
    /// Its life in seconds; not given: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_seconds: Option<u64>,
    /// Networks that its requests must come from; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Network>,
}

/// A new token. Its secret is in this answer, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The secret that requests carry.
    pub token: SecretText,
    /// The rest of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its name.
    pub name: TokenName,
    /// Its roles.
    pub roles: Vec<Role>,
    /// The nodes that it is about, if it is one of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<NodeScope>,
    /// Networks that its requests must come from; empty: any.
    #[serde(default)]
    pub from: Vec<Network>,
    /// Time of its creation.
    pub created: String,
    /// Its creator: a token by name, or the first token.
    pub created_by: String,
    /// The end of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// True if its life is over.
    #[serde(default)]
    pub is_expired: bool,
    /// Its last use, up to an hour late after a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
}

/// All tokens but the first, which is a file of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Tokens, sorted by name.
    pub tokens: Vec<TokenInfo>,
}
