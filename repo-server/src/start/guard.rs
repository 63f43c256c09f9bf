//! Requirements on a data folder before it is used: the server's user owns it, and it is closed to others.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::process::geteuid;

use super::error::{CreateError, read_error};

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
}
