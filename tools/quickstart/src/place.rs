//! Places of the tour: the folder to push, the data folder, and a scratch folder that is removed at the end.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use node_client::error::ClientError;
use tempfile::TempDir;

use crate::error::TourError;

/// Folders that were checked against each other: neither contains the other.
#[derive(Debug)]
pub(crate) struct Places {
    /// The folder to push, without links in its path.
    pub(crate) source: PathBuf,
    /// The data folder, which may not be there yet.
    pub(crate) data: PathBuf,
}

impl Places {
    /// Checks the folders that the user named. Nothing is made.
    ///
    /// # Errors
    /// [`TourError::Nested`]; [`TourError::Client`] if the folder to push is not there, or is none.
    pub(crate) fn new(source: &Path, data: &Path) -> Result<Self, TourError> {
        let shown = source.display();
        let source = source.canonicalize().map_err(|error| match error.kind() {
            ErrorKind::NotFound => ClientError::NotFound(format!("`{shown}` does not exist")),
            _ => ClientError::Disk { action: "open", path: source.to_owned(), source: error },
        })?;
        if !source.is_dir() {
            return Err(ClientError::Usage(format!("`{shown}` is not a folder")).into());
        }
        let data = resolve(data).map_err(disk("look up", data))?;
        let (inner, outer) = if data.starts_with(&source) { (&data, &source) } else { (&source, &data) };
        if inner.starts_with(outer) {
            return Err(TourError::Nested { inner: inner.clone(), outer: outer.clone() });
        }
        Ok(Self { source, data })
    }

    /// Makes a folder beside the data folder, so outside the folder to push and on a disk that the user
    /// chose. Other users cannot read it.
    ///
    /// # Errors
    /// [`TourError::Client`] if it cannot be made.
    pub(crate) fn scratch(&self) -> Result<Scratch, TourError> {
        let parent = self.data.parent().unwrap_or(&self.data);
        let make = || {
            fs::create_dir_all(parent)?;
            tempfile::Builder::new().prefix(".astacus-quickstart-").tempdir_in(parent)
        };
        Ok(Scratch(make().map_err(disk("make a folder in", parent))?))
    }
}

fn disk(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ClientError {
    move |source| ClientError::Disk { action, path: path.to_owned(), source }
}

/// The path without links in it; a missing part is kept as given.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            other => resolved.push(other),
        }
        match resolved.canonicalize() {
            Ok(whole) => resolved = whole,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(resolved)
}

/// A folder that is removed when it is dropped, whatever modes were restored in it.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        open_up(self.0.path());
    }
}

/// Folders without write permission would keep what is in them.
fn open_up(folder: &Path) {
    let opened = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    let Ok(entries) = opened.and_then(|()| fs::read_dir(folder)) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_within_each_other_are_refused_and_nothing_is_made() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();

        for (source, data) in [
            ("a", "a"),
            ("a", "a/new/data"),
            ("a/b", "a"),
            ("a", "link/data"),
            ("link", "a/data"),
            ("a", "gone/../a/data"),
        ] {
            let refused = Places::new(&at(source), &at(data));
            assert!(matches!(refused, Err(TourError::Nested { .. })), "{source} {data}: {refused:?}");
        }
        assert!(Places::new(&at("a"), &at("ab")).is_ok());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_found() {
        let temp = tempfile::tempdir().unwrap();

        let error = Places::new(&temp.path().join("gone"), &temp.path().join("data")).unwrap_err();

        assert_eq!(error.exit_code(), 10);
    }

    #[test]
    fn the_scratch_folder_goes_with_all_that_is_in_it() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("source")).unwrap();
        let places = Places::new(&temp.path().join("source"), &temp.path().join("data")).unwrap();
        let scratch = places.scratch().unwrap();
        let closed = scratch.join("closed");
        fs::create_dir_all(closed.join("inner")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();

        drop(scratch);

        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
