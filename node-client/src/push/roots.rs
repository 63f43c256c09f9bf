//! The folders to push, checked before anything is sent.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use format_spec::EntryPath;
use format_spec::manifest::MAX_ROOTS;

use super::freeze::{BASE_NAME, FreezeMode, FreezeOptions, MARK, Unfrozen};
use crate::error::ClientError;

/// One folder to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// Where it lies, without links in it.
    pub(crate) folder: PathBuf,
    /// The same without the leading slash.
    pub(crate) path: EntryPath,
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
    // Better said now than by a snapshot with nothing in it.
    folder.read_dir().map_err(|source| ClientError::Disk { action: "open", path: folder.clone(), source })?;
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
    Ok(Root { folder, path })
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
