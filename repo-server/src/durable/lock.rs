//! Locks of the operating system on files: at most one process has one, and its end frees it.

use std::fs::File;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often a lock is looked at before it is taken to be somebody's, and between two looks: a quarter of a second.
const LOCK_LOOKS: u32 = 50;
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Locks a file that no other process has locked. A lock may outlive its holder for a moment: a child process
/// has all its files from the fork to the exec.
pub(crate) fn lock_patiently(file: &File) -> Result<(), Errno> {
    for _ in 0..LOCK_LOOKS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            #[expect(clippy::disallowed_methods, reason = "the system tells nobody when a lock is free")]
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_POLL),
            locked => return locked,
        }
    }
    Err(Errno::WOULDBLOCK)
}
