#![no_main]

fuzz::program!("snapshot_choice");
