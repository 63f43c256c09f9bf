//! With all rules, every property holds in every state within the bounds.

use stateright::{Checker, Model};
use tests::gear;

use crate::explore::Gc;
use crate::rules::{Grain, Part, Rules, Scope, Start};
use crate::state::Set;

/// Threads of the checker.
const THREADS: usize = 2;

/// One pusher, one run, one page of one chunk.
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
    start: &[Start::Empty, Start::Snapshot, Start::Idle],
};

/// Two pushers, each with a page of its own, of the same chunk.
const TWO: Scope = Scope { pushes: [2, 3], opens: [1, 1], ..ONE };

/// Explores every state within `scope`, says how many there are, and that all is well in each of them. What
/// must have happened on the way is in `reached`.
fn prove(name: &str, scope: Scope, reached: &[&str]) {
    let gc = Gc::new(Rules::all(), scope);
    let checker = gc.clone().checker().threads(THREADS).spawn_bfs().join();
    println!(
        "{name}: {} states, {} reached in all, at most {} steps away\n  {scope:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
    );
    let seen = gc.seen();
    for (what, times) in &seen {
        println!("  {what}: {times}");
    }

    checker.assert_properties();
    for what in reached {
        assert!(seen.contains_key(what), "{name}: it never happens that {what}");
    }
}

/// Proves what takes minutes, if this is the nightly run.
fn prove_nightly(name: &str, scope: Scope) {
    if gear::is_set(gear::NIGHTLY) {
        prove(name, scope, &["a snapshot is committed"]);
    } else {
        println!("{name}: only with {}=1; {scope:?}", gear::NIGHTLY);
    }
}

/// S1, S3, X7, X8, L2: whatever order things happen in.
#[test]
fn one_pusher_loses_nothing_step_by_step() {
    let reached = [
        "a snapshot is committed",
        "a page is dropped",
        "a chunk is dropped",
        "an object is deleted",
        "a page is sent whose chunk nobody asked about",
        "a row is not dropped, as it changed since it was found",
        "an item is not taken off, as it is about something again",
        "a name is not deleted, as it is doomed no more",
        "packs wait, as a snapshot cannot go",
        "what was asked about is dropped before it is revived",
        "an intent is refused, as its page is gone",
        "a commit is refused, as its page is gone",
        "a commit is refused, as its session is over",
        "a page is left out, as its chunk is gone",
    ];
    prove("one pusher", Scope { grain: Grain::Fine, ..ONE }, &reached);
}

/// S1, S3, X7, X8, L2: also when the process ends at any moment.
#[test]
fn one_pusher_loses_nothing_in_a_crash() {
    prove(
        "one pusher, crash",
        Scope { crashes: 1, ..ONE },
        &["a snapshot is committed", "an object is deleted", "a commit that was cut off is finished"],
    );
}

/// S1, S3, X7, X8, L2: also with two at once.
#[test]
fn two_pushers_lose_nothing() {
    prove(
        "two pushers",
        Scope { start: &[Start::Empty], ..TWO },
        &["a page is left out, as its chunk is gone"],
    );
}

/// S1, S3, X7, X8, L2: also if one takes the other's session over, and is told of pages.
#[test]
fn a_pusher_that_adopts_a_session_loses_nothing() {
    let (adoption, asks_pages) = (Part::Takes, Part::Takes);
    let same = Scope { pushes: [2, 2], start: &[Start::Empty], adoption, asks_pages, ..TWO };
    prove("two pushers, one page, adoption", same, &["a session is adopted", "a snapshot is committed"]);
}

/// S1, S3, X7, X8, L2: also while packs are repacked.
#[test]
fn a_repack_loses_nothing() {
    let reached = ["a pack is replaced by its copy", "a copied row is gone before the switch"];
    let pushing = Scope { repacks: 1, start: &[Start::Idle], ..ONE };
    prove("one pusher, repack", pushing, &reached);
    let start = &[Start::Snapshot, Start::Idle, Start::Chunks];
    let resting = Scope { repacks: 1, crashes: 1, runs: 2, opens: [0, 0], start, ..ONE };
    prove("repack, crash, two runs", resting, &reached);
}

/// S1, S3, X7, X8, L2: the same within wider bounds.
#[test]
fn nothing_is_lost_within_wider_bounds() {
    let refers = [Set::of([0]), Set::of([1])];
    prove_nightly("one pusher, steps, crash", Scope { grain: Grain::Fine, crashes: 1, ..ONE });
    prove_nightly("one pusher, two sessions", Scope { opens: [2, 0], start: &[Start::Idle], ..ONE });
    prove_nightly("one pusher, two runs, crash", Scope { runs: 2, crashes: 1, start: &[Start::Idle], ..ONE });
    prove_nightly("one pusher, repack", Scope { repacks: 1, ..ONE });
    prove_nightly(
        "one pusher, repack, crash",
        Scope { repacks: 1, crashes: 1, start: &[Start::Idle], ..ONE },
    );
    prove_nightly("two pushers, two chunks", Scope { refers, start: &[Start::Chunks], ..TWO });
    prove_nightly("two pushers, crash", Scope { crashes: 1, start: &[Start::Empty], ..TWO });
    for start in [&[Start::Idle], &[Start::Snapshot]] {
        prove_nightly("two pushers", Scope { start, ..TWO });
    }
    let same = Scope { pushes: [2, 2], start: &[Start::Idle], ..TWO };
    prove_nightly("two pushers, one page", Scope { asks_pages: Part::Takes, ..same });
    prove_nightly("two pushers, adoption", Scope { adoption: Part::Takes, ..same });
}
