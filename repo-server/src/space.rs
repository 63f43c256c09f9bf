//! Room on the disk of the data folder, and on that of the site if it is another: pushes are refused while some is left,
//! so that what frees room can still work, and a ballast is given up for it when none is.
//!
//! Three marks on each disk, from the top:
//! 1. Less is free than [`refuse_below`](crate::settings::SpaceSettings::refuse_below): no session is
//!    granted, with the reason and the way out (`admit`), and an alarm is raised. All other work continues.
//! 2. Less is free than the index keeps for itself: it refuses commits, reads stay (`index::space`).
//! 3. The collector could not commit, or rewrite a pack: `release_ballast` gives it the space of the
//!    ballast, and `restore_ballast` takes it back once there is enough.
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

use crate::durable::{self, DurableError, FileName, RealDisk};
use crate::error::Chain;
use crate::index;
use crate::settings::{Amount, SpaceSettings};
use crate::site::SiteUrl;
use crate::sync::lock;

/// Name of the ballast in the data folder.
pub const BALLAST: &str = "ballast";

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Free space that a collector needs: the reserve of the index, and two packs to copy into.
pub(crate) const COLLECTOR_ROOM: u64 = index::RESERVE_MIN + 64 * MIB;

/// Least default ballast: with it alone a collector can work.
const BALLAST_MIN: u64 = COLLECTOR_ROOM;
const BALLAST_MAX: u64 = GIB;

/// Bounds of the default threshold below which pushes are refused. An accepted push must not find out half
/// way that the index takes no more commits.
const REFUSE_MIN: u64 = COLLECTOR_ROOM;
const REFUSE_MAX: u64 = 8 * GIB;

/// Bounds of the number of files under which pushes are refused: a hundredth of what there can be.
const REFUSE_FILES_MIN: u64 = 256;
const REFUSE_FILES_MAX: u64 = 100_000;

/// Way out of a full disk.
pub(crate) const WAY_OUT: &str =
    "delete snapshots (astacus-admin forget, then astacus-admin gc --now), or add space to the disk";

/// How much room a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Space that this process may still use.
    pub free_bytes: u64,
    /// Size of the disk.
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
    /// The error of the operating system.
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
    pub(crate) disks: Vec<Disk>,
    settings: SpaceSettings,
    /// Held while a ballast changes.
    ballast: Mutex<()>,
}

/// One disk that a repository lies on, with a ballast of its own.
pub(crate) struct Disk {
    folder: PathBuf,
    volume: Box<dyn Volume>,
    settings: SpaceSettings,
}

/// Space for pushes.
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

    /// The space of the data folder `folder`, measured by `volume`.
    pub fn on(volume: Box<dyn Volume>, folder: &Path, settings: SpaceSettings) -> Self {
        let disk = Disk { folder: folder.to_owned(), volume, settings };
        Self { disks: vec![disk], settings, ballast: Mutex::default() }
    }

    /// The same with the disk of a site, if that is another one. Blocks.
    #[must_use]
    pub(crate) fn with_site(self, site: &SiteUrl) -> Self {
        let site = site.folder_on_disk();
        let device = |folder: &Path| std::fs::metadata(folder).ok().map(|found| found.dev());
        let is_other = |disk: &Disk| device(&disk.folder) != device(site);
        if self.disks.iter().all(is_other) {
            self.and(Box::new(FolderVolume(site.to_owned())), site)
        } else {
            self
        }
    }

    /// Adds the disk of `folder`, measured by `volume`.
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

    /// Releases the space of each nearly full disk's ballast, and returns its bytes. The deletion is durable
    /// when this returns. Blocks.
    ///
    /// # Errors
    /// [`DurableError`] if a disk failed in a way that makes it unsafe to continue.
    pub(crate) fn release_ballast(&self) -> Result<u64, DurableError> {
        let _changing = lock(&self.ballast);
        self.disks.iter().map(release).sum()
    }

    /// Makes the ballast of each disk as long as it should be and as the space allows, and returns the total
    /// length. A failure is only logged. Blocks.
    pub(crate) fn restore_ballast(&self) -> u64 {
        let _changing = lock(&self.ballast);
        self.disks.iter().map(restore).sum()
    }

    /// The first disk that has little room, and how much that is.
    pub(crate) fn short(&self) -> Option<(&Disk, Room)> {
        let is_low = |(disk, room): &(&Disk, Room)| disk.level(*room) == Level::Low;
        self.disks.iter().filter_map(|disk| Some((disk, disk.room()?))).find(is_low)
    }
}

impl Disk {
    /// How much room there is. `None`, and a line in the log, if the disk does not tell: then nothing is
    /// refused here, and whatever writes finds out.
    pub(crate) fn room(&self) -> Option<Room> {
        let room = self.volume.room();
        room.inspect_err(
            |error| tracing::warn!(%error, folder = %self.folder.display(), "the free space cannot be determined"),
        )
        .ok()
    }

    pub(crate) fn refuse_below(&self, room: Room) -> u64 {
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

    pub(crate) fn level(&self, room: Room) -> Level {
        let has_files = room.free_files >= Self::refuse_below_files(room);
        if room.free_bytes < self.refuse_below(room) || !has_files { Level::Low } else { Level::Enough }
    }

    /// Free and required space, for people.
    pub(crate) fn figures(&self, room: Room) -> String {
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

    /// Message of the alarm. Without what is free now: a row that changed with it would be written again and
    /// again.
    pub(crate) fn message(&self, room: Room) -> String {
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
    pub(crate) fn ballast_len(&self, room: Room, held_bytes: u64) -> u64 {
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

fn release(disk: &Disk) -> Result<u64, DurableError> {
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
        Err(error) if error.is_fatal() => Err(error),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), %folder, "the ballast could not be released");
            Ok(0)
        }
    }
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
pub(crate) enum Allocate {
    /// One call that writes nothing, if the file system supports it.
    InOneStep,
    /// Writing zeros.
    ByWriting,
}

/// Allocates the space of the file from `start` to `end`, so that it is really taken from the disk.
pub(crate) fn allocate(file: &mut File, start: u64, end: u64, how: Allocate) -> io::Result<()> {
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

pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
