//! Exclusions of a push, counted for each option.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, StatxFlags};
use serde::Serialize;

/// Names that one option left out.
#[derive(Debug, Default)]
pub(crate) struct Count {
    entries: AtomicU64,
    folders: AtomicU64,
    bytes: AtomicU64,
}

/// Names that one option left out of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutBy {
    /// The option with its pattern, or the file and line of the pattern.
    pub by: String,
    /// Files, links and folders. A folder counts once: its content is not read.
    pub entries: u64,
    /// How many of them are folders.
    pub folders: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
}

impl Count {
    /// One more regular file of this length.
    pub(crate) fn file(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One more name in `folder`. Of what stands behind it, only what the kernel remembers is asked: a file system that
    /// does not answer may be left out for that very reason.
    pub(crate) fn name(&self, folder: impl AsFd, name: &CStr) {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let about = rustix::fs::statx(folder, name, flags, StatxFlags::TYPE | StatxFlags::SIZE).ok();
        match about.map(|about| (FileType::from_raw_mode(about.stx_mode.into()), about.stx_size)) {
            Some((FileType::RegularFile, size)) => return self.file(size),
            Some((FileType::Directory, _)) => self.folders.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts from zero.
    pub(crate) fn reset(&self) {
        for count in [&self.entries, &self.folders, &self.bytes] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// The counts of the option that is called `by`; `None` if it left out nothing.
    pub(crate) fn get(&self, by: String) -> Option<LeftOutBy> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let entries = of(&self.entries);
        (entries > 0).then(|| LeftOutBy { by, entries, folders: of(&self.folders), bytes: of(&self.bytes) })
    }
}
