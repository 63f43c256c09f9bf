#![no_main]

fuzz::program!("globs");
