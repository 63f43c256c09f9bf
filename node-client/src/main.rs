//! `astacus-client`: parse, run, exit code.

use std::process::ExitCode;

use node_client::cli::Arguments;
use node_client::restore::Ended;
use node_client::show::{arguments, show_error};

fn main() -> ExitCode {
    let arguments: Arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let default = if arguments.output.quiet { "error" } else { "warn" };
    node_client::log::start(default);
    match node_client::commands::run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(Ended { error, report }) => {
            show_error(&error, report.as_deref(), arguments.output);
            ExitCode::from(error.exit_code())
        }
    }
}
