//! Why a data folder cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use format_spec::{ErrorClass, FormatError};

use crate::durable::{DurableError, FolderError};
use crate::error::ServerError;
use crate::index::OpenError;
use crate::keys::KeyError;
use crate::site::layout::descriptor_object;
use crate::site::{SiteError, SiteUrl};
use crate::site_lock::LockError;

/// The copy of the descriptor in the data folder.
pub(super) const COPY: &str = "repository.json";

/// Why a data folder cannot be used. A folder that was not ours is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum CreateError {
    /// The folder holds something else.
    #[error("{} is not empty (`{found}`) and not an Astacus repository: choose an empty folder", dir.display())]
    NotEmpty { dir: PathBuf, found: String },
    /// A rebuild of the index was cut short.
    #[error("the rebuild of the index in {} did not finish: run `astacus-server rebuild` again", dir.display())]
    HalfBuilt { dir: PathBuf },
    /// There is an index, and no site: the site is elsewhere, or not mounted.
    #[error("{} has an index, but {site} holds no repository: pass the right `--site`; if only its file `{}` is missing, restore that from its copy (`{COPY}` in the data folder)", dir.display(), descriptor_object())]
    NoSite { dir: PathBuf, site: SiteUrl },
    /// There is no repository where one must be.
    #[error("no repository in {}: choose the right folder, or mount its disk", dir.display())]
    NoRepository { dir: PathBuf },
    /// A file that must be there is missing.
    #[error("{} is missing: restore it from your copy", path.display())]
    Missing { path: PathBuf },
    /// The folder belongs to another user.
    #[error(
        "{} belongs to user {owner}, but the server runs as user {us}: start it as user {owner}, or run `chown -R {us} {}`",
        dir.display(), dir.display()
    )]
    OtherOwner { dir: PathBuf, owner: u32, us: u32 },
    /// Others than its owner may read or write a secret.
    #[error(
        "{} is accessible to other users: run `chmod 600 {}`, and replace it if somebody may have read it",
        path.display(), path.display()
    )]
    OpenToOthers { path: PathBuf },
    /// The token could be guessed.
    #[error(
        "the token in {} has fewer than 32 characters: delete the file, and the server makes a new one",
        path.display()
    )]
    ShortToken { path: PathBuf },
    /// The repository has a newer format.
    #[error(
        "the repository has format version {found}, but this program reads version {reads}. Nothing is damaged: use the newer program that made it"
    )]
    Newer { found: u16, reads: u16 },
    /// A file does not hold what it should.
    #[error("{} is not a {what}", path.display())]
    Malformed { path: PathBuf, what: &'static str },
    /// The file of tokens is of another version, or damaged.
    #[error("{} cannot be read: restore it from your copy, or move it away and create the tokens again", path.display())]
    Access {
        path: PathBuf,
        #[source]
        source: FormatError,
    },
    /// The master key belongs to another repository.
    #[error("{} is the key of another repository", path.display())]
    WrongKey { path: PathBuf },
    /// The descriptor on the site cannot be used.
    #[error(
        "the repository descriptor on the site (`{}`) is damaged: restore it from its copy (`{COPY}` in the data folder)",
        descriptor_object()
    )]
    Descriptor(#[source] FormatError),
    /// The descriptor on the site is another one than the index was made with.
    #[error("{site}/{} differs from its copy: restore it from {}, or pass the right `--site`", descriptor_object(), copy.display())]
    DescriptorChanged { site: SiteUrl, copy: PathBuf },
    /// The master key could not be opened.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A file or folder could not be read.
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A folder cannot hold what is put into it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file or folder could not be made.
    #[error("prepare the data folder")]
    Write(#[from] DurableError),
    /// The index could not be opened.
    #[error("open the index")]
    Index(#[from] OpenError),
    /// The site could not be used.
    #[error("open the site")]
    Site(#[from] SiteError),
    /// The lock of the site could not be had.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The repository could not be read.
    #[error("open the repository")]
    Open(#[from] ServerError),
}

impl CreateError {
    /// Action that the operator can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotEmpty { .. }
            | Self::WrongKey { .. }
            | Self::OtherOwner { .. }
            | Self::OpenToOthers { .. }
            | Self::ShortToken { .. }
            | Self::Newer { .. } => ErrorClass::Usage,
            Self::Missing { .. } | Self::NoSite { .. } | Self::NoRepository { .. } => ErrorClass::NotFound,
            Self::HalfBuilt { .. } => ErrorClass::Conflict,
            Self::Malformed { .. }
            | Self::Access { .. }
            | Self::Descriptor(_)
            | Self::DescriptorChanged { .. } => ErrorClass::Integrity,
            Self::Read { .. } | Self::Write(_) => ErrorClass::Unavailable,
            Self::Keys(error) => error.class(),
            Self::Folder(error) => error.class(),
            Self::Index(error) => error.class(),
            Self::Site(error) => error.class(),
            Self::Locked(LockError::Held(_) | LockError::Lost(_)) => ErrorClass::Conflict,
            Self::Locked(_) => ErrorClass::Unavailable,
            Self::Open(error) => error.class(),
        }
    }
}

/// A file or folder could not be read.
pub(crate) fn read_error(path: &Path, source: io::Error) -> CreateError {
    CreateError::Read { path: path.to_owned(), source }
}
