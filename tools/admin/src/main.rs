//! `astacus-admin`: the operator's command line. Parse, run, exit code.

mod alarms;
mod ask;
mod audit;
mod chunk;
mod cli;
mod commands;
mod error;
mod forget;
mod freshness;
mod gc;
mod last;
mod missing;
mod named;
mod node;
mod pack;
mod protect;
mod rebuild;
mod sessions;
mod show;
mod snapshot;
mod stats;
mod status;
mod token;
mod verify;

use std::process::ExitCode;

use node_client::show::arguments;

fn main() -> ExitCode {
    let arguments: cli::Arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let default = if arguments.output.quiet { "error" } else { "warn" };
    node_client::log::start(default);
    match commands::run(&arguments) {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            error.show(arguments.output);
            ExitCode::from(error.exit_code())
        }
    }
}
