//! Opening the master key without a person.

use std::path::Path;

use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::keyring::{Keyring, Opener, Passphrase, Slot};

use super::files::{MASTER, read_keyring, read_master, read_passphrase};
use super::{KeyError, command};
use crate::error::Chain;

/// The master key from the first slot that opens: `master.key`, then the passphrase in a file, then a program.
///
/// A slot that fails is logged if a later one opens.
///
/// # Errors
/// [`KeyError`] of the first slot that failed; [`KeyError::Missing`] if there was none to try.
pub(crate) async fn open_unattended(
    dir: &Path,
    descriptor: &Descriptor,
    passphrase_file: Option<&Path>,
) -> Result<MasterKey, KeyError> {
    let mut failures = Vec::new();
    match try_all(dir, descriptor, passphrase_file, &mut failures).await {
        Some(master) => {
            for failure in &failures {
                tracing::warn!(
                    error = %Chain(failure),
                    "a slot of the master key does not open, another one does: run `astacus-admin key check`"
                );
            }
            Ok(master)
        }
        None => {
            Err(failures.into_iter().next().unwrap_or_else(|| KeyError::Missing { path: dir.join(MASTER) }))
        }
    }
}

async fn try_all(
    dir: &Path,
    descriptor: &Descriptor,
    passphrase_file: Option<&Path>,
    failures: &mut Vec<KeyError>,
) -> Option<MasterKey> {
    let keyring = note(read_keyring(dir, descriptor), failures);
    if let Some(master) = note(read_master(&dir.join(MASTER), descriptor), failures).flatten() {
        return Some(master);
    }
    let keyring = keyring?;
    if let Some(path) = passphrase_file
        && let Some(master) = note(with_passphrase_file(&keyring, descriptor, path), failures)
    {
        return Some(master);
    }
    for slot in keyring.slots().iter().filter(|slot| matches!(slot.opener, Opener::Command(_))) {
        if let Some(master) = note(with_command(slot, descriptor).await, failures) {
            return Some(master);
        }
    }
    None
}

fn note<T>(opened: Result<T, KeyError>, failures: &mut Vec<KeyError>) -> Option<T> {
    opened.map_err(|error| failures.push(error)).ok()
}

/// The master key from any slot that the passphrase in the file `path` opens.
pub(super) fn with_passphrase_file(
    keyring: &Keyring,
    descriptor: &Descriptor,
    path: &Path,
) -> Result<MasterKey, KeyError> {
    let passphrase = read_passphrase(path)?;
    let opened =
        keyring.slots().iter().find_map(|slot| with_passphrase(keyring, slot, descriptor, &passphrase));
    opened.ok_or_else(|| KeyError::WrongPassphrase { path: path.to_owned() })
}

/// The master key in `slot`, if the passphrase opens it.
pub(super) fn with_passphrase(
    keyring: &Keyring,
    slot: &Slot,
    descriptor: &Descriptor,
    passphrase: &Passphrase,
) -> Option<MasterKey> {
    keyring.open_with_passphrase(slot, passphrase).ok().filter(|master| descriptor.fits(master))
}

/// The master key that the program of `slot` prints.
pub(super) async fn with_command(slot: &Slot, descriptor: &Descriptor) -> Result<MasterKey, KeyError> {
    let Opener::Command(program) = &slot.opener else {
        return Err(KeyError::NoSlot { slot: slot.name.clone() });
    };
    let opened = command::run(program).await;
    let master = opened.map_err(|source| KeyError::Command { slot: slot.name.clone(), source })?;
    if descriptor.fits(&master) {
        Ok(master)
    } else {
        Err(KeyError::OtherSlotKey { slot: slot.name.clone() })
    }
}
