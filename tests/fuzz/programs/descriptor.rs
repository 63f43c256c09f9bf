#![no_main]

fuzz::program!("descriptor");
