//! Signals: which of them stop a program, and which it outlives.

use std::io;
use std::process::exit;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;

use crate::cancel::Cancel;
use crate::error::EXIT_INTERRUPTED;

/// Lets `SIGUSR1` and `SIGUSR2` end nothing, for as long as the process lives.
///
/// # Errors
/// The system refuses to listen to signals.
pub fn outlive_user_signals(runtime: &Handle) -> io::Result<()> {
    let _inside = runtime.enter();
    for unused in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // Once it was listened to, it ends the process no more.
        drop(signal(unused)?);
    }
    Ok(())
}

/// Calls `tell` at each `SIGUSR1`, until the task that is returned is aborted.
///
/// # Errors
/// The system refuses to listen to signals.
pub fn on_user_signal(runtime: &Handle, tell: impl Fn() + Send + 'static) -> io::Result<AbortHandle> {
    let _inside = runtime.enter();
    let mut asked = signal(SignalKind::user_defined1())?;
    let listens = runtime.spawn(async move {
        while asked.recv().await.is_some() {
            tell();
        }
    });
    Ok(listens.abort_handle())
}

/// Sets `cancel` at the first Ctrl-C, termination or hang-up, as of a terminal that was closed. At the second the
/// process ends at once.
///
/// # Errors
/// The system refuses to listen to signals.
pub fn on_interrupt(runtime: &Handle, cancel: Cancel) -> io::Result<()> {
    outlive_user_signals(runtime)?;
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if cancel.is_cancelled() {
                exit(EXIT_INTERRUPTED.into());
            }
            cancel.cancel();
        }
    });
    Ok(())
}
