#![no_main]

fuzz::program!("wire_frames");
