//! The master key of a repository: the slots that open it, and the work of an operator on them.
//!
//! ```text
//! DIR/master.key    the slot `file`: the master key in plain text, mode 0600
//! DIR/keyring.json  all other slots, mode 0600
//! ```
//! The slot `file` exists as long as its file does. A server starts from the first slot that opens without a person:
//! the file, then a passphrase from a file that the service manager provides, then a program. A key on paper is for
//! operators only. Every master key that a slot yields is compared with the descriptor before it is used.
//!
//! A server reads the slots at its start only, so they may be changed while it runs. Commands that change them take
//! turns by a lock on the data folder.

mod command;
mod error;
mod files;
mod open;
mod sheet;
mod work;

pub use error::KeyError;
pub(crate) use files::{KEYRING, MASTER};
pub(crate) use open::open_unattended;
pub use sheet::{Destination, Sheet};
pub use work::{
    Added, Checked, Given, Kept, Listed, NewSlot, PaperSource, Place, Removed, Restored, SlotState, add,
    check, export, list, remove, restore,
};

#[cfg(test)]
mod tests;
