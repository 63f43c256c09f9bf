//! The saved state: the last push, and the journal of an interrupted push after it.

use format_spec::page::Content;
use format_spec::{Entry, EntryPath, Timestamp};
use minicbor::{Decode, Encode};

use super::known::KnownFile;
use super::{ByInode, Damaged, Known, Slot};
use crate::identity::{Device, Identity, Settled};
use crate::twin::{Old, is_back};

/// Which of both a file was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Origin {
    /// The last push that ended with a snapshot.
    #[n(0)]
    Last,
    /// The same, under another name.
    #[n(1)]
    Moved,
    /// A push that was cut short.
    #[n(2)]
    Journal,
}

/// Parts of an identity that may differ for a file to be recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alike {
    /// All of it: device, inode and birth identify the file.
    #[default]
    Exact,
    /// Its device: another snapshot of the same volume, or the volume mounted again.
    IgnoreDevice,
    /// Its inode and birth too: file systems that give a file another number each time.
    IgnoreInode,
}

/// Which files are taken for the same as those that are remembered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Likeness {
    alike: Alike,
    /// Devices of the last push that have another number now, and that.
    devices: Vec<(u64, u64)>,
}

impl Likeness {
    /// A file system is known by its own id, where it has one that lasts; `before` and `now` are those of the roots.
    pub(crate) fn new(alike: Alike, before: &[Device], now: &[Device]) -> Self {
        let pairs = before.iter().zip(now).filter(|(before, now)| before.dev != now.dev);
        let is_same = |(before, now): &(&Device, &Device)| {
            alike != Alike::Exact || (before.file_system == now.file_system && now.file_system != 0)
        };
        let devices = pairs.filter(is_same).map(|(before, now)| (before.dev, now.dev)).collect();
        Self { alike, devices }
    }

    /// The slot as that of the file that is `now`, if it is taken for the same in spite of other numbers.
    fn adapt(&self, slot: Slot, now: &Identity, named: Named) -> Option<Slot> {
        let was = slot.identity;
        let is_mapped = self.devices.contains(&(was.dev, now.dev)) || self.alike != Alike::Exact;
        let is_inode = (was.ino, was.btime) == (now.ino, now.btime);
        let identity = if is_inode && was.dev != now.dev && is_mapped {
            Identity { dev: now.dev, ..was }
        } else if self.alike == Alike::IgnoreInode && named == Named::Same && !was.is_same_inode(now) {
            Identity { dev: now.dev, ino: now.ino, btime: now.btime, ..was }
        } else {
            return None;
        };
        Some(Slot { identity, ..slot })
    }
}

/// Match of a file with the name under which it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Same,
    Otherwise,
}

/// How sure it is that a remembered file is the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sure {
    /// It is the same inode.
    Yes,
    /// Device or inode were ignored: samples of it are compared.
    Sampled,
}

/// Saved state of earlier pushes; may be empty.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) last: Option<Known>,
    pub(crate) journal: Option<Known>,
    moved: Option<ByInode>,
    likeness: Likeness,
}

/// A file that is remembered.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) entry: Entry,
    pub(crate) slot: Option<Slot>,
    pub(crate) origin: Origin,
    pub(crate) sure: Sure,
}

impl Memory {
    /// Joins the state of the last push and a journal.
    pub(crate) fn new(last: Option<Known>, journal: Option<Known>, likeness: Likeness) -> Self {
        let moved = last.as_ref().and_then(Known::by_inode);
        Self { last, journal, moved, likeness }
    }

    /// The file at `path`, which is `now`, as it was remembered last. Paths must come in ascending order.
    pub(crate) fn find(&mut self, path: &EntryPath, now: &Identity) -> Result<Option<Remembered>, Damaged> {
        let journal = self.journal.as_mut().map(|known| known.find(path)).transpose()?.flatten();
        let last = self.last.as_mut().map(|known| known.find(path)).transpose()?.flatten();
        let slot = |file: &Option<KnownFile>| file.as_ref()?.slot.filter(|slot| slot.identity == *now);
        // The state of the last push is whole; a journal may end within the file.
        let needs_journal =
            slot(&journal).is_some() && slot(&last).is_none_or(|slot| slot.settled == Settled::No);
        let (file, origin) = match (journal, last) {
            (Some(journal), None) => (Some(journal), Origin::Journal),
            (Some(journal), Some(_)) if needs_journal => (Some(journal), Origin::Journal),
            (_, last) => (last, Origin::Last),
        };
        let is_named_so = file.as_ref().is_some_and(|file| {
            file.slot.is_none_or(|slot| {
                slot.identity.is_same_inode(now) || self.likeness.adapt(slot, now, Named::Same).is_some()
            })
        });
        let moved = if is_named_so { None } else { self.find_moved(now) };
        let (file, origin, named) = match (moved, file) {
            (Some(moved), _) => (moved, Origin::Moved, Named::Otherwise),
            (None, Some(file)) => (file, origin, Named::Same),
            (None, None) => return Ok(None),
        };
        let adapted = file.slot.and_then(|slot| self.likeness.adapt(slot, now, named));
        let sure = if adapted.is_some() { Sure::Sampled } else { Sure::Yes };
        Ok(Some(Remembered { entry: file.entry, slot: adapted.or(file.slot), origin, sure }))
    }

    /// The file under whatever name it had.
    fn find_moved(&mut self, now: &Identity) -> Option<KnownFile> {
        if is_back(Old::PathOnly) {
            return None;
        }
        let Self { moved, likeness, .. } = self;
        let unborn = Timestamp { seconds: 0, nanos: 0 };
        moved.as_mut()?.find(now.ino, |slot| {
            let slot = likeness.adapt(*slot, now, Named::Otherwise).unwrap_or(*slot);
            let was = slot.identity;
            // Without births a number may have been given to another file: that has other times.
            let is_told = was.btime != unborn || (was.size, was.mtime) == (now.size, now.mtime);
            was.is_same_inode(now) && is_told
        })
    }

    /// The next part of the content of the file that [`find`](Self::find) just gave; `None` if a
    /// journal ends before the file does.
    pub(crate) fn content(&mut self, origin: Origin) -> Result<Option<Content>, Damaged> {
        match origin {
            Origin::Last => self.last.as_mut().ok_or(Damaged)?.content(),
            Origin::Journal => self.journal.as_mut().ok_or(Damaged)?.content(),
            Origin::Moved => self.moved.as_mut().ok_or(Damaged)?.content(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Habit, Source};

    fn identity(dev: u64) -> Identity {
        let time = Timestamp { seconds: 9, nanos: 1 };
        Identity { dev, ino: 5, btime: time, size: 10, mtime: time, ctime: time }
    }

    fn device(dev: u64, file_system: u64) -> Device {
        Device { dev, file_system }
    }

    /// C14: a file system that is mounted again, or a snapshot of its volume, is known by its own id.
    #[test]
    fn a_device_with_another_number_is_known_by_its_file_system_or_if_that_is_asked_for() {
        let slot = Slot {
            identity: identity(1),
            settled: Settled::Yes,
            source: Source::Path,
            habit: Habit::UNKNOWN,
            links: 1,
        };
        let cases = [
            (Alike::Exact, device(1, 7), device(2, 7), true),
            (Alike::Exact, device(1, 7), device(2, 8), false),
            (Alike::Exact, device(1, 0), device(2, 0), false),
            (Alike::IgnoreDevice, device(1, 7), device(2, 8), true),
            (Alike::IgnoreInode, device(1, 0), device(2, 0), true),
        ];
        for (alike, before, now, is_known) in cases {
            let likeness = Likeness::new(alike, &[before], &[now]);

            let adapted = likeness.adapt(slot, &identity(2), Named::Otherwise);

            assert_eq!(
                adapted.map(|slot| slot.identity),
                is_known.then(|| identity(2)),
                "{alike:?}, {now:?}"
            );
            let other = Identity { ino: 6, ..identity(2) };
            let is_path_enough = alike == Alike::IgnoreInode;
            assert_eq!(likeness.adapt(slot, &other, Named::Same).is_some(), is_path_enough, "{alike:?}");
            assert!(likeness.adapt(slot, &other, Named::Otherwise).is_none(), "{alike:?}");
        }
    }
}
