//! Each rule is needed: without it the checker finds a way to break the property that it serves.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::explore::{COUNTED, FENCED, Gc, NAMED, PROMISED, REGAINED, SITE, WHOLE};
use crate::rules::{Grain, Part, Rule, Rules, Scope, Start};
use crate::state::Set;

/// One pusher, one run, a repository that holds a snapshot of what it pushes.
const ONE: Scope = Scope {
    pushes: [2, 2],
    refers: [Set::of([0]), Set::of([0])],
    opens: [1, 0],
    adoption: Part::DoesNotTake,
    asks_pages: Part::DoesNotTake,
    runs: 1,
    repacks: 0,
    crashes: 0,
    grain: Grain::Coarse,
    start: &[Start::Snapshot],
};

/// Without `rule` there is a way, within `scope`, to break `property`, and the checker finds it.
fn breaks(rule: Rule, property: &'static str, scope: Scope) {
    let gc = Gc::new(Rules::without(&[rule]), scope);
    let when = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = gc.checker().threads(2).finish_when(when).spawn_bfs().join();

    let way = checker.discovery(property);
    let way = way.unwrap_or_else(|| panic!("{rule:?} is not needed for \"{property}\" within {scope:?}"));
    println!("without {rule:?}, not: {property} ({} states seen)", checker.unique_state_count());
    way.into_actions().iter().for_each(|action| println!("  {action:?}"));
}

/// The repository holds only the data of a push that ended before its commit.
const IDLE: Scope = Scope { start: &[Start::Idle], ..ONE };
/// The same, and the pusher wants to commit another page of the same chunk.
const NEW_PAGE: Scope = Scope { pushes: [3, 2], ..IDLE };
/// No push takes part.
const QUIET: Scope = Scope { opens: [0, 0], ..ONE };
/// The repository is empty.
const EMPTY: Scope = Scope { start: &[Start::Empty], ..ONE };

#[test]
fn a_session_has_to_hold_its_start() {
    breaks(Rule::GrantRecordsStart, PROMISED, IDLE);
}

#[test]
fn adopting_has_to_hand_the_start_on() {
    breaks(
        Rule::AdoptHandsStartOn,
        PROMISED,
        Scope { opens: [1, 1], adoption: Part::Takes, runs: 2, ..IDLE },
    );
}

#[test]
fn to_be_told_that_a_chunk_is_here_has_to_revive_it() {
    breaks(Rule::HaveRevives, PROMISED, IDLE);
}

#[test]
fn the_batch_that_revives_has_to_find_the_row() {
    breaks(Rule::RevivalChecksRow, PROMISED, IDLE);
}

#[test]
fn a_page_that_waits_must_not_count_as_here() {
    breaks(Rule::WaitingPageIsMissing, PROMISED, Scope { opens: [1, 1], asks_pages: Part::Takes, ..IDLE });
}

#[test]
fn sending_what_is_here_has_to_revive_it() {
    breaks(Rule::SendRevives, PROMISED, IDLE);
}

#[test]
fn storing_a_page_has_to_revive_its_chunks() {
    breaks(Rule::PageRevives, PROMISED, NEW_PAGE);
}

#[test]
fn the_batch_of_a_page_has_to_find_its_chunks() {
    breaks(Rule::PageBatchChecksChunks, NAMED, NEW_PAGE);
}

#[test]
fn the_page_of_a_dead_session_must_not_fail_those_of_others() {
    breaks(
        Rule::PageBatchLeavesOut,
        PROMISED,
        Scope {
            pushes: [2, 3],
            refers: [Set::of([0]), Set::of([1])],
            opens: [1, 1],
            start: &[Start::Chunks],
            ..ONE
        },
    );
}

#[test]
fn the_batch_that_drops_has_to_look_at_the_count() {
    breaks(Rule::DropChecksCount, WHOLE, NEW_PAGE);
}

#[test]
fn the_batch_that_drops_has_to_look_since_when_the_row_is_idle() {
    breaks(Rule::DropChecksIdle, PROMISED, IDLE);
}

#[test]
fn the_batch_that_drops_has_to_look_at_the_sessions() {
    breaks(Rule::DropChecksSessions, PROMISED, ONE);
}

#[test]
fn the_batch_that_takes_an_item_off_has_to_find_it_stale() {
    breaks(Rule::StaleChecksRows, REGAINED, ONE);
}

#[test]
fn a_row_that_loses_its_last_count_has_to_be_queued() {
    breaks(Rule::UncountQueues, REGAINED, QUIET);
}

#[test]
fn the_switch_may_only_move_rows_that_are_where_they_were() {
    breaks(Rule::SwitchChecksRows, COUNTED, Scope { repacks: 1, start: &[Start::Idle], ..QUIET });
}

#[test]
fn the_switch_has_to_queue_the_idle_rows_that_it_moves() {
    breaks(Rule::SwitchQueuesIdle, REGAINED, Scope { repacks: 1, start: &[Start::Idle], ..QUIET });
}

#[test]
fn a_name_has_to_be_doomed_before_its_object_is_put() {
    breaks(Rule::Intents, REGAINED, Scope { crashes: 1, ..EMPTY });
}

#[test]
fn what_is_on_its_way_must_not_be_deleted() {
    breaks(Rule::FlyingIsLetBe, WHOLE, EMPTY);
}

#[test]
fn a_name_has_to_be_doomed_still_when_it_is_deleted() {
    breaks(Rule::DeleteChecksDoom, WHOLE, EMPTY);
}

#[test]
fn snapshots_have_to_be_deleted_first() {
    breaks(Rule::SnapshotsGoFirst, SITE, QUIET);
}

#[test]
fn packs_have_to_wait_for_snapshots_that_cannot_go() {
    breaks(Rule::PacksWaitForSnapshots, SITE, QUIET);
}

#[test]
fn the_intent_of_a_snapshot_has_to_find_its_pages() {
    breaks(Rule::IntentChecksPages, SITE, IDLE);
}

#[test]
fn a_commit_has_to_find_its_session() {
    breaks(Rule::CommitChecksSession, FENCED, ONE);
}

#[test]
fn a_commit_has_to_find_its_pages() {
    breaks(Rule::CommitChecksPages, WHOLE, IDLE);
}

#[test]
fn finishing_a_commit_has_to_find_its_session() {
    breaks(Rule::FinishChecksSession, FENCED, ONE);
}
