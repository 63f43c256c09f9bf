//! `snapshots` and `show`: existing snapshots, including ones pending deletion.

use std::io::{self, Write};

use format_spec::path::Printable;
use format_spec::snapshot::Shrunk;
use format_spec::wire::{NodeOrigin, NodePush, SnapshotDetail, SnapshotInfo};
use format_spec::{ClusterName, LabelChoice, NodeName};
use indicatif::{HumanBytes, HumanCount};
use node_client::error::ClientError;
use node_client::list::{Column, of_cluster};
use node_client::named::SnapshotChoice;
use node_client::show::{Show, cell, columns, show};
use node_client::summary::{about, state};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::Arguments;
use crate::error::AdminError;
use crate::missing::{self, NotWhole};
use crate::named;
use crate::show::table;

/// Lists the snapshots of one cluster, or of all, and of one node, or of all.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn list(
    arguments: &Arguments,
    cluster: Option<&ClusterName>,
    node: Option<&NodeName>,
    labels: &[LabelChoice],
    columns: &[Column],
) -> Result<Verdict, AdminError> {
    let mut snapshots = ask(arguments, async |api| of_cluster(&api, cluster).await)?;
    if let Some(node) = node {
        snapshots.retain(|info| info.nodes.contains(node));
        if snapshots.is_empty() {
            return Err(ClientError::NotFound(format!("no snapshot of node `{node}`")).into());
        }
    }
    snapshots.retain(|info| info.about.fits(labels));
    show(&Snapshots { snapshots, columns: columns.to_vec() }, arguments.output)?;
    Ok(Verdict::Sound)
}

/// Shows all that is known of one snapshot, and the files that are not whole in it, at most `limit`.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn detail(
    arguments: &Arguments,
    snapshot: &SnapshotChoice,
    limit: Option<u64>,
) -> Result<Verdict, AdminError> {
    let output = arguments.output;
    ask(arguments, async |api| {
        let detail = api.snapshot_detail(named::one(&api, snapshot).await?).await?;
        if !missing::are_any(&detail.info) {
            return show(&Detail { detail, files: None }, output);
        }
        let info = detail.info.clone();
        if output.json {
            let files = missing::all(&api, &info, limit).await?;
            return show(&Detail { detail, files: Some(files) }, output);
        }
        show(&Detail { detail, files: None }, output)?;
        missing::show_each(&api, &info, limit, output).await
    })?;
    Ok(Verdict::Sound)
}

/// Snapshots, and which of their columns are shown to people; none for all.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Snapshots {
    snapshots: Vec<SnapshotInfo>,
    #[serde(skip)]
    columns: Vec<Column>,
}

impl Show for Snapshots {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let chosen = if self.columns.is_empty() { Column::ALL.as_slice() } else { &self.columns };
        let head = chosen.iter().map(|column| head(*column)).collect();
        let row = |info: &SnapshotInfo| chosen.iter().map(|column| text(info, *column)).collect();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(self.snapshots.iter().map(row)).collect();
        columns(out, &rows)
    }

    fn is_news(&self) -> bool {
        true
    }
}

fn head(column: Column) -> String {
    if column == Column::Labels { "NOTE".to_owned() } else { column.head() }
}

/// A cell is one line, whatever it holds.
fn text(info: &SnapshotInfo, column: Column) -> String {
    let text = if column == Column::Labels { note(info) } else { cell(info, column) };
    Printable(text.as_bytes()).to_string()
}

fn nodes(info: &SnapshotInfo) -> Vec<&str> {
    info.nodes.iter().map(|node| node.as_str()).collect()
}

/// Notes on a snapshot: pending deletion, protection, labels and note.
fn note(info: &SnapshotInfo) -> String {
    let going = info.going_until.iter().map(|until| format!("DELETED, purge after {until}"));
    let protected = info.protected.iter().map(|reason| format!("protected: {reason}"));
    let damaged = info.damaged.iter().map(|problem| format!("DAMAGED: {problem}"));
    let about = Some(about(&info.about)).filter(|about| !about.is_empty());
    damaged.chain(going).chain(protected).chain(about).collect::<Vec<_>>().join(", ")
}

fn alone(detail: &SnapshotDetail) -> String {
    let why = detail.not_counted.as_deref().unwrap_or("for no given reason");
    detail.alone_bytes.map_or_else(|| format!("NOT COUNTED: {why}"), exactly)
}

/// One snapshot, and in a document the files that are not whole in it.
#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    detail: SnapshotDetail,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    files: Option<NotWhole>,
}

impl Show for Detail {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let info = &self.detail.info;
        let mut rows = vec![
            ["snapshot", &info.id.to_string()].map(str::to_owned),
            ["cluster", info.cluster.as_str()].map(str::to_owned),
            ["nodes", &nodes(info).join(", ")].map(str::to_owned),
            ["folders", &all_folders(info)].map(str::to_owned),
            ["created", &info.created].map(str::to_owned),
            ["state", &state(info)].map(str::to_owned),
            ["files", &HumanCount(info.files).to_string()].map(str::to_owned),
            ["bytes", &exactly(info.bytes)].map(str::to_owned),
            ["unique size", &alone(&self.detail)].map(str::to_owned),
        ];
        let going = info
            .going_until
            .iter()
            .map(|until| ["DELETED", &format!("purge after {until}")].map(str::to_owned));
        let protected = info.protected.iter().map(|reason| ["protected", reason].map(str::to_owned));
        let damaged = info.damaged.iter().map(|problem| ["DAMAGED", problem].map(str::to_owned));
        let suspect = info.suspect.map(|before| ["SUSPECT".to_owned(), held(&before)]);
        let labels =
            (!info.about.labels.is_empty()).then(|| ["labels".to_owned(), info.about.labels.to_string()]);
        let said = info.about.note.as_ref().map(|note| ["note".to_owned(), note.to_string()]);
        rows.extend(labels.into_iter().chain(said));
        rows.extend(damaged.chain(suspect).chain(going).chain(protected));
        table(out, &rows)?;
        pushes(&info.pushes, out)
    }

    fn is_news(&self) -> bool {
        true
    }
}

/// Reason for which a snapshot is suspect.
fn held(before: &Shrunk) -> String {
    let (files, bytes) = (HumanCount(before.files), HumanBytes(before.bytes));
    format!("much smaller than {}, which has {files} files of {bytes}", before.since)
}

/// Every folder that the snapshot names, and the name of its series.
fn all_folders(info: &SnapshotInfo) -> String {
    let of = |origin: &NodeOrigin| {
        let roots: Vec<String> =
            origin.roots.iter().map(|root| Printable(root.as_bytes()).to_string()).collect();
        let named = u32::try_from(roots.len()).unwrap_or(u32::MAX);
        let more = match origin.folders.saturating_sub(named) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let name = origin.series.as_ref().map(|name| format!("series {name}: ")).unwrap_or_default();
        format!("{name}{}{more}", roots.join(" "))
    };
    let all: Vec<String> = info.origins.iter().map(of).collect();
    if all.is_empty() { "unknown: the manifests cannot be read".to_owned() } else { all.join(" | ") }
}

/// For people, and for those who compare.
fn exactly(bytes: u64) -> String {
    format!("{} ({bytes})", HumanBytes(bytes))
}

fn pushes(pushes: &[NodePush], out: &mut dyn Write) -> io::Result<()> {
    if pushes.is_empty() {
        return Ok(());
    }
    let head = [
        "NODE",
        "UNCHANGED",
        "APPENDED",
        "WHOLE",
        "NEW",
        "RESUMED",
        "GONE",
        "READ",
        "HASHED",
        "SENT",
        "STORED",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(pushes.iter().map(push_row));
    writeln!(out)?;
    table(out, &rows)?;
    for push in pushes {
        for fallback in &push.stats.fallbacks {
            let (reason, files) = (Printable(fallback.reason.as_bytes()), HumanCount(fallback.files));
            writeln!(out, "note on {}: {reason}: {files} files", push.node)?;
        }
    }
    Ok(())
}

fn push_row(push: &NodePush) -> [String; 11] {
    let stats = &push.stats;
    let [unchanged, appended, whole, new, resumed, gone] =
        [stats.unchanged, stats.appended, stats.whole, stats.new, stats.resumed, stats.gone]
            .map(|files| HumanCount(files).to_string());
    let [read, hashed, sent, stored] =
        [stats.bytes_read, stats.bytes_hashed, stats.bytes_sent, stats.bytes_stored]
            .map(|bytes| HumanBytes(bytes).to_string());
    let node = push.node.to_string();
    [node, unchanged, appended, whole, new, resumed, gone, read, hashed, sent, stored]
}
