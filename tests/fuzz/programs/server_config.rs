#![no_main]

fuzz::program!("server_config");
