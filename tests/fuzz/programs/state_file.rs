#![no_main]

fuzz::program!("state_file");
