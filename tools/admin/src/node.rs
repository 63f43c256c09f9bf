//! `node`: invitations and enrolled nodes.

use std::io::{self, Write};

use format_spec::access::Role;
use format_spec::invite::authority_of;
use format_spec::wire::{
    InviteCreated, InviteInfo, InviteState, NewInvite, NodeInfo, Nodes, RenameRequest, RotateRequest,
};
use format_spec::{Invite, NodeId};
use node_client::api::Api;
use node_client::config::Config;
use node_client::error::ClientError;
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::Arguments;
use crate::cli::nodes::{InviteNode, NodeCommand};
use crate::error::AdminError;
use crate::show::table;

/// Invites, lists, revokes, rotates and renames nodes.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn run(arguments: &Arguments, command: &NodeCommand) -> Result<Verdict, AdminError> {
    let output = arguments.output;
    match command {
        NodeCommand::Invite(asked) => show(&invite(arguments, asked)?, output)?,
        NodeCommand::Invites => {
            show(&Invites(ask(arguments, async |api| api.invites().await)?.invites), output)?;
        }
        NodeCommand::Uninvite { id } => {
            ask(arguments, async |api| api.uninvite(*id).await)?;
            show(&Withdrawn { withdrawn: *id }, output)?;
        }
        NodeCommand::List => show(&List(ask(arguments, async |api| api.nodes().await)?), output)?,
        NodeCommand::Revoke { node } => {
            let changed = ask(arguments, async |api| api.revoke_node(find(&api, node).await?).await)?;
            show(
                &Changed { done: "revoked: its connections are closed, its snapshots stay", node: changed },
                output,
            )?;
        }
        NodeCommand::Rotate { node, grace } => {
            let asked = RotateRequest { grace_seconds: grace.0.as_secs() };
            let changed = ask(arguments, async |api| api.rotate_node(find(&api, node).await?, &asked).await)?;
            show(&Changed { done: "makes a new key at its next command", node: changed }, output)?;
        }
        NodeCommand::Rename { node, name } => {
            let asked = RenameRequest { title: name.clone() };
            let changed = ask(arguments, async |api| api.rename_node(find(&api, node).await?, &asked).await)?;
            show(&Changed { done: "renamed in lists", node: changed }, output)?;
        }
    }
    Ok(Verdict::Sound)
}

fn invite(arguments: &Arguments, asked: &InviteNode) -> Result<Invited, AdminError> {
    let server = match &asked.url {
        Some(url) => url.clone(),
        None => Config::load(arguments.connection.settings(), &|name| std::env::var(name).ok())?.server(),
    };
    let authority = authority_of(&server).map_err(|why| {
        ClientError::Usage(format!("{why}; give the address that the node will use with --url"))
    })?;
    let request = NewInvite {
        cluster: asked.cluster.clone(),
        node: asked.node.clone(),
        roles: asked.may.roles(),
        lasts_seconds: asked.ttl.0.as_secs(),
    };
    let InviteCreated { code, ca, info } = ask(arguments, async |api| api.invite(&request).await)?;
    let (cluster, node) = (info.cluster.clone(), info.node.clone());
    Ok(Invited { invitation: Invite { authority, ca, code, cluster, node }, info })
}

/// The id of the node that `text` names: by id, or by a name that one node has. Revoked nodes have no name here.
async fn find(api: &Api, text: &str) -> Result<NodeId, ClientError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let Nodes { nodes } = api.nodes().await?;
    let is_meant = |node: &&NodeInfo| {
        node.revoked.is_none() && (node.title.as_str() == text || node.node.as_str() == text)
    };
    let meant: Vec<NodeId> = nodes.iter().filter(is_meant).map(|node| node.id).collect();
    match meant.as_slice() {
        [] => {
            Err(ClientError::NotFound(format!("no node `{text}` has access: see `astacus-admin node list`")))
        }
        [id] => Ok(*id),
        many => {
            let ids: Vec<String> = many.iter().map(NodeId::to_string).collect();
            Err(ClientError::Usage(format!(
                "several nodes are called `{text}`: give an id: {}",
                ids.join(", ")
            )))
        }
    }
}

/// A new invitation on standard output: as text the word alone.
#[derive(Debug, Serialize)]
struct Invited {
    invitation: Invite,
    #[serde(flatten)]
    info: InviteInfo,
}

impl Show for Invited {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.invitation)
    }

    fn is_news(&self) -> bool {
        true
    }
}

#[derive(Debug, Serialize)]
struct Invites(Vec<InviteInfo>);

impl Show for Invites {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["ID", "CLUSTER", "NODE", "MAY", "STATE", "EXPIRES", "CREATED BY"].map(str::to_owned);
        let row = |invite: &InviteInfo| {
            let node = invite.node.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string);
            let state = match invite.state {
                InviteState::Open => "open",
                InviteState::Used => "used",
                InviteState::Expired => "expired",
            };
            [
                invite.id.to_string(),
                invite.cluster.to_string(),
                node,
                may(&invite.roles),
                state.to_owned(),
                invite.expires.clone(),
                invite.created_by.clone(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.0.iter().map(row)).collect();
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        !self.0.is_empty()
    }
}

fn may(roles: &[Role]) -> String {
    let words = roles.iter().map(|role| role.name().trim_start_matches("node-"));
    words.collect::<Vec<_>>().join("+")
}

#[derive(Debug, Serialize)]
struct Withdrawn {
    withdrawn: NodeId,
}

impl Show for Withdrawn {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "withdrew invitation {}", self.withdrawn)
    }

    fn is_news(&self) -> bool {
        false
    }
}

#[derive(Debug, Serialize)]
struct List(Nodes);

impl Show for List {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["ID", "NAME", "CLUSTER", "NODE", "MAY", "STATE", "CERTIFICATE ENDS"].map(str::to_owned);
        let row = |node: &NodeInfo| {
            let state = match (&node.revoked, node.rotates) {
                (Some(_), _) => "REVOKED",
                (None, true) => "rotates",
                (None, false) => "active",
            };
            [
                node.id.to_string(),
                node.title.to_string(),
                node.cluster.to_string(),
                node.node.to_string(),
                may(&node.roles),
                state.to_owned(),
                node.expires.clone(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.0.nodes.iter().map(row)).collect();
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        !self.0.nodes.is_empty()
    }
}

#[derive(Debug, Serialize)]
struct Changed {
    #[serde(skip)]
    done: &'static str,
    #[serde(flatten)]
    node: NodeInfo,
}

impl Show for Changed {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { done, node } = self;
        writeln!(out, "node {} of cluster {} (id {}) {done}", node.title, node.cluster, node.id)
    }

    fn is_news(&self) -> bool {
        false
    }
}
