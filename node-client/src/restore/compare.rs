//! Files that exist in the target already, in their pushed state: they are read there, not fetched. So an
//! interrupted restore continues.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use format_spec::key::{BlobKind, DomainKey};
use format_spec::{ChunkId, Entry};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::folder::{Existing, FolderCache, FolderJob, Inode, Target};
use super::layout::TargetPath;
use super::write::FileJob;

/// Chunks of one file that are kept in memory until it is compared: 48 MiB of them. A file with more is fetched.
const MAX_EXTENTS: usize = 1 << 20;
/// Bytes of a hole that are looked at at once.
const HOLE_LEN: u64 = 1 << 20;

/// A file of the target that may be what is to be restored: its length and time say so.
pub(super) struct Old {
    file: OwnedFd,
    stat: Stat,
}

/// A file that is to be restored, and the one that has its name.
pub(super) struct Compare {
    pub(super) job: Arc<FileJob>,
    pub(super) old: Old,
    /// Offset, id and length of each chunk.
    pub(super) extents: Vec<(u64, ChunkId, u32)>,
}

impl Old {
    /// The file that has the name `at`, if it was there before this restore and could be the one.
    pub(super) fn find(
        target: &Target,
        at: &TargetPath,
        entry: &Entry,
        folder: &FolderJob,
        cache: &mut FolderCache,
    ) -> Option<Self> {
        let (above, name) = at.split();
        if target.existing == Existing::Refuse || !folder.names_before().has(name) {
            return None;
        }
        let above = cache.of(target, above).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*above, name, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        // Another name of it may be something that is not to be changed.
        let is_ours = stat.st_nlink == 1 || entry.link_group.is_some();
        let fits = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(entry.size)
            && stat.st_mtime == entry.mtime.seconds
            && u32::try_from(stat.st_mtime_nsec) == Ok(entry.mtime.nanos);
        (fits && is_ours).then_some(Self { file, stat })
    }

    /// Which file it is.
    pub(super) fn inode(&self) -> Inode {
        Inode::of(&self.stat)
    }

    /// Gives it the other attributes that it was pushed with.
    pub(super) fn give_attributes(&self, attributes: &Attributes, entry: &Entry) {
        attributes.apply(self.file.as_fd(), entry);
    }

    /// True if it was not written to since it was found.
    fn is_as_found(&self) -> bool {
        rustix::fs::fstat(&self.file).is_ok_and(|now| {
            let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
            time(&now) == time(&self.stat) && now.st_size == self.stat.st_size
        })
    }

    fn read(&self, buffer: &mut [u8], mut offset: u64) -> Option<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.file, rest, offset) {
                Ok(0) => return None,
                Ok(read) => {
                    done += read;
                    offset += u64::try_from(read).ok()?;
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(())
    }
}

impl Compare {
    /// True if more chunks would need too much memory.
    pub(super) fn is_too_long(&self) -> bool {
        self.extents.len() > MAX_EXTENTS
    }

    /// True if the file of the target has the content to restore. Reads all of it.
    pub(super) fn is_same(&self, domain: &DomainKey) -> bool {
        self.compare(domain).is_some() && self.old.is_as_found()
    }

    fn compare(&self, domain: &DomainKey) -> Option<()> {
        let mut buffer = Vec::new();
        let mut at = 0;
        for (offset, id, len) in &self.extents {
            self.is_hole(at, *offset, &mut buffer)?;
            buffer.resize(usize::try_from(*len).ok()?, 0);
            self.old.read(&mut buffer, *offset)?;
            if domain.id_of(BlobKind::Chunk, &buffer) != *id {
                return None;
            }
            at = offset + u64::from(*len);
        }
        self.is_hole(at, self.job.entry.size, &mut buffer)
    }

    fn is_hole(&self, mut from: u64, to: u64, buffer: &mut Vec<u8>) -> Option<()> {
        while from < to {
            let len = (to - from).min(HOLE_LEN);
            buffer.resize(usize::try_from(len).ok()?, 0);
            self.old.read(buffer, from)?;
            if buffer.iter().any(|byte| *byte != 0) {
                return None;
            }
            from += len;
        }
        Some(())
    }
}
