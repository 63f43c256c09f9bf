//! Reads a file whole, and makes sure that it stayed what it was meanwhile.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use format_spec::{Extent, FileEnd};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::files::layout;
use super::{Scan, settled};
use crate::push::change::{Change, Habit, Settled, pick};
use crate::push::class::Class;
use crate::push::content::{Compared, Reading, Unread};
use crate::push::freeze::Source;
use crate::push::list::FoundFile;
use crate::push::report::Kind;
use crate::push::stat::{Identity, Stat};
use crate::push::stop::Stopped;
use crate::push::walk::reason;
use crate::push::xattr;

/// How often a file is read that changes meanwhile.
const READS: u32 = 3;
/// Extents of a file that grows while it is read that are compared afterwards.
const SAMPLES: usize = 3;

/// Why a file is not whole that was cut after it was frozen.
const SHORTER: &str = "became shorter before it was read";

/// Whether the push before had the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
}

/// How one reading of a file ended.
enum Read {
    Whole,
    /// It was not the same file from start to end; nothing is left of it.
    Again,
    /// It is reported as missing from the snapshot.
    Reported,
}

/// The last extent of a run, and a few of the others by chance. Memory: constant.
pub(super) struct Samples {
    seed: u64,
    seen: u64,
    chosen: Vec<(u64, Extent)>,
    last: Option<(u64, Extent)>,
}

impl Samples {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, seen: 0, chosen: Vec::with_capacity(SAMPLES), last: None }
    }

    pub(super) fn note(&mut self, at: u64, extent: Extent) {
        self.last = Some((at, extent));
        self.seen += 1;
        // Each of n extents stays with the same chance (reservoir sampling, Vitter 1985).
        let place = usize::try_from(pick(self.seed, self.seen, self.seen)).unwrap_or(usize::MAX);
        if self.chosen.len() < SAMPLES {
            self.chosen.push((at, extent));
        } else if let Some(chosen) = self.chosen.get_mut(place) {
            *chosen = (at, extent);
        }
    }

    fn all(&self) -> impl Iterator<Item = &(u64, Extent)> {
        self.chosen.iter().chain(&self.last)
    }
}

impl Scan<'_> {
    /// Reads the file from its start.
    pub(super) fn whole(
        &mut self,
        found: &Arc<FoundFile>,
        known: Known,
        habit: Habit,
    ) -> Result<(), Stopped> {
        for reading in 1..=READS {
            match self.read_once(found, habit)? {
                Read::Whole => {
                    let kind = if known == Known::Yes { Kind::Whole } else { Kind::New };
                    self.reader.tally.file(kind);
                    return Ok(());
                }
                Read::Reported => return Ok(()),
                Read::Again if reading < READS => {
                    self.reader.tally.fallback("changed while it was read: read again", &found.path);
                }
                Read::Again => {}
            }
        }
        let advice = "push a frozen copy of it (--freeze=reflink, or the database's own snapshot)";
        self.unreadable(found, format!("was written to each time it was read: {advice}"))
    }

    fn read_once(&mut self, found: &Arc<FoundFile>, habit: Habit) -> Result<Read, Stopped> {
        // A change after this moment gives the file a ctime that is not before it.
        let before = self.clock.now();
        let opened = self.opener.open(found).and_then(|file| Ok((Stat::of_file(&file)?, file)));
        let (at_open, file) = match opened {
            Ok((at_open, _)) if at_open.kind() != FileType::RegularFile => {
                self.problem(&found.path, reason("cannot be opened", Errno::NOTDIR));
                return Ok(Read::Reported);
            }
            Err(error @ (Errno::NOENT | Errno::STALE | Errno::LOOP | Errno::NXIO)) => {
                self.problem(&found.path, reason("cannot be opened", error));
                return Ok(Read::Reported);
            }
            Err(error) => {
                self.unreadable(found, reason("cannot be opened", error))?;
                return Ok(Read::Reported);
            }
            Ok(opened) => opened,
        };
        let Some(stat) = self.read_as(found, &at_open, habit) else {
            self.unreadable(found, SHORTER.to_owned())?;
            return Ok(Read::Reported);
        };
        let mark = self.mark();
        let slot = Some(self.slot(found, &stat, before, habit));
        let (xattrs, slot) = match found.xattrs.clone().map_or_else(|| xattr::of_file(&file), Ok) {
            Ok(xattrs) => (xattrs, slot),
            Err(error) => {
                self.problem(&found.path, reason("attributes cannot be read", error));
                (Vec::new(), None)
            }
        };
        let group = self.begin(found, &stat, xattrs, slot)?;
        let (mut digest, pages, stop) = (self.domain.file_digester(), &mut *self.pages, self.stop);
        let mut samples = Samples::new(self.draw.seed());
        let reading = Reading { found, file: &file, layout: layout(&stat) };
        let read = self.reader.read(&reading, 0..stat.identity.size, |at, extent| {
            digest.push(&extent);
            samples.note(at, extent);
            pages.extent(stop, extent)
        });
        let why = match read {
            Err(Unread::Stopped) => return Err(Stopped),
            Err(Unread::Refused(error)) => Some(reason("cannot be read", error)),
            Err(Unread::Shrunk) if found.source == Source::Path => None,
            Err(Unread::Shrunk) => Some(SHORTER.to_owned()),
            Ok(()) => {
                let reference = at_open.identity;
                // Where times are whole seconds, a write may leave no trace in them. Nobody writes to a copy.
                let is_copy = found.source == Source::Tree && self.freeze.copies();
                let is_told = is_copy || reference.mtime.nanos != 0;
                let is_settled = is_told || settled(reference.mtime, before) == Settled::Yes;
                let stayed = self.stayed(found, &file, &reference, &samples, habit)?;
                if stayed && (is_settled || self.still_there(&file, &samples)?) {
                    self.end(&stat, group, FileEnd::Whole(digest.finish()))?;
                    return Ok(Read::Whole);
                }
                None
            }
        };
        self.rewind(mark)?;
        match why {
            None => Ok(Read::Again),
            Some(why) => self.unreadable(found, why).map(|()| Read::Reported),
        }
    }

    /// As what an open file is read: as it was frozen, as far as that is still there. `None` if it
    /// is shorter by now.
    fn read_as(&self, found: &FoundFile, at_open: &Stat, habit: Habit) -> Option<Stat> {
        if found.source == Source::Path {
            return Some(*at_open);
        }
        match Change::between(&found.stat.identity, &at_open.identity) {
            Change::Shrunk => None,
            // Another name does not protect from that: it is a later state of the file, but one.
            Change::Rewritten => Some(Stat { links: found.stat.links, ..*at_open }),
            // Nor, where more than appending may happen, is the old length of a new state a state.
            Change::Grown if !self.may_append(found, habit) => {
                Some(Stat { links: found.stat.links, ..*at_open })
            }
            // The same, or longer; or a copy, which is a file of its own.
            _ => Some(found.stat),
        }
    }

    /// What an open file must still be for its new end to fit the old start: what was listed.
    pub(super) fn reference(&self, found: &FoundFile, file: &OwnedFd) -> Option<Identity> {
        match found.source {
            // A copy has an identity of its own.
            Source::Tree if self.freeze.copies() => Some(Stat::of_file(file).ok()?.identity),
            _ => Some(found.stat.identity),
        }
    }

    /// Whether the file that was just read is one state of itself: it did not change meanwhile, or it
    /// only grew, or lost or got a name, which is taken for granted where samples of what was read are
    /// still there.
    pub(super) fn stayed(
        &mut self,
        found: &FoundFile,
        file: &OwnedFd,
        reference: &Identity,
        samples: &Samples,
        habit: Habit,
    ) -> Result<bool, Stopped> {
        let Ok(now) = Stat::of_file(file) else { return Ok(false) };
        let class = habit.class(self.classes.of(&found.path));
        match (Change::between(reference, &now.identity), class) {
            (Change::None, _) | (Change::Stamp, Class::AppendOnly | Class::Immutable) => Ok(true),
            (Change::Grown, Class::AppendOnly) => Ok(true),
            // Who deletes, moves or links a file changes its ctime: that is what it was frozen against.
            (Change::Stamp, Class::Auto | Class::Mutable | Class::Logged) | (Change::Grown, Class::Auto) => {
                self.still_there(file, samples)
            }
            _ => Ok(false),
        }
    }

    /// Whether samples of what was just read are what the file holds.
    pub(super) fn still_there(&mut self, file: &OwnedFd, samples: &Samples) -> Result<bool, Stopped> {
        for (at, extent) in samples.all() {
            match self.reader.compare(file, *at, extent) {
                Ok(Compared::Same) => {}
                Err(Unread::Stopped) => return Err(Stopped),
                Ok(Compared::Differs) | Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn may_append(&self, found: &FoundFile, habit: Habit) -> bool {
        matches!(habit.class(self.classes.of(&found.path)), Class::Auto | Class::AppendOnly)
    }
}
