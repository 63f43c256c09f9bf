//! Certificates and keys in files.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;

/// The content of a file of certificates.
///
/// # Errors
/// [`TlsError::Read`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// The content of a file of a private key, which only its owner may read or write.
///
/// # Errors
/// [`TlsError::OpenToOthers`], [`TlsError::Read`].
pub(super) fn read_key(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(TlsError::OpenToOthers { path: path.to_owned() });
    }
    read(path)
}

/// `None` in place of the error that a file is missing.
pub(super) fn if_there(read: Result<Vec<u8>, TlsError>) -> Result<Option<Vec<u8>>, TlsError> {
    match read {
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The certificates in PEM text, one or more.
///
/// # Errors
/// [`TlsError::Malformed`], which names `path`.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.ok().filter(|all| !all.is_empty());
    all.ok_or_else(|| TlsError::malformed(path, "certificate"))
}

/// The private key in PEM text.
///
/// # Errors
/// [`TlsError::Malformed`], which names `path`.
pub(super) fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::malformed(path, "private key"))
}
