//! `status`: what a server has, and its alarms.

use std::io::{self, Write};

use format_spec::wire::Status;
use indicatif::{HumanBytes, HumanCount};
use node_client::show::Show;
use serde::Serialize;

use crate::alarms::show_alarms;
use crate::show::table;

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

#[cfg(test)]
mod tests;
