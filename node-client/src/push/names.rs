//! The names in one folder.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

/// The names in a folder, sorted by bytes, in two allocations.
pub(crate) struct Names {
    /// Each name with its NUL.
    bytes: Vec<u8>,
    ranges: Vec<(usize, usize)>,
}

impl Names {
    pub(crate) fn list(folder: &OwnedFd, buffer: &mut Vec<u8>) -> Result<Self, Errno> {
        // It may have been listed before.
        rustix::fs::seek(folder, SeekFrom::Start(0))?;
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        let mut listing = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(name) = listing.next() {
            let name = name?;
            let name = name.file_name().to_bytes_with_nul();
            if name != b".\0" && name != b"..\0" {
                ranges.push((bytes.len(), bytes.len() + name.len()));
                bytes.extend_from_slice(name);
            }
        }
        ranges.sort_unstable_by(|a, b| bytes.get(a.0..a.1).cmp(&bytes.get(b.0..b.1)));
        Ok(Self { bytes, ranges })
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &CStr> {
        (0..self.ranges.len()).filter_map(|index| self.get(index))
    }

    /// Without their NULs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().filter_map(|(start, end)| self.bytes.get(*start..end.checked_sub(1)?))
    }

    /// True if this name is among them.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        let of =
            |(start, end): &(usize, usize)| self.bytes.get(*start..end.saturating_sub(1)).unwrap_or_default();
        self.ranges.binary_search_by(|range| of(range).cmp(name)).is_ok()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&CStr> {
        let (start, end) = *self.ranges.get(index)?;
        CStr::from_bytes_with_nul(self.bytes.get(start..end)?).ok()
    }
}
