#![no_main]

fuzz::program!("class_rule");
