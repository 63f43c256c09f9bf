//! Acknowledged data survives every stop and every failure.
#![cfg(test)]

mod bit_flips;
mod client_kill;
mod crash_points;
mod failing_disk;
mod full_disk;
mod full_upkeep;
mod gc_kill;
mod judge;
mod nth_call;
mod nth_failure;
mod power_cut;
mod process;
mod races;
mod rebuild;
mod resume;
mod server_kill;
mod site;
mod site_outage;
mod stopped_client;
mod switch;
mod unsynced;
mod unsynced_node;
