//! Errors of durable writes, and the action that the process may take.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// One primitive action on a disk: names the point at which an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Open a folder.
    OpenFolder,
    /// List a folder.
    ListFolder,
    /// Create a folder.
    MakeFolder,
    /// Make the entries of a folder durable.
    SyncFolder,
    /// Create a temporary file.
    CreateTemporary,
    /// Write part of a file.
    Write,
    /// Make the content of a temporary file durable.
    SyncTemporary,
    /// Give a temporary file its final name.
    Rename,
    /// Open a file that was published before.
    OpenFile,
    /// Read part of a file.
    Read,
    /// Make the content of a file that was published before durable.
    SyncFile,
    /// Remove a file.
    Remove,
}

impl Step {
    /// The step in words, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::OpenFolder => "open folder",
            Self::ListFolder => "list folder",
            Self::MakeFolder => "make folder",
            Self::SyncFolder => "sync folder",
            Self::CreateTemporary => "create temporary file",
            Self::Write => "write",
            Self::SyncTemporary => "sync temporary file",
            Self::Rename => "rename",
            Self::OpenFile => "open",
            Self::Read => "read",
            Self::SyncFile => "sync",
            Self::Remove => "remove",
        }
    }

    fn is_sync(self) -> bool {
        matches!(self, Self::SyncFolder | Self::SyncTemporary | Self::SyncFile)
    }
}

/// Why a durable operation did not happen. Nothing was acknowledged in any of these cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum DurableError {
    /// No space or quota left. The temporary file is deleted and nothing changed: refuse the request and keep
    /// serving reads.
    #[error("no space left: {} `{}`", step.describe(), path.display())]
    Full { step: Step, path: PathBuf, source: io::Error },

    /// The name exists with other bytes. Nothing changed.
    #[error("`{}` exists with different content", path.display())]
    Differs { path: PathBuf },

    /// The disk can no longer be trusted to keep what it was given. The process must end without
    /// acknowledging anything more: after a failed sync the kernel may have dropped the data, and a
    /// second sync would report success.
    #[error("cannot make durable: {} `{}`", step.describe(), path.display())]
    Fatal { step: Step, path: PathBuf, source: io::Error },

    /// The operation was refused for a reason that leaves the disk trustworthy, such as a missing
    /// folder, missing rights, or too many open files. No published content changed.
    #[error("{} `{}`", step.describe(), path.display())]
    Failed { step: Step, path: PathBuf, source: io::Error },
}

impl DurableError {
    /// True if the process must end, without retrying and without acknowledging anything.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal { .. })
    }

    /// Sorts the failure of one step.
    ///
    /// A full disk is a refusal, also when only the sync of the temporary file finds out (as on
    /// file systems that allocate late): that file is thrown away and its sync is not repeated. Any
    /// other failed sync is fatal, whatever the errno, and so is an errno that says that the device
    /// or the file system is broken.
    pub(crate) fn at(step: Step, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let errno = Errno::from_io_error(&source);
        let full = matches!(errno, Some(Errno::NOSPC | Errno::DQUOT));
        if full && matches!(step, Step::SyncTemporary) {
            return Self::Full { step, path, source };
        }
        if step.is_sync() || errno.is_some_and(is_broken) {
            return Self::Fatal { step, path, source };
        }
        if full { Self::Full { step, path, source } } else { Self::Failed { step, path, source } }
    }
}

/// Device errors, a file system that became read-only, and the two codes for "file system is corrupt".
fn is_broken(errno: Errno) -> bool {
    matches!(errno, Errno::IO | Errno::ROFS | Errno::NODEV | Errno::NXIO | Errno::UCLEAN | Errno::BADMSG)
}
