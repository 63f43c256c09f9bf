//! `verify --level refs`: the counts of the index, compared and repaired.

use std::io::{self, Write};

use format_spec::wire::{AuditReport, AuditState, Repair};
use indicatif::HumanCount;
use node_client::error::ClientError;
use node_client::show::{Show, show};
use serde::Serialize;

use crate::ask::{self, Verdict};
use crate::cli::{Arguments, Turn};
use crate::error::AdminError;
use crate::show::table;

/// Runs an audit and shows what it found.
pub(crate) fn run(arguments: &Arguments, repair: bool, turn: Turn) -> Result<Verdict, AdminError> {
    let repair = if repair { Repair::Yes } else { Repair::No };
    let report = ask::run(arguments, turn, async |api, hear| api.audit(repair, hear).await)?;
    let audited = Audited { level: "refs", sound: report.is_sound(), report };
    show(&audited, arguments.output)?;
    Ok(if audited.sound { Verdict::Sound } else { Verdict::Damaged })
}

/// Error for `--repair` with a check of another level.
pub(crate) fn nothing_to_repair() -> AdminError {
    ClientError::Usage("`--repair` needs `--level refs`".to_owned()).into()
}

/// Why the counts cannot be checked of a part.
pub(crate) fn counts_everything() -> AdminError {
    let why = "`--level refs` always checks all counts: --snapshot, --sample, --max-bytes, --max-time, --max-rate and --accept-loss are not allowed";
    ClientError::Usage(why.to_owned()).into()
}

/// Result of an audit.
#[derive(Debug, Serialize)]
struct Audited {
    level: &'static str,
    sound: bool,
    #[serde(flatten)]
    report: AuditReport,
}

impl Show for Audited {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let AuditReport { manifests, packs, rows, references, found, mended, .. } = self.report;
        let verdict = match (self.sound, found) {
            (true, 0) => "OK",
            (true, _) => "repaired",
            (false, _) => "WRONG",
        };
        let [manifests, packs, rows, references, found, mended] =
            [manifests, packs, rows, references, found, mended].map(HumanCount);
        writeln!(
            out,
            "reference counts {verdict}: {references} references of {manifests} manifests and of the pages in {packs} packs, compared with {rows} rows: {found} errors found, {mended} repaired"
        )?;
        if self.report.changed > 0 {
            writeln!(
                out,
                "{} rows changed during the check and were skipped",
                HumanCount(self.report.changed)
            )?;
        }
        if self.report.findings.is_empty() {
            return Ok(());
        }
        let mut rows = vec![["OBJECT", "PROBLEM", "STATE"].map(str::to_owned)];
        rows.extend(self.report.findings.iter().map(|found| {
            let state = match found.state {
                AuditState::Open => "open",
                AuditState::Mended => "repaired",
            };
            [found.object.clone(), found.problem.clone(), state.to_owned()]
        }));
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        self.report.found > 0
    }
}
