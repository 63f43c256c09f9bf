//! The folders to push, checked before anything is sent.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use format_spec::EntryPath;
use format_spec::manifest::MAX_ROOTS;
use rustix::io::Errno;

use super::freeze::{BASE_NAME, FreezeMode, FreezeOptions, MARK, Unfrozen};
use super::source::FOLDER;
use super::stat::Stat;
use crate::beneath::open_real;
use crate::error::ClientError;

/// One folder to push. It was opened once, and is reached by that handle whatever becomes of its path.
#[derive(Debug)]
pub(crate) struct Root {
    /// Where it lay when it was opened, without links in it.
    pub(crate) folder: PathBuf,
    /// The same without the leading slash.
    pub(crate) path: EntryPath,
    handle: OwnedFd,
}

impl Root {
    /// A handle of the folder itself.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if it was deleted.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let handle = rustix::io::fcntl_dupfd_cloexec(&self.handle, 0)?;
        if Stat::of_file(&handle)?.links == 0 { Err(Errno::NOENT) } else { Ok(handle) }
    }

    /// What it is at this moment.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        Stat::of_file(&self.handle)
    }
}

/// The roots that `paths` name, in path order.
///
/// # Errors
/// [`ClientError::NotFound`] for one that is not there, [`ClientError::Usage`] for one that is no
/// folder, that is given twice, or that lies in another.
pub(crate) fn check(paths: &[PathBuf]) -> Result<Vec<Root>, ClientError> {
    if paths.is_empty() {
        return Err(ClientError::Usage("no folder to push was given".to_owned()));
    }
    if paths.len() > MAX_ROOTS {
        return Err(ClientError::Usage(format!("more than {MAX_ROOTS} folders to push were given")));
    }
    let mut roots = paths.iter().map(|path| root(path)).collect::<Result<Vec<_>, _>>()?;
    roots.sort_by(|a, b| a.path.cmp(&b.path));
    for (outer, inner) in roots.iter().zip(roots.iter().skip(1)) {
        if inner.path.below(&outer.path).is_some() {
            let (outer, inner) = (outer.folder.display(), inner.folder.display());
            return Err(ClientError::Usage(format!(
                "`{inner}` is given twice or lies in `{outer}`: push it once"
            )));
        }
    }
    Ok(roots)
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
    let folder = path.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound => ClientError::NotFound(format!("`{shown}` does not exist")),
        _ => ClientError::Disk { action: "open", path: path.to_owned(), source: error },
    })?;
    if !folder.is_dir() {
        return Err(ClientError::Usage(format!("`{shown}` is not a folder: push the folder that holds it")));
    }
    let handle = open_resolved(path, &folder)?;
    if folder.ancestors().any(is_frozen) {
        return Err(ClientError::Usage(format!(
            "`{shown}` lies where pushes keep their second names of files"
        )));
    }
    let bytes = folder.as_os_str().as_bytes();
    let Some(below @ [_, ..]) = bytes.strip_prefix(b"/") else {
        return Err(ClientError::Usage("`/` cannot be pushed as a whole: name the folders in it".to_owned()));
    };
    let path = EntryPath::new(below.to_vec())
        .map_err(|error| ClientError::Usage(format!("`{shown}` cannot be pushed: {error}")))?;
    Ok(Root { folder, path, handle })
}

/// Opens the folder that `named` was resolved to. Somebody who may write to a folder above it could have put a link in its
/// place meanwhile, to get other files into the snapshot under a name that he can ask for.
fn open_resolved(named: &Path, folder: &Path) -> Result<OwnedFd, ClientError> {
    open_real(folder, FOLDER).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => ClientError::Replaced { path: named.to_owned() },
        error => ClientError::Disk { action: "open", path: folder.to_owned(), source: error.into() },
    })
}

/// Checks how files are to be frozen, and the folder that the user chose for second names.
///
/// # Errors
/// [`ClientError::NotFound`] if it is not there, [`ClientError::Usage`] if it is no folder, or is a root or
/// holds one, or if freezing is both required and switched off.
pub(crate) fn check_freeze_folder(options: &FreezeOptions, roots: &[Root]) -> Result<(), ClientError> {
    if options.mode == FreezeMode::Off && options.unfrozen == Unfrozen::Refused {
        return Err(ClientError::Usage("--require-freeze and --freeze none cannot both be meant".to_owned()));
    }
    let Some(folder) = &options.folder else { return Ok(()) };
    let shown = folder.display();
    let real = folder
        .canonicalize()
        .map_err(|error| ClientError::NotFound(format!("the folder for second names, `{shown}`: {error}")))?;
    if !real.is_dir() {
        return Err(ClientError::Usage(format!("`{shown}` is not a folder to keep second names in")));
    }
    let is_used = real.read_dir().is_ok_and(|mut names| names.next().is_some());
    if is_used && !real.join(MARK).exists() {
        return Err(ClientError::Usage(format!(
            "`{shown}` is not empty: second names need a folder of their own"
        )));
    }
    match roots.iter().find(|root| root.folder.starts_with(&real)) {
        None => Ok(()),
        Some(root) => Err(ClientError::Usage(format!(
            "`{}` lies in the folder for second names, `{shown}`: choose another with --freeze-dir",
            root.folder.display()
        ))),
    }
}

/// Whether this is a folder that a push has made to freeze files in.
fn is_frozen(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == BASE_NAME) && folder.join(MARK).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_come_out_whole_and_in_path_order() {
        let temp = tempfile::tempdir().unwrap();
        let [a, b] = ["a-b", "a"].map(|name| temp.path().join(name));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        std::os::unix::fs::symlink(&a, temp.path().join("link")).unwrap();

        let roots = check(&[temp.path().join("link"), temp.path().join("a/../a")]).unwrap();

        let names: Vec<_> = roots.iter().map(|root| root.folder.file_name().unwrap().to_owned()).collect();
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
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("file"), "").unwrap();

        assert!(matches!(check(&[at("gone")]), Err(ClientError::NotFound(_))));
        for paths in [
            vec![],
            vec![at("file")],
            vec![at("a"), at("a")],
            vec![at("a/b"), at("a")],
            vec![PathBuf::from("/")],
        ] {
            assert!(matches!(check(&paths), Err(ClientError::Usage(_))), "{paths:?}");
        }
    }
}
