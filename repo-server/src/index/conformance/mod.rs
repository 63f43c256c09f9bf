//! The one suite that every engine must pass: promises X1 to X6 of the parent module, as far as one
//! process can see them. Power cuts and kills are the fault suite's.
//!
//! An engine's tests call [`suite!`] with a function that makes a [`Subject`]; each check becomes a test.
//! A check panics where the engine breaks a promise. `twins` shows that each check can.

pub(super) mod checks;
mod model;
mod twins;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use super::{Engine, Index, KeyRange, OpenError, Row, Table};

/// One index, empty at first, that can be closed and opened again.
pub(super) struct Subject(Box<dyn Fn() -> Arc<dyn Index>>);

impl Subject {
    /// `open` is called again only after every handle from before was dropped.
    pub(super) fn new(open: impl Fn() -> Arc<dyn Index> + 'static) -> Self {
        Self(Box::new(open))
    }

    /// An index in a folder of its own, which goes with the subject.
    pub(super) fn on_disk(engine: Engine) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self::new(move || open_once_free(engine, dir.path()))
    }

    pub(super) fn open(&self) -> Arc<dyn Index> {
        (self.0)()
    }
}

/// How often an index is found in use before it is taken for granted that it stays so.
const MOST_LOOKS: u32 = 10_000;

/// Opens an index that nobody has open any more. Its lock may still be held for a moment: a child that another
/// test starts has all our files from its fork to its exec.
fn open_once_free(engine: Engine, dir: &Path) -> Arc<dyn Index> {
    for _ in 0..MOST_LOOKS {
        match super::open(engine, dir) {
            Err(error) if is_in_use(&error) => std::thread::yield_now(),
            opened => return opened.expect("an index that can be opened"),
        }
    }
    panic!("{} stays in use", dir.display());
}

/// True if a lock was held by another; sled has one of its own, and reports that as text only.
fn is_in_use(error: &OpenError) -> bool {
    match error {
        OpenError::InUse { .. } => true,
        OpenError::Engine { source, .. } => format!("{source:?}").contains("could not acquire lock"),
        _ => false,
    }
}

/// Names every check once: `each_check!(path::to::do_with { .. })` calls `do_with! { .. ; check check .. }`.
macro_rules! each_check {
    ($($with:ident)::+ { $($args:tt)* }) => {
        $($with)::+! { $($args)* ;
            a_committed_row_is_read_back
            tables_do_not_mix
            a_key_that_no_row_can_have_is_not_found
            many_keys_are_answered_in_the_order_asked
            the_last_change_of_a_row_counts
            a_scan_answers_exactly_its_range
            a_scan_in_pieces_answers_every_row_once
            a_scan_is_bounded_in_bytes
            a_failed_precondition_changes_nothing
            the_first_failed_precondition_is_named
            preconditions_see_the_rows_before_the_batch
            a_batch_over_a_limit_changes_nothing
            rows_at_the_limits_are_kept
            acknowledged_batches_are_there_after_reopening
            a_large_batch_over_all_tables_is_whole
            concurrent_increments_are_not_lost
            a_reader_never_sees_half_a_batch
            random_work_matches_the_model
        }
    };
}

/// Makes a test of each check, with a fresh subject from `$make`. Wants `conformance` in scope.
macro_rules! suite {
    ($make:expr) => {
        $crate::index::conformance::each_check! { conformance::tests_of { $make } }
    };
}

macro_rules! tests_of {
    ($make:expr ; $($check:ident)+) => {
        $(
            #[test]
            fn $check() {
                $crate::index::conformance::checks::$check(&($make)());
            }
        )+
    };
}

pub(super) use {each_check, suite, tests_of};

/// A seed for random work: the one in `ASTACUS_TEST_SEED`, or a fresh one. Goes into every message.
fn seed() -> u64 {
    match std::env::var("ASTACUS_TEST_SEED") {
        Ok(seed) => seed.parse().expect("ASTACUS_TEST_SEED is a number"),
        Err(_) => getrandom::u64().expect("randomness from the kernel"),
    }
}

/// SplitMix64: the same numbers for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("usize fits");
        usize::try_from(self.next() % end).expect("less than a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Every row of `table`, a few at a time.
fn all_rows(index: &dyn Index, table: Table) -> Vec<Row> {
    let limit = NonZeroUsize::new(1_000).expect("not zero");
    let mut rows = Vec::new();
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = index.scan(table, &range, limit).expect("scan");
        rows.extend(found.rows);
        next = found.rest;
    }
    rows
}
