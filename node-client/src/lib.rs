//! The thin client that runs on every database node.
//!
//! | module | what it promises |
//! |---|---|
//! | [`push`] | folders become a snapshot; only what is new is read and sent |
//! | [`restore`] | a snapshot becomes files again, every byte checked |
//! | [`api`] | the only client of the server's HTTP interface |
//! [`error`] | errors, and their exit codes |
//! | [`cancel`] | one switch that ends a push |
//! | [`clock`] | time as an argument |
//! | [`rate`], [`span`], [`priority`] | how a push steps back behind other work |
//! | [`size`] | bytes as they are named on a command line |
//! | [`progress`] | who wants to know how far a push is |
//! | [`cli`], [`config`], [`jobs`] | what can be asked for, and where settings come from |
//! | [`list`], [`named`] | which snapshots are listed, and how one is named |
//! | [`summary`] | how good a snapshot is, in a few words |
//! | [`output`] | how much is said, and to whom |
//! | [`commands`], [`show`], [`bar`] | the program around the library |
//!
//! `state` keeps the last push, so that an unchanged tree costs one walk; `identity` has the facts of one file that both
//! compare. `docs/architecture.md` draws the floors.

pub mod api;
pub mod bar;
mod beneath;
pub mod cancel;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod credentials;
mod durable;
pub mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod globs;
mod identity;
pub mod jobs;
mod leftover;
pub mod list;
pub mod log;
pub mod named;
pub mod output;
mod pace;
pub mod priority;
pub mod progress;
pub mod push;
pub mod rate;
pub mod restore;
pub mod show;
pub mod signals;
pub mod size;
pub mod span;
mod state;
pub mod summary;
mod twin;
