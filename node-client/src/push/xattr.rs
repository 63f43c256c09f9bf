//! Extended attributes of a name, which is how access control lists come along too.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use format_spec::Xattr;
use rustix::io::Errno;

/// Room for the attributes of most files: one call, and no allocation that is too large.
const USUAL_LEN: usize = 256;

/// The attributes of an open file or folder, sorted by name. A file system without attributes has none.
pub(crate) fn of_file(file: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    Source::File(file.as_fd()).collect()
}

/// The attributes of a name that cannot be opened, such as a symbolic link, which is not followed.
pub(super) fn of_name(folder: impl AsFd, name: &CStr) -> Result<Vec<Xattr>, Errno> {
    // There is no call relative to a handle before Linux 6.13, but the handle has a path of its own.
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Source::Path(&path).collect()
}

/// Where attributes are read from.
enum Source<'a> {
    File(BorrowedFd<'a>),
    Path(&'a [u8]),
}

impl Source<'_> {
    fn collect(&self) -> Result<Vec<Xattr>, Errno> {
        let names = match sized(|buffer| self.list(buffer), || self.list_len()) {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            names => names?,
        };
        let mut xattrs = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match sized(|buffer| self.get(name, buffer), || self.get_len(name)) {
                Ok(value) => xattrs.push(Xattr { name: name.to_vec(), value }),
                // Removed since it was listed.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
        xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(xattrs)
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => rustix::fs::flistxattr(file, buffer),
            Self::Path(path) => rustix::fs::llistxattr(*path, buffer),
        }
    }

    fn list_len(&self) -> Result<usize, Errno> {
        match self {
            Self::File(file) => rustix::fs::flistxattr_query(file),
            Self::Path(path) => rustix::fs::llistxattr_query(*path),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => rustix::fs::fgetxattr(file, name, buffer),
            Self::Path(path) => rustix::fs::lgetxattr(*path, name, buffer),
        }
    }

    fn get_len(&self, name: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => rustix::fs::fgetxattr_query(file, name),
            Self::Path(path) => rustix::fs::lgetxattr_query(*path, name),
        }
    }
}

/// Bytes that `fill` writes, in a buffer as large as `len` requires.
fn sized(
    fill: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    len: impl Fn() -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut usual = [0; USUAL_LEN];
    match fill(&mut usual) {
        Err(Errno::RANGE) => {}
        filled => return Ok(usual.get(..filled?).unwrap_or_default().to_vec()),
    }
    loop {
        let mut buffer = vec![0; len()?];
        match fill(&mut buffer) {
            // It grew between the two calls.
            Err(Errno::RANGE) => {}
            filled => {
                buffer.truncate(filled?);
                return Ok(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;

    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn small_large_and_empty_attributes_come_whole_and_sorted() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        std::fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        // Names take more than the usual room, and one value does. File systems give 4 KiB for all.
        let names: Vec<String> = (0..12).map(|n| format!("user.{n:02}.{}", "n".repeat(30))).collect();
        let values: Vec<Vec<u8>> = (0..12).map(|n| vec![7; n * n * 5]).collect();
        for (name, value) in names.iter().zip(&values).rev() {
            match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
                // Such a file system has no attributes.
                Err(Errno::NOTSUP) => return assert!(of_file(&file).unwrap().is_empty()),
                set => set.unwrap(),
            }
        }

        let by_file = of_file(&file).unwrap();
        let by_name = of_name(File::open(temp.path()).unwrap(), c"f").unwrap();

        let expected: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).zip(values).collect();
        let found: Vec<_> = by_file.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect();
        assert_eq!(found, expected);
        assert_eq!(by_name, by_file);
    }

    #[test]
    fn what_grows_between_two_calls_is_asked_for_again() {
        let size = Cell::new(300);
        let fill = |buffer: &mut [u8]| {
            if buffer.len() < size.get() { Err(Errno::RANGE) } else { Ok(size.get()) }
        };
        let len = || {
            let now = size.get();
            size.set((now + 100).min(700));
            Ok(now)
        };

        assert_eq!(sized(fill, len).unwrap().len(), 700);
    }
}
