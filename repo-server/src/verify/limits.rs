//! Which packs a run looks at, in which order, how many of them, and how fast.

use std::time::Duration;

use format_spec::wire::{Amount, Stopped, VerifyLimits};

use crate::rows::{PackNumber, PackRow};

/// A pack that is to be looked at. 16 bytes, so that the list of all packs is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) verified_ms: u64,
    pub(super) number: PackNumber,
    /// Its length; packs are far below 4 GiB.
    pub(super) len: u32,
}

impl Due {
    pub(super) fn new(number: PackNumber, row: &PackRow) -> Self {
        let len = u32::try_from(row.len).unwrap_or(u32::MAX);
        Self { verified_ms: row.verified_ms, number, len }
    }
}

/// Puts packs in order: those whose last check is longest ago first. Those of `known`, in which damage is
/// known and which therefore were never found whole, come last: a sample must not begin with them each
/// time. `known` is sorted.
pub(super) fn order(packs: &mut [Due], known: &[PackNumber]) {
    let is_known = |pack: &Due| known.binary_search(&pack.number).is_ok();
    packs.sort_by_key(|pack| (is_known(pack), pack.verified_ms, pack.number));
}

/// Packs that could not be read and do not count against the limits. With more, the site is down, and a
/// sample must not ask it for every pack there is.
const GIVEN_BACK: u32 = 100;

/// Used part of a run's limits.
#[derive(Debug)]
pub(super) struct Budget {
    max_bytes: Option<u64>,
    sample_bytes: Option<u64>,
    end: Option<Duration>,
    bytes: u64,
    packs: u64,
    given_back: u32,
}

impl Budget {
    /// Budget that `limits` allow for packs of `total_bytes`, from `now` on.
    pub(super) fn new(limits: &VerifyLimits, total_bytes: u64, now: Duration) -> Self {
        let share = |ppm: u32| {
            let bytes = u128::from(total_bytes) * u128::from(ppm) / 1_000_000;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        Self {
            max_bytes: limits.max_bytes,
            sample_bytes: limits.sample_ppm.map(share),
            end: limits.max_time_ms.map(|ms| now.saturating_add(Duration::from_millis(ms))),
            bytes: 0,
            packs: 0,
            given_back: 0,
        }
    }

    /// Counts the next pack, of `len` bytes, or returns the limit that forbids it. The first pack is always
    /// allowed while there is time, so that every run makes progress.
    ///
    /// # Errors
    /// Why not. A sample that is complete did not stop early: `None`.
    pub(super) fn begin(&mut self, len: u64, now: Duration) -> Result<(), Option<Stopped>> {
        self.check_time(now).map_err(Some)?;
        if self.packs > 0 && self.sample_bytes.is_some_and(|bytes| self.bytes >= bytes) {
            return Err(None);
        }
        let after = self.bytes.saturating_add(len);
        if self.packs > 0 && self.max_bytes.is_some_and(|bytes| after > bytes) {
            return Err(Some(Stopped::Bytes));
        }
        self.bytes = after;
        self.packs += 1;
        Ok(())
    }

    /// A pack that was begun could not be read, and does not count, unless too many could not.
    pub(super) fn give_back(&mut self, len: u64) {
        if self.given_back >= GIVEN_BACK {
            return;
        }
        self.given_back += 1;
        self.bytes = self.bytes.saturating_sub(len);
        self.packs = self.packs.saturating_sub(1);
    }

    /// Checks that there is time left.
    ///
    /// # Errors
    /// [`Stopped::Time`].
    pub(super) fn check_time(&self, now: Duration) -> Result<(), Stopped> {
        if self.end.is_some_and(|end| now >= end) { Err(Stopped::Time) } else { Ok(()) }
    }
}

/// Spreads reads over time.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// Before this moment nothing more is read.
    free: Duration,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free: Duration::ZERO }
    }

    /// How long to wait before `bytes` are read, when it is `now`. Time that was not used is not saved up.
    pub(super) fn wait(&mut self, bytes: u64, now: Duration) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let begin = self.free.max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free = begin.saturating_add(takes);
        begin.saturating_sub(now)
    }
}

/// Packs that are left out, with their bytes.
pub(super) fn amount(packs: &[Due]) -> Amount {
    let mut amount = Amount::default();
    for pack in packs {
        amount.add(pack.len.into());
    }
    amount
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(number: u32, verified_ms: u64) -> Due {
        Due { verified_ms, number: PackNumber(number), len: 10 }
    }

    fn begun(limits: VerifyLimits, packs: u64, len: u64) -> (u64, Result<(), Option<Stopped>>) {
        let mut budget = Budget::new(&limits, packs * len, Duration::ZERO);
        let mut count = 0;
        while count < packs {
            let next = budget.begin(len, Duration::ZERO);
            if next.is_err() {
                return (count, next);
            }
            count += 1;
        }
        (count, Ok(()))
    }

    #[test]
    fn the_pack_checked_longest_ago_comes_first_and_known_damage_last() {
        let mut packs = [due(1, 30), due(2, 0), due(3, 20), due(4, 0)];

        order(&mut packs, &[PackNumber(2)]);

        assert_eq!(packs.map(|pack| pack.number.0), [4, 3, 1, 2]);
    }

    #[test]
    fn a_sample_is_its_share_rounded_up_to_whole_packs() {
        let sample = |ppm| VerifyLimits { sample_ppm: Some(ppm), ..VerifyLimits::default() };

        assert_eq!(begun(sample(50_000), 100, 10), (5, Err(None)));
        assert_eq!(begun(sample(51_000), 100, 10), (6, Err(None)));
        assert_eq!(begun(sample(1), 100, 10), (1, Err(None)));
        assert_eq!(begun(sample(1_000_000), 100, 10), (100, Ok(())));
    }

    #[test]
    fn a_limit_of_bytes_is_kept_but_for_the_first_pack() {
        let bytes = |max| VerifyLimits { max_bytes: Some(max), ..VerifyLimits::default() };

        assert_eq!(begun(bytes(39), 9, 10), (3, Err(Some(Stopped::Bytes))));
        assert_eq!(begun(bytes(40), 9, 10), (4, Err(Some(Stopped::Bytes))));
        assert_eq!(begun(bytes(1), 9, 10), (1, Err(Some(Stopped::Bytes))));
        assert_eq!(begun(bytes(90), 9, 10), (9, Ok(())));
    }

    #[test]
    fn what_could_not_be_read_does_not_count() {
        let limits = VerifyLimits { max_bytes: Some(20), ..VerifyLimits::default() };
        let mut budget = Budget::new(&limits, 100, Duration::ZERO);
        budget.begin(20, Duration::ZERO).unwrap();
        budget.begin(1, Duration::ZERO).unwrap_err();

        budget.give_back(20);

        budget.begin(20, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_site_that_is_down_is_not_asked_for_everything() {
        let limits = VerifyLimits { sample_ppm: Some(1), ..VerifyLimits::default() };
        let mut budget = Budget::new(&limits, 1_000_000, Duration::ZERO);
        let mut asked = 0;

        while budget.begin(1, Duration::ZERO).is_ok() {
            asked += 1;
            budget.give_back(1);
        }

        assert_eq!(asked, GIVEN_BACK + 1);
    }

    #[test]
    fn nothing_is_begun_once_the_time_is_over() {
        let limits = VerifyLimits { max_time_ms: Some(5), ..VerifyLimits::default() };
        let start = Duration::from_secs(9);
        let mut budget = Budget::new(&limits, 100, start);

        budget.begin(1, start + Duration::from_millis(4)).unwrap();
        assert_eq!(budget.begin(1, start + Duration::from_millis(5)), Err(Some(Stopped::Time)));
    }

    #[test]
    fn reads_wait_for_those_before_them_and_save_nothing_up() {
        let at = Duration::from_secs;
        let mut pace = Pace::new(Some(10));

        assert_eq!(pace.wait(20, at(100)), at(0));
        assert_eq!(pace.wait(10, at(100)), at(2));
        assert_eq!(pace.wait(10, at(102)), at(1));
        assert_eq!(pace.wait(10, at(500)), at(0));
        assert_eq!(Pace::new(None).wait(u64::MAX, at(1)), at(0));
    }
}
