#![no_main]

fuzz::program!("second_names");
