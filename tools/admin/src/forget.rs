//! `forget`: the snapshots to delete, the reasons, and the freed bytes.

use std::io::{self, Write};

use format_spec::SnapshotId;
use format_spec::snapshot::SnapshotState;
use format_spec::wire::{
    ForgetLine, ForgetReport, ForgetRequest, LastComplete, RetentionPolicy, RunMode, Verdict,
};
use indicatif::{HumanBytes, HumanCount};
use node_client::error::ClientError;
use node_client::show::{Show, show};
use node_client::summary::folders;
use serde::Serialize;

use crate::ask::{self, ask};
use crate::cli::{Arguments, ForgetArguments, PolicyArguments};
use crate::error::AdminError;
use crate::named;
use crate::show::{table, wide};

/// Deletes snapshots, or prints which ones it would delete.
///
/// # Errors
/// [`AdminError::Client`]; a cluster without snapshots is not found.
pub(crate) fn run(arguments: &Arguments, forget: &ForgetArguments) -> Result<ask::Verdict, AdminError> {
    let (request, report) = ask(arguments, async |api| {
        let snapshots = named::all_to_change(&api, &forget.snapshots).await?;
        let request = ForgetRequest { snapshots, ..ForgetRequest::from(forget) };
        let report = api.forget(&request).await?;
        Ok((request, report))
    })?;
    if let Some(cluster) = request.cluster.as_ref().filter(|_| report.snapshots.is_empty()) {
        return Err(ClientError::NotFound(format!("no snapshot of cluster `{cluster}`")).into());
    }
    let forgotten = Forgotten { stayed: stayed(&request.snapshots, &report), report };
    show(&forgotten, arguments.output)?;
    Ok(forgotten.verdict())
}

/// All but the snapshots, which have to be looked up.
impl From<&ForgetArguments> for ForgetRequest {
    fn from(forget: &ForgetArguments) -> Self {
        Self {
            mode: if forget.dry_run { RunMode::Plan } else { RunMode::Apply },
            snapshots: Vec::new(),
            cluster: forget.cluster.clone(),
            node: forget.node.clone(),
            labels: forget.labels.clone(),
            policy: policy(&forget.policy),
            last_complete: if forget.even_last { LastComplete::MayGo } else { LastComplete::Stays },
            accept_clock: forget.accept_clock,
        }
    }
}

/// The policy that flags give; none if there are none, so that the server's own decides.
fn policy(rules: &PolicyArguments) -> Option<RetentionPolicy> {
    let policy = RetentionPolicy {
        minimum: rules.minimum,
        maximum: rules.maximum,
        keep_days: rules.keep_days,
        keep_last: rules.keep_last,
        keep_hourly: rules.keep_hourly,
        keep_daily: rules.keep_daily,
        keep_weekly: rules.keep_weekly,
        keep_monthly: rules.keep_monthly,
        keep_yearly: rules.keep_yearly,
    };
    (policy != RetentionPolicy::default()).then_some(policy)
}

/// Named snapshots that are not deleted.
fn stayed(named: &[SnapshotId], report: &ForgetReport) -> Vec<SnapshotId> {
    let goes =
        |id: &SnapshotId| report.snapshots.iter().any(|line| line.id == *id && line.verdict != Verdict::Keep);
    named.iter().filter(|id| !goes(id)).copied().collect()
}

/// Result of `forget`.
#[derive(Debug, Serialize)]
struct Forgotten {
    #[serde(flatten)]
    report: ForgetReport,
    stayed: Vec<SnapshotId>,
}

impl Forgotten {
    fn verdict(&self) -> ask::Verdict {
        if self.stayed.is_empty() { ask::Verdict::Sound } else { ask::Verdict::Partial }
    }

    fn count(&self, verdict: Verdict) -> HumanCount {
        let lines = self.report.snapshots.iter().filter(|line| line.verdict == verdict);
        HumanCount(wide(lines.count()))
    }
}

impl Show for Forgotten {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = [
            "SNAPSHOT", "CLUSTER", "NODES", "FOLDERS", "CREATED", "STATE", "VERDICT", "FREES", "UNTIL", "WHY",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.report.snapshots.iter().map(row));
        table(out, &rows)?;
        let [forget, going, keep] =
            [Verdict::Forget, Verdict::Going, Verdict::Keep].map(|verdict| self.count(verdict));
        let frees = amount(self.report.frees_bytes);
        match self.report.mode {
            RunMode::Plan => {
                writeln!(
                    out,
                    "would delete {forget} (frees {frees} after the delay), {going} already deleted, {keep} kept"
                )?;
                writeln!(out, "dry run: nothing was changed")?;
            }
            RunMode::Apply => {
                writeln!(
                    out,
                    "deleted {forget} (frees {frees} after the delay), {going} already deleted, {keep} kept"
                )?;
            }
        }
        for id in &self.stayed {
            writeln!(out, "NOT DELETED although it was named: snapshot {id}")?;
        }
        Ok(())
    }

    fn is_news(&self) -> bool {
        self.report.mode == RunMode::Plan || !self.stayed.is_empty()
    }
}

fn row(line: &ForgetLine) -> [String; 10] {
    let state = match line.state {
        SnapshotState::Complete => "complete",
        SnapshotState::Partial => "partial",
    };
    let verdict = match line.verdict {
        Verdict::Keep => "keep",
        Verdict::Forget => "FORGET",
        Verdict::Going => "going",
    };
    [
        line.id.to_string(),
        line.cluster.to_string(),
        line.nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(","),
        folders(&line.origins),
        line.created.clone(),
        state.to_owned(),
        verdict.to_owned(),
        amount(line.frees_bytes),
        line.until.clone().unwrap_or_else(|| "-".to_owned()),
        line.reasons.join("; "),
    ]
}

fn amount(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), |bytes| HumanBytes(bytes).to_string())
}
