#![no_main]

fuzz::program!("id_text");
