//! A folder before durable files are put into it: made, synced up to the root, and on a file system that can do
//! what such files need.

use std::io;
use std::path::{Path, PathBuf};

use format_spec::ErrorClass;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, fsync, open, renameat_with, unlinkat};
use rustix::io::Errno;

use super::{Disk, DurableError, TEMPORARY_PREFIX, settle_path};

/// Why a folder cannot hold durable files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum FolderError {
    /// The file system lacks something that durable files need.
    #[error(
        "the file system of {} cannot {lacks}: use one of this machine's disks, such as ext4, XFS or btrfs",
        dir.display()
    )]
    FileSystem { dir: PathBuf, lacks: &'static str },
    /// The folder could not be made or used.
    #[error("read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The names on the way to the folder could not be synced.
    #[error("prepare the folder")]
    Sync(#[from] DurableError),
}

impl FolderError {
    /// Action that the operator can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::FileSystem { .. } => ErrorClass::Usage,
            Self::Io { .. } | Self::Sync(_) => ErrorClass::Unavailable,
        }
    }
}

/// The folder `dir`, made if it is missing, without symlinks in its path. Its name is durable, and so are those of
/// the folders above it and the names in it: an earlier process may have died before it synced them.
///
/// # Errors
/// [`FolderError::Io`] and [`FolderError::Sync`].
pub fn settled_folder(disk: &dyn Disk, dir: &Path) -> Result<PathBuf, FolderError> {
    let made = std::fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
    let dir = made.map_err(|source| FolderError::Io { path: dir.to_owned(), source })?;
    settle_path(disk, &dir)?;
    Ok(dir)
}

/// Refuses a folder whose file system cannot rename without replacing, or cannot sync. Other failures (no
/// space, no right to write) are reported by the code that needs it.
///
/// # Errors
/// [`FolderError::FileSystem`]; [`FolderError::Io`] if a sync fails for another reason.
pub fn probe(dir: &Path) -> Result<(), FolderError> {
    let [from, to] = ["probe-1", "probe-2"].map(|name| dir.join(format!("{TEMPORARY_PREFIX}{name}")));
    let tried = try_out(dir, &from, &to);
    for left in [&from, &to] {
        // At most one is there; a start sweeps what a crash leaves.
        let _ = unlinkat(CWD, left, AtFlags::empty());
    }
    match tried {
        Err((lacks, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => {
            Err(FolderError::FileSystem { dir: dir.to_owned(), lacks: lacks.name() })
        }
        // P8: nothing is built on a disk that cannot sync.
        Err((Ability::SyncFile | Ability::SyncFolder, error)) => {
            Err(FolderError::Io { path: dir.to_owned(), source: error.into() })
        }
        _ => Ok(()),
    }
}

/// Abilities that durable files need.
#[derive(Debug, Clone, Copy)]
enum Ability {
    Create,
    SyncFile,
    RenameNew,
    OpenFolder,
    SyncFolder,
}

impl Ability {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create files",
            Self::SyncFile => "sync a file",
            Self::RenameNew => "rename a file without replacing another",
            Self::OpenFolder => "open a folder",
            Self::SyncFolder => "sync a folder",
        }
    }
}

fn try_out(dir: &Path, from: &Path, to: &Path) -> Result<(), (Ability, Errno)> {
    let of = |lacks: Ability| move |error| (lacks, error);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(from, flags, Mode::RUSR | Mode::WUSR).map_err(of(Ability::Create))?;
    fsync(&file).map_err(of(Ability::SyncFile))?;
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(of(Ability::RenameNew))?;
    let folder = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    fsync(folder.map_err(of(Ability::OpenFolder))?).map_err(of(Ability::SyncFolder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_of_a_good_file_system_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();

        probe(scratch.path()).unwrap();

        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
