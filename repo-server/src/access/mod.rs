//! Access: the credentials that the server knows, and the principal that each one stands for.
//!
//! All of it is one file in the data folder, `access.json`, mode 0600: it is replaced whole and durably at each change,
//! and held in memory. It is not in the index, so a rebuild of the index keeps it. The secrets of tokens are in it as
//! hashes only.
//!
//! The registry is asked at each request, so a token that is revoked opens nothing from the next request on.

mod invite;
mod node;
mod principal;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use format_spec::access::SecretHash;
use format_spec::{FormatError, NodeId, TokenName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use invite::{Admitted, Invited, enrol, invite, invites, uninvite};
pub(crate) use node::{Issued, about, nodes, rename, renew, revoke_node, rotate};
pub(crate) use principal::{Kind, NodeRights, Principal, Source};
pub(crate) use token::{Refusal, create, list, revoke};

use crate::durable::{self, Disk};
use crate::error::ServerError;
use crate::store::OnHalt;
use crate::sync::lock;
use invite::InviteRow;
use node::NodeRow;
use token::TokenRow;

/// The file of the registry in the data folder.
pub(crate) const FILE: &str = "access.json";

/// Version of the file. Other versions are refused.
const VERSION: u32 = 1;

/// A use of a token is written to the file if the one in it is older than this, in milliseconds.
const USE_WRITTEN_AFTER_MS: u64 = 60 * 60 * 1000;

/// Content of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    version: u32,
    /// Tokens, sorted by name.
    pub(crate) tokens: BTreeMap<TokenName, TokenRow>,
    /// Enrolled nodes, the oldest first; also revoked ones.
    #[serde(default)]
    nodes: BTreeMap<NodeId, NodeRow>,
    /// Invitations, by the ids that their nodes will have.
    #[serde(default)]
    invites: BTreeMap<NodeId, InviteRow>,
}

impl Default for Document {
    fn default() -> Self {
        Self { version: VERSION, tokens: BTreeMap::new(), nodes: BTreeMap::new(), invites: BTreeMap::new() }
    }
}

/// The credentials that a server knows. Shared by all requests.
pub struct Registry {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    on_halt: OnHalt,
    /// The token in the data folder, which has all rights.
    first: SecretHash,
    document: RwLock<Arc<Document>>,
    /// Last uses since the start of this process.
    uses: Mutex<BTreeMap<TokenName, u64>>,
    /// Changes of the file, one at a time.
    turn: Mutex<()>,
    /// Told of each change of the file.
    changes: watch::Sender<()>,
}

impl Registry {
    /// The registry of the data folder `dir`: `text` is its file, if there is one. `first_token` has all rights.
    ///
    /// # Errors
    /// [`FormatError`] if `text` is not a file of this version.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        first_token: &str,
        text: Option<&str>,
        on_halt: OnHalt,
    ) -> Result<Self, FormatError> {
        let document = text.map(parse).transpose()?.unwrap_or_default();
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            on_halt,
            first: SecretHash::of(first_token.trim_end().as_bytes()),
            document: RwLock::new(Arc::new(document)),
            uses: Mutex::default(),
            turn: Mutex::default(),
            changes: watch::Sender::new(()),
        })
    }

    /// The present content of the file.
    pub(crate) fn document(&self) -> Arc<Document> {
        Arc::clone(&self.document.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the document. The change is durable when this returns, and counts from then on. Blocks.
    ///
    /// # Errors
    /// Those of `change`, and [`ServerError::Access`]: nothing changed.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let _turn = lock(&self.turn);
        let mut next = Document::clone(&self.document());
        let done = change(&mut next)?;
        for (name, used_ms) in lock(&self.uses).iter() {
            if let Some(token) = next.tokens.get_mut(name) {
                token.used_at(*used_ms);
            }
        }
        self.write(&next)?;
        *self.document.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.changes.send_replace(());
        Ok(done)
    }

    /// Hears of each change from now on, after it counts.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn write(&self, document: &Document) -> Result<(), ServerError> {
        let mut text = serde_json::to_vec_pretty(document).expect("a document is plain JSON");
        text.push(b'\n');
        let name = FILE.parse().expect("a plain name");
        durable::replace(self.disk.as_ref(), &self.dir, &name, &text).map_err(|error| {
            if error.is_fatal() {
                (self.on_halt)(&error);
            }
            ServerError::Access(error)
        })
    }

    /// The principal of a request that carries the secret `offered` and comes from `peer`, at `now_ms` in milliseconds
    /// since 1970. Takes a time that depends on the number of tokens alone.
    ///
    /// # Errors
    /// [`Refusal`]: for the log, and never for the caller.
    pub(crate) fn sign_in(
        &self,
        offered: Option<&[u8]>,
        peer: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<Principal, Refusal> {
        let offered = SecretHash::of(offered.ok_or(Refusal::NoCredential)?);
        let document = self.document();
        let mut found = None;
        for (name, token) in &document.tokens {
            if token.hash == offered {
                found = Some((name, token));
            }
        }
        if self.first == offered {
            return Ok(Principal::FIRST_TOKEN);
        }
        let (name, token) = found.ok_or(Refusal::Unknown)?;
        token.check(name, peer, now_ms)?;
        lock(&self.uses).insert(name.clone(), now_ms);
        Ok(token.principal(name))
    }

    /// True if the last use of a token by `principal` is to be written to the file.
    pub(crate) fn is_use_due(&self, principal: &Principal, now_ms: u64) -> bool {
        let Source::Token(name) = &principal.source else { return false };
        let document = self.document();
        let written_ms = document.tokens.get(name).and_then(|token| token.last_used_ms);
        written_ms.is_none_or(|written_ms| now_ms.saturating_sub(written_ms) >= USE_WRITTEN_AFTER_MS)
    }

    /// Writes the last uses to the file, if that is still due for `principal`. Blocks.
    ///
    /// # Errors
    /// [`ServerError::Access`].
    pub(crate) fn write_uses(&self, principal: &Principal, now_ms: u64) -> Result<(), ServerError> {
        if self.is_use_due(principal, now_ms) { self.change(|_| Ok(())) } else { Ok(()) }
    }

    /// The last use of a token, as far as it is known.
    fn last_use(&self, name: &TokenName, token: &TokenRow) -> Option<u64> {
        lock(&self.uses).get(name).copied().max(token.last_used_ms)
    }
}

fn parse(text: &str) -> Result<Document, FormatError> {
    let malformed = |why: String| FormatError::Malformed { what: "file of access", why };
    let document: Document = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    if document.version != VERSION {
        return Err(malformed(format!("version {} is not {VERSION}", document.version)));
    }
    Ok(document)
}
