#![no_main]

fuzz::program!("entry_path");
