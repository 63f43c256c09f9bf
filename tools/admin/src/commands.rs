//! Runs what the command line asks for.

use std::path::Path;

use clap::CommandFactory;
use format_spec::ErrorClass;
use format_spec::wire::{VerifyLevel, VerifyReport};
use indicatif::{ProgressBar, ProgressStyle};
use node_client::api::{Api, Retry};
use node_client::cli::Output;
use node_client::config::Config;
use node_client::error::ClientError;
use node_client::show::show;

use crate::audit;
use crate::cli::{Arguments, Command, Depth, PackCommand};
use crate::error::AdminError;
use crate::pack;
use crate::show::{ServerStatus, Verified};

/// How the thing that was looked at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    Damaged,
}

impl Verdict {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Damaged => ErrorClass::Integrity.exit_code(),
        }
    }

    pub(crate) fn is_sound(self) -> bool {
        self == Self::Sound
    }
}

/// Runs it and shows what it found.
///
/// # Errors
/// [`AdminError`]: nothing was shown on standard output then.
pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, AdminError> {
    let output = arguments.output;
    match &arguments.command {
        Command::Completion { shell } => {
            let name = "astacus-admin";
            clap_complete::generate(*shell, &mut Arguments::command(), name, &mut std::io::stdout().lock());
            Ok(Verdict::Sound)
        }
        Command::Man { dir } => manual(dir),
        Command::Pack(PackCommand::Inspect { file, key_file }) => {
            let inspected = pack::inspect(file, key_file.as_deref())?;
            show(&inspected, output);
            Ok(inspected.verdict())
        }
        Command::Status => {
            let status = ask(arguments, async |api| api.status().await)?;
            show(&ServerStatus(status), output);
            Ok(Verdict::Sound)
        }
        Command::Snapshots { cluster } => {
            let snapshots = ask(arguments, async |api| api.snapshots(cluster.as_ref()).await)?;
            show(&snapshots, output);
            Ok(Verdict::Sound)
        }
        Command::Verify { level, repair } => {
            let level = match level.depth() {
                Depth::Counts => return audit::run(arguments, *repair),
                Depth::Objects(_) if *repair => return Err(audit::nothing_to_repair()),
                Depth::Objects(level) => level,
            };
            let report = ask(arguments, async |api| verify(&api, level, output).await)?;
            let verified = Verified::new(level, report);
            show(&verified, output);
            Ok(verified.verdict())
        }
    }
}

fn manual(dir: &Path) -> Result<Verdict, AdminError> {
    match clap_mangen::generate_to(Arguments::command(), dir) {
        Ok(()) => Ok(Verdict::Sound),
        Err(source) => {
            Err(ClientError::Disk { action: "write the manual to", path: dir.to_owned(), source }.into())
        }
    }
}

/// Asks the server that the settings name.
pub(crate) fn ask<T>(
    arguments: &Arguments,
    question: impl AsyncFnOnce(Api) -> Result<T, ClientError>,
) -> Result<T, AdminError> {
    let config = Config::load(arguments.connection.settings(), &|name| std::env::var(name).ok())?;
    let api = Api::new(&config.server(), &config.token()?, Retry::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ClientError::Thread { name: "network", source })?;
    Ok(runtime.block_on(question(api))?)
}

async fn verify(api: &Api, level: VerifyLevel, output: Output) -> Result<VerifyReport, ClientError> {
    let bar = bar(output);
    let report = api.verify(level, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let report = report.await;
    bar.finish_and_clear();
    report
}

/// A bar on standard error, which hides itself when that is no terminal.
pub(crate) fn bar(output: Output) -> ProgressBar {
    let bar = if output.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise} left {eta}");
    bar.set_style(style.expect("the template is well-formed"));
    bar
}
