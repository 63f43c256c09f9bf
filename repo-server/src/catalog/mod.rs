//! The rows of the index that count, and who may write them: the [`ledger`], and a rebuild that fills
//! an index which nobody else uses ([`fill`]). Objects are announced here before they are put on a site.

pub(crate) mod altered;
pub(crate) mod damaged;
pub(crate) mod fill;
mod id_hash;
mod intent;
pub(crate) mod ledger;
pub(crate) mod lost_pages;
pub(crate) mod quarantine;
mod sums;
pub(crate) mod walk;

pub(crate) use intent::{Flight, InFlight, Landing, publish, take_back};
pub(crate) use quarantine::Place;
#[cfg(test)]
pub(crate) use sums::COUNT_EVERY;
pub(crate) use sums::PackSums;
