//! The only way this program creates a durable file or folder, or removes a file for good.
//!
//! When [`publish`] returns success, the file lies under its name with its whole content, and still
//! does after a power cut. Until then the name is absent or, if the process or the power went away
//! in the middle, the name may be there with the whole content; it never holds a part of it.
//! [`publish`] never replaces a file; [`replace`] does, and its name always holds the old or the new content, whole.
//!
//! The order that gives this: write a temporary file in the same folder, sync the file, rename it
//! without replacing, sync the folder. The folder's sync is what many programs leave out: without
//! it ext4, xfs and btrfs all lose the newest name after a power cut.
//!
//! All functions block; asynchronous callers run them on a blocking thread. Any number of callers
//! may publish into one folder at the same time, also under the same name. No function ends the
//! process: a caller that gets an error whose [`DurableError::is_fatal`] is true must do so, and
//! must acknowledge nothing more.

mod disk;
mod error;
mod folder;
mod lock;
mod real;
#[cfg(test)]
pub(crate) mod shadow;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io;
use std::path::Path;

pub use disk::{
    BadFileName, Disk, DiskFile, Entry, EntryKind, FileName, Folder, TEMPORARY_PREFIX, TemporaryName,
};
pub use error::{DurableError, Step};
pub use folder::{FolderError, probe, settled_folder};
pub(crate) use lock::lock_patiently;
pub use real::RealDisk;

/// Piece in which an existing file is compared with what was to be published.
const COMPARE_BYTES: usize = 256 * 1024;

/// How a publish succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The file is new.
    New,
    /// A file of this name and content was there already; it is durable now.
    AlreadyThere,
}

/// How a removal succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The file existed and is deleted.
    Now,
    /// There was no such file.
    Before,
}

/// Creates the file `name` in the folder `dir` with the content `bytes`, durably.
///
/// The file has mode 0600. Publishing the same bytes under the same name again succeeds, also when
/// the first publisher died halfway; the file and the folder are synced before this says so.
///
/// # Errors
/// - [`DurableError::Differs`]: the name is taken by other bytes.
/// - [`DurableError::Full`]: no space left; nothing changed.
/// - [`DurableError::Fatal`]: end the process. The name may be there or not.
/// - [`DurableError::Failed`]: anything else, such as a missing folder; nothing changed.
pub fn publish(
    disk: &dyn Disk,
    dir: &Path,
    name: &FileName,
    bytes: &[u8],
) -> Result<Published, DurableError> {
    let folder = open(disk, dir)?;
    let target = Target { folder: folder.as_ref(), dir, name };
    let temporary = target.write_temporary(bytes)?;
    match folder.rename_new(&temporary, name) {
        Ok(()) => {
            target.sync_folder()?;
            Ok(Published::New)
        }
        Err(e) => {
            target.discard(&temporary)?;
            if e.kind() != io::ErrorKind::AlreadyExists {
                return Err(target.failed(Step::Rename, e));
            }
            target.confirm(bytes)?;
            Ok(Published::AlreadyThere)
        }
    }
}

/// Gives the file `name` in the folder `dir` the content `bytes`, durably, whether it existed or not.
///
/// The file has mode 0600. After a power cut it holds its old content or the new one, whole; after success, the new one.
/// Callers that replace the same file take turns themselves.
///
/// # Errors
/// - [`DurableError::Full`]: no space left; nothing changed.
/// - [`DurableError::Fatal`]: end the process. The file has the old or the new content.
/// - [`DurableError::Failed`]: anything else, such as a missing folder; nothing changed.
pub fn replace(disk: &dyn Disk, dir: &Path, name: &FileName, bytes: &[u8]) -> Result<(), DurableError> {
    let folder = open(disk, dir)?;
    let target = Target { folder: folder.as_ref(), dir, name };
    let temporary = target.write_temporary(bytes)?;
    if let Err(e) = folder.rename_over(&temporary, name) {
        target.discard(&temporary)?;
        return Err(target.failed(Step::Rename, e));
    }
    target.sync_folder()
}

/// Makes sure that the folder `name` exists in the folder `parent`, durably, also if it existed: its maker
/// may have died before that. The folder itself must exist up to `parent`.
///
/// # Errors
/// The errors of [`publish`]; [`DurableError::Failed`] also when the name is taken by something else than a
/// folder.
pub fn make_folder(disk: &dyn Disk, parent: &Path, name: &FileName) -> Result<(), DurableError> {
    let folder = open(disk, parent)?;
    let target = Target { folder: folder.as_ref(), dir: parent, name };
    match folder.make_folder(name) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            open(disk, &parent.join(name.as_str()))?;
        }
        Err(e) => return Err(target.failed(Step::MakeFolder, e)),
    }
    target.sync_folder()
}

/// Makes the names in the folder `dir` durable, whichever process made them.
///
/// # Errors
/// [`DurableError::Fatal`] and [`DurableError::Failed`], as [`publish`].
pub fn sync_folder(disk: &dyn Disk, dir: &Path) -> Result<(), DurableError> {
    open(disk, dir)?.sync().map_err(|e| DurableError::at(Step::SyncFolder, dir, e))
}

/// Makes the names in the folder `dir` durable that an earlier process may have left unsynced.
///
/// A folder that may not be listed was not left by us; a file system that is read-only, or whose folders cannot be
/// synced, is taken as it is.
///
/// # Errors
/// The errors of [`sync_folder`].
pub fn settle_folder(disk: &dyn Disk, dir: &Path) -> Result<(), DurableError> {
    let folder = match disk.open_folder(dir) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        opened => opened.map_err(|e| DurableError::at(Step::OpenFolder, dir, e))?,
    };
    match folder.sync() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem) => {
            Ok(())
        }
        synced => synced.map_err(|e| DurableError::at(Step::SyncFolder, dir, e)),
    }
}

/// Like [`settle_folder`], for `dir` and all folders above it: its own name and theirs are durable then. The
/// path must be absolute and without symlinks.
///
/// # Errors
/// The errors of [`sync_folder`].
pub fn settle_path(disk: &dyn Disk, dir: &Path) -> Result<(), DurableError> {
    dir.ancestors().try_for_each(|dir| settle_folder(disk, dir))
}

/// Makes every file and folder at and below the folder `dir` durable, the deepest first. The name of `dir` itself
/// is not.
///
/// A file that vanishes meanwhile needs no sync. A symlink is not a file of the server and is skipped.
///
/// # Errors
/// [`DurableError::Fatal`] and [`DurableError::Failed`], as [`publish`].
pub fn sync_tree(disk: &dyn Disk, dir: &Path) -> Result<(), DurableError> {
    let folder = open(disk, dir)?;
    for entry in list(folder.as_ref(), dir)? {
        let path = dir.join(&entry.name);
        let synced = match entry.kind {
            EntryKind::Folder => sync_tree(disk, &path),
            EntryKind::File => sync_file(folder.as_ref(), &entry.name, &path),
            EntryKind::Other => Ok(()),
        };
        match synced {
            Err(DurableError::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            synced => synced?,
        }
    }
    folder.sync().map_err(|e| DurableError::at(Step::SyncFolder, dir, e))
}

fn sync_file(folder: &dyn Folder, name: &OsStr, path: &Path) -> Result<(), DurableError> {
    let file = file_name(name).and_then(|name| folder.open_file(&name));
    let file = file.map_err(|e| DurableError::at(Step::OpenFile, path, e))?;
    file.sync().map_err(|e| DurableError::at(Step::SyncFile, path, e))
}

fn file_name(name: &OsStr) -> io::Result<FileName> {
    let name = name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    name.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidFilename, e))
}

/// Removes the file `name` from the folder `dir`, durably. A name or folder that is not there
/// counts as removed.
///
/// # Errors
/// The errors of [`publish`], without [`DurableError::Differs`].
pub fn remove(disk: &dyn Disk, dir: &Path, name: &FileName) -> Result<Removed, DurableError> {
    let folder = match disk.open_folder(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Removed::Before),
        opened => opened.map_err(|e| DurableError::at(Step::OpenFolder, dir, e))?,
    };
    let target = Target { folder: folder.as_ref(), dir, name };
    let removed = match folder.remove(name.as_str()) {
        Ok(()) => Removed::Now,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Removed::Before,
        Err(e) => return Err(target.failed(Step::Remove, e)),
    };
    // Also if the name was missing: the process that removed it may have died before this sync.
    target.sync_folder()?;
    Ok(removed)
}

/// Removes the temporary files that a dead process left in the folder `dir`; returns how many.
///
/// Call it before anything is published into the folder: it cannot tell a leftover from the file
/// of a publisher at work, whose publish would fail. The removals are not synced; what a power
/// cut brings back is swept the next time.
///
/// # Errors
/// [`DurableError::Fatal`] and [`DurableError::Failed`], as [`publish`].
pub fn sweep_temporaries(disk: &dyn Disk, dir: &Path) -> Result<u64, DurableError> {
    let folder = open(disk, dir)?;
    let mut swept = 0;
    for entry in list(folder.as_ref(), dir)?.iter().filter(|entry| entry.kind != EntryKind::Folder) {
        let Some(name) = entry.name.to_str().filter(|name| name.starts_with(TEMPORARY_PREFIX)) else {
            continue;
        };
        folder.remove(name).map_err(|e| DurableError::at(Step::Remove, &dir.join(name), e))?;
        swept += 1;
    }
    Ok(swept)
}

/// Lists the folder `dir`, in no particular order.
///
/// # Errors
/// [`DurableError::Fatal`] and [`DurableError::Failed`], as [`publish`].
pub fn entries(disk: &dyn Disk, dir: &Path) -> Result<Vec<Entry>, DurableError> {
    list(open(disk, dir)?.as_ref(), dir)
}

fn list(folder: &dyn Folder, dir: &Path) -> Result<Vec<Entry>, DurableError> {
    folder.entries().map_err(|e| DurableError::at(Step::ListFolder, dir, e))
}

fn open(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Folder>, DurableError> {
    disk.open_folder(dir).map_err(|e| DurableError::at(Step::OpenFolder, dir, e))
}

/// A name in an open folder, on its way to being durable.
struct Target<'a> {
    folder: &'a dyn Folder,
    dir: &'a Path,
    name: &'a FileName,
}

impl Target<'_> {
    fn failed(&self, step: Step, source: io::Error) -> DurableError {
        DurableError::at(step, &self.dir.join(self.name.as_str()), source)
    }

    /// Makes a temporary file with the content `bytes`, synced.
    fn write_temporary(&self, bytes: &[u8]) -> Result<TemporaryName, DurableError> {
        let (temporary, file) =
            self.folder.create_temporary().map_err(|e| self.failed(Step::CreateTemporary, e))?;
        match self.fill(file, bytes) {
            Ok(()) => Ok(temporary),
            Err(e) => Err(self.discard(&temporary).err().unwrap_or(e)),
        }
    }

    /// Writes and syncs the temporary file, and closes it.
    fn fill(&self, mut file: Box<dyn DiskFile>, bytes: &[u8]) -> Result<(), DurableError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = file.write(rest).map_err(|e| self.failed(Step::Write, e))?;
            rest = match rest.get(written..) {
                Some(left) if written > 0 => left,
                _ => return Err(self.failed(Step::Write, io::ErrorKind::WriteZero.into())),
            };
        }
        file.sync().map_err(|e| self.failed(Step::SyncTemporary, e))
    }

    /// Removes the temporary file after a failure. If only this fails, the file is harmless and stays until
    /// the next sweep. A fatal error counts in any case.
    fn discard(&self, temporary: &TemporaryName) -> Result<(), DurableError> {
        match self.folder.remove(temporary.as_str()).map_err(|e| self.failed(Step::Remove, e)) {
            Err(e) if e.is_fatal() => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Compares the file that has the name with `bytes` and makes it durable: the process that
    /// published it may have died before its folder sync.
    fn confirm(&self, bytes: &[u8]) -> Result<(), DurableError> {
        let mut file = self.folder.open_file(self.name).map_err(|e| self.failed(Step::OpenFile, e))?;
        let same = holds(file.as_mut(), bytes).map_err(|e| self.failed(Step::Read, e))?;
        if !same {
            return Err(DurableError::Differs { path: self.dir.join(self.name.as_str()) });
        }
        file.sync().map_err(|e| self.failed(Step::SyncFile, e))?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), DurableError> {
        self.folder.sync().map_err(|e| DurableError::at(Step::SyncFolder, self.dir, e))
    }
}

/// True if the rest of `file` is exactly `bytes`.
fn holds(file: &mut dyn DiskFile, bytes: &[u8]) -> io::Result<bool> {
    let mut buffer = vec![0; COMPARE_BYTES];
    let mut rest = bytes;
    loop {
        let read = file.read(&mut buffer)?;
        let found = buffer.get(..read).ok_or(io::ErrorKind::InvalidData)?;
        if found.is_empty() {
            return Ok(rest.is_empty());
        }
        match rest.strip_prefix(found) {
            Some(left) => rest = left,
            None => return Ok(false),
        }
    }
}
