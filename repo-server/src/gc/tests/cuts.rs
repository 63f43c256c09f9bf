//! Pushes and runs of the collector, cut at every write.

use std::sync::Arc;

use format_spec::SnapshotId;
use format_spec::wire::{Delays, GcRequest, RunMode};

use super::whole::{faults, leftovers};
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::{Op, StoreSite};
use crate::testing::{Tree, World, tree};

/// Acknowledged state before the cut, which must survive.
struct Kept {
    id: SnapshotId,
    tree: Tree,
}

/// A repository with garbage of every kind: a forgotten snapshot, a thin pack, what a dead push sent.
fn prepare(site: &Arc<FaultySite>) -> (World, Kept) {
    let mut world = World::on(Arc::<FaultySite>::clone(site));
    let all: Tree = (0..12).map(|n| (format!("f{n:02}"), vec![vec![n; 3000]])).collect();
    let some: Tree = all.clone().into_iter().take(2).collect();
    let gone = world.push("a", &all);
    let id = world.push("a", &some);
    let dead = world.begin("b");
    world.send_missing(&dead, &tree(&["sent and never committed"])).unwrap();
    world.flush().unwrap();
    world.expire();
    world.forget(gone);
    world.crash();
    (world, Kept { id, tree: some })
}

fn collect(world: &World) -> bool {
    let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
    world.gc_as(request).is_ok_and(|report| report.problems.is_empty() && report.stopped.is_none())
}

/// The next process finds everything that was acknowledged, and its collector finishes the work.
fn check_after_restart(world: &mut World, kept: &Kept, what: &str) {
    world.index.heal();
    world.crash();
    assert_eq!(faults(world), [""; 0], "{what}");
    assert_eq!(world.read(kept.id).unwrap(), kept.tree, "{what}");
    assert!(collect(world), "{what}");
    assert!(collect(world), "{what}");
    assert_eq!(world.read(kept.id).unwrap(), kept.tree, "{what}");
    assert_eq!((faults(world), leftovers(world)), (vec![], vec![]), "{what}");
}

/// S7, G1, G4, G5: a run that dies at any commit of the index leaves a whole repository, and the next goes on.
#[test]
fn a_run_that_dies_at_any_commit_is_finished_by_the_next() {
    let site = || Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
    let (world, _) = prepare(&site());
    let before = world.index.commits();
    assert!(collect(&world));
    let commits = world.index.commits() - before;
    assert!(commits > 6, "the scenario no longer purges, sweeps, repacks and deletes: {commits}");
    for cut in 0..commits {
        let (mut world, kept) = prepare(&site());
        world.index.fail_after(cut);
        assert!(!collect(&world), "the run must notice cut {cut}");
        check_after_restart(&mut world, &kept, &format!("cut at commit {cut} of {commits}"));
    }
    println!("cut at each of {commits} commits");
}

/// S7, G4, G5: the same at every operation of the site, which takes effect unheard or not at all.
#[test]
fn a_run_that_dies_at_any_site_operation_is_finished_by_the_next() {
    let counted = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
    let (world, _) = prepare(&counted);
    let before = counted.calls().len();
    assert!(collect(&world));
    let calls = counted.calls().len() - before;
    assert!(calls > 8, "{calls}");
    for kind in [FaultKind::StopBefore, FaultKind::StopAfter] {
        for after in 0..calls {
            let site = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
            let (mut world, kept) = prepare(&site);
            site.arm(Fault { op: None, after, kind });
            let finished = collect(&world);
            assert_eq!(site.fired().len(), 1, "{kind:?} after {after}");
            assert!(!finished || kind == FaultKind::StopAfter, "{kind:?} after {after}");
            site.heal();
            check_after_restart(&mut world, &kept, &format!("{kind:?} after {after} of {calls}"));
        }
    }
    println!("cut before and after each of {calls} operations of the site");
}

/// S3, S7: a push that dies at any commit leaves a whole snapshot, or nothing that the collector does not find. Whole it
/// is if all but the last commit was made, and its session was open when a server looked.
#[test]
fn a_push_that_dies_at_any_commit_leaves_nothing_behind() {
    let content = tree(&["new", "newer"]);
    let push = |world: &World| {
        let client = world.begin("a");
        world.send_missing(&client, &content).and_then(|()| world.commit_tree(&client, &content))
    };
    let world = World::new();
    let before = world.index.commits();
    push(&world).unwrap();
    let commits = world.index.commits() - before;
    assert!(commits >= 5, "{commits}");
    let starts: [fn(&mut World); 2] = [World::crash, World::restart];
    for (cut, (looks, start)) in
        (1..commits).flat_map(|cut| starts.iter().enumerate().map(move |start| (cut, start)))
    {
        let mut world = World::new();
        let kept = world.push("a", &tree(&["old"]));
        world.index.fail_after(cut);
        push(&world).unwrap_err();
        world.index.heal();
        start(&mut world);
        world.expire();
        assert!(collect(&world), "cut {cut}");
        assert_eq!((faults(&world), leftovers(&world)), (vec![], vec![]), "cut {cut} of {commits}");
        assert_eq!(world.read(kept).unwrap(), tree(&["old"]));
        let is_whole = looks == 1 && cut == commits - 1;
        assert_eq!(world.rows().len(), if is_whole { 5 } else { 2 }, "cut {cut} of {commits}, {looks} looks");
    }
}

/// G5: as long as a snapshot cannot be deleted, nothing that it needs is. The twin deletes its packs.
#[test]
fn packs_wait_for_snapshots_that_cannot_be_deleted() {
    let schedule = |rules: &[crate::rules::Rule]| {
        let site = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
        let world = World::on(Arc::<FaultySite>::clone(&site));
        for rule in rules {
            world.store.rules.remove(*rule);
        }
        world.push("a", &tree(&["kept"]));
        let gone = world.push("a", &tree(&["gone"]));
        world.forget(gone);
        site.arm(Fault { op: Some(Op::Delete), after: 0, kind: FaultKind::Refuse(Refusal::Unavailable) });
        assert!(!collect(&world));
        assert_eq!(site.fired().len(), 1);
        (world.objects("snapshots").len(), world.objects("packs").len())
    };

    assert_eq!(schedule(&[]), (2, 4));
    let (snapshots, packs) = schedule(&[crate::rules::Rule::SnapshotsBeforePacks]);
    assert!(snapshots == 2 && packs < 4, "a rebuild from this site would list a snapshot without its packs");
}
