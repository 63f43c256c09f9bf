//! The start of a server: the data folder is opened or made, its index is compared with the site, and commits that were
//! interrupted are finished.

pub(crate) mod compare;
mod error;
mod finish;
pub(crate) mod folder;
mod guard;
pub(crate) mod lock;

pub use error::CreateError;
pub use folder::{Opened, check_exists, open_or_create};
