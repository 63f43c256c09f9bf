//! `rebuild`: the server's own command, for those who look for it here.
//!
//! A repository without an index has no server that could be asked, and this program reads no
//! repositories. So it becomes `astacus-server rebuild`.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use node_client::output::Output;

use crate::cli::RebuildArguments;
use crate::error::AdminError;

const PROGRAM: &str = "astacus-server";

/// Becomes the server's command: its output and its exit code are what the caller gets.
pub(crate) fn run(rebuild: &RebuildArguments, output: Output) -> AdminError {
    let mut command = Command::new(program());
    command.arg("rebuild");
    command.arg("--data-dir").arg(&rebuild.data_dir);
    command.arg("--from-site").arg(&rebuild.from_site);
    command.arg("--keyring").arg(&rebuild.keyring);
    command.args(output.json.then_some("--json")).args(&rebuild.more);
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
