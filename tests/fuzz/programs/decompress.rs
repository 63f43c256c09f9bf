#![no_main]

fuzz::program!("decompress");
