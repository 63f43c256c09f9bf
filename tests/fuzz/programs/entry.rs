#![no_main]

fuzz::program!("entry");
