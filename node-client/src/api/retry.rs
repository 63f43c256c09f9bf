//! Back-off by error class: only what may pass by itself is tried again.

use std::time::Duration;

use format_spec::ErrorClass;

use crate::error::ClientError;

/// How often a request is sent, and how long to wait in between.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// How often a request is sent at most.
    pub attempts: u32,
    /// Wait before the second attempt; doubles each time.
    pub first_wait: Duration,
}

impl Default for Retry {
    /// Six attempts over about six seconds: long enough for a server that restarts.
    fn default() -> Self {
        Self { attempts: 6, first_wait: Duration::from_millis(200) }
    }
}

impl Retry {
    /// Runs `attempt` until it succeeds, fails for good, or was tried often enough.
    pub(super) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut wait = self.first_wait;
        for _ in 1..self.attempts {
            match attempt().await {
                Err(error) if error.class() == ErrorClass::Unavailable => {
                    let reason: &dyn std::error::Error = &error;
                    tracing::debug!(reason, ?wait, "request failed, trying again");
                }
                done => return done,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        attempt().await.map_err(|error| self.give_up(error))
    }

    fn give_up(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Unreachable { server, source, .. } => {
                ClientError::Unreachable { server, attempts: self.attempts, source }
            }
            other => other,
        }
    }
}
