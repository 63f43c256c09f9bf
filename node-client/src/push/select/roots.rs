//! The folders and files to push, checked and opened before anything is sent.

use std::ffi::{CStr, CString};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use format_spec::EntryPath;
use format_spec::manifest::MAX_ROOTS;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::beneath::open_real;
use crate::error::ClientError;
use crate::push::guest::FOLDER;
use crate::push::pseudo::Pseudo;
use crate::push::second_names::is_frozen;
use crate::push::stat::Stat;

/// Handling of other file systems that are mounted below a root. Those that hold no data, such as procfs, it
/// does not enter in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// It does.
    Enter,
    /// A mount point is an empty folder.
    Skip,
}

/// One folder or file to push. It was opened once, and is reached by that handle whatever becomes of its path.
#[derive(Debug)]
pub(crate) struct Root {
    /// Its path when it was opened, without links in it.
    pub(crate) place: PathBuf,
    /// The same without the leading slash.
    pub(crate) path: EntryPath,
    /// Other named paths that are inside this root, or equal to it: they are pushed as a part of this one.
    pub(crate) covers: Vec<EntryPath>,
    anchor: Anchor,
}

/// The handle by which a root is reached.
#[derive(Debug)]
enum Anchor {
    /// Handle of the folder itself.
    Folder(OwnedFd),
    /// Handle of the folder that contains the file, and its name there.
    File(OwnedFd, CString),
}

/// A root, opened.
pub(crate) enum Opened<'a> {
    /// A folder.
    Folder(OwnedFd),
    /// A file: the folder that contains it, and its name there.
    File(OwnedFd, &'a CStr),
}

impl Root {
    /// A handle of the root.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if the folder was deleted.
    pub(crate) fn open(&self) -> Result<Opened<'_>, Errno> {
        let (Anchor::Folder(handle) | Anchor::File(handle, _)) = &self.anchor;
        let handle = rustix::io::fcntl_dupfd_cloexec(handle, 0)?;
        if Stat::of_file(&handle)?.links == 0 {
            return Err(Errno::NOENT);
        }
        Ok(match &self.anchor {
            Anchor::Folder(_) => Opened::Folder(handle),
            Anchor::File(_, name) => Opened::File(handle, name),
        })
    }

    /// Current stat of the root.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        match &self.anchor {
            Anchor::Folder(handle) => Stat::of_file(handle),
            Anchor::File(within, name) => Stat::of_name(within, name),
        }
    }

    /// The folder itself, or the one that contains the file.
    pub(crate) fn folder(&self) -> &Path {
        match &self.anchor {
            Anchor::Folder(_) => &self.place,
            Anchor::File(..) => self.place.parent().unwrap_or(&self.place),
        }
    }
}

/// The roots that `paths` name, in path order. One that is named twice, or that is inside another, is pushed
/// once, as a part of the other: so the same folders are the same series however they are named.
///
/// # Errors
/// [`ClientError::NotFound`] for one that is not there, [`ClientError::Usage`] for one that is neither folder nor file.
pub(crate) fn check(paths: &[PathBuf]) -> Result<Vec<Root>, ClientError> {
    if paths.is_empty() {
        return Err(ClientError::Usage("give at least one folder to push".to_owned()));
    }
    if paths.len() > MAX_ROOTS {
        return Err(ClientError::Usage(format!("more than {MAX_ROOTS} folders to push were given")));
    }
    let mut roots = paths.iter().map(|path| root(path)).collect::<Result<Vec<_>, _>>()?;
    check_data(&roots, &Pseudo::mounted())?;
    roots.sort_by(|a, b| a.path.cmp(&b.path));
    roots.dedup_by(|inner, outer| {
        let is_in = inner.path.below(&outer.path).is_some();
        if is_in {
            outer.covers.push(inner.path.clone());
        }
        is_in
    });
    Ok(roots)
}

/// Checks that roots hold data: files of procfs and sysfs say lengths that are not theirs, and change as they are read.
///
/// # Errors
/// [`ClientError::Usage`] for one that lies on a view of the kernel.
fn check_data(roots: &[Root], pseudo: &Pseudo) -> Result<(), ClientError> {
    let is_view = |root: &&Root| root.stat().is_ok_and(|stat| pseudo.has(stat.identity.dev));
    match roots.iter().find(is_view) {
        Some(root) => Err(ClientError::Usage(format!(
            "`{}` lies on a file system of the kernel, such as procfs or sysfs, whose files are views and hold no data \
             to push",
            root.place.display()
        ))),
        None => Ok(()),
    }
}

/// Paths of roots.
pub(crate) fn paths_of(roots: &[Root]) -> Vec<EntryPath> {
    roots.iter().map(|root| root.path.clone()).collect()
}

/// The folders that `paths` name, without links in them.
///
/// # Errors
/// [`ClientError::NotFound`] for one that is not there.
pub fn existing(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ClientError> {
    let real = |path: &PathBuf| {
        let missing = |error| ClientError::NotFound(format!("`{}`: {error}", path.display()));
        path.canonicalize().map_err(missing)
    };
    paths.iter().map(real).collect()
}

fn root(path: &Path) -> Result<Root, ClientError> {
    let shown = path.display();
    let disk = |source| ClientError::Disk { action: "open", path: path.to_owned(), source };
    let place = path.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound => ClientError::NotFound(format!("`{shown}` does not exist")),
        _ => disk(error),
    })?;
    let kind = place.symlink_metadata().map_err(disk)?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Err(ClientError::Usage(format!(
            "`{shown}` is neither a folder nor a file: push the folder that holds it"
        )));
    }
    if place.ancestors().any(is_frozen) {
        return Err(ClientError::Usage(format!(
            "`{shown}` is in a folder for temporary hard links of pushes"
        )));
    }
    let entry_path = match place.as_os_str().as_bytes().strip_prefix(b"/") {
        None | Some(b"") => EntryPath::top(),
        Some(below) => EntryPath::new(below.to_vec())
            .map_err(|error| ClientError::Usage(format!("`{shown}` cannot be pushed: {error}")))?,
    };
    // Better said now than by a snapshot with nothing in it.
    let anchor = match (place.parent(), place.file_name()) {
        (Some(within), Some(name)) if kind.is_file() => {
            let within = open_resolved(path, within)?;
            let name = CString::new(name.as_bytes()).map_err(|error| disk(error.into()))?;
            Anchor::File(within, name)
        }
        _ => Anchor::Folder(open_resolved(path, &place)?),
    };
    Ok(Root { place, path: entry_path, covers: Vec::new(), anchor })
}

/// Opens the folder that `named` was resolved to. Somebody who may write to a folder above it could have put a link in its
/// place meanwhile, to get other files into the snapshot under a name that he can ask for.
fn open_resolved(named: &Path, folder: &Path) -> Result<OwnedFd, ClientError> {
    let opened = match open_real(folder, FOLDER | OFlags::NOATIME) {
        Err(Errno::PERM) => open_real(folder, FOLDER),
        opened => opened,
    };
    opened.map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => ClientError::Replaced { path: named.to_owned() },
        error => ClientError::Disk { action: "open", path: folder.to_owned(), source: error.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::second_names::MARK;

    #[test]
    fn views_of_the_kernel_are_no_roots() {
        for view in ["/proc/sys", "/proc/self/status", "/sys"] {
            let refused = check(&[PathBuf::from(view)]).unwrap_err();

            assert_eq!(refused.exit_code(), 2, "{view}: {refused}");
            assert!(refused.to_string().contains("hold no data"), "{refused}");
        }
    }

    #[test]
    fn roots_come_out_whole_and_in_path_order() {
        let temp = tempfile::tempdir().unwrap();
        let [a, b] = ["a-b", "a"].map(|name| temp.path().join(name));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        std::os::unix::fs::symlink(&a, temp.path().join("link")).unwrap();

        let roots = check(&[temp.path().join("link"), temp.path().join("a/../a")]).unwrap();

        let names: Vec<_> = roots.iter().map(|root| root.place.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a", "a-b"]);
        assert!(!roots[0].path.as_bytes().starts_with(b"/"));
    }

    /// C3: between the look at a path and the opening of it, a link took the place of a folder.
    #[test]
    fn a_path_that_was_replaced_by_a_link_is_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("secret/data")).unwrap();
        std::os::unix::fs::symlink("secret", top.join("theirs")).unwrap();
        let (named, resolved) = (top.join("named"), top.join("theirs/data"));

        assert!(open_resolved(&named, &top.join("secret/data")).is_ok());
        let error = open_resolved(&named, &resolved).unwrap_err();

        assert!(matches!(&error, ClientError::Replaced { path } if *path == named), "{error}");
        assert_eq!(error.exit_code(), 11);
    }

    #[test]
    fn a_root_among_second_names_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let within = temp.path().join(".astacus/x-0");
        std::fs::create_dir_all(&within).unwrap();

        assert!(check(std::slice::from_ref(&within)).is_ok(), "without the mark it is data");
        std::fs::write(temp.path().join(".astacus").join(MARK), "").unwrap();
        assert!(matches!(check(&[within]), Err(ClientError::Usage(_))));
    }

    #[test]
    fn roots_that_make_no_sense_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();

        assert!(matches!(check(&[at("gone")]), Err(ClientError::NotFound(_))));
        for paths in [vec![], vec![at("socket")]] {
            assert!(matches!(check(&paths), Err(ClientError::Usage(_))), "{paths:?}");
        }
    }
}
