#![no_main]

fuzz::program!("client_config");
