//! Patience: only failures that may pass are retried, for a limited time, and the user is told which server
//! is waited for.

use std::time::Duration;

use format_spec::ErrorClass;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::span::Span;

/// Time without a byte from the server after which the user is told.
pub(super) const TELL_AFTER: Duration = Duration::from_secs(5);

/// Between two attempts there is no more time than this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a server is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Time for which a request is retried after the first failure, with a server that answered before.
    pub patience: Duration,
    /// The same for one that has never answered, since its address may be wrong, and for a refusal that may pass.
    pub short_patience: Duration,
    /// Wait before the second attempt; doubles each time, up to ten seconds.
    pub first_wait: Duration,
    /// How long a request may stay without any answer before the connection is given up; without it, for ever.
    pub silence: Option<Duration>,
}

impl Default for Retry {
    /// Five minutes, as a server takes that is upgraded; six seconds for one that has never answered.
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5 * 60),
            short_patience: Duration::from_secs(6),
            first_wait: Duration::from_millis(200),
            silence: None,
        }
    }
}

impl Retry {
    /// Sends each request once.
    pub fn once() -> Self {
        Self { patience: Duration::ZERO, short_patience: Duration::ZERO, ..Self::default() }
    }

    /// The user's choice of `--retry-for` applies from the first request on.
    pub fn asked(asked: Option<Span>) -> Self {
        match asked {
            None => Self::default(),
            Some(Span(patience)) => Self { patience, short_patience: patience, ..Self::default() },
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, or patience is over.
    pub(super) async fn run<T, F>(
        &self,
        has_answered: impl Fn() -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let (mut began, mut wait, mut attempts, mut is_told) = (None, self.first_wait, 0, false);
        loop {
            attempts += 1;
            let error = match attempt().await {
                Err(error) if error.class() == ErrorClass::Unavailable => error,
                done => return done,
            };
            let is_gone = matches!(error, ClientError::Unreachable { .. });
            let patience = if is_gone && has_answered() { self.patience } else { self.short_patience };
            let waited = began.get_or_insert_with(Instant::now).elapsed();
            let left = patience.saturating_sub(waited);
            if left.is_zero() {
                return Err(after(attempts, error));
            }
            if !is_told && waited >= TELL_AFTER {
                is_told = true;
                tracing::warn!("{error}: retrying for up to {} s more", left.as_secs());
            }
            tracing::debug!(%error, ?wait, "request failed, retrying");
            tokio::time::sleep(wait.min(left)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

fn after(attempts: u32, error: ClientError) -> ClientError {
    match error {
        ClientError::Unreachable { server, source, .. } => {
            ClientError::Unreachable { server, attempts, source }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use format_spec::wire::ErrorBody;

    use super::*;

    fn gone() -> ClientError {
        ClientError::Unreachable { server: "s".to_owned(), attempts: 1, source: "gone".into() }
    }

    fn refused(class: ErrorClass) -> ClientError {
        let body = ErrorBody { code: "c".to_owned(), class, message: "m".to_owned(), missing: Vec::new() };
        ClientError::Refused { server: "s".to_owned(), body: Box::new(body) }
    }

    /// How long it is tried, in seconds, and how often.
    async fn tried(has_answered: bool, error: impl Fn() -> ClientError) -> (u64, u32) {
        let (start, attempts) = (Instant::now(), std::cell::Cell::new(0));
        let attempt = || {
            attempts.set(attempts.get() + 1);
            std::future::ready(Err::<(), _>(error()))
        };
        let failed = Retry::default().run(|| has_answered, attempt).await.unwrap_err();
        if let ClientError::Unreachable { attempts: told, .. } = failed {
            assert_eq!(told, attempts.get());
        }
        (start.elapsed().as_secs(), attempts.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_there_is_waited_for_and_an_address_that_never_answered_is_not() {
        assert_eq!(tried(true, gone).await.0, 300);
        assert_eq!(tried(false, gone).await, (6, 6));
        assert_eq!(tried(true, || refused(ErrorClass::Unavailable)).await.0, 6, "a full disk is told soon");
        assert_eq!(tried(true, || refused(ErrorClass::Denied)).await, (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_minute_costs_a_minute() {
        let start = Instant::now();
        let attempt = || {
            let is_back = start.elapsed() >= Duration::from_secs(60);
            std::future::ready(if is_back { Ok(()) } else { Err(gone()) })
        };

        Retry::default().run(|| true, attempt).await.unwrap();

        assert!(start.elapsed() <= Duration::from_secs(70), "{:?}", start.elapsed());
    }

    #[test]
    fn what_is_asked_for_holds_from_the_first_request_on() {
        let asked = Retry::asked(Some(Span(Duration::from_secs(9))));
        assert_eq!((asked.patience, asked.short_patience), (Duration::from_secs(9), Duration::from_secs(9)));
    }
}
