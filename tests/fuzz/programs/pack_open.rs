#![no_main]

fuzz::program!("pack_open");
