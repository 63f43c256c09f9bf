//! The caller of a request, as its credential proves. Nothing that a body says changes it.

use std::fmt;

use format_spec::access::{NodeScope, Role};
use format_spec::snapshot::Snapshot;
use format_spec::{ClusterName, NodeId, NodeName, TokenName};
use serde::{Deserialize, Serialize};

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) kind: Kind,
    /// The credential that proves it.
    pub(crate) source: Source,
}

/// Kind of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All rights.
    Administrator,
    /// Runs upkeep and decides about snapshots.
    Operator,
    /// Reads figures and alarms.
    Monitor,
    /// Pushes or restores its own.
    Node { scope: NodeScope, rights: NodeRights },
}

/// Rights of a node on its own snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeRights {
    Push,
    Restore,
    PushAndRestore,
}

impl NodeRights {
    /// The rights of these roles; `None` unless all are roles of nodes and there is one.
    pub(crate) fn of(roles: &[Role]) -> Option<Self> {
        let has = |role| roles.contains(&role);
        match (has(Role::NodePush), has(Role::NodeRestore)) {
            _ if !roles.iter().all(|role| role.is_of_nodes()) => None,
            (true, true) => Some(Self::PushAndRestore),
            (true, false) => Some(Self::Push),
            (false, true) => Some(Self::Restore),
            (false, false) => None,
        }
    }

    /// Its roles.
    pub(crate) fn roles(self) -> Vec<Role> {
        match self {
            Self::Push => vec![Role::NodePush],
            Self::Restore => vec![Role::NodeRestore],
            Self::PushAndRestore => vec![Role::NodePush, Role::NodeRestore],
        }
    }
}

/// The credential of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The token in the data folder.
    FirstToken,
    Token(TokenName),
    /// The certificate of an enrolled node.
    Node(NodeId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstToken => f.write_str("the first token"),
            Self::Token(name) => write!(f, "token {name}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

impl Principal {
    /// The holder of the token in the data folder.
    pub(crate) const FIRST_TOKEN: Self = Self { kind: Kind::Administrator, source: Source::FirstToken };

    /// The nodes that it is limited to.
    pub(crate) fn scope(&self) -> Option<&NodeScope> {
        match &self.kind {
            Kind::Node { scope, .. } => Some(scope),
            Kind::Administrator | Kind::Operator | Kind::Monitor => None,
        }
    }

    /// True unless it is limited to nodes that `node` of `cluster` is none of.
    pub(crate) fn reaches(&self, cluster: &ClusterName, node: &NodeName) -> bool {
        self.scope().is_none_or(|scope| scope.has(cluster, node))
    }

    /// The part of a snapshot that it reaches; None: no part.
    pub(crate) fn part_of(&self, mut snapshot: Snapshot) -> Option<Snapshot> {
        let Some(scope) = self.scope() else { return Some(snapshot) };
        snapshot.manifests.retain(|share| scope.has(&snapshot.cluster, &share.node));
        (!snapshot.manifests.is_empty()).then_some(snapshot)
    }
}
