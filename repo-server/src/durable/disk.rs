//! The few primitive steps that durable operations are made of.
//!
//! A step either happens as described or returns the error of the operating system. Nothing here
//! retries a sync. Only [`RealDisk`](super::RealDisk) touches files;
//! `SimDisk` is a model for tests.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// Prefix of the name of every temporary file. No published name may start so.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Longest name that common file systems take, in bytes.
const NAME_LIMIT: usize = 255;

/// A file system, as far as durable operations need one.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens the folder at `path`. Its last part must not be a symlink.
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn Folder>>;
}

/// An open folder. All names are relative to it, wherever it is moved.
pub trait Folder: Send {
    /// Creates an empty file under a fresh name, readable by the owner only.
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)>;

    /// Renames a temporary file, and fails with "already exists" if `to` is taken.
    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()>;

    /// Renames a temporary file, and replaces the file `to` if there is one.
    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()>;

    /// Opens a file for reading. It must not be a symlink.
    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a folder, open to the owner only; fails with "already exists" if the name is taken.
    fn make_folder(&self, name: &FileName) -> io::Result<()>;

    /// Removes the name of a file, published or temporary.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Lists the folder, in no particular order.
    fn entries(&self) -> io::Result<Vec<Entry>>;

    /// Makes the names of the folder durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Writes the beginning of `bytes` and returns how much of it, at least one byte.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Reads into the beginning of `into` and returns how much, 0 at the end of the file.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, which need not be text.
    pub name: OsString,
    /// Kind of the entry.
    pub kind: EntryKind,
}

/// Kind of an entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink, a device, a socket.
    Other,
}

/// A name inside one folder that a published file or folder may have.
///
/// A name of 1 to 255 bytes, without `/` and NUL, not `.` or `..`, and not the name of a temporary file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileName(String);

/// The text cannot name a file inside a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot name a published file", .0.escape_debug())]
pub struct BadFileName(String);

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = BadFileName;

    fn from_str(text: &str) -> Result<Self, BadFileName> {
        let usable = !text.is_empty()
            && text.len() <= NAME_LIMIT
            && !text.contains(['/', '\0'])
            && text != "."
            && text != ".."
            && !text.starts_with(TEMPORARY_PREFIX);
        if usable { Ok(Self(text.to_owned())) } else { Err(BadFileName(text.to_owned())) }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a temporary file: [`TEMPORARY_PREFIX`] and a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporaryName(String);

impl TemporaryName {
    /// The temporary name with this number.
    pub fn numbered(number: u64) -> Self {
        Self(format!("{TEMPORARY_PREFIX}{number:016x}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
