//! All that is remembered: the last push, and the journal of one that was cut short after it.

use format_spec::page::Content;
use format_spec::{Entry, EntryPath};

use super::known::KnownFile;
use super::{Damaged, Known, Slot};
use crate::push::{Identity, Settled};

/// Which of both a file was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The last push that ended with a snapshot.
    Last,
    /// A push that was cut short.
    Journal,
}

/// What is remembered, and may be nothing.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) last: Option<Known>,
    pub(crate) journal: Option<Known>,
}

/// A file that is remembered.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) entry: Entry,
    pub(crate) slot: Option<Slot>,
    pub(crate) origin: Origin,
}

impl Memory {
    /// The file at `path`, which is `now`, as it was remembered last. Paths must come in ascending order.
    pub(crate) fn find(&mut self, path: &EntryPath, now: &Identity) -> Result<Option<Remembered>, Damaged> {
        let journal = self.journal.as_mut().map(|known| known.find(path)).transpose()?.flatten();
        let last = self.last.as_mut().map(|known| known.find(path)).transpose()?.flatten();
        let slot = |file: &Option<KnownFile>| file.as_ref()?.slot.filter(|slot| slot.identity == *now);
        // What the last push says is whole; a journal may end within the file.
        let needs_journal =
            slot(&journal).is_some() && slot(&last).is_none_or(|slot| slot.settled == Settled::No);
        let (file, origin) = match (journal, last) {
            (Some(journal), None) => (journal, Origin::Journal),
            (Some(journal), Some(_)) if needs_journal => (journal, Origin::Journal),
            (_, Some(last)) => (last, Origin::Last),
            (None, None) => return Ok(None),
        };
        Ok(Some(Remembered { entry: file.entry, slot: file.slot, origin }))
    }

    /// The next part of the content of the file that [`find`](Self::find) just gave; `None` if a
    /// journal ends before the file does.
    pub(crate) fn content(&mut self, origin: Origin) -> Result<Option<Content>, Damaged> {
        let known = match origin {
            Origin::Last => &mut self.last,
            Origin::Journal => &mut self.journal,
        };
        known.as_mut().ok_or(Damaged)?.content()
    }

    /// How many files of the last push were never found, when all paths that there are have come.
    pub(crate) fn count_gone(&mut self) -> Result<u64, Damaged> {
        self.last.as_mut().map_or(Ok(0), Known::count_gone)
    }

    /// Goes back to the first file.
    pub(crate) fn rewind(&mut self) -> Result<(), Damaged> {
        [&mut self.last, &mut self.journal].into_iter().flatten().try_for_each(Known::rewind)
    }
}
