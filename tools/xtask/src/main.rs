//! `cargo xtask`: what scripts would do, checked by the compiler.
//!
//! | command | what it checks |
//! |---|---|
//! | `layers` | who may import whom, and which crate only one place may name |
//! | `tidy` | lints in every package, numbers of decisions, listed test modules, invariants with a test |

mod layers;
mod tidy;
mod tree;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use tree::Tree;

const USAGE: &str = "usage: cargo xtask layers|tidy";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let check = match (arguments.next().as_deref(), arguments.next()) {
        (Some("layers"), None) => layers::check,
        (Some("tidy"), None) => tidy::check,
        _ => {
            say(USAGE);
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(check: fn(&Tree) -> Vec<String>) -> Result<ExitCode> {
    let findings = check(&Tree::read()?);
    findings.iter().for_each(|finding| say(finding));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) {
    // Nobody is left to tell when the terminal is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}
