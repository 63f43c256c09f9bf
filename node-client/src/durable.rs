//! How a file gets its name so that a power cut leaves the old file or the new one, never a part.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
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

#[cfg(test)]
mod tests {
    use super::*;

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
