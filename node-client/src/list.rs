//! Which snapshots `list` shows, and what to say if a name fits none.

use std::collections::BTreeSet;

use format_spec::wire::SnapshotInfo;
use format_spec::{ClusterName, LabelChoice, NodeName};
use serde::Serialize;

use crate::api::Api;
use crate::error::ClientError;

/// Snapshots, and which of their columns are shown to people; none for all.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Listed {
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// The columns, from left to right.
    #[serde(skip)]
    pub columns: Vec<Column>,
}

/// A column of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Column {
    /// Id of the snapshot.
    Snapshot,
    /// Its cluster.
    Cluster,
    /// Its nodes.
    Nodes,
    /// The pushed folders.
    Folders,
    /// When it was committed, in UTC.
    Created,
    /// Complete or not, and what else is known of it.
    State,
    /// How many files.
    Files,
    /// Bytes of content.
    Bytes,
    /// How many files the push found changed.
    Changed,
    /// Bytes that the push read.
    Read,
    /// Bytes that the push sent.
    Sent,
    /// Labels and note.
    Labels,
}

impl Column {
    /// All of them, from left to right.
    pub const ALL: [Self; 12] = [
        Self::Snapshot,
        Self::Cluster,
        Self::Nodes,
        Self::Folders,
        Self::Created,
        Self::State,
        Self::Files,
        Self::Bytes,
        Self::Changed,
        Self::Read,
        Self::Sent,
        Self::Labels,
    ];

    /// Its heading.
    pub fn head(self) -> String {
        format!("{self:?}").to_uppercase()
    }
}

/// The snapshots that the user asks `list` for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only this cluster, if any place names one.
    pub cluster: Option<ClusterName>,
    /// The cluster that the command line names: an error if it has no snapshot.
    pub named_cluster: Option<ClusterName>,
    /// Only this node, which the command line names: an error if it has no snapshot.
    pub named_node: Option<NodeName>,
    /// Only snapshots with these labels.
    pub labels: Vec<LabelChoice>,
}

/// Those of `all` that are wanted, in their order.
///
/// # Errors
/// [`ClientError::NotFound`], naming what there is, if a name of the command line fits none.
pub fn choose(mut all: Vec<SnapshotInfo>, wanted: &Wanted) -> Result<Vec<SnapshotInfo>, ClientError> {
    if let Some(name) = &wanted.named_cluster
        && all.iter().all(|info| info.cluster != *name)
    {
        return Err(no_cluster(name, &all));
    }
    all.retain(|info| wanted.cluster.as_ref().is_none_or(|cluster| info.cluster == *cluster));
    all.retain(|info| info.about.fits(&wanted.labels));
    let Some(name) = &wanted.named_node else { return Ok(all) };
    let (of_node, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|info| info.nodes.contains(name));
    if of_node.is_empty() {
        let nodes = others.iter().flat_map(|info| &info.nodes).map(NodeName::as_str).collect();
        return Err(nothing("node", name.as_str(), &nodes));
    }
    Ok(of_node)
}

/// Snapshots of `cluster`, or of all clusters.
///
/// # Errors
/// The errors of [`Api::snapshots`]. [`ClientError::NotFound`], naming the existing clusters, if the cluster
/// has no snapshots.
pub async fn of_cluster(api: &Api, cluster: Option<&ClusterName>) -> Result<Vec<SnapshotInfo>, ClientError> {
    let found = api.snapshots(cluster).await?;
    match cluster {
        Some(cluster) if found.is_empty() => Err(no_cluster(cluster, &api.snapshots(None).await?)),
        _ => Ok(found),
    }
}

fn no_cluster(name: &ClusterName, all: &[SnapshotInfo]) -> ClientError {
    let clusters = all.iter().map(|info| info.cluster.as_str()).collect();
    nothing("cluster", name.as_str(), &clusters)
}

fn nothing(kind: &str, name: &str, others: &BTreeSet<&str>) -> ClientError {
    let others = others.iter().copied().collect::<Vec<_>>().join(", ");
    let others = if others.is_empty() {
        "no snapshot yet".to_owned()
    } else {
        format!("{kind}s with snapshots: {others}")
    };
    ClientError::NotFound(format!("no snapshot of {kind} `{name}`; {others}"))
}

#[cfg(test)]
mod tests {
    use format_spec::SnapshotId;

    use super::*;
    use crate::summary::plain;

    fn snapshot(at: u64, cluster: &str, nodes: &[&str]) -> SnapshotInfo {
        SnapshotInfo {
            cluster: cluster.parse().unwrap(),
            nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
            ..plain(SnapshotId::new(at, [0; 10]))
        }
    }

    fn all() -> Vec<SnapshotInfo> {
        vec![snapshot(1, "c", &["a"]), snapshot(2, "c", &["b"]), snapshot(3, "d", &["a"])]
    }

    fn chosen(wanted: &Wanted) -> Vec<SnapshotId> {
        choose(all(), wanted).unwrap().iter().map(|info| info.id).collect()
    }

    #[test]
    fn a_list_is_of_the_cluster_and_node_that_were_named() {
        let ids: Vec<_> = all().iter().map(|info| info.id).collect();
        let cluster: Option<ClusterName> = Some("c".parse().unwrap());
        let node: Option<NodeName> = Some("a".parse().unwrap());

        let of_cluster = Wanted { cluster: cluster.clone(), named_cluster: cluster, ..Wanted::default() };
        assert_eq!(chosen(&Wanted::default()), ids);
        assert_eq!(chosen(&of_cluster), ids[..2]);
        assert_eq!(chosen(&Wanted { named_node: node.clone(), ..Wanted::default() }), [ids[0], ids[2]]);
        assert_eq!(chosen(&Wanted { named_node: node, ..of_cluster }), ids[..1]);
    }

    #[test]
    fn a_name_without_snapshots_is_not_found_and_others_are_named() {
        let cluster = |name: &str| {
            let name: Option<ClusterName> = Some(name.parse().unwrap());
            Wanted { cluster: name.clone(), named_cluster: name, ..Wanted::default() }
        };
        let node = |wanted: Wanted| Wanted { named_node: Some("z".parse().unwrap()), ..wanted };

        for (wanted, named) in [
            (cluster("typo"), "clusters with snapshots: c, d"),
            (node(Wanted::default()), "nodes with snapshots: a, b"),
            (node(cluster("d")), "nodes with snapshots: a"),
        ] {
            let error = choose(all(), &wanted).unwrap_err();
            assert!(matches!(&error, ClientError::NotFound(text) if text.ends_with(named)), "{error}");
        }
        assert!(matches!(choose(Vec::new(), &cluster("c")), Err(ClientError::NotFound(_))));
    }

    /// A new node's settings name a cluster before anything was pushed to it.
    #[test]
    fn a_cluster_of_the_settings_may_have_no_snapshot_yet() {
        let wanted = Wanted { cluster: Some("new".parse().unwrap()), ..Wanted::default() };

        assert_eq!(chosen(&wanted), Vec::new());
    }
}
