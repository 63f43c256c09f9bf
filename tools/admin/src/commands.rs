//! Runs what the command line asks for.

use std::path::Path;

use clap::CommandFactory;
use format_spec::ErrorClass;
use node_client::api::{Api, Retry};
use node_client::config::Config;
use node_client::error::{ClientError, EXIT_PARTIAL};
use node_client::show::{show, write_out};
use node_client::signals::outlive_user_signals;

use crate::cli::{Arguments, ChunkCommand, Command, PackCommand};
use crate::error::AdminError;
use crate::show::ServerStatus;
use crate::{
    alarms, chunk, forget, freshness, gc, last, pack, protect, rebuild, sessions, snapshot, stats, verify,
};

/// How the thing that was looked at is, or how much of what was asked for is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    Damaged,
    Partial,
    /// Nothing is known to be wrong, and not everything could be looked at.
    Unknown,
}

impl Verdict {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Damaged => ErrorClass::Integrity.exit_code(),
            Self::Partial => EXIT_PARTIAL,
            Self::Unknown => ErrorClass::Unavailable.exit_code(),
        }
    }

    pub(crate) fn is_sound(self) -> bool {
        self == Self::Sound
    }
}

/// Runs it and shows what it found.
///
/// # Errors
/// [`AdminError`]: nothing was shown on standard output then, or not all of it.
pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, AdminError> {
    let output = arguments.output;
    match &arguments.command {
        Command::Completion { shell } => {
            let script = node_client::commands::completion(*shell, Arguments::command(), "astacus-admin");
            write_out(|out| out.write_all(script.as_bytes()))?;
            Ok(Verdict::Sound)
        }
        Command::Man { dir } => manual(dir),
        Command::Pack(PackCommand::Inspect { file, key_file }) => {
            let inspected = pack::inspect(file, key_file.as_deref())?;
            show(&inspected, output)?;
            Ok(inspected.verdict())
        }
        Command::Status { fail_on_alarm } => {
            let status = ask(arguments, async |api| api.status().await)?;
            let is_up = alarms::need_a_look(&status.alarms);
            show(&ServerStatus(status), output)?;
            Ok(if *fail_on_alarm && is_up { Verdict::Partial } else { Verdict::Sound })
        }
        Command::Alarms(alarms) => alarms::run(arguments, alarms),
        Command::Freshness(freshness) => freshness::run(arguments, freshness),
        Command::Last { cluster, max_age } => last::run(arguments, cluster.as_ref(), *max_age),
        Command::Snapshots { cluster, node } => snapshot::list(arguments, cluster.as_ref(), node.as_ref()),
        Command::Show { snapshot, limit } => snapshot::detail(arguments, snapshot, *limit),
        Command::Stats { cluster } => stats::run(arguments, cluster.as_ref()),
        Command::Forget(forget) => forget::run(arguments, forget),
        Command::Undelete { snapshots } => protect::undelete(arguments, snapshots),
        Command::Protect(protect) => protect::protect(arguments, protect),
        Command::Gc(gc) => gc::run(arguments, gc),
        Command::Sessions(sessions) => sessions::run(arguments, sessions),
        Command::Chunk(ChunkCommand::Locate { id }) => chunk::locate(arguments, *id),
        Command::Rebuild(rebuild) => Err(rebuild::run(rebuild, output)),
        Command::Verify(verify) => verify.run(arguments),
        Command::Scrub(asked) => verify::run(arguments, &asked.request()),
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
    let retry = Retry { silence: Some(arguments.connection.timeout.0), ..Retry::default() };
    let api = Api::new(&config.server(), &config.token()?, retry)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ClientError::Thread { name: "network", source })?;
    outlive_user_signals(runtime.handle())
        .map_err(|source| ClientError::Thread { name: "signals", source })?;
    Ok(runtime.block_on(question(api))?)
}
