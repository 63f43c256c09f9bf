//! Files with secrets, and the keyring's.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::keyring::{self, Keyring, Passphrase};
use zeroize::Zeroizing;

use super::KeyError;
use crate::durable::{self, Disk, FileName, lock_patiently};

/// The file of the slot `file`.
pub(crate) const MASTER: &str = "master.key";

/// The file of all other slots.
pub(crate) const KEYRING: &str = "keyring.json";

/// Longest text of a secret that is read, in bytes.
const SECRET_LIMIT: u64 = 64 << 10;

/// Rights on a file of ours that nobody but its owner may have.
const OURS: u32 = 0o077;

/// Rights on a file that was provided to us: systemd lets the group of a credential read it.
const PROVIDED: u32 = 0o027;

/// The text of a secret, from a file or standard input, wiped when dropped.
pub(super) fn read_text(from: impl Read, name: &str) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Read { name: name.to_owned(), source };
    let limit = usize::try_from(SECRET_LIMIT).unwrap_or(usize::MAX);
    // The capacity is never exceeded, so that no copy is left behind by a text that grew.
    let mut text = Zeroizing::new(String::with_capacity(limit.saturating_add(1)));
    from.take(SECRET_LIMIT + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > limit {
        return Err(KeyError::TooLong { name: name.to_owned(), limit: SECRET_LIMIT });
    }
    Ok(text)
}

/// The text of a file that only its owner may read; `None` if there is no such file.
fn read_secret(path: &Path, refused: u32) -> Result<Option<Zeroizing<String>>, KeyError> {
    let name = path.display().to_string();
    let failed = |source| KeyError::Read { name: name.clone(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.mode() & refused != 0 {
        return Err(KeyError::OpenToOthers { path: path.to_owned() });
    }
    read_text(file, &name).map(Some)
}

/// The master key in a file, which must fit; `None` if there is no such file.
pub(super) fn read_master(path: &Path, descriptor: &Descriptor) -> Result<Option<MasterKey>, KeyError> {
    let Some(text) = read_secret(path, OURS)? else { return Ok(None) };
    let master = MasterKey::parse(&text).ok_or_else(|| KeyError::NoKey { path: path.to_owned() })?;
    if descriptor.fits(&master) {
        Ok(Some(master))
    } else {
        Err(KeyError::OtherKey { path: path.to_owned() })
    }
}

/// The passphrase in a file.
pub(super) fn read_passphrase(path: &Path) -> Result<Passphrase, KeyError> {
    let text = read_secret(path, PROVIDED)?.ok_or_else(|| KeyError::NoFile { path: path.to_owned() })?;
    Passphrase::parse(&text).map_err(|source| KeyError::Passphrase { path: path.to_owned(), source })
}

/// The keyring in the data folder `dir`, which must be of this repository; one without slots if there is none.
pub(super) fn read_keyring(dir: &Path, descriptor: &Descriptor) -> Result<Keyring, KeyError> {
    let path = dir.join(KEYRING);
    let Some(text) = read_secret(&path, OURS).map_err(|error| not_text(error, &path))? else {
        return Ok(Keyring::new(descriptor));
    };
    let keyring = Keyring::decode(text.as_bytes());
    let keyring = keyring.map_err(|source| KeyError::Keyring { path: path.clone(), source })?;
    if keyring.is_of(descriptor) { Ok(keyring) } else { Err(KeyError::OtherKeyring { path }) }
}

/// A keyring that is no text, or too long, is damaged.
fn not_text(error: KeyError, path: &Path) -> KeyError {
    let why = match &error {
        KeyError::TooLong { .. } => format!("it is longer than {} bytes", keyring::MAX_LEN),
        KeyError::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
            "it is not text".to_owned()
        }
        _ => return error,
    };
    KeyError::Keyring { path: path.to_owned(), source: keyring::KeyringError::Damaged { why } }
}

/// Makes `keyring` the keyring of the data folder `dir`, durably. Wherever this is cut, the file holds the old or the
/// new keyring.
pub(super) fn write_keyring(disk: &dyn Disk, dir: &Path, keyring: &Keyring) -> Result<(), KeyError> {
    Ok(durable::replace(disk, dir, &name(KEYRING), &keyring.encode())?)
}

/// Locks the keys in the data folder `dir` until the result is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, KeyError> {
    let failed = |source| KeyError::Read { name: dir.display().to_string(), source };
    let folder = File::open(dir).map_err(failed)?;
    match lock_patiently(&folder) {
        Ok(()) => Ok(folder),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(KeyError::Busy { dir: dir.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

pub(super) fn name(text: &str) -> FileName {
    text.parse().expect("a plain name")
}
