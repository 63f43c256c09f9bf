//! Errors in chosen sizes. Cutting cannot fail, and reading fails with the reader's own error.

use std::fmt;

/// Why sizes were refused. Nothing was built; choose other sizes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum ParamsError {
    /// Sizes are powers of two, so that a mask has a whole number of bits.
    #[error("{size} chunk size {bytes} is not a power of two")]
    NotPowerOfTwo { size: Size, bytes: usize },
    /// The size is outside of what the format allows.
    #[error("{size} chunk size {bytes} is not within {lowest} to {highest}")]
    OutOfRange { size: Size, bytes: usize, lowest: usize, highest: usize },
    /// Each size must be larger than the one before.
    #[error("chunk sizes {min}/{avg}/{max} do not grow from minimum to average to maximum")]
    NotGrowing { min: usize, avg: usize, max: usize },
}

/// Which size an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// `min` of FastCDC.
    Minimum,
    /// `avg` of FastCDC.
    Average,
    /// `max` of FastCDC.
    Maximum,
    /// `size` of fixed pieces.
    Fixed,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Size::Minimum => "minimum",
            Size::Average => "average",
            Size::Maximum => "maximum",
            Size::Fixed => "fixed",
        })
    }
}
