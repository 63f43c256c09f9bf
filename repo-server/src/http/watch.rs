//! Monitoring of the server: readiness for pushes, and figures in the text format of Prometheus.
//!
//! Names and labels are stable, and listed in `docs/operations.md`. No id is a label: the number of lines depends on
//! series and alarms, and not on snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::IntoResponse;
use format_spec::wire::{Alarm, FreshnessState, SeriesFreshness};
use hyper::{StatusCode, header};

use super::respond::Reply;
use super::{App, sight};
use crate::access::Principal;
use crate::error::ServerError;
use crate::freshness;
use crate::health::gate;
use crate::health::space;
use crate::server::{Done, Server};
use crate::snapshot;

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Reports if a push would be accepted.
pub(super) async fn ready(State(app): State<App>) -> Reply {
    let look = |server: &Arc<Server>| {
        server.store.check_running()?;
        gate::check_push(&server.store)?;
        space::admit(&server.store, None)
    };
    Ok(match app.server.blocking(look).await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.code())),
    }
    .into_response())
}

/// Figures for Prometheus.
pub(super) async fn metrics(State(app): State<App>, caller: Principal) -> Reply {
    let text = app.server.blocking(move |server| figures(server, &caller)).await?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}

/// Series that have lines of their own, at most.
const MOST_SERIES: usize = 1000;

fn figures(server: &Arc<Server>, caller: &Principal) -> Result<String, ServerError> {
    let (totals, alarms) = (server.store.totals()?, crate::health::alarms(&server.store)?);
    let report = sight::freshness(caller, freshness::report(server)?);
    let (series, sums) = (report.series, server.pack_sums.now(&server.store)?);
    let snapshots = snapshot::list(&server.store, None)?.len();
    let mut text = Text::default();
    text.one("astacus_sessions_open", "Open sessions.", wide(server.sessions.count()));
    text.one("astacus_snapshots", "Listed snapshots.", wide(snapshots));
    text.one("astacus_packs", "Packs on the site.", totals.packs.into());
    text.one("astacus_blobs", "Chunks and pages.", totals.chunks);
    text.one("astacus_stored_bytes", "Bytes of all packs.", totals.stored_bytes);
    let unreferenced = "Unreferenced bytes in packs that the collector has not freed.";
    text.one("astacus_unreferenced_bytes", unreferenced, sums.unreferenced_bytes);
    of_process(&mut text, &server.done());
    of_alarms(&mut text, &alarms);
    of_series(&mut text, &series);
    Ok(text.0)
}

/// Figures of this process.
fn of_process(text: &mut Text, done: &Done) {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let name = "astacus_network_bytes_total";
    text.begin(name, "counter", "Bytes sent and received since the start of the server.");
    text.line(name, &[("direction", "received")], count(&done.received_bytes));
    text.line(name, &[("direction", "sent")], count(&done.sent_bytes));
    let name = "astacus_sign_ins_refused_total";
    text.begin(
        name,
        "counter",
        "Requests refused since the start of the server for lack of a valid credential.",
    );
    let _ = writeln!(text.0, "{name} {}", count(&done.refused_sign_ins));
    let name = "astacus_collector_runs_total";
    text.begin(name, "counter", "Runs of the collector since the start of the server.");
    text.line(name, &[("result", "done")], count(&done.collector_runs));
    text.line(name, &[("result", "failed")], count(&done.collector_failures));
}

fn of_alarms(text: &mut Text, alarms: &[Alarm]) {
    text.head("astacus_alarm", "1 for each alarm code that is active.");
    let codes: BTreeSet<&str> = alarms.iter().map(|alarm| alarm.code.as_str()).collect();
    for code in codes {
        text.line("astacus_alarm", &[("code", code)], 1);
    }
    text.head("astacus_alarms", "Active alarms.");
    let mut counts: BTreeMap<[(&str, &str); 3], u64> = BTreeMap::new();
    for alarm in alarms {
        let acknowledged = if alarm.acknowledged.is_some() { "yes" } else { "no" };
        let (code, severity) = (alarm.code.as_str(), alarm.severity.name());
        *counts
            .entry([("code", code), ("severity", severity), ("acknowledged", acknowledged)])
            .or_default() += 1;
    }
    for (labels, count) in counts {
        text.line("astacus_alarms", &labels, count);
    }
}

fn of_series(text: &mut Text, series: &[SeriesFreshness]) {
    let left_out = series.len().saturating_sub(MOST_SERIES);
    text.one(
        "astacus_series_left_out",
        "Series without lines of their own, because there are too many.",
        wide(left_out),
    );
    let told = series.get(..MOST_SERIES).unwrap_or(series);
    text.of_each(
        "astacus_last_complete_age_seconds",
        "Age of the last complete and sound snapshot of a series.",
        told,
        |series| series.age_seconds,
    );
    let limit = "Oldest age allowed for the last complete snapshot of a series.";
    text.of_each("astacus_last_complete_max_age_seconds", limit, told, |series| series.max_age_seconds);
    text.of_each(
        "astacus_series_snapshots",
        "Snapshots of a series, without deleted ones.",
        told,
        |series| Some(series.snapshots),
    );
    text.of_each("astacus_series_overdue", "1 if a series is overdue, else 0.", told, |series| {
        Some((series.state == FreshnessState::Overdue).into())
    });
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A text of figures.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str) {
        self.begin(name, "gauge", help);
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A figure of each series that has it.
    fn of_each(
        &mut self,
        name: &str,
        help: &str,
        series: &[SeriesFreshness],
        value: impl Fn(&SeriesFreshness) -> Option<u64>,
    ) {
        self.head(name, help);
        for series in series {
            if let Some(value) = value(series) {
                let labels = [
                    ("cluster", series.cluster.as_str()),
                    ("nodes", &series.nodes),
                    ("series", &series.series),
                ];
                self.line(name, &labels, value);
            }
        }
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
