//! One file: taken from memory as far as that holds, read otherwise.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use format_spec::key::FileDigester;
use format_spec::page::Content;
use format_spec::{EntryKind, Extent, FileEnd, Xattr};

use super::reading::{Known, ReadAs, Samples, Stayed};
use super::{Scan, formats};
use crate::identity::{Change, Habit, Settled, Source};
use crate::progress::Fate;
use crate::push::class::Class;
use crate::push::find::list::FoundFile;
use crate::push::read::{Compared, Layout, Reading, Unread, layout};
use crate::push::report::Kind;
use crate::push::stat::Stat;
use crate::push::stop::Stopped;
use crate::push::verdict::draw::pick;
use crate::push::verdict::{Judged, Verdict};
use crate::push::xattr;
use crate::state::{Origin, Remembered, Slot, Sure};

/// Chunks of a file at random places that are compared beside its last one; of a file that grew, also beside
/// its first.
const SAMPLES: u64 = 3;

const SAMPLE_DIFFERS: &str = "a sample of the old content had changed: the file was read in full";

/// Why a file is not compared whole that may have been written to without another mtime.
const TOO_MANY: &str = "only the ctime changed, as for many files: at most samples were compared";

/// Why what is remembered of a file was of no use.
pub(super) enum Useless {
    Stopped,
    /// It does not fit any more, which is worth telling.
    Differs(&'static str),
    /// The file is not what it was when it was listed: look at it afresh.
    Moved,
}

impl From<Stopped> for Useless {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Unread> for Useless {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Stopped => Self::Stopped,
            Unread::Shrunk | Unread::Refused(_) => Self::Moved,
        }
    }
}

/// How taking a file from memory ended.
enum Replayed {
    Done,
    /// Bytes that should have been as before were not.
    Differs,
    /// It must be looked at afresh.
    Moved,
}

/// A file that is taken from memory.
struct Replay<'a> {
    found: &'a Arc<FoundFile>,
    origin: Origin,
    verdict: Verdict,
    /// Opened when something of it must be read.
    file: Option<OwnedFd>,
    /// Offsets whose extents are compared.
    samples: Vec<u64>,
    /// Some of what was taken so far.
    taken: Samples,
    hash: u64,
    at: u64,
    index: u64,
}

impl Scan<'_> {
    pub(super) fn file(&mut self, found: &Arc<FoundFile>) -> Result<(), Stopped> {
        self.stop.check()?;
        if let Some(group) = self.links.find(&found.stat) {
            let mut entry = found.stat.entry(found.path.clone(), EntryKind::HardLink, Vec::new());
            entry.link_group = Some(group);
            self.scanned.totals.files += 1;
            self.reader.progress.named(Fate::Linked, &found.path);
            self.reader.progress.scanned(0);
            return self.entry(&entry);
        }
        let remembered = self.past.memory.find(&found.path, &found.stat.identity);
        if let Some(why) = &found.not_frozen {
            let why = if found.source == Source::Path {
                format!("read without protection from changes: {why}")
            } else {
                why.clone()
            };
            self.reader.tally.fallback(&why, &found.path);
        }
        let Some(remembered) = self.stop.pass(remembered)? else {
            return self.whole(found, Known::No, Habit::UNKNOWN);
        };
        let Some(slot) = remembered.slot else { return self.whole(found, Known::Yes, Habit::UNKNOWN) };
        let Judged { class, habit, verdict, .. } = self.judged(found, &slot, &remembered);
        let verdict = self.affordable(found, verdict, remembered.sure);
        let replayed = match verdict {
            Verdict::Whole => return self.whole(found, Known::Yes, habit),
            Verdict::Append | Verdict::Prove if class == Class::Auto => habit.grown(),
            _ => habit,
        };
        match self.replay(found, remembered, Slot { habit: replayed, ..slot }, verdict)? {
            Replayed::Done => Ok(()),
            Replayed::Differs => self.whole(found, Known::Yes, Habit::InPlace),
            Replayed::Moved => self.whole(found, Known::Yes, habit),
        }
    }

    /// Affordable form of a verdict that many files have.
    fn affordable(&mut self, found: &FoundFile, verdict: Verdict, sure: Sure) -> Verdict {
        let is_in_doubt = verdict == Verdict::Compare || (verdict == Verdict::Check && sure == Sure::Yes);
        if !is_in_doubt {
            return verdict;
        }
        let seed = self.draw.seed() ^ self.domain.link_group(found.path.as_bytes());
        let affordable = self.past.purse.afford(verdict, found.stat.identity.size, seed);
        if verdict == Verdict::Compare && affordable != Verdict::Compare {
            self.reader.tally.fallback(TOO_MANY, &found.path);
        }
        affordable
    }

    /// Returns the verdict on a file: that of its row, or a new one if the row has none, or if its saved
    /// state was dropped since.
    fn judged(&mut self, found: &FoundFile, slot: &Slot, remembered: &Remembered) -> Judged {
        let judged = found.judged.filter(|judged| judged.origin == remembered.origin);
        let judged =
            judged.unwrap_or_else(|| Judged::of(self.classes.of(&found.path), slot, remembered, &found.stat));
        let grows = matches!(judged.verdict, Verdict::Append | Verdict::Prove);
        if grows && judged.class == Class::Auto && self.is_of_a_store(found) {
            return Judged { habit: Habit::InPlace, verdict: Verdict::Whole, ..judged };
        }
        judged
    }

    /// True if the file is of a format that is written in place.
    fn is_of_a_store(&mut self, found: &FoundFile) -> bool {
        self.opener.open(found).is_ok_and(|file| formats::is_written_in_place(&found.path, &file))
    }

    /// Takes the file from memory. If that was not possible, nothing of it is left.
    fn replay(
        &mut self,
        found: &Arc<FoundFile>,
        remembered: Remembered,
        slot: Slot,
        verdict: Verdict,
    ) -> Result<Replayed, Stopped> {
        let mark = self.mark();
        let hash = self.domain.link_group(found.path.as_bytes());
        let known_len = remembered.entry.size;
        // A file that is written in place and grows usually has a head with its length.
        let head = matches!(verdict, Verdict::Append | Verdict::Prove).then_some(0);
        let samples = (0..SAMPLES).map(|n| pick(self.draw.seed() ^ hash, n, known_len)).chain(head).collect();
        let replay = Replay {
            found,
            origin: remembered.origin,
            verdict,
            file: None,
            samples,
            taken: Samples::few(self.draw.seed() ^ hash),
            hash,
            at: 0,
            index: 0,
        };
        let replayed = match self.try_replay(replay, remembered, slot) {
            Ok(kind) => {
                self.reader.tally.file(kind);
                self.reader.progress.named(kind.into(), &found.path);
                return Ok(Replayed::Done);
            }
            Err(Useless::Stopped) => return Err(Stopped),
            Err(Useless::Differs(why)) => {
                self.reader.tally.fallback(why, &found.path);
                Replayed::Differs
            }
            Err(Useless::Moved) => Replayed::Moved,
        };
        self.reader.feeder.drop_pending();
        self.rewind(mark)?;
        Ok(replayed)
    }

    fn try_replay(
        &mut self,
        mut replay: Replay<'_>,
        remembered: Remembered,
        slot: Slot,
    ) -> Result<Kind, Useless> {
        let found = replay.found;
        let before = self.clock.now();
        let stat = self.replayed_as(&mut replay, slot.habit)?;
        let xattrs = self.xattrs(&mut replay, remembered.entry.xattrs, &slot)?;
        let now = self.slot(found, &stat, before, slot.habit);
        // A new end must be settled as the old start is.
        let is_untouched = slot.identity.mtime == stat.identity.mtime;
        let as_before = is_untouched || slot.settled == Settled::No;
        let slot = Slot { settled: if as_before { slot.settled } else { now.settled }, ..now };
        let group = self.begin(found, &stat, xattrs, Some(slot))?;
        let mut digest = self.domain.file_digester();
        let mut held: Option<Extent> = None;
        loop {
            let content = self.past.memory.content(replay.origin);
            let Some(Content { extents, end }) = self.stop.pass(content)? else {
                if let Some(last) = held {
                    self.take(&mut replay, last, Last::Yes)?;
                    digest.push(&last);
                }
                // The samples of the whole length are usually beyond the cut.
                if replay.verdict != Verdict::Reuse {
                    let file = self.opened(&mut replay)?;
                    if !self.still_there(&file, &replay.taken, usize::MAX)? {
                        return Err(Useless::Differs(SAMPLE_DIFFERS));
                    }
                    replay.file = Some(file);
                }
                let from = replay.at;
                let end = self.read_on(&mut replay, &stat, from, digest, slot.habit)?;
                self.end(&stat, group, end)?;
                return Ok(Kind::Resumed);
            };
            for extent in extents {
                if let Some(before) = held.replace(extent) {
                    self.take(&mut replay, before, Last::No)?;
                    digest.push(&before);
                }
            }
            let end = match end {
                None => continue,
                // Never a state of the file to begin with.
                Some(FileEnd::Unreadable | FileEnd::Fuzzy(_) | FileEnd::Torn(_)) => {
                    return Err(Useless::Moved);
                }
                Some(end @ FileEnd::Whole(_)) => end,
            };
            if matches!(replay.verdict, Verdict::Append | Verdict::Prove) {
                if let Some(last) = held {
                    self.compare(&mut replay, &last)?;
                }
                let from = replay.at;
                let end = self.read_on(&mut replay, &stat, from, digest, slot.habit)?;
                self.end(&stat, group, end)?;
                if stat.identity != found.stat.identity {
                    self.moved_on(found, &stat);
                }
                return Ok(Kind::Appended);
            }
            if let Some(last) = held {
                self.take(&mut replay, last, Last::Yes)?;
            }
            self.end(&stat, group, end)?;
            return Ok(match replay.origin {
                Origin::Last | Origin::Moved => Kind::Unchanged,
                Origin::Journal => Kind::Resumed,
            });
        }
    }

    /// State with which the reuse of a file is recorded: that of the list. If the file grew since and its
    /// owner is not known to append only, its middle may have changed as well, and then it never had the
    /// listed length with these bytes: it is stored in its state at opening.
    fn replayed_as(&mut self, replay: &mut Replay<'_>, habit: Habit) -> Result<Stat, Useless> {
        let found = replay.found;
        if replay.verdict != Verdict::Prove || found.source == Source::Copy {
            return Ok(found.stat);
        }
        let file = self.opened(replay)?;
        let at_open = Stat::of_file(&file).map_err(|_| Useless::Moved)?;
        replay.file = Some(file);
        match Change::between(&found.stat.identity, &at_open.identity) {
            Change::None | Change::Stamp | Change::Named => Ok(found.stat),
            Change::Grown => match self.read_as(found, &at_open, habit) {
                ReadAs::Frozen(stat) | ReadAs::Later(stat) => Ok(stat),
                ReadAs::Nothing => Err(Useless::Moved),
            },
            Change::Rewritten | Change::Shrunk | Change::Replaced => Err(Useless::Moved),
        }
    }

    /// The present attributes. A file that has vanished meanwhile, and of which nothing must be read, keeps
    /// its earlier ones.
    fn xattrs(
        &mut self,
        replay: &mut Replay<'_>,
        remembered: Vec<Xattr>,
        slot: &Slot,
    ) -> Result<Vec<Xattr>, Useless> {
        if slot.identity == replay.found.stat.identity {
            return Ok(remembered);
        }
        if let Some(xattrs) = &replay.found.xattrs {
            return Ok(xattrs.clone());
        }
        let file = match self.opened(replay) {
            Err(Useless::Moved) if replay.verdict == Verdict::Reuse => return Ok(remembered),
            file => file?,
        };
        let xattrs = xattr::of_file(&file).map_err(|_| Useless::Moved)?;
        replay.file = Some(file);
        Ok(xattrs)
    }

    /// Takes one extent over, compared or sent again where that is due.
    fn take(&mut self, replay: &mut Replay<'_>, extent: Extent, last: Last) -> Result<(), Useless> {
        self.stop.check()?;
        let place = replay.at..replay.at + extent.covered();
        let sampled = match replay.verdict {
            Verdict::Reuse => false,
            Verdict::Prove | Verdict::Compare => true,
            Verdict::Check | Verdict::Append | Verdict::Whole => {
                last == Last::Yes || replay.samples.iter().any(|sample| place.contains(sample))
            }
        };
        match extent {
            Extent::Chunk { id, len } if self.past.missing.contains(&id) => {
                let at = replay.at;
                let found = replay.found;
                let file = self.opened(replay)?;
                let reading = Reading { found, file: &file, layout: Layout::Dense };
                match self.reader.resend(&reading, at, id, len)? {
                    Compared::Same => replay.file = Some(file),
                    Compared::Differs => return Err(Useless::Moved),
                }
            }
            extent if sampled => self.compare(replay, &extent)?,
            extent if self.draw.chooses(replay.hash, replay.index) => self.rehash(replay, &extent)?,
            _ => {}
        }
        self.pages.extent(self.stop, extent)?;
        replay.taken.note(replay.at, extent);
        replay.at = place.end;
        replay.index += 1;
        Ok(())
    }

    /// The extent must be what the file holds now.
    fn compare(&mut self, replay: &mut Replay<'_>, extent: &Extent) -> Result<(), Useless> {
        let file = self.opened(replay)?;
        let compared = self.reader.compare(&file, replay.at, extent)?;
        replay.file = Some(file);
        match compared {
            Compared::Same => Ok(()),
            Compared::Differs => Err(Useless::Differs(SAMPLE_DIFFERS)),
        }
    }

    /// Like [`compare`](Self::compare), for a file that seems unchanged. If it has vanished meanwhile, its
    /// saved state is used.
    fn rehash(&mut self, replay: &mut Replay<'_>, extent: &Extent) -> Result<(), Useless> {
        let Ok(file) = self.opened(replay) else { return Ok(()) };
        let compared = self.reader.compare(&file, replay.at, extent)?;
        replay.file = Some(file);
        match compared {
            Compared::Same => Ok(()),
            // It changed after it was listed: that is a sign.
            Compared::Differs if !self.is_as_listed(replay) => Err(Useless::Moved),
            Compared::Differs => {
                Err(Useless::Differs("the content had changed although size and times had not"))
            }
        }
    }

    /// Reads from `from` to the end of the frozen length.
    fn read_on(
        &mut self,
        replay: &mut Replay<'_>,
        stat: &Stat,
        from: u64,
        mut digest: FileDigester,
        habit: Habit,
    ) -> Result<FileEnd, Useless> {
        let file = self.opened(replay)?;
        let reference = self.reference(replay.found, stat, &file).ok_or(Useless::Moved)?;
        let mut samples = Samples::of(self.draw.seed() ^ replay.hash, habit);
        let (pages, stop) = (&mut *self.pages, self.stop);
        let reading = Reading { found: replay.found, file: &file, layout: layout(stat) };
        self.reader.read(&reading, from..stat.identity.size, |at, extent| {
            digest.push(&extent);
            samples.note(at, extent);
            pages.extent(stop, extent)
        })?;
        match self.stayed(replay.found, &file, &reference, &samples, habit)? {
            Stayed::Yes => Ok(FileEnd::Whole(digest.finish())),
            Stayed::Grew | Stayed::No => Err(Useless::Moved),
        }
    }

    fn is_as_listed(&self, replay: &Replay<'_>) -> bool {
        let now = replay.file.as_ref().and_then(|file| Stat::of_file(file).ok());
        now.is_some_and(|now| now.identity == replay.found.stat.identity)
    }

    /// The file, opened and as it was listed, or longer.
    fn opened(&mut self, replay: &mut Replay<'_>) -> Result<OwnedFd, Useless> {
        if let Some(file) = replay.file.take() {
            return Ok(file);
        }
        let file = self.opener.open(replay.found).map_err(|_| Useless::Moved)?;
        let is_listed = match replay.found.source {
            Source::Link | Source::Copy => true,
            Source::Path => Stat::of_file(&file).is_ok_and(|now| {
                let change = Change::between(&replay.found.stat.identity, &now.identity);
                matches!(change, Change::None | Change::Stamp | Change::Grown)
            }),
        };
        if is_listed { Ok(file) } else { Err(Useless::Moved) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}
