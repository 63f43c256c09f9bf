//! A rate as it is named on a command line: bytes per second.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Suffixes and what they stand for, the largest first.
const UNITS: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// Bytes per second.
///
/// Its text is a whole number, with `K`, `M` or `G` for powers of 1024, in either case; `B` or `iB`
/// may follow these. It is shown with the largest suffix that leaves a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

/// Text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a rate: expected bytes per second, above 0 and below 2^64, such as `500000`, `512K` or \
     `10MiB`, where K, M and G are powers of 1024"
)]
pub struct ParseRateError {
    text: String,
}

impl Rate {
    /// A rate of this many bytes per second.
    pub const fn new(bytes_per_second: NonZeroU64) -> Self {
        Self(bytes_per_second)
    }

    /// The bytes per second.
    pub const fn bytes_per_second(self) -> NonZeroU64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        parse(text).map(Self).ok_or_else(|| ParseRateError { text: text.to_owned() })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0.get())
    }
}

/// Writes bytes with the largest suffix that leaves a whole number.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    match UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit)) {
        Some((suffix, unit)) => write!(f, "{}{suffix}", bytes / unit),
        None => write!(f, "{bytes}"),
    }
}

/// The bytes that a text names; `None` if it is no number of them, or zero.
pub(crate) fn parse(text: &str) -> Option<NonZeroU64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = unit(text.strip_prefix(digits)?)?;
    // `u64` would take a plus sign as well.
    let count: u64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?.parse().ok()?;
    NonZeroU64::new(count.checked_mul(unit)?)
}

/// Value of a suffix.
fn unit(suffix: &str) -> Option<u64> {
    let mut letters = suffix.chars();
    let Some(first) = letters.next() else { return Some(1) };
    let (_, unit) = UNITS.into_iter().find(|(letter, _)| letter.eq_ignore_ascii_case(&first))?;
    let rest = letters.as_str();
    ["", "B", "iB"].iter().any(|tail| tail.eq_ignore_ascii_case(rest)).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<Rate>().unwrap().bytes_per_second().get()
    }

    #[test]
    fn a_plain_number_is_bytes_per_second() {
        assert_eq!(["1", "500000", "0010"].map(bytes), [1, 500_000, 10]);
        assert_eq!(bytes("18446744073709551615"), u64::MAX);
    }

    #[test]
    fn suffixes_are_powers_of_1024_in_either_case_and_with_or_without_b() {
        assert_eq!(["3K", "3k", "3KB", "3kb", "3KiB", "3kib", "3KIB"].map(bytes), [3 << 10; 7]);
        assert_eq!(
            ["512KiB", "10M", "10MiB", "2g", "2GB"].map(bytes),
            [1 << 19, 10 << 20, 10 << 20, 1 << 31, 1 << 31]
        );
    }

    #[test]
    fn what_is_no_rate_is_refused_and_the_text_says_what_is_expected() {
        let none = ["", "0", "0M", "-1", "-1K", "+1", "1.5M", "1,5M", "M", "iB", "ten", "0x10", "٣"];
        let unclear =
            [" 1", "1 ", "1 M", "1T", "1B", "1i", "1iB", "1Ki", "1KiBs", "1MM", "1M1", "1M/s", "M1"];
        let too_large = ["18446744073709551616", "17179869184G", "17179869185G", "99999999999999999999999K"];

        for text in none.iter().chain(&unclear).chain(&too_large) {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not a rate: expected bytes per second")),
                "{error}"
            );
            assert!(error.contains("`10MiB`"), "{error}");
        }
    }

    #[test]
    fn a_rate_is_shown_as_it_may_be_typed() {
        let shown = ["1", "1000", "1024", "1536", "512KiB", "1024k", "10MB", "2048m", "3G"]
            .map(|text| text.parse::<Rate>().unwrap().to_string());

        assert_eq!(shown, ["1", "1000", "1K", "1536", "512K", "1M", "10M", "2G", "3G"]);
    }

    #[test]
    fn what_is_shown_is_the_same_rate() {
        for bytes in [1, 1_023, 1 << 10, 1_025, 5 << 19, 7 << 40, u64::MAX] {
            let rate = Rate::new(NonZeroU64::new(bytes).unwrap());
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
