//! What becomes of each step of the walk: an entry on a page, and the content of new files on its way.

use std::os::fd::OwnedFd;

use format_spec::key::DomainKey;
use format_spec::manifest::{MAX_PROBLEMS, Problem, Totals};
use format_spec::page::{Page, PageBuilder};
use format_spec::{Entry, EntryKind, EntryPath, Extent, FileEnd, Timestamp};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::content::{Reader, Unread};
use super::links::Links;
use super::report::Tally;
use super::stat::Stat;
use super::stop::{Failure, Stop, Stopped};
use super::walk::{FoundFile, Step, reason};
use super::xattr;
use crate::clock::Clock;
use crate::error::ClientError;
use crate::progress::Progress;
use crate::state::{Known, KnownFile, Spool};

/// A change this long after the last one has another ctime on every file system, however coarse.
const SETTLED_AFTER_S: i64 = 2;

/// The pages of a push under construction.
pub(super) struct Pages<'a> {
    pub(super) builder: PageBuilder,
    pub(super) spool: Spool,
    pub(super) stop: &'a Stop,
}

impl Pages<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stopped> {
        let page = self.builder.entry(entry);
        self.put(page)
    }

    fn extent(&mut self, extent: Extent) -> Result<(), Stopped> {
        let page = self.builder.extent(extent);
        self.put(page)
    }

    fn end_file(&mut self, end: FileEnd) -> Result<(), Stopped> {
        let page = self.builder.end_file(end);
        self.put(page)
    }

    fn put(&mut self, page: Option<Page>) -> Result<(), Stopped> {
        let Some(page) = page else { return Ok(()) };
        self.stop.pass(self.spool.page(&page).map_err(spool_error))
    }

    fn finish(mut self) -> Result<Spool, Stopped> {
        if let Some(page) = self.builder.finish() {
            self.stop.pass(self.spool.page(&page).map_err(spool_error))?;
        }
        Ok(self.spool)
    }
}

/// The list of files could not be kept on disk until its turn to be sent.
pub(super) fn spool_error(source: std::io::Error) -> Failure {
    Failure::Client(ClientError::Spool(source))
}

/// A scan in progress.
pub(super) struct Scan<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) pages: Pages<'a>,
    pub(super) known: Option<Known>,
    pub(super) links: Links,
    pub(super) domain: DomainKey,
    pub(super) clock: &'a dyn Clock,
    pub(super) tally: &'a Tally,
    pub(super) progress: &'a dyn Progress,
    pub(super) totals: Totals,
    pub(super) problems: Vec<Problem>,
}

/// A scan that went to its end.
pub(super) struct Scanned {
    pub(super) spool: Spool,
    pub(super) totals: Totals,
    pub(super) problems: Vec<Problem>,
}

impl Scan<'_> {
    /// Deals with the next step.
    pub(super) fn step(&mut self, step: Step) -> Result<(), Stopped> {
        match step {
            Step::File(file) => return self.file(&file),
            Step::Plain(entry) => {
                let Some(entry) = self.checked(entry) else { return Ok(()) };
                match entry.kind {
                    EntryKind::Symlink => self.totals.symlinks += 1,
                    _ => self.totals.folders += 1,
                }
                self.progress.scanned(0);
                return self.pages.entry(&entry);
            }
            Step::Skipped(path) => {
                tracing::debug!(%path, "passed over: a socket, device or pipe");
                self.totals.skipped += 1;
            }
            Step::Problem(path, reason) => self.problem(&path, reason),
        }
        Ok(())
    }

    /// Sends the last batch on its way and closes the last page.
    pub(super) fn finish(self) -> Result<Scanned, Stopped> {
        self.reader.feeder.finish()?;
        Ok(Scanned { spool: self.pages.finish()?, totals: self.totals, problems: self.problems })
    }

    fn problem(&mut self, path: &EntryPath, reason: String) {
        tracing::debug!(%path, reason, "not in the snapshot");
        self.totals.problems += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: path.clone(), reason });
        }
    }

    /// The entry as the format takes it: without attributes that are over the limit.
    fn checked(&mut self, mut entry: Entry) -> Option<Entry> {
        let Err(error) = entry.check() else { return Some(entry) };
        self.problem(&entry.path, error.to_string());
        entry.xattrs.clear();
        entry.check().is_ok().then_some(entry)
    }

    fn file(&mut self, found: &FoundFile) -> Result<(), Stopped> {
        self.pages.stop.check()?;
        if let Some(group) = self.links.find(&found.stat) {
            let mut entry = found.stat.entry(found.path.clone(), EntryKind::HardLink, Vec::new());
            entry.link_group = Some(group);
            self.totals.files += 1;
            self.progress.scanned(0);
            return self.pages.entry(&entry);
        }
        let known = match &mut self.known {
            Some(known) => self.pages.stop.pass(known.find(&found.path))?,
            None => None,
        };
        match known.filter(|known| known.identity == Some(found.stat.identity)) {
            Some(known) => self.reuse(found, known),
            None => self.read(found),
        }
    }

    /// Takes the content from the last push. Attributes too: changing them would have changed ctime.
    fn reuse(&mut self, found: &FoundFile, known: KnownFile) -> Result<(), Stopped> {
        let group = self.begin(found, &found.stat, known.entry.xattrs, known.identity)?;
        loop {
            let content = match &mut self.known {
                Some(known) => self.pages.stop.pass(known.content())?,
                None => return Err(self.pages.stop.fail(Failure::Damaged)),
            };
            for extent in content.extents {
                self.pages.extent(extent)?;
            }
            match content.end {
                Some(end @ FileEnd::Whole(_)) => {
                    self.tally.unchanged();
                    return self.whole(&found.stat, group, end);
                }
                // A file with an identity was read whole.
                Some(FileEnd::Unreadable) => return Err(self.pages.stop.fail(Failure::Damaged)),
                None => {}
            }
        }
    }

    fn read(&mut self, found: &FoundFile) -> Result<(), Stopped> {
        // A change after this moment gives the file a ctime that is not before it.
        let before = self.clock.now();
        let opened = found.open().and_then(|file| Ok((Stat::of_file(&file)?, file)));
        match opened {
            Ok((stat, file)) if stat.kind == FileType::RegularFile => {
                self.read_open(found, &stat, &file, before)
            }
            Ok(_) => {
                self.problem(&found.path, reason("cannot be opened", Errno::NOTDIR));
                Ok(())
            }
            Err(error @ (Errno::NOENT | Errno::STALE | Errno::LOOP | Errno::NXIO)) => {
                self.problem(&found.path, reason("cannot be opened", error));
                Ok(())
            }
            Err(error) => {
                self.begin(found, &found.stat, Vec::new(), None)?;
                self.unreadable(found, reason("cannot be opened", error))
            }
        }
    }

    fn read_open(
        &mut self,
        found: &FoundFile,
        stat: &Stat,
        file: &OwnedFd,
        before: Timestamp,
    ) -> Result<(), Stopped> {
        let xattrs = match xattr::of_file(file) {
            Ok(xattrs) => xattrs,
            Err(error) => {
                self.problem(&found.path, reason("attributes cannot be read", error));
                Vec::new()
            }
        };
        let identity = Some(stat.identity).filter(|identity| is_settled(identity.ctime, before));
        let group = self.begin(found, stat, xattrs, identity)?;
        let (mut digest, pages) = (self.domain.file_digester(), &mut self.pages);
        let (mut chunks, mut bytes) = (0, 0);
        let read = self.reader.read(file, stat, |extent| {
            digest.push(&extent);
            if extent.chunk().is_some() {
                chunks += 1;
                bytes += extent.covered();
                self.progress.read(extent.covered());
            }
            pages.extent(extent)
        });
        self.tally.read(chunks, bytes);
        match read {
            Ok(()) => self.whole(stat, group, FileEnd::Whole(digest.finish())),
            Err(Unread::Stopped) => Err(Stopped),
            Err(Unread::Shrunk) => self.unreadable(found, "became shorter while it was read".to_owned()),
            Err(Unread::Refused(error)) => self.unreadable(found, reason("cannot be read", error)),
        }
    }

    /// Begins the entry of a file with content; returns its link group.
    fn begin(
        &mut self,
        found: &FoundFile,
        stat: &Stat,
        xattrs: Vec<format_spec::Xattr>,
        identity: Option<crate::push::Identity>,
    ) -> Result<Option<u64>, Stopped> {
        let entry = stat.entry(found.path.clone(), EntryKind::File, xattrs);
        let Some(mut entry) = self.checked(entry) else {
            let why = ClientError::Worker("a file's entry breaks a rule that is not about attributes");
            return Err(self.pages.stop.fail(why));
        };
        entry.link_group = self.links.begin(stat, &found.path);
        self.totals.files += 1;
        self.progress.scanned(entry.size);
        self.pages.spool.file(identity);
        self.pages.entry(&entry)?;
        Ok(entry.link_group)
    }

    fn whole(&mut self, stat: &Stat, group: Option<u64>, end: FileEnd) -> Result<(), Stopped> {
        self.totals.bytes += stat.identity.size;
        self.links.keep(stat, group);
        self.pages.end_file(end)
    }

    fn unreadable(&mut self, found: &FoundFile, reason: String) -> Result<(), Stopped> {
        self.pages.spool.void_last();
        self.problem(&found.path, reason);
        self.pages.end_file(FileEnd::Unreadable)
    }
}

/// Whether a change at `now` or later is sure to give another ctime than `ctime`.
fn is_settled(ctime: Timestamp, now: Timestamp) -> bool {
    Timestamp { seconds: ctime.seconds.saturating_add(SETTLED_AFTER_S), ..ctime } <= now
}

#[cfg(test)]
#[path = "scan/tests.rs"]
mod tests;
