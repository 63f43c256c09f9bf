//! One moment of a folder: its files are frozen together, and looked at until no name came or went meanwhile.
//!
//! A store of sorted tables writes a new table, then the file that refers to it, then deletes the old ones.
//! Names that are listed once and linked one by one are of no moment of such a folder. So, after all its
//! files have a second name, the folder itself is checked: if its times are those from before it was listed,
//! no name was added or removed, and files that refer to others were frozen before them. If not, it is listed
//! again: new files are frozen, missing ones dropped, changed ones frozen again, until the folder is stable.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;

use format_spec::{EntryPath, Timestamp};
use rustix::fs::FileType;

use super::list::{Reader, Step};
use super::opener::Opener;
use super::walk::{Level, Place, Walker, is_unfinished};
use crate::identity::{Change, Identity, Source};
use crate::push::class::sets::refers_to_others;
use crate::push::freeze::Held;
use crate::push::names::Names;
use crate::push::report::Tally;
use crate::push::select::Refusal;
use crate::push::stat::Stat;
use crate::push::stop::Stopped;
use crate::twin::{Old, is_back};

/// How often a folder is listed before it is called restless.
const ROUNDS: u32 = 40;
/// Kernels tick at least 100 times a second: a second change within a tick does not show in a folder's times.
const TICK: Duration = Duration::from_millis(11);

/// Why copies of two files are not of one moment.
const CHANGED: &str = "changed while other files were being frozen: its copy is of a later moment";

/// Marks the files that changed between their copy and the last one: each copy is of one moment, and only together do
/// they have to be. A hard link shows such a change when it is read.
pub(crate) fn mark_changed(list: &mut Reader, opener: &mut Opener<'_>, tally: &Tally) -> io::Result<()> {
    let mut changed = Vec::new();
    list.each_frozen(|found| {
        if found.source == Source::Copy {
            let now = opener.look(&found.path);
            let is_as_copied = now.is_ok_and(|now| {
                let change = Change::between(&found.stat.identity, &now.identity);
                matches!(change, Change::None | Change::Stamp)
            });
            if !is_as_copied {
                changed.push(found.path);
            }
        }
        Ok(())
    })?;
    for path in changed {
        tally.moved_on(CHANGED, &path);
        list.add_late(Step::Problem(path, CHANGED.to_owned()));
    }
    Ok(())
}

/// State of a name whose folder is listed again.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// A file whose row waits for what is held, by its place in the list of those.
    Waiting(usize),
    /// A file whose content is remembered: its ctime when it was listed.
    Remembered(Timestamp),
    /// A file that has a step of its own by now.
    Inserted(Identity),
    /// Something else.
    Other,
}

/// A folder whose files are being frozen.
struct Moment {
    level: Level,
    /// For each waiting row.
    held: Vec<Option<Held>>,
    /// Files by name; filled when the folder is listed again.
    known: BTreeMap<CString, Known>,
}

impl<'a> Walker<'a> {
    /// Freezes the files of a folder that is done, as one moment of it.
    pub(crate) fn leave(&mut self, level: Level) -> Result<(), Stopped> {
        let held = level.waiting.iter().map(|_| None).collect();
        let mut moment = Moment { level, held, known: BTreeMap::new() };
        self.hold_waiting(&mut moment)?;
        let mut rounds = 1;
        while let Unrest::Some { ticking } = moment.unrest() {
            if rounds == ROUNDS {
                self.visitor.restless(&moment.level.path)?;
                break;
            }
            if ticking {
                std::thread::park_timeout(TICK);
            }
            rounds += 1;
            self.list_again(&mut moment)?;
        }
        let Moment { level, held, known } = moment;
        for ((index, row), held) in level.waiting.iter().zip(held) {
            let name = level.names.get(*index).expect("a name of this list");
            let Ok(path) = level.path.join(name.to_bytes()) else { continue };
            let is_known_anew = !matches!(known.get(name), None | Some(Known::Waiting(_)));
            if held.is_none() && !is_known_anew {
                self.report_moving(Place { folder: &level.folder, name, path: &path })?;
            }
            self.visitor.held(*row, path, held)?;
        }
        Ok(())
    }

    /// Freezes what the first look at the folder found, those that refer to others first.
    fn hold_waiting(&mut self, moment: &mut Moment) -> Result<(), Stopped> {
        let Moment { level, held, .. } = moment;
        for refers in [true, false] {
            for ((index, _), held) in level.waiting.iter().zip(held.iter_mut()) {
                let name = level.names.get(*index).expect("a name of this list");
                if refers_to_others(name.to_bytes()) != refers {
                    continue;
                }
                let Ok(path) = level.path.join(name.to_bytes()) else { continue };
                *held = self.hold(Place { folder: &level.folder, name, path: &path })?;
            }
        }
        Ok(())
    }

    /// Lists the folder again, and deals with every name that does not stand for what it did.
    fn list_again(&mut self, moment: &mut Moment) -> Result<(), Stopped> {
        if moment.known.is_empty() {
            moment.know_all();
        }
        let at = self.visitor.now();
        moment.level.listed = Stat::of_file(&moment.level.folder).ok().map(|stat| (stat, at));
        let Ok(names) = Names::list(&moment.level.folder, &mut self.buffer) else { return Ok(()) };
        let names: Vec<CString> = names.all().map(CStr::to_owned).collect();
        for name in
            moment.known.keys().filter(|name| names.binary_search(name).is_err()).cloned().collect::<Vec<_>>()
        {
            self.drop_name(moment, &name)?;
        }
        for refers in [true, false] {
            for name in &names {
                if refers_to_others(name.to_bytes()) == refers {
                    self.look_again(moment, name)?;
                }
            }
        }
        Ok(())
    }

    /// A name that has vanished.
    fn drop_name(&mut self, moment: &mut Moment, name: &CStr) -> Result<(), Stopped> {
        let Some(known) = moment.known.remove(name) else { return Ok(()) };
        match known {
            Known::Waiting(place) => moment.put(place, None),
            Known::Remembered(_) | Known::Inserted(_) => {
                if let Ok(path) = moment.level.path.join(name.to_bytes()) {
                    self.visitor.take_back(&path);
                }
            }
            // Its own name came back, or the content below it is unchanged.
            Known::Other => {}
        }
        Ok(())
    }

    /// A name that is there.
    fn look_again(&mut self, moment: &mut Moment, name: &CString) -> Result<(), Stopped> {
        let (Ok(path), Ok(stat)) =
            (moment.level.path.join(name.to_bytes()), Stat::of_name(&moment.level.folder, name))
        else {
            // It went at this moment, which the folder will show.
            return Ok(());
        };
        if is_unfinished(name, &stat) {
            return Ok(());
        }
        if let Err(refusal) = self.refused(moment, name, &path, &stat) {
            if !moment.known.contains_key(name) {
                self.leave_out(&moment.level.folder, name, &path, refusal);
                moment.known.insert(name.clone(), Known::Other);
            }
            return Ok(());
        }
        self.selection.saw(&path);
        if stat.kind() != FileType::RegularFile {
            return self.look_at_other(moment, name, stat);
        }
        let place = Place { folder: &moment.level.folder, name, path: &path };
        match moment.known.get(name).copied() {
            Some(Known::Waiting(at)) => {
                if moment.held.get(at).is_some_and(|held| is_held_so(held.as_ref(), &stat)) {
                    return Ok(());
                }
                let held = self.hold(place)?;
                moment.put(at, held);
            }
            Some(Known::Remembered(ctime)) if ctime == stat.identity.ctime => {}
            Some(Known::Inserted(identity)) if identity == stat.identity => {}
            _ => {
                self.visitor.take_back(&path);
                if let Some(identity) = self.hold_late(place)? {
                    moment.known.insert(name.clone(), Known::Inserted(identity));
                }
            }
        }
        Ok(())
    }

    /// Reason why a name of this folder is excluded. A file that was taken already is kept, whatever its
    /// present length.
    fn refused(
        &self,
        moment: &Moment,
        name: &CStr,
        path: &EntryPath,
        stat: &Stat,
    ) -> Result<(), Refusal<'a>> {
        self.selection.name(path, moment.level.marked)?;
        let is_taken = !matches!(moment.known.get(name), None | Some(Known::Other));
        if is_taken || stat.kind() != FileType::RegularFile {
            return Ok(());
        }
        self.selection.file(path, stat)
    }

    fn look_at_other(&mut self, moment: &mut Moment, name: &CString, stat: Stat) -> Result<(), Stopped> {
        if matches!(moment.known.get(name), Some(Known::Other)) {
            return Ok(());
        }
        self.drop_name(moment, name)?;
        let Ok(path) = moment.level.path.join(name.to_bytes()) else { return Ok(()) };
        moment.known.insert(name.clone(), Known::Other);
        self.inserts += 1;
        let below = self.other(&moment.level.folder, name, path, stat);
        let done = below.and_then(|below| below.map_or(Ok(()), |level| self.go_through(level)));
        self.inserts -= 1;
        done
    }
}

/// Possible changes of names since a folder was listed.
enum Unrest {
    None,
    Some {
        /// Only because it is too early to tell.
        ticking: bool,
    },
}

impl Moment {
    fn unrest(&self) -> Unrest {
        if is_back(Old::OneLook) {
            return Unrest::None;
        }
        let Some((listed, at)) = &self.level.listed else { return Unrest::None };
        let Ok(now) = Stat::of_file(&self.level.folder) else { return Unrest::None };
        let (before, after) = (&listed.identity, &now.identity);
        if (before.mtime, before.ctime) != (after.mtime, after.ctime) {
            return Unrest::Some { ticking: false };
        }
        if elapsed(before.ctime, *at) < TICK { Unrest::Some { ticking: true } } else { Unrest::None }
    }

    fn know_all(&mut self) {
        let Level { names, files, waiting, .. } = &self.level;
        self.known = names.all().map(|name| (name.to_owned(), Known::Other)).collect();
        let mut note = |index: usize, known| {
            if let Some(name) = names.get(index) {
                self.known.insert(name.to_owned(), known);
            }
        };
        files.iter().for_each(|(index, ctime)| note(*index, Known::Remembered(*ctime)));
        waiting.iter().enumerate().for_each(|(place, (index, _))| note(*index, Known::Waiting(place)));
    }

    fn put(&mut self, place: usize, held: Option<Held>) {
        if let Some(slot) = self.held.get_mut(place) {
            *slot = held;
        }
    }
}

/// True if a file is held in its current state.
fn is_held_so(held: Option<&Held>, now: &Stat) -> bool {
    held.is_some_and(|held| held.stat.identity == now.identity)
}

/// Time from `from` to `to`; for ever if `from` has not come, as where clocks differ.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let nanos = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    u64::try_from(nanos(to) - nanos(from)).map_or(Duration::MAX, Duration::from_nanos)
}
