//! Access to a server: roles, networks, and secrets that are compared and never kept.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, NodeName};

/// Keeps hashes of secrets apart from all other BLAKE3 hashes.
const CONTEXT: &str = "astacus 2026-12-01 hash of an access secret";

/// Kind of work that a credential allows. A credential of a node may have both roles of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Push snapshots of its own node, and list them.
    NodePush,
    /// List and read snapshots of its own node.
    NodeRestore,
    /// Read figures and alarms, without paths.
    Monitor,
    /// Run upkeep and decide about snapshots. Reads no content, and weakens no protection.
    Operator,
    /// All requests.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] =
        [Self::NodePush, Self::NodeRestore, Self::Monitor, Self::Operator, Self::Admin];

    /// Its name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodePush => "node-push",
            Self::NodeRestore => "node-restore",
            Self::Monitor => "monitor",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// True for the roles that are limited to a cluster or a node.
    pub const fn is_of_nodes(self) -> bool {
        matches!(self, Self::NodePush | Self::NodeRestore)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: expected `node-push`, `node-restore`, `monitor`, `operator` or `admin`")]
pub struct ParseRoleError(String);

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| ParseRoleError(text.to_owned()))
    }
}

/// The nodes whose snapshots a credential is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeScope {
    /// Their cluster.
    pub cluster: ClusterName,
    /// The node; not given: all nodes of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
}

impl NodeScope {
    /// True if `node` of `cluster` is one of them.
    pub fn has(&self, cluster: &ClusterName, node: &NodeName) -> bool {
        self.cluster == *cluster && self.node.as_ref().is_none_or(|own| own == node)
    }
}

/// Addresses with a common beginning, such as `10.0.0.0/8`. A plain address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a network: expected an address such as 10.1.2.3 or a network such as 10.0.0.0/8, without bits behind its prefix"
)]
pub struct ParseNetworkError(String);

impl Network {
    /// True if `address` is in it. An IPv4 address that is written as an IPv6 one counts as IPv4.
    pub fn has(&self, address: IpAddr) -> bool {
        let (ours, ours_len) = bits(self.address);
        let (theirs, theirs_len) = bits(address.to_canonical());
        let outside = ours_len.saturating_sub(self.prefix_bits);
        ours_len == theirs_len && (ours ^ theirs).checked_shr(outside).unwrap_or(0) == 0
    }
}

/// The bits of an address, and how many there are.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        parse(text).ok_or_else(|| ParseNetworkError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Network> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let (all, len) = bits(address);
    let prefix_bits = match prefix {
        // `u32` would take a plus sign as well.
        Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().ok()?,
        Some(_) => return None,
        None => len,
    };
    let inside = len.checked_sub(prefix_bits)?;
    let behind = all & 1_u128.checked_shl(inside).map_or(u128::MAX, |bit| bit - 1);
    (behind == 0 && address.to_canonical() == address).then_some(Network { address, prefix_bits })
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl TryFrom<String> for Network {
    type Error = ParseNetworkError;

    fn try_from(text: String) -> Result<Self, ParseNetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// BLAKE3 of a secret of 256 random bits. Such a secret cannot be found by trying, so its hash needs neither a salt
/// nor a slow function. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        // The comparison of `blake3::Hash` takes a constant time.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl TryFrom<String> for SecretHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        crate::id::parse_hex_32(&text).map(Self).ok_or("a hash must have 64 hex digits")
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        crate::id::to_hex(&hash.0)
    }
}

/// The text of a secret. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// The secret of 256 bits in hex digits.
    pub fn from_bits(bits: &[u8; 32]) -> Self {
        Self(crate::id::to_hex(bits))
    }

    /// The text, for whom the secret is.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        let has = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().has(address.parse::<IpAddr>().unwrap())
        };
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("10.1.2.3", "10.1.2.3") && !has("10.1.2.3", "10.1.2.2"));
        assert!(has("0.0.0.0/0", "203.0.113.9") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("::/0", "2001:db8::1") && !has("::/0", "203.0.113.9"));
        assert!(has("2001:db8::/32", "2001:db8:9::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("192.0.2.128/25", "192.0.2.255") && !has("192.0.2.128/25", "192.0.2.127"));
        assert!(has("192.0.2.0/24", "::ffff:192.0.2.7"), "IPv4 in IPv6");
    }

    #[test]
    fn a_network_reads_back_from_its_text_and_from_no_other() {
        for text in ["10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let wrong = [
            "",
            "10.0.0.0/33",
            "10.1.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::ffff:10.0.0.1/128",
            "db1",
        ];
        for text in wrong {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_compared_by_hashes_and_shown_nowhere() {
        let secret = SecretText::from_bits(&[7; 32]);
        let hash = SecretHash::of(secret.reveal().as_bytes());

        assert_eq!(hash, SecretHash::of(secret.reveal().as_bytes()));
        assert_ne!(hash, SecretHash::of(b"another"));
        assert_eq!(SecretHash::try_from(String::from(hash)).unwrap(), hash);
        assert!(!format!("{secret:?} {hash:?}").contains("07"));
    }

    #[test]
    fn roles_have_the_names_that_json_gives_them() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
            assert_eq!(role.name().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().is_err());
    }
}
