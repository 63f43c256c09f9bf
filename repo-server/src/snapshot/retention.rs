//! The snapshots of a series to delete, and the reason for each decision.
//!
//! Pure: the time is an argument, and nothing is read or written. Times are the server's, in UTC.
//!
//! Always kept: protected snapshots, those newer than the server's clock, the newest complete snapshot
//! (unless the caller allows its deletion), and the newest `minimum` complete ones. These are kept even
//! beyond `maximum`. Other snapshots that a rule keeps are kept up to `maximum`. Without any rule all
//! snapshots are kept. A damaged snapshot is kept until it is deleted by id, and does not take the place of
//! another; nor does a suspect one, which is much smaller than the one before it.

use std::collections::BTreeSet;
use std::fmt;

use format_spec::SnapshotId;
use format_spec::snapshot::SnapshotState;
use format_spec::wire::{LastComplete, RetentionPolicy, Verdict};
use jiff::tz::TimeZone;

use crate::settings::DEFAULT_MINIMUM;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Rules of a policy. A number that is zero means zero; a rule that is not there is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Number of the newest complete snapshots that are always kept.
    pub(crate) minimum: u32,
    /// Most complete snapshots that are kept.
    pub(crate) maximum: Option<u32>,
    /// Snapshots stay until they are older than this, in whole days.
    pub(crate) keep_days: Option<u32>,
    /// Number of the newest complete snapshots to keep.
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest complete snapshot of each of the last N hours that have one.
    pub(crate) keep_hourly: Option<u32>,
    /// The same for days.
    pub(crate) keep_daily: Option<u32>,
    /// The same for ISO weeks.
    pub(crate) keep_weekly: Option<u32>,
    /// The same for months.
    pub(crate) keep_monthly: Option<u32>,
    /// The same for years.
    pub(crate) keep_yearly: Option<u32>,
}

impl From<&RetentionPolicy> for Policy {
    /// The policy as an operator wrote it, with the default where nothing was written.
    fn from(written: &RetentionPolicy) -> Self {
        let RetentionPolicy {
            minimum,
            maximum,
            keep_days,
            keep_last,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
        } = *written;
        let minimum = minimum.unwrap_or(DEFAULT_MINIMUM);
        Self {
            minimum,
            maximum,
            keep_days,
            keep_last,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
        }
    }
}

impl Policy {
    fn per_period(&self) -> [(Period, Option<u32>); 5] {
        [
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ]
    }

    /// True if any rule keeps snapshots. If none does, only `maximum` deletes complete snapshots.
    fn keeps_some(&self) -> bool {
        let periods = self.per_period().iter().any(|(_, periods)| periods.is_some());
        self.keep_days.is_some() || self.keep_last.is_some() || periods
    }

    fn has_rules(&self) -> bool {
        self.keeps_some() || self.maximum.is_some()
    }
}

/// Protection of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// It is kept until the protection is removed.
    Protected,
    /// The policy decides.
    Unprotected,
}

/// Known condition of a snapshot for a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing is known against it.
    Sound,
    /// It holds much less than the one before it.
    Suspect,
    /// Something of it is damaged or lost.
    Damaged,
}

/// Standing of a snapshot before this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was not.
    Listed,
    /// It was, and is purged when its delay is over.
    Tombstoned,
}

/// A snapshot that the policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its id.
    pub(crate) id: SnapshotId,
    /// The number of its commit; 0 if it is of an earlier build. The greater one is the newer, whatever clocks told; of
    /// two that have none, the one with the greater id.
    pub(crate) number: u64,
    /// When it was committed: server time, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// A partial one fills no place that is meant for a complete one.
    pub(crate) state: SnapshotState,
    /// Protected ones always stay.
    pub(crate) protection: Protection,
    /// Tombstoned ones are not counted.
    pub(crate) standing: Standing,
    /// Damaged ones are not counted, and stay. Suspect ones are not counted, as partial ones.
    pub(crate) condition: Condition,
}

/// Decision about a snapshot, and its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The snapshot.
    pub(crate) id: SnapshotId,
    /// Keep or delete.
    pub(crate) verdict: Verdict,
    /// All reasons to keep it, or the one to forget it.
    pub(crate) reasons: Vec<Reason>,
}

/// A span of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    fn plural(self) -> &'static str {
        match self {
            Self::Hour => "hours",
            Self::Day => "days",
            Self::Week => "weeks",
            Self::Month => "months",
            Self::Year => "years",
        }
    }

    /// True if the oldest snapshot is kept until all configured periods have a snapshot. Otherwise those of a
    /// young series would be deleted as weeks pass, and the first one for a month or a year would be made
    /// much later.
    fn keeps_oldest(self) -> bool {
        matches!(self, Self::Month | Self::Year)
    }

    /// The name of the period that a moment is in.
    fn of(self, unix_ms: u64) -> String {
        let format = match self {
            Self::Hour => "%Y-%m-%d %H:00",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-W%V",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        };
        crate::time::timestamp(unix_ms).to_zoned(TimeZone::UTC).strftime(format).to_string()
    }
}

/// Reason why a snapshot is kept or deleted, as text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no rule at all.
    NoRules,
    /// Somebody protected it.
    Protected,
    /// It is from a moment that has not come.
    Future,
    /// It cannot be restored, and what can be saved of it is not for a policy to say.
    Damaged,
    /// The newest complete one.
    NewestComplete,
    /// One of the newest that are always kept.
    Minimum(u32),
    /// One of the last N.
    Last(u32),
    /// Not older than this number of days.
    Young(u32),
    /// The newest complete one of a period.
    Newest(Period, String),
    /// The oldest complete one, while fewer periods than asked for have any.
    Oldest(Period, u32),
    /// Only `maximum` deletes snapshots, and it is not exceeded.
    WithinMaximum(u32),
    /// Partial, and no complete one is newer.
    NewerThanComplete,
    /// Goes: there are more than `maximum`.
    Maximum(u32),
    /// Suspect, and no complete one is newer.
    Suspect,
    /// Goes: nothing keeps it.
    NoRuleKeeps,
    /// Goes: partial, and not the newest.
    PartialSuperseded,
    /// Goes: suspect, and not the newest.
    SuspectSuperseded,
    /// It is deleted already.
    Tombstoned,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => f.write_str("no rule is set"),
            Self::Protected => f.write_str("protected"),
            Self::Future => f.write_str("newer than the server's clock"),
            Self::Damaged => f.write_str("damaged, so it is deleted only by its id"),
            Self::NewestComplete => f.write_str("the newest complete snapshot"),
            Self::Minimum(minimum) => write!(f, "one of the {minimum} newest (minimum)"),
            Self::Last(last) => write!(f, "one of the last {last}"),
            Self::Young(days) => write!(f, "not older than {days} days"),
            Self::Newest(Period::Hour, hour) => write!(f, "hourly for {hour}"),
            Self::Newest(Period::Day, day) => write!(f, "daily for {day}"),
            Self::Newest(Period::Week, week) => write!(f, "weekly for {week}"),
            Self::Newest(Period::Month, month) => write!(f, "monthly for {month}"),
            Self::Newest(Period::Year, year) => write!(f, "yearly for {year}"),
            Self::Oldest(period, count) => {
                write!(f, "the oldest, until {count} {} have a snapshot", period.plural())
            }
            Self::WithinMaximum(maximum) => write!(f, "one of the {maximum} newest (maximum)"),
            Self::NewerThanComplete => f.write_str("partial, but no complete one is newer"),
            Self::Maximum(maximum) => write!(f, "more than {maximum} (maximum)"),
            Self::Suspect => f.write_str("much smaller than the one before, but no other is newer"),
            Self::SuspectSuperseded => {
                f.write_str("much smaller than the one before, and a newer one exists")
            }
            Self::NoRuleKeeps => f.write_str("no rule keeps it"),
            Self::PartialSuperseded => f.write_str("partial, and a newer complete one exists"),
            Self::Tombstoned => f.write_str("already deleted"),
        }
    }
}

/// Decides about each snapshot of one series, newest first. The order of `candidates` does not matter. A
/// second decision about the kept ones, at the same moment, deletes no more of them.
pub(crate) fn decide(
    policy: &Policy,
    candidates: &[Candidate],
    now_ms: u64,
    last: LastComplete,
) -> Vec<Decision> {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_unstable_by_key(|candidate| std::cmp::Reverse((candidate.number, candidate.id)));
    let mut snapshots: Vec<Judged<'_>> =
        newest_first.into_iter().map(|candidate| Judged { candidate, stays: Vec::new() }).collect();
    keep_in_any_case(policy, &mut snapshots, now_ms);
    if policy.has_rules() {
        keep_complete(policy, &mut snapshots, now_ms, last);
        keep_young(policy, &mut snapshots, now_ms);
        keep_newest_partial(&mut snapshots, now_ms);
    }
    let over = over_maximum(policy, &snapshots, now_ms);
    snapshots.into_iter().map(|snapshot| snapshot.decide(policy, &over)).collect()
}

/// A snapshot, and the reasons found so far to keep it.
struct Judged<'a> {
    candidate: &'a Candidate,
    stays: Vec<Reason>,
}

impl Judged<'_> {
    fn is_listed(&self) -> bool {
        self.candidate.standing == Standing::Listed
    }

    /// True if it counts as a complete one. One from the future or a damaged one does not: it must not push
    /// out a real one.
    fn counts(&self, now_ms: u64) -> bool {
        let sound = self.candidate.condition == Condition::Sound;
        let complete = self.candidate.state == SnapshotState::Complete && sound;
        self.is_listed() && complete && self.candidate.created_ms <= now_ms
    }

    /// True if a reason keeps it that `maximum` does not override.
    fn is_sure(&self) -> bool {
        let sure = [Reason::Protected, Reason::NewestComplete];
        self.stays.iter().any(|reason| sure.contains(reason) || matches!(reason, Reason::Minimum(_)))
    }

    fn decide(self, policy: &Policy, over: &BTreeSet<SnapshotId>) -> Decision {
        let id = self.candidate.id;
        let forget = |reason| Decision { id, verdict: Verdict::Forget, reasons: vec![reason] };
        match policy.maximum {
            _ if !self.is_listed() => {
                Decision { id, verdict: Verdict::Going, reasons: vec![Reason::Tombstoned] }
            }
            Some(maximum) if over.contains(&id) => forget(Reason::Maximum(maximum)),
            _ if !self.stays.is_empty() => Decision { id, verdict: Verdict::Keep, reasons: self.stays },
            _ if self.candidate.state == SnapshotState::Partial => forget(Reason::PartialSuperseded),
            _ if self.candidate.condition == Condition::Suspect => forget(Reason::SuspectSuperseded),
            _ => forget(Reason::NoRuleKeeps),
        }
    }
}

fn keep_in_any_case(policy: &Policy, snapshots: &mut [Judged<'_>], now_ms: u64) {
    for snapshot in snapshots.iter_mut().filter(|snapshot| snapshot.is_listed()) {
        if !policy.has_rules() {
            snapshot.stays.push(Reason::NoRules);
        }
        if snapshot.candidate.protection == Protection::Protected {
            snapshot.stays.push(Reason::Protected);
        }
        if snapshot.candidate.created_ms > now_ms {
            snapshot.stays.push(Reason::Future);
        }
        if snapshot.candidate.condition == Condition::Damaged {
            snapshot.stays.push(Reason::Damaged);
        }
    }
}

/// Applies all rules for complete snapshots.
fn keep_complete(policy: &Policy, snapshots: &mut [Judged<'_>], now_ms: u64, last: LastComplete) {
    let mut complete: Vec<&mut Judged<'_>> =
        snapshots.iter_mut().filter(|snapshot| snapshot.counts(now_ms)).collect();
    if last == LastComplete::Stays {
        keep_first(&mut complete, 1, &Reason::NewestComplete);
    }
    keep_first(&mut complete, policy.minimum, &Reason::Minimum(policy.minimum));
    if let Some(count) = policy.keep_last {
        keep_first(&mut complete, count, &Reason::Last(count));
    }
    for (period, count) in policy.per_period() {
        keep_periods(&mut complete, period, count.unwrap_or(0));
    }
    if let Some(maximum) = policy.maximum.filter(|_| !policy.keeps_some()) {
        complete.iter_mut().for_each(|snapshot| snapshot.stays.push(Reason::WithinMaximum(maximum)));
    }
}

fn keep_first(newest_first: &mut [&mut Judged<'_>], count: u32, reason: &Reason) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    newest_first.iter_mut().take(count).for_each(|snapshot| snapshot.stays.push(reason.clone()));
}

/// The newest one of each of the last `count` periods that have any; of long ones the oldest too, while there are fewer.
fn keep_periods(newest_first: &mut [&mut Judged<'_>], period: Period, count: u32) {
    // A period may have gaps: a clock may have been wrong in the middle of it.
    let mut kept = BTreeSet::new();
    let all = usize::try_from(count).unwrap_or(usize::MAX);
    for snapshot in newest_first.iter_mut() {
        if kept.len() >= all {
            return;
        }
        let name = period.of(snapshot.candidate.created_ms);
        if kept.insert(name.clone()) {
            snapshot.stays.push(Reason::Newest(period, name));
        }
    }
    let is_short = kept.len() < all && period.keeps_oldest();
    if let Some(oldest) = newest_first.last_mut().filter(|_| is_short) {
        oldest.stays.push(Reason::Oldest(period, count));
    }
}

/// Complete or partial, young snapshots are kept.
fn keep_young(policy: &Policy, snapshots: &mut [Judged<'_>], now_ms: u64) {
    let Some(days) = policy.keep_days else { return };
    for snapshot in snapshots.iter_mut().filter(|snapshot| snapshot.is_listed()) {
        let age = now_ms.checked_sub(snapshot.candidate.created_ms);
        if age.is_some_and(|age| age / DAY_MS <= u64::from(days)) {
            snapshot.stays.push(Reason::Young(days));
        }
    }
}

/// A partial or suspect one is better than nothing until a complete one comes after it.
fn keep_newest_partial(snapshots: &mut [Judged<'_>], now_ms: u64) {
    let newer = snapshots.iter_mut().take_while(|snapshot| !snapshot.counts(now_ms));
    for snapshot in newer.filter(|snapshot| snapshot.is_listed()) {
        if snapshot.candidate.state == SnapshotState::Partial {
            snapshot.stays.push(Reason::NewerThanComplete);
        } else if snapshot.candidate.condition == Condition::Suspect {
            snapshot.stays.push(Reason::Suspect);
        }
    }
}

/// The complete snapshots that exceed `maximum`: the oldest that no stronger reason keeps.
fn over_maximum(policy: &Policy, snapshots: &[Judged<'_>], now_ms: u64) -> BTreeSet<SnapshotId> {
    let Some(maximum) = policy.maximum else { return BTreeSet::new() };
    let staying: Vec<_> =
        snapshots.iter().filter(|snapshot| snapshot.counts(now_ms) && !snapshot.stays.is_empty()).collect();
    let over = staying.len().saturating_sub(usize::try_from(maximum).unwrap_or(usize::MAX));
    let oldest = staying.iter().rev().filter(|snapshot| !snapshot.is_sure());
    oldest.take(over).map(|snapshot| snapshot.candidate.id).collect()
}

#[cfg(test)]
mod tests;
