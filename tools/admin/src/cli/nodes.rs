//! The command line of `node`.

use clap::{Args, Subcommand, ValueEnum};
use format_spec::access::Role;
use format_spec::{ClusterName, NodeId, NodeName};
use node_client::span::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Invite a node: print one word that `astacus-client enroll` exchanges for a certificate, once. It is a
    /// secret until it is used.
    #[command(after_help = examples!(
        "node invite --cluster orders --node db1"
        "node invite --cluster orders --may restore --ttl 10m"
        "node invite --cluster orders --url https://backup:5515"
    ))]
    Invite(InviteNode),
    /// List the open, used and expired invitations.
    #[command(after_help = examples!("node invites" "node invites --json"))]
    Invites,
    /// Withdraw an invitation. A node that has used it keeps its access.
    #[command(after_help = examples!("node uninvite 018bcfe5-6800-7707-8707-070707070707"))]
    Uninvite {
        /// Id of the invitation, as `node invites` lists it.
        id: NodeId,
    },
    /// List the enrolled nodes, also revoked ones.
    #[command(after_help = examples!("node list" "node list --json"))]
    List,
    /// Revoke a node: its open connections are closed and its requests are refused. Its snapshots stay.
    #[command(after_help = examples!("node revoke db1"))]
    Revoke {
        /// Id of the node, or its name if only one node has it.
        node: String,
    },
    /// Ask a node for a new key: it makes one at its next command.
    #[command(after_help = examples!("node rotate db1" "node rotate db1 --grace 1h"))]
    Rotate {
        /// Id of the node, or its name if only one node has it.
        node: String,
        /// Refuse the present certificates of the node after this time.
        #[arg(long, value_name = "TIME", default_value = "7d")]
        grace: Span,
    },
    /// Give a node another name in lists. Its id, and its name in snapshots, stay.
    #[command(after_help = examples!("node rename db1 db1-old"))]
    Rename {
        /// Id of the node, or its name if only one node has it.
        node: String,
        /// New name.
        name: NodeName,
    },
}

/// Arguments of `node invite`.
#[derive(Debug, Args)]
pub(crate) struct InviteNode {
    /// Cluster of the node.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: ClusterName,
    /// Name of the node [default: the node says its own].
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// End of the invitation after this time, such as 10m, 1h or 7d, at most 30d.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(crate) ttl: Span,
    /// Rights of the node on its own snapshots.
    #[arg(long, value_enum, default_value_t = May::Push)]
    pub(crate) may: May,
    /// Address of the server, as the node reaches it [default: the address that this command uses].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

/// Rights of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum May {
    /// Push.
    Push,
    /// Push and restore.
    Restore,
    /// Restore only.
    RestoreOnly,
}

impl May {
    pub(crate) fn roles(self) -> Vec<Role> {
        match self {
            Self::Push => vec![Role::NodePush],
            Self::Restore => vec![Role::NodePush, Role::NodeRestore],
            Self::RestoreOnly => vec![Role::NodeRestore],
        }
    }
}
