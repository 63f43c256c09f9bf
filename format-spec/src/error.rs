//! Errors in stored or received bytes, and the class of any error of Astacus.

use crate::id::{ChunkId, PackId};

/// Action that the caller of a failed operation can take. The only input to HTTP statuses and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Fix the command, the request or the configuration.
    Usage,
    /// The repository, snapshot, node or site does not exist.
    NotFound,
    /// The token is missing, wrong or not allowed to do this.
    Denied,
    /// A lease is held, a token is old, the session is over.
    Conflict,
    /// Try again with back-off.
    Unavailable,
    /// Stored bytes do not match their id.
    Integrity,
    /// A bug in Astacus: report it.
    Bug,
}

impl ErrorClass {
    /// The process exit code for this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Bug => 1,
            Self::Usage => 2,
            Self::NotFound => 10,
            Self::Conflict => 11,
            Self::Denied => 12,
            Self::Integrity => 13,
            Self::Unavailable => 14,
        }
    }
}

/// Exit code of a program that did all it was asked for and cannot write its report to standard output.
pub const EXIT_UNREPORTED: u8 = 15;

/// Bytes that are not what they should be. Nothing was returned from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes do not start as this kind of object does.
    #[error("{what} does not start with its magic bytes")]
    Magic {
        /// Kind of object that was expected.
        what: &'static str,
    },
    /// Written by another version of the format.
    #[error("{what} has format version {found}, but this program reads version {expected}")]
    Version {
        /// Kind of object.
        what: &'static str,
        /// Version in the bytes.
        found: u16,
        /// Version this program reads.
        expected: u16,
    },
    /// A field breaks the rules of the format.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Kind of object.
        what: &'static str,
        /// The rule that was broken.
        why: String,
    },
    /// A length is over the limit of the format.
    #[error("{what} of {len} bytes is over the limit of {limit}")]
    TooLong {
        /// Kind of object.
        what: &'static str,
        /// Length found.
        len: u64,
        /// Limit of the format.
        limit: u64,
    },
    /// Authentication failed: altered, truncated, moved, or sealed with another key.
    #[error("{what} fails authentication: altered, or sealed with another key")]
    Unauthentic {
        /// Kind of object.
        what: &'static str,
    },
    /// A plaintext does not have the id it is filed under.
    #[error("the bytes of {expected} do not match its id")]
    WrongChunk {
        /// Id it was filed under.
        expected: ChunkId,
    },
    /// A pack does not have the name it is filed under.
    #[error("the bytes of {expected} hash to {found}")]
    WrongPack {
        /// Name it was filed under.
        expected: PackId,
        /// Hash of its bytes.
        found: PackId,
    },
}

impl FormatError {
    pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed { what, why: why.into() }
    }
}
