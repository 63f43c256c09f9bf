//! Sizes of the repository, its clusters, nodes and snapshots: logical, unique and stored bytes.
//!
//! Clusters share nothing, so the rows of their packs add up to what each takes. What a node or a snapshot takes
//! is counted over the different chunks that its manifests reach. All of it is as of the moments when the
//! rows are read: beside a push the parts need not fit together to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::wire::{ClusterStats, NodeStats, NotCounted, SnapshotStats, Space, StatsReport};
use format_spec::{ChunkId, ClusterName, NodeName, SnapshotId};

use crate::catalog::ledger::Counts;
use crate::error::{Chain, ServerError};
use crate::index::{KeyRange, Table};
use crate::lease::Kind;
use crate::operation::{Operation, Progress};
use crate::pack;
use crate::rows::{ChunkRow, PackRow};
use crate::server::Server;
use crate::snapshot::{self, reach};
use crate::store::{Store, wait};
use crate::time::rfc3339;

/// Rows that are looked up at once.
const AT_ONCE: usize = 10_000;

/// Counts everything, or one cluster.
pub(crate) struct Stats {
    pub(crate) cluster: Option<ClusterName>,
}

impl Operation for Stats {
    const KIND: Kind = Kind("stats");
    type Needs = ();
    type Report = StatsReport;

    async fn run(self, server: &Arc<Server>, (): &(), _: &Progress) -> Result<StatsReport, ServerError> {
        server.store.waiting(move |store| count(store, self.cluster.as_ref())).await
    }
}

fn count(store: &Arc<Store>, cluster: Option<&ClusterName>) -> Result<StatsReport, ServerError> {
    let snapshots = snapshot::list(store, cluster)?;
    let mut report = packs(store, cluster, &snapshots)?;
    let gone = reach::references_of_idle_pages(store)?;
    let mut nodes: BTreeMap<(ClusterName, NodeName), Vec<Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        match of_snapshot(store, &snapshot, &gone) {
            Ok(stats) => report.snapshots.push(stats),
            Err(error) => {
                if is_listed(store, snapshot.id)? {
                    let why = cannot_be_read(error)?;
                    let (id, cluster) = (snapshot.id, snapshot.cluster);
                    report.not_counted.push(NotCounted { id, cluster, why });
                }
                continue;
            }
        }
        for manifest in &snapshot.manifests {
            let key = (snapshot.cluster.clone(), manifest.node.clone());
            nodes.entry(key).or_default().push(snapshot.clone());
        }
    }
    for ((cluster, node), snapshots) in nodes {
        report.nodes.push(of_node(store, cluster, node, snapshots)?);
    }
    Ok(report)
}

fn of_snapshot(store: &Arc<Store>, snapshot: &Snapshot, gone: &Counts) -> Result<SnapshotStats, ServerError> {
    Ok(SnapshotStats {
        id: snapshot.id,
        cluster: snapshot.cluster.clone(),
        origins: snapshot::origins(snapshot),
        created: rfc3339(snapshot.created_ms),
        space: reached(store, &snapshot.manifests)?,
        alone_bytes: reach::freed(store, &[snapshot], gone)?.bytes(),
    })
}

fn of_node(
    store: &Arc<Store>,
    cluster: ClusterName,
    node: NodeName,
    mut snapshots: Vec<Snapshot>,
) -> Result<NodeStats, ServerError> {
    let space = loop {
        let of_node = |manifest: &&ManifestRef| manifest.node == node;
        let manifests = snapshots.iter().flat_map(|snapshot| &snapshot.manifests).filter(of_node);
        let manifests: Vec<ManifestRef> = manifests.cloned().collect();
        match reached(store, &manifests) {
            Ok(space) => break space,
            Err(error) => snapshots = still_listed(store, snapshots, error)?,
        }
    };
    let snapshots = u64::try_from(snapshots.len()).unwrap_or(u64::MAX);
    Ok(NodeStats { cluster, node, snapshots, space })
}

/// Unreadable part of a snapshot, for people.
///
/// # Errors
/// `error`, if that says nothing about the snapshot.
pub(crate) fn cannot_be_read(error: ServerError) -> Result<String, ServerError> {
    if pack::unreadable(&error).is_some() { Ok(Chain(&error).to_string()) } else { Err(error) }
}

fn is_listed(store: &Store, id: SnapshotId) -> Result<bool, ServerError> {
    match snapshot::get(store, id) {
        Ok(_) => Ok(true),
        Err(ServerError::NoSnapshot(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Those of `snapshots` that are listed still, after something of them could not be read: the collector may have
/// purged some meanwhile.
///
/// # Errors
/// `error`, if all of them are.
fn still_listed(
    store: &Store,
    mut snapshots: Vec<Snapshot>,
    error: ServerError,
) -> Result<Vec<Snapshot>, ServerError> {
    let before = snapshots.len();
    let listed = snapshot::list(store, None)?;
    let listed: BTreeSet<SnapshotId> = listed.into_iter().map(|snapshot| snapshot.id).collect();
    snapshots.retain(|snapshot| listed.contains(&snapshot.id));
    if snapshots.len() < before { Ok(snapshots) } else { Err(error) }
}

/// Sums over the rows of packs.
fn packs(
    store: &Store,
    of: Option<&ClusterName>,
    snapshots: &[Snapshot],
) -> Result<StatsReport, ServerError> {
    let mut report = StatsReport::default();
    let mut clusters: BTreeMap<ClusterName, ClusterStats> = BTreeMap::new();
    let new = |cluster: &ClusterName| ClusterStats {
        cluster: cluster.clone(),
        snapshots: 0,
        space: Space::default(),
    };
    store.for_each_row(Table::Pack, &KeyRange::all(), |_, value| {
        let row = PackRow::decode(value).ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
        if of.is_none_or(|of| *of == row.domain) {
            report.packs.add(row.len);
            report.dead_bytes += row.dead_bytes();
            let stats = clusters.entry(row.domain.clone()).or_insert_with(|| new(&row.domain));
            stats.space.unique_bytes += row.live.plain_bytes;
            stats.space.stored_bytes += row.live.stored_bytes;
        }
        Ok(())
    })?;
    for snapshot in snapshots {
        let stats = clusters.entry(snapshot.cluster.clone()).or_insert_with(|| new(&snapshot.cluster));
        stats.snapshots += 1;
        stats.space.logical_bytes += logical(&snapshot.manifests);
    }
    report.clusters = clusters.into_values().collect();
    Ok(report)
}

fn logical(manifests: &[ManifestRef]) -> u64 {
    manifests.iter().map(|manifest| manifest.totals.bytes).sum()
}

/// Sizes of the different pages and chunks that manifests reach.
fn reached(store: &Arc<Store>, manifests: &[ManifestRef]) -> Result<Space, ServerError> {
    let mut pages: BTreeSet<ChunkId> = BTreeSet::new();
    for manifest in manifests {
        let (_, opened) = wait(snapshot::open_manifest(store, manifest.id))?;
        pages.extend(opened.pages.iter().map(|page| page.id));
    }
    let pages = rows(store, pages.into_iter().collect())?;
    let mut space = Space { logical_bytes: logical(manifests), ..Space::default() };
    pages.iter().for_each(|(_, row)| add(&mut space, row));
    reach::for_each_reference(store, &pages, |_, rows| {
        rows.iter().flatten().for_each(|row| add(&mut space, row));
        Ok(())
    })?;
    Ok(space)
}

fn add(space: &mut Space, row: &ChunkRow) {
    space.unique_bytes += u64::from(row.plain_len);
    space.stored_bytes += u64::from(row.stored_len);
}

fn rows(store: &Store, ids: Vec<ChunkId>) -> Result<Vec<(ChunkId, ChunkRow)>, ServerError> {
    let mut found = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        let rows = store.chunk_rows(ids)?;
        found.extend(ids.iter().zip(rows).filter_map(|(id, row)| Some((*id, row?))));
    }
    Ok(found)
}
