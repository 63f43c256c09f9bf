//! Checkpoints: what packs hold, collected in a few objects on the site, so that an index is made anew by
//! reading those and the ends of newer packs, and not the end of every pack.
//!
//! A checkpoint repeats footers and is only ever a shortcut. Which packs there are is said by the index, or
//! by the site when there is no index; a checkpoint that is missing or damaged costs time and nothing else.
//!
//! Each one covers the packs numbered since the last, and never changes. When more than half of the packs
//! that they cover together are gone, all are dropped and made anew.
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
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;

use crate::census;
use crate::damaged::Object;
use crate::defects;
use crate::error::ServerError;
use crate::index::row::{DoomedKey, DoomedKind, DoomedRow, PackNumber, PackRow};
use crate::index::{Batch, KeyRange, Table};
use crate::pack::{read_directory, unreadable};
use crate::repository::Repository;
use crate::site::ObjectName;
use crate::witness;

/// New packs from which on a checkpoint is due.
const DUE_PACKS: usize = 1024;

/// Length from which on a checkpoint is full: it is made in memory.
const PART_BYTES: usize = 8 << 20;

/// Directories that are read at once.
const IN_FLIGHT: usize = 8;

const NEXT: &[u8] = b"checkpoint/next";
const PART: &[u8] = b"checkpoint/part/";

/// When to write one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// If there are many new packs.
    Due,
    /// If there is any new pack.
    Now,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Objects.
    pub parts: u32,
    /// Packs that they cover.
    pub packs: u32,
    /// Objects that are of no use any more, and are to be deleted.
    pub dropped: u32,
}

/// Writes what is to be written. Waits for its turn beside the collector and audits.
///
/// # Errors
/// The site or the index failed. What was written by then is of use. [`ServerError::Refused`] while the index is
/// older than the site: it does not know which packs there are.
pub async fn run(repository: &Arc<Repository>, when: When) -> Result<Written, ServerError> {
    let _turn = repository.turn.lock().await;
    let check = |repository: &Arc<Repository>| {
        witness::check(repository)?;
        census::check(repository)
    };
    repository.blocking(check).await?;
    repository.blocking(move |repository| write(repository, when, PART_BYTES)).await
}

fn write(repository: &Arc<Repository>, when: When, part_bytes: usize) -> Result<Written, ServerError> {
    let mut written = Written::default();
    let mut next = next(repository)?;
    let mut new = packs_from(repository, next)?;
    if is_stale(repository, new.len())? {
        written.dropped = drop_all(repository)?;
        next = PackNumber(0);
        new = packs_from(repository, next)?;
    }
    let is_due = match when {
        When::Due => new.len() >= DUE_PACKS,
        When::Now => !new.is_empty(),
    };
    if !is_due {
        return Ok(written);
    }
    let read = |(number, id, len): (PackNumber, PackId, u64)| {
        let repository = Arc::clone(repository);
        async move {
            let read = defects::twice(|| read_directory(&repository, &id, len)).await;
            (number, id, len, defects::heed(&repository, Object::Pack(number), read).await)
        }
    };
    let mut directories = stream::iter(new).map(read).buffered(IN_FLIGHT);
    let (mut packs, mut bytes, mut last) = (Vec::new(), 0, next);
    while let Some((number, id, len, directory)) = Handle::current().block_on(directories.next()) {
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
            written.add(put(repository, std::mem::take(&mut packs), last)?);
            bytes = 0;
        }
    }
    if !packs.is_empty() {
        written.add(put(repository, packs, last)?);
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
fn next(repository: &Repository) -> Result<PackNumber, ServerError> {
    match repository.parts.index.get(Table::Meta, NEXT)? {
        None => Ok(PackNumber(0)),
        Some(value) => {
            let number = PackNumber::from_key(&value);
            number.ok_or_else(|| ServerError::Row { object: "the checkpoints".to_owned() })
        }
    }
}

/// Packs with this number or a greater one.
fn packs_from(
    repository: &Repository,
    first: PackNumber,
) -> Result<Vec<(PackNumber, PackId, u64)>, ServerError> {
    let mut packs = Vec::new();
    let range = KeyRange::between(&first.key(), &[u8::MAX; 5]);
    repository.for_each_row(Table::Pack, &range, |key, value| {
        let pack = PackNumber::from_key(key).zip(PackRow::decode(value));
        let (number, row) = pack.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
        packs.push((number, row.id, row.len));
        Ok(())
    })?;
    Ok(packs)
}

/// Whether more than half of the packs that checkpoints cover are gone, when `new` packs are not covered.
fn is_stale(repository: &Repository, new: usize) -> Result<bool, ServerError> {
    let covered: u64 = parts(repository)?.iter().map(|(_, packs)| u64::from(*packs)).sum();
    let all = u64::from(repository.totals()?.packs);
    let left = all.saturating_sub(u64::try_from(new).unwrap_or(u64::MAX));
    Ok(left * 2 < covered)
}

/// The checkpoints that there are, and how many packs each covers.
fn parts(repository: &Repository) -> Result<Vec<(CheckpointId, u32)>, ServerError> {
    let mut parts = Vec::new();
    repository.for_each_row(Table::Meta, &KeyRange::prefix(PART), |key, value| {
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
fn drop_all(repository: &Repository) -> Result<u32, ServerError> {
    let mut dropped = 0;
    let mut batch = Batch::new();
    for (id, _) in parts(repository)? {
        batch.delete(Table::Meta, part_key(&id));
        batch.put(Table::Doomed, doomed(object_name(&id)).encode(), DoomedRow::NOW.encode());
        dropped += 1;
    }
    batch.put(Table::Meta, NEXT, PackNumber(0).key());
    repository.commit(batch)?;
    Ok(dropped)
}

/// Stores one checkpoint, after which every pack before `next` is covered.
fn put(
    repository: &Arc<Repository>,
    packs: Vec<CheckpointPack>,
    next: PackNumber,
) -> Result<u32, ServerError> {
    let count = u32::try_from(packs.len()).unwrap_or(u32::MAX);
    let payload = Checkpoint { version: FORMAT_VERSION, packs }.encode();
    let (keys, salt) = (&repository.keys, repository.salt());
    let sealed = object::seal(ObjectKind::Checkpoint, keys, repository.id(), salt, &payload);
    let id = CheckpointId::of(&sealed);
    let name = object_name(&id);
    let mut intent = Batch::new();
    intent.put(Table::Doomed, doomed(name.clone()).encode(), DoomedRow::NOW.encode());
    repository.commit(intent)?;
    let put = Handle::current().block_on(repository.parts.site.put_new(&name, Bytes::from(sealed)));
    put.map_err(|error| repository.site_error(error))?;
    let mut batch = Batch::new();
    batch.delete(Table::Doomed, doomed(name).encode());
    batch.put(Table::Meta, part_key(&id), count.to_le_bytes());
    batch.put(Table::Meta, NEXT, next.key());
    repository.commit(batch)?;
    Ok(count)
}

fn part_key(id: &CheckpointId) -> Vec<u8> {
    [PART, id.to_hex().as_bytes()].concat()
}

fn doomed(name: ObjectName) -> DoomedKey {
    DoomedKey { kind: DoomedKind::Other, name }
}

/// Where a checkpoint lies on a site.
fn object_name(id: &CheckpointId) -> ObjectName {
    ObjectName::new(&format!("heads/checkpoint-{}", id.to_hex())).expect("hex digits make a valid name")
}

/// The checkpoint that an object is, by its name.
pub(crate) fn named(name: &ObjectName) -> Option<CheckpointId> {
    let hex = name.as_str().strip_prefix("heads/checkpoint-")?;
    id::parse_hex_32(hex).map(CheckpointId::from_bytes)
}

/// The checkpoint with this name, after every check.
///
/// # Errors
/// [`ServerError::Damaged`] and [`ServerError::Site`].
pub(crate) async fn read(repository: &Repository, id: CheckpointId) -> Result<Checkpoint, ServerError> {
    let sealed = repository.parts.site.get(&object_name(&id)).await;
    let sealed = sealed.map_err(|error| repository.site_error(error))?;
    let damaged = |source| ServerError::Damaged { object: id.to_string(), source };
    if CheckpointId::of(&sealed) != id {
        return Err(damaged(FormatError::Unauthentic { what: "checkpoint" }));
    }
    let payload = object::open(ObjectKind::Checkpoint, &repository.keys, repository.id(), &sealed);
    Checkpoint::decode(&payload.map_err(damaged)?).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Area, Prefix};
    use crate::world::World;

    /// As [`run`], with parts of at most a pack or so.
    async fn run_small(world: &World, when: When) -> Written {
        world.repository.blocking(move |repository| write(repository, when, 1)).await.unwrap()
    }

    /// The packs in all checkpoints on the site, by name.
    async fn covered(world: &World) -> Vec<CheckpointPack> {
        let listed = world.site().list(&Prefix::area(Area::Heads)).await.unwrap();
        let mut packs = Vec::new();
        for object in listed {
            packs.extend(read(&world.repository, named(&object.name).unwrap()).await.unwrap().packs);
        }
        packs.sort_by_key(|pack| pack.id);
        packs
    }

    /// The packs of the index, by name, with what their footers say.
    async fn all(world: &World) -> Vec<CheckpointPack> {
        let mut packs = Vec::new();
        for (_, row) in world.packs() {
            let directory = read_directory(&world.repository, &row.id, row.len).await.unwrap();
            packs.push(CheckpointPack { id: row.id, len: row.len, directory });
        }
        packs.sort_by_key(|pack| pack.id);
        packs
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn checkpoints_cover_each_pack_once_with_what_its_footer_says() {
        let world = World::new();
        world.push("n", &["alpha"]).await;
        assert_eq!(run(&world.repository, When::Due).await.unwrap(), Written::default(), "two packs are few");

        let first = run(&world.repository, When::Now).await.unwrap();
        let idle = run(&world.repository, When::Now).await.unwrap();
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
        let totals = world.repository.totals().unwrap();
        let fewer = crate::index::row::Totals { packs: 1, ..totals };
        batch.put(Table::Meta, crate::index::row::Totals::KEY, fewer.encode());
        world.index().commit(batch).unwrap();

        let anew = run(&world.repository, When::Now).await.unwrap();

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
        run(&world.repository, When::Now).await.unwrap();
        let name = world.site().list(&Prefix::area(Area::Heads)).await.unwrap().remove(0).name;
        let mut bytes = world.site().get(&name).await.unwrap().to_vec();
        world.site().delete(&name).await.unwrap();
        bytes[100] ^= 1;
        world.site().put_new(&name, bytes.into()).await.unwrap();

        let read = read(&world.repository, named(&name).unwrap()).await;

        assert!(matches!(read, Err(ServerError::Damaged { .. })));
    }
}
