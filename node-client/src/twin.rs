//! Rules that a test takes back, to prove that the tests of each rule bite. In the product every rule holds.

/// A rule, by what held before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// Every file that grew was taken for a log.
    GrowthIsAppending,
    /// The names of a folder were looked at once.
    OneLook,
    /// A file was stored under its name, whatever name it had when it was read.
    NameOfTheFreeze,
    /// Times were believed a tick after the last change.
    TickOnly,
    /// Files were known by path alone.
    PathOnly,
    /// The last reading of a file that never stayed still counted as whole.
    LastReadingIsWhole,
    /// The newest snapshot was `latest`, whatever it lacked.
    LatestMayLack,
    /// Second names lay within the root.
    SecondNamesWithin,
    /// A file of a class that never grows, which grew while it was read, was one that never stayed still.
    NothingMayGrow,
    /// A file whose ctime changed without a reason was taken for the same if samples of it were.
    StampsAreSampled,
    /// A file that could not be frozen was read without a word.
    UnfrozenUnsaid,
}

/// True if the rule does not hold.
#[cfg(not(test))]
pub(crate) const fn is_back(_: Old) -> bool {
    false
}

#[cfg(test)]
pub(crate) use taken_back::{is_back, with_old};

#[cfg(test)]
mod taken_back {
    use std::cell::Cell;

    use super::Old;

    thread_local! {
        static BACK: Cell<Option<Old>> = const { Cell::new(None) };
    }

    /// True if this thread does without the rule.
    pub(crate) fn is_back(old: Old) -> bool {
        BACK.get() == Some(old)
    }

    /// Does something without a rule, on this thread.
    pub(crate) fn with_old<T>(old: Option<Old>, run: impl FnOnce() -> T) -> T {
        BACK.set(old);
        let result = run();
        BACK.set(None);
        result
    }
}
