//! Lists what there is, and freezes what will be read.

use std::collections::HashSet;

use format_spec::Entry;

use super::change::{Change, Verdict, verdict};
use super::class::Classes;
use super::freeze::{Freeze, Held, HoldError};
use super::links::{InodeKey, key};
use super::list::{Step, Writer};
use super::scan::spool_error;
use super::stat::Stat;
use super::stop::{Stop, Stopped};
use super::walk::{Place, Visitor};
use crate::progress::Progress;
use crate::state::Memory;

/// A list in the making.
pub(super) struct Lister<'a> {
    pub(super) freeze: &'a Freeze,
    pub(super) classes: &'a Classes,
    pub(super) memory: &'a mut Memory,
    pub(super) list: Writer,
    pub(super) stop: &'a Stop,
    pub(super) progress: &'a dyn Progress,
    /// Inodes with several names that came already. Memory: one row for each.
    pub(super) linked: HashSet<InodeKey>,
}

impl Lister<'_> {
    /// Whether content of the file will have to be read.
    fn will_be_read(&mut self, at: Place<'_>, stat: &Stat) -> Result<bool, Stopped> {
        if stat.links > 1 && self.linked.contains(&key(stat)) {
            return Ok(false);
        }
        let remembered = self.memory.find(at.path, &stat.identity);
        let remembered = self.stop.pass(remembered)?;
        let Some(slot) = remembered.and_then(|remembered| remembered.slot) else { return Ok(true) };
        let change = Change::between(&slot.identity, &stat.identity);
        Ok(verdict(self.classes.of(at.path), change, slot.settled) != Verdict::Reuse)
    }

    /// An entry that the format takes: without attributes that are over its limit, which is a problem.
    fn checked(&mut self, mut entry: Entry) -> Result<Step, Stopped> {
        if let Err(error) = entry.check() {
            self.put(&Step::Problem(entry.path.clone(), error.to_string()))?;
            entry.xattrs.clear();
        }
        Ok(Step::Plain(entry))
    }

    fn put(&mut self, step: &Step) -> Result<(), Stopped> {
        self.stop.pass(self.list.push(step).map_err(spool_error))
    }
}

impl Visitor for Lister<'_> {
    fn hold(&mut self, at: Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped> {
        self.stop.check()?;
        let held = if self.will_be_read(at, &stat)? {
            self.freeze.hold(at.folder, at.name, stat)
        } else {
            Ok(self.freeze.pass(stat))
        };
        match held {
            Err(HoldError::Moved) => Ok(None),
            Err(HoldError::Full(error)) => Err(self.stop.fail(error)),
            Ok(held) => {
                if stat.links > 1 {
                    self.linked.insert(key(&stat));
                }
                Ok(Some(held))
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Stopped> {
        let step = match step {
            Step::File(found) => {
                self.progress.listed(found.stat.identity.size);
                Step::File(found)
            }
            Step::Plain(entry) => self.checked(entry)?,
            step => step,
        };
        self.put(&step)
    }
}
