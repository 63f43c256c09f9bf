//! The checks. Each says in its name what it wants of an engine.

use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::super::{
    Batch, Index, IndexError, KeyRange, MAX_BATCH_WEIGHT, MAX_KEY_LEN, MAX_SCAN_BYTES, MAX_VALUE_LEN,
    Precondition, Rows, Table,
};
pub(in super::super) use super::model::random_work_matches_the_model;
use super::{Subject, all_rows};

/// X1: what was committed is read back by each way of reading.
pub(in super::super) fn a_committed_row_is_read_back(subject: &Subject) {
    let index = subject.open();

    put(&*index, Table::Chunk, &[(b"a", b"1"), (b"b", b"")]);

    assert_eq!(get(&*index, Table::Chunk, b"a"), Some(b"1".to_vec()));
    assert_eq!(get(&*index, Table::Chunk, b"b"), Some(Vec::new()), "an empty value is a value");
    assert_eq!(get(&*index, Table::Chunk, b"c"), None);
    let many = index.multi_get(Table::Chunk, &[b"a", b"b", b"c"]).unwrap();
    assert_eq!(many, [Some(b"1".to_vec()), Some(Vec::new()), None]);
    assert_eq!(keys(&scan(&*index, &KeyRange::all(), 10)), [b"a", b"b"]);
}

pub(in super::super) fn tables_do_not_mix(subject: &Subject) {
    let index = subject.open();
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.put(table, b"same".as_slice(), table.name());
    }
    index.commit(batch).unwrap();

    for table in Table::ALL {
        assert_eq!(get(&*index, table, b"same"), Some(table.name().into()), "{table}");
        assert_eq!(all_rows(&*index, table).len(), 1, "{table}");
    }

    index.commit(batch_of(|batch| batch.delete(Table::Pack, b"same".as_slice()))).unwrap();

    for table in Table::ALL {
        assert_eq!(get(&*index, table, b"same").is_some(), table != Table::Pack, "{table}");
    }
}

/// X5: reads take any key, and find none that cannot be stored.
pub(in super::super) fn a_key_that_no_row_can_have_is_not_found(subject: &Subject) {
    let index = subject.open();
    let longest = [b'a'; MAX_KEY_LEN];
    put(&*index, Table::Chunk, &[(b"a", b"1"), (&longest, b"2")]);
    let long = vec![b'a'; 100_000];

    assert_eq!(get(&*index, Table::Chunk, b""), None);
    assert_eq!(get(&*index, Table::Chunk, &long), None);
    assert_eq!(
        index.multi_get(Table::Chunk, &[b"", &long, b"a"]).unwrap(),
        [None, None, Some(b"1".to_vec())]
    );
    assert_eq!(keys(&scan(&*index, &KeyRange::between(b"", &long), 10)), [b"a".as_slice(), &longest]);
    assert!(scan(&*index, &KeyRange::prefix(&long), 10).rows.is_empty());
}

pub(in super::super) fn many_keys_are_answered_in_the_order_asked(subject: &Subject) {
    let index = subject.open();
    put(&*index, Table::Pack, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]);

    let found = index.multi_get(Table::Pack, &[b"c", b"x", b"a", b"c", b"b", b"a"]).unwrap();

    let expected = ["3", "-", "1", "3", "2", "1"].map(|text| (text != "-").then(|| text.into()));
    assert_eq!(found, expected);
    assert!(index.multi_get(Table::Pack, &[]).unwrap().is_empty());
}

pub(in super::super) fn the_last_change_of_a_row_counts(subject: &Subject) {
    let index = subject.open();
    put(&*index, Table::Meta, &[(b"put", b"0"), (b"gone", b"0")]);

    index
        .commit(batch_of(|batch| {
            batch.put(Table::Meta, b"put".as_slice(), b"1".as_slice());
            batch.delete(Table::Meta, b"put".as_slice());
            batch.put(Table::Meta, b"put".as_slice(), b"2".as_slice());
            batch.put(Table::Meta, b"gone".as_slice(), b"1".as_slice());
            batch.delete(Table::Meta, b"gone".as_slice())
        }))
        .unwrap();

    assert_eq!(get(&*index, Table::Meta, b"put"), Some(b"2".to_vec()));
    assert_eq!(get(&*index, Table::Meta, b"gone"), None);
}

pub(in super::super) fn a_scan_answers_exactly_its_range(subject: &Subject) {
    let index = subject.open();
    let stored: [&[u8]; 7] = [b"a", b"a\0", b"aa", b"ab", b"b", b"\xff", b"\xff\xff\x01"];
    put(&*index, Table::Chunk, &stored.map(|key| (key, b"v".as_slice())));
    put(&*index, Table::Pack, &[(b"aaa", b"other table")]);
    let ranges = [
        KeyRange::all(),
        KeyRange::prefix(b"a"),
        KeyRange::prefix(b"\xff"),
        KeyRange::prefix(b"\xff\xff"),
        KeyRange::prefix(b"nothing"),
        KeyRange::between(b"a\0", b"b"),
        KeyRange::between(b"a", b"a"),
        KeyRange::between(b"b", b"a"),
        KeyRange::all().after(b"a"),
        KeyRange::prefix(b"a").after(b"aa"),
        KeyRange::prefix(b"a").after(b"b"),
        KeyRange::prefix(b"b").after(b"a"),
    ];

    for range in ranges {
        let found = scan(&*index, &range, 100);
        let expected: Vec<_> = stored.into_iter().filter(|key| range.contains(key)).collect();
        assert_eq!(keys(&found), expected, "{range:?}");
        assert_eq!(found.rest, None, "{range:?}");
    }
}

pub(in super::super) fn a_scan_in_pieces_answers_every_row_once(subject: &Subject) {
    let index = subject.open();
    let stored: Vec<_> = (0..23_u8).map(|n| vec![n / 5, n]).collect();
    let mut batch = Batch::new();
    for key in &stored {
        batch.put(Table::Chunk, key.clone(), b"v".as_slice());
    }
    index.commit(batch).unwrap();

    for limit in [1, 2, 5, 22, 23, 24] {
        let mut found = Vec::new();
        let mut next = Some(KeyRange::all());
        while let Some(range) = next {
            let piece = scan(&*index, &range, limit);
            assert!(piece.rows.len() <= limit, "{} rows with a limit of {limit}", piece.rows.len());
            assert!(piece.rest.is_none() || piece.rows.len() == limit, "less than could be had");
            found.extend(piece.rows.into_iter().map(|row| row.key));
            next = piece.rest;
        }
        assert_eq!(found, stored, "with a limit of {limit}");
    }
}

/// X5: large rows do not fill the memory, and none of them is left out.
pub(in super::super) fn a_scan_is_bounded_in_bytes(subject: &Subject) {
    let index = subject.open();
    let rows = MAX_SCAN_BYTES / MAX_VALUE_LEN + 3;
    let batch = batch_of(|batch| {
        for n in 0..rows {
            batch.put(Table::Manifest, n.to_be_bytes(), vec![7; MAX_VALUE_LEN]);
        }
        batch
    });
    index.commit(batch).unwrap();

    let found = index.scan(Table::Manifest, &KeyRange::all(), NonZeroUsize::MAX).unwrap();

    let bytes: usize = found.rows.iter().map(|row| row.key.len() + row.value.len()).sum();
    assert!(bytes < MAX_SCAN_BYTES + MAX_VALUE_LEN + MAX_KEY_LEN, "{bytes} bytes");
    assert!(found.rows.len() < rows, "the scenario no longer reaches the bound");
    assert_eq!(all_rows(&*index, Table::Manifest).len(), rows);
}

/// X3: each kind of precondition, holding and not.
pub(in super::super) fn a_failed_precondition_changes_nothing(subject: &Subject) {
    let index = subject.open();
    put(&*index, Table::Chunk, &[(b"there", b"1")]);
    let equals = |value: &[u8]| Precondition::Equals(value.to_vec());
    let cases = [
        (b"there".as_slice(), Precondition::Present, true),
        (b"there", Precondition::Absent, false),
        (b"there", equals(b"1"), true),
        (b"there", equals(b"2"), false),
        (b"there", equals(b""), false),
        (b"none", Precondition::Present, false),
        (b"none", Precondition::Absent, true),
        (b"none", equals(b""), false),
    ];

    for (key, precondition, holds) in cases {
        let batch = batch_of(|batch| {
            batch.put(Table::Meta, b"counter".as_slice(), b"new".as_slice());
            batch.delete(Table::Pack, b"kept".as_slice());
            batch.require(Table::Chunk, key, precondition.clone())
        });
        put(&*index, Table::Meta, &[(b"counter", b"old")]);
        put(&*index, Table::Pack, &[(b"kept", b"1")]);
        let outcome = index.commit(batch);
        let applied = get(&*index, Table::Meta, b"counter") == Some(b"new".to_vec());
        let deleted = get(&*index, Table::Pack, b"kept").is_none();
        assert_eq!((outcome.is_ok(), applied, deleted), (holds, holds, holds), "{key:?} {precondition:?}");
    }
}

/// X3: the caller learns which precondition failed, in the order in which they were given.
pub(in super::super) fn the_first_failed_precondition_is_named(subject: &Subject) {
    let index = subject.open();
    put(&*index, Table::Pack, &[(b"there", b"1")]);
    let batch = batch_of(|batch| {
        batch.require(Table::Pack, b"there".as_slice(), Precondition::Present);
        batch.require(Table::Session, b"first".as_slice(), Precondition::Present);
        batch.require(Table::Chunk, b"second".as_slice(), Precondition::Present)
    });

    let refused = index.commit(batch).unwrap_err();

    let IndexError::Precondition { table, key } = &refused else { panic!("{refused:?}") };
    assert_eq!((*table, key.as_slice()), (Table::Session, b"first".as_slice()));
    assert!(!refused.is_fatal());
}

/// X3: a row may be required to be absent and put in the same batch.
pub(in super::super) fn preconditions_see_the_rows_before_the_batch(subject: &Subject) {
    let index = subject.open();
    let create = batch_of(|batch| {
        batch.put(Table::Snapshot, b"s".as_slice(), b"1".as_slice());
        batch.require(Table::Snapshot, b"s".as_slice(), Precondition::Absent)
    });

    index.commit(create.clone()).unwrap();
    let again = index.commit(create).unwrap_err();

    assert!(matches!(again, IndexError::Precondition { .. }), "{again:?}");
    index.commit(Batch::new()).expect("a batch that does nothing can be done");
}

/// X5
pub(in super::super) fn a_batch_over_a_limit_changes_nothing(subject: &Subject) {
    let index = subject.open();
    let refused = [
        batch_of(|batch| batch.put(Table::Chunk, [], b"empty key".as_slice())),
        batch_of(|batch| batch.put(Table::Chunk, vec![1; MAX_KEY_LEN + 1], b"long key".as_slice())),
        batch_of(|batch| batch.put(Table::Chunk, b"k".as_slice(), vec![1; MAX_VALUE_LEN + 1])),
        batch_of(|batch| batch.delete(Table::Chunk, vec![1; MAX_KEY_LEN + 1])),
        batch_of(|batch| {
            for n in 0..=MAX_BATCH_WEIGHT / MAX_VALUE_LEN {
                batch.put(Table::Chunk, n.to_be_bytes(), vec![1; MAX_VALUE_LEN]);
            }
            batch
        }),
    ];

    for mut batch in refused {
        batch.put(Table::Meta, b"k".as_slice(), b"with it".as_slice());
        let outcome = index.commit(batch).unwrap_err();
        assert!(matches!(outcome, IndexError::TooLarge { .. }) && !outcome.is_fatal(), "{outcome:?}");
    }
    assert!(Table::ALL.iter().all(|table| all_rows(&*index, *table).is_empty()));
}

/// X5: what is within the limits is stored as it is.
pub(in super::super) fn rows_at_the_limits_are_kept(subject: &Subject) {
    let rows: Vec<_> = (0..40_u8)
        .map(|n| {
            let mut key = vec![u8::MAX; MAX_KEY_LEN];
            *key.last_mut().unwrap() = n;
            (key, vec![n; MAX_VALUE_LEN])
        })
        .collect();
    let index = subject.open();
    for row in &rows {
        index.commit(batch_of(|batch| batch.put(Table::Manifest, row.0.clone(), row.1.clone()))).unwrap();
    }
    drop(index);

    let index = subject.open();

    let found: Vec<_> =
        all_rows(&*index, Table::Manifest).into_iter().map(|row| (row.key, row.value)).collect();
    assert!(found == rows, "{} of {} rows, or other bytes in them", found.len(), rows.len());
    assert_eq!(get(&*index, Table::Manifest, &rows[7].0), Some(rows[7].1.clone()));
}

/// X1: what was acknowledged is there, and nothing else.
pub(in super::super) fn acknowledged_batches_are_there_after_reopening(subject: &Subject) {
    for round in 0..4_u8 {
        let index = subject.open();
        for earlier in 0..round {
            assert_eq!(get(&*index, Table::Chunk, &[earlier]), Some(vec![earlier]), "round {round}");
        }
        assert_eq!(get(&*index, Table::Session, b"s"), None, "a deleted row came back in round {round}");
        put(&*index, Table::Session, &[(b"s", &[round])]);
        index
            .commit(batch_of(|batch| {
                batch.put(Table::Chunk, [round], [round]);
                batch.put(Table::Meta, b"round".as_slice(), [round]);
                batch.delete(Table::Session, b"s".as_slice())
            }))
            .unwrap();
        let refused = batch_of(|batch| {
            batch.put(Table::Chunk, b"refused".as_slice(), b"1".as_slice());
            batch.require(Table::Meta, b"round".as_slice(), Precondition::Absent)
        });
        index.commit(refused).unwrap_err();
    }
    let index = subject.open();
    assert_eq!(get(&*index, Table::Meta, b"round"), Some(vec![3]));
    assert_eq!(all_rows(&*index, Table::Chunk).len(), 4);
}

/// X2
pub(in super::super) fn a_large_batch_over_all_tables_is_whole(subject: &Subject) {
    let index = subject.open();
    let mut batch = Batch::new();
    for n in 0..20_000_u32 {
        for table in Table::ALL {
            batch.put(table, n.wrapping_mul(0x9e37_79b1).to_be_bytes(), n.to_be_bytes());
        }
    }
    assert!(batch.weight() > MAX_BATCH_WEIGHT / 4, "the scenario is no longer large");
    let rows = batch.len();
    index.commit(batch).unwrap();
    drop(index);

    let index = subject.open();

    let found: usize = Table::ALL.iter().map(|table| all_rows(&*index, *table).len()).sum();
    assert_eq!(found, rows);
}

/// X3: nobody changes a row between the check of it and the change.
pub(in super::super) fn concurrent_increments_are_not_lost(subject: &Subject) {
    const THREADS: usize = 4;
    const INCREMENTS: u64 = 30;
    let index = subject.open();
    put(&*index, Table::Meta, &[(b"counter", &0_u64.to_be_bytes())]);

    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                (0..INCREMENTS).for_each(|_| increment(&*index));
            });
        }
    });

    let expected = (u64::try_from(THREADS).unwrap() * INCREMENTS).to_be_bytes().to_vec();
    assert_eq!(get(&*index, Table::Meta, b"counter"), Some(expected));
}

fn increment(index: &dyn Index) {
    loop {
        let old = get(index, Table::Meta, b"counter").expect("the counter");
        let new = u64::from_be_bytes(old.as_slice().try_into().unwrap()) + 1;
        let batch = batch_of(|batch| {
            batch.put(Table::Meta, b"counter".as_slice(), new.to_be_bytes());
            batch.require(Table::Meta, b"counter".as_slice(), Precondition::Equals(old))
        });
        match index.commit(batch) {
            Ok(()) => return,
            Err(IndexError::Precondition { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// X2: rows of a batch appear together to one call, and stay to the next.
pub(in super::super) fn a_reader_never_sees_half_a_batch(subject: &Subject) {
    const ROUNDS: u32 = 100;
    const READS: u32 = 200;
    let index = subject.open();
    let (reads, is_done) = (AtomicU32::new(0), AtomicBool::new(false));
    write_round(&*index, 0);

    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                read_round(&*index);
                reads.fetch_add(1, Ordering::AcqRel);
            }
        });
        let is_short = |round| round < ROUNDS || reads.load(Ordering::Acquire) < READS;
        for round in (1..).take_while(|round| is_short(*round) && !reader.is_finished()) {
            write_round(&*index, round);
        }
        is_done.store(true, Ordering::Release);
    });
}

const ROUND_KEYS: u8 = 20;

fn write_round(index: &dyn Index, round: u32) {
    let batch = batch_of(|batch| {
        for key in 0..ROUND_KEYS {
            batch.put(Table::Chunk, [key], round.to_be_bytes());
            batch.put(Table::Pack, [key], round.to_be_bytes());
        }
        batch
    });
    index.commit(batch).unwrap();
}

fn read_round(index: &dyn Index) {
    let first = get(index, Table::Chunk, &[0]).expect("a row that is always there");
    let keys: Vec<_> = (0..ROUND_KEYS).map(|key| [key]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 1]>::as_slice).collect();
    let together = index.multi_get(Table::Chunk, &keys).unwrap();
    assert!(together.windows(2).all(|pair| pair[0] == pair[1]), "half a batch: {together:?}");
    assert!(together[0] >= Some(first), "an older batch after a newer one");
    let scanned = index.scan(Table::Pack, &KeyRange::all(), NonZeroUsize::MAX).unwrap().rows;
    assert!(scanned.windows(2).all(|pair| pair[0].value == pair[1].value), "half a batch: {scanned:?}");
    assert!(Some(&scanned[0].value) >= together[0].as_ref(), "a table lags behind another");
}

fn batch_of(fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
    let mut batch = Batch::new();
    fill(&mut batch);
    batch
}

fn put(index: &dyn Index, table: Table, rows: &[(&[u8], &[u8])]) {
    let mut batch = Batch::new();
    for (key, value) in rows {
        batch.put(table, *key, *value);
    }
    index.commit(batch).unwrap();
}

fn get(index: &dyn Index, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    index.get(table, key).unwrap()
}

fn scan(index: &dyn Index, range: &KeyRange, limit: usize) -> Rows {
    index.scan(Table::Chunk, range, NonZeroUsize::new(limit).unwrap()).unwrap()
}

fn keys(found: &Rows) -> Vec<&[u8]> {
    found.rows.iter().map(|row| row.key.as_slice()).collect()
}
