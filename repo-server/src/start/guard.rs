//! Requirements on a data folder before it is used: the server's user owns it, it is closed to others, and
//! its file system supports durable files.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, fsync, open, renameat_with, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::error::{CreateError, read_error};
use crate::durable::TEMPORARY_PREFIX;

/// Fewest characters of a token: 128 bits in hex digits.
const TOKEN_LEN: usize = 32;

/// Makes the folder `dir` if it is missing, for its owner only. One that is there must be ours, and is left as it is.
///
/// # Errors
/// [`CreateError::OtherOwner`], [`CreateError::Read`].
pub(super) fn own_folder(dir: &Path) -> Result<(), CreateError> {
    let failed = |source| read_error(dir, source);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let found = std::fs::metadata(dir).map_err(failed)?;
    let (owner, us) = (found.uid(), geteuid().as_raw());
    if owner != us {
        return Err(CreateError::OtherOwner { dir: dir.to_owned(), owner, us });
    }
    Ok(())
}

/// Closes our folder `dir` to others than its owner.
///
/// # Errors
/// [`CreateError::Read`].
pub(super) fn close_folder(dir: &Path) -> Result<(), CreateError> {
    let failed = |source| read_error(dir, source);
    if std::fs::metadata(dir).map_err(failed)?.mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).map_err(failed)
}

/// Refuses a secret that others than its owner may read or write. One that is missing is none.
///
/// # Errors
/// [`CreateError::OpenToOthers`], [`CreateError::Read`].
pub(super) fn check_secret(path: &Path) -> Result<(), CreateError> {
    match std::fs::metadata(path) {
        Ok(found) if found.mode() & 0o077 != 0 => Err(CreateError::OpenToOthers { path: path.to_owned() }),
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(read_error(path, source)),
        _ => Ok(()),
    }
}

/// Refuses a token that could be guessed.
///
/// # Errors
/// [`CreateError::ShortToken`].
pub(super) fn check_token(path: &Path, token: &str) -> Result<(), CreateError> {
    if token.trim_end().len() >= TOKEN_LEN {
        return Ok(());
    }
    Err(CreateError::ShortToken { path: path.to_owned() })
}

/// Refuses a folder whose file system cannot rename without replacing, or cannot sync. Other failures (no
/// space, no right to write) are reported by the code that needs it.
///
/// # Errors
/// [`CreateError::FileSystem`]; [`CreateError::Read`] if a sync fails for another reason.
pub(super) fn probe(dir: &Path) -> Result<(), CreateError> {
    let [from, to] = ["probe-1", "probe-2"].map(|name| dir.join(format!("{TEMPORARY_PREFIX}{name}")));
    let tried = try_out(dir, &from, &to);
    for left in [&from, &to] {
        // At most one is there; a start sweeps what a crash leaves.
        let _ = unlinkat(CWD, left, AtFlags::empty());
    }
    match tried {
        Err((lacks, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => {
            Err(CreateError::FileSystem { dir: dir.to_owned(), lacks: lacks.name() })
        }
        // P8: nothing is built on a disk that cannot sync.
        Err((Ability::SyncFile | Ability::SyncFolder, error)) => Err(read_error(dir, error.into())),
        _ => Ok(()),
    }
}

/// Abilities that durable files need.
#[derive(Debug, Clone, Copy)]
enum Ability {
    Create,
    SyncFile,
    RenameNew,
    OpenFolder,
    SyncFolder,
}

impl Ability {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create files",
            Self::SyncFile => "sync a file",
            Self::RenameNew => "rename a file without replacing another",
            Self::OpenFolder => "open a folder",
            Self::SyncFolder => "sync a folder",
        }
    }
}

fn try_out(dir: &Path, from: &Path, to: &Path) -> Result<(), (Ability, Errno)> {
    let of = |lacks: Ability| move |error| (lacks, error);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(from, flags, Mode::RUSR | Mode::WUSR).map_err(of(Ability::Create))?;
    fsync(&file).map_err(of(Ability::SyncFile))?;
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(of(Ability::RenameNew))?;
    let folder = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    fsync(folder.map_err(of(Ability::OpenFolder))?).map_err(of(Ability::SyncFolder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_data_folder_is_closed_to_others_whether_it_was_there_or_not() {
        let scratch = tempfile::tempdir().unwrap();
        let (old, new) = (scratch.path().join("old"), scratch.path().join("a/new"));
        std::fs::create_dir(&old).unwrap();
        mode(&old, 0o777);

        for dir in [&old, &new] {
            own_folder(dir).unwrap();
            close_folder(dir).unwrap();
            assert_eq!(std::fs::metadata(dir).unwrap().mode() & 0o777, 0o700, "{}", dir.display());
        }
    }

    #[test]
    fn a_data_folder_of_another_user_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("theirs");
        own_folder(&dir).unwrap();
        // Only root can give a folder away.
        if std::os::unix::fs::chown(&dir, Some(12_345), None).is_err() {
            return;
        }

        let refused = own_folder(&dir).unwrap_err();

        assert!(matches!(refused, CreateError::OtherOwner { owner: 12_345, .. }), "{refused}");
    }

    #[test]
    fn a_secret_that_others_may_read_or_write_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("secret");
        check_secret(&path).unwrap();
        std::fs::write(&path, "s").unwrap();
        for (bits, is_fine) in [(0o600, true), (0o400, true), (0o640, false), (0o602, false)] {
            mode(&path, bits);
            let refused = matches!(check_secret(&path), Err(CreateError::OpenToOthers { .. }));
            assert_eq!(refused, !is_fine, "{bits:o}");
        }
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused() {
        let path = Path::new("admin.token");
        check_token(path, &"a".repeat(TOKEN_LEN)).unwrap();
        for short in ["", "\n", "one-word\n"] {
            assert!(matches!(check_token(path, short), Err(CreateError::ShortToken { .. })), "{short:?}");
        }
    }

    #[test]
    fn a_probe_of_a_good_file_system_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();

        probe(scratch.path()).unwrap();

        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
