//! What the server said, as text for people and as one JSON document for programs.

use std::io::{self, Write};

use format_spec::wire::{Alarm, Finding, Status, VerifyLevel, VerifyReport};
use indicatif::{HumanBytes, HumanCount};
use node_client::show::Show;
use serde::Serialize;

use crate::commands::Verdict;

/// What a server has.
#[derive(Debug, Serialize)]
pub(crate) struct ServerStatus(pub(crate) Status);

impl Show for ServerStatus {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Status { server, repository, engine, alarms, .. } = &self.0;
        show_alarms(alarms, out)?;
        let rows = [
            ["server", server],
            ["repository", &repository.to_string()],
            ["index", engine],
            ["snapshots", &HumanCount(self.0.snapshots).to_string()],
            ["packs", &HumanCount(self.0.packs).to_string()],
            ["chunks and pages", &HumanCount(self.0.chunks).to_string()],
            ["stored", &HumanBytes(self.0.stored_bytes).to_string()],
            ["open sessions", &HumanCount(self.0.open_sessions).to_string()],
        ];
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        true
    }
}

/// Before all else, as the exit code does not tell of them.
fn show_alarms(alarms: &[Alarm], out: &mut dyn Write) -> io::Result<()> {
    if alarms.is_empty() {
        return Ok(());
    }
    writeln!(out, "ALARMS: {}", HumanCount(wide(alarms.len())))?;
    for Alarm { code, message, since } in alarms {
        writeln!(out, "  {code}, since {since}: {message}")?;
    }
    writeln!(out)
}

/// What a check of the repository found.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    level: VerifyLevel,
    sound: bool,
    #[serde(flatten)]
    report: VerifyReport,
}

impl Verified {
    pub(crate) fn new(level: VerifyLevel, report: VerifyReport) -> Self {
        Self { level, sound: report.findings.is_empty(), report }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.sound { Verdict::Sound } else { Verdict::Damaged }
    }
}

impl Show for Verified {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let VerifyReport { snapshots, pages, references, packs, bytes_read, findings } = &self.report;
        let [snapshots, pages, references, packs] =
            [snapshots, pages, references, packs].map(|count| HumanCount(*count));
        let verdict = if self.sound { "sound" } else { "DAMAGED" };
        writeln!(
            out,
            "the repository is {verdict}: checked {snapshots} snapshots, {pages} pages, \
             {references} references, {packs} packs, {} of packs read",
            HumanBytes(*bytes_read)
        )?;
        if self.sound {
            return Ok(());
        }
        let mut rows = vec![["OBJECT", "PROBLEM", "SNAPSHOTS"].map(str::to_owned)];
        rows.extend(findings.iter().map(row));
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        !self.sound
    }
}

fn row(finding: &Finding) -> [String; 3] {
    let snapshots: Vec<String> = finding.snapshots.iter().map(ToString::to_string).collect();
    [finding.object.clone(), finding.problem.clone(), snapshots.join(",")]
}

/// A length as a count.
pub(crate) fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

/// Writes rows of cells, each column as wide as its widest cell.
pub(crate) fn table<const N: usize>(out: &mut dyn Write, rows: &[[impl AsRef<str>; N]]) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.as_ref().chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", cell.as_ref()));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
