//! The collector's protocol, explored exhaustively: every interleaving of two pushers, one who forgets,
//! the collector, a repack and a crash, within bounds that each run prints. See
//! `docs/adr/0014-garbage-by-counts-and-epochs.md`.
//!
//! Each rule of the protocol is data ([`rules::Rule`]). With all of them every property holds in every state
//! that can be reached; with any one taken away the checker finds a state in which one does not.
#![cfg(test)]

mod client;
mod collector;
mod explore;
mod judge;
mod needed;
mod proof;
mod rules;
mod schedules;
mod state;
mod store;
