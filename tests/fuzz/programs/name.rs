#![no_main]

fuzz::program!("name");
