//! Processing of each step of the list: an entry on a page, and the content of new files on its way.
//!
//! [`files`] decides between what is remembered of a file and what must be read, [`reading`] reads.

mod files;
mod formats;
mod reading;

use std::collections::HashSet;
use std::sync::Arc;

use format_spec::key::DomainKey;
use format_spec::manifest::{MAX_PROBLEMS, Problem, Totals};
use format_spec::page::{Page, PageBuilder, PageMark};
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, Extent, FileEnd, Timestamp, Xattr};

use super::class::Classes;
use super::find::links::Links;
use super::find::list::{FoundFile, Step};
use super::find::opener::Opener;
use super::options::Strict;
use super::read::Reader;
use super::second_names::BASE_NAME;
use super::stat::Stat;
use super::stop::{Stop, Stopped, spool_error};
use super::verdict::doubt::Purse;
use super::verdict::draw::Draw;
use crate::clock::Clock;
use crate::error::ClientError;
use crate::identity::{Habit, Settled, Source};
use crate::leftover::is_temporary;
use crate::progress::Fate;
use crate::state::{Memory, Slot, Spool, SpoolMark};
use crate::twin::{Old, is_back};

/// A change this long after the last one has other times, where the file system counts in fractions of
/// seconds. Kernels tick at least 100 times a second.
const TICK_NS: i128 = 100_000_000;
/// Tick of a file system that counts in seconds, or in two.
const COARSE_TICK_NS: i128 = 2_000_000_000;
/// By then the kernel has written out stores through a memory map, and the next store shows: Linux writes
/// pages that are 30 s old every 5 s, by default (`vm.dirty_expire_centisecs`).
const WRITTEN_OUT_AFTER_NS: i128 = 60_000_000_000;

/// The pages of a push under construction.
pub(crate) struct Pages {
    pub(crate) builder: PageBuilder,
    pub(crate) spool: Spool,
}

impl Pages {
    fn extent(&mut self, stop: &Stop, extent: Extent) -> Result<(), Stopped> {
        let page = self.builder.extent(extent);
        self.put(stop, page)
    }

    fn put(&mut self, stop: &Stop, page: Option<Page>) -> Result<(), Stopped> {
        let Some(page) = page else { return Ok(()) };
        stop.pass(self.spool.page(&page).map_err(spool_error))
    }
}

/// Saved state of the files before the scan.
pub(crate) struct Past {
    pub(crate) memory: Memory,
    pub(crate) purse: Purse,
    /// Chunks that are remembered and that the server does not have.
    pub(crate) missing: HashSet<ChunkId>,
    /// When the freeze began.
    pub(crate) frozen_at: Timestamp,
}

/// A scan in progress.
pub(crate) struct Scan<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) pages: &'a mut Pages,
    pub(crate) stop: &'a Stop,
    pub(crate) past: Past,
    pub(crate) opener: Opener<'a>,
    pub(crate) strict: Strict,
    pub(crate) classes: &'a Classes,
    pub(crate) draw: Draw,
    pub(crate) links: Links,
    pub(crate) domain: DomainKey,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) scanned: Scanned,
}

/// A scan that went to its end.
#[derive(Default)]
pub(crate) struct Scanned {
    pub(crate) totals: Totals,
    pub(crate) problems: Vec<Problem>,
}

/// A moment between two files.
#[derive(Clone, Copy)]
struct Mark {
    page: PageMark,
    spool: SpoolMark,
    totals: Totals,
}

impl Scan<'_> {
    /// Deals with the next step.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Stopped> {
        match step {
            Step::File(found) => return self.file(&Arc::new(found)),
            Step::Plain(entry) => {
                let Some(entry) = self.checked(entry) else { return Ok(()) };
                match entry.kind {
                    EntryKind::Symlink => self.scanned.totals.symlinks += 1,
                    _ => self.scanned.totals.folders += 1,
                }
                self.reader.progress.scanned(0);
                return self.entry(&entry);
            }
            Step::Skipped(path) if path.components().last().is_some_and(is_temporary) => {
                self.reader.tally.fallback("skipped: an unfinished file of a restore", &path);
            }
            Step::Skipped(path) if path.components().last() == Some(BASE_NAME.as_bytes()) => {
                self.reader.tally.fallback("skipped: temporary hard links of another user's push", &path);
            }
            Step::Skipped(path) => {
                tracing::debug!(%path, "skipped: a socket, device or pipe");
                self.scanned.totals.skipped += 1;
            }
            Step::Problem(path, reason) => self.problem(&path, reason),
            // The reader of the list has what it waited for.
            Step::Waiting(..) => {}
        }
        Ok(())
    }

    /// Sends the last batch on its way and closes the last page.
    pub(crate) fn finish(mut self) -> Result<Scanned, Stopped> {
        let gone = self.past.memory.count_gone();
        self.reader.tally.gone(self.stop.pass(gone)?);
        self.reader.feeder.finish()?;
        let page = self.pages.builder.finish();
        self.pages.put(self.stop, page)?;
        Ok(self.scanned)
    }

    fn problem(&mut self, path: &EntryPath, reason: String) {
        tracing::debug!(%path, reason, "not in the snapshot");
        self.scanned.totals.problems += 1;
        self.reader.progress.named(Fate::Unreadable, path);
        if self.scanned.problems.len() < MAX_PROBLEMS {
            self.scanned.problems.push(Problem { path: path.clone(), reason });
        }
    }

    /// The entry as the format takes it: without attributes that are over the limit.
    fn checked(&mut self, mut entry: Entry) -> Option<Entry> {
        let Err(error) = entry.check() else { return Some(entry) };
        self.problem(&entry.path, error.to_string());
        entry.xattrs.clear();
        entry.check().is_ok().then_some(entry)
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Stopped> {
        let page = self.pages.builder.entry(entry);
        self.pages.put(self.stop, page)
    }

    fn end_file(&mut self, end: FileEnd) -> Result<(), Stopped> {
        let page = self.pages.builder.end_file(end);
        self.pages.put(self.stop, page)
    }

    fn mark(&self) -> Mark {
        Mark { page: self.pages.builder.mark(), spool: self.pages.spool.mark(), totals: self.scanned.totals }
    }

    /// Drops the entries since `mark`. Chunks that were fed since then are still processed.
    fn rewind(&mut self, mark: Mark) -> Result<(), Stopped> {
        let first = self.pages.spool.rewind(mark.spool);
        let first = self.stop.pass(first.map_err(spool_error))?;
        self.pages.builder.rewind(mark.page, first);
        self.scanned.totals = mark.totals;
        self.scanned.problems.truncate(usize::try_from(mark.totals.problems).unwrap_or(MAX_PROBLEMS));
        Ok(())
    }

    /// Begins the entry of a file with content; returns its link group.
    fn begin(
        &mut self,
        found: &FoundFile,
        stat: &Stat,
        xattrs: Vec<Xattr>,
        slot: Option<Slot>,
    ) -> Result<Option<u64>, Stopped> {
        let attributes = xattrs.len();
        let entry = stat.entry(found.path.clone(), EntryKind::File, xattrs);
        let Some(mut entry) = self.checked(entry) else {
            let why = ClientError::Worker("a file's entry breaks a rule that is not about attributes");
            return Err(self.stop.fail(why));
        };
        // Attributes that are missing are a problem of each push, not only of the first.
        let slot = slot.filter(|_| entry.xattrs.len() == attributes);
        entry.link_group = self.links.begin(stat, &found.path);
        self.scanned.totals.files += 1;
        self.pages.spool.file(slot);
        self.entry(&entry)?;
        Ok(entry.link_group)
    }

    fn end(&mut self, stat: &Stat, group: Option<u64>, end: FileEnd) -> Result<(), Stopped> {
        self.scanned.totals.bytes += stat.identity.size;
        self.reader.progress.scanned(stat.identity.size);
        self.links.keep(stat, group);
        self.end_file(end)
    }

    /// An entry without content.
    fn unreadable(&mut self, found: &FoundFile, reason: String) -> Result<(), Stopped> {
        self.begin(found, &found.stat, Vec::new(), None)?;
        self.problem(&found.path, reason);
        self.reader.progress.scanned(0);
        self.end_file(FileEnd::Unreadable)
    }

    /// Record for a file that is read as `stat` after `before`, and is written with `habit`.
    fn slot(&self, found: &FoundFile, stat: &Stat, before: Timestamp, habit: Habit) -> Slot {
        let identity = stat.identity;
        let settled = match found.source {
            // The hard link itself has set the ctime, and its removal will again. A write shows in the mtime.
            Source::Link => settled(identity.mtime, identity.mtime, self.past.frozen_at, before),
            // The content of a copy was written out before the copy was made.
            Source::Copy => ticked(identity.ctime, self.past.frozen_at),
            Source::Path => settled(identity.ctime, identity.mtime, self.past.frozen_at, before),
        };
        Slot { identity, settled, source: found.source, habit, links: stat.links }
    }
}

/// Certainty that a later change shows in the times of a file that was last changed at `changed` and written
/// to at `written`, and is read after `now` by a push that froze it at `frozen` or later.
///
/// A write that began after the freeze may be under way while the file is read, so it is not settled however long
/// ago it began; nor is one whose pages may still be dirty, since stores to those leave no sign. A time that has not
/// come was set: any write gives another.
fn settled(changed: Timestamp, written: Timestamp, frozen: Timestamp, now: Timestamp) -> Settled {
    let is_set = since(now, written) >= tick_of(written);
    let is_written_out = since(written, frozen) >= WRITTEN_OUT_AFTER_NS || is_back(Old::TickOnly);
    match ticked(changed, frozen) {
        Settled::Yes if is_written_out => Settled::Yes,
        _ if is_set && (changed == written || ticked(changed, frozen) == Settled::Yes) => Settled::Yes,
        _ => Settled::No,
    }
}

/// Certainty that a change at `now` or later gives another time than `stamp`.
fn ticked(stamp: Timestamp, now: Timestamp) -> Settled {
    if since(stamp, now) >= tick_of(stamp) { Settled::Yes } else { Settled::No }
}

/// Nanoseconds from one time to another.
fn since(from: Timestamp, to: Timestamp) -> i128 {
    let nanos = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    nanos(to) - nanos(from)
}

fn tick_of(stamp: Timestamp) -> i128 {
    if stamp.nanos == 0 { COARSE_TICK_NS } else { TICK_NS }
}

#[cfg(test)]
mod tests;
