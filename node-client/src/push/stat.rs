//! What the kernel says of one name.

use std::ffi::CStr;
use std::os::fd::AsFd;

use format_spec::{Entry, EntryKind, EntryPath, Timestamp, Xattr};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;

/// What tells one state of one file from every other: if nothing of it changed, neither did the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
}

/// A name's metadata.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) kind: FileType,
    pub(crate) identity: Identity,
    pub(crate) links: u32,
    /// Bytes that the file system stores of the file.
    pub(crate) allocated: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Stat {
    /// Of `name` in `folder`. A symbolic link is not followed.
    pub(crate) fn of_name(folder: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(folder, name, flags, StatxFlags::BASIC_STATS).map(|stat| Self::from_kernel(&stat))
    }

    /// Of an open file.
    pub(crate) fn of_file(file: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            .map(|stat| Self::from_kernel(&stat))
    }

    fn from_kernel(stat: &Statx) -> Self {
        let time = |seconds, nanos| Timestamp { seconds, nanos };
        let identity = Identity {
            dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            ino: stat.stx_ino,
            size: stat.stx_size,
            mtime: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: time(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        };
        Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            identity,
            links: stat.stx_nlink,
            allocated: stat.stx_blocks.saturating_mul(512),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
        }
    }

    /// The entry of `kind` with this metadata. A file gets its size; links and targets are for the
    /// caller to fill in.
    pub(crate) fn entry(&self, path: EntryPath, kind: EntryKind, xattrs: Vec<Xattr>) -> Entry {
        Entry {
            path,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.identity.mtime,
            size: if kind == EntryKind::File { self.identity.size } else { 0 },
            xattrs,
            target: None,
            link_group: None,
        }
    }
}
