//! Algorithm and sizes: chosen when a repository is created, frozen from then on.

use std::ops::RangeInclusive;

use fastcdc::v2020::{AVERAGE_MAX, AVERAGE_MIN, MAXIMUM_MAX, MAXIMUM_MIN, MINIMUM_MAX, MINIMUM_MIN};

use crate::error::{ParamsError, Size};

const KIB: usize = 1024;

/// An algorithm with its sizes in bytes, as it is recorded: plain and not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// FastCDC (v2020): boundaries follow the content, so they survive insertions and deletions.
    FastCdc {
        /// No chunk but the last of a stream is shorter.
        min: usize,
        /// Up to this length boundaries are rarer, beyond it more frequent. The mean of real data is higher:
        /// about 1.2 times this with the default sizes.
        avg: usize,
        /// No chunk is longer.
        max: usize,
    },
    /// Pieces of one size: for files that change in place and never shift, such as database pages.
    Fixed {
        /// Every chunk but the last of a stream has this length.
        size: usize,
    },
}

/// An [`Algorithm`] whose sizes were checked.
///
/// The default is FastCDC with 64, 256 and 1024 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params(Algorithm);

impl Params {
    /// Checks the sizes: each a power of two, within its range, and growing from `min` to `max`.
    ///
    /// The ranges are 64 B to 1 MiB (min), 256 B to 4 MiB (avg), 1 KiB to 16 MiB (max) and 64 B to
    /// 16 MiB (fixed).
    ///
    /// # Errors
    /// A [`ParamsError`] that names the first size refused.
    pub fn new(algorithm: Algorithm) -> Result<Self, ParamsError> {
        match algorithm {
            Algorithm::FastCdc { min, avg, max } => {
                check(Size::Minimum, min, MINIMUM_MIN..=MINIMUM_MAX)?;
                check(Size::Average, avg, AVERAGE_MIN..=AVERAGE_MAX)?;
                check(Size::Maximum, max, MAXIMUM_MIN..=MAXIMUM_MAX)?;
                if min >= avg || avg >= max {
                    return Err(ParamsError::NotGrowing { min, avg, max });
                }
            }
            Algorithm::Fixed { size } => check(Size::Fixed, size, MINIMUM_MIN..=MAXIMUM_MAX)?,
        }
        Ok(Self(algorithm))
    }

    /// The algorithm and its sizes, to be recorded.
    pub fn algorithm(self) -> Algorithm {
        self.0
    }

    /// The longest chunk that can come out, in bytes.
    pub fn max_chunk(self) -> usize {
        match self.0 {
            Algorithm::FastCdc { max, .. } => max,
            Algorithm::Fixed { size } => size,
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self(Algorithm::FastCdc { min: 64 * KIB, avg: 256 * KIB, max: 1024 * KIB })
    }
}

fn check(size: Size, bytes: usize, allowed: RangeInclusive<usize>) -> Result<(), ParamsError> {
    if !bytes.is_power_of_two() {
        return Err(ParamsError::NotPowerOfTwo { size, bytes });
    }
    if !allowed.contains(&bytes) {
        let (lowest, highest) = allowed.into_inner();
        return Err(ParamsError::OutOfRange { size, bytes, lowest, highest });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fast_cdc(min: usize, avg: usize, max: usize) -> Result<Params, ParamsError> {
        Params::new(Algorithm::FastCdc { min, avg, max })
    }

    #[test]
    fn the_default_and_the_ends_of_every_range_are_allowed() {
        let default = Params::default();
        assert_eq!(Params::new(default.algorithm()), Ok(default));
        assert_eq!(default.max_chunk(), 1 << 20);
        assert!(fast_cdc(64, 256, 1024).is_ok());
        assert!(fast_cdc(1 << 20, 1 << 22, 1 << 24).is_ok());
        assert!(Params::new(Algorithm::Fixed { size: 64 }).is_ok());
        assert!(Params::new(Algorithm::Fixed { size: 1 << 24 }).is_ok());
    }

    #[test]
    fn a_size_that_is_no_power_of_two_is_refused_by_name() {
        let of = |size, bytes| Err(ParamsError::NotPowerOfTwo { size, bytes });
        assert_eq!(fast_cdc(0, 256, 1024), of(Size::Minimum, 0));
        assert_eq!(fast_cdc(64, 300, 1024), of(Size::Average, 300));
        assert_eq!(fast_cdc(64, 256, 65535), of(Size::Maximum, 65535));
        assert_eq!(Params::new(Algorithm::Fixed { size: 4095 }), of(Size::Fixed, 4095));
    }

    #[test]
    fn a_size_outside_of_its_range_is_refused_with_the_range() {
        let refused = |params: Result<Params, ParamsError>| match params {
            Err(ParamsError::OutOfRange { size, lowest, highest, .. }) => (size, lowest, highest),
            other => panic!("not refused for its range: {other:?}"),
        };
        assert_eq!(refused(fast_cdc(32, 256, 1024)), (Size::Minimum, 64, 1 << 20));
        assert_eq!(refused(fast_cdc(1 << 21, 1 << 22, 1 << 23)), (Size::Minimum, 64, 1 << 20));
        assert_eq!(refused(fast_cdc(64, 1 << 23, 1 << 24)), (Size::Average, 256, 1 << 22));
        assert_eq!(refused(fast_cdc(64, 256, 1 << 25)), (Size::Maximum, 1024, 1 << 24));
        assert_eq!(refused(Params::new(Algorithm::Fixed { size: 1 << 25 })), (Size::Fixed, 64, 1 << 24));
    }

    #[test]
    fn sizes_that_do_not_grow_are_refused() {
        for (min, avg, max) in [(1024, 1024, 4096), (512, 256, 4096), (64, 2048, 2048), (64, 4096, 2048)] {
            assert_eq!(fast_cdc(min, avg, max), Err(ParamsError::NotGrowing { min, avg, max }));
        }
    }
}
