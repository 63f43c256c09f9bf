//! The engine of small repositories: one sled tree, with a tag before each key for its table.
//!
//! Additions around the engine, and their reasons (sled 0.34.7, read in its source):
//! - `flush` is not safe from a power cut: it neither flushes the disk's cache nor the file's length. Each
//!   commit flushes sled, then its file. A failed flush in sled's own thread is only logged, but the file
//!   is open here from the start, so the kernel reports the failure here too.
//! - sled shows rows before they are on disk. Readers wait while a commit runs.
//! - A page over a quarter of a segment would become a file of its own that is never flushed. Segments are
//!   so large that no page of rows within the limits gets there.
//! - What a batch replaces in memory is freed a little at a time by later calls, and a large batch replaces
//!   more than it frees: memory grows without end. Each commit is followed by enough cheap calls.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use ::sled::{Config, Db};
use rustix::fs::{FlockOperation, flock};

use super::batch::{Batch, is_storable};
use super::folder::{Folder, Missing};
use super::space::Space;
use super::{Engine, Index, IndexError, KeyRange, OpenError, Row, Rows, Table};
use crate::durable::{Disk, DiskFile};

/// The only file that sled keeps rows in.
const FILE: &str = "db";

/// Pages that are kept in memory.
const CACHE_BYTES: u64 = 64 << 20;

/// sled's unit of space. A page holds up to about 20 rows, and over a quarter of this it is not flushed.
const SEGMENT_BYTES: usize = 8 << 20;

/// Changes of a batch for each pass that frees what they replaced.
const CHANGES_PER_PASS: usize = 32;

/// Checks for a closed database's file lock before it gives up.
const CLOSING_PASSES: usize = 10_000;

/// An index in a sled database.
pub(super) struct SledIndex {
    /// Held by readers while they read, and by a commit until its batch is on disk.
    health: RwLock<Health>,
    db: Db,
    /// sled's file. Dropped after the database.
    closing: Closing,
    /// sled's file, to be synced: its length grows, and it is the only one that rows are in.
    file: Mutex<Box<dyn DiskFile>>,
    space: Space,
    /// Dropped last: the folder is free when the database has closed it.
    _folder: Folder,
}

/// Agreement of the rows that sled shows with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    Failed,
}

impl SledIndex {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, missing: Missing) -> Result<Self, OpenError> {
        let refused = |source: ::sled::Error| OpenError::Engine {
            dir: dir.to_owned(),
            engine: Engine::Sled,
            source: source.into(),
        };
        let folder = Folder::claim(Arc::clone(&disk), dir, missing)?;
        let data = folder.database(Engine::Sled, missing, |data| {
            let db = open_database(data).map_err(refused)?;
            let closing = Closing(open_file(&data.join(FILE))?);
            drop(db);
            drop(closing);
            Ok(())
        })?;
        let db = open_database(&data).map_err(refused)?;
        let closing = Closing(open_file(&data.join(FILE))?);
        let file =
            disk.open_folder(&data).and_then(|data| data.open_file(&FILE.parse().map_err(io::Error::other)?));
        let file = Mutex::new(file.map_err(|source| OpenError::Io { path: data.join(FILE), source })?);
        let space = Space::new(dir);
        Ok(Self { health: RwLock::new(Health::Sound), db, closing, file, space, _folder: folder })
    }

    /// Lets a reader in, unless a commit failed and left rows that may not be on disk.
    fn reading(&self, table: Table) -> Result<RwLockReadGuard<'_, Health>, IndexError> {
        match self.health.read() {
            Ok(health) if *health == Health::Sound => Ok(health),
            _ => Err(IndexError::read(table, EARLIER_FAILURE)),
        }
    }

    fn values(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        keys.iter().map(|key| self.value(table, key)).collect()
    }

    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        if !is_storable(key) {
            return Ok(None);
        }
        let found = self.db.get(tagged(table, key)).map_err(|error| IndexError::read(table, error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn apply(&self, batch: Batch) -> Result<(), IndexError> {
        let mut writes = ::sled::Batch::default();
        for (table, key, value) in batch.into_changes() {
            match value {
                Some(value) => writes.insert(tagged(table, &key), value),
                None => writes.remove(tagged(table, &key)),
            }
        }
        self.db.apply_batch(writes).map_err(IndexError::commit)?;
        self.db.flush().map_err(IndexError::commit)?;
        // Commits come one after the other, so no sync is in progress.
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync().map_err(IndexError::commit)
    }
}

/// Frees what sled has replaced and no longer uses, as far as that can be done now.
///
/// sled frees a little at every call. A batch is one call, however much it replaces.
fn free_replaced(changes: usize) {
    for _ in 0..=changes / CHANGES_PER_PASS {
        ::sled::pin().flush();
    }
}

/// Waits until a closed sled database has closed its file, which it does some time later.
struct Closing(File);

impl Drop for Closing {
    fn drop(&mut self) {
        for _ in 0..CLOSING_PASSES {
            ::sled::pin().flush();
            if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Index for SledIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let _reading = self.reading(table)?;
        self.value(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let _reading = self.reading(table)?;
        self.values(table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        let _reading = self.reading(table)?;
        if range.is_empty() {
            return Ok(Rows { rows: Vec::new(), rest: None });
        }
        let end = match range.end() {
            Some(end) => tagged(table, end),
            None => vec![tag(table) + 1],
        };
        let found = self.db.range(tagged(table, range.start())..end).map(|row| {
            let (key, value) = row.map_err(|error| IndexError::read(table, error))?;
            Ok(Row { key: key.iter().skip(1).copied().collect(), value: value.to_vec() })
        });
        Rows::collect(range, limit, found)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        batch.check_limits()?;
        let mut health = self.health.write().map_err(|_| IndexError::commit(EARLIER_FAILURE))?;
        if *health == Health::Failed {
            return Err(IndexError::commit(EARLIER_FAILURE));
        }
        batch.check_preconditions(|table, keys| self.values(table, keys))?;
        if batch.is_empty() {
            return Ok(());
        }
        self.space.check(self.closing.0.metadata().map_err(IndexError::commit)?.len())?;
        let changes = batch.len();
        self.apply(batch).inspect_err(|_| *health = Health::Failed)?;
        free_replaced(changes);
        Ok(())
    }
}

const EARLIER_FAILURE: &str = "an earlier commit failed";

fn open_database(data: &Path) -> ::sled::Result<Db> {
    Config::new().path(data).cache_capacity(CACHE_BYTES).segment_size(SEGMENT_BYTES).open()
}

fn open_file(path: &Path) -> Result<File, OpenError> {
    File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn tagged(table: Table, key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(1 + key.len());
    tagged.push(tag(table));
    tagged.extend_from_slice(key);
    tagged
}

/// Prefix of the keys of a table. Stored, so it never changes.
const fn tag(table: Table) -> u8 {
    match table {
        Table::Chunk => 1,
        Table::Pack => 2,
        Table::Snapshot => 3,
        Table::Manifest => 4,
        Table::Session => 5,
        Table::Meta => 6,
        Table::Mark => 7,
        Table::Idle => 8,
        Table::Doomed => 9,
        Table::Damaged => 10,
    }
}

#[cfg(test)]
mod tests;
