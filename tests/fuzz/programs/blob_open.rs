#![no_main]

fuzz::program!("blob_open");
