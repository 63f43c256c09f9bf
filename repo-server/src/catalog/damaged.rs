//! Rows of objects that are known to be damaged, and the alarm that says so: they change together.

use std::collections::BTreeMap;

use format_spec::{ManifestId, SnapshotId};

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, KeyRange, Table};
use crate::rows::PackNumber;
use crate::rows::{Meta, ProblemRow};
use crate::store::Store;

const PREFIX: &[u8] = Meta::Damaged.bytes();

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
    pub(crate) fn key(self) -> Vec<u8> {
        let (tag, id): (&[u8], Vec<u8>) = match self {
            Self::Snapshot(id) => (b"s", id.as_bytes().to_vec()),
            Self::Manifest(id) => (b"m", id.as_bytes().to_vec()),
            Self::Pack(number) => (b"p", number.key().to_vec()),
        };
        [PREFIX, tag, &id].concat()
    }

    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        match key.strip_prefix(PREFIX)?.split_first()? {
            (b's', id) => Some(Self::Snapshot(SnapshotId::from_bytes(id.try_into().ok()?))),
            (b'm', id) => Some(Self::Manifest(ManifestId::from_bytes(id.try_into().ok()?))),
            (b'p', number) => PackNumber::from_key(number).map(Self::Pack),
            _ => None,
        }
    }

    /// True if the index has the pack or snapshot of the object.
    pub(crate) fn is_needed(self, store: &Store) -> Result<bool, ServerError> {
        let index = &store.parts.index;
        let row = match self {
            Self::Snapshot(id) => index.get(Table::Snapshot, id.as_bytes())?,
            Self::Manifest(id) => index.get(Table::Manifest, id.as_bytes())?,
            Self::Pack(number) => index.get(Table::Pack, &number.key())?,
        };
        Ok(row.is_some())
    }
}

/// All objects that are known to be damaged, and what is wrong with each.
pub(crate) fn objects(store: &Store) -> Result<BTreeMap<Object, String>, ServerError> {
    let mut known = BTreeMap::new();
    store.for_each_row(Table::Meta, &KeyRange::prefix(PREFIX), |key, value| {
        let object = Object::from_key(key).zip(ProblemRow::decode(value));
        let (object, row) =
            object.ok_or_else(|| ServerError::Row { object: "a damaged object".to_owned() })?;
        known.insert(object, row.problem);
        Ok(())
    })?;
    Ok(known)
}

/// Changes of a batch to rows of damaged objects.
#[derive(Default)]
pub(crate) struct Changes(pub(crate) BTreeMap<Object, Option<ProblemRow>>);

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
                    batch.put(Table::Meta, object.key(), row.encode());
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
        "damaged or lost on the site: {} manifests, {} snapshot objects, headers or footers of {} packs: run \
         `astacus-admin gc`, then `astacus-admin verify`; `astacus-admin snapshots` marks the snapshots that \
         cannot be restored",
        count(|object| matches!(object, Object::Manifest(_))),
        count(|object| matches!(object, Object::Snapshot(_))),
        count(|object| matches!(object, Object::Pack(_))),
    );
    alarm::raise_in(store, batch, AlarmCode::DamagedObjects, &message)
}
