#![no_main]

fuzz::program!("index_rows");
