//! Why certificates cannot be used or made.

use std::io;
use std::path::{Path, PathBuf};

use format_spec::ErrorClass;

use crate::durable::DurableError;

/// Why a certificate, a key or a request for a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum TlsError {
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write a private key.
    #[error(
        "{} is accessible to other users: run `chmod 600 {}`, and replace the key if somebody may have read it",
        path.display(), path.display()
    )]
    OpenToOthers { path: PathBuf },
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM format", path.display())]
    Malformed { path: PathBuf, what: &'static str },
    /// A certificate and a key cannot be served together.
    #[error("the certificate in {} cannot be served with the key in {}", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    /// Certificates of clients cannot be checked against the CA.
    #[error("the CA for certificates of clients cannot be used")]
    ClientCa(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The new certificate has ended, and the present one has not.
    #[error("the certificate in {} ended on {ended}", path.display())]
    Ended { path: PathBuf, ended: String },
    /// The certificate of the CA is lost, or its key is.
    #[error(
        "{} is missing: restore it from your copy. Without one, delete the folder that holds it: the server then makes a new CA, and all nodes must enroll again",
        path.display()
    )]
    NoAuthority { path: PathBuf },
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[source] rcgen::Error),
    /// A request for a certificate is not one.
    #[error("the certificate request is invalid")]
    Request(#[source] rcgen::Error),
    /// A file could not be made.
    #[error("write the certificates of the server")]
    Write(#[from] DurableError),
}

impl TlsError {
    /// Action that the operator can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::NoAuthority { .. } => ErrorClass::NotFound,
            Self::OpenToOthers { .. }
            | Self::Malformed { .. }
            | Self::Pair { .. }
            | Self::ClientCa(_)
            | Self::Ended { .. }
            | Self::Request(_) => ErrorClass::Usage,
            Self::Read { .. } | Self::Write(_) => ErrorClass::Unavailable,
            Self::Make(_) => ErrorClass::Bug,
        }
    }

    pub(super) fn malformed(path: &Path, what: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), what }
    }
}
