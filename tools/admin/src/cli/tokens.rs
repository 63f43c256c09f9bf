//! The command line of `token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use format_spec::access::{Network, Role};
use format_spec::{ClusterName, NodeName, TokenName};
use node_client::span::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print its secret, which the server never shows again. The file `admin.token` of the
    /// server holds the first token, which `list` leaves out and `revoke` cannot revoke.
    #[command(after_help = examples!(
        "token create grafana --role monitor --expires 365d --out grafana.token"
        "token create db1 --role node-push --cluster orders --node db1 > db1.token"
        "token create ops --role operator --from 10.0.0.0/8 --json"
    ))]
    Create(CreateToken),
    /// List all tokens, without their secrets.
    #[command(after_help = examples!("token list" "token list --json"))]
    List,
    /// Revoke a token. The server refuses it from the next request on.
    #[command(after_help = examples!("token revoke grafana"))]
    Revoke {
        /// Name of the token.
        #[arg(value_name = "NAME")]
        name: TokenName,
    },
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateToken {
    /// Name of the new token: 1 to 128 letters, digits, `.`, `_` or `-`.
    #[arg(value_name = "NAME")]
    pub(crate) name: TokenName,
    /// `monitor` (figures and alarms), `operator` (upkeep, no content), `admin` (everything), `node-push` or
    /// `node-restore` (own snapshots); repeat to give a node both roles.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub(crate) roles: Vec<Role>,
    /// Cluster of the node; needed for the roles of nodes.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// Only this node [default: all nodes of the cluster].
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub(crate) node: Option<NodeName>,
    /// End of the token's life after this time, such as 12h or 90d [default: never].
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Span>,
    /// Accept the token only from this address or network, such as 10.0.0.0/8; repeat for several [default:
    /// any address].
    #[arg(long, value_name = "NETWORK")]
    pub(crate) from: Vec<Network>,
    /// Write the secret to this new file, readable by its owner only, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
