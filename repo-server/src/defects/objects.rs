//! Objects on the site that are lost or not as they were written, as far as a check found it: those of snapshots
//! and manifests, and the ends of packs. Blobs in packs are in quarantine instead.
//!
//! Each has a row until a check finds it sound, it is written anew, or nothing needs it any more. Rows and the
//! alarm change in one batch ([`Changes`](crate::catalog::damaged::Changes)): it is up while there is any. Only what is known to be wrong gets here: a
//! site that does not answer proves nothing. All calls block.
//!
//! Rows `damaged/<kind><id>` of the meta table. Beside them, rows `hurt/<snapshot id>` name the snapshots for
//! which a check found files that cannot be restored. They are valid while any blob is quarantined, and raise
//! no alarm of their own.

use std::collections::BTreeMap;

use format_spec::SnapshotId;
use format_spec::snapshot::Snapshot;

pub(crate) use crate::catalog::damaged::Object;
use crate::catalog::damaged::{Changes, objects};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, KeyRange, Table};
use crate::rows::{Meta, ProblemRow};
use crate::store::Store;

const HURT_PREFIX: &[u8] = Meta::Hurt.bytes();

/// All objects that are known to be damaged, and what is wrong with each.
#[derive(Debug, Default)]
pub(crate) struct Known {
    objects: BTreeMap<Object, String>,
    /// Snapshots with files that need blobs in quarantine, as of their last check, and one reason for each.
    hurt: BTreeMap<SnapshotId, String>,
}

impl Known {
    /// True if an object is one of them.
    pub(crate) fn contains(&self, object: Object) -> bool {
        self.objects.contains_key(&object)
    }

    /// Problem of a snapshot, if there is one: with its object, a manifest, or the data of its files.
    pub(crate) fn against(&self, snapshot: &Snapshot) -> Option<String> {
        let own =
            self.objects.get(&Object::Snapshot(snapshot.id)).map(|problem| format!("its object: {problem}"));
        let manifests = snapshot.manifests.iter().filter_map(|of| {
            let problem = self.objects.get(&Object::Manifest(of.id))?;
            Some(format!("the manifest of node `{}`: {problem}", of.node))
        });
        let all: Vec<String> = manifests.chain(own).collect();
        if all.is_empty() { self.hurt.get(&snapshot.id).cloned() } else { Some(all.join("; ")) }
    }
}

/// All known damaged objects.
pub(crate) fn all(store: &Store) -> Result<Known, ServerError> {
    let mut hurt = BTreeMap::new();
    if alarm::is_up(store, AlarmCode::DamagedBlobs)? {
        store.for_each_row(Table::Meta, &KeyRange::prefix(HURT_PREFIX), |key, value| {
            let id = key.strip_prefix(HURT_PREFIX).and_then(|id| id.try_into().ok());
            let row = id.map(SnapshotId::from_bytes).zip(ProblemRow::decode(value));
            let (id, row) =
                row.ok_or_else(|| ServerError::Row { object: "a damaged snapshot".to_owned() })?;
            hurt.insert(id, row.problem);
            Ok(())
        })?;
    }
    Ok(Known { objects: objects(store)?, hurt })
}

fn hurt_key(id: SnapshotId) -> Vec<u8> {
    [HURT_PREFIX, id.as_bytes().as_slice()].concat()
}

/// Remembers, durably, that files of a snapshot cannot be restored, or with no problem that all can.
pub(crate) fn note_hurt(store: &Store, id: SnapshotId, problem: Option<String>) -> Result<(), ServerError> {
    store.exclusively(|| {
        let mut batch = Batch::new();
        let is_known = store.parts.index.get(Table::Meta, &hurt_key(id))?.is_some();
        match problem {
            Some(problem) if Object::Snapshot(id).is_needed(store)? => {
                let row = ProblemRow { problem, found_ms: store.parts.clock.unix_ms() };
                batch.put(Table::Meta, hurt_key(id), row.encode());
            }
            None if is_known => forget_hurt(&mut batch, id),
            _ => {}
        }
        if batch.is_empty() { Ok(()) } else { store.commit(batch) }
    })
}

/// A snapshot is purged.
pub(crate) fn forget_hurt(batch: &mut Batch, id: SnapshotId) {
    batch.delete(Table::Meta, hurt_key(id));
}

/// Records, durably, the damage of an object, unless its owner was deleted meanwhile. Known damage changes
/// nothing.
pub(crate) fn note(store: &Store, object: Object, problem: &str) -> Result<(), ServerError> {
    let row = ProblemRow { problem: problem.to_owned(), found_ms: store.parts.clock.unix_ms() };
    store.exclusively(|| {
        let (mut batch, mut changes) = (Batch::new(), Changes::default());
        if !is_known(store, object, problem)? && object.is_needed(store)? {
            tracing::warn!(?object, problem, "an object on the site is damaged");
            changes.0.insert(object, Some(row));
        }
        changes.close(store, &mut batch)?;
        if batch.is_empty() { Ok(()) } else { store.commit(batch) }
    })
}

fn is_known(store: &Store, object: Object, problem: &str) -> Result<bool, ServerError> {
    let Some(value) = store.parts.index.get(Table::Meta, &object.key())? else { return Ok(false) };
    let row = ProblemRow::decode(&value);
    Ok(row.is_some_and(|row| row.problem == problem))
}

/// Takes back, durably, what is said of an object: it is sound.
pub(crate) fn clear(store: &Store, object: Object) -> Result<(), ServerError> {
    store.exclusively(|| {
        let (mut batch, mut changes) = (Batch::new(), Changes::default());
        changes.delete(object);
        changes.close(store, &mut batch)?;
        if batch.is_empty() { Ok(()) } else { store.commit(batch) }
    })
}

/// Takes out what is said of objects that nothing needs any more, and answers what is left.
pub(crate) fn tidy(store: &Store) -> Result<Known, ServerError> {
    store.exclusively(|| {
        let mut known = all(store)?;
        let (mut batch, mut changes) = (Batch::new(), Changes::default());
        for object in known.objects.keys() {
            if !object.is_needed(store)? {
                changes.delete(*object);
            }
        }
        known.objects.retain(|object, _| !changes.0.contains_key(object));
        changes.close(store, &mut batch)?;
        if !batch.is_empty() {
            store.commit(batch)?;
        }
        Ok(known)
    })
}

#[cfg(test)]
mod tests;
