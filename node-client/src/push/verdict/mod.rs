//! Changes of a file since it was last read, and the reading that each requires.
//!
//! Pure: the whole truth table is here and in `docs/change-detection.md`, and a test compares the two.

pub(crate) mod doubt;
pub(crate) mod draw;

use minicbor::{Decode, Encode};

use super::class::Class;
use super::stat::Stat;
use crate::identity::{Change, Habit, Settled, Trust};
use crate::state::{Origin, Remembered, Slot, Sure};
use crate::twin::{Old, is_back};

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

/// Action for a known file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Verdict {
    /// Take what is known; read nothing.
    #[n(0)]
    Reuse,
    /// Take what is known if samples of it match: the last chunk and a few others.
    #[n(1)]
    Check,
    /// Take what is known if all of it matches; as [`Check`](Self::Check), where too many files are in doubt.
    #[n(2)]
    Compare,
    /// Like [`Check`](Self::Check), and read on from the start of the last chunk.
    #[n(3)]
    Append,
    /// Like [`Append`](Self::Append), if every old chunk matches.
    #[n(4)]
    Prove,
    /// Read all of it.
    #[n(5)]
    Whole,
}

/// The answer to the one question that is asked of each file that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Judged {
    /// Which memory of the file it is about.
    #[n(0)]
    pub(crate) origin: Origin,
    /// How its owner changes it.
    #[n(1)]
    pub(crate) class: Class,
    /// How it has been seen to be written, this change included.
    #[n(2)]
    pub(crate) habit: Habit,
    /// The action.
    #[n(3)]
    pub(crate) verdict: Verdict,
}

impl Judged {
    /// The answer for a file of this class that is remembered as `slot` and is `now`.
    pub(crate) fn of(class: Class, slot: &Slot, remembered: &Remembered, now: &Stat) -> Self {
        let change = Change::since(slot, remembered, now);
        // An interrupted push may not have finished its comparisons; those of a file that was recognized
        // without device or inode do not count.
        let is_proved = remembered.origin != Origin::Journal && remembered.sure == Sure::Yes;
        let habit = match slot.habit.after(change) {
            Habit::Appends(_) if !is_proved => Habit::UNKNOWN,
            habit => habit,
        };
        let verdict = verdict(class, change, slot.settled, habit.trust());
        Self { origin: remembered.origin, class, habit, verdict }
    }
}

/// The truth table.
fn verdict(class: Class, change: Change, settled: Settled, trust: Trust) -> Verdict {
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

#[cfg(test)]
mod tests;
