//! Files of an earlier process, on disks where not all of them can be synced.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::io::Errno;

use super::super::{
    Disk, DiskFile, Entry, FileName, Folder, RealDisk, TemporaryName, settle_folder, settle_path,
    sync_folder, sync_tree,
};

/// The disk of this machine, with folders that refuse something.
#[derive(Debug, Clone, Copy)]
enum Refusing {
    Open(Errno),
    Sync(Errno),
}

impl Disk for Refusing {
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn Folder>> {
        match self {
            Self::Open(errno) => Err((*errno).into()),
            Self::Sync(errno) => Ok(Box::new(Unsyncable(RealDisk.open_folder(path)?, *errno))),
        }
    }
}

struct Unsyncable(Box<dyn Folder>, Errno);

impl Folder for Unsyncable {
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)> {
        self.0.create_temporary()
    }

    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.0.rename_over(from, to)
    }

    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>> {
        self.0.open_file(name)
    }

    fn make_folder(&self, name: &FileName) -> io::Result<()> {
        self.0.make_folder(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        self.0.entries()
    }

    fn sync(&self) -> io::Result<()> {
        Err(self.1.into())
    }
}

/// Folders above a data folder may be anything: an automounter's, another user's, of a read-only image.
#[test]
fn what_cannot_have_been_left_by_us_is_taken_as_it_is_and_a_broken_disk_is_not() {
    let dir = tempfile::tempdir().unwrap();
    for harmless in [Refusing::Open(Errno::ACCESS), Refusing::Sync(Errno::INVAL), Refusing::Sync(Errno::ROFS)]
    {
        settle_folder(&harmless, dir.path()).unwrap();
        settle_path(&harmless, dir.path()).unwrap();
        sync_folder(&harmless, dir.path()).unwrap_err();
    }
    for broken in [Refusing::Open(Errno::IO), Refusing::Sync(Errno::IO)] {
        assert!(settle_folder(&broken, dir.path()).unwrap_err().is_fatal(), "{broken:?}");
    }
    settle_folder(&Refusing::Open(Errno::NOENT), dir.path()).unwrap_err();
}

#[test]
fn a_tree_is_synced_without_what_its_symlinks_lead_to() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();

    sync_tree(&RealDisk, dir.path()).unwrap();

    assert!(sync_tree(&Refusing::Sync(Errno::IO), dir.path()).unwrap_err().is_fatal());
}
