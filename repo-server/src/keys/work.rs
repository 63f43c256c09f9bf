//! The work of an operator: export, check, restore, list, add and remove.

use std::fs::File;
use std::path::{Path, PathBuf};

use format_spec::descriptor::Descriptor;
use format_spec::key::{MasterKey, RecoveryKey};
use format_spec::keyring::{KeyCommand, Keyring, KeyringError, Opener, Slot, Stretch};
use format_spec::paper::PaperKey;
use format_spec::{RepositoryId, SlotName};
use serde::Serialize;

use super::files::{
    KEYRING, MASTER, lock, name, read_keyring, read_master, read_passphrase, read_text, write_keyring,
};
use super::open::{with_command, with_passphrase, with_passphrase_file};
use super::sheet::{Destination, Sheet};
use super::{KeyError, command};
use crate::clock::Clock;
use crate::durable::{self, Disk, Published};
use crate::error::Chain;
use crate::site::SiteUrl;
use crate::time::rfc3339;

/// The name of the slot that is the file `master.key`.
const FILE_SLOT: &str = "file";

/// The data folder whose keys are worked on, and the outside of it.
pub struct Place<'a> {
    /// Disk of the data folder.
    pub disk: &'a dyn Disk,
    /// The data folder.
    pub dir: PathBuf,
    /// Site to read the descriptor from, instead of the copy in the data folder.
    pub site: Option<SiteUrl>,
    /// Clock.
    pub clock: &'a dyn Clock,
    /// Fills bytes from the operating system's random source.
    pub random: fn(&mut [u8]),
}

/// Secrets that the operator gives to a command.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// File with a passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// Typed or scanned recovery sheet.
    pub paper: Option<PaperSource>,
    /// Copy of `master.key`.
    pub key_file: Option<PathBuf>,
}

/// The place where a typed recovery sheet is.
#[derive(Debug, Clone)]
pub enum PaperSource {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl PaperSource {
    fn read(&self) -> Result<PaperKey, KeyError> {
        let (name, text) = match self {
            Self::Stdin => {
                let name = "standard input".to_owned();
                let text = read_text(std::io::stdin().lock(), &name)?;
                (name, text)
            }
            Self::File(path) => {
                let name = path.display().to_string();
                let failed = |source| KeyError::Read { name: name.clone(), source };
                let text = read_text(File::open(path).map_err(failed)?, &name)?;
                (name, text)
            }
        };
        PaperKey::parse(&text).map_err(|source| KeyError::Paper { source_name: name, source })
    }
}

/// A slot to be added.
#[derive(Debug, Clone)]
pub enum NewSlot {
    /// A slot of a passphrase.
    Passphrase {
        /// File with the new passphrase.
        file: PathBuf,
        /// Parameters of Argon2id.
        stretch: Stretch,
    },
    /// A slot of a random key on paper.
    Recovery(Destination),
    /// A slot of a program.
    Command(KeyCommand),
}

/// A slot in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Name of the slot.
    pub name: String,
    /// Kind of the slot: `file`, `passphrase`, `recovery` or `command`.
    pub kind: &'static str,
    /// Time when it was made, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Memory, passes and lanes of Argon2id, or the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Outcome of a check of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// The slot yields the master key of the repository.
    Opens,
    /// The slot was tried and does not open.
    Fails,
    /// The secret of the slot was not given.
    NotTried,
}

/// Outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Name of the slot, or the sheet or file that was checked.
    pub name: String,
    /// Outcome.
    pub state: SlotState,
    /// The reason for the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Report of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The repository.
    pub repository: RepositoryId,
    /// One line for each thing that was checked.
    pub checked: Vec<Kept>,
}

impl Checked {
    /// True if something opens the repository, and nothing that was tried fails.
    pub fn is_sound(&self) -> bool {
        let has = |state| self.checked.iter().any(|kept| kept.state == state);
        has(SlotState::Opens) && !has(SlotState::Fails)
    }
}

/// Report of an added slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    /// The slot.
    pub added: Listed,
}

/// Report of a removed slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Name of the slot.
    pub removed: String,
    /// The slot that was shown to open without a person.
    pub opens: String,
}

/// Report of a restored `master.key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The file.
    pub path: PathBuf,
    /// True if the file was there already, with this key.
    pub was_there: bool,
}

/// Keys of a repository, as they are on the disk.
struct Keys<'a> {
    place: &'a Place<'a>,
    descriptor: Descriptor,
    keyring: Keyring,
}

impl<'a> Keys<'a> {
    async fn read(place: &'a Place<'a>) -> Result<Self, KeyError> {
        let descriptor = find_descriptor(place).await?;
        let keyring = read_keyring(&place.dir, &descriptor)?;
        Ok(Self { place, descriptor, keyring })
    }

    fn file(&self) -> PathBuf {
        self.place.dir.join(MASTER)
    }

    /// The master key, from the secrets that were given, or else from a slot that needs none.
    async fn open(&self, given: &Given) -> Result<MasterKey, KeyError> {
        if let Some(path) = &given.key_file {
            let read = read_master(path, &self.descriptor)?;
            return read.ok_or_else(|| KeyError::NoFile { path: path.clone() });
        }
        if let Some(paper) = &given.paper {
            return Ok(self.with_paper(&paper.read()?)?.1);
        }
        if let Some(path) = &given.passphrase_file {
            return with_passphrase_file(&self.keyring, &self.descriptor, path);
        }
        if let Some(master) = read_master(&self.file(), &self.descriptor)? {
            return Ok(master);
        }
        let mut failure = KeyError::NoneOpens;
        for slot in self.commands() {
            match with_command(slot, &self.descriptor).await {
                Ok(master) => return Ok(master),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn commands(&self) -> impl Iterator<Item = &Slot> {
        self.keyring.slots().iter().filter(|slot| matches!(slot.opener, Opener::Command(_)))
    }

    /// The master key that a sheet opens, and the slot if the sheet is the key of one.
    fn with_paper(&self, paper: &PaperKey) -> Result<(Option<SlotName>, MasterKey), KeyError> {
        match paper {
            PaperKey::Master(master) if self.descriptor.fits(master) => Ok((None, master.clone())),
            PaperKey::Master(_) => Err(KeyError::OtherSheet),
            PaperKey::Recovery(key) => {
                let opened = self.keyring.slots().iter().find_map(|slot| {
                    let master = self.keyring.open_with_recovery(slot, key).ok()?;
                    self.descriptor.fits(&master).then(|| (Some(slot.name.clone()), master))
                });
                opened.ok_or_else(|| KeyError::NoSlotOfSheet { keyring: self.place.dir.join(KEYRING) })
            }
        }
    }

    /// The outcome of a try of each slot.
    async fn try_all(&self, given: &Given) -> Result<Vec<(SlotName, Kept)>, KeyError> {
        let passphrase = given.passphrase_file.as_deref().map(read_passphrase).transpose()?;
        let mut tried = Vec::new();
        match read_master(&self.file(), &self.descriptor) {
            Ok(None) => {}
            Ok(Some(_)) => tried.push(opens(file_slot())),
            Err(error) => tried.push(fails(file_slot(), Chain(&error).to_string())),
        }
        for slot in self.keyring.slots() {
            let name = slot.name.clone();
            tried.push(match (&slot.opener, &passphrase) {
                (Opener::Command(_), _) => match with_command(slot, &self.descriptor).await {
                    Ok(_) => opens(name),
                    Err(error) => fails(name, Chain(&error).to_string()),
                },
                (Opener::Passphrase { .. }, Some(passphrase)) => {
                    match with_passphrase(&self.keyring, slot, &self.descriptor, passphrase) {
                        Some(_) => opens(name),
                        None => not_tried(name, "this is not its passphrase"),
                    }
                }
                (Opener::Passphrase { .. }, None) => not_tried(name, "pass --passphrase-file"),
                (Opener::Recovery { .. }, _) => not_tried(name, "pass --paper"),
            });
        }
        Ok(tried)
    }
}

fn file_slot() -> SlotName {
    FILE_SLOT.parse().expect("a plain name")
}

fn opens(slot: SlotName) -> (SlotName, Kept) {
    let kept = Kept { name: slot.to_string(), state: SlotState::Opens, why: None };
    (slot, kept)
}

fn fails(slot: SlotName, why: String) -> (SlotName, Kept) {
    let kept = Kept { name: slot.to_string(), state: SlotState::Fails, why: Some(why) };
    (slot, kept)
}

fn not_tried(slot: SlotName, why: &str) -> (SlotName, Kept) {
    let kept = Kept { name: slot.to_string(), state: SlotState::NotTried, why: Some(why.to_owned()) };
    (slot, kept)
}

/// The descriptor of the repository: from the named site, the copy in the data folder, or the site in it.
async fn find_descriptor(place: &Place<'_>) -> Result<Descriptor, KeyError> {
    let copy = place.dir.join("repository.json");
    let found = match &place.site {
        Some(site) => site.find_descriptor().await?.map(Vec::from),
        None => match std::fs::read(&copy) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                SiteUrl::default_in(&place.dir).find_descriptor().await?.map(Vec::from)
            }
            Err(source) => return Err(KeyError::Read { name: copy.display().to_string(), source }),
        },
    };
    let bytes = found.ok_or_else(|| KeyError::NoRepository { dir: place.dir.clone() })?;
    Descriptor::decode(&bytes).map_err(KeyError::Descriptor)
}

/// Writes the recovery sheet of the master key.
///
/// # Errors
/// [`KeyError`].
pub async fn export(place: &Place<'_>, given: &Given, to: &Destination) -> Result<(), KeyError> {
    let keys = Keys::read(place).await?;
    let key = PaperKey::Master(keys.open(given).await?);
    Sheet::of_master(&keys.descriptor, &key, place.clock.unix_ms()).write(to)
}

/// Checks what opens the repository, and changes nothing: a sheet or a copy of `master.key` if one is given, else all
/// slots.
///
/// # Errors
/// [`KeyError`], also if the given sheet or copy is not a key of this repository.
pub async fn check(place: &Place<'_>, given: &Given) -> Result<Checked, KeyError> {
    let keys = Keys::read(place).await?;
    let mut checked = Vec::new();
    let mut opened = |name: String| checked.push(Kept { name, state: SlotState::Opens, why: None });
    if let Some(path) = &given.key_file {
        read_master(path, &keys.descriptor)?.ok_or_else(|| KeyError::NoFile { path: path.clone() })?;
        opened(path.display().to_string());
    }
    if let Some(paper) = &given.paper {
        opened(match keys.with_paper(&paper.read()?)? {
            (Some(slot), _) => format!("sheet of slot `{slot}`"),
            (None, _) => "sheet of the master key".to_owned(),
        });
    }
    if checked.is_empty() {
        checked.extend(keys.try_all(given).await?.into_iter().map(|(_, kept)| kept));
    }
    Ok(Checked { repository: keys.descriptor.repository, checked })
}

/// Makes `master.key` in a data folder that lost it, durably. A file with another key is never replaced.
///
/// # Errors
/// [`KeyError`]; [`KeyError::Exists`] if another key is there.
pub async fn restore(place: &Place<'_>, given: &Given) -> Result<Restored, KeyError> {
    let _turn = lock(&place.dir)?;
    let keys = Keys::read(place).await?;
    let path = keys.file();
    let master = keys.open(given).await?;
    let text = zeroize::Zeroizing::new(master.to_file_text());
    let published = durable::publish(place.disk, &place.dir, &name(MASTER), text.as_bytes());
    match published {
        Ok(published) => Ok(Restored { path, was_there: published == Published::AlreadyThere }),
        Err(durable::DurableError::Differs { .. })
            if matches!(read_master(&path, &keys.descriptor), Ok(Some(_))) =>
        {
            Ok(Restored { path, was_there: true })
        }
        Err(durable::DurableError::Differs { .. }) => Err(KeyError::Exists { path }),
        Err(error) => Err(error.into()),
    }
}

/// Lists all slots.
///
/// # Errors
/// [`KeyError`].
pub async fn list(place: &Place<'_>) -> Result<Vec<Listed>, KeyError> {
    let keys = Keys::read(place).await?;
    let file = keys.file().exists().then(|| Listed {
        name: FILE_SLOT.to_owned(),
        kind: "file",
        created: None,
        detail: Some(keys.file().display().to_string()),
    });
    Ok(file.into_iter().chain(keys.keyring.slots().iter().map(listed)).collect())
}

fn listed(slot: &Slot) -> Listed {
    let detail = match &slot.opener {
        Opener::Passphrase { stretch: Stretch { memory_kib, passes, lanes }, .. } => {
            Some(format!("Argon2id, {} MiB, {passes} passes, {lanes} lanes", memory_kib >> 10))
        }
        Opener::Recovery { .. } => None,
        Opener::Command(KeyCommand { program, time_limit_s, .. }) => {
            Some(format!("{program}, at most {time_limit_s} s"))
        }
    };
    let created = Some(rfc3339(slot.created_ms));
    Listed { name: slot.name.to_string(), kind: slot.opener.kind(), created, detail }
}

/// Adds a slot, after it was shown to open. The sheet of a recovery key is written before the slot is.
///
/// # Errors
/// [`KeyError`]. After an error a sheet that was written opens nothing.
pub async fn add(
    place: &Place<'_>,
    given: &Given,
    slot_name: SlotName,
    new: &NewSlot,
) -> Result<Added, KeyError> {
    let _turn = lock(&place.dir)?;
    let keys = Keys::read(place).await?;
    let of_ring = |source| KeyError::Keyring { path: place.dir.join(KEYRING), source };
    if slot_name == file_slot() {
        return Err(of_ring(KeyringError::Taken { name: slot_name }));
    }
    let master = keys.open(given).await?;
    let mut keyring = keys.keyring.clone();
    let (opener, sheet) = match new {
        NewSlot::Passphrase { file, stretch } => {
            (keys.new_passphrase(&slot_name, &master, file, *stretch)?, None)
        }
        NewSlot::Recovery(to) => {
            let (opener, sheet) = keys.new_recovery(&slot_name, &master)?;
            (opener, Some((sheet, to)))
        }
        NewSlot::Command(program) => (keys.new_command(&slot_name, program).await?, None),
    };
    let slot = Slot { name: slot_name, created_ms: place.clock.unix_ms(), opener };
    let added = listed(&slot);
    keyring.add(slot).map_err(of_ring)?;
    if let Some((sheet, to)) = sheet {
        sheet.write(to)?;
    }
    write_keyring(place.disk, &place.dir, &keyring)?;
    Ok(Added { added })
}

impl Keys<'_> {
    fn salt(&self) -> [u8; 32] {
        let mut salt = [0; 32];
        (self.place.random)(&mut salt);
        salt
    }

    fn new_passphrase(
        &self,
        name: &SlotName,
        master: &MasterKey,
        file: &Path,
        stretch: Stretch,
    ) -> Result<Opener, KeyError> {
        let passphrase = read_passphrase(file)?;
        let made = self.keyring.wrap_with_passphrase(name, master, &passphrase, stretch, self.salt());
        let opener = made.map_err(|source| KeyError::Passphrase { path: file.to_owned(), source })?;
        let slot = Slot { name: name.clone(), created_ms: 0, opener };
        let proof = with_passphrase(&self.keyring, &slot, &self.descriptor, &passphrase);
        proof.ok_or_else(|| KeyError::WrongPassphrase { path: file.to_owned() })?;
        Ok(slot.opener)
    }

    /// A slot of a new random key, and its sheet. The proof takes the key from the lines that the sheet shows.
    fn new_recovery(&self, name: &SlotName, master: &MasterKey) -> Result<(Opener, Sheet), KeyError> {
        let key = RecoveryKey::from_bytes(self.salt());
        let opener = self.keyring.wrap_with_recovery(name, master, &key, self.salt());
        let paper = PaperKey::Recovery(key);
        let unix_ms = self.place.clock.unix_ms();
        let sheet = Sheet::of_slot(&self.descriptor, &paper, unix_ms, name);
        let slot = Slot { name: name.clone(), created_ms: unix_ms, opener };
        let no_proof = || KeyError::NoSlotOfSheet { keyring: self.place.dir.join(KEYRING) };
        let Ok(PaperKey::Recovery(typed)) = PaperKey::parse(sheet.text()) else { return Err(no_proof()) };
        let proof = self.keyring.open_with_recovery(&slot, &typed).map_err(|_| no_proof())?;
        if self.descriptor.fits(&proof) { Ok((slot.opener, sheet)) } else { Err(no_proof()) }
    }

    async fn new_command(&self, name: &SlotName, program: &KeyCommand) -> Result<Opener, KeyError> {
        if !Path::new(&program.program).is_absolute() {
            return Err(KeyError::RelativeProgram { program: program.program.clone() });
        }
        let opened = command::run(program).await;
        let master = opened.map_err(|source| KeyError::Command { slot: name.clone(), source })?;
        if self.descriptor.fits(&master) {
            return Ok(Opener::Command(program.clone()));
        }
        Err(KeyError::OtherSlotKey { slot: name.clone() })
    }
}

/// Removes a slot, durably, after another one was shown to open without a person.
///
/// # Errors
/// [`KeyError`]; [`KeyError::Last`] if no other slot was shown to open.
pub async fn remove(place: &Place<'_>, given: &Given, slot: &SlotName) -> Result<Removed, KeyError> {
    let _turn = lock(&place.dir)?;
    let keys = Keys::read(place).await?;
    let is_file = *slot == file_slot();
    let mut keyring = keys.keyring.clone();
    let is_there = if is_file { keys.file().exists() } else { keyring.remove(slot).is_some() };
    if !is_there {
        return Err(KeyError::NoSlot { slot: slot.clone() });
    }
    let tried = keys.try_all(given).await?;
    let other = tried.into_iter().find(|(name, kept)| name != slot && kept.state == SlotState::Opens);
    let (opens, _) = other.ok_or_else(|| KeyError::Last { slot: slot.clone() })?;
    if is_file {
        durable::remove(place.disk, &place.dir, &name(MASTER))?;
    } else {
        write_keyring(place.disk, &place.dir, &keyring)?;
    }
    Ok(Removed { removed: slot.to_string(), opens: opens.to_string() })
}
