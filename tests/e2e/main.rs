//! The real programs, end to end.
#![cfg(test)]

mod bad_input;
mod cli;
mod damage;
mod dedup;
mod garbage;
mod json;
mod memory;
mod partial;
mod push_restore;
mod quickstart;
mod server;
mod session;
