//! Objects on the site that are lost or not as they were written, as far as a check found it: those of snapshots
//! and manifests, and the ends of packs. Blobs in packs are in quarantine instead.
//!
//! Each has a row until a check finds it sound, it is rewritten, or no snapshot needs it any more. Rows and
//! the alarm change in one batch ([`Changes`]): it is active while there is any row. Only proved damage is
//! recorded here: a site that does not answer proves nothing. All calls block.
//!
//! Rows `damaged/<kind><id>` of the meta table. Beside them, rows `hurt/<snapshot id>` name the snapshots for
//! which a check found files that cannot be restored. They are valid while any blob is quarantined, and raise
//! no alarm of their own.

use std::collections::BTreeMap;

use format_spec::snapshot::Snapshot;
use format_spec::{ManifestId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::row::PackNumber;
use crate::index::{Batch, KeyRange, Table};
use crate::store::Store;

const PREFIX: &[u8] = b"damaged/";
const HURT_PREFIX: &[u8] = b"hurt/";

/// Kind and id of a damaged object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Object {
    /// A snapshot's own object.
    Snapshot(SnapshotId),
    /// A manifest.
    Manifest(ManifestId),
    /// Header or footer of a pack: nobody can read in it what lies where.
    Pack(PackNumber),
}

impl Object {
    fn key(self) -> Vec<u8> {
        let (tag, id): (&[u8], Vec<u8>) = match self {
            Self::Snapshot(id) => (b"s", id.as_bytes().to_vec()),
            Self::Manifest(id) => (b"m", id.as_bytes().to_vec()),
            Self::Pack(number) => (b"p", number.key().to_vec()),
        };
        [PREFIX, tag, &id].concat()
    }

    fn from_key(key: &[u8]) -> Option<Self> {
        match key.strip_prefix(PREFIX)?.split_first()? {
            (b's', id) => Some(Self::Snapshot(SnapshotId::from_bytes(id.try_into().ok()?))),
            (b'm', id) => Some(Self::Manifest(ManifestId::from_bytes(id.try_into().ok()?))),
            (b'p', number) => PackNumber::from_key(number).map(Self::Pack),
            _ => None,
        }
    }

    /// True if the index has the pack or snapshot of the object.
    fn is_needed(self, store: &Store) -> Result<bool, ServerError> {
        let index = &store.parts.index;
        let row = match self {
            Self::Snapshot(id) => index.get(Table::Snapshot, id.as_bytes())?,
            Self::Manifest(id) => index.get(Table::Manifest, id.as_bytes())?,
            Self::Pack(number) => index.get(Table::Pack, &number.key())?,
        };
        Ok(row.is_some())
    }
}

/// Problem of an object, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    /// Description of the problem, for people.
    problem: String,
    /// When; server time.
    found_ms: u64,
}

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
            let row = id.map(SnapshotId::from_bytes).zip(serde_json::from_slice::<Row>(value).ok());
            let (id, row) =
                row.ok_or_else(|| ServerError::Row { object: "a damaged snapshot".to_owned() })?;
            hurt.insert(id, row.problem);
            Ok(())
        })?;
    }
    Ok(Known { objects: objects(store)?, hurt })
}

fn objects(store: &Store) -> Result<BTreeMap<Object, String>, ServerError> {
    let mut known = BTreeMap::new();
    store.for_each_row(Table::Meta, &KeyRange::prefix(PREFIX), |key, value| {
        let object = Object::from_key(key).zip(serde_json::from_slice::<Row>(value).ok());
        let (object, row) =
            object.ok_or_else(|| ServerError::Row { object: "a damaged object".to_owned() })?;
        known.insert(object, row.problem);
        Ok(())
    })?;
    Ok(known)
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
                let row = Row { problem, found_ms: store.parts.clock.unix_ms() };
                batch.put(Table::Meta, hurt_key(id), serde_json::to_vec(&row).expect("plain JSON"));
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
    let row = Row { problem: problem.to_owned(), found_ms: store.parts.clock.unix_ms() };
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
    let row: Option<Row> = serde_json::from_slice(&value).ok();
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

/// Changes of a batch to rows of damaged objects. Made and closed while no other task changes such rows.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<Object, Option<Row>>);

impl Changes {
    /// An object is sound, or deleted.
    pub(crate) fn delete(&mut self, object: Object) {
        self.0.insert(object, None);
    }

    /// Puts all that into the batch, with the alarm as it is from then on.
    pub(crate) fn close(self, store: &Store, batch: &mut Batch) -> Result<(), ServerError> {
        let adds = self.0.values().any(Option::is_some);
        // While the alarm is down there is no row.
        if self.0.is_empty() || (!adds && !alarm::is_up(store, AlarmCode::DamagedObjects)?) {
            return Ok(());
        }
        let mut known = objects(store)?;
        for (object, row) in self.0 {
            match row {
                Some(row) => {
                    batch.put(Table::Meta, object.key(), serde_json::to_vec(&row).expect("plain JSON"));
                    known.insert(object, row.problem);
                }
                None if known.remove(&object).is_some() => {
                    batch.delete(Table::Meta, object.key());
                }
                None => {}
            }
        }
        set_alarm(store, batch, &known)
    }
}

/// Raises the alarm if anything is damaged, and takes it down if nothing is.
fn set_alarm(store: &Store, batch: &mut Batch, known: &BTreeMap<Object, String>) -> Result<(), ServerError> {
    if known.is_empty() {
        return alarm::clear_in(store, batch, AlarmCode::DamagedObjects);
    }
    let count = |is: fn(&Object) -> bool| known.keys().filter(|object| is(object)).count();
    let message = format!(
        "damaged or lost on the site: {} manifests, {} snapshot objects, headers or footers of {} packs: run `astacus-admin gc`, then `astacus-admin verify`; `astacus-admin snapshots` marks the snapshots that cannot be restored",
        count(|object| matches!(object, Object::Manifest(_))),
        count(|object| matches!(object, Object::Snapshot(_))),
        count(|object| matches!(object, Object::Pack(_))),
    );
    alarm::raise_in(store, batch, AlarmCode::DamagedObjects, &message)
}

#[cfg(test)]
mod tests;
