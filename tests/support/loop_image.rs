//! File systems in image files, and what a power cut at this moment would leave of them.
//!
//! A file system hands to the device below it what was synced, and in its own time the rest. Here the
//! device is a loop device, which puts all it is given into the image file at once. So a copy of that
//! file has what reached the device, and lacks what programs believe to be stored and never synced.
//! A drive that loses its own cache may have less: the copy is the most that a power cut leaves.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::gear;
use crate::wait;
use crate::world::Folder;

/// Large enough for XFS, which is not made smaller than 300 MiB. Nearly all of it is a hole.
const IMAGE_LEN: u64 = 512 << 20;

/// Bytes that are copied and compared at once.
const PIECE_LEN: u64 = 1 << 20;

/// Prefix of the names of the folders at which images are mounted. The number of the process follows.
const MOUNT_PREFIX: &str = "astacus-loop-";

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, with nothing written back by a timer for five minutes.
    Ext4,
    /// The same, with folders that can take names for one which differ in case only (`chattr +F`).
    Ext4Folding,
    /// XFS.
    Xfs,
}

impl FileSystem {
    fn program(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Folding => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    /// No work is left for the kernel to do in the background later.
    fn make_options(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
            Self::Ext4Folding => &["-q", "-F", "-m", "0", "-O", "casefold"],
            Self::Xfs => &["-q", "-K"],
        }
    }

    /// A commit by the clock would hide a missing sync; a copy has the same id as what it was made of.
    fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Folding => "loop,commit=300",
            Self::Xfs => "loop,nouuid",
        }
    }
}

/// A mounted file system in an image file; both are gone when it is dropped.
#[derive(Debug)]
pub struct LoopImage {
    kind: FileSystem,
    file: PathBuf,
    at: PathBuf,
}

impl LoopImage {
    /// Makes an empty one in `folder`, and mounts it. `None`, said aloud, where that cannot be done.
    ///
    /// # Panics
    /// If the image cannot be made.
    pub fn make(kind: FileSystem, folder: &Folder, name: &str) -> Option<Self> {
        Self::make_of(IMAGE_LEN, kind, folder, name)
    }

    /// The same with an image of `len` bytes, nearly all of it a hole.
    ///
    /// # Panics
    /// If the image cannot be made.
    pub fn make_of(len: u64, kind: FileSystem, folder: &Folder, name: &str) -> Option<Self> {
        if !gear::is_root() {
            gear::skip("only root can mount an image");
            return None;
        }
        if !gear::has(kind.program()) {
            return None;
        }
        unmount_leftovers();
        let file = folder.path(&format!("{name}.image"));
        let sparse = File::create(&file).and_then(|image| image.set_len(len));
        sparse.expect("a sparse file takes no room");
        let made = Command::new(kind.program()).args(kind.make_options()).arg(&file).output();
        let made = made.expect("a program that is installed can be started");
        assert!(made.status.success(), "no file system in {}: {made:?}", file.display());
        match Self::mount(kind, file, folder, name) {
            Ok(image) => Some(image),
            // A loop device is the kernel's to give: nobody can install one.
            Err(why) => {
                gear::skip(&format!("no image can be mounted here: {}", why.trim_end()));
                None
            }
        }
    }

    fn mount(kind: FileSystem, file: PathBuf, folder: &Folder, name: &str) -> Result<Self, String> {
        let at = mount_point(folder, name);
        let mut mount = Command::new("mount");
        mount.args(["-o", kind.mount_options()]).arg(&file).arg(&at);
        let mounted = mount.output().map_err(|error| error.to_string())?;
        if mounted.status.success() {
            keep_syncs_off_the_host(&at);
            return Ok(Self { kind, file, at });
        }
        Err(String::from_utf8_lossy(&mounted.stderr).into_owned())
    }

    /// Mount point of the image.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// State after a power cut at this moment, mounted beside it: the journal was replayed.
    ///
    /// Writers should stand still; the kernel's own writes meanwhile do no harm.
    ///
    /// # Panics
    /// If the image never stands still, or what is left of it cannot be mounted.
    pub fn after_a_power_cut(&self, folder: &Folder, name: &str) -> Self {
        let file = folder.path(&format!("{name}.image"));
        copy_of_a_moment(&self.file, &file);
        let mounted = Self::mount(self.kind, file, folder, name);
        mounted.unwrap_or_else(|why| panic!("{:?} does not survive a power cut: {why}", self.kind))
    }
}

impl Drop for LoopImage {
    fn drop(&mut self) {
        // With the mount goes the loop device. Who still has a file open must not keep it from going.
        if !unmount(&self.at, &[]) {
            unmount(&self.at, &["--lazy"]);
        }
        // It goes with its folder at the latest.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A new folder to mount something at: should this process be killed, the next that makes an image unmounts it.
pub fn mount_point(folder: &Folder, name: &str) -> PathBuf {
    folder.dir(&format!("{MOUNT_PREFIX}{}-{name}", std::process::id()))
}

/// Declares the device of the file system at `at` to be one without a cache of its own. So the kernel has
/// nothing to flush below it, and no sync within the image waits for the disk of the host: what the device
/// was given is in the image file, which is all that a copy needs.
fn keep_syncs_off_the_host(at: &Path) {
    let device = std::fs::metadata(at).expect("it is mounted").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // Without this setting the results are the same, and the test takes longer.
    let _ = std::fs::write(format!("/sys/dev/block/{major}:{minor}/queue/write_cache"), "write through");
}

fn unmount(at: &Path, options: &[&str]) -> bool {
    let done = Command::new("umount").args(options).arg(at).output();
    done.is_ok_and(|done| done.status.success())
}

/// Unmounts what a run that was killed has left mounted.
fn unmount_leftovers() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| is_leftover(at)) {
        // No file of a new run is there; the image may stay mounted.
        unmount(Path::new(at), &["--lazy"]);
    }
}

/// True if an image is mounted at `at` by a dead process.
fn is_leftover(at: &str) -> bool {
    let name = at.rsplit('/').next().and_then(|name| name.strip_prefix(MOUNT_PREFIX));
    let owner = name.and_then(|name| name.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists())
}

/// Copies the file `from` as it is at one moment.
///
/// The kernel may write to it while it is copied. So all of it is read again after the last byte was
/// copied: if nothing has changed, the copy is what was there between the two readings.
fn copy_of_a_moment(from: &Path, to: &Path) {
    wait::for_state("an image to stand still", || {
        let from = open(from);
        let to = create(to, from.metadata().expect("an open file").len());
        copy_extents(&from, &to);
        is_same(&from, &to).then_some(())
    });
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

/// An empty file as long as an image.
fn create(path: &Path, len: u64) -> File {
    let file = File::options().create(true).truncate(true).read(true).write(true).open(path);
    let file = file.unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
    file.set_len(len).expect("a sparse file takes no room");
    file
}

fn copy_extents(from: &File, to: &File) {
    for piece in pieces(from) {
        to.write_all_at(&read(from, &piece), piece.start).expect("there is room for an image");
    }
}

fn is_same(left: &File, right: &File) -> bool {
    [left, right].into_iter().flat_map(pieces).all(|piece| read(left, &piece) == read(right, &piece))
}

fn read(file: &File, piece: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(piece.end - piece.start).expect("a piece is short")];
    file.read_exact_at(&mut bytes, piece.start).expect("an image can be read");
    bytes
}

/// Where the file has data, cut into pieces.
fn pieces(file: &File) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(start) = found(seek(file, SeekFrom::Data(at))) {
        let end = found(seek(file, SeekFrom::Hole(start)))
            .unwrap_or_else(|| file.metadata().expect("an open file").len());
        let mut rest = start;
        while rest < end {
            let next = end.min(rest + PIECE_LEN);
            pieces.push(rest..next);
            rest = next;
        }
        at = end;
    }
    pieces
}

/// `None` behind the last data.
fn found(at: Result<u64, Errno>) -> Option<u64> {
    match at {
        Err(Errno::NXIO) => None,
        at => Some(at.expect("an image can be searched")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_a_change_of_one_is_seen() {
        let folder = Folder::new();
        let (from, to) = (folder.path("from"), folder.path("to"));
        let image = create(&from, IMAGE_LEN);
        for at in [0, 5 << 20, IMAGE_LEN - 3] {
            image.write_all_at(b"abc", at).unwrap();
        }

        copy_of_a_moment(&from, &to);

        let copy = open(&to);
        assert_eq!(read(&copy, &(IMAGE_LEN - 3..IMAGE_LEN)), b"abc");
        assert!(is_same(&image, &copy));
        image.write_all_at(b"b", 5 << 20).unwrap();
        assert!(!is_same(&image, &copy));
        copy_of_a_moment(&from, &to);
        image.write_all_at(b"x", 300 << 20).unwrap();
        assert!(!is_same(&image, &copy), "data where the copy has a hole");
        assert!(gear::allocated(&to) < 4 * PIECE_LEN, "holes were filled");
    }

    #[test]
    fn only_what_a_process_that_is_gone_has_mounted_is_a_leftover() {
        let at = |owner: u32| format!("/tmp/x/{MOUNT_PREFIX}{owner}-name");

        assert!(is_leftover(&at(u32::MAX)));
        assert!(!is_leftover(&at(std::process::id())));
        assert!(!is_leftover("/tmp/x/disk") && !is_leftover(&format!("/{MOUNT_PREFIX}x")));
    }
}
