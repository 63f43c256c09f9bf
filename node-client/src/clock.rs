//! Time as an argument, so that tests need no waiting.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use format_spec::Timestamp;

/// Source of the current time.
pub trait Clock: Send + Sync {
    /// Time of day, as the file system writes it into its timestamps.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never runs backward.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The clock; [`elapsed`](Clock::elapsed) counts from here.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        // A clock before 1970 makes every file look new: nothing is reused, which is safe.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
