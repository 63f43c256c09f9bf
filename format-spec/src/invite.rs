//! The invitation of a node: one word that an operator hands to a machine, and that the machine exchanges for a
//! certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::access::SecretText;
use crate::fingerprint::Fingerprint;
use crate::id::{ClusterName, NodeName, parse_hex_32};

const PREFIX: &str = "astacus-invite:";
/// Version of the word. Other versions are refused.
const VERSION: &str = "1";
/// Longest word, in bytes.
pub const MAX_INVITE_LEN: usize = 1024;

/// An invitation: where the server is, how to recognise it, and the code that opens it once.
///
/// Its text is `astacus-invite:1/HOST:PORT/CA/CODE/CLUSTER` or `…/CLUSTER/NODE`: CA and CODE are 64 hex digits. It has
/// no character that a shell or a URL changes, except for the brackets of an IPv6 address. `Debug` hides the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Host and port of the server, as the node reaches it.
    pub authority: String,
    /// The CA that the certificate of the server must come from.
    pub ca: Fingerprint,
    /// The secret that the server exchanges for a certificate.
    pub code: SecretText,
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// The node, if the invitation is for one name only.
    pub node: Option<NodeName>,
}

/// Text that is no invitation. It does not show the text, which may hold a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not an invitation: {0}")]
pub struct ParseInviteError(String);

impl Invite {
    /// Address of the server.
    pub fn server(&self) -> String {
        format!("https://{}", self.authority)
    }
}

/// The host and port of `url`, which must be `https://HOST:PORT` or `https://HOST`.
///
/// # Errors
/// The reason why `url` is no such address, in words.
pub fn authority_of(url: &str) -> Result<String, String> {
    let expected = || format!("`{url}` is not an address of TLS: expected https://HOST:PORT");
    let authority = url.strip_prefix("https://").ok_or_else(expected)?.trim_end_matches('/');
    if is_authority(authority) { Ok(authority.to_owned()) } else { Err(expected()) }
}

fn is_authority(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= 300 && text.bytes().all(plain)
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, ca, code, cluster, node } = self;
        write!(f, "{PREFIX}{VERSION}/{authority}/{ca}/{}/{cluster}", code.reveal())?;
        node.as_ref().map_or(Ok(()), |node| write!(f, "/{node}"))
    }
}

impl FromStr for Invite {
    type Err = ParseInviteError;

    fn from_str(text: &str) -> Result<Self, ParseInviteError> {
        let no = |why: &str| ParseInviteError(why.to_owned());
        let text = text.trim();
        if text.len() > MAX_INVITE_LEN {
            return Err(no("it is too long"));
        }
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| no("it must begin with `astacus-invite:`"))?;
        let mut parts = rest.split('/');
        let mut next = |what: &str| parts.next().ok_or_else(|| no(&format!("it ends before its {what}")));
        if next("version")? != VERSION {
            return Err(no("its version is unknown: use a client of the same release as the server"));
        }
        let authority = next("server")?.to_owned();
        if !is_authority(&authority) {
            return Err(no("its server is not HOST:PORT"));
        }
        let ca = next("CA")?.parse().map_err(|_| no("its fingerprint of the CA must have 64 hex digits"))?;
        let code = next("code")?;
        let code = parse_hex_32(code).ok_or_else(|| no("its code must have 64 hex digits"))?;
        let cluster = next("cluster")?.parse().map_err(|_| no("its cluster is not a name"))?;
        let node = parts.next().map(str::parse).transpose().map_err(|_| no("its node is not a name"))?;
        if parts.next().is_some() {
            return Err(no("it has too many parts"));
        }
        Ok(Self { authority, ca, code: SecretText::from_bits(&code), cluster, node })
    }
}

impl Serialize for Invite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(authority: &str, node: Option<&str>) -> Invite {
        Invite {
            authority: authority.to_owned(),
            ca: Fingerprint::of(b"ca"),
            code: SecretText::from_bits(&[0xc0; 32]),
            cluster: "orders".parse().unwrap(),
            node: node.map(|node| node.parse().unwrap()),
        }
    }

    #[test]
    fn an_invitation_reads_back_from_its_text() {
        for invite in [
            invite("backup.example:5515", Some("db1")),
            invite("127.0.0.2:5515", None),
            invite("[::1]:5515", Some("db-1.example")),
        ] {
            let text = invite.to_string();

            assert_eq!(text.parse::<Invite>().unwrap(), invite);
            assert_eq!(format!(" {text}\n").parse::<Invite>().unwrap(), invite);
            assert!(!text.contains([' ', '&', '?', '$', '\'', '"', '*']), "{text}");
        }
        assert_eq!(invite("backup:5515", None).server(), "https://backup:5515");
    }

    #[test]
    fn other_texts_are_refused_and_never_shown() {
        let text = invite("backup:5515", Some("db1")).to_string();
        let wrong = [
            String::new(),
            "astacus-invite:".to_owned(),
            text.replace("astacus-invite", "invite"),
            text.replace(":1/", ":2/"),
            text.replace("backup", "back up"),
            text.replace("backup", "a@b"),
            text.replace("c0c0", "c0"),
            text.replace("orders", "-"),
            format!("{text}/more"),
            format!("{text}/"),
            text.replace("db1", ""),
            text.replace("db1", &"x".repeat(MAX_INVITE_LEN)),
        ];
        for text in wrong {
            let error = text.parse::<Invite>().unwrap_err().to_string();
            assert!(!error.contains("c0c0"), "{error}");
        }
        assert!(!format!("{:?}", invite("backup:5515", None)).contains("c0c0"));
    }

    #[test]
    fn only_an_address_of_tls_goes_into_an_invitation() {
        assert_eq!(authority_of("https://backup:5515/"), Ok("backup:5515".to_owned()));
        for wrong in ["http://backup:5515", "backup:5515", "https://", "https://a/b", "https://a b"] {
            assert!(authority_of(wrong).is_err(), "{wrong}");
        }
    }
}
