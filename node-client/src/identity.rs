//! Facts about one file that a push compares: the state of its inode, its change, and the habit of its owner.
//! The saved state keeps them from push to push.

use format_spec::Timestamp;
use minicbor::{Decode, Encode};
use rustix::fs::{AtFlags, StatxFlags};

use crate::twin::{Old, is_back};

/// Values that distinguish a state of a file: if none of them changed, the content did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Identity {
    #[n(0)]
    pub(crate) dev: u64,
    #[n(1)]
    pub(crate) ino: u64,
    /// When the inode was made; zero where the file system does not tell.
    #[n(2)]
    pub(crate) btime: Timestamp,
    #[n(3)]
    pub(crate) size: u64,
    #[n(4)]
    pub(crate) mtime: Timestamp,
    #[n(5)]
    pub(crate) ctime: Timestamp,
}

impl Identity {
    /// True if both are of one inode, in any state.
    pub(crate) fn is_same_inode(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.btime) == (other.dev, other.ino, other.btime)
    }
}

/// Device of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its number, which may be another after each mount.
    pub(crate) dev: u64,
    /// Id of its file system; zero if there is none.
    pub(crate) file_system: u64,
}

impl Device {
    /// Device of `folder`; zeros if it cannot be read.
    pub(crate) fn of(folder: &std::path::Path) -> Self {
        let stat = rustix::fs::statx(rustix::fs::CWD, folder, AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS);
        let dev = stat.map_or(0, |stat| u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor));
        let file_system = rustix::fs::statvfs(folder).map_or(0, |about| about.f_fsid);
        Self { dev, file_system }
    }
}

/// Change of a name, as reported by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// No part of its identity changed.
    None,
    /// Only its ctime: it got another mode or attribute, or was written and its mtime set back.
    Stamp,
    /// Only its ctime, as the names of the inode changed; or nothing, and it is only taken for the same file.
    Named,
    /// The same inode is longer.
    Grown,
    /// The same inode has the same length and another mtime: it was written in place.
    Rewritten,
    /// The same inode is shorter.
    Shrunk,
    /// Another inode has its name.
    Replaced,
}

impl Change {
    /// From one state to another.
    pub(crate) fn between(before: &Identity, now: &Identity) -> Self {
        if before == now {
            return Self::None;
        }
        if !before.is_same_inode(now) {
            return Self::Replaced;
        }
        match now.size.cmp(&before.size) {
            std::cmp::Ordering::Greater => Self::Grown,
            std::cmp::Ordering::Less => Self::Shrunk,
            std::cmp::Ordering::Equal if before.mtime == now.mtime => Self::Stamp,
            std::cmp::Ordering::Equal => Self::Rewritten,
        }
    }
}

/// Certainty that a later change shows in an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is.
    Yes,
    /// The file had changed a moment before: another change may have got the same times.
    No,
}

/// Growths with every old chunk compared, before growth alone is taken for appending.
const PROOFS: u8 = 2;

/// Growths that are then believed, before the next one is compared whole again.
const BELIEVED: u8 = 30;

/// How the owner of a file has been seen to write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Habit {
    /// It grew this often, and nothing old had changed: [`PROOFS`] times by comparing all of it, then by samples.
    #[n(0)]
    Appends(#[n(0)] u8),
    /// In place, at least once: that it grew does not mean that only its end is new.
    #[n(1)]
    InPlace,
}

impl Habit {
    /// No growth was seen yet.
    pub(crate) const UNKNOWN: Self = Self::Appends(0);

    /// The habit after one more change of the file. A growth adds nothing until its proof: see [`grown`](Self::grown).
    pub(crate) fn after(self, change: Change) -> Self {
        match change {
            Change::Replaced => Self::UNKNOWN,
            Change::Rewritten | Change::Shrunk => Self::InPlace,
            Change::None | Change::Stamp | Change::Named | Change::Grown => self,
        }
    }

    /// It grew once more, and nothing old was found changed.
    pub(crate) fn grown(self) -> Self {
        match self {
            Self::Appends(growths) if growths < PROOFS + BELIEVED => Self::Appends(growths + 1),
            // All of it was compared again.
            Self::Appends(_) => Self::Appends(PROOFS),
            Self::InPlace => Self::InPlace,
        }
    }

    /// How far this habit lets a push of class `auto` take growth for appending.
    pub(crate) fn trust(self) -> Trust {
        match self {
            Self::InPlace => Trust::Never,
            Self::Appends(_) if is_back(Old::GrowthIsAppending) => Trust::Earned,
            Self::Appends(growths) if (PROOFS..PROOFS + BELIEVED).contains(&growths) => Trust::Earned,
            Self::Appends(_) => Trust::NotYet,
        }
    }
}

/// How far a push takes the growth of a file for appending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Only if every old chunk is what it was.
    NotYet,
    /// If samples are.
    Earned,
    /// It is not: the file was seen to be written in place, or is of a format that is.
    Never,
}

/// Where the content of a file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Source {
    /// Under the name that its owner gave it.
    #[n(0)]
    Path,
    /// Under its second name, a hard link in the tree of its file system.
    #[n(1)]
    Link,
    /// Under its second name, which is that of a copy.
    #[n(2)]
    Copy,
}

#[cfg(test)]
mod tests;
