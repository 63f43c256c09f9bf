//! Errors of requests. `code` is stable for programs, `class` says what the caller can do.

use format_spec::{
    ChunkId, ClusterName, ErrorClass, FormatError, NodeId, NodeName, SessionId, SnapshotId, TokenName,
};

use crate::durable::DurableError;
use crate::index::IndexError;
use crate::site::SiteError;

/// A request that failed. Unless it says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum ServerError {
    /// The request breaks a rule of the interface.
    #[error("{why}")]
    BadRequest { code: &'static str, why: String },
    /// The request's bytes are not what they should be.
    #[error("the request body is invalid")]
    Malformed(#[source] FormatError),
    /// The body is longer than this request may have.
    #[error("the body is over the limit of {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    /// No token, or the wrong one.
    #[error("access denied: the token or certificate is missing, wrong, expired or revoked")]
    Unauthorized,
    /// The credential is valid, and does not allow this.
    #[error("{why}")]
    Forbidden { why: String },
    /// No token has this name.
    #[error("no such token: {0}")]
    NoToken(TokenName),
    /// No invitation has this code now.
    #[error("the invitation is unknown, used, withdrawn or expired: ask for another")]
    NoInvite,
    /// No node was enrolled with this id.
    #[error("no such node: {0}")]
    UnknownNode(NodeId),
    /// No invitation has this id.
    #[error("no such invitation: {0}")]
    UnknownInvite(NodeId),
    /// The server has no TLS, and so no certificates.
    #[error("nodes are enrolled over TLS only: start the server with `--tls on`")]
    NoTls,
    /// The CA of the server did not sign a certificate.
    #[error("the certificate could not be signed: {0}")]
    NotSigned(String),
    /// The file of tokens and nodes could not be written.
    #[error("the file of access could not be written")]
    Access(#[source] DurableError),
    /// The session never was, has expired, or has ended.
    #[error("session {0} has ended: start the push again")]
    SessionOver(SessionId),
    /// A node has as many sessions open as one may have.
    #[error(
        "node `{node}` of cluster `{cluster}` has {most} open sessions, the maximum: `astacus-admin sessions` lists them; an abandoned session expires after two minutes"
    )]
    TooManySessions { cluster: ClusterName, node: NodeName, most: usize },
    /// No snapshot has this id.
    #[error("no such snapshot: {0}")]
    NoSnapshot(SnapshotId),
    /// The snapshot does not hold this node.
    #[error("snapshot {snapshot} does not contain node `{node}`")]
    NoNode { snapshot: SnapshotId, node: NodeName },
    /// No alarm of this code, and about this subject if one is named, is up.
    #[error("no active alarm `{code}`{}", of(subject.as_deref()))]
    NoAlarm { code: String, subject: Option<String> },
    /// The domain of the snapshot does not have this chunk.
    #[error("no such chunk: {0}")]
    NoChunk(ChunkId),
    /// A page names chunks that the repository does not have. The page was not stored.
    #[error("the page refers to {} chunks that the repository lacks, such as {}", missing.len(), first(missing))]
    UnknownChunks { missing: Vec<ChunkId> },
    /// The manifest names pages that the repository does not have; send them, and commit again.
    #[error("the repository lacks {} pages of the manifest, such as {}", missing.len(), first(missing))]
    MissingChunks { missing: Vec<ChunkId> },
    /// No space is left on a site or for the index.
    #[error("no space left: {what}")]
    Full { what: String },
    /// A pack did not get to the site; its blobs must be sent again.
    #[error("a pack could not be stored: {why}")]
    NotStored { why: String },
    /// Stored bytes are not what was written.
    #[error("{object} is damaged")]
    Damaged {
        object: String,
        #[source]
        source: FormatError,
    },
    /// A stored object cannot be had any more: the disk does not give it, however often it is asked.
    #[error("{object} is damaged: {why}")]
    Lost { object: String, why: String },
    /// A row of the index cannot be what we wrote.
    #[error("index row of {object} is malformed: rebuild the index")]
    Row { object: String },
    /// A count of references is not what it must be.
    #[error("the count of {object} is wrong: run `astacus-admin verify --level refs --repair`")]
    Counts { object: String },
    /// The request is not allowed in the present state of the repository.
    #[error("{why}")]
    Refused { code: &'static str, why: String },
    /// The server takes nothing in until an operator has put something right.
    #[error("{why}")]
    Rests { code: &'static str, why: String },
    /// The index failed.
    #[error("index")]
    Index(#[source] IndexError),
    /// The site failed.
    #[error("site")]
    Site(#[source] SiteError),
    /// A disk error made it unsafe for this process to continue.
    #[error("the server is stopping after a disk error")]
    Halted,
    /// The caller of an operation left, so the operation ended between two steps. No step is half done.
    #[error("the caller left before the work ended")]
    CallerLeft,
    /// The work cannot be done beside the present work; it may succeed later.
    #[error("{why}: try again later")]
    Busy { why: String },
    /// Temporary files could not be used.
    #[error("temporary files of the server")]
    Scratch(#[source] std::io::Error),
    /// A bug in Astacus.
    #[error("internal error: {0}")]
    Bug(&'static str),
}

fn of(subject: Option<&str>) -> String {
    subject.map(|subject| format!(" about `{subject}`")).unwrap_or_default()
}

fn first(missing: &[ChunkId]) -> String {
    missing.first().map(ChunkId::to_string).unwrap_or_default()
}

impl ServerError {
    /// Stable name of the error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { code, .. } => code,
            Self::Malformed(FormatError::WrongChunk { .. }) => "wrong_id",
            Self::Malformed(_) => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::NoToken(_) => "no_such_token",
            Self::NoInvite => "no_invite",
            Self::UnknownNode(_) => "unknown_node",
            Self::UnknownInvite(_) => "unknown_invite",
            Self::NoTls => "no_tls",
            Self::NotSigned(_) => "not_signed",
            Self::Access(DurableError::Full { .. }) => "full",
            Self::Access(_) => "access_not_written",
            Self::SessionOver(_) => "session_over",
            Self::TooManySessions { .. } => "too_many_sessions",
            Self::NoSnapshot(_) => "no_such_snapshot",
            Self::NoNode { .. } => "no_such_node",
            Self::NoAlarm { .. } => "no_such_alarm",
            Self::NoChunk(_) => "no_such_chunk",
            Self::UnknownChunks { .. } => "unknown_chunks",
            Self::MissingChunks { .. } => "missing_chunks",
            Self::Full { .. } => "full",
            Self::NotStored { .. } => "not_stored",
            Self::Damaged { .. } | Self::Lost { .. } => "damaged",
            Self::Row { .. } => "index_damaged",
            Self::Counts { .. } => "counts_differ",
            Self::Refused { code, .. } | Self::Rests { code, .. } => code,
            Self::Index(_) => "index",
            Self::Site(_) => "site",
            Self::Halted => "halted",
            Self::CallerLeft => "caller_left",
            Self::Busy { .. } => "busy",
            Self::Scratch(_) => "scratch",
            Self::Bug(_) => "internal",
        }
    }

    /// True if the error is about stored bytes: they are damaged, or the site cannot return them.
    pub(crate) fn is_of_stored(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Lost { .. } | Self::Site(_))
    }

    /// True if stored bytes are damaged or lost. Where that was found, it was written down and logged.
    pub(crate) fn is_damage(&self) -> bool {
        self.is_of_stored() && self.class() == ErrorClass::Integrity
    }

    /// Action that the caller can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::BadRequest { .. }
            | Self::Malformed(_)
            | Self::TooLarge { .. }
            | Self::UnknownChunks { .. } => ErrorClass::Usage,
            Self::Unauthorized | Self::Forbidden { .. } | Self::NoInvite => ErrorClass::Denied,
            Self::NoToken(_)
            | Self::UnknownNode(_)
            | Self::UnknownInvite(_)
            | Self::NoSnapshot(_)
            | Self::NoNode { .. }
            | Self::NoAlarm { .. }
            | Self::NoChunk(_) => ErrorClass::NotFound,
            Self::SessionOver(_)
            | Self::MissingChunks { .. }
            | Self::Busy { .. }
            | Self::Refused { .. }
            | Self::NoTls => ErrorClass::Conflict,
            Self::Full { .. }
            | Self::NotStored { .. }
            | Self::TooManySessions { .. }
            | Self::Rests { .. }
            | Self::Access(_)
            | Self::NotSigned(_)
            | Self::Halted
            | Self::CallerLeft
            | Self::Scratch(_) => ErrorClass::Unavailable,
            Self::Damaged { .. } | Self::Lost { .. } | Self::Row { .. } | Self::Counts { .. } => {
                ErrorClass::Integrity
            }
            Self::Index(error) => error.class(),
            Self::Site(error) => error.class(),
            Self::Bug(_) => ErrorClass::Bug,
        }
    }

    /// The ids that the answer should list.
    pub fn missing(&self) -> &[ChunkId] {
        match self {
            Self::UnknownChunks { missing } | Self::MissingChunks { missing } => missing,
            _ => &[],
        }
    }
}

impl From<IndexError> for ServerError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Full { .. } => Self::Full { what: error.to_string() },
            other => Self::Index(other),
        }
    }
}

impl From<std::io::Error> for ServerError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full { what: "temporary files".to_owned() };
        }
        Self::Scratch(error)
    }
}

/// An error with its causes on one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
