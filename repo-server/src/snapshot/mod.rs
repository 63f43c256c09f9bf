//! Snapshots: how one comes to be, and how it is found again.
//!
//! Order of a commit (S2): the session's packs are published and indexed → every page of the manifest
//! is there → the manifest object is on the site → the snapshot object is on the site → one index
//! batch adds the rows, counts the pages and ends the session → the answer is sent. A crash before
//! the snapshot object leaves objects that nothing names; one after it leaves all that the batch needs, and
//! it is brought to its end later (`start::finish`). The client learns of it when it asks again.

mod anew;
pub(crate) mod commit;
mod listing;
mod manifests;
mod marks;
mod problems;
pub(crate) mod reach;
pub(crate) mod retention;
pub(crate) mod series;

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::blob::Decompressor;
use format_spec::key::BlobKind;
use format_spec::manifest::{self, Manifest};
use format_spec::object::{self, ObjectKind};
use format_spec::page::{self, Record};
use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::{ClusterName, FormatError, ManifestId, NodeName, SnapshotId, wire};

pub(crate) use anew::write_anew;
pub(crate) use commit::commit;
pub(crate) use listing::{ListPlace, PartLimit, part};
pub(crate) use manifests::for_each_manifest;
pub(crate) use marks::{forget, mark, marks, protect, undelete, unprotect};
pub(crate) use problems::{Cursor, problems};
pub(crate) use reach::Freed;

use crate::catalog::ledger::{Counts, counts_of};
use crate::defects;
use crate::defects::objects::{Known, Object};
use crate::error::ServerError;
use crate::health::clock::JUMP_MS;
use crate::index::{KeyRange, Table};
use crate::pack::Blob;
use crate::rows::{DoomedKey, MarkRow};
use crate::session::Pusher;
use crate::site::ObjectName;
use crate::site::layout::{manifest_object, snapshot_object};
use crate::store::{Domain, Store};
use crate::time::rfc3339;

/// The longest object of a snapshot: its row has to fit into the index.
const MAX_SNAPSHOT_LEN: usize = 1 << 20;

/// The longest object of a manifest: its body has a limit, and a kibibyte is more than sealing adds.
const MAX_MANIFEST_LEN: usize = manifest::MAX_MANIFEST_LEN + 1024;

/// Content of a snapshot object: opened, and not compared with its name.
pub(crate) async fn read(store: &Store, name: &ObjectName) -> Result<Snapshot, ServerError> {
    let sealed = store.get_at_most(name, MAX_SNAPSHOT_LEN).await?;
    let damaged = |source| ServerError::Damaged { object: name.to_string(), source };
    let payload = object::open(ObjectKind::Snapshot, &store.keys, store.id(), &sealed);
    Snapshot::decode(&payload.map_err(damaged)?).map_err(damaged)
}

/// The objects of a snapshot: its own, and its manifests.
pub(crate) fn objects(snapshot: &Snapshot) -> Vec<DoomedKey> {
    let manifests = snapshot.manifests.iter().map(|manifest| manifest_object(&manifest.id));
    [snapshot_object(&snapshot.id)].into_iter().chain(manifests).map(DoomedKey::of).collect()
}

/// How often a manifest names each page.
pub(crate) fn named_pages(manifest: &Manifest) -> Counts {
    counts_of(manifest.pages.iter().map(|page| page.id).collect())
}

/// The snapshot with this id.
pub(crate) fn get(store: &Store, id: SnapshotId) -> Result<Snapshot, ServerError> {
    let value = store.parts.index.get(Table::Snapshot, id.as_bytes())?;
    decode(id, &value.ok_or(ServerError::NoSnapshot(id))?)
}

/// Checks if a snapshot has this manifest as that of `pusher`.
pub(crate) fn has_manifest(store: &Store, pusher: &Pusher, id: ManifestId) -> Result<bool, ServerError> {
    let malformed = || ServerError::Row { object: format!("manifest {id}") };
    let Some(of) = store.parts.index.get(Table::Manifest, id.as_bytes())? else { return Ok(false) };
    let of = SnapshotId::from_bytes(of.try_into().map_err(|_| malformed())?);
    match get(store, of) {
        Ok(snapshot) => {
            let share = snapshot.manifest_of(&pusher.node);
            Ok(snapshot.cluster == pusher.cluster && share.is_some_and(|share| share.id == id))
        }
        Err(ServerError::NoSnapshot(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn decode(id: SnapshotId, value: &[u8]) -> Result<Snapshot, ServerError> {
    Snapshot::decode(value).map_err(|_| ServerError::Row { object: format!("snapshot {id}") })
}

/// Snapshots of `cluster`, or of all clusters, in the order of their commits.
pub(crate) fn list(store: &Store, cluster: Option<&ClusterName>) -> Result<Vec<Snapshot>, ServerError> {
    let mut snapshots = Vec::new();
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = store.parts.index.scan(Table::Snapshot, &range, NonZeroUsize::MAX)?;
        for row in found.rows {
            let id = row.key.try_into().map(SnapshotId::from_bytes);
            let id = id.map_err(|_| ServerError::Row { object: "a snapshot".to_owned() })?;
            let snapshot = decode(id, &row.value)?;
            if cluster.is_none_or(|cluster| snapshot.cluster == *cluster) {
                snapshots.push(snapshot);
            }
        }
        next = found.rest;
    }
    snapshots.sort_by_key(Snapshot::order);
    Ok(snapshots)
}

/// Description of a snapshot for people and scripts, at `now_ms` in milliseconds since 1970.
pub(crate) fn info(snapshot: &Snapshot, mark: &MarkRow, damaged: &Known, now_ms: u64) -> wire::SnapshotInfo {
    let sum = |of: fn(&format_spec::manifest::Totals) -> u64| {
        snapshot.manifests.iter().map(|manifest| of(&manifest.totals)).sum()
    };
    wire::SnapshotInfo {
        id: snapshot.id,
        cluster: snapshot.cluster.clone(),
        nodes: snapshot.manifests.iter().map(|manifest| manifest.node.clone()).collect(),
        created: rfc3339(snapshot.created_ms),
        state: snapshot.state,
        files: sum(|totals| totals.files),
        bytes: sum(|totals| totals.bytes),
        problems: sum(|totals| totals.problems),
        pushes: snapshot.manifests.iter().filter_map(node_push).collect(),
        going_until: mark.tombstone.as_ref().map(|tombstone| rfc3339(tombstone.until_ms)),
        protected: mark.protection.as_ref().map(|protection| protection.reason.clone()),
        damaged: damaged.against(snapshot),
        series: Some(snapshot.series()),
        origins: origins(snapshot),
        number: snapshot.number.unwrap_or(0),
        ahead_of_clock: snapshot.created_ms > now_ms.saturating_add(JUMP_MS),
        suspect: snapshot.shrunk,
        about: snapshot.about.clone().unwrap_or_default(),
    }
}

/// The folders of each node whose folders are known.
pub(crate) fn origins(snapshot: &Snapshot) -> Vec<wire::NodeOrigin> {
    let origin = |share: &ManifestRef| {
        let origin = share.origin.as_ref()?;
        let roots = origin.roots.iter();
        Some(wire::NodeOrigin {
            node: share.node.clone(),
            series: origin.series.clone(),
            roots: roots
                .map(|root| format!("{}{}", origin.prefix(), String::from_utf8_lossy(root.as_bytes())))
                .collect(),
            folders: origin.folders,
        })
    };
    snapshot.manifests.iter().filter_map(origin).collect()
}

fn node_push(manifest: &ManifestRef) -> Option<wire::NodePush> {
    let stats = manifest.push.clone()?;
    Some(wire::NodePush { node: manifest.node.clone(), stats })
}

/// Like [`reach::references_of_idle_pages`], for a request.
pub(crate) async fn references_of_idle_pages(store: &Arc<Store>) -> Result<Counts, ServerError> {
    store.waiting(reach::references_of_idle_pages).await
}

/// Like [`reach::freed`], for a request.
pub(crate) async fn freed(
    store: &Arc<Store>,
    snapshots: &[&Snapshot],
    gone: &Counts,
) -> Result<Freed, ServerError> {
    let snapshots: Vec<Snapshot> = snapshots.iter().copied().cloned().collect();
    let gone = gone.clone();
    let add = move |store: &Arc<Store>| reach::freed(store, &snapshots.iter().collect::<Vec<_>>(), &gone);
    store.waiting(add).await
}

/// The manifest of `node` in a snapshot: its CBOR.
pub(crate) async fn manifest(
    store: &Arc<Store>,
    id: SnapshotId,
    node: &NodeName,
) -> Result<Bytes, ServerError> {
    let snapshot = store.blocking(move |store| get(store, id)).await?;
    let found = snapshot.manifest_of(node);
    let found = found.ok_or_else(|| ServerError::NoNode { snapshot: id, node: node.clone() })?;
    let (payload, _) = open_manifest(store, found.id).await?;
    Ok(payload)
}

/// The manifest with this id, checked and opened: its CBOR, and what that says. One that proves to be damaged is
/// remembered as such when this returns.
///
/// # Errors
/// [`ServerError::Damaged`], [`ServerError::Lost`] and [`ServerError::Site`].
pub(crate) async fn open_manifest(
    store: &Arc<Store>,
    id: ManifestId,
) -> Result<(Bytes, Manifest), ServerError> {
    let read = defects::twice(|| read_manifest(store, id)).await;
    defects::heed(store, Object::Manifest(id), read).await
}

async fn read_manifest(store: &Arc<Store>, id: ManifestId) -> Result<(Bytes, Manifest), ServerError> {
    let sealed = store.get_at_most(&manifest_object(&id), MAX_MANIFEST_LEN).await?;
    let open = move |store: &Arc<Store>| {
        let damaged = |source| ServerError::Damaged { object: id.to_string(), source };
        if ManifestId::of(&sealed) != id {
            return Err(damaged(FormatError::Unauthentic { what: "manifest" }));
        }
        let payload = object::open(ObjectKind::Manifest, &store.keys, store.id(), &sealed);
        let payload = payload.map_err(damaged)?;
        let manifest = Manifest::decode(&payload).map_err(damaged)?;
        Ok((Bytes::from(payload), manifest))
    };
    store.compute(open).await
}

/// The records of a page, after checking its id. Computes.
pub(crate) fn page_records(blob: &Blob, domain: &Domain) -> Result<Vec<Record>, FormatError> {
    let no_memory = |_| FormatError::Malformed { what: "page", why: "no memory to decompress it".to_owned() };
    let mut decompressor = Decompressor::new().map_err(no_memory)?;
    let plain = decompressor.decompress(blob.info.compression, &blob.payload, blob.info.plain_len)?;
    if domain.key.id_of(BlobKind::Page, plain) != blob.info.id {
        return Err(FormatError::WrongChunk { expected: blob.info.id });
    }
    page::decode(plain)
}
