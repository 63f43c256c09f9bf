//! For whoever watches the server: whether it takes pushes, and its figures in the text format of Prometheus.
//!
//! Names and labels are stable, and listed in `docs/operations.md`. No id is a label: the number of lines depends on
//! series and alarms, and not on snapshots.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use format_spec::snapshot::{Snapshot, SnapshotState};
use hyper::{StatusCode, header};

use super::respond::Reply;
use super::{App, alarms};
use crate::error::ServerError;
use crate::repository::Repository;
use crate::snapshot::series::{by_series, title_of_folders};
use crate::{damaged, session, snapshot, space};

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a push would be taken. Needs no token, so a refusal says no more than its code.
pub(super) async fn ready(State(app): State<App>) -> Reply {
    let look = |repository: &Arc<Repository>| {
        repository.check_running()?;
        session::check_push(repository)?;
        space::admit(repository, None)
    };
    Ok(match app.repository.blocking(look).await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.code())),
    }
    .into_response())
}

/// Figures for Prometheus.
pub(super) async fn metrics(State(app): State<App>) -> Reply {
    let text = app.repository.blocking(figures).await?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}

fn figures(repository: &Arc<Repository>) -> Result<String, ServerError> {
    let (totals, alarms) = (repository.totals()?, alarms(repository)?);
    let snapshots = snapshot::list(repository, None)?;
    let (marks, damaged) = (snapshot::marks(repository)?, damaged::all(repository)?);
    let now_ms = repository.parts.clock.unix_ms();
    let mut text = Text::default();
    text.one("astacus_sessions_open", "Sessions that are open.", wide(repository.sessions.count()));
    text.one("astacus_snapshots", "Snapshots that are listed.", wide(snapshots.len()));
    text.one("astacus_packs", "Packs on the site.", totals.packs.into());
    text.one("astacus_blobs", "Chunks and pages.", totals.chunks);
    text.one("astacus_stored_bytes", "Bytes of all packs.", totals.stored_bytes);
    text.head("astacus_alarm", "1 for each alarm that is up.");
    for alarm in &alarms {
        text.line("astacus_alarm", &[("code", &alarm.code)], 1);
    }
    let series = by_series(&snapshots);
    let is_good = |snapshot: &&&Snapshot| {
        let is_listed = marks.get(&snapshot.id).is_none_or(|mark| mark.tombstone.is_none());
        let is_sound = damaged.against(snapshot).is_none() && snapshot.shrunk.is_none();
        snapshot.state == SnapshotState::Complete && is_listed && is_sound
    };
    let age = "astacus_last_complete_age_seconds";
    text.head(age, "Since the last complete snapshot of a series that is sound.");
    for of in series.values() {
        if let Some(last) = of.iter().rev().find(is_good) {
            text.line(age, &labels(last), now_ms.saturating_sub(last.created_ms) / 1000);
        }
    }
    let count = "astacus_series_snapshots";
    text.head(count, "Snapshots of a series.");
    for of in series.values() {
        if let Some(last) = of.last() {
            text.line(count, &labels(last), wide(of.len()));
        }
    }
    Ok(text.0)
}

/// What tells a series from others.
fn labels(snapshot: &Snapshot) -> [(&'static str, String); 3] {
    let nodes: Vec<&str> = snapshot.manifests.iter().map(|share| share.node.as_str()).collect();
    [
        ("cluster", snapshot.cluster.to_string()),
        ("nodes", nodes.join(",")),
        ("series", title_of_folders(snapshot)),
    ]
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A text of figures.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn line(&mut self, name: &str, labels: &[(&str, impl AsRef<str>)], value: u64) {
        let label = |(name, value): &(&str, _)| format!("{name}=\"{}\"", escaped(AsRef::as_ref(value)));
        let labels: Vec<String> = labels.iter().map(label).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    fn one(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

/// A value of a label: Prometheus takes any text in which these are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_lines_of_the_text_format() {
        let mut text = Text::default();
        text.one("a_bytes", "Bytes.", 7);
        text.head("b", "Many.");
        text.line("b", &[("x", "quote \" and \\ and\nline"), ("y", "")], 1);

        let expected = "# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\na_bytes 7\n# HELP b Many.\n# TYPE b gauge\n\
                        b{x=\"quote \\\" and \\\\ and\\nline\",y=\"\"} 1\n";
        assert_eq!(text.0, expected);
    }
}
