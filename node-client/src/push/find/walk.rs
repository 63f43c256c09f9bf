//! The walk: every name below the roots, in path order, without following a link.
//!
//! Folders are opened relative to their parent folder, so a rename during the walk cannot lead elsewhere. The
//! files of a folder that will be read are frozen together when it is left (`moment`). Memory: one sorted
//! list of names per level.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use format_spec::{EntryKind, EntryPath, Timestamp};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::list::{FoundFile, Step};
use crate::identity::Identity;
use crate::leftover::is_temporary;
use crate::push::freeze::Held;
use crate::push::guest::FOLDER;
use crate::push::names::Names;
use crate::push::pseudo::Pseudo;
use crate::push::second_names::{BASE_NAME, is_base};
use crate::push::select::roots::Mounts;
use crate::push::select::roots::{Opened, Root};
use crate::push::select::{Marked, Refusal, Selection};
use crate::push::stat::Stat;
use crate::push::stop::Stopped;
use crate::push::{guest, xattr};

/// Bytes that one call for names may fill.
const LISTING_LEN: usize = 64 << 10;

/// How often a name is looked at again when it stands for something else each time.
const LOOKS: u32 = 8;

/// When a file is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Its content is known: its row is written.
    Written,
    /// With all others of its folder: the row of this number waits for it.
    Waiting(u64),
}

/// Decides about the names that the walk finds, and receives them.
pub(crate) trait Visitor {
    /// A regular file, which gets the next row, in path order.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn file(&mut self, at: Place<'_>, stat: Stat) -> Result<Row, Stopped>;

    /// Keeps the regular file as it is until it is read. `None` if its name stands for something else by now, or
    /// for nothing.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn hold(&mut self, at: Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped>;

    /// Adds the file for which a row waited; `None` if it has vanished.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn held(&mut self, row: u64, path: EntryPath, held: Option<Held>) -> Result<(), Stopped>;

    /// The next step, in path order.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn step(&mut self, step: Step) -> Result<(), Stopped>;

    /// Takes back every step about this path.
    fn take_back(&mut self, path: &EntryPath);

    /// One more step, out of order. It belongs in its place in path order, in the place of what was taken back.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn insert(&mut self, step: Step) -> Result<(), Stopped>;

    /// Names in this folder came and went each time it was looked at.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn restless(&mut self, path: &EntryPath) -> Result<(), Stopped>;

    /// An option leaves this name out.
    fn left_out(&mut self, path: &EntryPath);

    /// A list names this path, and the walk did not come to it.
    ///
    /// # Errors
    /// [`Stopped`] ends the walk.
    fn unseen(&mut self, path: &EntryPath) -> Result<(), Stopped>;

    /// Current time.
    fn now(&self) -> Timestamp;

    /// True if the files of a folder must be of one moment: a folder whose names change is listed again.
    fn needs_one_moment(&self) -> bool {
        true
    }
}

/// A name in an open folder.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a OwnedFd,
    pub(crate) name: &'a CStr,
    pub(crate) path: &'a EntryPath,
}

/// Walks one root after the other and hands each step to `visitor`.
pub(crate) fn walk(
    roots: &[Root],
    selection: &Selection,
    mounts: Mounts,
    visitor: &mut dyn Visitor,
) -> Result<(), Stopped> {
    let buffer = Vec::with_capacity(LISTING_LEN);
    selection.reset();
    let pseudo = Pseudo::mounted();
    let mut walker = Walker { selection, mounts, pseudo, visitor, buffer, inserts: 0, device: 0 };
    roots.iter().try_for_each(|root| walker.root(root))?;
    selection.unseen().try_for_each(|path| walker.visitor.unseen(path))
}

/// A walk in progress. What it does when it leaves a folder is in [`moment`](crate::push::find::moment).
pub(crate) struct Walker<'a> {
    pub(crate) selection: &'a Selection,
    mounts: Mounts,
    pseudo: Pseudo,
    pub(crate) visitor: &'a mut dyn Visitor,
    pub(crate) buffer: Vec<u8>,
    /// How many folders that appeared late it is in: their steps come out of order.
    pub(crate) inserts: u32,
    /// Device of the root.
    device: u64,
}

/// A folder during its walk.
pub(crate) struct Level {
    pub(crate) path: EntryPath,
    pub(crate) folder: OwnedFd,
    /// Stat of the folder before it was listed, and the time of that.
    pub(crate) listed: Option<(Stat, Timestamp)>,
    pub(crate) names: Names,
    /// Why only its markers are taken.
    pub(crate) marked: Option<Marked>,
    next: usize,
    /// The regular files among the names, and the ctime of each. Memory: 24 bytes for each.
    pub(crate) files: Vec<(usize, Timestamp)>,
    /// Those of them that are frozen when the folder is left, and their rows.
    pub(crate) waiting: Vec<(usize, u64)>,
}

impl Walker<'_> {
    fn root(&mut self, root: &Root) -> Result<(), Stopped> {
        self.selection.saw(&root.path);
        match root.open().and_then(|opened| Ok((root.stat()?, opened))) {
            Ok((stat, Opened::Folder(folder))) => {
                self.device = stat.identity.dev;
                let level = self.enter(root.path.clone(), folder)?;
                level.map_or(Ok(()), |level| self.go_through(level))
            }
            Ok((stat, Opened::File(within, name))) if stat.kind() == FileType::RegularFile => {
                self.file_root(&root.path, within, name, stat)
            }
            Ok(_) => self.problem(root.path.clone(), "cannot be opened", Errno::NOTDIR),
            Err(error) => self.problem(root.path.clone(), "cannot be opened", error),
        }
    }

    /// Deals with a file that was named itself.
    fn file_root(
        &mut self,
        path: &EntryPath,
        within: OwnedFd,
        name: &CStr,
        stat: Stat,
    ) -> Result<(), Stopped> {
        // It was named, so no pattern leaves it out; but of lists only what they name is taken.
        if matches!(self.selection.name(path, None), Err(Refusal::NotListed)) {
            return Ok(());
        }
        let place = Place { folder: &within, name, path };
        let row = self.visitor.file(place, stat)?;
        let Row::Waiting(row) = row else { return Ok(()) };
        let held = self.hold(place)?;
        if held.is_none() {
            let gone = "was deleted, or replaced repeatedly, before it was frozen";
            self.visitor.insert(Step::Problem(path.clone(), gone.to_owned()))?;
        }
        self.visitor.held(row, path.clone(), held)
    }

    /// Deals with all names in a folder and below it.
    pub(crate) fn go_through(&mut self, top: Level) -> Result<(), Stopped> {
        let mut levels = vec![top];
        while let Some(mut level) = levels.pop() {
            let Some(name) = level.names.get(level.next).map(CStr::to_owned) else {
                self.leave(level)?;
                continue;
            };
            level.next += 1;
            let below = self.name(&mut level, &name)?;
            levels.push(level);
            levels.extend(below);
        }
        Ok(())
    }

    /// Processes one name; a folder is returned as the level to walk next.
    fn name(&mut self, level: &mut Level, name: &CStr) -> Result<Option<Level>, Stopped> {
        let path = match level.path.join(name.to_bytes()) {
            Ok(path) => path,
            Err(error) => {
                let reason = format!("a name in this folder cannot be stored: {error}");
                self.step(Step::Problem(level.path.clone(), reason))?;
                return Ok(None);
            }
        };
        if let Err(refusal) = self.selection.name(&path, level.marked) {
            self.leave_out(&level.folder, name, &path, refusal);
            return Ok(None);
        }
        let stat = match Stat::of_name(&level.folder, name) {
            Ok(stat) => stat,
            // Its folder shows that, and is listed again.
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                self.selection.saw(&path);
                return self.problem(path, "its attributes cannot be read", error).map(|()| None);
            }
        };
        self.selection.saw(&path);
        if is_unfinished(name, &stat) {
            return self.step(Step::Skipped(path)).map(|()| None);
        }
        if stat.kind() != FileType::RegularFile {
            return self.other(&level.folder, name, path, stat);
        }
        if let Err(refusal) = self.selection.file(&path, &stat) {
            self.leave_out(&level.folder, name, &path, refusal);
            return Ok(None);
        }
        let index = level.next.saturating_sub(1);
        level.files.push((index, stat.identity.ctime));
        let place = Place { folder: &level.folder, name, path: &path };
        if self.inserts > 0 {
            self.hold_late(place)?;
        } else if let Row::Waiting(row) = self.visitor.file(place, stat)? {
            level.waiting.push((index, row));
        }
        Ok(None)
    }

    /// Counts a name that is not taken.
    pub(crate) fn leave_out(
        &mut self,
        folder: &OwnedFd,
        name: &CStr,
        path: &EntryPath,
        refusal: Refusal<'_>,
    ) {
        if let Refusal::LeftOut(by) = refusal {
            by.name(folder, name);
            self.visitor.left_out(path);
        }
    }

    /// Deals with a name that is no regular file.
    pub(crate) fn other(
        &mut self,
        at: &OwnedFd,
        name: &CStr,
        path: EntryPath,
        stat: Stat,
    ) -> Result<Option<Level>, Stopped> {
        match stat.kind() {
            FileType::Directory if self.stays_out(stat.identity.dev) => {
                let xattrs = xattr::of_name(at, name).unwrap_or_default();
                self.step(Step::Plain(stat.entry(path, EntryKind::Folder, xattrs)))?;
            }
            FileType::Directory => return self.folder(at, name, path),
            FileType::Symlink => self.symlink(at, name, path, &stat)?,
            _ => self.step(Step::Skipped(path))?,
        }
        Ok(None)
    }

    /// True if a file system that is mounted below the root is not entered.
    fn stays_out(&self, dev: u64) -> bool {
        dev != self.device && (self.mounts == Mounts::Skip || self.pseudo.has(dev))
    }

    /// The next step, or one more.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Stopped> {
        if self.inserts > 0 { self.visitor.insert(step) } else { self.visitor.step(step) }
    }

    /// Freezes a file, whatever inode its name belongs to by now. `None` if it has vanished, or is no file
    /// any more.
    pub(crate) fn hold(&mut self, at: Place<'_>) -> Result<Option<Held>, Stopped> {
        for _ in 0..LOOKS {
            let stat = match Stat::of_name(at.folder, at.name) {
                Ok(stat) if stat.kind() == FileType::RegularFile => stat,
                _ => return Ok(None),
            };
            if let Some(held) = self.visitor.hold(at, stat)? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Reports a file that could not be frozen, unless it has vanished.
    pub(crate) fn report_moving(&mut self, at: Place<'_>) -> Result<(), Stopped> {
        if !Stat::of_name(at.folder, at.name).is_ok_and(|stat| stat.kind() == FileType::RegularFile) {
            return Ok(());
        }
        self.visitor.insert(Step::Problem(at.path.clone(), "was replaced repeatedly".to_owned()))
    }

    /// Keeps a file and adds a step for it, out of order.
    pub(crate) fn hold_late(&mut self, at: Place<'_>) -> Result<Option<Identity>, Stopped> {
        let Some(held) = self.hold(at)? else { return self.report_moving(at).map(|()| None) };
        let identity = held.stat.identity;
        self.visitor.insert(Step::File(FoundFile::new(at.path.clone(), held)))?;
        Ok(Some(identity))
    }

    fn folder(&mut self, at: &OwnedFd, name: &CStr, path: EntryPath) -> Result<Option<Level>, Stopped> {
        match open_folder(at, name.to_bytes()) {
            Ok(folder) => self.enter(path, folder),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => {
                // A folder that may not be entered is still recorded.
                if let Ok(stat) = Stat::of_name(at, name)
                    && stat.kind() == FileType::Directory
                {
                    self.step(Step::Plain(stat.entry(path.clone(), EntryKind::Folder, Vec::new())))?;
                }
                self.problem(path, "cannot be opened", error).map(|()| None)
            }
        }
    }

    /// Reports an open folder and lists it.
    fn enter(&mut self, path: EntryPath, folder: OwnedFd) -> Result<Option<Level>, Stopped> {
        let at = self.visitor.now();
        let about = Stat::of_file(&folder);
        let names = Names::list(&folder, &mut self.buffer);
        // Second names of a push, this one or another, are no data. Those of another user are reported: he
        // could have made such a folder to hide something.
        if names.as_ref().is_ok_and(|names| is_base(names.iter())) {
            match whose(about.as_ref().ok(), &path) {
                Whose::Ours => return Ok(None),
                Whose::Theirs => return self.step(Step::Skipped(path)).map(|()| None),
                Whose::Data => {}
            }
        }
        match about.and_then(|stat| Ok((stat, xattr::of_file(&folder)?))) {
            // The format has no entry for `/` itself.
            Ok(_) if path.is_top() => {}
            Ok((stat, xattrs)) => {
                self.step(Step::Plain(stat.entry(path.clone(), EntryKind::Folder, xattrs)))?;
            }
            Err(error) => self.problem(path.clone(), "its attributes cannot be read", error)?,
        }
        let listed = about.ok().filter(|_| self.visitor.needs_one_moment()).map(|stat| (stat, at));
        match names {
            Ok(names) => {
                let (files, waiting) = (Vec::new(), Vec::new());
                let marked = self.selection.marker(&folder, &names);
                Ok(Some(Level { path, folder, listed, names, marked, next: 0, files, waiting }))
            }
            Err(error) => self.problem(path, "cannot be listed", error).map(|()| None),
        }
    }

    fn symlink(&mut self, at: &OwnedFd, name: &CStr, path: EntryPath, stat: &Stat) -> Result<(), Stopped> {
        let target = rustix::fs::readlinkat(at, name, Vec::new());
        let about = target.and_then(|target| Ok((target, xattr::of_name(at, name)?)));
        match about {
            Ok((target, xattrs)) => {
                let mut entry = stat.entry(path, EntryKind::Symlink, xattrs);
                entry.target = Some(target.into_bytes());
                self.step(Step::Plain(entry))
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => self.problem(path, "cannot be read", error),
        }
    }

    fn problem(&mut self, path: EntryPath, what: &str, error: Errno) -> Result<(), Stopped> {
        self.step(Step::Problem(path, reason(what, error)))
    }
}

/// Owner of a folder that holds only second names.
enum Whose {
    /// A push of this user or of root has made it.
    Ours,
    /// A push of another user may have made it.
    Theirs,
    /// It is of another user, and pushes give such folders another name.
    Data,
}

fn whose(about: Option<&Stat>, path: &EntryPath) -> Whose {
    let is_ours = about.is_some_and(|stat| [0, rustix::process::geteuid().as_raw()].contains(&stat.uid));
    match path.components().last() {
        _ if is_ours => Whose::Ours,
        Some(name) if name == BASE_NAME.as_bytes() => Whose::Theirs,
        _ => Whose::Data,
    }
}

/// True if it is an unfinished file of a restore, and so no data.
pub(crate) fn is_unfinished(name: &CStr, stat: &Stat) -> bool {
    is_temporary(name.to_bytes()) && matches!(stat.kind(), FileType::RegularFile | FileType::Symlink)
}

/// Why something is missing from a snapshot, for people.
pub(crate) fn reason(what: &str, error: Errno) -> String {
    match error {
        Errno::NOENT | Errno::STALE => "vanished".to_owned(),
        Errno::LOOP | Errno::NOTDIR => "was replaced by something else while it was pushed".to_owned(),
        error => format!("{what}: {error}"),
    }
}

fn open_folder(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    guest::open(at, name, FOLDER)
}

#[cfg(test)]
#[path = "walk/tests.rs"]
mod tests;
