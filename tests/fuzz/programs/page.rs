#![no_main]

fuzz::program!("page");
