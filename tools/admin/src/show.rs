//! Answers of the server, as text for people and as one JSON document for programs.

use std::io::{self, Write};

use format_spec::path::Printable;
use format_spec::wire::Status;
use indicatif::{HumanBytes, HumanCount};
use node_client::show::Show;
use serde::Serialize;

use crate::alarms::show_alarms;

/// State of a server.
#[derive(Debug, Serialize)]
pub(crate) struct ServerStatus(pub(crate) Status);

impl Show for ServerStatus {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Status { server, repository, engine, alarms, .. } = &self.0;
        // Before all else, as the exit code does not tell of them.
        if !alarms.is_empty() {
            show_alarms(alarms, out)?;
            writeln!(out)?;
        }
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

/// A length as a count.
pub(crate) fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

/// Writes rows of cells, each column as wide as its widest cell. A cell is one line, whatever it holds.
pub(crate) fn table<const N: usize>(out: &mut dyn Write, rows: &[[impl AsRef<str>; N]]) -> io::Result<()> {
    let plain = |cell: &str| Printable(cell.as_bytes()).to_string();
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| plain(cell.as_ref()))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
