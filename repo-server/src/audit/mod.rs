//! Audit: are the counts of the index what manifests and pages name?
//!
//! The truth is on the site: a page counts the manifests of all snapshots that have rows, once for each time
//! that one names it; a chunk counts the pages that refer to it and have rows. Both are counted anew
//! with [`crate::sort`] and compared with the rows. So is what packs say lies in them, what the totals add up to, and
//! whether the collector's queue leads to each row that nothing refers to, and whether the site has snapshots
//! that have no rows (G12).
//!
//! An audit runs beside pushes: rows that change meanwhile are exempt (`store::Listener`), as the batch that changes
//! them has read and written the very count. Beside the collector and other upkeep it does not run.
//!
//! An unreadable footer or manifest may refer to any chunk. If one is missing or damaged, the audit reports
//! it, and from then on reports and repairs only counts that are too low: a count that is too high keeps a
//! chunk that could be deleted, one that is too low deletes a chunk that is needed.
//!
//! Memory: the buffer of the sort, and about 100 bytes for each pack.

mod join;
mod places;
mod read;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use format_spec::wire::{AuditFinding, AuditReport, AuditRequest, AuditState, Repair};

pub(crate) use join::{Joined, join};

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::lease::{Kind, Lease, Upkeep};
use crate::operation::{Operation, Progress};
use crate::rows::{Live, PackNumber, Totals};
use crate::server::Server;
use crate::sort::Sorter;
use crate::start::compare::{self, Behind};
use crate::store::Store;
use crate::store::Watching;

/// Findings that a report lists.
const LISTED: usize = 10_000;

/// Compares, and with [`Repair::Yes`] repairs counts, packs, totals and the queue. What is left open raises
/// an alarm, which stops the collector; an audit that finds nothing, or repairs it all, clears it.
///
/// Errors: [`ServerError::Busy`] if too much changed meanwhile; others end it. What was repaired by then is right.
impl Operation for AuditRequest {
    const KIND: Kind = Kind("audit");
    type Needs = Lease<Upkeep>;
    type Report = AuditReport;

    fn weakens(&self) -> Option<&'static str> {
        (self.repair == Repair::Yes).then_some("repair counts")
    }

    async fn run(
        self,
        server: &Arc<Server>,
        needs: &Self::Needs,
        progress: &Progress,
    ) -> Result<AuditReport, ServerError> {
        let (repair, progress) = (self.repair, progress.clone());
        let behind = compare::look(server, needs).await?;
        server.store.waiting(move |store| audit(store, repair, progress, behind)).await
    }
}

fn audit(
    store: &Arc<Store>,
    repair: Repair,
    progress: Progress,
    behind: Option<Behind>,
) -> Result<AuditReport, ServerError> {
    let (watching, before) = Watching::start(store, || store.totals());
    let before = before?;
    let mut audit = Audit {
        store: Arc::clone(store),
        watching,
        progress,
        steps: u64::from(before.packs) + before.chunks,
        before,
        report: AuditReport { repair, ..AuditReport::default() },
        packs: Vec::new(),
        rows_before: 0,
        is_everything_read: true,
        exempted: 0,
        differences: Vec::new(),
        open_differences: 0,
    };
    if let Some(behind) = behind {
        // It has an alarm of its own, and no repair helps.
        audit.find(behind.such_as, behind.problem(), Gravity::Known, AuditState::Open);
    }
    let mut sorter = Sorter::new(&store.parts.scratch);
    audit.read_packs(&mut sorter)?;
    audit.read_manifests(&mut sorter)?;
    join(store, sorter.finish()?, |group| audit.rows(group))?;
    audit.places()?;
    audit.totals()?;
    audit.finish()
}

/// Under which heading an id was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heading {
    /// A page refers to it.
    ByPage,
    /// A manifest names it.
    ByManifest,
    /// The directory of its pack has it where its row says.
    InPlace,
}

const HEADINGS: usize = 3;

impl Heading {
    fn once(self) -> [u64; HEADINGS] {
        let count = |of| u64::from(self == of);
        [Self::ByPage, Self::ByManifest, Self::InPlace].map(count)
    }
}

/// A pack that had a row when the audit began.
struct PackSeen {
    number: PackNumber,
    /// Live blobs according to its row.
    live: Live,
    /// Live blobs according to rows of chunks.
    counted: Live,
    /// True if its directory was read, or need not be.
    is_read: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gravity {
    /// Something could not be read, so it says nothing about the index.
    Unreadable,
    /// It was known before.
    Known,
    /// The index is not what it should be.
    Difference,
}

/// An audit in progress.
struct Audit<'a> {
    store: Arc<Store>,
    watching: Watching<'a>,
    progress: Progress,
    /// Steps in all, as was known at the start.
    steps: u64,
    /// Totals at the start.
    before: Totals,
    report: AuditReport,
    /// In the order of their numbers.
    packs: Vec<PackSeen>,
    /// Rows that lie in packs which were there at the start.
    rows_before: u64,
    is_everything_read: bool,
    /// Differences that were left alone, as their rows changed meanwhile.
    exempted: u64,
    /// The first difference that is left open.
    differences: Vec<String>,
    open_differences: u64,
}

impl Audit<'_> {
    fn find(&mut self, object: impl ToString, problem: impl ToString, gravity: Gravity, state: AuditState) {
        let finding = AuditFinding { object: object.to_string(), problem: problem.to_string(), state };
        self.report.found += 1;
        match (gravity, state) {
            (_, AuditState::Mended) => self.report.mended += 1,
            (Gravity::Known, AuditState::Open) => {}
            (Gravity::Unreadable, AuditState::Open) => self.is_everything_read = false,
            (Gravity::Difference, AuditState::Open) => {
                self.open_differences += 1;
                if self.differences.is_empty() {
                    self.differences.push(format!("{}: {}", finding.object, finding.problem));
                }
            }
        }
        if self.report.findings.len() < LISTED {
            self.report.findings.push(finding);
        }
    }

    fn is_repair(&self) -> bool {
        self.report.repair == Repair::Yes
    }

    fn step(&self) {
        let done = self.report.packs + self.report.rows;
        self.progress.of(done, self.steps.max(done));
    }

    fn finish(mut self) -> Result<AuditReport, ServerError> {
        self.report.changed = u64::try_from(self.watching.count()).unwrap_or(u64::MAX);
        if let Some(first) = self.differences.first() {
            let message = format!(
                "{} rows of the index differ from the manifests and packs, such as {first}; garbage collection is blocked until `astacus-admin verify --level refs --repair` has repaired them",
                self.open_differences
            );
            alarm::raise(&self.store, AlarmCode::CountsDiffer, &message)?;
        } else if self.is_everything_read && self.exempted == 0 {
            alarm::clear(&self.store, AlarmCode::CountsDiffer)?;
        }
        Ok(self.report)
    }
}
