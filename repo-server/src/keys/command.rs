//! The program of a slot: its standard output is the master key.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use format_spec::key::MasterKey;
use format_spec::keyring::KeyCommand;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// Bytes of output that are read: a key has 64 hex digits and a line end.
const OUTPUT_LIMIT: u64 = 128;

/// Why a program did not yield a key. Its output is never shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The program could not be started, or its output not be read.
    #[error("run `{program}`")]
    Io { program: String, source: io::Error },
    /// The program reported a failure.
    #[error("`{program}` ended with {status}")]
    Failed { program: String, status: ExitStatus },
    /// The program took too long, and was killed.
    #[error("`{program}` did not end within {limit:?}")]
    TooSlow { program: String, limit: Duration },
    /// The output is no key.
    #[error("`{program}` did not print a master key: expected 64 hex digits on its standard output")]
    NoKey { program: String },
}

/// Runs the program. It and what it started are killed when its time is over. Its standard error is ours.
pub(super) async fn run(command: &KeyCommand) -> Result<MasterKey, CommandError> {
    let limit = Duration::from_secs(command.time_limit_s);
    run_until(command, limit, tokio::time::sleep(limit)).await
}

/// Like [`run`], where `over` says when the time is over.
pub(super) async fn run_until(
    command: &KeyCommand,
    limit: Duration,
    over: impl Future<Output = ()>,
) -> Result<MasterKey, CommandError> {
    let program = || command.program.clone();
    let failed = |source| CommandError::Io { program: program(), source };
    let mut child = start(command).map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let ended = tokio::select! {
        ended = finish(&mut child) => Some(ended),
        () = over => None,
    };
    if let Some(group) = group {
        // Processes that the command has started must not pile up; usually none are left.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let (status, output) =
        ended.ok_or_else(|| CommandError::TooSlow { program: program(), limit })?.map_err(failed)?;
    if !status.success() {
        return Err(CommandError::Failed { program: program(), status });
    }
    let text = std::str::from_utf8(&output).ok();
    text.and_then(MasterKey::parse).ok_or_else(|| CommandError::NoKey { program: program() })
}

fn start(command: &KeyCommand) -> io::Result<Child> {
    Command::new(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn finish(child: &mut Child) -> io::Result<(ExitStatus, Zeroizing<Vec<u8>>)> {
    let limit = usize::try_from(OUTPUT_LIMIT).unwrap_or(usize::MAX);
    let mut output = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(OUTPUT_LIMIT).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?, output))
}
