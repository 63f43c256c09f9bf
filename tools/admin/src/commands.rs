//! Runs what the command line asks for.

use std::path::Path;

use clap::CommandFactory;
use node_client::error::ClientError;
use node_client::show::{show, write_out};

use crate::ask::{Verdict, ask};
use crate::cli::{Arguments, ChunkCommand, Command, PackCommand};
use crate::error::AdminError;
use crate::status::ServerStatus;
use crate::{
    alarms, chunk, forget, freshness, gc, last, node, pack, protect, rebuild, sessions, snapshot, stats,
    token, verify,
};

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
        Command::Snapshots { cluster, node, labels, columns } => {
            snapshot::list(arguments, cluster.as_ref(), node.as_ref(), labels, columns)
        }
        Command::Show { snapshot, limit } => snapshot::detail(arguments, snapshot, *limit),
        Command::Stats { cluster } => stats::run(arguments, cluster.as_ref()),
        Command::Forget(forget) => forget::run(arguments, forget),
        Command::Undelete { snapshots } => protect::undelete(arguments, snapshots),
        Command::Protect(protect) => protect::protect(arguments, protect),
        Command::Gc(gc) => gc::run(arguments, gc),
        Command::Sessions(sessions) => sessions::run(arguments, sessions),
        Command::Node(node) => node::run(arguments, node),
        Command::Token(token) => token::run(arguments, token),
        Command::Chunk(ChunkCommand::Locate { id }) => chunk::locate(arguments, *id),
        Command::Key { arguments } => Err(rebuild::key(arguments, output)),
        Command::Rebuild(rebuild) => Err(rebuild::run(rebuild, output)),
        Command::Verify(asked) => verify::verify(arguments, asked),
        Command::Scrub(asked) => verify::scrub(arguments, asked),
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
