//! A process that ends at every write of a push, before it and after it, and the next one that goes on.

use std::sync::Arc;

use format_spec::SnapshotId;
use repo_server::site::{Area, Prefix};

use crate::judge;
use crate::process::{Process, Push, Stores};
use crate::switch::{Cut, CutIndex, CutSite, Honesty, Side, Switch};

/// Two pushes that share chunks, so that the second also counts up what is there.
fn pushes() -> [Push; 2] {
    [Push::of(&["alpha", "beta", "gamma"]), Push::of(&["beta", "gamma", "delta", "epsilon"])]
}

fn start(stores: &Stores, switch: &Arc<Switch>, honesty: Honesty) -> Process {
    let index = Arc::new(CutIndex::new(Arc::clone(&stores.index), Arc::clone(switch)));
    let site = Arc::new(CutSite::new(Arc::clone(&stores.site), Arc::clone(switch), honesty));
    Process::start(index, site)
}

/// Results of the pushes before the process ended.
struct Before {
    stores: Stores,
    acknowledged: Vec<SnapshotId>,
    switch: Arc<Switch>,
}

/// Runs the pushes, one session each, until the process ends.
fn run_until(cut: Option<Cut>, honesty: Honesty) -> Before {
    let (stores, switch) = (Stores::new(), Switch::at(cut));
    let process = start(&stores, &switch, honesty);
    let mut acknowledged = Vec::new();
    for push in &pushes() {
        let Ok((session, domain)) = Push::open(&process) else { break };
        let Ok(snapshot) = push.run(&process, session, &domain) else { break };
        acknowledged.push(snapshot);
    }
    drop(process);
    Before { stores, acknowledged, switch }
}

fn findings(before: &Before, process: &Process) -> Vec<String> {
    let pushes = pushes();
    let expected: Vec<_> = before.acknowledged.iter().copied().zip(&pushes).collect();
    judge::findings(&before.stores, process, &expected, &pushes.each_ref())
}

fn writes() -> usize {
    let before = run_until(None, Honesty::Honest);
    let writes = before.switch.writes();
    assert_eq!(before.acknowledged.len(), 2, "without a cut both pushes are acknowledged");
    for part in ["put packs", "put manifests", "put snapshots", "commit"] {
        assert!(writes.iter().any(|write| write.starts_with(part)), "no `{part}` among {writes:?}");
    }
    writes.len()
}

fn cuts() -> impl Iterator<Item = Cut> {
    let writes = writes();
    assert!(writes >= 16, "the pushes no longer reach packs, index, manifests and snapshots: {writes}");
    (0..writes).flat_map(|at| [Side::Before, Side::After].map(|side| Cut { at, side }))
}

/// S1, S2, S3, X2, X7, X8, P3: wherever the process ends, what was acknowledged is there and whole, what was
/// not is whole or not there, every row names what is there, every count is right, and the next push
/// succeeds.
#[test]
fn a_push_loses_nothing_that_was_acknowledged_wherever_it_is_cut() {
    for cut in cuts() {
        let before = run_until(Some(cut), Honesty::Honest);
        assert!(before.switch.is_cut(), "{cut:?} was never reached");

        let process = before.stores.serve();
        let found = findings(&before, &process);
        assert!(found.is_empty(), "{cut:?}: {found:#?}");

        let (session, domain) = Push::open(&process).unwrap();
        let snapshot = pushes()[1].run(&process, session, &domain).unwrap();
        let after = Before { acknowledged: [before.acknowledged, vec![snapshot]].concat(), ..before };
        let known = pushes();
        let expected: Vec<_> = after.acknowledged.last().map(|id| (*id, &known[1])).into_iter().collect();
        let found = judge::findings(&after.stores, &process, &expected, &known.each_ref());
        assert!(found.is_empty(), "{cut:?}, after the next push: {found:#?}");
    }
}

/// S4, L3: a client that goes on in its session after the server came back ends with exactly one
/// snapshot, wherever the server was cut.
#[test]
fn a_push_that_goes_on_in_its_session_after_a_crash_makes_exactly_one_snapshot() {
    let push = &pushes()[0];
    let whole = Switch::at(None);
    let process = start(&Stores::new(), &whole, Honesty::Honest);
    let (session, domain) = Push::open(&process).unwrap();
    push.run(&process, session, &domain).unwrap();
    drop(process);
    // The first write grants the session; a client that never heard of it has nothing to go on with.
    for at in 1..whole.writes().len() {
        for side in [Side::Before, Side::After] {
            let cut = Cut { at, side };
            let (stores, switch) = (Stores::new(), Switch::at(Some(cut)));
            let process = start(&stores, &switch, Honesty::Honest);
            let (session, domain) = Push::open(&process).unwrap();
            let cut_short = push.run(&process, session, &domain);
            drop(process);

            let process = stores.serve();
            let snapshot = push.resume(&process, session, &domain);
            let snapshot = snapshot.unwrap_or_else(|error| panic!("{cut:?}: {error}, after {cut_short:?}"));

            assert!(cut_short.is_err(), "{cut:?} was acknowledged by a process that had ended");
            let listed = process.wait(process.api.snapshots(None)).unwrap();
            assert_eq!(listed.iter().map(|info| info.id).collect::<Vec<_>>(), [snapshot], "{cut:?}");
            let found = judge::findings(&stores, &process, &[(snapshot, push)], &[]);
            assert!(found.is_empty(), "{cut:?}: {found:#?}");
        }
    }
}

/// S7: what a cut attempt leaves behind is a few objects, and nothing that is listed.
#[test]
fn a_cut_push_leaves_at_most_its_own_objects() {
    for cut in cuts() {
        let before = run_until(Some(cut), Honesty::Honest);
        let process = before.stores.serve();
        let listed = process.wait(process.api.snapshots(None)).unwrap().len();
        let prefix = Prefix::area(Area::Snapshots);
        let objects = process.wait(before.stores.site.list(&prefix)).unwrap().len();

        assert!(objects <= listed + 1, "{cut:?}: {objects} snapshot objects, {listed} snapshots");
    }
}

/// The twin: a site that acknowledges what it never stores is found out.
#[test]
fn the_judge_sees_a_site_that_forgets_what_it_acknowledged() {
    let (stores, switch) = (Stores::new(), Switch::at(None));
    let process = start(&stores, &switch, Honesty::Forgets);
    let (session, domain) = Push::open(&process).unwrap();
    let push = &pushes()[0];
    let snapshot = push.run(&process, session, &domain).unwrap();
    drop(process);

    let process = stores.serve();
    let found = judge::findings(&stores, &process, &[(snapshot, push)], &[]);

    assert!(found.len() >= 3, "pack, manifest and content are gone: {found:#?}");
}

/// The twin: a site that stores only after it has acknowledged is found out by some cut.
#[test]
fn the_judge_sees_a_site_that_stores_too_late() {
    let caught = cuts().filter(|cut| {
        let before = run_until(Some(*cut), Honesty::Late);
        let process = before.stores.serve();
        !findings(&before, &process).is_empty()
    });

    assert!(caught.count() > 0);
}

/// The twin: a snapshot that was acknowledged and is gone is found out.
#[test]
fn the_judge_sees_an_acknowledged_snapshot_that_is_not_listed() {
    let before = run_until(None, Honesty::Honest);
    let empty = Before { stores: Stores::new(), ..before };
    let process = empty.stores.serve();

    let found = findings(&empty, &process);

    assert_eq!(found.len(), 2, "{found:#?}");
}
