#![no_main]

fuzz::program!("manifest");
