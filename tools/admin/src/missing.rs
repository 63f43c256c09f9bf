//! The files that are not whole in a snapshot: asked for part by part, so that any number of them can be named.

use std::io::{self, Write};

use format_spec::NodeName;
use format_spec::path::Printable;
use format_spec::wire::{FileProblem, FileProblems, FileState, MAX_FILE_PROBLEMS, SnapshotInfo};
use node_client::api::Api;
use node_client::error::ClientError;
use node_client::output::Output;
use node_client::show::{Show, show};
use serde::Serialize;

use crate::show::wide;

/// True if a snapshot has such files. If not, nothing is asked: the server would have to read every page.
pub(crate) fn are_any(info: &SnapshotInfo) -> bool {
    let moments = || info.pushes.iter().filter_map(|push| push.stats.moment);
    info.problems > 0 || moments().any(|moment| moment.torn > 0 || moment.fuzzy > 0)
}

/// For programs.
#[derive(Debug, Serialize)]
pub(crate) struct NotWhole {
    not_whole: Vec<OfNode>,
    /// True if the limit hid no file.
    all_named: bool,
}

#[derive(Debug, Serialize)]
struct OfNode {
    node: NodeName,
    #[serde(flatten)]
    file: FileProblem,
}

/// Existence of more files than requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    None,
    Some,
}

/// The files in one list: a document has them all in memory.
///
/// # Errors
/// The errors of [`Api::snapshot_problems`].
pub(crate) async fn all(api: &Api, info: &SnapshotInfo, limit: Option<u64>) -> Result<NotWhole, ClientError> {
    let mut not_whole = Vec::new();
    let rest = each(api, info, limit, |FileProblems { node, problems, .. }| {
        not_whole.extend(problems.into_iter().map(|file| OfNode { node: node.clone(), file }));
        Ok(())
    });
    let rest = rest.await?;
    Ok(NotWhole { not_whole, all_named: rest == Rest::None })
}

/// Shows the files to people, each part as it comes.
///
/// # Errors
/// The errors of [`Api::snapshot_problems`], or [`ClientError::Output`].
pub(crate) async fn show_each(
    api: &Api,
    info: &SnapshotInfo,
    limit: Option<u64>,
    output: Output,
) -> Result<(), ClientError> {
    let mut shown_of = None;
    let rest = each(api, info, limit, |part| {
        if part.problems.is_empty() {
            return Ok(());
        }
        let is_first = shown_of.as_ref() != Some(&part.node);
        shown_of = Some(part.node.clone());
        show(&Part { part, is_first }, output)
    });
    match rest.await? {
        Rest::None => Ok(()),
        Rest::Some => show(&More, output),
    }
}

/// Hands the files of all nodes to `take`, in path order, at most `limit`.
async fn each(
    api: &Api,
    info: &SnapshotInfo,
    limit: Option<u64>,
    mut take: impl FnMut(FileProblems) -> Result<(), ClientError>,
) -> Result<Rest, ClientError> {
    let mut left = limit.unwrap_or(u64::MAX);
    for node in &info.nodes {
        let mut after: Option<String> = None;
        loop {
            if left == 0 {
                return Ok(Rest::Some);
            }
            let asked = u32::try_from(left).unwrap_or(MAX_FILE_PROBLEMS).min(MAX_FILE_PROBLEMS);
            let part = api.snapshot_problems(info.id, node, after.as_deref(), asked).await?;
            left = left.saturating_sub(wide(part.problems.len()));
            let next = part.next.clone();
            take(part)?;
            if next.is_none() || next == after {
                break;
            }
            after = next;
        }
    }
    Ok(Rest::None)
}

/// Some files of one node.
#[derive(Debug, Serialize)]
struct Part {
    part: FileProblems,
    is_first: bool,
}

impl Show for Part {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_first {
            writeln!(out, "\nnot whole on {}:", self.part.node)?;
        }
        for FileProblem { path, state, reason } in &self.part.problems {
            let reason = reason.iter().map(|reason| format!(": {reason}")).collect::<String>();
            let (path, reason) = (Printable(path.as_bytes()), Printable(reason.as_bytes()));
            writeln!(out, "  {:10}  {path}{reason}", word(*state))?;
        }
        Ok(())
    }

    fn is_news(&self) -> bool {
        true
    }
}

fn word(state: FileState) -> &'static str {
    match state {
        FileState::Missing => "missing",
        FileState::Incomplete => "incomplete",
        FileState::Torn => "torn",
        FileState::Fuzzy => "fuzzy",
    }
}

/// The last line, if not all were named.
#[derive(Debug, Serialize)]
struct More;

impl Show for More {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "there may be more: raise --limit, or leave it out to list all")
    }

    fn is_news(&self) -> bool {
        true
    }
}
