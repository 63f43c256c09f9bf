//! Enrolment of this machine as a node, and the renewal of its certificate.
//!
//! ```text
//! FOLDER/client.toml        server, ca, identity, cluster and node: written last
//! FOLDER/node.pem           key and certificate in one file, mode 0600, always replaced as a whole
//! FOLDER/ca.pem             the CA by which the server is known
//! FOLDER/node.key.pending   the key of an enrolment that is not finished, mode 0600
//! ```
//! The key is made here and never leaves the machine. An enrolment that was cut short continues with the same key when
//! the command is run again with the same invitation.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use format_spec::wire::{EnrolRequest, RenewRequest};
use format_spec::{ClusterName, Fingerprint, Invite, NodeId, NodeName};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use crate::api::{Api, Retry};
use crate::credentials::{Credentials, Trust};
use crate::durable;
use crate::error::ClientError;
use crate::show::Show;

/// Handling of a configuration file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Replace server, credentials, cluster and node in it. Its jobs stay; its comments do not.
    Replace,
}

/// An enrolment to run.
pub struct Enrolment {
    /// The invitation of the server.
    pub invite: Invite,
    /// Name of the node; `None`: that of the invitation.
    pub node: Option<NodeName>,
    /// The configuration file to write. The other files are written beside it.
    pub config: PathBuf,
    /// Handling of a configuration file that exists.
    pub existing: Existing,
}

/// A finished enrolment.
#[derive(Debug, Clone, Serialize)]
pub struct EnrolReport {
    /// Id of the node, which never changes.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name in snapshots.
    pub node: NodeName,
    /// Address of the server.
    pub server: String,
    /// The end of its certificate.
    pub expires: String,
    /// The configuration file that was written.
    pub config: PathBuf,
}

impl Show for EnrolReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { id, cluster, node, server, expires, config } = self;
        writeln!(out, "enrolled node {node} of cluster {cluster} at {server} (id {id})")?;
        writeln!(
            out,
            "its certificate ends at {expires} and is renewed before that by the commands of the node"
        )?;
        writeln!(out, "wrote {}", config.display())
    }

    fn is_news(&self) -> bool {
        false
    }
}

/// The files of an enrolment.
struct Files {
    folder: PathBuf,
    config: PathBuf,
    identity: PathBuf,
    ca: PathBuf,
    pending: PathBuf,
}

impl Files {
    fn beside(config: &Path) -> Result<Self, ClientError> {
        let config = std::path::absolute(config).map_err(|source| disk("find", config, source))?;
        let folder = config.parent().unwrap_or(Path::new("/")).to_owned();
        let [identity, ca, pending] =
            ["node.pem", "ca.pem", "node.key.pending"].map(|name| folder.join(name));
        Ok(Self { folder, config, identity, ca, pending })
    }

    /// Refuses to replace a configuration, or a key that is in use, unless that is wanted.
    fn check(&self, existing: Existing) -> Result<(), ClientError> {
        let is_unfinished = self.pending.exists();
        let in_the_way = [&self.config, &self.identity].into_iter().find(|path| path.exists());
        match in_the_way {
            Some(path) if existing == Existing::Keep && (path == &self.config || !is_unfinished) => {
                Err(ClientError::Usage(format!(
                    "`{}` exists: give --force to replace the server, the key and the names in it, or choose another file with --config",
                    path.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// The key of this enrolment, on stable storage.
    fn key(&self) -> Result<KeyPair, ClientError> {
        match fs::read_to_string(&self.pending) {
            Ok(pem) => return KeyPair::from_pem(&pem).map_err(|_| unusable(&self.pending)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(disk("read", &self.pending, source)),
        }
        let key = new_key()?;
        write(&self.pending, key.serialize_pem().as_bytes(), durable::Readers::Owner)?;
        Ok(key)
    }
}

fn unusable(path: &Path) -> ClientError {
    ClientError::Usage(format!("`{}` holds no private key in PEM format: remove it", path.display()))
}

fn disk(action: &'static str, path: &Path, source: io::Error) -> ClientError {
    ClientError::Disk { action, path: path.to_owned(), source }
}

fn write(path: &Path, bytes: &[u8], readers: durable::Readers) -> Result<(), ClientError> {
    durable::replace(path, bytes, readers).map_err(|source| disk("write", path, source))
}

/// Ed25519: the same key signs the same request alike, by which the server knows a repetition.
fn new_key() -> Result<KeyPair, ClientError> {
    KeyPair::generate_for(&PKCS_ED25519)
        .map_err(|error| ClientError::Usage(format!("no key can be made: {error}")))
}

/// A request for a certificate, signed by `key`, in PEM format. The server takes nothing but the key from it.
fn request(key: &KeyPair) -> Result<String, ClientError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "astacus-node");
    let signed = params.serialize_request(key).and_then(|request| request.pem());
    signed.map_err(|error| ClientError::Usage(format!("no request for a certificate can be made: {error}")))
}

/// Enrols this machine. Key, certificate and configuration are on stable storage when this returns, and the server has
/// answered a request with them.
///
/// # Errors
/// [`ClientError::Usage`] if a configuration is in the way; the errors of [`Api`]. Nothing but an unfinished key is left
/// then, or the old configuration.
pub async fn enrol(asked: &Enrolment, retry: Retry) -> Result<EnrolReport, ClientError> {
    let files = Files::beside(&asked.config)?;
    files.check(asked.existing)?;
    fs::create_dir_all(&files.folder).map_err(|source| disk("create", &files.folder, source))?;
    let key = files.key()?;
    let (invite, server) = (&asked.invite, asked.invite.server());
    let pinned = Credentials { trust: Trust::Pinned(invite.ca), ..Credentials::default() };
    let api = Api::with(&server, &pinned, retry)?;
    let request =
        EnrolRequest { code: invite.code.clone(), request: request(&key)?, node: asked.node.clone() };
    let enrolled = api.enrol(&request).await?;
    check_ca(&server, &enrolled.ca, &invite.ca)?;
    write(&files.ca, enrolled.ca.as_bytes(), durable::Readers::All)?;
    let identity = key.serialize_pem() + &enrolled.certificate.certificate;
    write(&files.identity, identity.as_bytes(), durable::Readers::Owner)?;
    let own = Credentials {
        token: None,
        trust: Trust::File(files.ca.clone()),
        identity: Some(files.identity.clone()),
    };
    Api::with(&server, &own, retry)?.this_node().await?;
    let settings = [
        ("server", server.clone()),
        ("ca", files.ca.display().to_string()),
        ("identity", files.identity.display().to_string()),
        ("cluster", enrolled.cluster.to_string()),
        ("node", enrolled.node.to_string()),
    ];
    write(&files.config, configuration(&files.config, settings)?.as_bytes(), durable::Readers::All)?;
    // A key that stays behind here is that of the certificate, and as well protected.
    let _ = fs::remove_file(&files.pending);
    Ok(EnrolReport {
        id: enrolled.id,
        cluster: enrolled.cluster,
        node: enrolled.node,
        server,
        expires: enrolled.certificate.expires,
        config: files.config,
    })
}

/// Refuses a CA that is not the one of the invitation.
fn check_ca(server: &str, pem: &str, expected: &Fingerprint) -> Result<(), ClientError> {
    let sent = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    if sent.is_some_and(|sent| Fingerprint::of(&sent) == *expected) {
        return Ok(());
    }
    let why = "its CA is not the one of the invitation".to_owned();
    Err(ClientError::Protocol { server: server.to_owned(), why })
}

/// The text of the configuration file with `settings`. Other keys of a file that is there stay, except those for other
/// credentials.
fn configuration(path: &Path, settings: [(&str, String); 5]) -> Result<String, ClientError> {
    let cannot = |why: String| ClientError::Usage(format!("`{}` cannot be changed: {why}", path.display()));
    let mut table: toml::Table = match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| cannot(error.to_string()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => toml::Table::new(),
        Err(source) => return Err(disk("read", path, source)),
    };
    for other in ["token_file", "ca_sha256"] {
        table.remove(other);
    }
    for (key, value) in settings {
        table.insert(key.to_owned(), value.into());
    }
    toml::to_string(&table).map_err(|error| cannot(error.to_string()))
}

/// Replaces the key and the certificate in `identity` if the server says that it is time. The certificate that `api`
/// shows stays valid until its end, so a failure here is a warning for the caller to show.
///
/// # Errors
/// [`Renewal::NotAsked`] if the server did not answer: the command of the caller would fail as well.
pub async fn renew_if_due(api: &Api, identity: &Path) -> Result<(), Renewal> {
    if !api.this_node().await.map_err(Renewal::NotAsked)?.renew {
        return Ok(());
    }
    renew(api, identity).await.map_err(Renewal::Failed)
}

/// The reason why a certificate was not renewed.
#[derive(Debug)]
pub enum Renewal {
    /// The server did not answer, or refused this node.
    NotAsked(ClientError),
    /// The renewal failed. The present certificate still works.
    Failed(ClientError),
}

async fn renew(api: &Api, identity: &Path) -> Result<(), ClientError> {
    let key = new_key()?;
    let next = api.next_certificate(&RenewRequest { request: request(&key)? }).await?;
    let pem = key.serialize_pem() + &next.certificate;
    write(identity, pem.as_bytes(), durable::Readers::Owner)?;
    tracing::debug!("the certificate of this node was renewed until {}", next.expires);
    Ok(())
}

#[cfg(test)]
mod tests;
