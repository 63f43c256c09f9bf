//! TLS of the server: the CA of the repository, the certificate that is served, and its renewal.
//!
//! ```text
//! DATA/tls/ca.pem, ca.key           the CA, which signs the certificates of the server and of the nodes
//! DATA/tls/server.pem, server.key   the certificate of the server, unless the configuration names another
//! ```
//! The CA is made once. The certificate of the server is made when it is missing, when a third of its life is left, and
//! when the names of the server change. Files of the configuration are read again when they change. Connections that
//! are open keep the certificate of their handshake.

mod acceptor;
mod authority;
mod certificate;
mod error;
mod files;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use format_spec::Fingerprint;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use acceptor::Accepted;
pub use authority::{Authority, SignedCertificate};
pub use certificate::PeerCertificate;
pub use error::TlsError;
pub use watch::{look, reload};

use crate::clock::Clock;
use crate::durable::{self, Disk, FileName};
use crate::settings::TlsSettings;
use crate::time::rfc3339;
use certificate::Facts;

/// The folder in the data folder.
const FOLDER: &str = "tls";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";

/// TLS of a running server.
pub struct Tls {
    settings: TlsSettings,
    place: Place,
    authority: Arc<Authority>,
    served: RwLock<Arc<Served>>,
    /// Looks in a row that found files that cannot be served, and why.
    refused: Mutex<Option<(u32, String)>>,
}

/// Where certificates are kept, and what makes them.
struct Place {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
}

/// The certificate that new connections get.
struct Served {
    files: Files,
    config: Arc<ServerConfig>,
    facts: Facts,
    anchor: Anchor,
}

/// The CA by which a client recognises the server: the last certificate of the served chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// It, in PEM format.
    pub pem: String,
}

/// Content of the files that a configuration is made of.
#[derive(PartialEq, Eq)]
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
}

/// The result of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// The served certificate is as before.
    Unchanged,
    /// New connections get a new certificate, or are checked against another CA.
    Changed,
}

impl Tls {
    /// TLS of the repository in the data folder `data`, which must exist. Makes the CA and the certificate of the server if
    /// they are missing; they are durable then.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        data: &Path,
        settings: TlsSettings,
        clock: Arc<dyn Clock>,
        random: fn(&mut [u8]),
    ) -> Result<Arc<Self>, TlsError> {
        durable::make_folder(disk.as_ref(), data, &name(FOLDER))?;
        let dir = data.join(FOLDER);
        durable::sweep_temporaries(disk.as_ref(), &dir)?;
        let authority = Authority::open_or_create(disk.as_ref(), &dir, Arc::clone(&clock), random)?;
        let place = Place { disk, dir, clock };
        let served = Served::of(place.files(&settings, &authority)?, &place, &settings, &authority)?;
        Ok(Arc::new(Self {
            settings,
            place,
            authority: Arc::new(authority),
            served: RwLock::new(Arc::new(served)),
            refused: Mutex::default(),
        }))
    }

    /// The CA by which a client recognises the server now.
    pub fn anchor(&self) -> Anchor {
        self.served().anchor.clone()
    }

    /// Life of the certificates of nodes.
    pub fn node_life(&self) -> Duration {
        self.settings.node_life
    }

    /// The time by which certificates are judged, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.place.clock.unix_ms()
    }

    /// The CA of the repository.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Renews the server's own certificate if it is due, or reads the files of the configuration again. New connections
    /// get the result. Blocks.
    ///
    /// # Errors
    /// [`TlsError`]: the certificate stays as it was.
    pub fn refresh(&self) -> Result<Refreshed, TlsError> {
        let files = self.place.files(&self.settings, &self.authority)?;
        let before = self.served();
        if files == before.files {
            return Ok(Refreshed::Unchanged);
        }
        let served = Served::of(files, &self.place, &self.settings, &self.authority)?;
        let now_ms = self.place.clock.unix_ms();
        if served.facts.left(now_ms).is_zero() && !before.facts.left(now_ms).is_zero() {
            let (path, _) = self.place.paths(&self.settings);
            return Err(TlsError::Ended { path, ended: rfc3339(served.facts.not_after_ms) });
        }
        tracing::info!(ends = rfc3339(served.facts.not_after_ms), "new connections get a new certificate");
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
        Ok(Refreshed::Changed)
    }

    /// Takes the handshake of a new connection. The caller sets a time limit.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.served().config);
        acceptor::accept(config, stream).await
    }

    fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// The files of certificate and key that are served.
    fn paths(&self, settings: &TlsSettings) -> (PathBuf, PathBuf) {
        match &settings.files {
            Some(files) => (files.certificate.clone(), files.key.clone()),
            None => (self.dir.join(CERTIFICATE), self.dir.join(KEY)),
        }
    }

    /// The content of all files, with a new certificate of our own if that is due.
    fn files(&self, settings: &TlsSettings, authority: &Authority) -> Result<Files, TlsError> {
        let (certificate, key) = self.paths(settings);
        let (chain, key) = if settings.files.is_some() {
            (files::read(&certificate)?, files::read_key(&key)?)
        } else {
            self.own_pair(settings, authority)?
        };
        Ok(Files { chain, key })
    }

    fn own_pair(
        &self,
        settings: &TlsSettings,
        authority: &Authority,
    ) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        let (certificate, key) = self.paths(settings);
        let chain = files::if_there(files::read(&certificate))?;
        let kept = files::if_there(files::read_key(&key))?;
        if let (Some(chain), Some(key)) = (chain, kept)
            && self.is_good(&chain, &key, settings, authority)
        {
            return Ok((chain, key));
        }
        let made = authority.server_pair(&settings.names)?;
        // A stop between these two leaves a pair that does not fit, and the next start makes another.
        let replace = |file: &str, pem: &str| {
            durable::replace(self.disk.as_ref(), &self.dir, &name(file), pem.as_bytes())
        };
        replace(KEY, &made.key_pem)?;
        replace(CERTIFICATE, &made.chain_pem)?;
        tracing::info!(names = ?settings.names, "made a new certificate of the server");
        Ok((made.chain_pem.into_bytes(), made.key_pem.into_bytes()))
    }

    /// True if a pair of our own can be served for a while.
    fn is_good(&self, chain: &[u8], key: &[u8], settings: &TlsSettings, authority: &Authority) -> bool {
        let (certificate, key_path) = self.paths(settings);
        let chain = files::certificates(&certificate, chain);
        let (Ok(chain), Ok(key)) = (chain, files::key(&key_path, key)) else { return false };
        let fits = chain
            .first()
            .and_then(|der| Facts::of(der))
            .is_some_and(|facts| facts.names == settings.names && !facts.is_due(self.clock.unix_ms()));
        fits && chain.get(1) == Some(authority.der())
            && CertifiedKey::from_der(chain, key, &acceptor::provider()).is_ok()
    }
}

impl Served {
    fn of(
        files: Files,
        place: &Place,
        settings: &TlsSettings,
        authority: &Authority,
    ) -> Result<Self, TlsError> {
        let (certificate, key_path) = place.paths(settings);
        let chain = files::certificates(&certificate, &files.chain)?;
        let key = files::key(&key_path, &files.key)?;
        let facts = chain.first().and_then(|der| Facts::of(der));
        let facts = facts.ok_or_else(|| TlsError::malformed(&certificate, "certificate"))?;
        let anchor = chain.last().cloned().ok_or_else(|| TlsError::malformed(&certificate, "certificate"))?;
        let roots = acceptor::client_roots(authority.der())?;
        let pair = |source| TlsError::Pair { certificate, key: key_path, source };
        let config = acceptor::server_config(chain, key, roots, Arc::clone(&place.clock), pair)?;
        let anchor = Anchor::of(&files.chain, &anchor);
        Ok(Self { files, config, facts, anchor })
    }
}

impl Anchor {
    /// `last` is the last certificate of `chain` in PEM format.
    fn of(chain: &[u8], last: &CertificateDer<'_>) -> Self {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        let chain = String::from_utf8_lossy(chain);
        let pem = chain.rfind(BEGIN).and_then(|at| chain.get(at..)).unwrap_or_default();
        Self { fingerprint: Fingerprint::of(last), pem: pem.to_owned() }
    }
}

fn name(text: &str) -> FileName {
    text.parse().expect("a plain name")
}
