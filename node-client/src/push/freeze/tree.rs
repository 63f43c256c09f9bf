//! One folder of second names, locked while its push lives.
//!
//! ```text
//! .astacus/                       the base; its mark tells it from data
//!   astacus-freeze                the mark
//!   <key>-<n>.lock                locked by the push that <key>-<n> belongs to
//!   <key>-<n>/<xx>/<inode>        the second names: an inode's number is its name
//! ```
//! An inode's number cannot be given to another file while it has a name here. So a link that is there
//! already is the right one, and making it again changes nothing of the file.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, Timestamps};
use rustix::io::Errno;

use format_spec::Xattr;

use super::{FreezeMode, Kept, cstring};
use crate::beneath::open_real;
use crate::identity::Identity;
use crate::push::guest::{FOLDER, READ};
use crate::push::second_names::{BASE_NAME, MARK, MOST_TREES, is_our_name, is_tree_name};
use crate::push::stat::Stat;
use crate::push::{guest, xattr};

const PRIVATE: Mode = Mode::RWXU;

/// Where trees are made.
#[derive(Debug)]
pub(super) struct Base {
    above: PathBuf,
    path: PathBuf,
    kind: BaseKind,
}

/// Owner of a base, and the users who can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BaseKind {
    /// An existing folder of the user, which is kept.
    Chosen,
    /// A folder that the push makes and removes without a trace, closed to other users.
    Beside,
    /// The same in a pushed folder: its group may look into it, so that no program of its owner stumbles.
    Within,
}

impl Base {
    /// `.astacus` in a folder that is not pushed.
    pub(super) fn beside(above: &Path) -> Self {
        Self { above: above.to_owned(), path: above.join(BASE_NAME), kind: BaseKind::Beside }
    }

    /// `.astacus` in a root.
    pub(super) fn within(root: &Path) -> Self {
        Self { above: root.to_owned(), path: root.join(BASE_NAME), kind: BaseKind::Within }
    }

    /// A folder of the user's choice, which must be there.
    pub(super) fn chosen(folder: &Path) -> Self {
        Self { above: folder.to_owned(), path: folder.to_owned(), kind: BaseKind::Chosen }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_within(&self) -> bool {
        self.kind == BaseKind::Within
    }

    fn is_ours_to_make(&self) -> bool {
        self.kind != BaseKind::Chosen
    }

    /// The folder above it, if the push may make the base there.
    fn open_above(&self) -> Result<Option<OwnedFd>, Errno> {
        self.is_ours_to_make().then(|| open_real(&self.above, FOLDER)).transpose()
    }

    /// Opens it, in `above` if it is ours to make there, without following any link.
    fn open_in(&self, above: Option<&OwnedFd>) -> Result<OwnedFd, Errno> {
        match above {
            Some(above) => rustix::fs::openat(above, BASE_NAME, FOLDER, Mode::empty()),
            None => open_real(&self.path, FOLDER),
        }
    }

    /// Opens it for one push at a time, and makes it if it is ours to make, in `above`.
    fn open(&self, above: Option<&OwnedFd>) -> Result<OwnedFd, Errno> {
        loop {
            if let Some(above) = above {
                keeping_mtime(above, || rustix::fs::mkdirat(above, BASE_NAME, PRIVATE)).or_else(if_there)?;
            }
            match self.open_there(above) {
                // Another push removed it at this moment.
                Ok(None) | Err(Errno::NOENT) if self.is_ours_to_make() => {}
                opened => {
                    let opened = opened?.ok_or(Errno::NOENT)?;
                    // The owner of that folder could replace our second names by other files.
                    if !is_ours(&opened)? && !take_over(above, &opened)? {
                        return Err(Errno::ACCESS);
                    }
                    if is_ours(&opened)? {
                        make_mark(&opened)?;
                        self.show_to_group(above, &opened)?;
                        return Ok(opened);
                    }
                }
            }
        }
    }

    /// Opens it, for one push at a time, if it is there and a base.
    fn open_there(&self, above: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Errno> {
        let base = self.open_in(above)?;
        enter(&base)?;
        if Stat::of_file(&base)?.links == 0 {
            return Ok(None);
        }
        // Someone's data is left alone: a base is no part of a snapshot.
        if names(&base)?.iter().all(|name| is_our_name(name.to_bytes())) {
            Ok(Some(base))
        } else {
            Err(Errno::ACCESS)
        }
    }

    /// Lets the group of the pushed folder read a base inside it. Programs of its owner list all folders
    /// there, and must neither fail nor be able to change its content.
    fn show_to_group(&self, above: Option<&OwnedFd>, made: &OwnedFd) -> Result<(), Errno> {
        let Some(above) = above.filter(|_| self.kind == BaseKind::Within) else { return Ok(()) };
        let group = Stat::of_file(above)?.gid;
        // A user who may not give a folder to that group is in it, or cannot change it.
        let given = rustix::fs::fchown(made, None, Some(rustix::fs::Gid::from_raw(group)));
        given.or_else(|error| if error == Errno::PERM { Ok(()) } else { Err(error) })?;
        let is_folder = Stat::of_file(made)?.kind() == rustix::fs::FileType::Directory;
        rustix::fs::fchmod(made, if is_folder { Mode::from(0o750) } else { Mode::from(0o640) })
    }
}

/// Removes the base of another user, if no push of theirs is running and we may. Then we can make our own.
fn take_over(above: Option<&OwnedFd>, theirs: &OwnedFd) -> Result<bool, Errno> {
    remove_dead(theirs, "");
    match remove_base(above, theirs) {
        Ok(()) => Ok(Stat::of_file(theirs)?.links == 0),
        Err(Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_ours(base: &OwnedFd) -> Result<bool, Errno> {
    Ok(Stat::of_file(base)?.uid == rustix::process::geteuid().as_raw())
}

/// How often a base is tried to be locked, and how long to wait in between: pushes keep it for a moment.
const TRIES: u32 = if cfg!(test) { 3 } else { 500 };
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Keeps other pushes from the base.
///
/// # Errors
/// [`Errno::BUSY`] if the lock is held, as the owner of the folder above can hold it, so that a push does not
/// wait.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel tells nobody when a lock is free, but who waits for ever"
)]
fn enter(base: &OwnedFd) -> Result<(), Errno> {
    for _ in 0..TRIES {
        match rustix::fs::flock(base, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(BETWEEN_TRIES),
            locked => return locked,
        }
    }
    Err(Errno::BUSY)
}

/// Lets other pushes at the base.
fn leave(base: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::flock(base, FlockOperation::Unlock)
}

/// An open tree. Its lock ends with it.
pub(super) struct Tree {
    place: Base,
    kept: Kept,
    above: Option<OwnedFd>,
    base: OwnedFd,
    folder: OwnedFd,
    name: String,
    was_left: bool,
    _lock: OwnedFd,
}

impl Tree {
    /// The first tree of `key` that no living push has; links that a dead one left in it are kept. Trees of other
    /// dead pushes are removed. What `mode` asks for is tried once: a file system either has shared copies or not.
    pub(super) fn open(base: &Base, key: &str, mode: FreezeMode) -> Result<Self, Errno> {
        let above = base.open_above()?;
        let folder = base.open(above.as_ref())?;
        let (name, lock) = lock_first(&folder, key)?;
        base.show_to_group(above.as_ref(), &folder)?;
        remove_dead(&folder, &name);
        rustix::fs::mkdirat(&folder, &name, PRIVATE).or_else(if_there)?;
        let tree = rustix::fs::openat(&folder, &name, FOLDER, Mode::empty())?;
        for made in [&tree, &rustix::fs::openat(&folder, MARK, READ, Mode::empty())?, &lock] {
            base.show_to_group(above.as_ref(), made)?;
        }
        leave(&folder)?;
        let place = Base { above: base.above.clone(), path: base.path.clone(), kind: base.kind };
        let mut tree = Self {
            place,
            kept: Kept::Hardlink,
            above,
            base: folder,
            folder: tree,
            name,
            was_left: false,
            _lock: lock,
        };
        tree.was_left = tree.drop_lonely()?;
        if mode != FreezeMode::Hardlink && tree.can_share_blocks()? {
            tree.kept = Kept::Reflink;
        }
        Ok(tree)
    }

    /// How it keeps files.
    pub(super) fn kept(&self) -> Kept {
        self.kept
    }

    /// Path of the tree.
    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    /// True if a file here can be copied by sharing its blocks.
    fn can_share_blocks(&self) -> Result<bool, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = |name: &CStr| {
            rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()).or_else(if_gone)?;
            rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)
        };
        let (from, to) = (file(c"from")?, file(c"to")?);
        rustix::io::write(&from, b"shared?")?;
        let copied = rustix::fs::ioctl_ficlone(&to, &from);
        for name in [c"from", c"to"] {
            rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?;
        }
        Ok(copied.is_ok())
    }

    /// True if a dead push left names in it.
    pub(super) fn was_left(&self) -> bool {
        self.was_left
    }

    pub(super) fn has(&self, ino: u64) -> bool {
        Stat::of_name(&self.folder, &name_of(ino)).is_ok()
    }

    /// Gives `name` in `folder`, which was inode `ino`, its second name; returns what that name stands for.
    pub(super) fn link(&self, folder: &OwnedFd, name: &CStr, ino: u64) -> Result<Stat, Errno> {
        let second = name_of(ino);
        let link = || rustix::fs::linkat(folder, name, &self.folder, &second, AtFlags::empty());
        match link() {
            Err(Errno::NOENT) => {
                self.make_fan(ino)?;
                link().or_else(if_there)?;
            }
            linked => linked.or_else(if_there)?,
        }
        let stat = Stat::of_name(&self.folder, &second)?;
        if stat.identity.ino != ino {
            // The name was given to another file between the look and the link.
            rustix::fs::unlinkat(&self.folder, &second, AtFlags::empty())?;
        }
        Ok(stat)
    }

    /// Copies `name` in `folder` block by shared block; returns what the file was at that moment, with its
    /// extended attributes, which a copy does not have.
    pub(super) fn clone_file(
        &self,
        folder: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(Stat, Vec<Xattr>), Errno> {
        let ino = stat.identity.ino;
        self.make_fan(ino)?;
        let second = name_of(ino);
        let file = guest::open(folder, name, READ)?;
        if !Stat::of_file(&file)?.identity.is_same_inode(&stat.identity) {
            return Err(Errno::STALE);
        }
        // A push that was killed may have left a link here: to open that for writing is to write to the file.
        match rustix::fs::unlinkat(&self.folder, &second, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&self.folder, &second, flags, Mode::RUSR | Mode::WUSR)?;
        // Bytes that are written between stat and copy are in the copy, but not in the times. Such times
        // never come back, so the next push reads the file again.
        let before = Stat::of_file(&file)?;
        let copied = rustix::fs::ioctl_ficlone(&copy, &file).and_then(|()| Stat::of_file(&copy));
        match copied {
            Ok(copied) => {
                let identity = Identity { size: copied.identity.size, ..before.identity };
                let xattrs = xattr::of_file(&file)?;
                Ok((Stat { identity, allocated: copied.allocated, ..before }, xattrs))
            }
            Err(error) => {
                rustix::fs::unlinkat(&self.folder, &second, AtFlags::empty())?;
                Err(error)
            }
        }
    }

    fn make_fan(&self, ino: u64) -> Result<(), Errno> {
        let fan = fan_of(ino);
        match rustix::fs::mkdirat(&self.folder, &fan, PRIVATE) {
            Err(Errno::EXIST) => Ok(()),
            made => {
                made?;
                let fan = rustix::fs::openat(&self.folder, &fan, FOLDER, Mode::empty())?;
                self.place.show_to_group(self.above.as_ref(), &fan)
            }
        }
    }

    pub(super) fn open_file(&self, ino: u64) -> Result<OwnedFd, Errno> {
        guest::open(&self.folder, &*name_of(ino), READ)
    }

    pub(super) fn release(&self, identity: &Identity) -> Option<Identity> {
        let second = name_of(identity.ino);
        let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, &second, handle, Mode::empty()).ok()?;
        let before = Stat::of_file(&file).ok()?.identity;
        rustix::fs::unlinkat(&self.folder, &second, AtFlags::empty()).ok()?;
        let after = Stat::of_file(&file).ok()?.identity;
        let untouched = before == *identity && Identity { ctime: before.ctime, ..after } == before;
        untouched.then_some(after)
    }

    /// Removes names whose file has no other: its owner has deleted it. Returns whether any are left.
    fn drop_lonely(&self) -> Result<bool, Errno> {
        let mut left = false;
        for fan in names(&self.folder)? {
            let folder = match rustix::fs::openat(&self.folder, &*fan, FOLDER, Mode::empty()) {
                // A trial that a kill cut short.
                Err(Errno::NOTDIR) => {
                    rustix::fs::unlinkat(&self.folder, &*fan, AtFlags::empty())?;
                    continue;
                }
                folder => folder?,
            };
            for name in names(&folder)? {
                if Stat::of_name(&folder, &name)?.links > 1 {
                    left = true;
                } else {
                    rustix::fs::unlinkat(&folder, &*name, AtFlags::empty())?;
                }
            }
        }
        Ok(left)
    }

    /// Removes it, and its base if that is not used by others.
    pub(super) fn remove(self) -> Result<(), Errno> {
        enter(&self.base)?;
        remove_tree(&self.base, &self.name)?;
        rustix::fs::unlinkat(&self.base, lock_name(&self.name), AtFlags::empty())?;
        remove_base(self.above.as_ref(), &self.base)
    }
}

/// Result of a sweep of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// There was nothing.
    Nothing,
    /// It is removed, with the second names in it.
    Removed,
    /// A push that is running is at home there.
    InUse,
}

/// Removes trees of dead pushes of any user in `base`, and the base too if it is not used.
///
/// # Errors
/// [`Errno::ACCESS`] if it is another user's and we may not, or if it holds data; what the file system says.
pub(super) fn sweep(base: &Base) -> Result<Left, Errno> {
    let there = base.open_above().and_then(|above| Ok((base.open_there(above.as_ref())?, above)));
    let (opened, above) = match there {
        Ok((Some(opened), above)) => (opened, above),
        Ok((None, _)) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Left::Nothing),
        Err(error) => return Err(error),
    };
    if !names(&opened)?.iter().any(|name| name.to_bytes() == MARK.as_bytes()) {
        return Ok(Left::Nothing);
    }
    remove_dead(&opened, "");
    remove_base(above.as_ref(), &opened)?;
    if names(&opened)?.is_empty() { Ok(Left::Removed) } else { Ok(Left::InUse) }
}

/// Removes the mark, and the base if it is inside a root, unless another push uses it.
fn remove_base(above: Option<&OwnedFd>, base: &OwnedFd) -> Result<(), Errno> {
    if names(base)?.iter().any(|name| name.to_bytes() != MARK.as_bytes()) {
        return Ok(());
    }
    rustix::fs::unlinkat(base, MARK, AtFlags::empty()).or_else(if_gone)?;
    let Some(above) = above else { return Ok(()) };
    keeping_mtime(above, || rustix::fs::unlinkat(above, BASE_NAME, AtFlags::REMOVEDIR)).or_else(if_gone)
}

fn make_mark(base: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(base, MARK, flags, Mode::RUSR | Mode::WUSR).map(drop)
}

/// Locks the first tree of `key` that is free.
fn lock_first(base: &OwnedFd, key: &str) -> Result<(String, OwnedFd), Errno> {
    for number in 0..MOST_TREES {
        let name = format!("{key}-{number}");
        if let Some(lock) = lock(base, &lock_name(&name))? {
            return Ok((name, lock));
        }
    }
    Err(Errno::BUSY)
}

fn lock_name(tree: &str) -> String {
    format!("{tree}.lock")
}

/// The lock under this name, if it is free.
fn lock(base: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Errno> {
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(base, name, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        // The one who had it may have removed the name between the opening and the locking.
        let named = Stat::of_name(base, &cstring(Path::new(name)));
        if named
            .is_ok_and(|named| Stat::of_file(&file).is_ok_and(|file| file.identity.ino == named.identity.ino))
        {
            return Ok(Some(file));
        }
    }
}

/// Removes the trees of all dead pushes but `mine`. What cannot be removed is left for another time.
fn remove_dead(base: &OwnedFd, mine: &str) {
    for name in names(base).unwrap_or_default() {
        let Some(tree) = name.to_str().ok().and_then(|name| name.strip_suffix(".lock")) else { continue };
        if tree == mine || !is_tree_name(tree) {
            continue;
        }
        if let Ok(Some(lock)) = lock(base, &lock_name(tree)) {
            let removed = remove_tree(base, tree);
            let removed = removed.and_then(|()| rustix::fs::unlinkat(base, &*name, AtFlags::empty()));
            tracing::debug!(tree, ?removed, "the temporary hard links of a killed push");
            drop(lock);
        }
    }
}

fn remove_tree(base: &OwnedFd, name: &str) -> Result<(), Errno> {
    let tree = match rustix::fs::openat(base, name, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        tree => tree?,
    };
    for fan in names(&tree)? {
        let folder = match rustix::fs::openat(&tree, &*fan, FOLDER, Mode::empty()) {
            Err(Errno::NOTDIR) => {
                rustix::fs::unlinkat(&tree, &*fan, AtFlags::empty())?;
                continue;
            }
            folder => folder?,
        };
        for name in names(&folder)? {
            rustix::fs::unlinkat(&folder, &*name, AtFlags::empty())?;
        }
        rustix::fs::unlinkat(&tree, &*fan, AtFlags::REMOVEDIR)?;
    }
    rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR)
}

/// The names in a folder.
fn names(folder: impl AsFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Changes what is in a folder of the user's without a trace in its mtime.
fn keeping_mtime<T>(folder: &OwnedFd, change: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let before = Stat::of_file(folder)?.identity.mtime;
    let changed = change()?;
    let keep = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let mtime = rustix::fs::Timespec { tv_sec: before.seconds, tv_nsec: before.nanos.into() };
    let times = Timestamps { last_access: keep, last_modification: mtime };
    // A user who may write to a folder need not own it; then its mtime shows the change.
    let _ = rustix::fs::futimens(folder, &times);
    Ok(changed)
}

fn if_gone(error: Errno) -> Result<(), Errno> {
    if error == Errno::NOENT { Ok(()) } else { Err(error) }
}

fn if_there(error: Errno) -> Result<(), Errno> {
    if error == Errno::EXIST { Ok(()) } else { Err(error) }
}

/// Neighbours in the inode table share a folder.
fn fan_of(ino: u64) -> String {
    format!("{:02x}", (ino >> 10) & 0xff)
}

fn name_of(ino: u64) -> std::ffi::CString {
    let name = format!("{}/{ino:x}", fan_of(ino));
    std::ffi::CString::new(name).expect("digits and a slash hold no NUL")
}
