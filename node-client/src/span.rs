//! A span of time as it is named on a command line.

use std::str::FromStr;
use std::time::Duration;

/// A number of seconds, or of `s`, `m`, `h` or `d`: `90`, `90s`, `10m`, `26h`, `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a time: expected a number of seconds, minutes, hours or days, such as 90s, 10m, 26h or 2d"
)]
pub struct ParseSpanError(String);

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        parse(text).map(Duration::from_secs).map(Self).ok_or_else(|| ParseSpanError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    // `u64` would take a plus sign as well.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unit = match text.strip_prefix(digits)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("26h", 93_600), ("2d", 172_800)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for text in
            ["", "m", "-1", "+1", "1w", "1.5h", "10ms", "99999999999999999999", "9999999999999999999h"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
