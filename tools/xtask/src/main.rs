//! `cargo xtask`: the checks of the source tree, in Rust instead of scripts.
//!
//! | command | what it checks |
//! |---|---|
//! | `layers` | who may import whom, which crate only one place may name, circles of files |
//! | `tidy` | lints in every package, numbers of decisions, listed test modules, invariants with a test, plain English |

mod layers;
mod prose;
mod rooms;
mod tidy;
mod tree;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use tree::Tree;

const USAGE: &str = "usage: cargo xtask layers|tidy";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let check: Check = match (arguments.next().as_deref(), arguments.next()) {
        (Some("layers"), None) => |tree| {
            rooms::summary(tree).iter().for_each(|line| say(line));
            [layers::check(tree), rooms::check(tree)].concat()
        },
        (Some("tidy"), None) => |tree| [tidy::check(tree), prose::check(tree)].concat(),
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

/// Tells findings, one line each.
type Check = fn(&Tree) -> Vec<String>;

fn run(check: Check) -> Result<ExitCode> {
    let findings = check(&Tree::read()?);
    findings.iter().for_each(|finding| say(finding));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) {
    // A closed terminal is ignored.
    let _ = writeln!(std::io::stderr(), "{line}");
}
