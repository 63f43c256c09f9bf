#![no_main]

fuzz::program!("snapshot");
