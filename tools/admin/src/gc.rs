//! `gc`: a run of the collector, and what it could not take yet.

use std::io::{self, Write};

use format_spec::path::Printable;
use format_spec::wire::{Amount, Delays, GcReport, GcRequest, LargeDelete, Pinning, RunMode, Waiting};
use indicatif::{HumanBytes, HumanCount};
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{self, Verdict};
use crate::cli::{Arguments, GcArguments};
use crate::error::AdminError;
use crate::show::{table, wide};

/// Longest list that is shown to those who did not ask for an explanation.
const SHORT: usize = 5;

/// Runs the collector, or prints the plan of a run.
///
/// # Errors
/// [`AdminError::Client`]: work done before a failure is kept.
pub(crate) fn run(arguments: &Arguments, gc: &GcArguments) -> Result<Verdict, AdminError> {
    let request = GcRequest::from(gc);
    let report = ask::run(arguments, gc.turn, async |api, hear| api.collect_garbage(&request, hear).await)?;
    let lists = if gc.explain { Lists::Whole } else { Lists::Short };
    let collected = Collected { report, lists };
    show(&collected, arguments.output)?;
    Ok(collected.verdict())
}

impl From<&GcArguments> for GcRequest {
    fn from(gc: &GcArguments) -> Self {
        Self {
            mode: if gc.dry_run || gc.explain { RunMode::Plan } else { RunMode::Apply },
            delays: if gc.now { Delays::Skip } else { Delays::Wait },
            large: if gc.allow_large { LargeDelete::Allow } else { LargeDelete::Refuse },
            max_copy_bytes: gc.max_copy,
        }
    }
}

/// How much of the lists is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Short,
    Whole,
}

/// Result of a run.
#[derive(Debug, Serialize)]
struct Collected {
    #[serde(flatten)]
    report: GcReport,
    #[serde(skip)]
    lists: Lists,
}

impl Collected {
    fn verdict(&self) -> Verdict {
        let whole = self.report.stopped.is_none() && self.report.problems.is_empty();
        if whole { Verdict::Sound } else { Verdict::Partial }
    }

    fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        let Amount { count, bytes } = self.report.deleted;
        let (objects, bytes) = (HumanCount(count), HumanBytes(bytes));
        match self.report.mode {
            RunMode::Plan => {
                writeln!(out, "reclaimable now: {bytes} in {objects} objects (dry run: nothing was changed)")
            }
            RunMode::Apply => writeln!(out, "reclaimed now: {bytes} in {objects} objects"),
        }
    }

    fn amounts(&self, out: &mut dyn Write) -> io::Result<()> {
        let GcReport { pages, chunks, dead_packs, repacked, waiting_total, .. } = self.report;
        let row = |name: &str, amount: Amount| {
            [name.to_owned(), HumanCount(amount.count).to_string(), HumanBytes(amount.bytes).to_string()]
        };
        let purged = wide(self.report.purged.len());
        // Cumulative: what ends the longest wait includes all that the others hold.
        let held = self.report.pinned.first().map(|first| first.holds).unwrap_or_default();
        let rows = [
            ["", "COUNT", "BYTES"].map(str::to_owned),
            ["snapshots purged", &HumanCount(purged).to_string(), "-"].map(str::to_owned),
            row("unreferenced pages", pages),
            row("unreferenced chunks", chunks),
            row("empty packs deleted", dead_packs),
            row("sparse packs rewritten", repacked),
            ["bytes copied for rewriting", "-", &HumanBytes(self.report.copied_bytes).to_string()]
                .map(str::to_owned),
            row("kept for open sessions", held),
            row("waiting for delete delay", waiting_total),
        ];
        table(out, &rows)
    }

    /// Shows a list, or its beginning, and how many more there are of `total`.
    fn list<T, const N: usize>(
        &self,
        out: &mut dyn Write,
        (list, total): (&[T], u64),
        head: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> io::Result<()> {
        let (len, hint) = match self.lists {
            Lists::Short => (list.len().min(SHORT), ": see --explain"),
            Lists::Whole => (list.len(), ""),
        };
        if len > 0 {
            let mut rows = vec![head.map(str::to_owned)];
            rows.extend(list.iter().take(len).map(row));
            writeln!(out)?;
            table(out, &rows)?;
        }
        match total.saturating_sub(wide(len)) {
            0 => Ok(()),
            more => writeln!(out, "… and {} more{hint}", HumanCount(more)),
        }
    }
}

impl Show for Collected {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let GcReport { pinned, waiting, purged, waiting_total, .. } = &self.report;
        self.head(out)?;
        self.amounts(out)?;
        if self.lists == Lists::Whole {
            self.list(out, (purged, wide(purged.len())), ["PURGED"], |id| [id.to_string()])?;
        }
        let head = ["KEPT FOR SESSION", "CLUSTER", "NODE", "OBJECTS", "BYTES"];
        self.list(out, (pinned, wide(pinned.len())), head, session)?;
        self.list(out, (waiting, waiting_total.count), ["WAITING", "BYTES", "UNTIL"], object)?;
        for problem in &self.report.problems {
            writeln!(out, "PROBLEM: {}", Printable(problem.as_bytes()))?;
        }
        match &self.report.stopped {
            Some(why) if self.report.mode == RunMode::Plan => writeln!(out, "A RUN WOULD STOP EARLY: {why}"),
            Some(why) => writeln!(out, "STOPPED EARLY: {why}"),
            None => Ok(()),
        }
    }

    fn is_news(&self) -> bool {
        self.report.mode == RunMode::Plan || !self.verdict().is_sound()
    }
}

fn session(pinning: &Pinning) -> [String; 5] {
    let Amount { count, bytes } = pinning.holds;
    [
        pinning.session.to_string(),
        pinning.cluster.to_string(),
        pinning.node.to_string(),
        HumanCount(count).to_string(),
        HumanBytes(bytes).to_string(),
    ]
}

fn object(waiting: &Waiting) -> [String; 3] {
    [waiting.object.clone(), HumanBytes(waiting.bytes).to_string(), waiting.until.clone()]
}
