//! Which snapshot, and whose share of it.

use std::collections::BTreeSet;
use std::str::FromStr;

use format_spec::wire::SnapshotInfo;
use format_spec::{NodeName, SnapshotId};

use crate::error::ClientError;

/// A snapshot as it is named on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotChoice {
    /// The newest that fits.
    Latest,
    /// This one.
    Id(SnapshotId),
}

impl FromStr for SnapshotChoice {
    type Err = format_spec::id::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "latest" { Ok(Self::Latest) } else { text.parse().map(Self::Id) }
    }
}

/// Whose share of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChoice {
    /// The user named it: no other will do.
    Named(NodeName),
    /// This machine's own name: the only node of a snapshot will do as well.
    Assumed(NodeName),
}

impl NodeChoice {
    fn name(&self) -> &NodeName {
        match self {
            Self::Named(name) | Self::Assumed(name) => name,
        }
    }
}

/// The newest snapshot that holds the chosen node, and that node.
///
/// # Errors
/// [`ClientError::NotFound`] if there is none; [`ClientError::Usage`], listing the nodes, if there
/// are several and none was named.
pub(super) fn latest(
    snapshots: &[SnapshotInfo],
    node: &NodeChoice,
) -> Result<(SnapshotId, NodeName), ClientError> {
    let nodes: BTreeSet<&NodeName> = snapshots.iter().flat_map(|snapshot| &snapshot.nodes).collect();
    if nodes.is_empty() {
        return Err(ClientError::NotFound("there is no snapshot yet".to_owned()));
    }
    let node = choose(nodes, node, "no snapshot")?;
    let id = newest_with(snapshots, Some(&node)).expect("the node was taken from these snapshots");
    Ok((id, node))
}

/// The newest snapshot that holds `node`, or any.
pub(super) fn newest_with(snapshots: &[SnapshotInfo], node: Option<&NodeName>) -> Option<SnapshotId> {
    let fits = |info: &&SnapshotInfo| node.is_none_or(|node| info.nodes.contains(node));
    snapshots.iter().filter(fits).map(|info| info.id).max()
}

/// The chosen node of one snapshot.
///
/// # Errors
/// As [`latest`].
pub(super) fn node_of(snapshot: &SnapshotInfo, node: &NodeChoice) -> Result<NodeName, ClientError> {
    choose(snapshot.nodes.iter().collect(), node, &format!("snapshot {} does not", snapshot.id))
}

fn choose(nodes: BTreeSet<&NodeName>, choice: &NodeChoice, who: &str) -> Result<NodeName, ClientError> {
    if nodes.contains(choice.name()) {
        return Ok(choice.name().clone());
    }
    let list: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
    let list = list.join(", ");
    match choice {
        NodeChoice::Named(name) => {
            let verb = if who.ends_with("not") { "hold" } else { "holds" };
            Err(ClientError::NotFound(format!("{who} {verb} node `{name}`; nodes there are: {list}")))
        }
        NodeChoice::Assumed(_) => match nodes.into_iter().collect::<Vec<_>>().as_slice() {
            [only] => Ok((*only).clone()),
            _ => Err(ClientError::Usage(format!("choose a node with --node; nodes there are: {list}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format_spec::snapshot::SnapshotState;

    fn snapshot(at: u64, nodes: &[&str]) -> SnapshotInfo {
        SnapshotInfo {
            id: SnapshotId::new(at, [0; 10]),
            cluster: "c".parse().unwrap(),
            nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
            created: String::new(),
            state: SnapshotState::Complete,
            files: 0,
            bytes: 0,
            problems: 0,
            pushes: Vec::new(),
            going_until: None,
            protected: None,
            damaged: None,
        }
    }

    fn named(name: &str) -> NodeChoice {
        NodeChoice::Named(name.parse().unwrap())
    }

    fn assumed(name: &str) -> NodeChoice {
        NodeChoice::Assumed(name.parse().unwrap())
    }

    #[test]
    fn the_latest_is_the_newest_that_holds_the_node() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["b"]), snapshot(3, &["a"]), snapshot(4, &["b"])];

        assert_eq!(latest(&all, &named("a")).unwrap(), (all[2].id, "a".parse().unwrap()));
        assert_eq!(latest(&all, &assumed("b")).unwrap().0, all[3].id);
        assert_eq!(newest_with(&all, None), Some(all[3].id));
    }

    #[test]
    fn a_node_that_was_named_is_never_replaced() {
        let error = latest(&[snapshot(1, &["a"])], &named("b")).unwrap_err();

        assert!(matches!(&error, ClientError::NotFound(text) if text.contains("are: a")), "{error}");
        assert!(matches!(node_of(&snapshot(1, &["a"]), &named("b")), Err(ClientError::NotFound(_))));
    }

    #[test]
    fn an_assumed_node_gives_way_to_the_only_one() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["a"])];

        assert_eq!(latest(&all, &assumed("here")).unwrap(), (all[1].id, "a".parse().unwrap()));
        assert_eq!(node_of(&all[0], &assumed("here")).unwrap().as_str(), "a");
    }

    #[test]
    fn several_nodes_and_none_named_lists_them() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["b"])];

        let error = latest(&all, &assumed("here")).unwrap_err();

        assert!(matches!(&error, ClientError::Usage(text) if text.contains("a, b")), "{error}");
        assert!(matches!(node_of(&snapshot(1, &["a", "b"]), &assumed("x")), Err(ClientError::Usage(_))));
    }

    #[test]
    fn no_snapshot_at_all_is_not_found() {
        assert!(matches!(latest(&[], &assumed("a")), Err(ClientError::NotFound(_))));
    }
}
