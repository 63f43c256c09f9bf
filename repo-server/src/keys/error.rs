//! Why the master key could not be opened, or its slots not be changed.

use std::io;
use std::path::PathBuf;

use format_spec::keyring::KeyringError;
use format_spec::paper::PaperError;
use format_spec::{ErrorClass, FormatError, SlotName};

use super::command::CommandError;
use crate::durable::DurableError;
use crate::site::SiteError;

/// Why the master key could not be opened, or its slots not be changed. Unless it says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum KeyError {
    /// There is no slot that opens without a person.
    #[error(
        "{} is missing, and no other slot opens without a person: restore it from your copy, or with `astacus-admin key restore` from a recovery sheet",
        path.display()
    )]
    Missing { path: PathBuf },
    /// There is no slot that the given secrets could open.
    #[error("no slot opens with these secrets: pass --passphrase-file or --paper")]
    NoneOpens,
    /// A file that must be there is missing.
    #[error("{} does not exist", path.display())]
    NoFile { path: PathBuf },
    /// There is no descriptor that says which repository this is.
    #[error(
        "{} holds no `repository.json`: pass `--site`, or restore the file from your copy",
        dir.display()
    )]
    NoRepository { dir: PathBuf },
    /// The descriptor cannot be read.
    #[error("read the descriptor of the repository")]
    Descriptor(#[source] FormatError),
    /// A file holds something else than a master key.
    #[error("{} is not a master key", path.display())]
    NoKey { path: PathBuf },
    /// A file holds the master key of another repository.
    #[error("{} is the key of another repository", path.display())]
    OtherKey { path: PathBuf },
    /// A slot yields the master key of another repository.
    #[error("slot `{slot}` yields the key of another repository")]
    OtherSlotKey { slot: SlotName },
    /// The sheet carries the master key of another repository.
    #[error("the sheet carries the key of another repository")]
    OtherSheet,
    /// The typed sheet is not a key.
    #[error("{source_name} is not a whole recovery sheet")]
    Paper {
        source_name: String,
        #[source]
        source: PaperError,
    },
    /// No slot of the keyring belongs to the recovery key on the sheet.
    #[error(
        "the recovery key on the sheet opens no slot of {}: the slot was removed, or the keyring is of another repository",
        keyring.display()
    )]
    NoSlotOfSheet { keyring: PathBuf },
    /// The keyring cannot be used.
    #[error("use {}", path.display())]
    Keyring {
        path: PathBuf,
        #[source]
        source: KeyringError,
    },
    /// The keyring belongs to another repository.
    #[error("{} is the keyring of another repository", path.display())]
    OtherKeyring { path: PathBuf },
    /// The file of a passphrase cannot be used.
    #[error("use the passphrase in {}", path.display())]
    Passphrase {
        path: PathBuf,
        #[source]
        source: KeyringError,
    },
    /// The passphrase opens no slot.
    #[error("the passphrase in {} opens no slot of the keyring", path.display())]
    WrongPassphrase { path: PathBuf },
    /// The program of a slot did not yield a key.
    #[error("open slot `{slot}`")]
    Command {
        slot: SlotName,
        #[source]
        source: CommandError,
    },
    /// A program is not named by an absolute path.
    #[error("`{program}` is not an absolute path: name the program as, for example, /usr/local/bin/unwrap")]
    RelativeProgram { program: String },
    /// Others than its owner may read or write a secret.
    #[error(
        "{} is accessible to other users: run `chmod 600 {}`, and replace the secret if somebody may have read it",
        path.display(), path.display()
    )]
    OpenToOthers { path: PathBuf },
    /// A master key that is another one lies where one would be written.
    #[error("{} exists and is another key: move it away first", path.display())]
    Exists { path: PathBuf },
    /// There is no slot of this name.
    #[error("there is no slot `{slot}`: `astacus-admin key list` lists all slots")]
    NoSlot { slot: SlotName },
    /// No other slot was shown to open without a person.
    #[error(
        "slot `{slot}` is the last slot from which the server can start: add another one first, and pass --passphrase-file if that is a passphrase"
    )]
    Last { slot: SlotName },
    /// Another command changes the slots.
    #[error("another command changes the keys in {}: try again when it has ended", dir.display())]
    Busy { dir: PathBuf },
    /// A file or the standard input could not be read.
    #[error("read {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    /// A file is too long for what it should hold.
    #[error("{name} is longer than {limit} bytes")]
    TooLong { name: String, limit: u64 },
    /// The sheet cannot be written to standard output.
    #[error("write the sheet to standard output")]
    Output(#[source] io::Error),
    /// The sheet would be part of a document for programs.
    #[error("a sheet is for people: pass `--out FILE` together with `--json`")]
    SheetForPrograms,
    /// A file could not be written.
    #[error("write the keys")]
    Write(#[from] DurableError),
    /// The site could not be read.
    #[error("read the site")]
    Site(#[from] SiteError),
}

impl KeyError {
    /// Action that the operator can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::OtherKey { .. }
            | Self::OtherSheet
            | Self::OtherSlotKey { .. }
            | Self::Paper { .. }
            | Self::NoSlotOfSheet { .. }
            | Self::OtherKeyring { .. }
            | Self::Passphrase { .. }
            | Self::RelativeProgram { .. }
            | Self::OpenToOthers { .. }
            | Self::TooLong { .. }
            | Self::SheetForPrograms => ErrorClass::Usage,
            Self::WrongPassphrase { .. } => ErrorClass::Denied,
            Self::Keyring { source, .. } => match source {
                KeyringError::Damaged { .. } => ErrorClass::Integrity,
                _ => ErrorClass::Usage,
            },
            Self::Missing { .. }
            | Self::NoneOpens
            | Self::NoFile { .. }
            | Self::NoRepository { .. }
            | Self::NoSlot { .. } => ErrorClass::NotFound,
            Self::NoKey { .. } | Self::Descriptor(_) => ErrorClass::Integrity,
            Self::Exists { .. }
            | Self::Last { .. }
            | Self::Busy { .. }
            | Self::Write(DurableError::Differs { .. }) => ErrorClass::Conflict,
            Self::Command { .. } | Self::Read { .. } | Self::Output(_) | Self::Write(_) => {
                ErrorClass::Unavailable
            }
            Self::Site(error) => error.class(),
        }
    }
}
