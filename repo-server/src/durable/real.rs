//! The file system of the operating system, through folder handles.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::disk::{Disk, DiskFile, Entry, EntryKind, FileName, Folder, TemporaryName};

/// The disk of this machine.
///
/// Files get mode 0600 and folders 0700 (less the umask); no symlink is followed in the last part of
/// a path. The file system must support `renameat2` with `RENAME_NOREPLACE` (ext4, xfs, btrfs, zfs
/// and tmpfs do); on one that does not, publishing fails and changes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn Folder>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Box::new(RealFolder(fd)))
    }
}

struct RealFolder(OwnedFd);

impl Folder for RealFolder {
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)> {
        let number = getrandom::u64().map_err(io::Error::from)?;
        let name = TemporaryName::numbered(number);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok((name, Box::new(RealFile(fd))))
    }

    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        let (from, to) = (from.as_str(), to.as_str());
        Ok(rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE)?)
    }

    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from.as_str(), &self.0, to.as_str())?)
    }

    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>> {
        // NONBLOCK: a pipe that lies under this name must not hang us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0, name.as_str(), flags, Mode::empty())?;
        Ok(Box::new(RealFile(fd)))
    }

    fn make_folder(&self, name: &FileName) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, name.as_str(), Mode::RWXU)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in Dir::read_from(&self.0)? {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match found.file_type() {
                FileType::Unknown => self.kind_of(name)?,
                known => Some(entry_kind(known)),
            };
            // None: the name is gone again.
            if let Some(kind) = kind {
                entries.push(Entry { name: OsStr::from_bytes(name.to_bytes()).to_owned(), kind });
            }
        }
        Ok(entries)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }
}

impl RealFolder {
    /// For file systems whose listings do not tell what an entry is.
    fn kind_of(&self, name: &std::ffi::CStr) -> io::Result<Option<EntryKind>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(entry_kind(FileType::from_raw_mode(stat.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn entry_kind(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        _ => EntryKind::Other,
    }
}

struct RealFile(OwnedFd);

impl DiskFile for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::write(&self.0, bytes))?)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::read(&self.0, &mut *into))?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }
}
