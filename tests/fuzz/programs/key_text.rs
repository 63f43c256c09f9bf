#![no_main]

fuzz::program!("key_text");
