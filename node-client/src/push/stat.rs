//! Stat of one name.

use std::ffi::CStr;
use std::os::fd::AsFd;

use format_spec::{Entry, EntryKind, EntryPath, Timestamp, Xattr};
use minicbor::{Decode, Encode};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;

use crate::identity::Identity;

/// A name's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Stat {
    #[n(0)]
    pub(crate) identity: Identity,
    #[n(1)]
    pub(crate) links: u32,
    /// Bytes that the file system stores of the file.
    #[n(2)]
    pub(crate) allocated: u64,
    /// Type and permissions, as the kernel gives them.
    #[n(3)]
    pub(crate) mode: u16,
    #[n(4)]
    pub(crate) uid: u32,
    #[n(5)]
    pub(crate) gid: u32,
}

/// Tells whether two folders are on one mount, so that one can hold links of files in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mount {
    dev: (u32, u32),
    /// Zero where the kernel does not tell (before Linux 5.8).
    id: u64,
}

impl Mount {
    /// The mount of `folder`; `None` if it cannot be read.
    pub(crate) fn of(folder: &std::path::Path) -> Option<Self> {
        let flags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);
        let stat = rustix::fs::statx(rustix::fs::CWD, folder, AtFlags::NO_AUTOMOUNT, flags).ok()?;
        let is_told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        let id = if is_told { stat.stx_mnt_id } else { 0 };
        Some(Self { dev: (stat.stx_dev_major, stat.stx_dev_minor), id })
    }
}

impl Stat {
    const FLAGS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    /// Stat of `name` in `folder`. A symbolic link is not followed.
    pub(crate) fn of_name(folder: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(folder, name, flags, Self::FLAGS).map(|stat| Self::from_kernel(&stat))
    }

    /// Stat of an open file.
    pub(crate) fn of_file(file: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, Self::FLAGS).map(|stat| Self::from_kernel(&stat))
    }

    fn from_kernel(stat: &Statx) -> Self {
        let time = |seconds, nanos| Timestamp { seconds, nanos };
        let has_btime = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let btime = if has_btime { time(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) } else { time(0, 0) };
        let identity = Identity {
            dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            ino: stat.stx_ino,
            btime,
            size: stat.stx_size,
            mtime: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: time(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        };
        Self {
            identity,
            links: stat.stx_nlink,
            allocated: stat.stx_blocks.saturating_mul(512),
            mode: stat.stx_mode,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
        }
    }

    /// Type of the file.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode.into())
    }

    /// The entry of `kind` with this metadata. A file gets its size; links and targets are for the
    /// caller to fill in.
    pub(crate) fn entry(&self, path: EntryPath, kind: EntryKind, xattrs: Vec<Xattr>) -> Entry {
        Entry {
            path,
            kind,
            mode: u32::from(self.mode) & 0o7777,
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
