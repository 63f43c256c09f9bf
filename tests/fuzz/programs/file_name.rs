#![no_main]

fuzz::program!("file_name");
