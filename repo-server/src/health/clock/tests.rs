use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ClockState::{Jumped, Steady};
use super::*;
use crate::clock::Clock;
use crate::index::{Index, IndexError, KeyRange, MemoryIndex, Rows};
use crate::store::Parts;

const HOUR_MS: u64 = 60 * 60 * 1000;
const MINUTE_MS: u64 = 60 * 1000;
const BORN_MS: u64 = 1_700_000_000_000;

/// Two clocks that stand still until they are told to move.
struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { wall_ms: AtomicU64::new(BORN_MS), monotonic_ms: AtomicU64::new(0) })
    }

    /// Time passes.
    fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock forward.
    fn set_forward(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock back.
    fn set_back(&self, ms: u64) {
        self.wall_ms.fetch_sub(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
    }
}

/// A repository that survives restarts, and its clock.
struct World<I = MemoryIndex> {
    index: I,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    clock_watch: ClockWatch,
}

impl<I: Index + Clone + 'static> World<I> {
    fn over(index: I) -> Self {
        let clock = ManualClock::new();
        let store = Self::process(&index, &clock);
        Self { index, clock, store, clock_watch: ClockWatch::default() }
    }

    fn process(index: &I, clock: &Arc<ManualClock>) -> Arc<Store> {
        Parts::default().over(index.clone()).at(Arc::<ManualClock>::clone(clock)).start()
    }

    fn restart(&mut self) {
        self.clock.monotonic_ms.store(0, Ordering::Relaxed);
        self.store = Self::process(&self.index, &self.clock);
        self.clock_watch = ClockWatch::default();
    }

    fn look(&self) -> ClockState {
        self.clock_watch.look(&self.store).unwrap()
    }

    fn accept(&self) {
        self.clock_watch.accept(&self.store).unwrap();
    }

    fn is_up(&self) -> bool {
        alarm::is_up(&self.store, AlarmCode::ClockJumped).unwrap()
    }

    fn stored(&self) -> Option<u64> {
        read_latest(&self.store).unwrap()
    }
}

fn world() -> World {
    World::over(MemoryIndex::new())
}

/// The text of the one alarm.
fn message(world: &World) -> String {
    let alarms = crate::health::alarms(&world.store).unwrap();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    alarms[0].message.clone()
}

#[test]
fn a_clock_that_goes_on_is_steady_however_long_nobody_looks() {
    let world = world();
    assert_eq!(world.look(), Steady);

    for pause in [1, MINUTE_MS, HOUR_MS, 30 * 24 * HOUR_MS] {
        world.clock.pass(pause);
        assert_eq!(world.look(), Steady, "{pause}");
    }

    assert!(!world.is_up());
}

#[test]
fn a_clock_set_forward_or_back_by_more_than_an_hour_freezes_and_by_an_hour_does_not() {
    type Set = fn(&ManualClock, u64);
    let ways: [(&str, Set); 2] = [("forward", ManualClock::set_forward), ("back", ManualClock::set_back)];

    for (way, set) in ways {
        for (by, state) in [(HOUR_MS, Steady), (HOUR_MS + 1, Jumped), (24 * 365 * HOUR_MS, Jumped)] {
            let world = world();
            assert_eq!(world.look(), Steady);
            set(&world.clock, by);

            assert_eq!(world.look(), state, "{way} by {by}");
            assert_eq!(world.is_up(), state == Jumped, "{way} by {by}");
        }
    }
}

#[test]
fn the_alarm_tells_both_times_and_the_way_out() {
    let world = world();
    world.look();
    world.clock.pass(MINUTE_MS);
    world.clock.set_forward(48 * HOUR_MS);

    world.look();

    let message = message(&world);
    for part in ["2023-11-16T22:14:20Z", "2023-11-14T22:14:20Z", "astacus-admin forget --accept-clock"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_jump_while_nobody_looked_is_told_from_the_time_that_passed() {
    let world = world();
    world.look();

    world.clock.pass(10 * HOUR_MS);
    world.clock.set_back(2 * HOUR_MS);

    assert_eq!(world.look(), Jumped);
}

#[test]
fn a_clock_that_drifts_forward_in_small_steps_is_steady() {
    let world = world();

    for _ in 0..10 {
        world.clock.pass(MINUTE_MS);
        world.clock.set_forward(HOUR_MS / 2);
        assert_eq!(world.look(), Steady);
    }
}

#[test]
fn a_clock_that_drifts_back_in_small_steps_freezes_once_it_is_an_hour_behind_what_it_told() {
    let world = world();
    assert_eq!(world.look(), Steady);

    for _ in 0..2 {
        world.clock.set_back(HOUR_MS / 2);
        assert_eq!(world.look(), Steady);
    }
    world.clock.set_back(1);

    assert_eq!(world.look(), Jumped);
}

#[test]
fn a_start_behind_the_latest_time_freezes_and_one_after_it_does_not() {
    for (back, state) in [(HOUR_MS, Steady), (HOUR_MS + 1, Jumped)] {
        let mut world = world();
        world.look();
        world.clock.set_back(back);

        world.restart();

        assert_eq!(world.look(), state, "{back}");
    }
    let mut later = world();
    later.look();
    later.clock.set_forward(1000 * HOUR_MS);
    later.restart();
    assert_eq!(later.look(), Steady, "as if nothing had run for that long");
}

#[test]
fn a_jump_stays_one_when_the_clock_jumps_back_and_after_a_restart() {
    let mut world = world();
    world.look();
    world.clock.set_forward(100 * HOUR_MS);
    assert_eq!(world.look(), Jumped);
    let told = message(&world);

    world.clock.set_back(100 * HOUR_MS);
    assert_eq!(world.look(), Jumped);
    world.restart();
    assert_eq!(world.look(), Jumped);

    assert_eq!(message(&world), told, "it tells of the first jump");
    assert_eq!(world.stored(), Some(BORN_MS), "a clock in doubt is not the latest time");
}

#[test]
fn an_accepted_clock_is_right_from_then_on_whichever_way_it_jumped() {
    for forward in [true, false] {
        let mut world = world();
        world.look();
        let set = if forward { ManualClock::set_forward } else { ManualClock::set_back };
        set(&world.clock, 100 * HOUR_MS);
        assert_eq!(world.look(), Jumped);

        world.accept();

        assert_eq!(world.look(), Steady);
        assert!(!world.is_up());
        world.restart();
        assert_eq!(world.look(), Steady, "forward: {forward}");
        set(&world.clock, 100 * HOUR_MS);
        assert_eq!(world.look(), Jumped, "the next jump is one again");
    }
}

#[test]
fn the_latest_time_is_written_only_every_few_minutes() {
    let world = world();
    world.look();
    assert_eq!(world.stored(), Some(BORN_MS));

    world.clock.pass(WRITE_EVERY_MS - 1);
    world.look();
    assert_eq!(world.stored(), Some(BORN_MS));
    world.clock.pass(1);
    world.look();

    assert_eq!(world.stored(), Some(BORN_MS + WRITE_EVERY_MS));
    world.clock.set_back(MINUTE_MS);
    world.look();
    assert_eq!(world.stored(), Some(BORN_MS + WRITE_EVERY_MS), "it never goes back");
}

/// An index whose disk can be full.
#[derive(Debug, Clone, Default)]
struct FullIndex {
    rows: MemoryIndex,
    is_full: Arc<AtomicBool>,
}

impl Index for FullIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.rows.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.rows.multi_get(table, keys)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        limit: std::num::NonZeroUsize,
    ) -> Result<Rows, IndexError> {
        self.rows.scan(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(IndexError::Full { free_bytes: 0, reserve_bytes: 1 });
        }
        self.rows.commit(batch)
    }
}

#[test]
fn a_jump_on_a_full_disk_freezes_at_once_and_is_told_when_there_is_room() {
    let world = World::over(FullIndex::default());
    world.look();
    world.index.is_full.store(true, Ordering::Relaxed);
    world.clock.set_forward(2 * HOUR_MS);

    assert_eq!(world.look(), Jumped);
    assert_eq!(world.look(), Jumped, "though the clock went on since");
    assert!(!world.is_up());
    assert!(world.clock_watch.accept(&world.store).is_err());
    world.index.is_full.store(false, Ordering::Relaxed);

    assert_eq!(world.look(), Jumped);
    assert!(world.is_up());
}

#[test]
fn a_steady_clock_on_a_full_disk_is_steady() {
    let world = World::over(FullIndex::default());
    world.index.is_full.store(true, Ordering::Relaxed);

    assert_eq!(world.look(), Steady);
    world.clock.pass(HOUR_MS);
    assert_eq!(world.look(), Steady);

    assert_eq!(world.stored(), None);
}
