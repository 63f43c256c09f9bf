#![no_main]

fuzz::program!("object_name");
