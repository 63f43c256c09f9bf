//! How a file gets its name so that a power cut leaves the old file or the new one, never a part.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Moves `from`, which is open as `file`, to `to` in the same folder, replacing what is there.
///
/// When this returns, content and name are on stable storage.
///
/// # Errors
/// Errors of the file system. `to` is then the old file or the new one, whole in either case. `to` is then
/// the old file or the new one, whole in either case.
pub(crate) fn publish(file: &File, folder: &Path, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    let folder = File::open(folder)?;
    rustix::fs::renameat(folder.as_fd(), from, folder.as_fd(), to)?;
    folder.sync_all()
}

/// Readers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner alone: mode 0600.
    Owner,
    /// All users of the machine: mode 0644.
    All,
}

/// Writes `bytes` to `path`, replacing what is there.
///
/// When this returns, content and name are on stable storage.
///
/// # Errors
/// Errors of the file system. `path` is then the old file or the new one, whole in either case.
pub(crate) fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    // It begins with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".astacus-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    if readers == Readers::All {
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    }
    publish(file.as_file(), folder, file.path(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_mode_of_its_readers_and_no_file_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (readers, mode) in [(Readers::All, 0o644), (Readers::Owner, 0o600)] {
            replace(&path, b"new", readers).unwrap();

            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_new_file_takes_the_place_of_the_old() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "old").unwrap();
        std::fs::write(folder.path().join("b"), "new").unwrap();
        let file = File::open(folder.path().join("b")).unwrap();

        publish(&file, folder.path(), "b".as_ref(), "a".as_ref()).unwrap();

        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"new");
        assert!(!folder.path().join("b").exists());
    }
}
