//! Time as an argument, so that tests own it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Wall-clock time in milliseconds since 1970: for people and ids, never for safety.
    fn unix_ms(&self) -> u64;

    /// Time since some fixed moment; it never runs backward.
    fn monotonic(&self) -> Duration;

    /// Like [`monotonic`](Self::monotonic), but it includes the time in which the machine sleeps.
    fn with_sleep(&self) -> Duration {
        self.monotonic()
    }
}

/// The machine's clocks.
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else takes")]
    pub fn new() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else takes")]
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn with_sleep(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(now).unwrap_or_default()
    }
}
