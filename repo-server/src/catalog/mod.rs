//! The rows of the index: who writes which, and how.

mod intent;
pub(crate) mod ledger;
pub(crate) mod lost_pages;

pub(crate) use intent::{Flight, InFlight, take_back};
