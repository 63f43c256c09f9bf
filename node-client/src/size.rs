//! A size as it is named on a command line: bytes.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::rate;

/// Bytes, written as those of a [`Rate`](rate::Rate): a whole number, with `K`, `M` or `G` for powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(NonZeroU64);

/// Text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a size: expected bytes, above 0 and below 2^64, such as `500000`, `512K` or `10MiB`, where K, M and \
     G are powers of 1024"
)]
pub struct ParseSizeError {
    text: String,
}

impl Size {
    /// A size of this many bytes.
    pub const fn new(bytes: NonZeroU64) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        rate::parse(text).map(Self).ok_or_else(|| ParseSizeError { text: text.to_owned() })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rate::write(f, self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_like_a_rate() {
        assert_eq!("10MiB".parse::<Size>().map(Size::bytes), Ok(10 << 20));
        assert_eq!("1536".parse::<Size>().unwrap().to_string(), "1536");
        assert_eq!("2048k".parse::<Size>().unwrap().to_string(), "2M");
        for text in ["0", "", "1T", "-1", "1.5M", "ten"] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is not a size: expected bytes")), "{error}");
        }
    }
}
