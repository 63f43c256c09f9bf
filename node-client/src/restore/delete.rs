//! Removes what lies in restored folders and not in the snapshot.
//!
//! Only folders that were chosen whole are looked at: never one that lies on the way to what was chosen, nor the target
//! around the roots; and nothing goes while a name of the snapshot may be unknown. What an exclude fits stays, with the folders that it lies in. Every folder is opened by its handle
//! without following links, so nothing outside of the target goes. Nothing in a mount goes either, be it another file
//! system or a bind mount, except in a root that is a mount point itself: a push of other roots stores a mount point as an
//! empty folder.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use format_spec::EntryPath;
use format_spec::path::Printable;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
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
    /// The mount that it lies in, or should lie in.
    mount: Option<MountId>,
}

/// The mount that a folder is reached through. A kernel that tells none is taken to have mounted something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MountId(u64);

impl MountId {
    fn of(folder: BorrowedFd<'_>) -> Option<Self> {
        let stat = rustix::fs::statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(Self(stat.stx_mnt_id))
    }
}

/// True if both are known, and one.
fn is_one(one: Option<MountId>, other: Option<MountId>) -> bool {
    one.is_some() && one == other
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
    let mut removed = Removed::default();
    let top = open_folder(target, b"").and_then(|top| names(&top));
    if let Err(error) = &top {
        removed.left(b".", not_listed(*error));
    }
    let mut sweep = Sweep {
        target,
        roots: &prepared.manifest.roots,
        filter: &filter,
        sweeping,
        top: top.ok(),
        mount: MountId::of(target),
        folders: Vec::new(),
        removed,
    };
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
    /// The roots of the manifest.
    roots: &'a [EntryPath],
    filter: &'a Filter,
    sweeping: Sweeping,
    /// Names in the target.
    top: Option<BTreeSet<Vec<u8>>>,
    /// The mount of the target.
    mount: Option<MountId>,
    folders: Vec<Folder>,
    removed: Removed,
}

/// A name that goes, and the folder that it lies in.
struct Name<'a> {
    folder: &'a OwnedFd,
    /// The mount of the folder.
    mount: Option<MountId>,
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
                let folder = self.entered(at, path, choice);
                self.folders.push(folder);
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

    /// A folder of the snapshot, with the names in the folder of the target that has exactly its path: of two names that
    /// the target takes for one, the second stands for the folder of the first.
    fn entered(&mut self, at: TargetPath, path: EntryPath, choice: Choice) -> Folder {
        let (around, mount) = match self.folders.last() {
            Some(folder) => (&folder.there, folder.mount),
            None => (&self.top, self.mount),
        };
        let is_there = at.is_target() || around.as_ref().is_some_and(|names| names.contains(at.split().1));
        let handle = is_there.then(|| open_folder(self.target, at.as_bytes()).ok()).flatten();
        let mut folder = Folder { at, path, choice, names: HashSet::new(), there: None, mount };
        let Some(handle) = handle else { return folder };
        let found = MountId::of(handle.as_fd());
        let is_ours = is_one(found, mount) || self.roots.contains(&folder.path);
        match names(&handle) {
            Ok(names) if is_ours => (folder.there, folder.mount) = (Some(names), found),
            Ok(names) if names.is_empty() => {}
            _ if choice == Choice::OnTheWay => {}
            Ok(_) => self.removed.left(folder.at.as_bytes(), MOUNTED.to_owned()),
            Err(error) => self.removed.left(folder.at.as_bytes(), not_listed(error)),
        }
        folder
    }

    fn sweep(&mut self, folder: &Folder) {
        let extra = self.extra(folder);
        if extra.is_empty() {
            return;
        }
        let opened = open_folder(self.target, folder.at.as_bytes())
            .and_then(|handle| Ok((rustix::fs::fstat(&handle)?, handle)));
        let (stat, handle) = match opened {
            Ok(opened) => opened,
            // Another process removed the folder with all in it.
            Err(Errno::NOENT) => return,
            Err(error) => return self.removed.left(folder.at.as_bytes(), error.to_string()),
        };
        let mount = MountId::of(handle.as_fd());
        if !is_one(mount, folder.mount) {
            return self.removed.left(folder.at.as_bytes(), MOUNTED.to_owned());
        }
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
            self.remove(&Name { folder: &handle, mount, name: &name, at, path });
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
        let Name { folder, mount, name, at, path } = name;
        let stat = rustix::fs::statat(folder, *name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut flags = AtFlags::empty();
        // A push stores no sockets, devices and pipes: that the snapshot has none says nothing.
        if !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink) {
            return Ok(false);
        }
        if kind == FileType::Directory {
            flags = AtFlags::REMOVEDIR;
            let inner = rustix::fs::openat(folder, *name, FOLDER, Mode::empty())?;
            if !is_one(MountId::of(inner.as_fd()), *mount) {
                self.removed.left(at, MOUNTED.to_owned());
                return Ok(false);
            }
            let mut is_empty = true;
            for name in names(&inner)? {
                let path = path.join(&name).map_err(|_| Errno::NAMETOOLONG)?;
                let is_chosen = !is_ours(&name) && self.filter.covers(&path);
                let inner = Name { folder: &inner, mount: *mount, name: &name, at: join(at, &name), path };
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

/// Why all names of a folder stay.
fn not_listed(error: Errno) -> String {
    format!("the folder cannot be listed: {error}")
}

/// Why what is mounted in a folder stays.
const MOUNTED: &str = "something is mounted there";

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_folder(target: BorrowedFd<'_>, at: &[u8]) -> Result<OwnedFd, Errno> {
    open_beneath(target, at, FOLDER)
}

/// The names in a folder.
fn names(folder: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = BTreeSet::new();
    let listed = for_each_name(folder.as_fd(), |name| {
        names.insert(name.to_bytes().to_vec());
    });
    listed.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(names)
}

/// True if a push or a restore that may be running made this name.
fn is_ours(name: &[u8]) -> bool {
    is_temporary(name) || name == SECOND_NAMES.as_bytes()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}
