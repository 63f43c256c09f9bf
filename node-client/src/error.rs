//! What can go wrong on a node, and what the caller can do about it.

use std::io;
use std::path::PathBuf;

use format_spec::wire::ErrorBody;
use format_spec::{ChunkId, ErrorClass, FormatError};

/// A push, restore, list or verify that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A flag, a path or a configuration value cannot be used.
    #[error("{0}")]
    Usage(String),
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The server could not be reached, or stopped answering, after bounded retries.
    #[error("no answer from {server} after {attempts} attempts")]
    Unreachable {
        /// Address as it was given.
        server: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused the request.
    #[error("{server} refused: {} ({})", body.message, body.code)]
    Refused {
        /// Address as it was given.
        server: String,
        /// What it said.
        body: Box<ErrorBody>,
    },
    /// The server's answer is not what this program understands.
    #[error("{server} gave an answer that cannot be used: {why}")]
    Protocol {
        /// Address as it was given.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes from the server, or a file on disk, are not what they should be.
    #[error("{what}")]
    Format {
        /// The object.
        what: String,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// A chunk came back with other bytes.
    #[error("{id} of `{path}` came back with other bytes")]
    Corrupt {
        /// The chunk.
        id: ChunkId,
        /// The file that needs it.
        path: String,
    },
    /// A file or folder of this machine could not be used.
    #[error("{action} `{}`", path.display())]
    Disk {
        /// What was tried, such as `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Compression or decompression failed for lack of memory.
    #[error("compression library")]
    Compression(#[source] io::Error),
    /// A worker thread ended too soon.
    #[error("a worker thread ended too soon: {0}")]
    Worker(&'static str),
}

impl ClientError {
    /// What the caller can do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Usage(_) => ErrorClass::Usage,
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::Unreachable { .. } | Self::Disk { .. } | Self::Compression(_) => ErrorClass::Unavailable,
            Self::Refused { body, .. } => body.class,
            Self::Protocol { .. } | Self::Format { .. } | Self::Corrupt { .. } => ErrorClass::Integrity,
            Self::Worker(_) => ErrorClass::Bug,
        }
    }

    /// The stable code of a refusal by the server.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { body, .. } => Some(&body.code),
            _ => None,
        }
    }
}
