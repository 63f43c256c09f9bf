//! Reads a file whole, and makes sure that it stayed what it was meanwhile, or says that it did not.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use format_spec::{Extent, FileDigest, FileEnd, Timestamp};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Scan, ticked};
use crate::identity::{Change, Habit, Identity, Settled, Source, Trust};
use crate::push::class::Class;
use crate::push::find::list::FoundFile;
use crate::push::find::walk::reason;
use crate::push::options::Strict;
use crate::push::read::{Compared, Reading, Unread, layout};
use crate::push::report::Kind;
use crate::push::stat::Stat;
use crate::push::stop::Stopped;
use crate::push::verdict::draw::pick;
use crate::push::xattr;
use crate::twin::{Old, is_back};

/// How often a file is read that changes meanwhile, before its last reading is kept as it is.
const READS: u32 = 3;
/// How often a file is read that becomes shorter meanwhile: of that, nothing can be kept.
const READS_OF_SHRINKING: u32 = 10;
/// Extents of a file that are compared afterwards where little speaks against it.
const SAMPLES: usize = 3;
/// Most samples where all content must be unchanged: 16 GiB in chunks of 256 KiB, in 3 MiB of memory.
const MOST_SAMPLES: usize = 65_536;

const AGAIN: &str = "changed while it was read: read again";
const SHORTER: &str = "was truncated each time it was read";
/// Why a file is in the snapshot in a later state than the others.
const MOVED_ON: &str = "changed between freeze and read: stored in its state at opening";
const FUZZY: &str =
    "was written to during each read: stored as last read, to be repaired from its owner's log";
const TORN: &str = "was written to during each read: stored as last read, a mixture of states";
const CUT: &str = "was truncated between freeze and read: the removed end is not in the snapshot";
const RECYCLED: &str = "was renamed or deleted, and written to, before it was read";

/// Presence of the file in the push before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
}

/// Handling of a file that changed during a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is dropped.
    First,
    /// It is kept and marked.
    Last,
}

/// How one reading of a file ended.
enum Read {
    Whole,
    /// It was not the same file from start to end; nothing is left of it.
    Again(Habit),
    /// It became shorter; nothing is left of it.
    Shrunk,
    /// It is reported as missing from the snapshot.
    Reported,
}

/// State in which an open file is read.
pub(super) enum ReadAs {
    /// The frozen state, with its length.
    Frozen(Stat),
    /// The present state: later, but consistent.
    Later(Stat),
    /// The file is not read: its name belongs to another file by now, and so do its bytes.
    Nothing,
}

/// Result of a check that a file that was just read is one state of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stayed {
    Yes,
    /// It grew, and its class does not take that for appending.
    Grew,
    /// It was written in place.
    No,
}

/// The last extent of a run, and some of the others by chance, or all of them. Memory: bounded.
pub(super) struct Samples {
    seed: u64,
    most: usize,
    seen: u64,
    chosen: Vec<(u64, Extent)>,
    last: Option<(u64, Extent)>,
}

impl Samples {
    /// A few.
    pub(super) fn few(seed: u64) -> Self {
        Self { seed, most: SAMPLES, seen: 0, chosen: Vec::new(), last: None }
    }

    /// Samples: as many as it takes to trust `habit`.
    pub(super) fn of(seed: u64, habit: Habit) -> Self {
        let most = if habit.trust() == Trust::NotYet { MOST_SAMPLES } else { SAMPLES };
        Self { most, ..Self::few(seed) }
    }

    pub(super) fn note(&mut self, at: u64, extent: Extent) {
        self.last = Some((at, extent));
        self.seen += 1;
        // Each of n extents is kept with the same chance (reservoir sampling, Vitter 1985).
        let place = usize::try_from(pick(self.seed, self.seen, self.seen)).unwrap_or(usize::MAX);
        if self.chosen.len() < self.most {
            self.chosen.push((at, extent));
        } else if let Some(chosen) = self.chosen.get_mut(place) {
            *chosen = (at, extent);
        }
    }

    /// Up to `most` of those that were chosen, and the last.
    fn some(&self, most: usize) -> impl Iterator<Item = &(u64, Extent)> {
        let step = self.chosen.len().div_ceil(most.max(1)).max(1);
        self.chosen.iter().step_by(step).chain(&self.last)
    }
}

impl Scan<'_> {
    /// Reads the file from its start.
    pub(super) fn whole(
        &mut self,
        found: &Arc<FoundFile>,
        known: Known,
        mut habit: Habit,
    ) -> Result<(), Stopped> {
        let (mut readings, mut shrunk) = (0, 0);
        loop {
            readings += 1;
            let attempt = if readings >= READS { Attempt::Last } else { Attempt::First };
            match self.read_once(found, habit, attempt)? {
                Read::Whole => {
                    let kind = if known == Known::Yes { Kind::Whole } else { Kind::New };
                    self.reader.tally.file(kind);
                    self.reader.progress.named(kind.into(), &found.path);
                    return Ok(());
                }
                Read::Reported => return Ok(()),
                Read::Again(seen) => habit = seen,
                Read::Shrunk => {
                    habit = Habit::InPlace;
                    shrunk += 1;
                    if shrunk == READS_OF_SHRINKING {
                        return self.unreadable(found, SHORTER.to_owned());
                    }
                }
            }
            self.reader.tally.fallback(AGAIN, &found.path);
        }
    }

    fn read_once(&mut self, found: &Arc<FoundFile>, habit: Habit, attempt: Attempt) -> Result<Read, Stopped> {
        // A change after this moment gives the file a ctime that is not before it.
        let before = self.clock.now();
        let opened = self.opener.open(found).and_then(|file| Ok((Stat::of_file(&file)?, file)));
        let (at_open, file) = match opened {
            Ok((at_open, _)) if at_open.kind() != FileType::RegularFile => {
                self.unreadable(found, reason("cannot be opened", Errno::NOTDIR))?;
                return Ok(Read::Reported);
            }
            Err(error) => {
                self.unreadable(found, reason("cannot be opened", error))?;
                return Ok(Read::Reported);
            }
            Ok(opened) => opened,
        };
        let (stat, moved_on) = match self.read_as(found, &at_open, habit) {
            ReadAs::Frozen(stat) => (stat, false),
            ReadAs::Later(stat) => (stat, true),
            ReadAs::Nothing => {
                self.unreadable(found, RECYCLED.to_owned())?;
                return Ok(Read::Reported);
            }
        };
        let mark = self.mark();
        // A possible mixture is no base for the next push.
        let slot = (attempt == Attempt::First).then(|| self.slot(found, &stat, before, habit));
        let (xattrs, slot) = match found.xattrs.clone().map_or_else(|| xattr::of_file(&file), Ok) {
            Ok(xattrs) => (xattrs, slot),
            Err(error) => {
                self.problem(&found.path, reason("attributes cannot be read", error));
                (Vec::new(), None)
            }
        };
        let group = self.begin(found, &stat, xattrs, slot)?;
        let (mut digest, pages, stop) = (self.domain.file_digester(), &mut *self.pages, self.stop);
        let mut samples = Samples::of(self.draw.seed(), habit);
        let reading = Reading { found, file: &file, layout: layout(&stat) };
        let read = self.reader.read(&reading, 0..stat.identity.size, |at, extent| {
            digest.push(&extent);
            samples.note(at, extent);
            pages.extent(stop, extent)
        });
        match read {
            Err(Unread::Stopped) => return Err(Stopped),
            Err(Unread::Refused(error)) => {
                self.rewind(mark)?;
                self.unreadable(found, reason("cannot be read", error))?;
                return Ok(Read::Reported);
            }
            Err(Unread::Shrunk) => {
                self.rewind(mark)?;
                return Ok(Read::Shrunk);
            }
            Ok(()) => {}
        }
        let stayed = self.stayed_settled(found, &file, &at_open.identity, &samples, habit, before)?;
        if stayed != Stayed::Yes && attempt == Attempt::First {
            self.rewind(mark)?;
            return Ok(Read::Again(if stayed == Stayed::No { Habit::InPlace } else { habit }));
        }
        let end = self.file_end(found, stayed, digest.finish());
        if moved_on && stayed == Stayed::Yes {
            self.moved_on(found, &stat);
        }
        self.end(&stat, group, end)?;
        Ok(Read::Whole)
    }

    /// How a file that was read to its end ends, and what is reported of that.
    fn file_end(&mut self, found: &FoundFile, stayed: Stayed, digest: FileDigest) -> FileEnd {
        if stayed == Stayed::Yes || is_back(Old::LastReadingIsWhole) {
            return FileEnd::Whole(digest);
        }
        if self.classes.of(&found.path) == Class::Logged {
            self.reader.tally.fuzzy(FUZZY, &found.path);
            return FileEnd::Fuzzy(digest);
        }
        self.reader.tally.torn();
        self.problem(&found.path, TORN.to_owned());
        FileEnd::Torn(digest)
    }

    /// A later state of the file than that which was frozen is in the snapshot.
    pub(super) fn moved_on(&mut self, found: &FoundFile, stored: &Stat) {
        self.reader.tally.moved_on(MOVED_ON, &found.path);
        // The removed end is nowhere else in the snapshot, although the second name should have kept it.
        let is_cut = found.source == Source::Link && stored.identity.size < found.stat.identity.size;
        if is_cut && self.classes.of(&found.path) != Class::Logged {
            self.problem(&found.path, CUT.to_owned());
        } else if self.strict == Strict::Yes {
            self.problem(&found.path, MOVED_ON.to_owned());
        }
    }

    /// State in which an open file is read: the frozen one, as far as it still exists.
    pub(super) fn read_as(&mut self, found: &FoundFile, at_open: &Stat, habit: Habit) -> ReadAs {
        let links = if found.source == Source::Path { at_open.links } else { found.stat.links };
        let later = Stat { links, ..*at_open };
        match (found.source, Change::between(&found.stat.identity, &at_open.identity)) {
            // A copy is a file of its own, and no program writes to it.
            (Source::Copy, _) => ReadAs::Frozen(found.stat),
            (Source::Path, Change::None | Change::Stamp | Change::Named) => ReadAs::Frozen(*at_open),
            (Source::Link, Change::None | Change::Stamp | Change::Named) => ReadAs::Frozen(found.stat),
            (_, Change::Grown) if self.may_append(found, habit) => ReadAs::Frozen(found.stat),
            (Source::Path, _) => ReadAs::Later(later),
            // Not our second name.
            (Source::Link, Change::Replaced) => ReadAs::Nothing,
            // A link does not protect from that. The bytes are those of the file's name if it still has it. Where
            // all of a file was cut off, which is how a table is dropped, no bytes are left to be another's.
            (Source::Link, _) if self.is_named_so(found) || self.was_dropped(found, at_open) => {
                ReadAs::Later(later)
            }
            (Source::Link, _) => ReadAs::Nothing,
        }
    }

    /// True if the name under which the file was found still belongs to it.
    fn is_named_so(&mut self, found: &FoundFile) -> bool {
        if is_back(Old::NameOfTheFreeze) {
            return true;
        }
        let named = self.opener.look(&found.path);
        named.is_ok_and(|named| named.identity.is_same_inode(&found.stat.identity))
    }

    fn was_dropped(&self, found: &FoundFile, at_open: &Stat) -> bool {
        at_open.identity.size == 0 && self.classes.of(&found.path) == Class::Logged
    }

    /// Identity that an open file must still have for its new end to fit the old start.
    pub(super) fn reference(&self, found: &FoundFile, read_as: &Stat, file: &OwnedFd) -> Option<Identity> {
        match found.source {
            // A copy has an identity of its own.
            Source::Copy => Some(Stat::of_file(file).ok()?.identity),
            Source::Path | Source::Link => Some(read_as.identity),
        }
    }

    /// [`stayed`](Self::stayed), also where times are whole seconds and a write may leave no trace in them.
    fn stayed_settled(
        &mut self,
        found: &FoundFile,
        file: &OwnedFd,
        reference: &Identity,
        samples: &Samples,
        habit: Habit,
        before: Timestamp,
    ) -> Result<Stayed, Stopped> {
        let stayed = self.stayed(found, file, reference, samples, habit)?;
        let is_told = found.source == Source::Copy || reference.mtime.nanos != 0;
        if stayed != Stayed::Yes || is_told || ticked(reference.mtime, before) == Settled::Yes {
            return Ok(stayed);
        }
        Ok(if self.still_there(file, samples, SAMPLES)? { Stayed::Yes } else { Stayed::No })
    }

    /// Checks that a file that was just read is one state of itself: it did not change meanwhile, or it only
    /// grew, or lost or got a name. Growth and changes of names are accepted if samples of the content are
    /// unchanged, or, where growth is not trusted yet, if all content is unchanged.
    pub(super) fn stayed(
        &mut self,
        found: &FoundFile,
        file: &OwnedFd,
        reference: &Identity,
        samples: &Samples,
        habit: Habit,
    ) -> Result<Stayed, Stopped> {
        let Ok(now) = Stat::of_file(file) else { return Ok(Stayed::No) };
        let most = match (Change::between(reference, &now.identity), self.classes.of(&found.path)) {
            (Change::None, _) | (Change::Stamp | Change::Named, Class::AppendOnly | Class::Immutable) => {
                return Ok(Stayed::Yes);
            }
            (Change::Grown, Class::Immutable) if is_back(Old::NothingMayGrow) => return Ok(Stayed::Grew),
            // A table that is being written when it is listed is read as far as it was listed.
            (Change::Grown, Class::AppendOnly | Class::Immutable) => return Ok(Stayed::Yes),
            // Deleting, moving or linking a file changes its ctime: the freeze protects against exactly that.
            (Change::Stamp | Change::Named, Class::Auto | Class::Mutable | Class::Logged) => SAMPLES,
            (Change::Grown, Class::Auto) => match habit.trust() {
                Trust::Earned => SAMPLES,
                Trust::NotYet => MOST_SAMPLES,
                Trust::Never => return Ok(Stayed::Grew),
            },
            (Change::Grown, Class::Mutable | Class::Logged) => return Ok(Stayed::Grew),
            (Change::Rewritten | Change::Shrunk | Change::Replaced, _) => return Ok(Stayed::No),
        };
        Ok(if self.still_there(file, samples, most)? { Stayed::Yes } else { Stayed::No })
    }

    /// Compares samples of the content that was just read with the file.
    pub(super) fn still_there(
        &mut self,
        file: &OwnedFd,
        samples: &Samples,
        most: usize,
    ) -> Result<bool, Stopped> {
        for (at, extent) in samples.some(most) {
            match self.reader.compare(file, *at, extent) {
                Ok(Compared::Same) => {}
                Err(Unread::Stopped) => return Err(Stopped),
                Ok(Compared::Differs) | Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// True if the old length of a grown file is still the length of a consistent state.
    fn may_append(&self, found: &FoundFile, habit: Habit) -> bool {
        match self.classes.of(&found.path) {
            Class::Immutable if is_back(Old::NothingMayGrow) => false,
            Class::AppendOnly | Class::Immutable => true,
            Class::Auto => habit.trust() == Trust::Earned,
            Class::Mutable | Class::Logged => false,
        }
    }
}
