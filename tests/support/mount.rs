//! Small file systems, where a test may mount them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gear;

/// A file system in memory; gone when it is dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one at the folder `at`, with options such as `size=1m`. `None`, said aloud, where nothing
    /// can be mounted.
    pub fn mount(at: PathBuf, options: &str) -> Option<Self> {
        if !gear::is_root() {
            gear::skip("only root can mount a small file system");
            return None;
        }
        let options = format!("mode=0755,{options}");
        if mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &at) {
            return Some(Self(at));
        }
        gear::skip("no small file system can be mounted here");
        None
    }

    /// Path of the mount.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it other options, such as `size=8m`.
    ///
    /// # Panics
    /// If they are refused.
    pub fn resize(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0), "{} stays full", self.0.display());
    }

    /// From now on nothing in it can be changed.
    ///
    /// # Panics
    /// If that is refused.
    pub fn make_read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], &self.0), "{} stays writable", self.0.display());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// A folder that is mounted a second time; no longer when it is dropped.
pub struct Bound(PathBuf);

impl Bound {
    /// Mounts the folder `from` at the folder `at`. `None`, said aloud, where nothing can be mounted.
    ///
    /// # Panics
    /// If `from` is no text.
    pub fn mount(from: &Path, at: PathBuf) -> Option<Self> {
        if !gear::is_root() || !mount(&["--bind", from.to_str().expect("a plain path")], &at) {
            gear::skip("no folder can be mounted a second time here");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// An XFS, whose files can share blocks; gone when it is dropped.
pub struct Xfs(PathBuf);

impl Xfs {
    /// Makes one in the file `image`, and mounts it at the folder `at`. `None`, said aloud, where nothing can be
    /// mounted.
    ///
    /// # Panics
    /// If the image cannot be made, or `mkfs.xfs` is required and missing.
    pub fn mount(image: &Path, at: PathBuf) -> Option<Self> {
        Self::mount_of(image, at, LEAST_XFS_LEN)
    }

    /// The same, of `len` bytes.
    ///
    /// # Panics
    /// Like [`mount`](Self::mount).
    pub fn mount_of(image: &Path, at: PathBuf, len: u64) -> Option<Self> {
        if !gear::is_root() {
            gear::skip("only root can mount a small file system");
            return None;
        }
        if !gear::has("mkfs.xfs") {
            return None;
        }
        let file = std::fs::File::create(image).expect("a temporary folder can be written");
        file.set_len(len).expect("a sparse file takes no room");
        let made = Command::new("mkfs.xfs").arg("-q").arg(image).status();
        assert!(made.is_ok_and(|status| status.success()), "no file system in {}", image.display());
        let image = image.to_str().expect("a plain path");
        if mount(&["-o", "loop", image], &at) {
            return Some(Self(at));
        }
        gear::skip("no loop device can be mounted here");
        None
    }

    /// Path of the mount.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// XFS is not made smaller.
const LEAST_XFS_LEN: u64 = 400 << 20;

fn unmount(at: &Path) {
    // An image that stays mounted goes away with the machine; the test is over.
    let _ = Command::new("umount").arg("--lazy").arg(at).status();
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let mounted = Command::new("mount").args(arguments).arg(at).output();
    mounted.is_ok_and(|done| done.status.success())
}
