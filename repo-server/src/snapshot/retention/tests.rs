use format_spec::SnapshotId;
use format_spec::snapshot::SnapshotState::{self, Complete, Partial};
use proptest::prelude::*;

use format_spec::wire::{LastComplete, RetentionPolicy, Verdict};

use super::{Candidate, Condition, Decision, Policy, Protection, Reason, Standing, decide};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// No rule, and no minimum either.
const BARE: Policy = Policy {
    minimum: 0,
    maximum: None,
    keep_days: None,
    keep_last: None,
    keep_hourly: None,
    keep_daily: None,
    keep_weekly: None,
    keep_monthly: None,
    keep_yearly: None,
};

fn at(time: &str) -> u64 {
    let time: jiff::Timestamp = time.parse().unwrap();
    u64::try_from(time.as_millisecond()).unwrap()
}

fn now() -> u64 {
    at("2026-11-20T12:00:00Z")
}

fn candidate(number: u8, created_ms: u64) -> Candidate {
    Candidate {
        id: SnapshotId::new(created_ms, [number; 10]),
        number: 0,
        created_ms,
        state: Complete,
        protection: Protection::Unprotected,
        standing: Standing::Listed,
        condition: Condition::Sound,
    }
}

/// Complete snapshots of these times, the first one being number 0.
fn of(times: &[&str]) -> Vec<Candidate> {
    (0..).zip(times).map(|(number, time)| candidate(number, at(time))).collect()
}

/// Complete snapshots so many days old.
fn aged(days: &[u64]) -> Vec<Candidate> {
    (0..).zip(days).map(|(number, days)| candidate(number, now() - days * DAY_MS)).collect()
}

fn decided(policy: &Policy, candidates: &[Candidate]) -> Vec<Decision> {
    decide(policy, candidates, now(), LastComplete::Stays)
}

/// Decision about each of `candidates`, in their order: kept or not, and the reason as text.
fn told(candidates: &[Candidate], decisions: &[Decision]) -> Vec<(Verdict, String)> {
    assert_eq!(decisions.len(), candidates.len());
    let decision = |id| decisions.iter().find(|decision| decision.id == id).unwrap();
    let words = |decision: &Decision| decision.reasons.iter().map(Reason::to_string).collect::<Vec<_>>();
    let told = |decision: &Decision| (decision.verdict, words(decision).join(", "));
    candidates.iter().map(|candidate| told(decision(candidate.id))).collect()
}

fn stay(words: &str) -> (Verdict, String) {
    (Verdict::Keep, words.to_owned())
}

fn go(words: &str) -> (Verdict, String) {
    (Verdict::Forget, words.to_owned())
}

fn told_by(policy: &Policy, candidates: &[Candidate]) -> Vec<(Verdict, String)> {
    told(candidates, &decided(policy, candidates))
}

#[test]
fn without_a_rule_everything_stays() {
    let mut snapshots = aged(&[0, 400, 4000]);
    snapshots[2].state = Partial;

    let stays = stay("no rule is set");
    assert_eq!(
        told_by(&Policy::from(&RetentionPolicy::default()), &snapshots),
        [stays.clone(), stays.clone(), stays.clone()]
    );
    assert_eq!(told_by(&BARE, &snapshots), [stays.clone(), stays.clone(), stays]);
}

#[test]
fn days_are_whole_and_the_last_of_them_still_counts() {
    let mut snapshots = aged(&[0, 6, 7, 8]);
    snapshots[2].created_ms = now() - 8 * DAY_MS + 1;
    let policy = Policy { keep_days: Some(7), ..BARE };

    let young = || stay("not older than 7 days");
    let newest = stay("the newest complete snapshot, not older than 7 days");
    assert_eq!(told_by(&policy, &snapshots), [newest, young(), young(), go("no rule keeps it")]);
}

#[test]
fn zero_days_and_the_last_zero_mean_what_they_say() {
    let snapshots = aged(&[0, 1, 2, 3]);
    let minimum = || stay("one of the 2 newest (minimum)");
    let gone = || go("no rule keeps it");

    let days = Policy { keep_days: Some(0), minimum: 2, ..BARE };
    let today = stay("the newest complete snapshot, one of the 2 newest (minimum), not older than 0 days");
    assert_eq!(told_by(&days, &snapshots), [today, minimum(), gone(), gone()]);

    let last = Policy { keep_last: Some(0), minimum: 2, ..BARE };
    let newest = stay("the newest complete snapshot, one of the 2 newest (minimum)");
    assert_eq!(told_by(&last, &snapshots), [newest, minimum(), gone(), gone()]);
}

/// Even if nobody checked it.
#[test]
fn the_minimum_wins_over_the_maximum() {
    let policy = Policy { minimum: 3, maximum: Some(1), keep_days: Some(7), ..BARE };

    for count in [3, 5] {
        let snapshots = aged(&[0, 1, 2, 3, 4][..count]);
        let decisions = decide(&policy, &snapshots, now(), LastComplete::Stays);
        assert_eq!(kept(&decisions).len(), 3);
    }
}

#[test]
fn the_last_ones_stay() {
    let snapshots = aged(&[10, 20, 30]);
    let policy = Policy { keep_last: Some(2), ..BARE };

    let newest = stay("the newest complete snapshot, one of the last 2");
    assert_eq!(told_by(&policy, &snapshots), [newest, stay("one of the last 2"), go("no rule keeps it")]);
}

#[test]
fn the_newest_one_of_each_hour_stays() {
    let times =
        ["2026-11-20T11:59:59Z", "2026-11-20T11:00:00Z", "2026-11-20T10:59:59Z", "2026-11-19T10:30:00Z"];
    let policy = Policy { keep_hourly: Some(2), ..BARE };

    let first = stay("the newest complete snapshot, hourly for 2026-11-20 11:00");
    let (second, gone) = (stay("hourly for 2026-11-20 10:00"), || go("no rule keeps it"));
    assert_eq!(told_by(&policy, &of(&times)), [first, gone(), second, gone()]);
}

#[test]
fn the_newest_one_of_each_day_stays_and_days_without_any_do_not_count() {
    let times =
        ["2026-11-20T00:00:00Z", "2026-11-19T23:59:59Z", "2026-11-19T01:00:00Z", "2026-11-02T01:00:00Z"];
    let policy = Policy { keep_daily: Some(3), ..BARE };

    let first = stay("the newest complete snapshot, daily for 2026-11-20");
    let (second, last) = (stay("daily for 2026-11-19"), stay("daily for 2026-11-02"));
    assert_eq!(told_by(&policy, &of(&times)), [first, second, go("no rule keeps it"), last]);
}

#[test]
fn weeks_are_those_of_iso_also_around_the_new_year() {
    // 2026-01-01 is a Thursday: it and the Monday before are in the first week, the Sunday before is not.
    let times = ["2026-01-04T23:00:00Z", "2025-12-29T00:00:00Z", "2025-12-28T23:59:59Z"];
    let policy = Policy { keep_weekly: Some(2), ..BARE };

    let first = stay("the newest complete snapshot, weekly for 2026-W01");
    let expected = [first, go("no rule keeps it"), stay("weekly for 2025-W52")];
    assert_eq!(told_by(&policy, &of(&times)), expected);
}

#[test]
fn the_newest_one_of_each_month_and_each_year_stays() {
    let times =
        ["2026-11-01T00:00:00Z", "2026-10-31T23:59:59Z", "2025-12-31T23:00:00Z", "2025-11-01T00:00:00Z"];

    let policy = Policy { keep_monthly: Some(2), ..BARE };
    let first = stay("the newest complete snapshot, monthly for 2026-11");
    let gone = || go("no rule keeps it");
    assert_eq!(told_by(&policy, &of(&times)), [first, stay("monthly for 2026-10"), gone(), gone()]);

    let policy = Policy { keep_yearly: Some(2), ..BARE };
    let first = stay("the newest complete snapshot, yearly for 2026");
    assert_eq!(told_by(&policy, &of(&times)), [first, gone(), stay("yearly for 2025"), gone()]);
}

/// A snapshot for a month or a year is kept from the first day on, and deleted when all places are taken.
#[test]
fn the_oldest_one_stays_until_there_are_as_many_months_or_years_as_asked_for() {
    let times =
        ["2026-11-20T00:00:00Z", "2026-11-10T00:00:00Z", "2026-11-03T00:00:00Z", "2026-11-01T00:00:00Z"];

    let policy = Policy { keep_monthly: Some(3), ..BARE };
    let first = stay("the newest complete snapshot, monthly for 2026-11");
    let gone = || go("no rule keeps it");
    let oldest = stay("the oldest, until 3 months have a snapshot");
    assert_eq!(told_by(&policy, &of(&times)), [first.clone(), gone(), gone(), oldest]);

    let full =
        of(&[&times[..1], &["2026-10-20T00:00:00Z", "2026-09-20T00:00:00Z", "2026-09-01T00:00:00Z"]]
            .concat());
    let [october, september] = ["monthly for 2026-10", "monthly for 2026-09"].map(stay);
    assert_eq!(told_by(&policy, &full), [first, october, september, gone()]);

    let policy = Policy { keep_daily: Some(9), ..BARE };
    let days = of(&["2026-11-20T09:00:00Z", "2026-11-20T08:00:00Z"]);
    assert_eq!(told_by(&policy, &days)[1], gone(), "short periods are soon full");
}

#[test]
fn all_reasons_to_keep_one_are_told() {
    let policy = Policy { minimum: 1, keep_last: Some(1), keep_daily: Some(1), keep_yearly: Some(1), ..BARE };
    let mut snapshots = aged(&[1]);
    snapshots[0].protection = Protection::Protected;

    let words = "protected, the newest complete snapshot, one of the 1 newest (minimum), one of the last 1, \
                 daily for 2026-11-19, yearly for 2026";
    assert_eq!(told_by(&policy, &snapshots), [stay(words)]);
}

#[test]
fn the_maximum_lets_the_oldest_go_that_are_not_protected() {
    let policy = Policy { maximum: Some(2), keep_days: Some(30), ..BARE };
    let mut snapshots = aged(&[0, 1, 2, 3]);
    snapshots[3].protection = Protection::Protected;

    let newest = stay("the newest complete snapshot, not older than 30 days");
    let over = || go("more than 2 (maximum)");
    let protected = stay("protected, not older than 30 days");
    assert_eq!(told_by(&policy, &snapshots), [newest, over(), over(), protected]);
}

#[test]
fn a_maximum_alone_keeps_that_many() {
    let policy = Policy { maximum: Some(2), ..BARE };

    let newest = stay("the newest complete snapshot, one of the 2 newest (maximum)");
    let second = stay("one of the 2 newest (maximum)");
    assert_eq!(told_by(&policy, &aged(&[0, 500, 900])), [newest, second, go("more than 2 (maximum)")]);
}

#[test]
fn protected_ones_take_no_place_from_the_newest() {
    let policy = Policy { minimum: 2, maximum: Some(2), ..BARE };
    let mut snapshots = aged(&[0, 1, 2, 3]);
    for old in &mut snapshots[2..] {
        old.protection = Protection::Protected;
    }

    assert_eq!(kept(&decided(&policy, &snapshots)).len(), 4);
}

#[test]
fn partial_ones_fill_no_place() {
    let policy = Policy { minimum: 1, keep_last: Some(1), keep_daily: Some(2), ..BARE };
    let mut snapshots = aged(&[0, 1, 2, 3]);
    for partial in [0, 2] {
        snapshots[partial].state = Partial;
    }

    let newer = stay("partial, but no complete one is newer");
    let older = go("partial, and a newer complete one exists");
    let told = told_by(&policy, &snapshots);
    assert_eq!([&told[0], &told[2]], [&newer, &older]);
    assert_eq!(told[3], stay("daily for 2026-11-17"));
}

#[test]
fn a_partial_one_stays_while_it_is_young_or_protected() {
    let policy = Policy { minimum: 1, keep_days: Some(5), ..BARE };
    let mut snapshots = aged(&[0, 3, 9, 9]);
    snapshots[1..].iter_mut().for_each(|snapshot| snapshot.state = Partial);
    snapshots[2].protection = Protection::Protected;

    let told = told_by(&policy, &snapshots);
    let gone = go("partial, and a newer complete one exists");
    assert_eq!(told[1..], [stay("not older than 5 days"), stay("protected"), gone]);
}

#[test]
fn one_from_the_future_stays_and_pushes_nothing_out() {
    let policy = Policy { minimum: 1, maximum: Some(1), keep_last: Some(1), ..BARE };
    let mut snapshots = aged(&[0, 1, 2]);
    snapshots[0].created_ms = now() + 1;

    let newest = stay("the newest complete snapshot, one of the 1 newest (minimum), one of the last 1");
    let future = stay("newer than the server's clock");
    assert_eq!(told_by(&policy, &snapshots), [future, newest, go("no rule keeps it")]);
}

#[test]
fn what_is_going_already_is_listed_and_not_counted() {
    let policy = Policy { minimum: 1, keep_last: Some(1), ..BARE };
    let mut snapshots = aged(&[0, 1, 2]);
    snapshots[0].standing = Standing::Tombstoned;
    snapshots[0].protection = Protection::Protected;

    let told = told_by(&policy, &snapshots);
    assert_eq!(told[0], (Verdict::Going, "already deleted".to_owned()));
    assert_eq!(told[1].0, Verdict::Keep);
    assert_eq!(told[2], go("no rule keeps it"));
}

#[test]
fn the_last_complete_one_goes_only_if_the_caller_says_so() {
    let policy = Policy { keep_days: Some(1), ..BARE };
    let snapshots = aged(&[10, 20]);

    let careful = decide(&policy, &snapshots, now(), LastComplete::Stays);
    let all = decide(&policy, &snapshots, now(), LastComplete::MayGo);

    assert_eq!(kept(&careful), [snapshots[0].id]);
    assert_eq!(kept(&all), []);
}

/// G9: a damaged snapshot takes no sound one's place, and no policy lets it go.
#[test]
fn a_damaged_one_does_not_count_and_stays() {
    let mut snapshots = aged(&[0, 1, 2, 3]);
    let policy = Policy { minimum: 1, keep_last: Some(1), maximum: Some(1), ..BARE };
    let newest = stay("the newest complete snapshot, one of the 1 newest (minimum), one of the last 1");
    let gone = go("no rule keeps it");
    let sound = [newest.clone(), gone.clone(), gone.clone(), gone.clone()];
    assert_eq!(told_by(&policy, &snapshots), sound);

    snapshots[0].condition = Condition::Damaged;
    snapshots[3].condition = Condition::Damaged;

    let damaged = stay("damaged, so it is deleted only by its id");
    assert_eq!(told_by(&policy, &snapshots), [damaged.clone(), newest, gone, damaged]);
}

#[test]
fn of_two_of_one_moment_the_greater_id_is_newer() {
    let snapshots = [candidate(1, now()), candidate(2, now())];
    let policy = Policy { keep_last: Some(1), ..BARE };

    for order in [[0, 1], [1, 0]] {
        let decisions = decided(&policy, &order.map(|at| snapshots[at]));
        assert_eq!(kept(&decisions), [snapshots[1].id]);
    }
}

#[test]
fn a_policy_is_taken_as_it_is_written() {
    let zero = RetentionPolicy { keep_days: Some(0), keep_last: Some(0), ..RetentionPolicy::default() };

    assert_eq!(Policy::from(&zero), Policy { keep_days: Some(0), keep_last: Some(0), minimum: 3, ..BARE });
    let none = RetentionPolicy { minimum: Some(0), ..zero };
    assert_eq!(Policy::from(&none).minimum, 0);
}

/// Kept snapshots, newest first.
fn kept(decisions: &[Decision]) -> Vec<SnapshotId> {
    let keep = decisions.iter().filter(|decision| decision.verdict == Verdict::Keep);
    keep.map(|decision| decision.id).collect()
}

fn some_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0..120_u64 * 24, 0..10_u8, 0..8_u8, 0..8_u8, 0..8_u8);
    proptest::collection::vec(one, 0..30).prop_map(|made| {
        (0..)
            .zip(made)
            .map(|(number, (hours, partial, protected, tombstoned, damaged))| Candidate {
                state: if partial < 3 { Partial } else { Complete },
                protection: if protected == 0 { Protection::Protected } else { Protection::Unprotected },
                standing: if tombstoned == 0 { Standing::Tombstoned } else { Standing::Listed },
                condition: match damaged {
                    0 => Condition::Damaged,
                    1 => Condition::Suspect,
                    _ => Condition::Sound,
                },
                // A few are newer than the clock.
                ..candidate(number, now() + 5 * HOUR_MS - hours * HOUR_MS)
            })
            .collect()
    })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let rule = |most: u32| proptest::option::of(0..most);
    let periods = (rule(6), rule(6), rule(6), rule(6), rule(3));
    (0..5_u32, proptest::option::of(0..9_u32), rule(60), rule(6), periods).prop_map(
        |(minimum, over, keep_days, keep_last, periods)| Policy {
            minimum,
            maximum: over.map(|over| (minimum + over).max(1)),
            keep_days,
            keep_last,
            keep_hourly: periods.0,
            keep_daily: periods.1,
            keep_weekly: periods.2,
            keep_monthly: periods.3,
            keep_yearly: periods.4,
        },
    )
}

/// Complete ones that could be kept: neither tombstoned nor damaged nor newer than the clock. Newest first.
fn complete(candidates: &[Candidate]) -> Vec<SnapshotId> {
    let counts = |candidate: &&Candidate| {
        let good = candidate.created_ms <= now() && candidate.condition == Condition::Sound;
        good && candidate.state == SnapshotState::Complete && candidate.standing == Standing::Listed
    };
    let mut found: Vec<_> = candidates.iter().filter(counts).map(|one| (one.created_ms, one.id)).collect();
    found.sort_unstable();
    found.into_iter().rev().map(|(_, id)| id).collect()
}

proptest! {
    #[test]
    fn the_newest_complete_ones_stay(policy in some_policy(), candidates in some_candidates()) {
        let kept = kept(&decided(&policy, &candidates));

        let least = usize::try_from(policy.minimum).unwrap().max(1);
        for id in complete(&candidates).iter().take(least) {
            prop_assert!(kept.contains(id));
        }
    }

    #[test]
    fn protected_and_damaged_ones_stay_and_tombstoned_ones_go(policy in some_policy(), candidates in some_candidates()) {
        let kept = kept(&decide(&policy, &candidates, now(), LastComplete::MayGo));

        for candidate in &candidates {
            match (candidate.standing, candidate.protection, candidate.condition) {
                (Standing::Tombstoned, ..) => prop_assert!(!kept.contains(&candidate.id)),
                (_, Protection::Protected, _) | (.., Condition::Damaged) => {
                    prop_assert!(kept.contains(&candidate.id));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn no_more_than_the_maximum_stay_but_for_the_sure(policy in some_policy(), candidates in some_candidates()) {
        let Some(maximum) = policy.maximum else { return Ok(()) };
        let kept = kept(&decided(&policy, &candidates));

        let complete = complete(&candidates);
        let sure = usize::try_from(policy.minimum).unwrap().max(1);
        let is_protected = |id: &&SnapshotId| {
            candidates.iter().any(|one| one.id == **id && one.protection == Protection::Protected)
        };
        let protected = complete.iter().skip(sure).filter(is_protected).count();
        let most = usize::try_from(maximum).unwrap().max(sure + protected);
        prop_assert!(complete.iter().filter(|id| kept.contains(id)).count() <= most);
    }

    /// Without a maximum, and beside another rule: with none everything stays.
    #[test]
    fn one_more_rule_forgets_no_more(
        policy in some_policy(),
        candidates in some_candidates(),
        rule in 0..7_usize,
        count in 1..9_u32,
    ) {
        let few = Policy { maximum: None, keep_last: policy.keep_last.or(Some(1)), ..policy };
        let mut more = few.clone();
        let rules = [
            &mut more.keep_days,
            &mut more.keep_last,
            &mut more.keep_hourly,
            &mut more.keep_daily,
            &mut more.keep_weekly,
            &mut more.keep_monthly,
            &mut more.keep_yearly,
        ];
        let raised = rules.into_iter().nth(rule).unwrap();
        *raised = Some(raised.unwrap_or(0) + count);

        let kept_by_more = kept(&decided(&more, &candidates));

        for id in kept(&decided(&few, &candidates)) {
            prop_assert!(kept_by_more.contains(&id));
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        policy in some_policy(),
        (candidates, shuffled) in some_candidates().prop_flat_map(|candidates| {
            (Just(candidates.clone()), Just(candidates).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(decided(&policy, &candidates), decided(&policy, &shuffled));
    }

    #[test]
    fn what_stays_still_stays_once_the_others_are_gone(
        policy in some_policy(),
        candidates in some_candidates(),
        may_go in proptest::bool::ANY,
    ) {
        let last = if may_go { LastComplete::MayGo } else { LastComplete::Stays };
        let first = decide(&policy, &candidates, now(), last);
        let kept_once = kept(&first);
        let left: Vec<_> = candidates.into_iter().filter(|one| kept_once.contains(&one.id)).collect();

        let again = decide(&policy, &left, now(), last);

        prop_assert_eq!(kept(&again), kept_once);
    }
}

/// S9: what is newest is said by the order of the commits, and not by a clock that was wrong.
#[test]
fn a_wrong_clock_does_not_let_the_newest_data_go() {
    let policy = Policy { minimum: 1, keep_last: Some(1), ..BARE };
    let at_number = |number, created_ms| Candidate { number, ..candidate(0, created_ms) };
    let true_time = at_number(1, now() - DAY_MS);
    let long_ago = Candidate { id: SnapshotId::new(1, [1; 10]), ..at_number(2, now() - 9000 * DAY_MS) };
    let future = Candidate { id: SnapshotId::new(2, [2; 10]), ..at_number(3, now() + 9000 * DAY_MS) };

    assert_eq!(kept(&decided(&policy, &[true_time, long_ago])), [long_ago.id]);
    let later = Candidate { id: SnapshotId::new(3, [3; 10]), ..at_number(4, now()) };
    assert_eq!(kept(&decided(&policy, &[true_time, long_ago, future, later])), [later.id, future.id]);
}

/// S10: the snapshots before a suspect one stay as if it were not there; it stays itself until there is a better one.
#[test]
fn a_suspect_snapshot_takes_no_other_ones_place() {
    let policy = Policy { minimum: 1, keep_last: Some(1), ..BARE };
    let mut snapshots = of(&["2024-01-10T00:00:00Z", "2024-01-11T00:00:00Z", "2024-01-12T00:00:00Z"]);
    snapshots[1].condition = Condition::Suspect;
    snapshots[2].condition = Condition::Suspect;

    let decisions = decided(&policy, &snapshots);
    assert_eq!(kept(&decisions), [snapshots[2].id, snapshots[1].id, snapshots[0].id]);
    let why = told(&snapshots, &decisions).pop().unwrap();
    assert_eq!(why, (Verdict::Keep, "much smaller than the one before, but no other is newer".to_owned()));

    snapshots.extend(of(&["2024-01-13T00:00:00Z"]));
    snapshots[3].id = SnapshotId::new(snapshots[3].created_ms, [9; 10]);
    let decisions = decided(&policy, &snapshots);
    assert_eq!(kept(&decisions), [snapshots[3].id]);
    let why = told(&snapshots, &decisions).swap_remove(2);
    assert_eq!(why.1, "much smaller than the one before, and a newer one exists");
}
