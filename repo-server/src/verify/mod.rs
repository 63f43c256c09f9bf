//! Checks of the whole repository: is everything that a snapshot needs there, and as it was written?
//!
//! A check changes nothing, runs beside everything else, and goes on after what it finds. Findings
//! name the object, what is wrong with it, and the snapshots that it hurts.

mod packs;
mod snapshots;

use std::collections::HashSet;
use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::wire::{Finding, VerifyLevel, VerifyReport};

use crate::error::ServerError;
use crate::repository::Repository;

/// Findings that a report lists; a repository with more is beyond single names.
const LISTED: usize = 10_000;

/// A check in progress.
pub(crate) struct Check<'a> {
    repository: Arc<Repository>,
    report: VerifyReport,
    /// Chunks and pages found damaged, whose users are still to be named.
    damaged: HashSet<ChunkId>,
    progress: &'a (dyn Fn(u64, u64) + Send + Sync),
}

/// Checks everything at `level`; `progress` hears of steps done and steps in all.
///
/// # Errors
/// [`ServerError`] if the check cannot go on. What is wrong with the repository is in the report.
pub(crate) async fn run(
    repository: &Arc<Repository>,
    level: VerifyLevel,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<VerifyReport, ServerError> {
    let mut check = Check {
        repository: Arc::clone(repository),
        report: VerifyReport::default(),
        damaged: HashSet::new(),
        progress,
    };
    let (totals, snapshots) = repository
        .blocking(|repository| Ok((repository.totals()?, crate::snapshot::list(repository, None)?)))
        .await?;
    let pack_steps = match level {
        VerifyLevel::Index => 0,
        VerifyLevel::Exists | VerifyLevel::Read => u64::from(totals.packs),
    };
    let total = pack_steps + u64::try_from(snapshots.len()).unwrap_or(u64::MAX);
    // Packs first: then a snapshot that needs a damaged chunk can be named.
    if pack_steps > 0 {
        check.packs(level, total).await?;
    }
    for (done, snapshot) in (pack_steps..).zip(&snapshots) {
        (check.progress)(done, total);
        check.snapshot(snapshot).await?;
    }
    Ok(check.report)
}

impl Check<'_> {
    fn find(&mut self, object: impl ToString, problem: impl ToString) -> &mut Finding {
        if self.report.findings.len() >= LISTED {
            self.report.findings.pop();
        }
        self.report.findings.push(Finding {
            object: object.to_string(),
            problem: problem.to_string(),
            snapshots: Vec::new(),
        });
        self.report.findings.last_mut().expect("it was just pushed")
    }
}
