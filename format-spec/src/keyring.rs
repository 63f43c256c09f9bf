//! The keyring: slots that open the master key of a repository.
//!
//! A slot holds the master key wrapped with a secret that the slot does not hold, or names a program that prints the
//! master key. `keyring.json` in the data folder is JSON in exactly one form: a decoder refuses bytes that it would
//! not have written, so that no changed byte goes unnoticed. Wrapped keys are bound to the repository and to all
//! fields of their slot.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::aead::{Aead, Engine, NONCE_LEN, TAG_LEN};
use crate::descriptor::Descriptor;
use crate::id::{RepositoryId, SlotName, to_hex};
use crate::key::{MasterKey, RecoveryKey, Secret};

/// Version of the keyring's format.
pub const VERSION: u16 = 1;
/// Longest encoded keyring that is read, in bytes.
pub const MAX_LEN: usize = 64 << 10;
/// Most slots of a keyring.
pub const MAX_SLOTS: usize = 32;
/// Fewest characters of a passphrase that a slot is made with.
pub const MIN_PASSPHRASE: usize = 12;
/// Longest time that the program of a slot may be given, in seconds.
pub const MAX_TIME_LIMIT_S: u64 = 600;

const WRAPPED_LEN: usize = 32 + TAG_LEN;
const SALT_LEN: usize = 32;
const MAX_PASSPHRASE_BYTES: usize = 1024;
const CHECKSUM: &str = "astacus v1 2026 keyring checksum";
const PASSPHRASE: &str = "astacus v1 2026 keyring passphrase";
const RECOVERY: &str = "astacus v1 2026 keyring recovery";
/// Each wrapping key is derived with a random salt and seals one message, so its nonce never repeats.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Why bytes are no keyring, or a slot cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum KeyringError {
    /// The bytes are not as they were written.
    #[error("the keyring is damaged: {why}")]
    Damaged { why: String },
    /// The keyring was written by another version.
    #[error("the keyring has version {found}, but this program reads version {VERSION}")]
    Version { found: u16 },
    /// The parameters of Argon2id are outside of the limits.
    #[error(
        "the Argon2id {parameter} is {found}, and must be from {} to {}",
        limits.0, limits.1
    )]
    Stretch { parameter: &'static str, found: u32, limits: (u32, u32) },
    /// The time limit of a program is outside of the limits.
    #[error("the time limit is {found} seconds, and must be from 1 to {MAX_TIME_LIMIT_S}")]
    TimeLimit { found: u64 },
    /// The passphrase cannot be used.
    #[error("the passphrase is empty, longer than {MAX_PASSPHRASE_BYTES} bytes, or has more than one line")]
    Passphrase,
    /// The passphrase could be guessed.
    #[error("the passphrase has fewer than {MIN_PASSPHRASE} characters: choose a longer one")]
    ShortPassphrase,
    /// A slot of this name is there.
    #[error("the keyring already has a slot `{name}`: choose another name")]
    Taken { name: SlotName },
    /// The keyring is full.
    #[error("the keyring has {MAX_SLOTS} slots, and cannot have more: remove one first")]
    TooMany,
}

/// The secret does not open the slot, or the slot was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret does not open the slot")]
pub struct WrongSecret;

/// A passphrase, wiped when dropped. `Debug` does not print it.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// The passphrase in the text of a file: its only line, without the line end.
    ///
    /// # Errors
    /// [`KeyringError::Passphrase`].
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_usable =
            (1..=MAX_PASSPHRASE_BYTES).contains(&line.len()) && !line.contains(['\n', '\r', '\0']);
        if is_usable { Ok(Self(Zeroizing::new(line.to_owned()))) } else { Err(KeyringError::Passphrase) }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Parameters of Argon2id (RFC 9106), which makes each guess of a passphrase expensive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Memory of one guess, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes of that memory.
    pub lanes: u32,
}

impl Stretch {
    /// The second recommendation of RFC 9106: 64 MiB, 3 passes, 4 lanes.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// The weakest parameters that are taken: 19 MiB and 2 passes (OWASP, "Password Storage Cheat Sheet").
    pub const WEAKEST: Self = Self { memory_kib: 19 << 10, passes: 2, lanes: 1 };
    /// The strongest parameters that are taken: 1 GiB, so that no keyring exhausts the memory of the server.
    pub const STRONGEST: Self = Self { memory_kib: 1 << 20, passes: 32, lanes: 16 };

    fn check(self) -> Result<(), KeyringError> {
        let (least, most) = (Self::WEAKEST, Self::STRONGEST);
        let all = [
            ("memory in KiB", self.memory_kib, least.memory_kib, most.memory_kib),
            ("number of passes", self.passes, least.passes, most.passes),
            ("number of lanes", self.lanes, least.lanes, most.lanes),
        ];
        match all.into_iter().find(|(_, found, least, most)| !(least..=most).contains(&found)) {
            Some((parameter, found, least, most)) => {
                Err(KeyringError::Stretch { parameter, found, limits: (least, most) })
            }
            None => Ok(()),
        }
    }

    fn run(self, passphrase: &Passphrase, salt: &[u8; SALT_LEN]) -> Zeroizing<[u8; 32]> {
        let parameters = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        let argon = argon2::Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            parameters.expect("checked before a slot is made or read"),
        );
        let mut out = Zeroizing::new([0; 32]);
        let done = argon.hash_password_into(passphrase.0.as_bytes(), salt, out.as_mut());
        done.expect("the lengths of passphrase, salt and output are within the limits of Argon2");
        out
    }
}

/// A program that prints the master key as 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCommand {
    /// Absolute path of the program.
    pub program: String,
    /// Its arguments, which must hold no secret.
    pub arguments: Vec<String>,
    /// Seconds after which the program is ended.
    pub time_limit_s: u64,
}

/// The way in which a slot opens the master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Opener {
    /// The master key, wrapped with a passphrase.
    Passphrase {
        /// Parameters of Argon2id.
        stretch: Stretch,
        /// Salt of Argon2id.
        salt: Hex<SALT_LEN>,
        /// The sealed master key.
        wrapped: Hex<WRAPPED_LEN>,
    },
    /// The master key, wrapped with a key on paper.
    Recovery {
        /// Salt of the wrapping key.
        salt: Hex<SALT_LEN>,
        /// The sealed master key.
        wrapped: Hex<WRAPPED_LEN>,
    },
    /// A program that prints the master key.
    Command(KeyCommand),
}

impl Opener {
    /// The kind as it stands in the keyring.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::Recovery { .. } => "recovery",
            Self::Command(_) => "command",
        }
    }
}

/// A slot of a keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name, unique in the keyring.
    pub name: SlotName,
    /// Milliseconds since 1970 when it was made.
    pub created_ms: u64,
    /// The way in which it opens the master key.
    pub opener: Opener,
}

/// Bytes that stand as hex digits in the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("expected {} hex digits", 2 * N)))
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The slots of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    version: u16,
    repository: RepositoryId,
    master_key_fingerprint: String,
    slots: Vec<Slot>,
}

/// The file: the keyring and a checksum of its compact JSON.
#[derive(Serialize, Deserialize)]
struct File {
    keyring: Keyring,
    checksum: String,
}

#[derive(Deserialize)]
struct FileVersion {
    keyring: KeyringVersion,
}

#[derive(Deserialize)]
struct KeyringVersion {
    version: u16,
}

impl Keyring {
    /// A keyring without slots.
    pub fn new(descriptor: &Descriptor) -> Self {
        Self {
            version: VERSION,
            repository: descriptor.repository,
            master_key_fingerprint: descriptor.master_key_fingerprint.clone(),
            slots: Vec::new(),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let plain = serde_json::to_vec(self).expect("a keyring is plain JSON");
        let checksum = to_hex(Secret::derive(CHECKSUM, &[&plain]).bytes());
        let file = File { keyring: self.clone(), checksum };
        let mut text = serde_json::to_vec_pretty(&file).expect("a keyring is plain JSON");
        text.push(b'\n');
        text
    }

    /// The keyring that `bytes` stand for. Every difference from what [`Keyring::encode`] writes is found.
    ///
    /// # Errors
    /// [`KeyringError`]. Parameters outside of the limits are refused here, before any of them is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyringError> {
        let damaged = |why: String| KeyringError::Damaged { why };
        if bytes.len() > MAX_LEN {
            return Err(damaged(format!("it is longer than {MAX_LEN} bytes")));
        }
        let malformed = |error: serde_json::Error| damaged(error.to_string());
        let FileVersion { keyring: KeyringVersion { version } } =
            serde_json::from_slice(bytes).map_err(malformed)?;
        let file: Result<File, _> = serde_json::from_slice(bytes);
        if version != VERSION {
            return Err(KeyringError::Version { found: version });
        }
        let File { keyring, .. } = file.map_err(malformed)?;
        if keyring.encode() != bytes {
            return Err(damaged("its bytes do not match its checksum".to_owned()));
        }
        keyring.check()?;
        Ok(keyring)
    }

    fn check(&self) -> Result<(), KeyringError> {
        if self.slots.len() > MAX_SLOTS {
            return Err(KeyringError::TooMany);
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if self.slots.iter().take(index).any(|earlier| earlier.name == slot.name) {
                return Err(KeyringError::Taken { name: slot.name.clone() });
            }
            check_slot(slot)?;
        }
        Ok(())
    }

    /// True if the keyring is of the repository of `descriptor`.
    pub fn is_of(&self, descriptor: &Descriptor) -> bool {
        self.repository == descriptor.repository
            && self.master_key_fingerprint == descriptor.master_key_fingerprint
    }

    /// Its slots, in the order in which they were added.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Adds a slot.
    ///
    /// # Errors
    /// [`KeyringError`]; nothing was added.
    pub fn add(&mut self, slot: Slot) -> Result<(), KeyringError> {
        if self.slots.iter().any(|other| other.name == slot.name) {
            return Err(KeyringError::Taken { name: slot.name });
        }
        if self.slots.len() >= MAX_SLOTS {
            return Err(KeyringError::TooMany);
        }
        check_slot(&slot)?;
        self.slots.push(slot);
        Ok(())
    }

    /// Removes the slot of this name, if there is one.
    pub fn remove(&mut self, name: &SlotName) -> Option<Slot> {
        let index = self.slots.iter().position(|slot| slot.name == *name)?;
        Some(self.slots.remove(index))
    }

    /// The master key, wrapped with a passphrase. `salt` must be random.
    ///
    /// # Errors
    /// [`KeyringError::Stretch`], [`KeyringError::ShortPassphrase`].
    pub fn wrap_with_passphrase(
        &self,
        name: &SlotName,
        master: &MasterKey,
        passphrase: &Passphrase,
        stretch: Stretch,
        salt: [u8; SALT_LEN],
    ) -> Result<Opener, KeyringError> {
        stretch.check()?;
        if passphrase.0.chars().count() < MIN_PASSPHRASE {
            return Err(KeyringError::ShortPassphrase);
        }
        let key = passphrase_key(passphrase, stretch, &salt);
        let wrapped = Hex(wrap(&key, &self.binding(name, &salt, Some(stretch)), master));
        Ok(Opener::Passphrase { stretch, salt: Hex(salt), wrapped })
    }

    /// The master key, wrapped with a key on paper. `salt` must be random.
    pub fn wrap_with_recovery(
        &self,
        name: &SlotName,
        master: &MasterKey,
        key: &RecoveryKey,
        salt: [u8; SALT_LEN],
    ) -> Opener {
        let wrapped = Hex(wrap(&recovery_key(key, &salt), &self.binding(name, &salt, None), master));
        Opener::Recovery { salt: Hex(salt), wrapped }
    }

    /// The master key in `slot`, if it is a slot of a passphrase and this is the passphrase.
    ///
    /// # Errors
    /// [`WrongSecret`].
    pub fn open_with_passphrase(
        &self,
        slot: &Slot,
        passphrase: &Passphrase,
    ) -> Result<MasterKey, WrongSecret> {
        let Opener::Passphrase { stretch, salt, wrapped } = &slot.opener else { return Err(WrongSecret) };
        stretch.check().map_err(|_| WrongSecret)?;
        let key = passphrase_key(passphrase, *stretch, &salt.0);
        unwrap(&key, &self.binding(&slot.name, &salt.0, Some(*stretch)), &wrapped.0)
    }

    /// The master key in `slot`, if it is a slot of a key on paper and this is the key.
    ///
    /// # Errors
    /// [`WrongSecret`].
    pub fn open_with_recovery(&self, slot: &Slot, key: &RecoveryKey) -> Result<MasterKey, WrongSecret> {
        let Opener::Recovery { salt, wrapped } = &slot.opener else { return Err(WrongSecret) };
        unwrap(&recovery_key(key, &salt.0), &self.binding(&slot.name, &salt.0, None), &wrapped.0)
    }

    /// Authenticated data of a wrapped key: the repository and all fields of the slot. Zeros stand for the
    /// parameters of a key on paper, which has none.
    fn binding(&self, name: &SlotName, salt: &[u8; SALT_LEN], stretch: Option<Stretch>) -> Vec<u8> {
        let Stretch { memory_kib, passes, lanes } =
            stretch.unwrap_or(Stretch { memory_kib: 0, passes: 0, lanes: 0 });
        let mut bound = self.repository.as_bytes().to_vec();
        bound.extend(salt);
        [memory_kib, passes, lanes].iter().for_each(|number| bound.extend(number.to_le_bytes()));
        bound.extend(self.master_key_fingerprint.as_bytes());
        bound.extend(name.as_str().as_bytes());
        bound
    }
}

fn check_slot(slot: &Slot) -> Result<(), KeyringError> {
    match &slot.opener {
        Opener::Passphrase { stretch, .. } => stretch.check(),
        Opener::Recovery { .. } => Ok(()),
        Opener::Command(KeyCommand { time_limit_s, .. }) => {
            let is_within = (1..=MAX_TIME_LIMIT_S).contains(time_limit_s);
            if is_within { Ok(()) } else { Err(KeyringError::TimeLimit { found: *time_limit_s }) }
        }
    }
}

fn passphrase_key(passphrase: &Passphrase, stretch: Stretch, salt: &[u8; SALT_LEN]) -> Secret {
    Secret::derive(PASSPHRASE, &[stretch.run(passphrase, salt).as_ref()])
}

fn recovery_key(key: &RecoveryKey, salt: &[u8; SALT_LEN]) -> Secret {
    Secret::derive(RECOVERY, &[key.bytes(), salt])
}

fn wrap(key: &Secret, bound: &[u8], master: &MasterKey) -> [u8; WRAPPED_LEN] {
    let mut wrapped = [0; WRAPPED_LEN];
    let (sealed, end) = wrapped.split_at_mut(32);
    sealed.copy_from_slice(master.bytes());
    let tag = Engine::seal(key.bytes(), &NONCE, bound, sealed);
    end.copy_from_slice(&tag);
    wrapped
}

fn unwrap(key: &Secret, bound: &[u8], wrapped: &[u8; WRAPPED_LEN]) -> Result<MasterKey, WrongSecret> {
    let (sealed, tag) = wrapped.split_first_chunk::<32>().ok_or(WrongSecret)?;
    let tag: &[u8; TAG_LEN] = tag.try_into().map_err(|_| WrongSecret)?;
    let mut plain = Zeroizing::new(*sealed);
    Engine::open(key.bytes(), &NONCE, bound, plain.as_mut(), tag).map_err(|_| WrongSecret)?;
    Ok(MasterKey::from_bytes(*plain))
}

#[cfg(test)]
mod tests;
