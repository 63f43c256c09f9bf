//! Room on the disk of the data folder, and on that of the site if it is another: pushes are refused while some is left,
//! so that what frees room can still work, and a ballast is given up for it when none is.
//!
//! Three marks on each disk, from the top:
//! 1. Less is free than [`refuse_below`](crate::settings::SpaceSettings::refuse_below): no session is
//!    granted, with the reason and the way out (`admit`), and an alarm is up. All else goes on.
//! 2. Less is free than the index keeps for itself: it refuses commits, reads stay (`index::space`).
//! 3. The collector could not commit, or write a pack anew: [`release_ballast`] gives it the room that
//!    the ballast held, and [`restore_ballast`] takes it back once there is enough.
//!
//! The ballast is a file of allocated bytes that mean nothing. It is not synced: one that a power cut
//! shortens is made whole again. Whoever changes it has opened the repository, so there is only one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat, statvfs};
use rustix::io::{Errno, retry_on_intr};

use crate::alarm::{self, AlarmCode};
use crate::durable::{self, FileName, RealDisk};
use crate::error::{Chain, ServerError};
use crate::index;
use crate::repository::{Repository, lock};
use crate::settings::{Amount, SpaceSettings};

/// Name of the ballast in the data folder.
pub const BALLAST: &str = "ballast";

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a collector needs free: what the index keeps for itself, and two packs to copy into.
const COLLECTOR_ROOM: u64 = index::RESERVE_MIN + 64 * MIB;

/// A ballast that nobody gave a size, at least: with it alone a collector can work.
const BALLAST_MIN: u64 = COLLECTOR_ROOM;
const BALLAST_MAX: u64 = GIB;

/// Bounds of the mark under which pushes are refused, if nobody gave it. A push that is taken must not find out
/// half way that the index takes no commits any more.
const REFUSE_MIN: u64 = COLLECTOR_ROOM;
const REFUSE_MAX: u64 = 8 * GIB;

/// Bounds of the number of files under which pushes are refused: a hundredth of what there can be.
const REFUSE_FILES_MIN: u64 = 256;
const REFUSE_FILES_MAX: u64 = 100_000;

/// What to do about a full disk.
const WAY_OUT: &str =
    "delete snapshots (astacus-admin forget, then astacus-admin gc --now), or add space to the disk";

/// How much room a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What this process may still take.
    pub free_bytes: u64,
    /// What there is altogether.
    pub total_bytes: u64,
    /// Files that this process may still make.
    pub free_files: u64,
    /// Files that there can be altogether; 0 where the file system sets no limit.
    pub total_files: u64,
}

impl Room {
    /// Room on a disk that takes any number of files.
    pub fn of_bytes(free_bytes: u64, total_bytes: u64) -> Self {
        Self { free_bytes, total_bytes, free_files: 0, total_files: 0 }
    }
}

/// Tells how much room is left where a repository lies.
pub trait Volume: Send + Sync {
    /// How much there is now. Blocks.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn room(&self) -> io::Result<Room>;
}

/// The disk that a folder is on.
struct FolderVolume(PathBuf);

impl Volume for FolderVolume {
    fn room(&self) -> io::Result<Room> {
        let stat = statvfs(&self.0)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Room {
            free_bytes: bytes(stat.f_bavail),
            total_bytes: bytes(stat.f_blocks),
            free_files: stat.f_favail,
            total_files: stat.f_files,
        })
    }
}

/// The room of one repository: how much there is, and how much must stay.
pub struct Space {
    disks: Vec<Disk>,
    settings: SpaceSettings,
    /// Held while a ballast changes.
    ballast: Mutex<()>,
}

/// One disk that a repository lies on, with a ballast of its own.
struct Disk {
    folder: PathBuf,
    volume: Box<dyn Volume>,
    settings: SpaceSettings,
}

/// Whether pushes have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// They have.
    Enough,
    /// They are refused.
    Low,
}

impl Space {
    /// The room of the data folder `folder`.
    pub fn of(folder: &Path, settings: SpaceSettings) -> Self {
        Self::on(Box::new(FolderVolume(folder.to_owned())), folder, settings)
    }

    /// The room of the data folder `folder`, as `volume` tells it.
    pub fn on(volume: Box<dyn Volume>, folder: &Path, settings: SpaceSettings) -> Self {
        let disk = Disk { folder: folder.to_owned(), volume, settings };
        Self { disks: vec![disk], settings, ballast: Mutex::default() }
    }

    /// The same with the site in the folder `site`, if that lies on another disk. Blocks.
    #[must_use]
    pub fn with_site(self, site: &Path) -> Self {
        let device = |folder: &Path| std::fs::metadata(folder).ok().map(|found| found.dev());
        let is_other = |disk: &Disk| device(&disk.folder) != device(site);
        if self.disks.iter().all(is_other) {
            self.and(Box::new(FolderVolume(site.to_owned())), site)
        } else {
            self
        }
    }

    /// The same with the disk that `folder` is on, as `volume` tells its room.
    #[must_use]
    pub fn and(mut self, volume: Box<dyn Volume>, folder: &Path) -> Self {
        self.disks.push(Disk { folder: folder.to_owned(), volume, settings: self.settings });
        self
    }

    /// Room without end, for repositories that lie in memory: nothing is refused, and nothing held.
    pub fn unlimited() -> Self {
        let settings = SpaceSettings { ballast: Amount::Bytes(0), refuse_below: Amount::Bytes(0) };
        Self { disks: Vec::new(), settings, ballast: Mutex::default() }
    }

    /// The first disk that has little room, and how much that is.
    fn short(&self) -> Option<(&Disk, Room)> {
        let is_low = |(disk, room): &(&Disk, Room)| disk.level(*room) == Level::Low;
        self.disks.iter().filter_map(|disk| Some((disk, disk.room()?))).find(is_low)
    }
}

impl Disk {
    /// How much room there is. `None`, and a line in the log, if the disk does not tell: then nothing is
    /// refused here, and whatever writes finds out.
    fn room(&self) -> Option<Room> {
        let room = self.volume.room();
        room.inspect_err(
            |error| tracing::warn!(%error, folder = %self.folder.display(), "the free space cannot be determined"),
        )
        .ok()
    }

    fn refuse_below(&self, room: Room) -> u64 {
        match self.settings.refuse_below {
            Amount::Bytes(given) => given,
            Amount::OfDisk => (room.total_bytes / 20).clamp(REFUSE_MIN, REFUSE_MAX),
        }
    }

    /// How many files a push must leave room for.
    fn refuse_below_files(room: Room) -> u64 {
        let none = room.total_files == 0;
        if none { 0 } else { (room.total_files / 100).clamp(REFUSE_FILES_MIN, REFUSE_FILES_MAX) }
    }

    fn level(&self, room: Room) -> Level {
        let has_files = room.free_files >= Self::refuse_below_files(room);
        if room.free_bytes < self.refuse_below(room) || !has_files { Level::Low } else { Level::Enough }
    }

    /// What is left and what must be, for people.
    fn figures(&self, room: Room) -> String {
        let kept = Self::refuse_below_files(room);
        if room.free_files < kept {
            return format!(
                "{} has room for {} more files, and {kept} are reserved",
                self.folder.display(),
                room.free_files
            );
        }
        let (free, kept) = (mib(room.free_bytes), mib(self.refuse_below(room)));
        format!("{} has {free} free, and {kept} are reserved", self.folder.display())
    }

    /// What the alarm says. Without what is free now: a row that changed with it would be written again and again.
    fn message(&self, room: Room) -> String {
        let kept_files = Self::refuse_below_files(room);
        let short = match room.free_files < kept_files {
            true => format!("room for less than {kept_files} more files"),
            false => format!("less than {} free", mib(self.refuse_below(room))),
        };
        format!("{} has {short}: new pushes are refused; {WAY_OUT}", self.folder.display())
    }

    /// Under this, a collector is given the ballast.
    fn release_below(&self, room: Room) -> u64 {
        (self.refuse_below(room) / 2).max(COLLECTOR_ROOM)
    }

    /// How long the ballast should be, now that it is `held_bytes` long.
    ///
    /// It only grows into room that is there, and never so far that pushes would be refused. It only
    /// shrinks when less is asked for: little room is what it is held for.
    fn ballast_len(&self, room: Room, held_bytes: u64) -> u64 {
        let asked = match self.settings.ballast {
            Amount::Bytes(given) => given,
            Amount::OfDisk => (room.total_bytes / 100).clamp(BALLAST_MIN, BALLAST_MAX),
        };
        let free = room.free_bytes.saturating_add(held_bytes);
        let spare = free.saturating_sub(self.refuse_below(room));
        asked.min((free / 10).min(spare).max(held_bytes))
    }

    fn ballast_path(&self) -> PathBuf {
        self.folder.join(BALLAST)
    }

    /// How long the ballast is; 0 if there is none.
    fn held_bytes(&self) -> u64 {
        let found = std::fs::symlink_metadata(self.ballast_path());
        found.ok().filter(std::fs::Metadata::is_file).map_or(0, |found| found.len())
    }
}

/// Refuses a new session if a disk has little room, or less than its client expects to send. Blocks.
///
/// # Errors
/// [`ServerError::Full`], with the folder, what is free, what must be, and the way out.
pub(crate) fn admit(repository: &Repository, expected_bytes: Option<u64>) -> Result<(), ServerError> {
    let refuse = |what: String| Err(ServerError::Full { what: format!("{what}: {WAY_OUT}") });
    let space = &repository.parts.space;
    let short = space.short();
    show(repository, short.as_ref())?;
    if let Some((disk, room)) = short {
        return refuse(disk.figures(room));
    }
    // What is sent goes to the site.
    let Some((disk, room)) = space.disks.last().and_then(|disk| Some((disk, disk.room()?))) else {
        return Ok(());
    };
    match expected_bytes {
        Some(expected) if expected > room.free_bytes.saturating_sub(disk.refuse_below(room)) => {
            refuse(format!("{}, and this push expects to send {}", disk.figures(room), mib(expected)))
        }
        _ => Ok(()),
    }
}

/// Looks how much room there is, and raises or clears the alarm. Blocks.
///
/// # Errors
/// [`ServerError`] if the alarm cannot be read, or written for another reason than the full disk.
pub(crate) fn look(repository: &Repository) -> Result<Level, ServerError> {
    let space = &repository.parts.space;
    if !space.disks.is_empty() && space.disks.iter().all(|disk| disk.room().is_none()) {
        return Ok(Level::Enough);
    }
    let short = space.short();
    show(repository, short.as_ref())?;
    Ok(short.map_or(Level::Enough, |_| Level::Low))
}

/// What operators are to be told of the disks at this moment, if one has little room: on a full one the alarm
/// cannot even be written.
pub(crate) fn low_now(repository: &Repository) -> Option<String> {
    repository.parts.space.short().map(|(disk, room)| disk.message(room))
}

fn show(repository: &Repository, short: Option<&(&Disk, Room)>) -> Result<(), ServerError> {
    let shown = match short {
        None => alarm::clear(repository, AlarmCode::LowSpace),
        Some((disk, room)) => alarm::raise(repository, AlarmCode::LowSpace, &disk.message(*room)),
    };
    match shown {
        // An alarm about a full disk needs room as well: `low_now` and the refusals tell of it too.
        Err(ServerError::Full { what }) => tracing::warn!(what, "the low_space alarm could not be stored"),
        shown => shown?,
    }
    Ok(())
}

/// Gives the room of each nearly full disk's ballast to a collector, and returns how many bytes that is. 0 if there
/// is room enough, or no ballast that could be deleted. A name is gone for good when this returns. Blocks.
///
/// # Errors
/// [`ServerError::Halted`] if a disk failed in a way that makes it unsafe to go on.
pub fn release_ballast(repository: &Repository) -> Result<u64, ServerError> {
    let space = &repository.parts.space;
    let _changing = lock(&space.ballast);
    let mut released = 0;
    for disk in &space.disks {
        released += release(repository, disk)?;
    }
    Ok(released)
}

fn release(repository: &Repository, disk: &Disk) -> Result<u64, ServerError> {
    let held = disk.held_bytes();
    let is_short = |room: Room| room.free_bytes < disk.release_below(room);
    if held == 0 || !disk.room().is_some_and(is_short) {
        return Ok(0);
    }
    let (name, folder): (FileName, _) = (BALLAST.parse().expect("a plain name"), disk.folder.display());
    match durable::remove(&RealDisk, &disk.folder, &name) {
        Ok(_) => {
            tracing::warn!(bytes = held, %folder, "the disk is nearly full: released the ballast for the collector");
            Ok(held)
        }
        Err(error) if error.is_fatal() => {
            repository.halt(&error);
            Err(ServerError::Halted)
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), %folder, "the ballast could not be released");
            Ok(0)
        }
    }
}

/// Does what frees room later and needs a little of it now; with the room of the ballast, if there is none
/// otherwise. Blocks.
///
/// # Errors
/// Those of `work`, and of [`release_ballast`].
pub(crate) fn with_ballast<T>(
    repository: &Repository,
    work: impl Fn() -> Result<T, ServerError>,
) -> Result<T, ServerError> {
    match work() {
        Err(ServerError::Full { .. }) if release_ballast(repository)? > 0 => work(),
        done => done,
    }
}

/// Makes the ballast of each disk as long as it should be and as there is room for, and returns how long they are. One
/// that cannot be made is told in the log: all else works without. Blocks.
pub fn restore_ballast(repository: &Repository) -> u64 {
    let space = &repository.parts.space;
    let _changing = lock(&space.ballast);
    space.disks.iter().map(restore).sum()
}

fn restore(disk: &Disk) -> u64 {
    let held = disk.held_bytes();
    let Some(room) = disk.room() else { return held };
    let len = disk.ballast_len(room, held);
    if len == held {
        return held;
    }
    let folder = disk.folder.display();
    match resize(&disk.ballast_path(), held, len) {
        Ok(()) => {
            tracing::info!(bytes = len, %folder, "reserved the ballast, so that gc works on a full disk")
        }
        Err(error) => tracing::warn!(%error, bytes = len, %folder, "the ballast could not be made"),
    }
    disk.held_bytes()
}

/// Gives the file at `path` another length. When it cannot grow, it is as it was.
fn resize(path: &Path, held_bytes: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return std::fs::remove_file(path);
    }
    // NONBLOCK: a pipe that lies under this name must not hang us.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?);
    if len < held_bytes {
        return file.set_len(len);
    }
    let grown = allocate(&mut file, held_bytes, len, Allocate::InOneStep);
    grown.or_else(|error| {
        let undone = if held_bytes == 0 { std::fs::remove_file(path) } else { file.set_len(held_bytes) };
        undone.and(Err(error))
    })
}

/// How room is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allocate {
    /// By a call that writes nothing, where the file system has it.
    InOneStep,
    /// By writing.
    ByWriting,
}

/// Takes the room of the file from `start` to `end`, so that it is really gone from the disk.
fn allocate(file: &mut File, start: u64, end: u64, how: Allocate) -> io::Result<()> {
    if how == Allocate::ByWriting {
        return write_out(file, start, end);
    }
    let taken = retry_on_intr(|| fallocate(&*file, FallocateFlags::empty(), start, end - start));
    match taken {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_out(file, start, end),
        taken => Ok(taken?),
    }
}

/// Writes bytes that no file system can store in less room.
fn write_out(file: &mut File, start: u64, end: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut block = vec![0; 1 << 20];
    getrandom::fill(&mut block).map_err(io::Error::from)?;
    file.seek(SeekFrom::Start(start))?;
    let mut left = end - start;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let piece = block.get(..piece).ok_or(io::ErrorKind::InvalidData)?;
        file.write_all(piece)?;
        left -= u64::try_from(piece.len()).map_err(io::Error::other)?;
    }
    Ok(())
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests;
