//! Decisions about a snapshot after its commit: deletion and protection.
//!
//! A deleted snapshot is a tombstone: listed as deleted, whole, and brought back by [`undelete`] until the
//! collector has purged it. A protected one cannot be deleted. A protection is also an object on the site, so
//! that it outlives the index.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::object::{self, ObjectKind};
use format_spec::protection::ProtectionRecord;
use format_spec::{FORMAT_VERSION, SnapshotId, id};

use super::get;
use crate::catalog::{InFlight, publish};
use crate::error::ServerError;
use crate::health::alarm::check_reason;
use crate::health::space;
use crate::index::{Batch, KeyRange, Precondition, Table};
use crate::rows::{DoomedKey, DoomedRow, MarkRow, Protection, Tombstone};
use crate::site::ObjectName;
use crate::site::layout::protection_object;
use crate::store::{Store, to_its_end};
use crate::time::{later, rfc3339};

/// Decisions about a snapshot.
pub(crate) fn mark(store: &Store, id: SnapshotId) -> Result<MarkRow, ServerError> {
    let value = store.parts.index.get(Table::Mark, id.as_bytes())?;
    value.map_or_else(|| Ok(MarkRow::default()), |value| decode(id, &value))
}

/// Decisions about all snapshots that have any.
pub(crate) fn marks(store: &Store) -> Result<HashMap<SnapshotId, MarkRow>, ServerError> {
    let mut marks = HashMap::new();
    store.for_each_row(Table::Mark, &KeyRange::all(), |key, value| {
        let id = key.try_into().map(SnapshotId::from_bytes);
        let id = id.map_err(|_| ServerError::Row { object: "a mark".to_owned() })?;
        marks.insert(id, decode(id, value)?);
        Ok(())
    })?;
    Ok(marks)
}

fn decode(id: SnapshotId, value: &[u8]) -> Result<MarkRow, ServerError> {
    MarkRow::decode(value).ok_or_else(|| ServerError::Row { object: format!("the mark of snapshot {id}") })
}

/// Puts the mark of a snapshot that is there into a batch.
fn put(batch: &mut Batch, id: SnapshotId, mark: &MarkRow) {
    batch.require(Table::Snapshot, *id.as_bytes(), Precondition::Present);
    if mark.is_empty() {
        batch.delete(Table::Mark, *id.as_bytes());
    } else {
        batch.put(Table::Mark, *id.as_bytes(), mark.encode());
    }
}

/// Deletes snapshots, all or none. One that is deleted already is unchanged.
///
/// # Errors
/// [`ServerError::Refused`] if one is protected; nothing changed.
pub(crate) fn forget(store: &Store, ids: &[SnapshotId]) -> Result<(), ServerError> {
    let now = store.parts.clock.unix_ms();
    let tombstone = Tombstone { since_ms: now, until_ms: later(now, store.parts.upkeep.gc.undelete) };
    let forgotten = || {
        let mut batch = Batch::new();
        for id in ids {
            get(store, *id)?;
            let mark = mark(store, *id)?;
            if let Some(protection) = &mark.protection {
                let why = format!("snapshot {id} is protected: {}", protection.reason);
                return Err(ServerError::Refused { code: "protected", why });
            }
            if mark.tombstone.is_none() {
                put(&mut batch, *id, &MarkRow { tombstone: Some(tombstone.clone()), ..mark });
            }
        }
        Ok(batch)
    };
    space::with_ballast(store, || {
        store.exclusively(|| {
            let batch = forgotten()?;
            if batch.is_empty() { Ok(()) } else { store.commit(batch) }
        })
    })
}

/// Brings a deleted snapshot back. One that is not deleted is unchanged.
///
/// # Errors
/// [`ServerError::NoSnapshot`] if it has been purged, or never was.
pub(crate) fn undelete(store: &Store, id: SnapshotId) -> Result<(), ServerError> {
    change(store, id, |_, mark| Ok(MarkRow { tombstone: None, ..mark })).map(drop)
}

/// Reads, changes and writes the mark of a snapshot. Answers how it was.
fn change(
    store: &Store,
    id: SnapshotId,
    change: impl FnOnce(&mut Batch, MarkRow) -> Result<MarkRow, ServerError>,
) -> Result<MarkRow, ServerError> {
    store.exclusively(|| {
        get(store, id)?;
        let before = mark(store, id)?;
        let mut batch = Batch::new();
        let after = change(&mut batch, before.clone())?;
        put(&mut batch, id, &after);
        store.commit(batch)?;
        Ok(before)
    })
}

/// Protects a snapshot. When this returns, it says so on the site and in the index. A protection that was
/// there before is replaced.
///
/// # Errors
/// [`ServerError::Refused`] if it is deleted: it must be undeleted first.
pub(crate) async fn protect(
    store: &Arc<Store>,
    in_flight: &InFlight,
    id: SnapshotId,
    reason: String,
) -> Result<(), ServerError> {
    let in_flight = in_flight.clone();
    // The object must be seen to land.
    let protect = move |store: &Arc<Store>| to_its_end(|| protect_now(store, &in_flight, id, reason));
    store.waiting(protect).await
}

fn protect_now(
    store: &Store,
    in_flight: &InFlight,
    id: SnapshotId,
    reason: String,
) -> Result<(), ServerError> {
    check_reason(&reason)?;
    check_stays(id, &mark(store, id)?)?;
    get(store, id)?;
    let (name, sealed) = seal(store, id, &reason);
    let landing = publish(store, in_flight, name.clone(), sealed)?;
    let protection = Protection { reason, object: name.as_str().to_owned() };
    change(store, id, |batch, mark| {
        check_stays(id, &mark)?;
        landing.land(batch);
        doom_object(batch, &mark);
        Ok(MarkRow { protection: Some(protection), ..mark })
    })?;
    Ok(())
}

fn check_stays(id: SnapshotId, mark: &MarkRow) -> Result<(), ServerError> {
    let Some(tombstone) = &mark.tombstone else { return Ok(()) };
    let until = rfc3339(tombstone.until_ms);
    let why = format!("snapshot {id} is deleted (undelete is possible until {until}): undelete it first");
    Err(ServerError::Refused { code: "going", why })
}

/// Removes the protection of a snapshot. One without protection is unchanged.
pub(crate) fn unprotect(store: &Store, id: SnapshotId) -> Result<(), ServerError> {
    space::with_ballast(store, || {
        change(store, id, |batch, mark| {
            doom_object(batch, &mark);
            Ok(MarkRow { protection: None, ..mark })
        })
    })
    .map(drop)
}

/// The next run of the collector deletes the object of a removed protection.
fn doom_object(batch: &mut Batch, mark: &MarkRow) {
    let object = mark.protection.as_ref().and_then(|protection| ObjectName::new(&protection.object).ok());
    if let Some(name) = object {
        batch.put(Table::Doomed, DoomedKey::of(name).encode(), DoomedRow::NOW.encode());
    }
}

/// The object that says so, and its name, which is never used again.
fn seal(store: &Store, id: SnapshotId, reason: &str) -> (ObjectName, Bytes) {
    let record = ProtectionRecord { version: FORMAT_VERSION, snapshot: id, reason: reason.to_owned() };
    let (keys, salt) = (&store.keys, store.salt());
    let sealed = object::seal(ObjectKind::Protection, keys, store.id(), salt, &record.encode());
    let nonce = id::to_hex(store.salt().first_chunk::<8>().expect("a salt is longer"));
    (protection_object(&id, &nonce), sealed.into())
}
