//! The rows of the index: who writes which, and how.

mod intent;
pub(crate) mod ledger;
pub(crate) mod lost_pages;
mod sums;

pub(crate) use intent::{Flight, InFlight, Landing, publish, take_back};
#[cfg(test)]
pub(crate) use sums::COUNT_EVERY;
pub(crate) use sums::PackSums;
