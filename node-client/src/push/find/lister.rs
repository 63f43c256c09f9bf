//! Lists what there is, and freezes what will be read.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use format_spec::{Entry, EntryKind, EntryPath, Timestamp};

use super::links::{InodeKey, key};
use super::list::{FoundFile, Step, Writer};
use super::walk::{Place, Row, Visitor};
use crate::clock::Clock;
use crate::error::ClientError;
use crate::progress::{Fate, Progress};
use crate::push::class::Classes;
use crate::push::freeze::{Freeze, Held, HoldError};
use crate::push::options::Strict;
use crate::push::report::Tally;
use crate::push::select::roots::Root;
use crate::push::stat::Stat;
use crate::push::stop::{Stop, Stopped, spool_error};
use crate::push::verdict::doubt::Doubts;
use crate::push::verdict::{Judged, Verdict};
use crate::state::{Memory, Remembered};

const RESTLESS: &str =
    "names in this folder changed each time it was listed: its files are not of one moment";

const LEADS_OUT: &str = "a link of a database leads to a folder that is not pushed: push that folder too, or its files are missing from the snapshot";

const NOT_LISTED_THERE: &str = "does not exist, but a list of paths names it";

const NOT_REACHED: &str =
    "named by a list of paths but not pushed: another option excludes it, or its folder cannot be listed";

/// Why a path of a list is missing from the snapshot; `None` if it is there and was left out.
pub(crate) fn why_unseen(path: &EntryPath) -> Option<String> {
    let at = Path::new("/").join(OsStr::from_bytes(path.as_bytes()));
    match at.symlink_metadata() {
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Some(NOT_LISTED_THERE.to_owned())
        }
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

/// Saved state of a file that the walk came to.
enum Known {
    /// It is one more name of an inode that came already.
    Linked,
    /// No content is remembered.
    Nothing,
    /// Content is remembered.
    Judged(Judged),
}

/// Results of the walk so far.
pub(crate) struct Listing {
    pub(crate) list: Writer,
    /// Files that are looked at although little speaks for a change.
    pub(crate) doubts: Doubts,
    /// Steps behind all that have a place in path order.
    pub(crate) late: Vec<Step>,
    /// When the first file was frozen, and when the last.
    pub(crate) frozen: Option<(Duration, Duration)>,
    /// Inodes with several names that came already. Memory: one row for each.
    pub(crate) linked: HashSet<InodeKey>,
}

impl Listing {
    /// Nothing yet; rows go to `list`.
    pub(crate) fn new(list: Writer) -> Self {
        Self { list, doubts: Doubts::default(), late: Vec::new(), frozen: None, linked: HashSet::new() }
    }
}

/// A list in the making.
pub(crate) struct Lister<'a> {
    pub(crate) freeze: &'a Freeze,
    pub(crate) classes: &'a Classes,
    pub(crate) memory: &'a mut Memory,
    pub(crate) stop: &'a Stop,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) tally: &'a Tally,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) strict: Strict,
    /// Links in these, data folders of databases, may lead to more of their data.
    pub(crate) data_folders: &'a [EntryPath],
    pub(crate) roots: &'a [Root],
    pub(crate) made: Listing,
}

impl Lister<'_> {
    /// Looks up the saved state of the file, before it is frozen.
    fn look_up(&mut self, at: Place<'_>, stat: &Stat) -> Result<Known, Stopped> {
        if stat.links > 1 && self.made.linked.contains(&key(stat)) {
            return Ok(Known::Linked);
        }
        let remembered = self.memory.find(at.path, &stat.identity);
        let remembered = self.stop.pass(remembered)?;
        let Some(remembered @ Remembered { slot: Some(slot), .. }) = &remembered else {
            return Ok(Known::Nothing);
        };
        let judged = Judged::of(self.classes.of(at.path), slot, remembered, stat);
        self.made.doubts.note(judged.verdict, remembered.sure, stat.identity.size);
        Ok(Known::Judged(judged))
    }

    /// The steps that the format takes: without attributes that are over its limit, which is a problem.
    fn checked(&mut self, step: Step) -> (Option<Step>, Step) {
        match step {
            Step::File(found) => {
                self.progress.listed(found.stat.identity.size);
                (None, Step::File(found))
            }
            Step::Plain(mut entry) => {
                let problem =
                    entry.check().err().map(|error| Step::Problem(entry.path.clone(), error.to_string()));
                if problem.is_some() {
                    entry.xattrs.clear();
                }
                self.check_link(&entry);
                (problem, Step::Plain(entry))
            }
            step => (None, step),
        }
    }

    /// Notes a link of a database that leads to a folder which is not pushed.
    fn check_link(&self, entry: &Entry) {
        let is_data = self.data_folders.iter().any(|folder| entry.path.below(folder).is_some());
        if entry.kind != EntryKind::Symlink || !is_data {
            return;
        }
        let link = Path::new("/").join(OsStr::from_bytes(entry.path.as_bytes()));
        let Ok(target) = link.canonicalize() else { return };
        if target.is_dir() && !self.roots.iter().any(|root| target.starts_with(&root.place)) {
            tracing::warn!(link = %link.display(), target = %target.display(), "{LEADS_OUT}");
            self.tally.fallback(LEADS_OUT, &entry.path);
        }
    }

    /// A file was frozen at this moment.
    fn froze(&mut self) {
        let now = self.clock.elapsed();
        let (first, _) = self.made.frozen.unwrap_or((now, now));
        self.made.frozen = Some((first, now));
    }

    /// Puts what belongs behind all the rest.
    pub(crate) fn finish(&mut self) -> Result<(), Stopped> {
        let late = std::mem::take(&mut self.made.late);
        late.iter().try_for_each(|step| self.put(step))
    }

    fn put(&mut self, step: &Step) -> Result<(), Stopped> {
        self.stop.pass(self.made.list.push(step).map_err(spool_error))
    }
}

impl Visitor for Lister<'_> {
    fn file(&mut self, at: Place<'_>, stat: Stat) -> Result<Row, Stopped> {
        self.stop.check()?;
        self.made.doubts.listed(stat.identity.size);
        let known = self.look_up(at, &stat)?;
        if stat.links > 1 {
            self.made.linked.insert(key(&stat));
        }
        let judged = match known {
            Known::Linked => None,
            Known::Judged(judged) if judged.verdict == Verdict::Reuse => Some(judged),
            Known::Nothing | Known::Judged(_) => {
                let row = self.made.list.wait(at.path).map_err(spool_error);
                return Ok(Row::Waiting(self.stop.pass(row)?));
            }
        };
        let found = FoundFile::new(at.path.clone(), self.freeze.pass(stat));
        self.step(Step::File(FoundFile { judged, ..found }))?;
        Ok(Row::Written)
    }

    fn hold(&mut self, at: Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped> {
        self.stop.check()?;
        match self.freeze.hold(at.folder, at.name, stat) {
            Err(HoldError::Moved) => Ok(None),
            Err(HoldError::Full(error)) => Err(self.stop.fail(error)),
            Err(HoldError::Refused(why)) => {
                let path = format!("/{}", at.path);
                Err(self.stop.fail(ClientError::NotFrozen { path, why }))
            }
            Ok(held) => {
                self.froze();
                Ok(Some(held))
            }
        }
    }

    fn held(&mut self, row: u64, path: EntryPath, held: Option<Held>) -> Result<(), Stopped> {
        let Some(held) = held else { return Ok(()) };
        self.progress.listed(held.stat.identity.size);
        let written = self.made.list.held(row, FoundFile::new(path, held));
        self.stop.pass(written.map_err(spool_error))
    }

    fn step(&mut self, step: Step) -> Result<(), Stopped> {
        let (problem, step) = self.checked(step);
        problem.iter().chain([&step]).try_for_each(|step| self.put(step))
    }

    fn take_back(&mut self, path: &EntryPath) {
        self.made.list.take_back(path);
    }

    fn insert(&mut self, step: Step) -> Result<(), Stopped> {
        self.stop.check()?;
        let (problem, step) = self.checked(step);
        problem.into_iter().chain([step]).for_each(|step| self.made.list.insert(step));
        Ok(())
    }

    fn restless(&mut self, path: &EntryPath) -> Result<(), Stopped> {
        self.tally.restless(RESTLESS, path);
        match self.strict {
            Strict::No => Ok(()),
            Strict::Yes => {
                self.made.late.push(Step::Problem(path.clone(), RESTLESS.to_owned()));
                Ok(())
            }
        }
    }

    fn left_out(&mut self, path: &EntryPath) {
        self.progress.named(Fate::Excluded, path);
    }

    fn unseen(&mut self, path: &EntryPath) -> Result<(), Stopped> {
        match why_unseen(path) {
            Some(why) => self.made.late.push(Step::Problem(path.clone(), why)),
            None => self.tally.fallback(NOT_REACHED, path),
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
