//! `rebuild` and `key`: the server's own commands, for those who look for them here.
//!
//! A repository without an index, or without its key, has no server that could be asked, and this program reads no
//! repositories. So it becomes `astacus-server rebuild` or `astacus-server key`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use node_client::output::Output;

use crate::cli::RebuildArguments;
use crate::error::AdminError;

const PROGRAM: &str = "astacus-server";

/// Becomes the server's `rebuild`: its output and its exit code are what the caller gets.
pub(crate) fn run(rebuild: &RebuildArguments, output: Output) -> AdminError {
    let mut command = Command::new(program());
    command.arg("rebuild");
    command.arg("--data-dir").arg(&rebuild.data_dir);
    command.arg("--from-site").arg(&rebuild.from_site);
    command.arg("--keyring").arg(&rebuild.keyring);
    command.args(output.json.then_some("--json")).args(&rebuild.more);
    become_it(command)
}

/// Becomes the server's `key`. A `--json` before the word `key` counts as well.
pub(crate) fn key(arguments: &[OsString], output: Output) -> AdminError {
    let mut command = Command::new(program());
    command.arg("key");
    let (words, program_of_slot) = match arguments.iter().position(|argument| argument == "--") {
        Some(end) => arguments.split_at(end),
        None => (arguments, [].as_slice()),
    };
    let is_missing = output.json && !words.iter().any(|word| word == "--json");
    command.args(words).args(is_missing.then_some("--json")).args(program_of_slot);
    become_it(command)
}

fn become_it(mut command: Command) -> AdminError {
    // Returns only if that cannot be started.
    match command.exec() {
        error if error.kind() == io::ErrorKind::NotFound => AdminError::NoProgram { name: PROGRAM },
        source => AdminError::Start { name: PROGRAM, source },
    }
}

/// The program beside this one; if there is none, the name, to be found in `PATH`.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}
