//! Engines that break one promise each, to show that the suite sees it.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::super::{Batch, Index, IndexError, KeyRange, MAX_KEY_LEN, MemoryIndex, Rows, Table};
use super::{Subject, checks, each_check};

/// Defect of a [`Broken`] index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    IgnoresPreconditions,
    AppliesBeforeItChecks,
    ChecksAndAppliesApart,
    AppliesRowByRow,
    NamesTheLastPrecondition,
    IgnoresDeletes,
    ForgetsWhenClosed,
    MixesTables,
    TakesEmptyForAbsent,
    CutsLongKeys,
    AnswersInKeyOrder,
    EndsScansTooEarly,
    ScansFromTheFirstRow,
    IgnoresScanLimit,
    TakesWhatIsTooLarge,
}

/// Which check is there to see which defect. Each check is there for something.
const SEEN_BY: &[(Defect, &str)] = &[
    (Defect::IgnoresPreconditions, "a_failed_precondition_changes_nothing"),
    (Defect::AppliesBeforeItChecks, "a_failed_precondition_changes_nothing"),
    (Defect::IgnoresPreconditions, "preconditions_see_the_rows_before_the_batch"),
    (Defect::NamesTheLastPrecondition, "the_first_failed_precondition_is_named"),
    (Defect::ChecksAndAppliesApart, "concurrent_increments_are_not_lost"),
    (Defect::AppliesRowByRow, "a_reader_never_sees_half_a_batch"),
    (Defect::IgnoresDeletes, "the_last_change_of_a_row_counts"),
    (Defect::IgnoresDeletes, "random_work_matches_the_model"),
    (Defect::ForgetsWhenClosed, "acknowledged_batches_are_there_after_reopening"),
    (Defect::ForgetsWhenClosed, "a_large_batch_over_all_tables_is_whole"),
    (Defect::ForgetsWhenClosed, "rows_at_the_limits_are_kept"),
    (Defect::MixesTables, "tables_do_not_mix"),
    (Defect::TakesEmptyForAbsent, "a_committed_row_is_read_back"),
    (Defect::CutsLongKeys, "a_key_that_no_row_can_have_is_not_found"),
    (Defect::AnswersInKeyOrder, "many_keys_are_answered_in_the_order_asked"),
    (Defect::EndsScansTooEarly, "a_scan_in_pieces_answers_every_row_once"),
    (Defect::EndsScansTooEarly, "a_scan_is_bounded_in_bytes"),
    (Defect::ScansFromTheFirstRow, "a_scan_answers_exactly_its_range"),
    (Defect::IgnoresScanLimit, "a_scan_in_pieces_answers_every_row_once"),
    (Defect::TakesWhatIsTooLarge, "a_batch_over_a_limit_changes_nothing"),
];

struct Broken {
    inner: MemoryIndex,
    defect: Defect,
}

impl Broken {
    fn subject(defect: Defect) -> Subject {
        let stored = MemoryIndex::new();
        Subject::new(move || {
            let forgets = defect == Defect::ForgetsWhenClosed;
            let inner = if forgets { MemoryIndex::new() } else { stored.clone() };
            Arc::new(Self { inner, defect })
        })
    }

    fn table(&self, table: Table) -> Table {
        if self.defect == Defect::MixesTables { Table::Meta } else { table }
    }
}

impl Index for Broken {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.multi_get(table, &[key])?.into_iter().flatten().next())
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let mut keys = keys.to_vec();
        match self.defect {
            Defect::AnswersInKeyOrder => keys.sort_unstable(),
            Defect::CutsLongKeys => keys.iter_mut().for_each(|key| *key = &key[..key.len().min(MAX_KEY_LEN)]),
            _ => {}
        }
        let mut found = self.inner.multi_get(self.table(table), &keys)?;
        if self.defect == Defect::TakesEmptyForAbsent {
            found.iter_mut().for_each(|value| *value = value.take().filter(|value| !value.is_empty()));
        }
        Ok(found)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        let limit = if self.defect == Defect::IgnoresScanLimit { NonZeroUsize::MAX } else { limit };
        let first = self.defect == Defect::ScansFromTheFirstRow && range.end().is_some();
        let range =
            if first { KeyRange::between(b"", range.end().unwrap_or_default()) } else { range.clone() };
        let mut found = self.inner.scan(self.table(table), &range, limit)?;
        if self.defect == Defect::EndsScansTooEarly {
            found.rest = None;
        }
        Ok(found)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        let changes = self.changes(&batch);
        match self.defect {
            Defect::IgnoresPreconditions => self.inner.commit(changes),
            Defect::AppliesBeforeItChecks => {
                let outcome = self.inner.commit(batch);
                self.inner.commit(changes)?;
                outcome
            }
            Defect::TakesWhatIsTooLarge => match self.inner.commit(batch) {
                Err(IndexError::TooLarge { .. }) => Ok(()),
                outcome => outcome,
            },
            Defect::NamesTheLastPrecondition => self.inner.commit(batch).map_err(|error| match error {
                IndexError::Precondition { .. } => {
                    IndexError::Precondition { table: Table::Chunk, key: b"second".to_vec() }
                }
                error => error,
            }),
            Defect::ChecksAndAppliesApart
            | Defect::AppliesRowByRow
            | Defect::IgnoresDeletes
            | Defect::MixesTables => {
                batch.check_limits()?;
                batch.check_preconditions(|table, keys| self.multi_get(table, keys))?;
                self.apply(changes)
            }
            _ => self.inner.commit(batch),
        }
    }
}

impl Broken {
    /// Changes of `batch` as the broken index applies them, without its preconditions.
    fn changes(&self, batch: &Batch) -> Batch {
        let mut changes = Batch::new();
        for (table, key, value) in batch.clone().into_changes() {
            match value {
                Some(value) => drop(changes.put(self.table(table), key, value)),
                None if self.defect == Defect::IgnoresDeletes => {}
                None => drop(changes.delete(self.table(table), key)),
            }
        }
        changes
    }

    fn apply(&self, changes: Batch) -> Result<(), IndexError> {
        thread::yield_now();
        if self.defect != Defect::AppliesRowByRow {
            return self.inner.commit(changes);
        }
        for (table, key, value) in changes.into_changes() {
            let mut change = Batch::new();
            match value {
                Some(value) => change.put(table, key, value),
                None => change.delete(table, key),
            };
            self.inner.commit(change)?;
            thread::yield_now();
        }
        Ok(())
    }
}

macro_rules! table_of {
    ( ; $($check:ident)+) => {
        /// Every check, by name.
        const CHECKS: &[(&str, fn(&Subject))] = &[$((stringify!($check), checks::$check)),+];
    };
}

each_check! { table_of {} }

fn rejects(check: fn(&Subject), defect: Defect) -> bool {
    catch_unwind(AssertUnwindSafe(|| check(&Broken::subject(defect)))).is_err()
}

#[test]
fn every_check_accepts_an_index_without_defects() {
    for (name, check) in CHECKS {
        assert!(!rejects(*check, Defect::None), "{name}");
    }
}

#[test]
fn every_defect_is_seen_by_the_check_that_is_there_for_it() {
    for (defect, wanted) in SEEN_BY {
        let (_, check) = CHECKS.iter().find(|(name, _)| name == wanted).expect("a check of that name");
        assert!(rejects(*check, *defect), "{wanted} accepts an index that {defect:?}");
    }
}

#[test]
fn every_check_is_there_for_a_defect() {
    for (name, _) in CHECKS {
        assert!(SEEN_BY.iter().any(|(_, by)| by == name), "{name} was never seen to reject anything");
    }
}
