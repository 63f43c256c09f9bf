//! Random work, compared step by step with a map that cannot be wrong.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use super::super::{Batch, Index, IndexError, KeyRange, MAX_VALUE_LEN, Precondition, Table};
use super::{Random, Subject, all_rows, seed};

/// Rounds of one run: a commit and some reads each.
const ROUNDS: usize = 120;

/// X1, X2, X3, X5: batches, preconditions, reads and closing in any order.
pub(in super::super) fn random_work_matches_the_model(subject: &Subject) {
    let seed = seed();
    let mut run = Run { random: Random(seed), model: BTreeMap::new(), index: subject.open() };
    for round in 0..ROUNDS {
        let at = format!("round {round} with ASTACUS_TEST_SEED={seed}");
        run.commit(&at);
        run.read(&at);
        if run.random.one_in(20) {
            run = run.reopen(subject);
        }
    }
    run = run.reopen(subject);
    run.compare_all(&format!("the end with ASTACUS_TEST_SEED={seed}"));
}

struct Run {
    random: Random,
    model: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    index: Arc<dyn Index>,
}

impl Run {
    fn reopen(self, subject: &Subject) -> Self {
        let Self { random, model, index } = self;
        drop(index);
        Self { random, model, index: subject.open() }
    }

    /// Commits a random batch, and lets the model do the same if all its preconditions hold there.
    fn commit(&mut self, at: &str) {
        let mut batch = Batch::new();
        let mut after = self.model.clone();
        for _ in 0..self.random.below(12) {
            let (table, key) = (self.table(), self.key());
            if self.random.one_in(3) {
                batch.delete(table, key.clone());
                after.remove(&(table, key));
            } else {
                let value = self.value();
                batch.put(table, key.clone(), value.clone());
                after.insert((table, key), value);
            }
        }
        let failed = self.require(&mut batch);
        match (self.index.commit(batch), failed) {
            (Ok(()), None) => self.model = after,
            (Err(IndexError::Precondition { table, key }), Some(expected)) => {
                assert_eq!((table, key), expected, "{at}");
            }
            (outcome, failed) => panic!("{outcome:?} where {failed:?} was to fail, {at}"),
        }
    }

    /// Adds preconditions of which most hold, and answers the first that does not.
    fn require(&mut self, batch: &mut Batch) -> Option<(Table, Vec<u8>)> {
        let mut failed = None;
        for _ in 0..self.random.below(4) {
            let (table, key) = (self.table(), self.key());
            let stored = self.model.get(&(table, key.clone()));
            let (precondition, holds) = match (stored, self.random.below(8)) {
                (Some(value), 0..3) => (Precondition::Equals(value.clone()), true),
                (Some(_), 3..7) => (Precondition::Present, true),
                (Some(_), _) => (Precondition::Absent, false),
                (None, 0..7) => (Precondition::Absent, true),
                (None, _) => (Precondition::Present, false),
            };
            if !holds && failed.is_none() {
                failed = Some((table, key.clone()));
            }
            batch.require(table, key, precondition);
        }
        failed
    }

    fn read(&mut self, at: &str) {
        let table = self.table();
        let keys: Vec<_> = (0..self.random.below(30)).map(|_| self.key()).collect();
        let wanted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let expected: Vec<_> =
            keys.iter().map(|key| self.model.get(&(table, key.clone())).cloned()).collect();
        assert_eq!(self.index.multi_get(table, &wanted).unwrap(), expected, "{at}");
        for (key, expected) in wanted.iter().zip(&expected).take(3) {
            assert_eq!(&self.index.get(table, key).unwrap(), expected, "{at}");
        }
        self.scan(table, at);
    }

    fn scan(&mut self, table: Table, at: &str) {
        let (one, other) = (self.key(), self.key());
        let range = match self.random.below(4) {
            0 => KeyRange::all(),
            1 => KeyRange::prefix(&one),
            2 => KeyRange::between(&one, &other),
            _ => KeyRange::all().after(&one),
        };
        let limit = 1 + self.random.below(20);
        let found = self.index.scan(table, &range, NonZeroUsize::new(limit).unwrap()).unwrap();
        let mut expected = self
            .model
            .range((Bound::Included((table, Vec::new())), Bound::Unbounded))
            .filter(|((of, key), _)| *of == table && range.contains(key))
            .map(|((_, key), value)| (key, value));
        for row in &found.rows {
            assert_eq!(Some((&row.key, &row.value)), expected.next(), "{range:?}, {at}");
        }
        assert!(found.rest.is_some() || expected.next().is_none(), "{range:?} has more, {at}");
    }

    fn compare_all(&self, at: &str) {
        for table in Table::ALL {
            let found: Vec<_> =
                all_rows(&*self.index, table).into_iter().map(|row| (row.key, row.value)).collect();
            let expected: Vec<_> = self
                .model
                .iter()
                .filter(|((of, _), _)| *of == table)
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(found, expected, "{table}, {at}");
        }
    }

    fn table(&mut self) -> Table {
        Table::ALL[self.random.below(Table::ALL.len())]
    }

    /// One of few keys, so that they meet again, with some that are prefixes of others.
    fn key(&mut self) -> Vec<u8> {
        const BYTES: [u8; 4] = [0, b'a', 0xfe, 0xff];
        (0..1 + self.random.below(3)).map(|_| BYTES[self.random.below(BYTES.len())]).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = if self.random.one_in(30) { MAX_VALUE_LEN } else { self.random.below(60) };
        let byte = u8::try_from(self.random.below(256)).unwrap();
        vec![byte; len]
    }
}
