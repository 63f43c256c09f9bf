//! The log: warnings on standard error. A program whose log cannot be written continues without it.

use std::ffi::OsStr;
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
        .with_ansi(has_colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()))
        .with_target(false)
        .init();
}

/// True if lines are coloured: on a terminal, unless `NO_COLOR` is set to anything.
fn has_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_on_a_terminal_unless_that_is_not_wanted() {
        assert!(has_colours(true, None) && has_colours(true, Some(OsStr::new(""))));
        assert!(!has_colours(true, Some(OsStr::new("1"))) && !has_colours(false, None));
    }
}
