#![no_main]

fuzz::program!("number_text");
