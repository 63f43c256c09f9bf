//! Stored bytes that are known to be wrong: blobs, whole objects, packs that must be written again.
//!
//! Any read that proves an error writes it down here, and an alarm is up from then on.

pub(crate) mod blobs;
pub(crate) mod census;
mod found;
mod full;
pub(crate) mod objects;
pub(crate) mod packs;

pub(crate) use crate::catalog::walk::{due, walked};
pub(crate) use found::{Unread, blobs, heed, prove, quarantine, twice};
pub(crate) use full::if_there_is_room;
