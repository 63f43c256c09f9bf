//! Counting: are the packs, manifests and snapshots that the index names on the site at all?
//!
//! One listing checks all of them, without reading one. A few missing packs are damage: their blobs are
//! quarantined, and the next push sends them again. A site that lacks most of its packs is not damaged but
//! missing: a disk that is not mounted, an emptied folder. Then no blob is quarantined, the alarm
//! `site_incomplete` is active, and pushes, deletions and the collector are blocked: a push would be
//! "complete" over nothing. The alarm is cleared when the site is whole again, or when an operator accepts
//! the loss ([`accept`]).
//!
//! The reads come in this order: rows, listing, rows again. A pack is put before its row is added, and its
//! row is deleted before the pack; so a pack with a row both times is on the site at the time of the listing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use format_spec::{ManifestId, SnapshotId};

use super::full::if_there_is_room;
use crate::defects::blobs::{self, Place};
use crate::defects::objects::{self, Object};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::index::{KeyRange, Table};
use crate::rows::{PackNumber, PackRow};
use crate::site::layout::{descriptor_object, manifest_object, pack_object, snapshot_object};
use crate::site::{Area, Listed, ObjectName, SiteError};
use crate::store::Store;
use crate::sync::lock;

/// Up to this number, missing packs count as damage, whatever their share.
const FEW: usize = 1;

/// Way out, for the operator.
const WAY_OUT: &str = "mount the disk of the site and restart the server; if these packs are lost for good, run `astacus-admin verify --level exists --accept-loss` (docs/operations.md, `site_incomplete`)";

/// Packs that the index names and the site lacks.
#[derive(Debug, Default)]
struct Missing {
    packs: HashSet<PackNumber>,
    /// Manifests, and snapshots' own objects.
    objects: Vec<Object>,
    /// Packs that the site should have, those aside that are known to be lost.
    of_packs: usize,
    /// The site does not even have the descriptor of the repository.
    no_descriptor: bool,
}

impl Missing {
    /// True if this is no damage of single objects: most of the site is missing.
    fn is_site(&self) -> bool {
        let most = self.packs.len() > FEW && self.packs.len() * 2 > self.of_packs;
        self.no_descriptor || most
    }

    fn problem(&self) -> String {
        let packs = match self.no_descriptor {
            true => "the site lacks the repository descriptor".to_owned(),
            false => format!("{} of {} packs are missing from the site", self.packs.len(), self.of_packs),
        };
        format!("{packs}: pushes and deletions are blocked; {WAY_OUT}")
    }
}

/// Counts, and writes down what is missing. Returns how many blobs are newly in quarantine.
///
/// # Errors
/// The site could not be listed, or the index not be read or written: nothing is known.
pub(crate) async fn take(store: &Arc<Store>) -> Result<u64, ServerError> {
    count(store, None, judge).await
}

/// Counts after a read that says of an object that it is missing, on a site that is not there otherwise either: once,
/// until the alarm is up.
///
/// # Errors
/// The index could not be read or written.
pub(crate) async fn take_if_missing(store: &Arc<Store>, error: &ServerError) -> Result<(), ServerError> {
    if !matches!(error, ServerError::Site(SiteError::NotFound { .. })) {
        return Ok(());
    }
    match count(store, Some(Alarm::Down), judge).await {
        // It does not answer: the caller gets its own error.
        Err(ServerError::Site(_)) => Ok(()),
        taken => taken.map(drop),
    }
}

/// Like [`take`], and treats all missing packs as lost.
///
/// # Errors
/// The errors of [`take`]; and [`ServerError::Refused`] if the site is not there at all.
pub(crate) async fn accept(store: &Arc<Store>) -> Result<u64, ServerError> {
    let accept = |store: &Store, missing: Missing| match missing.no_descriptor {
        true => Err(ServerError::Refused { code: AlarmCode::SiteIncomplete.name(), why: missing.problem() }),
        false => write_down(store, missing),
    };
    count(store, None, accept).await
}

/// Looks again while the alarm is up: the disk may be back.
///
/// # Errors
/// The errors of [`take`].
pub(crate) async fn look_again(store: &Arc<Store>) -> Result<(), ServerError> {
    count(store, Some(Alarm::Up), judge).await.map(drop)
}

/// True if a pack was found lost since this process began, so that it need not be counted again.
pub(crate) fn is_lost(store: &Store, pack: PackNumber) -> bool {
    lock(&store.damage.lost_packs).contains(&pack)
}

/// State of the alarm `site_incomplete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Up,
    Down,
}

/// Conclusion from what is missing. Returns how many blobs are newly in quarantine.
fn judge(store: &Store, missing: Missing) -> Result<u64, ServerError> {
    if !missing.is_site() {
        return write_down(store, missing);
    }
    if_there_is_room(alarm::raise(store, AlarmCode::SiteIncomplete, &missing.problem()))?;
    Ok(0)
}

fn write_down(store: &Store, missing: Missing) -> Result<u64, ServerError> {
    let Missing { packs, objects, .. } = missing;
    let mark = || {
        let rows = store.rows_of(&packs)?;
        let why = "its pack is missing from the site";
        let damage: Vec<_> = rows.iter().map(|(id, row)| (*id, Place::of(row), why.to_owned())).collect();
        let marked = blobs::mark(store, &damage)?;
        lock(&store.damage.lost_packs).extend(&packs);
        Ok(marked)
    };
    let marked = if packs.is_empty() { 0 } else { if_there_is_room(mark())? };
    let note = || {
        for object in objects {
            objects::note(store, object, "is missing from the site")?;
        }
        alarm::clear(store, AlarmCode::SiteIncomplete)
    };
    if_there_is_room(note())?;
    Ok(marked)
}

/// Counts, unless the alarm is not `only_if`, and passes on what is missing to `conclude`.
async fn count(
    store: &Arc<Store>,
    only_if: Option<Alarm>,
    conclude: fn(&Store, Missing) -> Result<u64, ServerError>,
) -> Result<u64, ServerError> {
    let named = move |store: &Arc<Store>| {
        let state = if alarm::is_up(store, AlarmCode::SiteIncomplete)? { Alarm::Up } else { Alarm::Down };
        let is_asked = only_if.is_none_or(|asked| asked == state);
        is_asked.then(|| Named::read(store)).transpose()
    };
    let Some(before) = store.blocking(named).await? else { return Ok(0) };
    let no_descriptor = match store.parts.site.len(&descriptor_object()).await {
        Ok(_) => false,
        Err(SiteError::NotFound { .. }) => true,
        Err(error) => return Err(store.site_error(error)),
    };
    let packs = list(store, Area::Packs).await?;
    let mut objects = list(store, Area::Manifests).await?;
    objects.extend(list(store, Area::Snapshots).await?);
    let compare = move |store: &Arc<Store>| {
        let still = Named::read(store)?;
        let mut missing = Missing { of_packs: still.packs.len(), no_descriptor, ..Missing::default() };
        for (number, row) in before.packs {
            if still.packs.contains_key(&number) && !packs.contains(&pack_object(&row.id)) {
                missing.packs.insert(number);
            }
        }
        let is_missing = |object: &Object| {
            let is_there = name(*object).is_none_or(|name| objects.contains(&name));
            still.objects.contains(object) && !is_there
        };
        missing.objects = before.objects.into_iter().filter(is_missing).collect();
        conclude(store, missing)
    };
    store.blocking(compare).await
}

async fn list(store: &Store, area: Area) -> Result<HashSet<ObjectName>, ServerError> {
    Ok(store.list(area).await?.into_iter().map(|Listed { name, .. }| name).collect())
}

/// Packs that the index names.
struct Named {
    packs: HashMap<PackNumber, PackRow>,
    objects: HashSet<Object>,
}

/// Where an object lies that has a name of its own.
fn name(object: Object) -> Option<ObjectName> {
    match object {
        Object::Manifest(id) => Some(manifest_object(&id)),
        Object::Snapshot(id) => Some(snapshot_object(&id)),
        Object::Pack(_) => None,
    }
}

impl Named {
    fn read(store: &Store) -> Result<Self, ServerError> {
        let lost = blobs::by_pack(store)?;
        let mut packs = HashMap::new();
        store.for_each_pack(|number, row| {
            // No blob of it counts as stored any more.
            let is_lost = lost.get(&number).is_some_and(|damaged| *damaged >= row.live.blobs);
            if !is_lost && row.live.blobs > 0 {
                packs.insert(number, row.clone());
            }
        })?;
        let mut objects = HashSet::new();
        store.for_each_row(Table::Manifest, &KeyRange::all(), |key, _| {
            let id = key.try_into().map(ManifestId::from_bytes);
            let id = id.map_err(|_| ServerError::Row { object: "a manifest".to_owned() })?;
            objects.insert(Object::Manifest(id));
            Ok(())
        })?;
        store.for_each_row(Table::Snapshot, &KeyRange::all(), |key, _| {
            let id = key.try_into().map(SnapshotId::from_bytes);
            let id = id.map_err(|_| ServerError::Row { object: "a snapshot".to_owned() })?;
            objects.insert(Object::Snapshot(id));
            Ok(())
        })?;
        Ok(Self { packs, objects })
    }
}

#[cfg(test)]
mod tests;
