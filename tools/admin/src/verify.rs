//! `verify` and `scrub`: what they ask for, and what they found.

use std::io::{self, Write};

use format_spec::wire::{Finding, FindingKind, Stopped, VerifyLevel, VerifyReport, VerifyRequest};
use indicatif::{HumanBytes, HumanCount};
use node_client::show::{Counted, Show, show};
use serde::Serialize;

use crate::ask::{self, Verdict, ask};
use crate::cli::checks::{Scrub, Verify};
use crate::cli::{Arguments, Turn};
use crate::error::AdminError;
use crate::show::table;
use crate::{audit, named};

/// Files and ranges that the text shows of one finding; `--json` has all that the server names.
const SHOWN: usize = 20;

/// Checks what was asked for: stored objects, or the counts of the index.
///
/// # Errors
/// [`AdminError`]: nothing was shown on standard output then.
pub(crate) fn verify(arguments: &Arguments, asked: &Verify) -> Result<Verdict, AdminError> {
    match asked.request() {
        None if asked.snapshot.is_some() || asked.accept_loss || asked.limits.are_given() => {
            Err(audit::counts_everything())
        }
        None => audit::run(arguments, asked.repair, asked.turn),
        Some(_) if asked.repair => Err(audit::nothing_to_repair()),
        Some(request) => {
            let named = asked.snapshot.as_ref();
            let named = named.map(|named| ask(arguments, async |api| named::one(&api, named).await));
            run(arguments, &VerifyRequest { snapshot: named.transpose()?, ..request }, asked.turn)
        }
    }
}

/// Reads stored bytes and compares them with their ids.
///
/// # Errors
/// As [`verify`].
pub(crate) fn scrub(arguments: &Arguments, asked: &Scrub) -> Result<Verdict, AdminError> {
    run(arguments, &asked.request(), asked.turn)
}

/// Runs a check and shows what it found.
fn run(arguments: &Arguments, request: &VerifyRequest, turn: Turn) -> Result<Verdict, AdminError> {
    let report = ask::run(arguments, turn, async |api, hear| api.verify(request.clone(), hear).await)?;
    let verified = Verified::new(request.level, report);
    show(&verified, arguments.output)?;
    Ok(verified.verdict())
}

/// Result of a check.
#[derive(Debug, Serialize)]
struct Verified {
    level: VerifyLevel,
    sound: bool,
    #[serde(flatten)]
    report: VerifyReport,
}

impl Verified {
    fn new(level: VerifyLevel, report: VerifyReport) -> Self {
        Self { level, sound: report.findings.is_empty(), report }
    }

    fn verdict(&self) -> Verdict {
        if self.report.counts.damage() > 0 {
            Verdict::Damaged
        } else if self.report.counts.unreadable > 0 {
            Verdict::Unknown
        } else {
            Verdict::Sound
        }
    }
}

impl Show for Verified {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let VerifyReport { snapshots, pages, references, files, packs, blobs, bytes_read, .. } = &self.report;
        let [snapshots, pages, references, files, packs, blobs] = [
            (snapshots, "snapshot"),
            (pages, "page"),
            (references, "reference"),
            (files, "file"),
            (packs, "pack"),
            (blobs, "blob"),
        ]
        .map(|(count, noun)| Counted(*count, noun));
        let verdict = match self.verdict() {
            Verdict::Sound => "OK",
            Verdict::Damaged => "the repository is DAMAGED",
            Verdict::Partial | Verdict::Unknown => "some stored data could not be READ",
        };
        writeln!(
            out,
            "{verdict}: checked {snapshots}, {pages}, {references}, {files}, {packs}; read {blobs}, {}",
            HumanBytes(*bytes_read)
        )?;
        self.progress(out)?;
        if self.sound {
            return Ok(());
        }
        let mut rows = vec![["KIND", "OBJECT", "PROBLEM"].map(str::to_owned)];
        rows.extend(self.report.findings.iter().map(row));
        table(out, &rows)?;
        self.report.findings.iter().try_for_each(|finding| hurts(out, finding))
    }

    fn is_news(&self) -> bool {
        !self.sound
    }
}

impl Verified {
    /// How much is left to read, and how long ago the rest was.
    fn progress(&self, out: &mut dyn Write) -> io::Result<()> {
        let report = &self.report;
        if report.quarantined + report.recovered > 0 {
            let [new, old] = [report.quarantined, report.recovered].map(HumanCount);
            writeln!(out, "damaged blobs: {new} newly found, {old} recovered")?;
        }
        if report.left.count > 0 {
            let why = match report.stopped {
                Some(Stopped::Bytes) => "byte limit reached: ",
                Some(Stopped::Time) => "time limit reached: ",
                None => "",
            };
            let left = Counted(report.left.count, "pack");
            writeln!(out, "{why}{left} ({}) not checked", HumanBytes(report.left.bytes))?;
        }
        if self.level >= VerifyLevel::Read {
            let never = HumanCount(report.never_verified);
            let oldest = report.oldest_verified.as_deref().unwrap_or("none");
            writeln!(out, "packs never fully verified: {never}; oldest full check of the others: {oldest}")?;
        } else {
            writeln!(out, "stored bytes were not read: `--level read` reads all of them")?;
        }
        Ok(())
    }
}

fn row(finding: &Finding) -> [String; 3] {
    let kind = match finding.kind {
        FindingKind::Corrupt => "corrupt",
        FindingKind::Missing => "missing",
        FindingKind::Unreadable => "unreadable",
        FindingKind::Index => "index",
    };
    [kind.to_owned(), finding.object.clone(), finding.problem.clone()]
}

/// Prints the snapshots and files that a finding affects.
fn hurts(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    if finding.snapshots.is_empty() {
        return Ok(());
    }
    writeln!(out, "{} affects:", finding.object)?;
    for snapshot in finding.snapshots.iter().take(SHOWN) {
        writeln!(out, "  snapshot {snapshot}")?;
    }
    for file in finding.files.iter().take(SHOWN) {
        writeln!(out, "  {} {} /{}", file.snapshot, file.node, file.path)?;
    }
    for range in finding.ranges.iter().take(SHOWN) {
        let path = |path: &Option<String>, end: &str| {
            path.as_ref().map_or_else(|| end.to_owned(), |path| format!("/{path}"))
        };
        let (after, before) = (path(&range.after, "the first"), path(&range.before, "the last"));
        writeln!(out, "  {} {} all files between {after} and {before}", range.snapshot, range.node)?;
    }
    let hidden = |len: usize| u64::try_from(len.saturating_sub(SHOWN)).unwrap_or(u64::MAX);
    let more = finding.more_files + hidden(finding.files.len()) + hidden(finding.ranges.len());
    if more > 0 { writeln!(out, "  and {} more", HumanCount(more)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
