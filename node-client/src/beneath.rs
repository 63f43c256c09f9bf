//! Opens folders by their paths without following any symbolic link, even if one is made meanwhile.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a path is looked up again when somebody renames folders meanwhile.
const RACES: u32 = 16;

/// Opens the folder at the absolute `path`, which names it without symbolic links.
///
/// # Errors
/// [`Errno::LOOP`] or [`Errno::NOTDIR`] if a symbolic link is on the way, or at its end.
pub(crate) fn open_real(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let below = path.as_os_str().as_bytes().strip_prefix(b"/").ok_or(Errno::INVAL)?;
    let top = rustix::fs::openat(CWD, "/", WALK, Mode::empty())?;
    open_beneath(std::os::fd::AsFd::as_fd(&top), below, flags)
}

/// Opens the folder at `path` below `root`; an empty path is `root` itself.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.is_empty() { &b"."[..] } else { path };
    for _ in 0..RACES {
        match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // An old kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return walk_beneath(root, path, flags),
            done => return done,
        }
    }
    walk_beneath(root, path, flags)
}

const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The same, one component at a time.
pub(crate) fn walk_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut folder = rustix::fs::openat(root, ".", WALK, Mode::empty())?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        folder = rustix::fs::openat(&folder, name, WALK, Mode::empty())?;
    }
    rustix::fs::openat(&folder, ".", flags, Mode::empty())
}
