//! Moments in milliseconds since 1970: for people, and for what is due.

use std::time::Duration;

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// So long after `unix_ms`.
pub(crate) fn later(unix_ms: u64, delay: Duration) -> u64 {
    unix_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}
