//! Freshness: how old the last good snapshot of each series is, how old it may be, and the alarms about that.
//!
//! A good snapshot is complete, listed, not known to be damaged and not suspect. The first of these says how old the
//! last one may be:
//! 1. the most specific rule about the series: one that names its folders or name before one that names its node only,
//!    one that `astacus-admin freshness` has set before one of the configuration;
//! 2. the configuration's age for all series;
//! 3. its own history: see [`usual`].
//!
//! Ages depend on the server's clock, so these alarms do not change while that clock is known to have jumped.

use std::time::Duration;

use format_spec::snapshot::{Snapshot, SnapshotState};
use format_spec::wire::{
    AgeSource, Expectation, FreshnessReport, FreshnessRule, FreshnessState, SeriesFreshness, SeriesScope,
};
use format_spec::{ClusterName, NodeName};

use crate::defects::objects;
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode, MAX_SUBJECT_LEN};
use crate::index::{Batch, KeyRange, Table};
use crate::rows::Meta;
use crate::server::Server;
use crate::snapshot;
use crate::snapshot::series::{by_series, subject, title_of_folders};
use crate::time::{later, rfc3339};

/// Number of the last intervals that a history uses.
const INTERVALS: usize = 5;
/// With fewer, nothing is usual yet.
const FEWEST_INTERVALS: usize = 2;
/// However often a series was pushed, a silence of less is none: a node may be switched off for a day.
const FLOOR: Duration = Duration::from_secs(26 * 60 * 60);
/// A push takes its time, and does not begin to the second.
const SLACK: Duration = Duration::from_secs(60 * 60);

/// Alarms about series of one code, at most; the last one says how many more there would be.
const MOST_ALARMS: usize = 500;
/// Rules that can be set.
const MOST_RULES: usize = 10_000;

const RULES: &[u8] = Meta::Freshness.bytes();
/// Since when this server has watched that stored bytes are read back.
const WATCHED_KEY: &[u8] = Meta::ReadBackWatched.bytes();

/// How old the last good snapshot may be of a series whose good ones are of these moments, in order: one and a half
/// times the median of the last intervals, and an hour; 26 hours at least. `None` if there are fewer than three.
///
/// A policy that has thinned the history makes the intervals longer, never shorter.
pub(crate) fn usual(good_ms: &[u64]) -> Option<Duration> {
    let pairs = good_ms.iter().zip(good_ms.iter().skip(1)).rev().take(INTERVALS);
    let mut intervals: Vec<u64> = pairs.map(|(earlier, later)| later.saturating_sub(*earlier)).collect();
    if intervals.len() < FEWEST_INTERVALS {
        return None;
    }
    intervals.sort_unstable();
    let median = Duration::from_millis(*intervals.get(intervals.len() / 2)?);
    Some((median + median / 2 + SLACK).max(FLOOR))
}

/// History of a series that decides its maximum age.
struct History {
    subject: String,
    cluster: ClusterName,
    nodes: Vec<NodeName>,
    /// Names that a rule may use: the name of the series, and its folders.
    names: Vec<String>,
    title: String,
    /// Moments of good snapshots, in the order of commits.
    good_ms: Vec<u64>,
    partial_in_a_row: u64,
    snapshots: u64,
}

impl History {
    /// The history from the listed snapshots of a series, in the order of commits.
    fn of(listed: &[&Snapshot], is_good: impl Fn(&Snapshot) -> bool) -> Option<Self> {
        let last = listed.last()?;
        let mut names = Vec::new();
        for origin in last.manifests.iter().filter_map(|share| share.origin.as_ref()) {
            names.extend(origin.series.iter().map(ToString::to_string));
            names.extend(origin.roots.iter().map(|root| format!("/{root}")));
        }
        let is_partial = |snapshot: &&&Snapshot| snapshot.state == SnapshotState::Partial;
        let partial = listed.iter().rev().take_while(is_partial).count();
        let good = listed.iter().filter(|snapshot| is_good(snapshot));
        Some(Self {
            subject: subject(last),
            cluster: last.cluster.clone(),
            nodes: last.manifests.iter().map(|share| share.node.clone()).collect(),
            names,
            title: title_of_folders(last),
            good_ms: good.map(|snapshot| snapshot.created_ms).collect(),
            partial_in_a_row: wide(partial),
            snapshots: wide(listed.len()),
        })
    }

    fn fits(&self, scope: &SeriesScope) -> bool {
        scope.cluster == self.cluster
            && scope.node.as_ref().is_none_or(|node| self.nodes.contains(node))
            && scope.series.as_ref().is_none_or(|series| self.names.contains(series))
    }

    fn nodes(&self) -> String {
        self.nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(",")
    }
}

/// A rule, and where it was given.
struct Rule {
    scope: SeriesScope,
    expect: Expectation,
    source: AgeSource,
}

impl Rule {
    /// The greatest one decides.
    fn weight(&self) -> (bool, bool, bool) {
        (self.scope.series.is_some(), self.scope.node.is_some(), self.source == AgeSource::Set)
    }
}

/// All rules that say something.
fn rules(server: &Server) -> Result<Vec<Rule>, ServerError> {
    let configured = server.choices();
    let configured = configured.freshness.expect.iter().map(|(scope, max_age)| Rule {
        scope: scope.clone(),
        expect: Expectation::MaxAgeSeconds(max_age.as_secs()),
        source: AgeSource::Configured,
    });
    let set = set_rules(server)?.into_iter();
    let set = set.map(|rule| Rule { scope: rule.scope, expect: rule.expect, source: AgeSource::Set });
    Ok(configured.chain(set).collect())
}

fn set_rules(server: &Server) -> Result<Vec<FreshnessRule>, ServerError> {
    let mut rules = Vec::new();
    server.store.for_each_row(Table::Meta, &KeyRange::prefix(RULES), |_, value| {
        let rule = serde_json::from_slice(value);
        rules.push(rule.map_err(|_| ServerError::Row { object: "a rule of freshness".to_owned() })?);
        Ok(())
    })?;
    Ok(rules)
}

/// Sets a rule, or takes back the one of the same scope, durably; then alarms are as it says. Blocks.
///
/// # Errors
/// [`ServerError::BadRequest`] if its scope is too long, expects nothing, or would be one of too many.
pub(crate) fn set(server: &Server, rule: &FreshnessRule) -> Result<(), ServerError> {
    let bad = |why: String| ServerError::BadRequest { code: "bad_rule", why };
    let name = name(&rule.scope);
    if name.len() > MAX_SUBJECT_LEN || name.chars().any(char::is_control) {
        return Err(bad(format!(
            "cluster, node and series of a rule may have at most {MAX_SUBJECT_LEN} bytes"
        )));
    }
    if rule.expect == Expectation::MaxAgeSeconds(0) {
        return Err(bad("the age must be more than 0 seconds".to_owned()));
    }
    let key = [RULES, name.as_bytes()].concat();
    server.store.exclusively(|| {
        let mut batch = Batch::new();
        if rule.expect == Expectation::Usual {
            batch.delete(Table::Meta, key);
        } else if set_rules(server)?.len() >= MOST_RULES {
            return Err(bad(format!("the maximum of {MOST_RULES} freshness rules is reached")));
        } else {
            batch.put(Table::Meta, key, serde_json::to_vec(rule).expect("plain JSON"));
        }
        server.store.commit(batch)
    })?;
    tracing::info!(series = name, expect = ?rule.expect, "freshness rule set");
    look(server)
}

/// A scope in one line: `CLUSTER`, `CLUSTER/NODE`, `CLUSTER/NODE:SERIES`.
fn name(scope: &SeriesScope) -> String {
    let mut name = scope.cluster.to_string();
    name.extend(scope.node.iter().map(|node| format!("/{node}")));
    name.extend(scope.series.iter().map(|series| format!(":{series}")));
    name
}

/// Cuts a name to the length of an alarm's subject. The configuration sets no limit for series.
fn cut(mut name: String) -> String {
    name.retain(|c| !c.is_control());
    while name.len() > MAX_SUBJECT_LEN {
        name.pop();
    }
    name
}

/// All series, and those that a rule expects and that have no snapshot. Blocks.
pub(crate) fn report(server: &Server) -> Result<FreshnessReport, ServerError> {
    let (marks, damaged) = (snapshot::marks(&server.store)?, objects::all(&server.store)?);
    let mut snapshots = snapshot::list(&server.store, None)?;
    snapshots.retain(|snapshot| marks.get(&snapshot.id).is_none_or(|mark| mark.tombstone.is_none()));
    let is_good = |snapshot: &Snapshot| {
        let is_sound = damaged.against(snapshot).is_none() && snapshot.shrunk.is_none();
        snapshot.state == SnapshotState::Complete && is_sound
    };
    let of_all = by_series(&snapshots);
    let histories: Vec<History> = of_all.values().filter_map(|listed| History::of(listed, is_good)).collect();
    let rules = rules(server)?;
    let now_ms = server.store.parts.clock.unix_ms();
    let for_all = server.choices().freshness.max_age;
    let mut series: Vec<SeriesFreshness> =
        histories.iter().map(|history| judge(history, &rules, for_all, now_ms)).collect();
    series.extend(
        rules.iter().filter(|rule| !histories.iter().any(|of| of.fits(&rule.scope))).filter_map(missing),
    );
    series.sort_by(|one, other| one.subject.cmp(&other.subject));
    // A rule of the configuration and one that was set may expect the same.
    series.dedup_by(|one, other| one.subject == other.subject && one.snapshots == 0);
    Ok(FreshnessReport { series, rules: set_rules(server)? })
}

fn judge(history: &History, rules: &[Rule], for_all: Option<Duration>, now_ms: u64) -> SeriesFreshness {
    let rule = rules.iter().filter(|rule| history.fits(&rule.scope)).max_by_key(|rule| rule.weight());
    let seconds = |age: Duration| age.as_secs();
    let (limit, is_retired) = match rule.map(|rule| (rule.expect, rule.source)) {
        Some((Expectation::Retired, _)) => (None, true),
        Some((Expectation::MaxAgeSeconds(seconds), source)) => (Some((seconds, source)), false),
        Some((Expectation::Usual, _)) | None => {
            let usual = || usual(&history.good_ms).map(|age| (seconds(age), AgeSource::Usual));
            (for_all.map(|age| (seconds(age), AgeSource::All)).or_else(usual), false)
        }
    };
    let last = history.good_ms.last();
    let age = last.map(|last| now_ms.saturating_sub(*last) / 1000);
    let state = match limit {
        _ if is_retired => FreshnessState::Retired,
        None => FreshnessState::NoLimit,
        Some((limit, _)) if age.is_none_or(|age| age >= limit) => FreshnessState::Overdue,
        Some(_) => FreshnessState::Fresh,
    };
    SeriesFreshness {
        subject: history.subject.clone(),
        cluster: history.cluster.clone(),
        nodes: history.nodes(),
        series: history.title.clone(),
        last_complete: last.copied().map(rfc3339),
        age_seconds: age,
        max_age_seconds: limit.map(|(seconds, _)| seconds),
        max_age_source: limit.map(|(_, source)| source),
        state,
        partial_in_a_row: history.partial_in_a_row,
        snapshots: history.snapshots,
    }
}

/// Series that a rule expects and that has no snapshot.
fn missing(rule: &Rule) -> Option<SeriesFreshness> {
    let Expectation::MaxAgeSeconds(seconds) = rule.expect else { return None };
    Some(SeriesFreshness {
        subject: cut(name(&rule.scope)),
        cluster: rule.scope.cluster.clone(),
        nodes: rule.scope.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        series: rule.scope.series.clone().unwrap_or_default(),
        last_complete: None,
        age_seconds: None,
        max_age_seconds: Some(seconds),
        max_age_source: Some(rule.source),
        state: FreshnessState::Overdue,
        partial_in_a_row: 0,
        snapshots: 0,
    })
}

/// Raises and clears the alarms about series, and about stored bytes that are not read back. Blocks.
///
/// # Errors
/// [`ServerError`] if rows cannot be read, or written for another reason than a full disk.
pub(crate) fn look(server: &Server) -> Result<(), ServerError> {
    if alarm::is_up(&server.store, AlarmCode::ClockJumped)? {
        return Ok(());
    }
    match show(server) {
        Err(ServerError::Full { what }) => {
            tracing::debug!(what, "series alarms could not be stored");
            Ok(())
        }
        shown => shown,
    }
}

fn show(server: &Server) -> Result<(), ServerError> {
    let series = report(server)?.series;
    let alarms = |of: &dyn Fn(&SeriesFreshness) -> Option<String>| {
        let all = series.iter().filter_map(|series| Some((series.subject.clone(), of(series)?)));
        bounded(all.collect())
    };
    alarm::keep_only(&server.store, AlarmCode::Overdue, &alarms(&overdue))?;
    let most = server.choices().freshness.partial_in_a_row;
    alarm::keep_only(&server.store, AlarmCode::PartialAgain, &alarms(&|series| partial(series, most)))?;
    watch_reads(server)
}

fn overdue(series: &SeriesFreshness) -> Option<String> {
    let limit = series.max_age_seconds.filter(|_| series.state == FreshnessState::Overdue)?;
    let (subject, limit) = (&series.subject, told(limit));
    let source = match series.max_age_source? {
        AgeSource::Set => "set by `astacus-admin freshness`",
        AgeSource::Configured | AgeSource::All => "from the server's configuration",
        AgeSource::Usual => "from its history",
    };
    let what = match &series.last_complete {
        Some(last) => {
            format!("the last good snapshot of {subject} was committed at {last}, more than {limit} ago")
        }
        None if series.snapshots > 0 => {
            format!("{subject} has no good snapshot; one every {limit} is expected")
        }
        None => format!("{subject} has no snapshot; one every {limit} is expected"),
    };
    Some(format!(
        "{what} ({source}): check the pushes of the node, or run `astacus-admin freshness retire` if it is no longer pushed"
    ))
}

fn partial(series: &SeriesFreshness, most: u64) -> Option<String> {
    let is_bad = most > 0 && series.partial_in_a_row >= most && series.state != FreshnessState::Retired;
    is_bad.then(|| {
        format!(
            "at least the {most} newest snapshots of {} are partial: `astacus-admin show` lists their missing files",
            series.subject
        )
    })
}

/// Limits the number of alarms, with one more that counts the others.
fn bounded(mut alarms: Vec<(String, String)>) -> Vec<(String, String)> {
    let more = alarms.len().saturating_sub(MOST_ALARMS);
    if more > 0 {
        alarms.truncate(MOST_ALARMS - 1);
        alarms.push(("more".to_owned(), format!("{} more series have this alarm", more + 1)));
    }
    alarms
}

/// An age in its largest even unit.
fn told(seconds: u64) -> String {
    match seconds {
        _ if seconds.is_multiple_of(86_400) => format!("{} d", seconds / 86_400),
        _ if seconds >= 3600 => format!("{} h", seconds / 3600),
        _ => format!("{seconds} s"),
    }
}

fn watch_reads(server: &Server) -> Result<(), ServerError> {
    let sums = server.pack_sums.now(&server.store)?;
    let within = server.choices().freshness.verify_within.filter(|_| sums.packs > 0);
    let Some(within) = within else { return alarm::clear(&server.store, AlarmCode::NotVerified) };
    let now_ms = server.store.parts.clock.unix_ms();
    let since_ms = watched_since(server, now_ms)?.max(sums.verified_ms);
    if now_ms < later(since_ms, within) {
        return alarm::clear(&server.store, AlarmCode::NotVerified);
    }
    let message = format!(
        "no stored data was verified since {}: run `astacus-admin scrub`, or `verify --level read`, from a timer",
        rfc3339(since_ms)
    );
    alarm::raise(&server.store, AlarmCode::NotVerified, &message)
}

/// Since when it is watched that stored bytes are read back: from now on, if it was not.
fn watched_since(server: &Server, now_ms: u64) -> Result<u64, ServerError> {
    if let Some(since) = server.store.number(Meta::ReadBackWatched, "a moment")? {
        return Ok(since);
    }
    let mut batch = Batch::new();
    batch.put(Table::Meta, WATCHED_KEY, now_ms.to_le_bytes());
    server.store.commit(batch)?;
    Ok(now_ms)
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
