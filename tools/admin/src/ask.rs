//! Asks the server, and says how what it looked at is.

use std::time::Duration;

use format_spec::ErrorClass;
use node_client::api::{Api, Retry, Step};
use node_client::bar::RunBar;
use node_client::config::Config;
use node_client::error::{ClientError, EXIT_PARTIAL};
use node_client::signals::outlive_user_signals;
use node_client::span::Span;
use tokio::time::Instant;

use crate::cli::{Arguments, Turn};
use crate::error::AdminError;

/// How the thing that was looked at is, or how much of what was asked for is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    Damaged,
    Partial,
    /// No problem is known, but some objects could not be checked.
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

/// Between two questions to a server that is busy.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Returns the answer of `question`. While the server reports that another run is in progress, it is asked
/// again until the wait of `turn` is over.
async fn in_turn<T>(
    turn: Turn,
    mut question: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let Span(patience) = turn.wait.unwrap_or(Span(Duration::ZERO));
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match question().await {
            Err(busy) if busy.code() == Some("busy") && began.elapsed() < patience => {
                if !is_told {
                    tracing::warn!("{busy}: waiting for up to {} s", patience.as_secs());
                    is_told = true;
                }
                let left = patience.saturating_sub(began.elapsed());
                tokio::time::sleep(ASK_AGAIN.min(left)).await;
            }
            done => return done,
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
    let api = Api::with(&config.server(), &config.credentials()?, retry)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ClientError::Thread { name: "network", source })?;
    outlive_user_signals(runtime.handle())
        .map_err(|source| ClientError::Thread { name: "signals", source })?;
    Ok(runtime.block_on(question(api))?)
}

/// Asks the server for a run, whose steps a bar shows. While another run is in progress, it waits as `turn` says.
///
/// # Errors
/// [`AdminError::Client`]: work done before a failure is kept.
pub(crate) fn run<T>(
    arguments: &Arguments,
    turn: Turn,
    run: impl AsyncFn(&Api, &dyn Fn(Step)) -> Result<T, ClientError>,
) -> Result<T, AdminError> {
    ask(arguments, async |api| {
        in_turn(turn, async || {
            let bar = RunBar::start(arguments.output);
            run(&api, &|step| bar.at(step)).await
        })
        .await
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use format_spec::wire::ErrorBody;

    use super::*;

    fn refused(code: &str) -> ClientError {
        let (code, message) = (code.to_owned(), "another run is in progress".to_owned());
        let body = ErrorBody { code, class: ErrorClass::Conflict, message, missing: Vec::new() };
        ClientError::Refused { server: "s".to_owned(), body: Box::new(body) }
    }

    /// How a run ends beside another that takes `busy`, and after how many seconds.
    async fn beside(busy: Duration, wait: Option<Span>, code: &str) -> (Option<u8>, u64) {
        let (began, asked) = (Instant::now(), Cell::new(0));
        let question = async || {
            asked.set(asked.get() + 1);
            if began.elapsed() < busy { Err(refused(code)) } else { Ok(()) }
        };
        let done = in_turn(Turn { wait }, question).await;
        (done.err().map(|error| error.exit_code()), began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_for_another_as_long_as_it_was_told_to() {
        let minute = Duration::from_secs(60);

        assert_eq!(beside(minute, None, "busy").await, (Some(11), 0));
        assert_eq!(beside(minute, Some(Span(minute * 2)), "busy").await, (None, 60));
        assert_eq!(beside(minute, Some(Span(Duration::from_secs(7))), "busy").await, (Some(11), 7));
        assert_eq!(beside(minute, Some(Span(minute * 2)), "session_over").await, (Some(11), 0));
        assert_eq!(beside(Duration::ZERO, Some(Span(minute)), "busy").await, (None, 0));
    }
}
