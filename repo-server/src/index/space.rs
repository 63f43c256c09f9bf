//! Refuses commits before the disk is full, while engines still have room to finish their own work.

use std::path::{Path, PathBuf};

use super::IndexError;

/// Kept free at least: some journals and tables of an engine.
pub(crate) const RESERVE_MIN: u64 = 128 << 20;

/// Kept free at most: the largest rewrite of tables that an engine starts.
const RESERVE_MAX: u64 = 4 << 30;

/// Guards the room on the disk that holds an index.
///
/// An engine that hits a full disk stops for good: the failed write cannot be retried. A commit that is
/// refused here costs nothing, reads continue, and commits are accepted again once there is space.
pub(super) struct Space {
    dir: PathBuf,
    reserve_min: u64,
}

impl Space {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), reserve_min: RESERVE_MIN }
    }

    /// Refuses if less is free than an index of `stored_bytes` needs for its own work.
    pub(super) fn check(&self, stored_bytes: u64) -> Result<(), IndexError> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(IndexError::commit)?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve_bytes = (stored_bytes / 4).min(RESERVE_MAX).max(self.reserve_min);
        if free_bytes < reserve_bytes {
            return Err(IndexError::Full { free_bytes, reserve_bytes });
        }
        Ok(())
    }

    /// Pretends that the disk has become full, or has room again.
    #[cfg(test)]
    pub(super) fn set_reserve(&mut self, bytes: u64) {
        self.reserve_min = bytes;
    }
}
