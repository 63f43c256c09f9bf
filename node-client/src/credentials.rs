//! How a client shows who it is, and how it knows its server.

use std::path::PathBuf;

use format_spec::Fingerprint;

/// Credentials for one server. No part of them is ever printed.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The access token; none if a certificate is enough.
    pub token: Option<String>,
    /// The CA by which the server is known; without TLS it is not asked for.
    pub trust: Trust,
    /// File with the key and the certificate chain of this node, in PEM format, which only its owner may read.
    pub identity: Option<PathBuf>,
}

/// The CA that must have signed the certificate of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// One of those that the system trusts.
    #[default]
    System,
    /// One of those in this file, in PEM format.
    File(PathBuf),
    /// The one with this fingerprint, which the server sends with its certificate.
    Pinned(Fingerprint),
}

impl Credentials {
    /// A token, and nothing else.
    pub fn token(token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::default() }
    }
}
