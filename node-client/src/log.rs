//! The log: warnings on standard error. A program whose log cannot be written continues without it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs to standard error from here on: what `ASTACUS_LOG` chooses (in the syntax of
/// `tracing_subscriber::EnvFilter`), or else `default`.
///
/// # Panics
/// If the process logs already.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env("ASTACUS_LOG").unwrap_or_else(|_| default.into());
    // Told of its own errors, the layer would print them where it could not print, and panic.
    #[expect(clippy::disallowed_methods, reason = "this is the place; errors of the log are dropped")]
    tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
