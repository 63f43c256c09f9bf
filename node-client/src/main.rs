//! `astacus-client`: parse, run, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use node_client::cli::Arguments;
use node_client::show::{arguments, show_error};

fn main() -> ExitCode {
    let arguments: Arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let default = if arguments.output.quiet { "error" } else { "warn" };
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("ASTACUS_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match node_client::commands::run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            show_error(&error, arguments.output);
            ExitCode::from(error.exit_code())
        }
    }
}
