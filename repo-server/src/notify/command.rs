//! A notice given to a program: as JSON on its standard input, and in a few variables of its environment.

use std::process::Stdio;
use std::time::Duration;

use format_spec::notice::Notice;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::Undelivered;
use crate::settings::NotifyCommand;

/// Bytes of each stream of its output that the log gets.
const LOGGED: usize = 2048;

/// Runs the program. It and what it started are killed when their time is over.
///
/// # Errors
/// [`Undelivered`] if it cannot be started, does not end with 0, or not in time.
pub(super) async fn run(
    command: &NotifyCommand,
    within: Duration,
    notice: &Notice,
) -> Result<(), Undelivered> {
    run_until(command, within, tokio::time::sleep(within), notice).await
}

/// Like [`run`], where `over` says when the time is over.
pub(super) async fn run_until(
    command: &NotifyCommand,
    within: Duration,
    over: impl Future<Output = ()>,
    notice: &Notice,
) -> Result<(), Undelivered> {
    let target = || format!("`{}`", command.program);
    let io = |source| Undelivered::Io { target: target(), source };
    let mut child = start(command, notice).map_err(io)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let ended = tokio::select! {
        ended = finish(&mut child, notice) => Some(ended),
        () = over => None,
    };
    if let Some(group) = group {
        // Processes that the command has started must not pile up; usually none are left.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let (status, out, err) =
        ended.ok_or_else(|| Undelivered::TooLong { target: target(), within })?.map_err(io)?;
    if !out.is_empty() || !err.is_empty() {
        tracing::info!(program = command.program, out, err, "output of the notice command");
    }
    if status.success() {
        return Ok(());
    }
    Err(Undelivered::Failed { target: target(), what: format!("ended with {status}: {}", err.trim()) })
}

fn start(command: &NotifyCommand, notice: &Notice) -> std::io::Result<Child> {
    Command::new(&command.program)
        .args(&command.arguments)
        .env("ASTACUS_EVENT", notice.event.name())
        .env("ASTACUS_ALARM", &notice.code)
        .env("ASTACUS_SEVERITY", notice.severity.name())
        .env("ASTACUS_SUBJECT", notice.subject.as_deref().unwrap_or_default())
        .env("ASTACUS_MESSAGE", &notice.message)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Gives it the notice, and waits for its end. Returns its status and the beginning of its output.
async fn finish(
    child: &mut Child,
    notice: &Notice,
) -> std::io::Result<(std::process::ExitStatus, String, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let Some(mut stdin) = stdin {
            let mut line = serde_json::to_vec(notice).expect("plain JSON");
            line.push(b'\n');
            // A program need not read it.
            let _ = stdin.write_all(&line).await;
        }
    };
    let (status, (), out, err) = tokio::join!(child.wait(), give, beginning(stdout), beginning(stderr));
    Ok((status?, out, err))
}

/// The beginning of a stream that is read to its end.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(len @ 1..) = stream.read(&mut piece).await {
        let room = LOGGED.saturating_sub(kept.len()).min(len);
        kept.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).into_owned()
}
