//! A site by its place: looked into, made, opened. Nobody else knows the folder that a site is in.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::descriptor_object;
use super::url::Kind;
use super::{Site, SiteError, SiteUrl, StoreSite};
use crate::durable::{Disk, FolderError, lock_patiently, probe, settled_folder};

/// The file in the folder of a site that the system's lock is on.
const LOCK: &str = "lock";

/// Answer of the system to who asks for its lock on a site.
#[derive(Debug)]
pub(crate) enum SystemLock {
    /// It is ours as long as the file is open, however this process ends.
    Ours(File),
    /// Another process of this machine has it.
    Taken,
}

impl SiteUrl {
    /// The encoded descriptor of the repository on this site; `None` if no repository was made here, or if the
    /// site itself is missing. Changes nothing, so it may be asked of a place that belongs to somebody else.
    ///
    /// # Errors
    /// [`SiteError`] if the site cannot tell.
    pub(crate) async fn find_descriptor(&self) -> Result<Option<Bytes>, SiteError> {
        let Kind::Folder(path) = &self.0;
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(SiteError::Open { path: path.clone(), source: error.into() }),
        }
        match StoreSite::folder_as_it_is(path)?.get(&descriptor_object()).await {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(SiteError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same site, under the one name that all names of its place lead to. A place that is missing stays as it
    /// was named.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let Kind::Folder(path) = &self.0;
        std::fs::canonicalize(path).map_or_else(|_| self.clone(), Self::from)
    }

    /// Makes the place of the site if it is missing, durably, and refuses one that cannot hold durable objects.
    /// Answers its canonical name. Blocks.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(crate) fn make(&self, disk: &dyn Disk) -> Result<Self, FolderError> {
        let Kind::Folder(path) = &self.0;
        let path = settled_folder(disk, path)?;
        probe(&path)?;
        Ok(path.into())
    }

    /// Opens the site, which must be there, for the one process that writes to it. Blocks.
    ///
    /// # Errors
    /// [`SiteError::Open`] and [`SiteError::Fatal`].
    pub(crate) fn open(&self, disk: Arc<dyn Disk>) -> Result<Arc<dyn Site>, SiteError> {
        let Kind::Folder(path) = &self.0;
        Ok(Arc::new(StoreSite::folder_on(disk, path)?))
    }

    /// Opens the site, which must be there, for a process that only reads. Blocks.
    ///
    /// # Errors
    /// [`SiteError::Open`] and [`SiteError::Fatal`].
    pub(crate) fn open_to_read(&self) -> Result<Arc<dyn Site>, SiteError> {
        let Kind::Folder(path) = &self.0;
        Ok(Arc::new(StoreSite::folder_in_use(path)?))
    }

    /// Asks the system for its lock on the site, which must be there. Blocks for a quarter of a second at most.
    ///
    /// # Errors
    /// The file of the lock could not be opened.
    pub(crate) fn lock_by_system(&self) -> io::Result<SystemLock> {
        let Kind::Folder(path) = &self.0;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        Ok(if lock_patiently(&file).is_ok() { SystemLock::Ours(file) } else { SystemLock::Taken })
    }

    /// A folder on the disk of this machine that the site takes its room from. It is for measuring and holding room,
    /// and not for objects.
    pub(crate) fn folder_on_disk(&self) -> &Path {
        let Kind::Folder(path) = &self.0;
        path
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::durable::RealDisk;

    fn found(place: PathBuf) -> Option<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(SiteUrl::from(place).find_descriptor()).unwrap()
    }

    #[test]
    fn a_look_finds_the_descriptor_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("site");
        std::fs::write(folder.path().join("file"), "x").unwrap();
        for none in [place.clone(), folder.path().join("file"), folder.path().join("file/site")] {
            assert_eq!(found(none), None);
        }
        assert!(!place.exists());

        let url = SiteUrl::from(place.clone()).make(&RealDisk).unwrap();
        assert_eq!(found(place.clone()), None);
        let site = url.open(Arc::new(RealDisk)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(site.put_new(&descriptor_object(), Bytes::from_static(b"d"))).unwrap();
        let half_written = place.join("keyring/.tmp-1");
        std::fs::write(&half_written, "x").unwrap();

        assert_eq!(found(place), Some(Bytes::from_static(b"d")));
        assert!(half_written.exists(), "it may be of a server that runs");
    }

    #[test]
    fn all_names_of_one_place_have_one_canonical_name() {
        let folder = tempfile::tempdir().unwrap();
        let (place, link) = (folder.path().join("site"), folder.path().join("link"));
        std::os::unix::fs::symlink(&place, &link).unwrap();
        let missing = SiteUrl::from(place.clone());
        assert_eq!(missing.canonical(), missing);

        std::fs::create_dir(&place).unwrap();

        assert_eq!(SiteUrl::from(link).canonical(), SiteUrl::from(place).canonical());
    }
}
