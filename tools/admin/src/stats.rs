//! `stats`: what the repository takes, and for whom.

use std::io::{self, Write};

use format_spec::ClusterName;
use format_spec::path::Printable;
use format_spec::wire::{ClusterStats, NodeStats, NotCounted, SnapshotStats, Space, StatsReport};
use indicatif::{HumanBytes, HumanCount};
use node_client::error::ClientError;
use node_client::show::{Show, show};
use node_client::summary::folders;
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::Arguments;
use crate::error::AdminError;
use crate::show::table;

/// Shows what all clusters take, or one of them.
///
/// # Errors
/// [`AdminError::Client`]; a cluster without data is not found.
pub(crate) fn run(arguments: &Arguments, cluster: Option<&ClusterName>) -> Result<Verdict, AdminError> {
    let mut report = ask(arguments, async |api| api.stats().await)?;
    let directory_bytes = directories(&report);
    if let Some(cluster) = cluster {
        only(cluster, &mut report)?;
    }
    let verdict = if report.not_counted.is_empty() { Verdict::Sound } else { Verdict::Partial };
    show(&Stats { report, directory_bytes }, arguments.output)?;
    Ok(verdict)
}

fn only(cluster: &ClusterName, report: &mut StatsReport) -> Result<(), ClientError> {
    report.clusters.retain(|stats| stats.cluster == *cluster);
    report.nodes.retain(|stats| stats.cluster == *cluster);
    report.snapshots.retain(|stats| stats.cluster == *cluster);
    report.not_counted.retain(|snapshot| snapshot.cluster == *cluster);
    if report.clusters.is_empty() {
        return Err(ClientError::NotFound(format!("the repository holds no data of cluster `{cluster}`")));
    }
    Ok(())
}

/// Bytes in packs beside blobs: directories, keys and padding.
fn directories(all: &StatsReport) -> u64 {
    let blobs: u64 = all.clusters.iter().map(|stats| stats.space.stored_bytes).sum();
    all.packs.bytes.saturating_sub(blobs).saturating_sub(all.dead_bytes)
}

#[derive(Debug, Serialize)]
struct Stats {
    #[serde(flatten)]
    report: StatsReport,
    directory_bytes: u64,
}

impl Show for Stats {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let StatsReport { clusters, nodes, snapshots, not_counted, packs, dead_bytes } = &self.report;
        let mut rows = vec![["CLUSTER", "SNAPSHOTS", "LOGICAL", "UNIQUE", "STORED"].map(str::to_owned)];
        rows.extend(clusters.iter().map(cluster_row));
        table(out, &rows)?;
        let mut rows =
            vec![["CLUSTER", "NODE", "SNAPSHOTS", "LOGICAL", "UNIQUE", "STORED"].map(str::to_owned)];
        rows.extend(nodes.iter().map(node_row));
        writeln!(out)?;
        table(out, &rows)?;
        let head =
            ["SNAPSHOT", "CLUSTER", "FOLDERS", "CREATED", "LOGICAL", "UNIQUE", "STORED", "UNIQUE TO IT"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(snapshots.iter().map(snapshot_row));
        writeln!(out)?;
        table(out, &rows)?;
        for NotCounted { id, why, .. } in not_counted {
            writeln!(out, "NOT COUNTED: {id}: {}", Printable(why.as_bytes()))?;
        }
        let count = HumanCount(packs.count);
        let [bytes, directories, dead] =
            [packs.bytes, self.directory_bytes, *dead_bytes].map(|bytes| HumanBytes(bytes).to_string());
        writeln!(
            out,
            "\nsite: {count} packs of all clusters, {bytes} ({directories} pack directories and padding, {dead} unreferenced)"
        )
    }

    fn is_news(&self) -> bool {
        true
    }
}

fn bytes(space: &Space) -> [String; 3] {
    [space.logical_bytes, space.unique_bytes, space.stored_bytes].map(|bytes| HumanBytes(bytes).to_string())
}

fn cluster_row(stats: &ClusterStats) -> [String; 5] {
    let [logical, unique, stored] = bytes(&stats.space);
    [stats.cluster.to_string(), HumanCount(stats.snapshots).to_string(), logical, unique, stored]
}

fn node_row(stats: &NodeStats) -> [String; 6] {
    let [logical, unique, stored] = bytes(&stats.space);
    let snapshots = HumanCount(stats.snapshots).to_string();
    [stats.cluster.to_string(), stats.node.to_string(), snapshots, logical, unique, stored]
}

fn snapshot_row(stats: &SnapshotStats) -> [String; 8] {
    let [logical, unique, stored] = bytes(&stats.space);
    let alone = HumanBytes(stats.alone_bytes).to_string();
    let (id, cluster) = (stats.id.to_string(), stats.cluster.to_string());
    [id, cluster, folders(&stats.origins), stats.created.clone(), logical, unique, stored, alone]
}
