//! `undelete` and `protect`: what makes snapshots stay.

use std::collections::BTreeSet;
use std::io::{self, Write};

use format_spec::path::Printable;
use format_spec::wire::SnapshotInfo;
use format_spec::{ErrorClass, SnapshotId};
use node_client::api::Api;
use node_client::error::ClientError;
use node_client::named::SnapshotChoice;
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::{Arguments, ProtectArguments};
use crate::error::{AdminError, chain};
use crate::named;

/// Makes a snapshot stay, or takes that back.
///
/// # Errors
/// [`AdminError::Client`].
pub(crate) fn protect(arguments: &Arguments, protect: &ProtectArguments) -> Result<Verdict, AdminError> {
    let info = ask(arguments, async |api| {
        let id = named::to_change(&api, &protect.snapshot).await?;
        match &protect.reason {
            Some(reason) => api.protect(id, reason.clone()).await,
            None => api.unprotect(id).await,
        }
    })?;
    show(&Protection(info), arguments.output)?;
    Ok(Verdict::Sound)
}

#[derive(Debug, Serialize)]
struct Protection(SnapshotInfo);

impl Show for Protection {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let SnapshotInfo { id, cluster, protected, .. } = &self.0;
        match protected {
            Some(reason) => {
                let reason = Printable(reason.as_bytes());
                writeln!(out, "snapshot {id} of {cluster} is protected: {reason}")
            }
            None => writeln!(out, "snapshot {id} of {cluster} is not protected"),
        }
    }

    fn is_news(&self) -> bool {
        false
    }
}

/// Undeletes snapshots, one after the other; a failure does not stop the others.
///
/// # Errors
/// [`AdminError::Client`] if none came back: why the first did not.
pub(crate) fn undelete(arguments: &Arguments, snapshots: &[SnapshotChoice]) -> Result<Verdict, AdminError> {
    let restored = ask(arguments, async |api| {
        let ids = named::all_to_change(&api, snapshots).await?;
        bring_back(&api, &ids).await
    })?;
    let verdict = if restored.failed.is_empty() { Verdict::Sound } else { Verdict::Partial };
    show(&restored, arguments.output)?;
    Ok(verdict)
}

/// Which snapshots came back.
#[derive(Debug, Default, Serialize)]
struct BroughtBack {
    snapshots: Vec<SnapshotInfo>,
    failed: Vec<Failed>,
    not_tried: BTreeSet<SnapshotId>,
}

/// A snapshot that did not, and why.
#[derive(Debug, Serialize)]
struct Failed {
    id: SnapshotId,
    class: ErrorClass,
    code: Option<String>,
    message: String,
}

async fn bring_back(api: &Api, ids: &[SnapshotId]) -> Result<BroughtBack, ClientError> {
    let mut done = BroughtBack { not_tried: ids.iter().copied().collect(), ..BroughtBack::default() };
    let mut first = None;
    while let Some(id) = done.not_tried.pop_first() {
        match api.undelete(id).await {
            Ok(info) => done.snapshots.push(info),
            Err(error) => {
                done.failed.push(Failed::new(id, &error));
                // A server that does not answer will not for the others.
                let answers = matches!(error, ClientError::Refused { .. });
                first.get_or_insert(error);
                if !answers {
                    break;
                }
            }
        }
    }
    match first {
        Some(error) if done.snapshots.is_empty() => Err(error),
        _ => Ok(done),
    }
}

impl Failed {
    fn new(id: SnapshotId, error: &ClientError) -> Self {
        let code = error.code().map(str::to_owned);
        Self { id, class: error.class(), code, message: chain(error) }
    }
}

impl Show for BroughtBack {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for SnapshotInfo { id, cluster, created, .. } in &self.snapshots {
            writeln!(out, "undeleted snapshot {id} of {cluster}, created {created}")?;
        }
        for Failed { id, message, .. } in &self.failed {
            writeln!(out, "NOT undeleted: snapshot {id}: {}", Printable(message.as_bytes()))?;
        }
        for id in &self.not_tried {
            writeln!(out, "NOT tried: snapshot {id}")?;
        }
        Ok(())
    }

    fn is_news(&self) -> bool {
        !self.failed.is_empty()
    }
}
