//! `last`: how old the last good snapshot of each series is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use format_spec::snapshot::SnapshotState;
use format_spec::wire::SnapshotInfo;
use format_spec::{ClusterName, SeriesId, SnapshotId};
use jiff::Timestamp;
use node_client::list::of_cluster;
use node_client::show::{Show, show};
use node_client::span::Span;
use node_client::summary::{folders, state};
use serde::Serialize;

use crate::ask::{Verdict, ask};
use crate::cli::Arguments;
use crate::error::AdminError;
use crate::show::table;

/// Shows the last complete snapshot of each series that is neither damaged, suspect nor forgotten.
///
/// # Errors
/// [`AdminError::Client`]; a cluster without snapshots is not found.
pub(crate) fn run(
    arguments: &Arguments,
    cluster: Option<&ClusterName>,
    max_age: Option<Span>,
) -> Result<Verdict, AdminError> {
    let snapshots = ask(arguments, async |api| of_cluster(&api, cluster).await)?;
    let last = Last::of(&snapshots, now(), max_age.map(|Span(age)| age));
    show(&last, arguments.output)?;
    Ok(if last.series.iter().any(|series| series.overdue) { Verdict::Partial } else { Verdict::Sound })
}

/// The age is counted by the clock of this machine.
fn now() -> Timestamp {
    Timestamp::now()
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Last {
    series: Vec<Series>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Series {
    cluster: String,
    nodes: Vec<String>,
    folders: String,
    /// The last good snapshot; none if there never was one.
    snapshot: Option<SnapshotId>,
    created: Option<String>,
    age_seconds: Option<u64>,
    /// How the newest one is, good or not.
    newest: String,
    /// True if the last good snapshot has at least the given age, or there is none.
    overdue: bool,
}

/// Cluster, nodes and series.
type Key = (String, Vec<String>, Option<SeriesId>);

impl Last {
    fn of(snapshots: &[SnapshotInfo], now: Timestamp, max_age: Option<Duration>) -> Self {
        let mut series: BTreeMap<Key, Vec<&SnapshotInfo>> = BTreeMap::new();
        for info in snapshots.iter().filter(|info| info.going_until.is_none()) {
            let nodes = info.nodes.iter().map(ToString::to_string).collect();
            series.entry((info.cluster.to_string(), nodes, info.series)).or_default().push(info);
        }
        let of = |((cluster, nodes, _), mut of): (Key, Vec<&SnapshotInfo>)| {
            of.sort_by_key(|info| (info.number, info.id));
            let newest = of.last()?;
            let good = of.iter().rev().find(|info| is_good(info));
            let age_seconds = good.and_then(|info| age(&info.created, now));
            let is_old = |max: Duration| age_seconds.is_none_or(|age| age >= max.as_secs());
            Some(Series {
                cluster,
                nodes,
                folders: folders(&newest.origins),
                snapshot: good.map(|info| info.id),
                created: good.map(|info| info.created.clone()),
                age_seconds,
                newest: state(newest),
                overdue: max_age.is_some_and(is_old),
            })
        };
        Self { series: series.into_iter().filter_map(of).collect() }
    }
}

fn is_good(info: &SnapshotInfo) -> bool {
    let is_sound = info.damaged.is_none() && info.suspect.is_none() && !info.ahead_of_clock;
    info.state == SnapshotState::Complete && is_sound
}

fn age(created: &str, now: Timestamp) -> Option<u64> {
    let created: Timestamp = created.parse().ok()?;
    Some(u64::try_from(now.as_second().saturating_sub(created.as_second())).unwrap_or(0))
}

/// An age in its two largest units.
pub(crate) fn told(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

impl Show for Last {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["CLUSTER", "NODES", "FOLDERS", "LAST COMPLETE", "AGE", "NEWEST", ""].map(str::to_owned);
        let row = |series: &Series| {
            let none = || "never".to_owned();
            [
                series.cluster.clone(),
                series.nodes.join(","),
                series.folders.clone(),
                series.created.clone().unwrap_or_else(none),
                series.age_seconds.map_or_else(|| "-".to_owned(), told),
                series.newest.clone(),
                if series.overdue { "OVERDUE" } else { "" }.to_owned(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.series.iter().map(row)).collect();
        table(out, &rows)
    }

    fn is_news(&self) -> bool {
        self.series.iter().any(|series| series.overdue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_units() {
        for (seconds, text) in [(0, "0m"), (59, "0m"), (3599, "59m"), (3600, "1h 0m"), (93_600, "1d 2h")] {
            assert_eq!(told(seconds), text);
        }
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        assert_eq!(age("2026-11-30T11:00:00.5Z", now), Some(3600));
        assert_eq!(age("2026-11-30T13:00:00Z", now), Some(0), "the server's clock is ahead");
        assert_eq!(age("soon", now), None);
    }
}
