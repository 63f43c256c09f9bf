//! How fast a push may send, and a restore receive: one token bucket for all who do.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes are counted in parts of this size, so that a nanosecond refills a whole number of them.
const PARTS_PER_BYTE: u128 = 1_000_000_000;
/// Shortest body: below that, requests cost more than what they carry.
const MIN_BODY_LEN: usize = 64 << 10;
/// Bodies per second at a low rate: few enough to be cheap, enough for an even flow.
const BODIES_PER_SECOND: u64 = 4;

/// The rate of one push or restore. Whoever sends reserves here first; whoever receives does so behind each answer.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    bytes_per_second: NonZeroU64,
    bucket: Mutex<Bucket>,
}

/// Bytes that were reserved, and that the elapsed time has not yet paid for.
#[derive(Debug, Default)]
struct Bucket {
    owed_parts: u128,
    counted_at: Duration,
}

impl Pace {
    /// A pace without a limit.
    pub(crate) fn unlimited() -> Self {
        Self { limit: None }
    }

    /// All senders together send this much in the long run. After a pause, the bytes of one second may be
    /// sent at once.
    pub(crate) fn at_most(bytes_per_second: NonZeroU64) -> Self {
        Self { limit: Some(Limit { bytes_per_second, bucket: Mutex::default() }) }
    }

    /// How long the caller must wait before it sends `bytes`; they count as sent from now on.
    ///
    /// `now` is time since some fixed moment, the same for all callers. More bytes than one second allows are
    /// sent as soon as no debt is left, and later callers wait for them.
    pub(crate) fn reserve(&self, now: Duration, bytes: u64) -> Duration {
        self.limit.as_ref().map_or(Duration::ZERO, |limit| limit.reserve(now, bytes))
    }

    /// How long a body should be where `usual` is best without a limit: about a quarter of a second's
    /// worth, at least 64 KiB, at most `usual`.
    pub(crate) fn body_len(&self, usual: usize) -> usize {
        let Some(limit) = &self.limit else { return usual };
        let len = usize::try_from(limit.bytes_per_second.get() / BODIES_PER_SECOND).unwrap_or(usize::MAX);
        len.max(MIN_BODY_LEN).min(usual)
    }
}

impl Limit {
    fn reserve(&self, now: Duration, bytes: u64) -> Duration {
        let parts_per_nano = u128::from(self.bytes_per_second.get());
        let burst = parts_per_nano * PARTS_PER_BYTE;
        let cost = u128::from(bytes) * PARTS_PER_BYTE;
        // No code panics while it holds the lock, and what is in the bucket is whole at any time.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.pay(now, parts_per_nano);
        let too_much = (bucket.owed_parts.saturating_add(cost.min(burst))).saturating_sub(burst);
        bucket.owed_parts = bucket.owed_parts.saturating_add(cost);
        // Rounded up, so that no sender is too early. The next one gains the excess.
        let nanos = too_much.div_ceil(parts_per_nano);
        u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
    }
}

impl Bucket {
    /// Takes off what was allowed since the last count. A `now` that another caller overtook adds nothing.
    fn pay(&mut self, now: Duration, parts_per_nano: u128) {
        let paid = now.saturating_sub(self.counted_at).as_nanos().saturating_mul(parts_per_nano);
        self.owed_parts = self.owed_parts.saturating_sub(paid);
        self.counted_at = self.counted_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// A prime: nothing divides evenly.
    const ODD_RATE: u64 = 1_000_003;

    fn at_most(rate: u64) -> Pace {
        Pace::at_most(NonZeroU64::new(rate).unwrap())
    }

    /// Time that `rate` takes for `bytes`, rounded up.
    fn time_for(bytes: u64, rate: u64) -> Duration {
        let nanos = (u128::from(bytes) * PARTS_PER_BYTE).div_ceil(u128::from(rate));
        Duration::from_nanos(nanos.try_into().unwrap())
    }

    /// When each of `count` bodies goes, for one sender that waits as it is told.
    fn departures(pace: &Pace, len: u64, count: usize) -> Vec<Duration> {
        let mut now = Duration::ZERO;
        let mut next = || {
            now += pace.reserve(now, len);
            now
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn many_small_bodies_go_exactly_at_the_rate_once_the_burst_is_spent() {
        let went = departures(&at_most(ODD_RATE), 1_009, 50_000);

        for (sent, went) in (1_u64..).zip(went) {
            assert_eq!(went, time_for((sent * 1_009).saturating_sub(ODD_RATE), ODD_RATE), "body {sent}");
        }
    }

    #[test]
    fn few_large_bodies_go_exactly_at_the_rate() {
        let went = departures(&at_most(ODD_RATE), 7 * ODD_RATE, 50);

        for (earlier, went) in (0_u32..).zip(went) {
            assert_eq!(went, 7 * SECOND * earlier, "behind {earlier} bodies");
        }
    }

    #[test]
    fn a_body_larger_than_the_burst_goes_at_once_and_who_comes_next_pays() {
        let pace = at_most(1_000);

        assert_eq!(pace.reserve(Duration::ZERO, 10_000), Duration::ZERO);
        // Nine seconds until a byte may go, and one more for a whole second's worth.
        assert_eq!(pace.reserve(Duration::ZERO, 1_000), 10 * SECOND);
    }

    #[test]
    fn two_senders_share_one_rate() {
        let pace = at_most(1_000);
        let mut ready = [Duration::ZERO; 2];

        // The thread that is ready first sends the next body.
        for _ in 0..100 {
            let sender = ready.iter_mut().min().unwrap();
            *sender += pace.reserve(*sender, 500);
        }

        // The burst took two of the hundred bodies.
        assert_eq!(ready.iter().max(), Some(&time_for(98 * 500, 1_000)));
    }

    #[test]
    fn senders_in_threads_of_their_own_never_get_the_same_moment() {
        let pace = at_most(1_000);
        let sender = || (0..250).map(|_| pace.reserve(Duration::ZERO, 1_000)).collect::<Vec<_>>();

        let mut waits: Vec<Duration> = std::thread::scope(|scope| {
            let senders = [(); 4].map(|()| scope.spawn(sender));
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });

        waits.sort_unstable();
        assert_eq!(waits, (0..1_000).map(Duration::from_secs).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let pace = Pace::unlimited();

        let waits = [0, 1, u64::MAX, u64::MAX].map(|bytes| pace.reserve(Duration::ZERO, bytes));

        assert_eq!(waits, [Duration::ZERO; 4]);
    }

    #[test]
    fn while_the_clock_stands_still_each_waits_for_all_before_it() {
        let pace = at_most(1_000);

        let waits = [(); 4].map(|()| pace.reserve(5 * SECOND, 800).as_millis());

        assert_eq!(waits, [0, 600, 1_400, 2_200]);
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_time_twice() {
        let pace = at_most(1_000);
        pace.reserve(9 * SECOND, 1_000);

        assert_eq!(pace.reserve(SECOND, 1_000), SECOND);
        assert_eq!(pace.reserve(9 * SECOND, 1_000), 2 * SECOND);
    }

    #[test]
    fn a_pause_saves_up_no_more_than_one_second() {
        let pace = at_most(1_000);
        pace.reserve(Duration::ZERO, 1_000);

        let waits = [(); 3].map(|()| pace.reserve(3_600 * SECOND, 1_000));

        assert_eq!(waits, [Duration::ZERO, SECOND, 2 * SECOND]);
    }

    #[test]
    fn a_short_pause_saves_up_what_it_was_worth() {
        let pace = at_most(1_000);
        pace.reserve(Duration::ZERO, 1_000);

        assert_eq!(pace.reserve(SECOND / 4, 250), Duration::ZERO);
        assert_eq!(pace.reserve(SECOND / 4, 1), Duration::from_millis(1));
    }

    #[test]
    fn no_number_is_too_large() {
        let (slow, fast) = (at_most(1), at_most(u64::MAX));

        slow.reserve(Duration::ZERO, u64::MAX);
        assert_eq!(slow.reserve(Duration::ZERO, u64::MAX), Duration::MAX);
        fast.reserve(Duration::ZERO, u64::MAX);
        assert_eq!(fast.reserve(Duration::ZERO, u64::MAX), SECOND);
        assert_eq!(fast.reserve(Duration::MAX, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_body_takes_a_quarter_of_a_second_within_bounds() {
        let usual = 8 << 20;
        let lens =
            [1, 256 << 10, 1 << 20, 10 << 20, 32 << 20, u64::MAX].map(|rate| at_most(rate).body_len(usual));

        assert_eq!(lens, [64 << 10, 64 << 10, 256 << 10, 5 << 19, usual, usual]);
        assert_eq!(at_most(1).body_len(1_000), 1_000);
        assert_eq!(Pace::unlimited().body_len(usual), usual);
    }
}
