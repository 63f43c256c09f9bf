//! `astacus-quickstart`: a complete backup and restore on this machine, without any setup.
//!
//! It starts a server in this process, pushes a folder, pushes it again, restores it beside the data folder,
//! and compares the two trees. It only connects server and client, which do the work. The pushed folder is
//! read and never written.

mod compare;
mod error;
mod place;
mod report;
mod server;
mod tour;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use repo_server::log::{Format, Log};

/// Back up a folder to a new repository, restore it, and compare the two.
#[derive(Debug, Parser)]
#[command(name = "astacus-quickstart", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Arguments {
    /// Folder to back up; it is never written to.
    path: PathBuf,
    /// Folder of the repository; created if missing, reused if it exists.
    #[arg(long, value_name = "DIR", default_value = "astacus-data")]
    data_dir: PathBuf,
    /// Keep the server running until Ctrl-C.
    #[arg(long)]
    serve: bool,
}

const AFTER_HELP: &str = "\
Exit codes: 0 the restored tree equals the folder · 2 wrong usage · 3 it is equal except for files that
could not be read or that changed · 10 no such folder · 13 it differs · 14 not available ·
130 interrupted";

fn main() -> ExitCode {
    let Arguments { path, data_dir, serve } = Arguments::parse();
    let log = Log::start("warn", Format::Text);
    let after = if serve { tour::After::Serve } else { tour::After::Stop };
    let ended = place::Places::new(&path, &data_dir).and_then(|places| tour::run(&places, after));
    log.flush();
    match ended {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "astacus-quickstart: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}
