#![no_main]

fuzz::program!("list_file");
