//! Checks: is everything that a snapshot needs there, and as it was written?
//!
//! A check runs beside all other work, and continues after each finding. It distinguishes *corrupt* (the
//! bytes exist and are wrong) from *missing* (the site reports that), and both from *unreadable* (the site
//! does not answer: nothing is known, and it is asked once more at the end). Findings name the object, its
//! problem, and every affected snapshot and file.
//!
//! It writes four things. A pack without errors is recorded with the time, so that the next run starts with
//! others. Blobs that are known to be wrong are quarantined, and leave quarantine when good bytes are found
//! again. Each change applies to rows as they are at that moment, if they still name the place that was read:
//! data that the collector moves or deletes meanwhile is no finding. Other objects that are known to be wrong
//! are recorded ([`crate::defects::objects`]) until they are found right. And the object of a snapshot, whose
//! content is in the index, is rewritten.

mod examine;
mod findings;
mod hurt;
mod judge;
mod limits;
mod opened;
mod packs;
mod pages;
mod piecewise;
mod replay;
mod snapshots;
#[cfg(test)]
mod tests;

pub(crate) use hurt::{name_as_met, name_the_hurt};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use format_spec::wire::{FindingKind, VerifyLevel, VerifyReport, VerifyRequest};

use crate::defects::census;
use crate::defects::objects;
use crate::defects::{self, if_there_is_room};
use crate::error::ServerError;
use crate::lease::{Checking, Kind, Lease};
use crate::operation::{Operation, Progress, Unheard};
use crate::rows::PackNumber;
use crate::server::Server;
use crate::store::{Store, wait};
use crate::time::rfc3339;
use findings::{Findings, Problem};
use limits::Due;
use packs::Known;
use pages::CleanPages;
use snapshots::Walked;

/// A check in progress, on a thread that may wait for the site.
struct Check {
    server: Arc<Server>,
    store: Arc<Store>,
    asked: VerifyRequest,
    started: Duration,
    state: State,
    progress: Progress,
    done: u64,
    steps: u64,
    /// Packs that the site did not answer for, to be tried again.
    later: Vec<Due>,
    /// Packs found right, and not written down yet.
    verified: Vec<PackNumber>,
    /// Packs that the site does not have.
    missing: HashSet<PackNumber>,
    /// Objects that were known to be damaged when this began.
    remembered: objects::Known,
}

/// Knowledge so far. It goes along to where pages are taken apart.
#[derive(Default)]
struct State {
    report: VerifyReport,
    findings: Findings,
    known: Known,
    clean: CleanPages,
}

/// Retry of a site that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is, at the end.
    First,
    /// This is the end.
    Last,
}

/// Checks what was asked for. Problems of the repository are in the report. One check runs at a time, as each may
/// remember many objects; findings are stored as they are made, so a check whose client is gone may be dropped.
impl Operation for VerifyRequest {
    const KIND: Kind = Kind("verify");
    const UNHEARD: Unheard = Unheard::Ends;
    type Needs = Lease<Checking>;
    type Report = VerifyReport;

    fn weakens(&self) -> Option<&'static str> {
        self.accept_loss.then_some("accept the loss of packs")
    }

    async fn run(
        self,
        server: &Arc<Server>,
        _: &Self::Needs,
        progress: &Progress,
    ) -> Result<VerifyReport, ServerError> {
        let progress = progress.clone();
        server.waiting(move |server| check(server, self, progress)).await
    }
}

fn check(
    server: &Arc<Server>,
    asked: VerifyRequest,
    progress: Progress,
) -> Result<VerifyReport, ServerError> {
    let mut check = Check::new(server, asked, progress);
    check.everything()?;
    check.finish()
}

impl Check {
    fn new(server: &Arc<Server>, asked: VerifyRequest, progress: Progress) -> Self {
        Self {
            server: Arc::clone(server),
            store: Arc::clone(&server.store),
            started: server.store.parts.clock.monotonic(),
            asked,
            state: State::default(),
            progress,
            done: 0,
            steps: 0,
            later: Vec::new(),
            verified: Vec::new(),
            missing: HashSet::new(),
            remembered: objects::Known::default(),
        }
    }

    fn everything(&mut self) -> Result<(), ServerError> {
        self.remembered = if_there_is_room(objects::tidy(&self.store).map(Some))?.unwrap_or_default();
        if self.asked.accept_loss {
            self.state.report.quarantined += wait(census::accept(&self.store))?;
        } else {
            wait(census::look_again(&self.store))?;
        }
        let only = self.asked.snapshot;
        let mut snapshots = match only {
            None => crate::snapshot::list(&self.store, None)?,
            Some(id) => vec![crate::snapshot::get(&self.store, id)?],
        };
        self.steps = u64::try_from(snapshots.len()).unwrap_or(u64::MAX);
        // Packs first: then a snapshot that needs a damaged chunk can be named.
        if self.asked.level > VerifyLevel::Index {
            let scope = match only {
                None => None,
                Some(_) => Some(self.needed(&snapshots)?),
            };
            self.packs(scope.as_ref())?;
        }
        let mut is_all = only.is_none();
        if !is_all && self.state.findings.counts().damage() > 0 {
            is_all = true;
            // Others may need it as well.
            snapshots = crate::snapshot::list(&self.store, None)?;
        }
        if !self.walks() {
            return Ok(());
        }
        let begun = defects::due(&self.store)?;
        if self.snapshots(snapshots)? == Walked::Through && is_all {
            if_there_is_room(defects::walked(&self.store, begun))?;
        }
        Ok(())
    }

    /// True if snapshots are read. A sample of packs is none of snapshots: these are looked through only to
    /// name those that are hurt.
    fn walks(&self) -> bool {
        let of_packs = matches!(self.asked.level, VerifyLevel::Exists | VerifyLevel::Read);
        !(of_packs && self.asked.limits.is_partial() && self.state.findings.is_empty())
    }

    /// Remembers what is wrong with an object, or that nothing is. What is not known changes nothing.
    fn remember(&self, object: objects::Object, problem: Option<&Problem>) -> Result<(), ServerError> {
        let written = match problem {
            Some(problem) if problem.kind == FindingKind::Unreadable => return Ok(()),
            Some(problem) => objects::note(&self.store, object, &problem.what),
            None if self.remembered.contains(object) => objects::clear(&self.store, object),
            None => return Ok(()),
        };
        if_there_is_room(written)
    }

    fn step(&mut self) {
        self.done += 1;
        self.progress.of(self.done, self.steps);
    }

    fn finish(self) -> Result<VerifyReport, ServerError> {
        let State { mut report, findings, .. } = self.state;
        let (mut never, mut oldest) = (0_u64, None);
        self.store.for_each_pack(|_, row| match row.verified_ms {
            0 => never += 1,
            at => oldest = Some(oldest.map_or(at, |oldest: u64| oldest.min(at))),
        })?;
        report.never_verified = never;
        report.oldest_verified = oldest.map(rfc3339);
        report.counts = findings.counts();
        report.findings = findings.into_list();
        Ok(report)
    }
}
