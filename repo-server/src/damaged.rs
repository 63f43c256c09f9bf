//! Objects on the site that are lost or not as they were written, as far as a check found it: those of snapshots
//! and manifests, and the ends of packs. Blobs in packs are in quarantine instead.
//!
//! Each has a row until a check finds it sound, it is written anew, or nothing needs it any more. Rows and the
//! alarm change in one batch ([`Changes`]): it is up while there is any. Only what is known to be wrong gets here: a
//! site that does not answer proves nothing. All calls block.
//!
//! Rows `damaged/<kind><id>` of the meta table.

use std::collections::BTreeMap;

use format_spec::snapshot::Snapshot;
use format_spec::{ManifestId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::alarm::{self, AlarmCode};
use crate::error::ServerError;
use crate::index::row::PackNumber;
use crate::index::{Batch, KeyRange, Table};
use crate::repository::Repository;

const PREFIX: &[u8] = b"damaged/";

/// What is damaged.
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

    /// Whether the index has what the object is of.
    fn is_needed(self, repository: &Repository) -> Result<bool, ServerError> {
        let index = &repository.parts.index;
        let row = match self {
            Self::Snapshot(id) => index.get(Table::Snapshot, id.as_bytes())?,
            Self::Manifest(id) => index.get(Table::Manifest, id.as_bytes())?,
            Self::Pack(number) => index.get(Table::Pack, &number.key())?,
        };
        Ok(row.is_some())
    }
}

/// What is wrong with an object, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    /// What was found; for people.
    problem: String,
    /// When; server time.
    found_ms: u64,
}

/// All objects that are known to be damaged, and what is wrong with each.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<Object, String>);

impl Known {
    /// Whether an object is one of them.
    pub(crate) fn contains(&self, object: Object) -> bool {
        self.0.contains_key(&object)
    }

    /// What is wrong with an object of a snapshot, if anything is: its own, or a manifest.
    pub(crate) fn against(&self, snapshot: &Snapshot) -> Option<String> {
        let own = self.0.get(&Object::Snapshot(snapshot.id)).map(|problem| format!("its object: {problem}"));
        let manifests = snapshot.manifests.iter().filter_map(|of| {
            let problem = self.0.get(&Object::Manifest(of.id))?;
            Some(format!("the manifest of node `{}`: {problem}", of.node))
        });
        let all: Vec<String> = manifests.chain(own).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// All that are known.
pub(crate) fn all(repository: &Repository) -> Result<Known, ServerError> {
    let mut known = BTreeMap::new();
    repository.for_each_row(Table::Meta, &KeyRange::prefix(PREFIX), |key, value| {
        let object = Object::from_key(key).zip(serde_json::from_slice::<Row>(value).ok());
        let (object, row) =
            object.ok_or_else(|| ServerError::Row { object: "a damaged object".to_owned() })?;
        known.insert(object, row.problem);
        Ok(())
    })?;
    Ok(Known(known))
}

/// Remembers, durably, what is wrong with an object, unless what it is of has gone meanwhile.
pub(crate) fn note(repository: &Repository, object: Object, problem: &str) -> Result<(), ServerError> {
    let row = Row { problem: problem.to_owned(), found_ms: repository.parts.clock.unix_ms() };
    repository.exclusively(|| {
        let (mut batch, mut changes) = (Batch::new(), Changes::default());
        if object.is_needed(repository)? {
            changes.0.insert(object, Some(row));
        }
        changes.close(repository, &mut batch)?;
        if batch.is_empty() { Ok(()) } else { repository.commit(batch) }
    })
}

/// Takes back, durably, what is said of an object: it is sound.
pub(crate) fn clear(repository: &Repository, object: Object) -> Result<(), ServerError> {
    repository.exclusively(|| {
        let (mut batch, mut changes) = (Batch::new(), Changes::default());
        changes.delete(object);
        changes.close(repository, &mut batch)?;
        if batch.is_empty() { Ok(()) } else { repository.commit(batch) }
    })
}

/// Takes out what is said of objects that nothing needs any more, and answers what is left.
pub(crate) fn tidy(repository: &Repository) -> Result<Known, ServerError> {
    repository.exclusively(|| {
        let mut known = all(repository)?;
        let (mut batch, mut changes) = (Batch::new(), Changes::default());
        for object in known.0.keys() {
            if !object.is_needed(repository)? {
                changes.delete(*object);
            }
        }
        known.0.retain(|object, _| !changes.0.contains_key(object));
        changes.close(repository, &mut batch)?;
        if !batch.is_empty() {
            repository.commit(batch)?;
        }
        Ok(known)
    })
}

/// What a batch says of damaged objects. Made and closed while nobody else changes such rows.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<Object, Option<Row>>);

impl Changes {
    /// An object is sound, or gone.
    pub(crate) fn delete(&mut self, object: Object) {
        self.0.insert(object, None);
    }

    /// Puts all that into the batch, with the alarm as it is from then on.
    pub(crate) fn close(self, repository: &Repository, batch: &mut Batch) -> Result<(), ServerError> {
        let adds = self.0.values().any(Option::is_some);
        // While the alarm is down there is no row.
        if self.0.is_empty() || (!adds && !alarm::is_up(repository, AlarmCode::DamagedObjects)?) {
            return Ok(());
        }
        let mut known = all(repository)?.0;
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
        set_alarm(repository, batch, &known)
    }
}

/// Raises the alarm if anything is damaged, and takes it down if nothing is.
fn set_alarm(
    repository: &Repository,
    batch: &mut Batch,
    known: &BTreeMap<Object, String>,
) -> Result<(), ServerError> {
    if known.is_empty() {
        return alarm::clear_in(repository, batch, AlarmCode::DamagedObjects);
    }
    let count = |is: fn(&Object) -> bool| known.keys().filter(|object| is(object)).count();
    let message = format!(
        "damaged or lost on the site: {} manifests, {} objects of snapshots, headers or footers of {} packs: run \
         `astacus-admin gc`, then `astacus-admin verify`, and see `astacus-admin snapshots` for what cannot be \
         restored",
        count(|object| matches!(object, Object::Manifest(_))),
        count(|object| matches!(object, Object::Snapshot(_))),
        count(|object| matches!(object, Object::Pack(_))),
    );
    alarm::raise_in(repository, batch, AlarmCode::DamagedObjects, &message)
}

#[cfg(test)]
mod tests;
