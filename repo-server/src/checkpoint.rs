//! Checkpoints: the directories of packs, collected in a few objects on the site, so that a rebuild reads
//! those and the footers of newer packs, and not the footer of every pack.
//!
//! A checkpoint repeats footers and is only ever a shortcut. Which packs there are is said by the index, or
//! by the site when there is no index; a checkpoint that is missing or damaged costs time and nothing else.
//!
//! Each one covers the packs numbered since the last, and never changes. When more than half of the packs
//! that they cover together are deleted, all are dropped and rebuilt.
//!
//! Order of a write: its name is doomed → the object is put → one batch takes that back and says that it is
//! there. What a crash leaves half done is found by name and deleted by the collector.
//!
//! | key in the meta table | value |
//! |---|---|
//! | `checkpoint/next` | number of the first pack that none covers |
//! | `checkpoint/part/<64 hex digits>` | how many packs this one covers |

use std::sync::Arc;

use bytes::Bytes;
use format_spec::checkpoint::{Checkpoint, CheckpointPack, encoded_len};
use format_spec::object::{self, ObjectKind};
use format_spec::{CheckpointId, FORMAT_VERSION, FormatError, PackId, id};
use serde::Serialize;

use crate::catalog::{InFlight, publish};
use crate::defects;
use crate::defects::objects::Object;
use crate::error::ServerError;
use crate::health::gate;
use crate::index::{Batch, KeyRange, Table};
use crate::lease::{Kind, Upkeep};
use crate::operation::{self, InTurn, Operation, Progress};
use crate::pack::{read_directory, unreadable};
use crate::rows::Meta;
use crate::rows::{DoomedKey, DoomedRow, PackNumber, PackRow};
use crate::server::Server;
use crate::site::layout::checkpoint_object;
use crate::store::{Store, read_ahead};

/// New packs from which on a checkpoint is due.
const DUE_PACKS: usize = 1024;

/// Length from which on a checkpoint is full: it is made in memory.
const PART_BYTES: usize = 8 << 20;

/// Directories that are read at once.
const IN_FLIGHT: usize = 8;

const NEXT: &[u8] = Meta::CheckpointNext.bytes();
const PART: &[u8] = Meta::CheckpointPart.bytes();

/// When to write one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// If there are many new packs.
    Due,
    /// If there is any new pack.
    Now,
}

/// Summary of a written checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Objects.
    pub parts: u32,
    /// Packs that they cover.
    pub packs: u32,
    /// Objects that are of no use any more, and are to be deleted.
    pub dropped: u32,
}

/// Writes what is to be written. Waits while the collector or an audit runs.
///
/// # Errors
/// The site or the index failed. What was written by then is of use. [`ServerError::Refused`] while the index is
/// older than the site: it does not know which packs there are.
pub async fn run(server: &Arc<Server>, when: When) -> Result<Written, ServerError> {
    operation::run_unheard(server, when).await
}

impl Operation for When {
    const KIND: Kind = Kind("checkpoint");
    type Needs = InTurn<Upkeep>;
    type Report = Written;

    async fn run(self, server: &Arc<Server>, _: &Self::Needs, _: &Progress) -> Result<Written, ServerError> {
        let checked = move |server: &Arc<Server>| {
            gate::check(&server.store)?;
            write(&server.store, &server.in_flight, self, PART_BYTES)
        };
        server.waiting(checked).await
    }
}

fn write(
    store: &Arc<Store>,
    in_flight: &InFlight,
    when: When,
    part_bytes: usize,
) -> Result<Written, ServerError> {
    let mut written = Written::default();
    let mut next = next(store)?;
    let mut new = packs_from(store, next)?;
    if is_stale(store, new.len())? {
        written.dropped = drop_all(store)?;
        next = PackNumber(0);
        new = packs_from(store, next)?;
    }
    let is_due = match when {
        When::Due => new.len() >= DUE_PACKS,
        When::Now => !new.is_empty(),
    };
    if !is_due {
        return Ok(written);
    }
    let read = |(number, id, len): (PackNumber, PackId, u64)| {
        let store = Arc::clone(store);
        async move {
            let read = defects::twice(|| read_directory(&store, &id, len)).await;
            (number, id, len, defects::heed(&store, Object::Pack(number), read).await)
        }
    };
    let (mut packs, mut bytes, mut last) = (Vec::new(), 0, next);
    for answer in read_ahead(new, IN_FLIGHT, read) {
        let (number, id, len, directory) = answer?;
        match directory {
            Ok(directory) => {
                bytes += encoded_len(&directory);
                packs.push(CheckpointPack { id, len, directory });
            }
            Err(error) => {
                let problem = unreadable(&error).ok_or(error)?;
                tracing::warn!(pack = %id, problem, "the checkpoint omits a pack");
            }
        }
        last = PackNumber(number.0 + 1);
        if bytes >= part_bytes {
            written.add(put(store, in_flight, std::mem::take(&mut packs), last)?);
            bytes = 0;
        }
    }
    if !packs.is_empty() {
        written.add(put(store, in_flight, packs, last)?);
    }
    Ok(written)
}

impl Written {
    fn add(&mut self, packs: u32) {
        self.parts += 1;
        self.packs += packs;
    }
}

/// Number of the first pack that no checkpoint covers.
fn next(store: &Store) -> Result<PackNumber, ServerError> {
    match store.parts.index.get(Table::Meta, NEXT)? {
        None => Ok(PackNumber(0)),
        Some(value) => {
            let number = PackNumber::from_key(&value);
            number.ok_or_else(|| ServerError::Row { object: "the checkpoints".to_owned() })
        }
    }
}

/// Packs with this number or a greater one.
fn packs_from(store: &Store, first: PackNumber) -> Result<Vec<(PackNumber, PackId, u64)>, ServerError> {
    let mut packs = Vec::new();
    let range = KeyRange::between(&first.key(), &[u8::MAX; 5]);
    store.for_each_row(Table::Pack, &range, |key, value| {
        let pack = PackNumber::from_key(key).zip(PackRow::decode(value));
        let (number, row) = pack.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
        packs.push((number, row.id, row.len));
        Ok(())
    })?;
    Ok(packs)
}

/// True if more than half of the packs that checkpoints cover are gone, when `new` packs are not covered.
fn is_stale(store: &Store, new: usize) -> Result<bool, ServerError> {
    let covered: u64 = parts(store)?.iter().map(|(_, packs)| u64::from(*packs)).sum();
    let all = u64::from(store.totals()?.packs);
    let left = all.saturating_sub(u64::try_from(new).unwrap_or(u64::MAX));
    Ok(left * 2 < covered)
}

/// The checkpoints that there are, and how many packs each covers.
fn parts(store: &Store) -> Result<Vec<(CheckpointId, u32)>, ServerError> {
    let mut parts = Vec::new();
    store.for_each_row(Table::Meta, &KeyRange::prefix(PART), |key, value| {
        let hex = key.strip_prefix(PART).and_then(|hex| std::str::from_utf8(hex).ok());
        let id = hex.and_then(id::parse_hex_32).map(CheckpointId::from_bytes);
        let packs = value.try_into().ok().map(u32::from_le_bytes);
        let part = id.zip(packs);
        parts.push(part.ok_or_else(|| ServerError::Row { object: "a checkpoint".to_owned() })?);
        Ok(())
    })?;
    Ok(parts)
}

/// Dooms every checkpoint: from now on no pack is covered.
fn drop_all(store: &Store) -> Result<u32, ServerError> {
    let mut dropped = 0;
    let mut batch = Batch::new();
    for (id, _) in parts(store)? {
        batch.delete(Table::Meta, part_key(&id));
        batch.put(Table::Doomed, DoomedKey::of(checkpoint_object(&id)).encode(), DoomedRow::NOW.encode());
        dropped += 1;
    }
    batch.put(Table::Meta, NEXT, PackNumber(0).key());
    store.commit(batch)?;
    Ok(dropped)
}

/// Stores one checkpoint, after which every pack before `next` is covered.
fn put(
    store: &Arc<Store>,
    in_flight: &InFlight,
    packs: Vec<CheckpointPack>,
    next: PackNumber,
) -> Result<u32, ServerError> {
    let count = u32::try_from(packs.len()).unwrap_or(u32::MAX);
    let payload = Checkpoint { version: FORMAT_VERSION, packs }.encode();
    let (keys, salt) = (&store.keys, store.salt());
    let sealed = object::seal(ObjectKind::Checkpoint, keys, store.id(), salt, &payload);
    let id = CheckpointId::of(&sealed);
    let landing = publish(store, in_flight, checkpoint_object(&id), Bytes::from(sealed))?;
    let mut batch = Batch::new();
    landing.land(&mut batch);
    batch.put(Table::Meta, part_key(&id), count.to_le_bytes());
    batch.put(Table::Meta, NEXT, next.key());
    store.commit(batch)?;
    Ok(count)
}

fn part_key(id: &CheckpointId) -> Vec<u8> {
    [PART, id.to_hex().as_bytes()].concat()
}

/// The checkpoint with this name, after every check.
///
/// # Errors
/// [`ServerError::Damaged`] and [`ServerError::Site`].
pub(crate) async fn read(store: &Store, id: CheckpointId) -> Result<Checkpoint, ServerError> {
    let sealed = store.get(&checkpoint_object(&id)).await?;
    let damaged = |source| ServerError::Damaged { object: id.to_string(), source };
    if CheckpointId::of(&sealed) != id {
        return Err(damaged(FormatError::Unauthentic { what: "checkpoint" }));
    }
    let payload = object::open(ObjectKind::Checkpoint, &store.keys, store.id(), &sealed);
    Checkpoint::decode(&payload.map_err(damaged)?).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::layout::checkpoint_named;
    use crate::site::{Area, ObjectName, Prefix};
    use crate::world::World;

    /// Like [`run`], with parts of at most a pack or so.
    async fn run_small(world: &World, when: When) -> Written {
        let in_flight = world.server.in_flight.clone();
        world.store.blocking(move |store| write(store, &in_flight, when, 1)).await.unwrap()
    }

    /// The packs in all checkpoints on the site, by name.
    async fn covered(world: &World) -> Vec<CheckpointPack> {
        let listed = world.site().list(&Prefix::area(Area::Heads)).await.unwrap();
        let mut packs = Vec::new();
        for object in listed {
            packs.extend(read(&world.store, checkpoint_named(&object.name).unwrap()).await.unwrap().packs);
        }
        packs.sort_by_key(|pack| pack.id);
        packs
    }

    /// The packs of the index, by name, with what their footers say.
    async fn all(world: &World) -> Vec<CheckpointPack> {
        let mut packs = Vec::new();
        for (_, row) in world.packs() {
            let directory = read_directory(&world.store, &row.id, row.len).await.unwrap();
            packs.push(CheckpointPack { id: row.id, len: row.len, directory });
        }
        packs.sort_by_key(|pack| pack.id);
        packs
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn checkpoints_cover_each_pack_once_with_what_its_footer_says() {
        let world = World::new();
        world.push("n", &["alpha"]).await;
        assert_eq!(run(&world.server, When::Due).await.unwrap(), Written::default(), "two packs are few");

        let first = run(&world.server, When::Now).await.unwrap();
        let idle = run(&world.server, When::Now).await.unwrap();
        world.push("n", &["beta"]).await;
        let second = run_small(&world, When::Now).await;

        assert_eq!((first.parts, first.packs), (1, 2));
        assert_eq!(idle, Written::default());
        assert_eq!((second.parts, second.packs), (2, 2), "a part is full after a pack");
        assert_eq!(covered(&world).await, all(&world).await);
        assert_eq!(world.rows(Table::Doomed), []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn checkpoints_of_packs_that_are_mostly_gone_are_made_anew() {
        let world = World::new();
        world.push("n", &["alpha"]).await;
        world.push("n", &["beta"]).await;
        run_small(&world, When::Now).await;
        let mut batch = Batch::new();
        for (number, _) in world.packs().into_iter().take(3) {
            batch.delete(Table::Pack, number.key());
        }
        let totals = world.store.totals().unwrap();
        let fewer = crate::rows::Totals { packs: 1, ..totals };
        batch.put(Table::Meta, crate::rows::Totals::KEY, fewer.encode());
        world.index().commit(batch).unwrap();

        let anew = run(&world.server, When::Now).await.unwrap();

        assert_eq!(anew, Written { parts: 1, packs: 1, dropped: 4 });
        let doomed: Vec<ObjectName> =
            world.rows(Table::Doomed).iter().map(|(key, _)| DoomedKey::decode(key).unwrap().name).collect();
        for name in &doomed {
            world.site().delete(name).await.unwrap();
        }
        assert_eq!(doomed.len(), 4);
        assert_eq!(covered(&world).await, all(&world).await);
    }

    /// P2: bytes that are not what the name says are no checkpoint.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_checkpoint_is_told_from_a_whole_one() {
        let world = World::new();
        world.push("n", &["alpha"]).await;
        run(&world.server, When::Now).await.unwrap();
        let name = world.site().list(&Prefix::area(Area::Heads)).await.unwrap().remove(0).name;
        let mut bytes = world.site().get(&name).await.unwrap().to_vec();
        world.site().delete(&name).await.unwrap();
        bytes[100] ^= 1;
        world.site().put_new(&name, bytes.into()).await.unwrap();

        let read = read(&world.store, checkpoint_named(&name).unwrap()).await;

        assert!(matches!(read, Err(ServerError::Damaged { .. })));
    }
}
