//! What became of a file since it was last read, and what must be read of it now.
//!
//! Pure: the whole truth table is here and in `docs/change-detection.md`, and a test compares the two.

use std::num::NonZeroU32;

use super::class::Class;
use super::stat::{Identity, Stat};
use crate::state::{Origin, Remembered, Slot, Sure};
use crate::twin::{Old, is_back};

/// What the kernel says happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing of its identity changed.
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

impl Change {
    /// From what is remembered of a file, as `slot`, to `now`. Names that came or went explain another ctime.
    pub(crate) fn since(slot: &Slot, remembered: &Remembered, now: &Stat) -> Self {
        let is_named_otherwise = slot.links != now.links || remembered.origin == Origin::Moved;
        match (Self::between(&slot.identity, &now.identity), remembered.sure) {
            (Self::None | Self::Stamp, Sure::Sampled) => Self::Named,
            (Self::Stamp, Sure::Yes) if is_named_otherwise || is_back(Old::StampsAreSampled) => Self::Named,
            (change, _) => change,
        }
    }
}

/// Whether a later change is sure to show in an identity.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It grew this often, and nothing old had changed: [`PROOFS`] times by comparing all of it, then by samples.
    Appends(u8),
    /// In place, at least once: that it grew does not mean that only its end is new.
    InPlace,
}

impl Habit {
    /// Nothing was seen yet.
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

/// What to do about a file that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take what is known; read nothing.
    Reuse,
    /// Take what is known if samples of it match: the last chunk and a few others.
    Check,
    /// Take what is known if all of it matches; as [`Check`](Self::Check), where too many files are in doubt.
    Compare,
    /// As [`Check`](Self::Check), and read on from the start of the last chunk.
    Append,
    /// As [`Append`](Self::Append), if every old chunk matches.
    Prove,
    /// Read all of it.
    Whole,
}

/// The truth table.
pub(crate) fn verdict(class: Class, change: Change, settled: Settled, trust: Trust) -> Verdict {
    match (class, change) {
        (Class::Mutable, _) | (_, Change::Rewritten | Change::Shrunk | Change::Replaced) => Verdict::Whole,
        (Class::Immutable | Class::Logged, Change::Grown) => Verdict::Whole,
        (Class::AppendOnly, Change::Grown) => Verdict::Append,
        (Class::Auto, Change::Grown) => match trust {
            Trust::Earned => Verdict::Append,
            Trust::NotYet => Verdict::Prove,
            Trust::Never => Verdict::Whole,
        },
        (Class::AppendOnly | Class::Immutable, Change::None | Change::Stamp | Change::Named) => {
            Verdict::Reuse
        }
        (Class::Auto | Class::Logged, Change::None | Change::Stamp | Change::Named)
            if settled == Settled::No =>
        {
            Verdict::Whole
        }
        (Class::Auto | Class::Logged, Change::None) => Verdict::Reuse,
        (Class::Auto | Class::Logged, Change::Stamp) => Verdict::Compare,
        (Class::Auto | Class::Logged, Change::Named) => Verdict::Check,
    }
}

/// Which part of what is known to be unchanged is hashed again all the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rehash {
    /// Nothing.
    Never,
    /// Everything once in so many pushes. The first half of each round is free, and the second
    /// half has an equal share for each push.
    Every(NonZeroU32),
    /// A random share, of 0 to 1.
    Share(f64),
}

/// The choice of one push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    rehash: Rehash,
    /// How many pushes are remembered before this one.
    number: u64,
    /// Something that no other push has.
    seed: u64,
}

impl Draw {
    pub(crate) fn new(rehash: Rehash, number: u64, seed: u64) -> Self {
        Self { rehash, number, seed }
    }

    /// Something that no other push has.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the chunk `index` of the file with hash `file` is to be hashed again.
    pub(crate) fn chooses(&self, file: u64, index: u64) -> bool {
        let key = file.wrapping_add(index);
        match self.rehash {
            Rehash::Never => false,
            Rehash::Every(round) => self.slot(round).is_some_and(|(slot, slots)| key % slots == slot),
            Rehash::Share(share) => {
                let high = u32::try_from(mix(self.seed ^ mix(key)) >> 32).unwrap_or(u32::MAX);
                f64::from(high) < share * (f64::from(u32::MAX) + 1.0)
            }
        }
    }

    /// This push's place in the second half of its round, and how many places there are.
    fn slot(&self, round: NonZeroU32) -> Option<(u64, u64)> {
        let round = u64::from(round.get());
        let free = round / 2;
        Some(((self.number % round).checked_sub(free)?, round - free))
    }
}

/// Spreads bits (the finisher of SplitMix64).
fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// A number below `bound` that depends on `seed` and `n` alone; 0 if `bound` is.
pub(crate) fn pick(seed: u64, n: u64, bound: u64) -> u64 {
    mix(seed ^ mix(n)).checked_rem(bound).unwrap_or(0)
}

#[cfg(test)]
#[path = "change/tests.rs"]
mod tests;
