//! Moments in milliseconds since 1970: for people, and for what is due.

use std::time::Duration;

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    timestamp(unix_ms).to_string()
}

/// The moment for people, or the last one that can be written down.
pub(crate) fn timestamp(unix_ms: u64) -> jiff::Timestamp {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::MAX)
}

/// The time `delay` after `unix_ms`.
pub(crate) fn later(unix_ms: u64, delay: Duration) -> u64 {
    unix_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}
