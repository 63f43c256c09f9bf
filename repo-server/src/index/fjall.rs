//! The default engine: a log-structured merge tree for each table, with one journal for all.
//!
//! Additions around the engine, and their reasons (fjall 3.1.13, read in its source):
//! - Every read uses a snapshot that was taken while no commit ran. fjall's own newest snapshot can show half
//!   of a batch: work in the background raises the number up to which rows are visible.
//! - We decide when rows in memory are written out, and then do so for all tables at once. Left to fjall,
//!   a table that is rarely written keeps every journal since its last row, because that row is in memory
//!   only; and a commit that waits for the disk waits for ever if the thread that writes has failed.
//! - One thread works in the background. With two, one of them turns round and round, on a whole core,
//!   while the other merges.
//! - No table is emptied with `clear()`, which does not mix with recovery.
//! - Every commit numbers itself, in a row of its own: see [`Order`]. fjall's checksums do not cover the number by
//!   which it puts the commits of its journal in order.
//! - The lists of files are compared with their checksums before it opens them: see [`versions`].

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ::fjall::compaction::Leveled;
use ::fjall::config::CompressionPolicy;
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::batch::{Batch, is_storable};
use super::folder::{Folder, Missing};
use super::space::Space;
use super::{Engine, Index, IndexError, KeyRange, MAX_KEY_LEN, OpenError, Row, Rows, Table};
use crate::durable::Disk;
use order::Order;

/// Blocks of tables that are kept in memory.
const CACHE_BYTES: u64 = 64 << 20;

/// Rows in memory, by fjall's count, from which on they are written out. They take about twice as much.
const WRITE_OUT_BYTES: u64 = 24 << 20;

/// Rows in memory, by fjall's count, from which on commits wait for the disk.
const WAIT_BYTES: u64 = 48 << 20;

/// Between two looks at whether the disk has caught up.
const WAIT_POLL: Duration = Duration::from_millis(1);

/// Size of a table's files. Small, so that no merge keeps the one thread that does them for long.
const FILE_BYTES: u64 = 32 << 20;

/// Comes after every key that a row can have.
const AFTER_ALL: [u8; MAX_KEY_LEN + 1] = [u8::MAX; MAX_KEY_LEN + 1];

/// An index in a fjall database.
pub(super) struct FjallIndex {
    /// The newest state that readers may be shown: one without a running commit.
    committed: RwLock<Arc<Snapshot>>,
    /// Held through a commit, so that its preconditions still hold when it is applied.
    committing: Mutex<Order>,
    tables: Vec<(Table, Keyspace)>,
    /// Where commits number themselves.
    order: Keyspace,
    db: Database,
    space: Space,
    /// Dropped last: the folder is free when the database has closed it.
    _folder: Folder,
}

/// State of the transfer of rows from memory to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Empty,
    Busy,
}

impl FjallIndex {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, missing: Missing) -> Result<Self, OpenError> {
        let refused = |source: ::fjall::Error| OpenError::Engine {
            dir: dir.to_owned(),
            engine: Engine::Fjall,
            source: source.into(),
        };
        let folder = Folder::claim(disk, dir, missing)?;
        let create = |data: &Path| {
            let Opened { db, .. } = open_database(data).map_err(refused)?;
            // Closing it syncs the journal too, and keeps an error of that to itself.
            db.persist(PersistMode::SyncAll).map_err(refused)
        };
        let data = folder.database(Engine::Fjall, missing, create)?;
        let damaged = |source| OpenError::Engine { dir: dir.to_owned(), engine: Engine::Fjall, source };
        versions::check(&data).map_err(damaged)?;
        let Opened { db, tables, order } = open_database(&data).map_err(refused)?;
        let committing = Mutex::new(Order::read(&order).map_err(damaged)?);
        // Opening makes files as well: what it repaired, and tables that an older version did not have.
        folder.sync_tree(&data)?;
        let committed = RwLock::new(Arc::new(db.snapshot()));
        let space = Space::new(dir);
        Ok(Self { committed, committing, tables, order, db, space, _folder: folder })
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        let found = self.tables.iter().find(|(of, _)| *of == table);
        &found.expect("every table was opened").1
    }

    fn committed(&self) -> Arc<Snapshot> {
        // A snapshot keeps the files and the rows in memory that it was taken from. So a fresh one is
        // taken whenever that can be done.
        if let Ok(_no_commit_runs) = self.committing.try_lock() {
            return self.refresh();
        }
        // Replaced in one step, so a panicking holder leaves a whole one behind.
        Arc::clone(&self.committed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a fresh snapshot. To be called only by who holds `committing`.
    fn refresh(&self) -> Arc<Snapshot> {
        let committed = Arc::new(self.db.snapshot());
        *self.committed.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&committed);
        committed
    }

    fn apply(&self, batch: Batch, order: &mut Order) -> Result<(), ::fjall::Error> {
        let mut writes = self.db.batch().durability(Some(PersistMode::SyncAll));
        for (table, key, value) in batch.into_changes() {
            match value {
                Some(value) => writes.insert(self.keyspace(table), key, value),
                None => writes.remove(self.keyspace(table), key),
            }
        }
        order.add_next(&mut writes, &self.order);
        writes.commit()?;
        order.made();
        Ok(())
    }

    /// Keeps the rows in memory few: has them written out, and waits if they are far too many.
    fn make_room(&self) -> Result<(), ::fjall::Error> {
        loop {
            let buffered = self.db.write_buffer_size();
            if buffered <= WRITE_OUT_BYTES || self.write_out()? == Queue::Empty || buffered <= WAIT_BYTES {
                return Ok(());
            }
            // Fails if the thread in the background has failed: then the rows would never be written.
            self.db.persist(PersistMode::Buffer)?;
            #[expect(clippy::disallowed_methods, reason = "fjall has no call that waits for this")]
            std::thread::sleep(WAIT_POLL);
        }
    }

    /// Writes out the rows in memory now if they are many, so that the next commit does not wait for it.
    fn write_out_many(&self) -> Result<(), ::fjall::Error> {
        if self.db.write_buffer_size() > WRITE_OUT_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// Writes out the rows in memory of every table in the background, one round at a time.
    ///
    /// When a round is through, no journal from before it is needed any more, whatever a table holds.
    fn write_out(&self) -> Result<Queue, ::fjall::Error> {
        if self.keyspaces().any(|keyspace| keyspace.sealed_memtable_count() > 0) {
            return Ok(Queue::Busy);
        }
        let mut queue = Queue::Empty;
        for keyspace in self.keyspaces() {
            if keyspace.rotate_memtable()? {
                queue = Queue::Busy;
            }
        }
        Ok(queue)
    }

    fn stored_bytes(&self) -> u64 {
        self.keyspaces().map(Keyspace::disk_space).sum()
    }

    fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.tables.iter().map(|(_, table)| table).chain([&self.order])
    }
}

impl Index for FjallIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        value(&self.committed(), self.keyspace(table), table, key)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        values(&self.committed(), self.keyspace(table), table, keys)
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        if range.is_empty() {
            return Ok(Rows { rows: Vec::new(), rest: None });
        }
        let end = range.end().unwrap_or(&AFTER_ALL);
        let found = self.committed().range(self.keyspace(table), range.start()..end).map(|row| {
            let (key, value) = row.into_inner().map_err(|error| IndexError::read(table, error))?;
            Ok(Row { key: key.to_vec(), value: value.to_vec() })
        });
        Rows::collect(range, limit, found)
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        batch.check_limits()?;
        let mut order =
            self.committing.lock().map_err(|_| IndexError::commit("an earlier commit panicked"))?;
        let committed = self.refresh();
        batch.check_preconditions(|table, keys| values(&committed, self.keyspace(table), table, keys))?;
        drop(committed);
        if batch.is_empty() {
            return Ok(());
        }
        self.space.check(self.stored_bytes())?;
        let applied = self.make_room().and_then(|()| self.apply(batch, &mut order));
        applied.and_then(|()| self.write_out_many()).map_err(IndexError::commit)?;
        self.refresh();
        Ok(())
    }
}

/// Looks up `keys` in key order: neighbours share what is in the processor's caches, and at times a block.
fn values(
    committed: &Snapshot,
    keyspace: &Keyspace,
    table: Table,
    keys: &[&[u8]],
) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
    let mut wanted: Vec<_> = keys.iter().copied().enumerate().collect();
    wanted.sort_unstable_by_key(|(_, key)| *key);
    let mut found = Vec::with_capacity(wanted.len());
    for (at, key) in wanted {
        found.push((at, value(committed, keyspace, table, key)?));
    }
    found.sort_unstable_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, value)| value).collect())
}

fn value(
    committed: &Snapshot,
    keyspace: &Keyspace,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, IndexError> {
    if !is_storable(key) {
        return Ok(None);
    }
    let found = committed.get(keyspace, key).map_err(|error| IndexError::read(table, error))?;
    Ok(found.map(|value| value.to_vec()))
}

/// A database and all that is in it.
struct Opened {
    tables: Vec<(Table, Keyspace)>,
    order: Keyspace,
    db: Database,
}

fn open_database(data: &Path) -> Result<Opened, ::fjall::Error> {
    let db = Database::builder(data).cache_size(CACHE_BYTES).worker_threads(1).open()?;
    let open = |table: Table| Ok((table, db.keyspace(table.name(), options)?));
    let tables = Table::ALL.into_iter().map(open).collect::<Result<_, ::fjall::Error>>()?;
    let order = db.keyspace(order::NAME, options)?;
    Ok(Opened { tables, order, db })
}

/// How a new table is stored. fjall keeps this with the table, so a change is for new indexes only.
///
/// Filters are fjall's: 10 bits for each key, and about 20 for the newest files. They answer nearly
/// every look-up of an absent key from memory.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        // Never automatically: see `FjallIndex::write_out`.
        .max_memtable_size(u64::MAX)
        // Hashes do not compress.
        .data_block_compression_policy(CompressionPolicy::disabled())
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(FILE_BYTES)))
}

mod order;
#[cfg(test)]
mod tests;
mod versions;
