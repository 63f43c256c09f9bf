//! The real programs, end to end.
#![cfg(test)]

mod attacks;
mod audit;
mod bad_input;
mod changes;
mod cli;
mod damage;
mod dedup;
mod freeze;
mod garbage;
mod heal;
mod in_flight;
mod jobs;
mod json;
mod memory;
mod objects;
mod output;
mod partial;
mod push_restore;
mod put_back;
mod quickstart;
mod rebuild;
mod reflink;
mod restore;
mod retention;
mod scrub;
mod select;
mod series;
mod server;
mod session;
mod site;
mod streams;
mod two_nodes;
mod upkeep;
mod watch;
