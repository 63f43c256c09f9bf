use std::fs;

use super::super::conformance::{self, Subject};
use super::super::copy_tree;
use super::super::{MAX_KEY_LEN, MAX_VALUE_LEN, open_existing};
use super::*;
use crate::durable::RealDisk;
use crate::durable::shadow::{Names, ShadowDisk};

conformance::suite!(|| Subject::on_disk(Engine::Sled));

fn put(index: &SledIndex, table: Table, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    index.commit(batch)
}

/// X1: a kill leaves the files as they are.
#[test]
fn a_kill_after_an_acknowledgement_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let killed = tempfile::tempdir().unwrap();
    let index = SledIndex::open(Arc::new(RealDisk), dir.path(), Missing::Create).unwrap();
    for n in 0..20_u8 {
        put(&index, Table::Chunk, &[n], b"v").unwrap();
    }

    copy_tree(dir.path(), killed.path());

    let index = open_existing(Engine::Sled, killed.path()).unwrap();
    for n in 0..20_u8 {
        assert_eq!(index.get(Table::Chunk, &[n]).unwrap(), Some(b"v".to_vec()));
    }
}

/// True if a row survives a power cut at its acknowledgement.
fn is_kept(left_out: Option<&str>) -> bool {
    let world = tempfile::tempdir().unwrap();
    let (dir, after) = (world.path().join("index"), world.path().join("after"));
    drop(SledIndex::open(Arc::new(RealDisk), &dir, Missing::Create).unwrap());
    let disk = ShadowDisk::default();
    disk.settle(&dir).unwrap();
    let index = SledIndex::open(Arc::new(disk.clone()), &dir, Missing::Refuse).unwrap();
    left_out.into_iter().for_each(|path| disk.leave_out(&dir.join(path)));

    put(&index, Table::Chunk, b"k", b"v").unwrap();

    disk.cut_power(&dir, &after, Names::Synced).unwrap();
    drop(index);
    let index = open_existing(Engine::Sled, &after).unwrap();
    index.get(Table::Chunk, b"k").unwrap().is_some()
}

/// X1, P5: sled's own flush is not counted on.
#[test]
fn a_row_needs_the_sync_of_the_file_to_outlive_a_power_cut() {
    assert!(is_kept(None));
    assert!(!is_kept(Some("db/data/db")));
}

/// X1: such files are never flushed, so an acknowledged row in one could be lost.
#[test]
fn rows_at_the_limits_do_not_become_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let index = SledIndex::open(Arc::new(RealDisk), dir.path(), Missing::Create).unwrap();
    for step in 0..100_u8 {
        let mut batch = Batch::new();
        for n in 0..4 {
            let mut key = vec![step.wrapping_mul(101); MAX_KEY_LEN];
            key[MAX_KEY_LEN - 1] = n;
            batch.put(Table::Manifest, key, vec![step; MAX_VALUE_LEN]);
        }
        index.commit(batch).unwrap();
    }

    let own_files = fs::read_dir(dir.path().join("db/data/blobs")).unwrap().count();

    assert_eq!(own_files, 0);
}

/// P8: a full disk costs the commit, not the index.
#[test]
fn a_full_disk_refuses_commits_and_leaves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = SledIndex::open(Arc::new(RealDisk), dir.path(), Missing::Create).unwrap();
    put(&index, Table::Meta, b"k", b"v").unwrap();
    index.space.set_reserve(u64::MAX);

    let refused = put(&index, Table::Meta, b"k", b"new").unwrap_err();

    assert!(matches!(refused, IndexError::Full { .. }) && !refused.is_fatal(), "{refused:?}");
    assert_eq!(index.get(Table::Meta, b"k").unwrap(), Some(b"v".to_vec()));
}

/// X4: what may not be on disk is not shown.
#[test]
fn nothing_is_read_or_written_after_a_failed_commit() {
    let dir = tempfile::tempdir().unwrap();
    let index = SledIndex::open(Arc::new(RealDisk), dir.path(), Missing::Create).unwrap();
    put(&index, Table::Meta, b"k", b"v").unwrap();

    *index.health.write().unwrap() = Health::Failed;

    assert!(matches!(index.get(Table::Meta, b"k"), Err(IndexError::Read { .. })));
    assert!(put(&index, Table::Meta, b"k", b"new").unwrap_err().is_fatal());
}
