#![no_main]

fuzz::program!("assemble");
