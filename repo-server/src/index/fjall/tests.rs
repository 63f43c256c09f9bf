use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::super::conformance::{self, Subject};
use super::super::copy_tree;
use super::super::open_existing;
use super::*;
use crate::durable::RealDisk;
use crate::durable::shadow::{Names, ShadowDisk};

conformance::suite!(|| Subject::on_disk(Engine::Fjall));

fn create(dir: &Path) -> FjallIndex {
    FjallIndex::open(Arc::new(RealDisk), dir, Missing::Create).unwrap()
}

fn put(index: &FjallIndex, table: Table, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    index.commit(batch)
}

/// Rows of `bytes` in all, each short enough to be written to the journal as it is.
fn fill(index: &FjallIndex, table: Table, bytes: usize) -> Result<(), IndexError> {
    const PER_BATCH: usize = 1_000;
    const VALUE_LEN: usize = 4_000;
    for first in (0..bytes / VALUE_LEN).step_by(PER_BATCH) {
        let mut batch = Batch::new();
        for n in first..first + PER_BATCH {
            batch.put(table, n.to_be_bytes(), vec![1; VALUE_LEN]);
        }
        index.commit(batch)?;
    }
    Ok(())
}

/// X1: a kill leaves the files as they are.
#[test]
fn a_kill_after_an_acknowledgement_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let killed = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    for n in 0..20_u8 {
        put(&index, Table::Chunk, &[n], b"v").unwrap();
    }

    copy_tree(dir.path(), killed.path());

    let index = open_existing(Engine::Fjall, killed.path()).unwrap();
    for n in 0..20_u8 {
        assert_eq!(index.get(Table::Chunk, &[n]).unwrap(), Some(b"v".to_vec()));
    }
}

/// X2: wherever the journal is cut, whole batches are left, and none is missing between others.
#[test]
fn a_torn_journal_loses_only_whole_batches_from_its_end() {
    const BATCHES: u8 = 8;
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    for n in 0..BATCHES {
        let mut batch = Batch::new();
        batch.put(Table::Chunk, [n], [n; 50]).put(Table::Pack, [n], [n; 50]);
        index.commit(batch).unwrap();
    }
    drop(index);
    let journal = fs::read(journals(dir.path()).pop().unwrap()).unwrap();
    let used = journal.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut most = 0;

    for cut in (0..=used).step_by(used / 40) {
        let torn = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), torn.path());
        fs::write(journals(torn.path()).pop().unwrap(), &journal[..cut]).unwrap();
        let index = open_existing(Engine::Fjall, torn.path()).unwrap();
        let there = |table| (0..BATCHES).map(move |n| (table, n));
        let found = |(table, n): (Table, u8)| index.get(table, &[n]).unwrap().is_some();
        let left = there(Table::Chunk).take_while(|row| found(*row)).count();
        assert_eq!(there(Table::Chunk).filter(|row| found(*row)).count(), left, "a gap, cut at {cut}");
        assert_eq!(there(Table::Pack).filter(|row| found(*row)).count(), left, "half a batch, cut at {cut}");
        assert!(left >= most, "less is left of more, cut at {cut}");
        most = left;
    }
    assert!(most >= usize::from(BATCHES) - 1, "the cuts no longer reach the last batch");
}

/// X1: whichever bit of the journal flips, what is opened then is as it was after one of the commits, or nothing is
/// opened. fjall alone opens some as it never was: the check of the order is what refuses them.
#[test]
fn a_flipped_bit_in_the_journal_leaves_commits_in_their_order_or_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    let state = |index: &FjallIndex| {
        let keys: Vec<[u8; 1]> = (0..3).map(|key| [key]).collect();
        let keys: Vec<&[u8]> = keys.iter().map(<[u8; 1]>::as_slice).collect();
        [Table::Chunk, Table::Pack].map(|table| index.multi_get(table, &keys).unwrap())
    };
    let mut states = vec![state(&index)];
    for n in 0..8 {
        let mut batch = Batch::new();
        batch
            .put(Table::Chunk, [n % 3], [n; 9])
            .put(Table::Pack, [n % 2], [n; 9])
            .delete(Table::Pack, [2 - n % 2]);
        index.commit(batch).unwrap();
        states.push(state(&index));
    }
    drop(index);
    let journal = fs::read(journals(dir.path()).pop().unwrap()).unwrap();
    let used = journal.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut as_it_was, mut refused, mut out_of_order) = (0, 0, 0);

    for at in (0..used).step_by(3) {
        let flipped = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), flipped.path());
        let mut bytes = journal.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(journals(flipped.path()).pop().unwrap(), bytes).unwrap();
        // The engine's own debug assertions, which a release does not have, refuse some of it by a panic.
        let open = || FjallIndex::open(Arc::new(RealDisk), flipped.path(), Missing::Refuse);
        match std::panic::catch_unwind(open) {
            Ok(Ok(index)) => {
                assert!(states.contains(&state(&index)), "byte {at} of {used}: {:?}", state(&index));
                as_it_was += 1;
            }
            Ok(Err(error)) if crate::error::Chain(&error).to_string().contains("out of their order") => {
                out_of_order += 1;
            }
            _ => refused += 1,
        }
    }
    println!(
        "{used} bytes, flips: {as_it_was} as after a commit, {refused} refused by fjall, {out_of_order} by the order"
    );
    assert!(out_of_order > 0 && refused > 0 && as_it_was > 0);
}

/// X1: whichever bit of a list of files flips, the index is as it was, or nothing is opened.
#[test]
fn a_flipped_bit_in_a_list_of_files_changes_nothing_or_leaves_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    for n in 0..6 {
        put(&index, Table::Chunk, b"row", &[n]).unwrap();
        put(&index, Table::Chunk, &[n], &[n]).unwrap();
        // Files that hold the same row: the order of them says which is newest.
        while index.write_out().unwrap() == Queue::Busy {
            std::thread::yield_now();
        }
    }
    let folder = index.keyspace(Table::Chunk).path().strip_prefix(dir.path()).unwrap().to_owned();
    drop(index);
    let current = fs::read(dir.path().join(&folder).join("current")).unwrap();
    let number = u64::from_le_bytes(*current.first_chunk().unwrap());
    let (mut same, mut refused) = (0, 0);

    for name in ["current".to_owned(), format!("v{number}")] {
        let whole = fs::read(dir.path().join(&folder).join(&name)).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let flipped = tempfile::tempdir().unwrap();
            copy_tree(dir.path(), flipped.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(flipped.path().join(&folder).join(&name), bytes).unwrap();
            match FjallIndex::open(Arc::new(RealDisk), flipped.path(), Missing::Refuse) {
                Ok(index) => {
                    assert_eq!(
                        index.get(Table::Chunk, b"row").unwrap(),
                        Some(vec![5]),
                        "byte {at} of {name}"
                    );
                    same += 1;
                }
                Err(OpenError::Engine { .. }) => refused += 1,
                Err(other) => panic!("byte {at} of {name}: {other:?}"),
            }
        }
    }
    assert!(refused > 0 && same == 0, "{refused} refused, {same} not");
}

/// A failed commit may have been written, and is no disorder.
#[test]
fn a_commit_after_one_that_failed_leaves_one_number() {
    for is_written in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let index = create(dir.path());
        let put = |n: u8| {
            let mut batch = Batch::new();
            batch.put(Table::Chunk, [n], [n]);
            batch
        };
        index.commit(put(0)).unwrap();
        {
            let mut order = index.committing.lock().unwrap();
            let mut writes = index.db.batch();
            order.add_next(&mut writes, &index.order);
            if is_written {
                writes.commit().unwrap();
            }
        }
        index.commit(put(1)).unwrap();
        drop(index);

        let index = FjallIndex::open(Arc::new(RealDisk), dir.path(), Missing::Refuse).unwrap();
        assert!(index.get(Table::Chunk, &[1]).unwrap().is_some());
        index.commit(put(2)).unwrap();
    }
}

/// X1, P5: opening makes files, here of the tables that an older version did not have.
#[test]
fn what_opening_makes_is_on_disk_before_it_is_used() {
    let world = tempfile::tempdir().unwrap();
    let dir = world.path().join("index");
    let folder = Folder::claim(Arc::new(RealDisk), &dir, Missing::Create).unwrap();
    let older = |data: &Path| {
        drop(Database::builder(data).open().unwrap());
        Ok(())
    };
    folder.database(Engine::Fjall, Missing::Create, older).unwrap();
    drop(folder);
    let disk = ShadowDisk::default();
    disk.settle(&dir).unwrap();
    let before = files(&dir);

    let index = FjallIndex::open(Arc::new(disk.clone()), &dir, Missing::Refuse).unwrap();
    let after = world.path().join("after");
    disk.cut_power(&dir, &after, Names::Synced).unwrap();

    assert_ne!(files(&dir), before, "opening made nothing");
    assert_eq!(files(&after), files(&dir));
    drop(index);
}

/// Every file at and below `dir`, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn journals(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("db/data")).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect()
}

/// A table whose rows were all deleted has nothing to write out, and must not keep the journals for it.
#[test]
fn rarely_written_tables_do_not_keep_journals() {
    let dir = tempfile::tempdir().unwrap();
    put(&create(dir.path()), Table::Snapshot, b"rare", b"row").unwrap();
    for round in 0..4 {
        let index = create(dir.path());
        put(&index, Table::Session, b"short", b"lived").unwrap();
        let mut batch = Batch::new();
        batch.delete(Table::Session, b"short".as_slice());
        index.commit(batch).unwrap();

        fill(&index, Table::Chunk, 70 << 20).unwrap();

        let journals = index.db.journal_count();
        assert!(journals <= 3, "{journals} journals in round {round}");
    }
}

#[test]
fn the_commit_that_makes_rows_in_memory_many_has_them_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    let chunks = index.keyspace(Table::Chunk);
    let leaves_memory = || chunks.sealed_memtable_count() > 0 || chunks.disk_space() > 0;
    fill(&index, Table::Chunk, 12 << 20).unwrap();
    assert!(!leaves_memory(), "few are kept");

    let mut batch = Batch::new();
    for n in 0..5_000_u32 {
        batch.put(Table::Chunk, n.to_be_bytes(), vec![2; 4_000]);
    }
    index.commit(batch).unwrap();

    assert!(leaves_memory());
}

/// P8: nothing is acknowledged any more when the thread that writes rows out has failed, and reads go on.
#[test]
fn a_failure_in_the_background_ends_commits_and_leaves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    put(&index, Table::Meta, b"k", b"v").unwrap();
    let files = index.keyspace(Table::Chunk).path().join("tables");
    fs::remove_dir_all(&files).unwrap();
    fs::write(&files, b"in the way").unwrap();

    let failed = fill(&index, Table::Chunk, 400 << 20).unwrap_err();

    assert!(failed.is_fatal(), "{failed:?}");
    assert!(put(&index, Table::Meta, b"k", b"new").unwrap_err().is_fatal());
    assert_eq!(index.get(Table::Meta, b"k").unwrap(), Some(b"v".to_vec()));
}

/// P8: a full disk costs the commit, not the index.
#[test]
fn a_full_disk_refuses_commits_and_leaves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = create(dir.path());
    put(&index, Table::Meta, b"k", b"v").unwrap();
    index.space.set_reserve(u64::MAX);

    let refused = put(&index, Table::Meta, b"k", b"new").unwrap_err();

    assert!(matches!(refused, IndexError::Full { .. }) && !refused.is_fatal(), "{refused:?}");
    assert_eq!(index.get(Table::Meta, b"k").unwrap(), Some(b"v".to_vec()));
    index.space.set_reserve(0);
    put(&index, Table::Meta, b"k", b"new").unwrap();
}

/// X2: also while rows are written out and merged beside the commits.
#[test]
fn a_reader_never_sees_half_a_batch_while_rows_are_written_out() {
    const ROWS: u32 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    let (first, last) = (0_u32.to_be_bytes(), (ROWS - 1).to_be_bytes());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..60_u32 {
                let mut batch = Batch::new();
                for key in 0..ROWS {
                    batch.put(Table::Chunk, key.to_be_bytes(), [round.to_be_bytes(); 10].concat());
                }
                index.commit(batch).unwrap();
            }
        });
        while !writer.is_finished() {
            let rows = index.multi_get(Table::Chunk, &[&first, &last]).unwrap();
            assert_eq!(rows[0], rows[1], "half a batch");
        }
    });
}
