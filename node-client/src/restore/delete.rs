//! Removes what lies in restored folders and not in the snapshot.
//!
//! Only folders that were chosen whole are looked at: never one that lies on the way to what was chosen, nor the target
//! around the roots; and nothing goes while a name of the snapshot may be unknown. What an exclude fits stays, with the folders that it lies in. Every folder is opened by its handle
//! without following links, so nothing outside of the target goes; nor does what is mounted in it.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use format_spec::EntryPath;
use format_spec::path::Printable;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::filter::Filter;
use super::folder::{Choice, Inode, Was, for_each_name, is_root};
use super::layout::TargetPath;
use super::plan::Step;
use super::{Partial, Prepared, RestoreOptions, pages};
use crate::beneath::open_beneath;
use crate::error::ClientError;
use crate::leftover::{SECOND_NAMES, is_temporary};

/// How many names a report gives; it counts all.
const MAX_NAMED: usize = 10_000;

/// Handling of names in restored folders that the snapshot lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// They stay.
    Stays,
    /// They are removed, once everything is restored.
    Goes,
}

/// Removal of names, or only their list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweeping {
    Planned,
    Done,
}

/// A name of the target that was to be removed and is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotRemoved {
    /// Its path below the target.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Names that were removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// The first ten thousand names, by their paths below the target.
    pub(super) names: Vec<String>,
    pub(super) count: u64,
    /// The first ten thousand of those that are there all the same.
    pub(super) left: Vec<NotRemoved>,
    pub(super) left_count: u64,
}

impl Removed {
    fn gone(&mut self, at: &[u8]) {
        self.count += 1;
        if self.names.len() < MAX_NAMED {
            self.names.push(Printable(at).to_string());
        }
    }

    fn left(&mut self, at: &[u8], reason: String) {
        self.left_count += 1;
        if self.left.len() < MAX_NAMED {
            self.left.push(NotRemoved { path: Printable(at).to_string(), reason });
        }
    }

    fn refused(why: &str) -> Self {
        let mut removed = Self::default();
        removed.left(b".", format!("{why}, so nothing is removed"));
        removed
    }
}

/// Why nothing is removed: not all names of the snapshot are known, and what is not among them may be one of its own.
pub(super) fn refusal(prepared: &Prepared<'_>, options: &RestoreOptions, pages: Pages) -> Option<Removed> {
    let lacks = options.partial == Partial::Allow && prepared.manifest.totals.problems > 0;
    match pages {
        Pages::Damaged => Some(Removed::refused("a page with names of the snapshot is damaged")),
        // A folder that could not be listed has no names in the snapshot.
        Pages::Sound if lacks => Some(Removed::refused("the snapshot is partial and may lack names")),
        Pages::Sound => None,
    }
}

/// State of the pages of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    Sound,
    Damaged,
}

/// A folder of the snapshot whose names come.
struct Folder {
    at: TargetPath,
    path: EntryPath,
    choice: Choice,
    /// Names of the folder in the snapshot.
    names: HashSet<Vec<u8>>,
    /// Names of the folder in the target; `None` if it does not exist under exactly this name.
    there: Option<BTreeSet<Vec<u8>>>,
}

/// Goes through the folders of the snapshot once more, and removes from each what it does not have. Memory: the names of
/// the folders around the current one.
///
/// # Errors
/// Those of [`pages::for_each_page`], and of a page that is damaged. What is removed until then is not in the snapshot.
pub(super) fn remove_extra(
    prepared: &Prepared<'_>,
    options: &RestoreOptions,
    target: BorrowedFd<'_>,
    sweeping: Sweeping,
) -> Result<Removed, ClientError> {
    // One of its own: what is only in the target is no match of a pattern in the snapshot.
    let filter = Filter::new(&options.paths, &options.excludes)?;
    let top = open_folder(target, b"").ok().map(|top| names(&top));
    let mut sweep =
        Sweep { target, filter: &filter, sweeping, top, folders: Vec::new(), removed: Removed::default() };
    let mut planner = prepared.planner();
    let mut sink = |step| {
        sweep.step(step);
        Ok(())
    };
    pages::for_each_page(prepared.fetcher, &prepared.domain, &prepared.manifest, |(page, records)| {
        planner.page(page.id, records?, &mut sink)
    })?;
    planner.finish(&mut sink)?;
    Ok(sweep.removed)
}

/// Names that [`remove_extra`] would remove. Nothing from a target that is not there.
///
/// # Errors
/// As [`remove_extra`], and [`ClientError::Disk`] for a target that cannot be opened.
pub(super) fn would_remove(
    prepared: &Prepared<'_>,
    options: &RestoreOptions,
) -> Result<Removed, ClientError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, &options.to, flags, Mode::empty()) {
        Ok(target) => remove_extra(prepared, options, target.as_fd(), Sweeping::Planned),
        Err(Errno::NOENT) => Ok(Removed::default()),
        Err(error) => {
            Err(ClientError::Disk { action: "open", path: options.to.clone(), source: error.into() })
        }
    }
}

struct Sweep<'a> {
    target: BorrowedFd<'a>,
    filter: &'a Filter,
    sweeping: Sweeping,
    /// Names in the target.
    top: Option<BTreeSet<Vec<u8>>>,
    folders: Vec<Folder>,
    removed: Removed,
}

/// A name that goes, and the folder that it lies in.
struct Name<'a> {
    folder: &'a OwnedFd,
    /// File system of the folder.
    dev: u64,
    name: &'a [u8],
    /// Below the target.
    at: Vec<u8>,
    /// On the node.
    path: EntryPath,
}

impl Sweep<'_> {
    fn step(&mut self, step: Step) {
        match step {
            Step::EnterFolder { at, path, entry } => {
                self.has(at.split().1);
                let choice = entry.map_or(Choice::OnTheWay, |(_, choice)| choice);
                let there = self.listed(&at);
                self.folders.push(Folder { at, path, choice, names: HashSet::new(), there });
            }
            Step::LeaveFolder => {
                if let Some(folder) = self.folders.pop().filter(|folder| folder.choice == Choice::Wanted) {
                    self.sweep(&folder);
                }
            }
            Step::Symlink { at, .. }
            | Step::BeginFile { at, .. }
            | Step::Link { at, .. }
            | Step::Owe { at, .. } => self.has(at.split().1),
            Step::Skip { path } | Step::Lose { path, .. } => {
                self.has(path.components().last().unwrap_or_default());
            }
            Step::Chunk { .. } | Step::EndFile { .. } | Step::AbandonFile | Step::Mark { .. } => {}
        }
    }

    /// The folder that was entered last holds this name in the snapshot.
    fn has(&mut self, name: &[u8]) {
        if let Some(folder) = self.folders.last_mut() {
            folder.names.insert(name.to_vec());
        }
    }

    /// The names in the folder of the target that has exactly this path: of two names that the target takes for one, the
    /// second stands for the folder of the first.
    fn listed(&self, at: &TargetPath) -> Option<BTreeSet<Vec<u8>>> {
        let around = self.folders.last().map_or(&self.top, |folder| &folder.there);
        let is_there = at.is_target() || around.as_ref().is_some_and(|names| names.contains(at.split().1));
        is_there.then(|| open_folder(self.target, at.as_bytes()).ok()).flatten().map(|folder| names(&folder))
    }

    fn sweep(&mut self, folder: &Folder) {
        let extra = self.extra(folder);
        if extra.is_empty() {
            return;
        }
        let Ok(handle) = open_folder(self.target, folder.at.as_bytes()) else { return };
        let Ok(stat) = rustix::fs::fstat(&handle) else { return };
        let mode = Mode::from_raw_mode(stat.st_mode);
        if self.sweeping == Sweeping::Done && !mode.contains(Mode::RWXU) && !is_root() {
            // Refused, each name says so.
            let _ = rustix::fs::fchmod(&handle, mode | Mode::RWXU);
        }
        let here: HashSet<Inode> =
            folder.names.iter().filter_map(|name| Inode::of_name(&handle, name).ok()).collect();
        for name in extra {
            let at = join(folder.at.as_bytes(), &name);
            let Ok(path) = folder.path.join(&name) else { continue };
            if Inode::of_name(&handle, &name).is_ok_and(|inode| here.contains(&inode)) {
                self.removed.left(
                    &at,
                    "it is another name, or another spelling of the name, of what was restored".to_owned(),
                );
                continue;
            }
            self.remove(&Name { folder: &handle, dev: stat.st_dev, name: &name, at, path });
        }
        if self.sweeping == Sweeping::Done {
            Was::of(&stat).put_back(handle.as_fd());
        }
    }

    /// The names in a folder of the target that are chosen and that the snapshot does not have.
    fn extra(&self, folder: &Folder) -> Vec<Vec<u8>> {
        let is_extra = |name: &&Vec<u8>| !folder.names.contains(*name) && !is_ours(name);
        let is_chosen = |name: &&Vec<u8>| folder.path.join(name).is_ok_and(|path| self.filter.covers(&path));
        folder.there.iter().flatten().filter(is_extra).filter(is_chosen).cloned().collect()
    }

    /// Removes a name with all in it; whether it is gone, or would be.
    fn remove(&mut self, name: &Name<'_>) -> bool {
        match self.try_remove(name) {
            Ok(is_gone) => {
                if is_gone {
                    self.removed.gone(&name.at);
                }
                is_gone
            }
            // Another process was faster.
            Err(Errno::NOENT) => true,
            Err(error) => {
                self.removed.left(&name.at, error.to_string());
                false
            }
        }
    }

    fn try_remove(&mut self, name: &Name<'_>) -> Result<bool, Errno> {
        let Name { folder, dev, name, at, path } = name;
        let stat = rustix::fs::statat(folder, *name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut flags = AtFlags::empty();
        // A push stores no sockets, devices and pipes: that the snapshot has none says nothing.
        if !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink) {
            return Ok(false);
        }
        if kind == FileType::Directory {
            flags = AtFlags::REMOVEDIR;
            if stat.st_dev != *dev {
                self.removed.left(at, "another file system is mounted there".to_owned());
                return Ok(false);
            }
            let inner = rustix::fs::openat(folder, *name, FOLDER, Mode::empty())?;
            let mut is_empty = true;
            for name in names(&inner) {
                let path = path.join(&name).map_err(|_| Errno::NAMETOOLONG)?;
                let is_chosen = !is_ours(&name) && self.filter.covers(&path);
                let inner = Name { folder: &inner, dev: *dev, name: &name, at: join(at, &name), path };
                is_empty &= is_chosen && self.remove(&inner);
            }
            if !is_empty {
                return Ok(false);
            }
        }
        if self.sweeping == Sweeping::Done {
            rustix::fs::unlinkat(folder, *name, flags)?;
        }
        Ok(true)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_folder(target: BorrowedFd<'_>, at: &[u8]) -> Result<OwnedFd, Errno> {
    open_beneath(target, at, FOLDER)
}

/// The names in a folder; none if it cannot be listed.
fn names(folder: &OwnedFd) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let listed = for_each_name(folder.as_fd(), |name| {
        names.insert(name.to_bytes().to_vec());
    });
    if listed.is_err() {
        names.clear();
    }
    names
}

/// True if a push or a restore that may be running made this name.
fn is_ours(name: &[u8]) -> bool {
    is_temporary(name) || name == SECOND_NAMES.as_bytes()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}
