mod beside;
mod journal;

use std::sync::Arc;

use bytes::Bytes;
use format_spec::wire::{Delays, ForgetRequest, GcRequest, Repair, RunMode};

use super::*;
use crate::checkpoint::{self, When};
use crate::index::{Batch, Index};
use crate::lease::TEST;
use crate::operation;
use crate::rebuild::{self, RebuildReport};
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::layout::snapshot_object;
use crate::site::{Op, StoreSite};
use crate::store::Store;
use crate::testing::{Tree, Watched, World, tree};

/// Codes of the alarms that are up.
fn alarms(store: &Store) -> Vec<String> {
    crate::health::alarms(store).unwrap().into_iter().map(|alarm| alarm.code).collect()
}

/// Snapshots that the site has and the index lacks.
fn looked(world: &World) -> Option<Behind> {
    world
        .wait(async {
            let lease = world.server.leases.try_acquire(TEST).unwrap();
            look(&world.server, &lease).await
        })
        .unwrap()
}

fn objects(world: &World) -> Vec<String> {
    ["snapshots", "manifests", "packs"].into_iter().flat_map(|area| world.objects(area)).collect()
}

/// The way out: an empty index is filled from the site.
fn rebuild(world: &mut World) -> RebuildReport {
    world.crash_over(Watched::new());
    world.wait(world.store.blocking(rebuild::fill_from_site)).unwrap()
}

/// A repository whose index was put back to before the last two of its snapshots. The first one is going, and what it
/// shares with the last ones is all that the old index counts by it alone.
struct PutBack {
    world: World,
    first: SnapshotId,
    later: Vec<(SnapshotId, Tree)>,
}

impl PutBack {
    fn new() -> Self {
        let mut world = World::new();
        let first = world.push("n", &tree(&["shared", "old"]));
        world.forget(first);
        let old = world.index.copy();
        let trees = [tree(&["shared", "new"]), tree(&["shared", "newer"])];
        let later = trees.map(|tree| (world.push("n", &tree), tree)).to_vec();
        world.crash_over(old);
        Self { world, first, later }
    }

    fn collect(&self) -> Result<(), ServerError> {
        let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
        self.world.gc_as(request).map(drop)
    }
}

/// G12: a start over an old index is told by the site; nothing goes and nothing comes until the index is made anew.
#[test]
fn an_index_that_was_put_back_takes_nothing_and_a_rebuild_brings_all_back() {
    let PutBack { mut world, first, later } = PutBack::new();
    let before = objects(&world);

    world.wait(settle_once(&world.server));

    let told = crate::health::alarms(&world.store).unwrap();
    assert_eq!((told.len(), told[0].code.as_str()), (1, "index_behind"));
    let is_named = later.iter().any(|(id, _)| told[0].message.contains(&id.to_string()));
    assert!(is_named && told[0].message.starts_with("2 acknowledged"), "{}", told[0].message);
    for mode in [RunMode::Plan, RunMode::Apply] {
        let refused = world.gc_as(GcRequest { mode, delays: Delays::Skip, ..GcRequest::default() });
        assert!(matches!(refused, Err(ServerError::Refused { code: "index_behind", .. })), "{refused:?}");
    }
    let by_name = ForgetRequest { mode: RunMode::Apply, snapshots: vec![first], ..ForgetRequest::default() };
    let refused = world.wait(operation::run_unheard(&world.server, by_name)).unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "index_behind", .. }), "{refused:?}");
    let refused = world.begin_after("n", None).unwrap_err();
    assert!(matches!(refused, ServerError::Rests { code: "index_behind", .. }), "{refused:?}");
    assert!(refused.to_string().contains("astacus-server rebuild"), "{refused}");
    let refused = world.wait(checkpoint::run(&world.server, When::Now)).unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "index_behind", .. }), "{refused:?}");
    assert_eq!(world.read(first).unwrap(), tree(&["shared", "old"]), "restores go on");
    assert_eq!(objects(&world), before);

    assert!(rebuild(&mut world).is_sound());

    assert_eq!((looked(&world), alarms(&world.store)), (None, vec![]));
    world.forget(first);
    world.gc(Delays::Skip);
    for (id, tree) in &later {
        assert_eq!(world.read(*id).unwrap(), *tree);
    }
    world.push("n", &tree(&["shared", "newest"]));
}

/// G12: the collector looks by itself, before it purges anything; without that look it takes what snapshots need.
#[test]
fn the_collector_asks_the_site_before_it_takes_anything() {
    for removed in [None, Some(Rule::SiteIsWitness)] {
        let mut old = PutBack::new();
        if let Some(rule) = removed {
            old.world.store.rules.remove(rule);
        }
        let before = objects(&old.world);

        let done = old.collect();

        match removed {
            None => {
                assert!(matches!(done, Err(ServerError::Refused { code: "index_behind", .. })), "{done:?}");
                assert_eq!(alarms(&old.world.store), ["index_behind"]);
                assert_eq!(objects(&old.world), before);
                let report = rebuild(&mut old.world);
                assert!(report.is_sound() && report.snapshots == 3, "{report:?}");
                for (id, tree) in &old.later {
                    assert_eq!(old.world.read(*id).unwrap(), *tree);
                }
            }
            Some(_) => {
                done.unwrap();
                let report = rebuild(&mut old.world);
                assert!(!report.is_sound(), "the collector took nothing that is needed: {report:?}");
                for (id, _) in &old.later {
                    old.world.read(*id).unwrap_err();
                }
            }
        }
    }
}

/// G12: a session that was open in the old index goes on, and may have been told "here" of what was deleted since.
#[test]
fn a_session_of_an_old_index_commits_nothing() {
    let mut world = World::new();
    let content = tree(&["a"]);
    let client = world.begin("n");
    world.send_missing(&client, &content).unwrap();
    world.flush().unwrap();
    let old = world.index.copy();
    let first = world.commit_tree(&client, &content).unwrap();
    world.crash_over(old);
    world.wait(settle_once(&world.server));

    let refused = world.commit_tree(&client, &content).unwrap_err();

    assert!(matches!(refused, ServerError::Rests { code: "index_behind", .. }), "{refused:?}");
    assert_eq!(world.objects("snapshots"), [snapshot_object(&first).as_str()]);
}

/// G12: an audit tells it as well, and repairs nothing of it.
#[test]
fn an_audit_tells_of_snapshots_without_rows() {
    let old = PutBack::new();
    for repair in [Repair::No, Repair::Yes] {
        let report = old
            .world
            .wait(operation::run_unheard(&old.world.server, format_spec::wire::AuditRequest { repair }))
            .unwrap();
        assert_eq!((report.found, report.mended), (1, 0), "{report:?}");
        assert!(report.findings[0].problem.contains("older than the site"), "{report:?}");
    }
    assert_eq!(alarms(&old.world.store), ["index_behind"], "the counts of the old index fit each other");
}

/// G12: the alarm is up as long as what it tells of.
#[test]
fn the_alarm_goes_when_the_index_knows_everything_again() {
    let mut world = World::new();
    world.push("n", &tree(&["a"]));
    let (old, _) = (world.index.copy(), world.push("n", &tree(&["b"])));
    let right = world.index.copy();
    world.crash_over(old);
    assert_eq!(looked(&world).unwrap().count, 1);
    assert_eq!(alarms(&world.store), ["index_behind"]);
    // The row comes back as it was, and the alarm is in the index still.
    let rows = right.scan(Table::Snapshot, &KeyRange::all(), std::num::NonZeroUsize::MAX).unwrap().rows;
    let mut batch = Batch::new();
    for row in rows {
        batch.put(Table::Snapshot, row.key, row.value);
    }
    world.index.commit(batch).unwrap();

    assert_eq!((looked(&world), alarms(&world.store)), (None, vec![]));
}

/// Objects that no rebuild makes rows of would keep the alarm active forever.
#[test]
fn objects_that_are_no_snapshots_of_ours_raise_no_alarm() {
    let world = World::new();
    let id = world.push("n", &tree(&["a"]));
    let bytes = world.wait(world.site.get(&snapshot_object(&id))).unwrap();
    let other = SnapshotId::new(1, [2; 10]);
    let damaged = SnapshotId::new(1, [3; 10]);
    for (name, bytes) in [
        (snapshot_object(&other), bytes),
        (snapshot_object(&damaged), Bytes::from_static(b"not ours")),
        (ObjectName::new("snapshots/readme.txt").unwrap(), Bytes::from_static(b"by hand")),
    ] {
        world.wait(world.site.put_new(&name, bytes)).unwrap();
    }

    assert_eq!((looked(&world), alarms(&world.store)), (None, vec![]));
}

/// G12: what could not be compared is not collected by; a server starts all the same, for restores.
#[test]
fn a_site_that_cannot_be_listed_says_nothing_and_nothing_is_collected() {
    let site = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
    let world = World::on(Arc::<FaultySite>::clone(&site));
    world.forget(world.push("n", &tree(&["a"])));
    let before = objects(&world);
    for refused in 1..3 {
        let kind = FaultKind::Refuse(Refusal::Unavailable);
        site.arm(Fault { op: Some(Op::List), after: 0, kind });
        if refused == 1 {
            world.wait(settle_once(&world.server));
        } else {
            let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
            let failed = world.gc_as(request).unwrap_err();
            assert!(matches!(failed, ServerError::Site(_)), "{failed:?}");
        }
        assert_eq!(site.fired().len(), refused);
    }
    assert_eq!((objects(&world), alarms(&world.store)), (before, vec!["not_settled".to_owned()]));
    world.wait(settle_once(&world.server));
    assert_eq!(alarms(&world.store), Vec::<String>::new(), "the site can be listed again");
}

/// G12: a purged snapshot whose object somebody puts back is no sign of an index that has lost something.
#[test]
fn a_purged_snapshot_that_comes_back_is_left_alone() {
    let world = World::new();
    let gone = world.push("n", &tree(&["old"]));
    world.push("n", &tree(&["new"]));
    let name = snapshot_object(&gone);
    let copy = world.wait(world.site.get(&name)).unwrap();
    world.forget(gone);
    world.gc(Delays::Skip);
    world.wait(world.site.put_new(&name, copy)).unwrap();

    assert_eq!(looked(&world), None);

    assert_eq!(alarms(&world.store), Vec::<String>::new());
    world.gc(Delays::Skip);
    assert!(world.objects("snapshots").contains(&name.as_str().to_owned()), "it is not ours to delete");
    assert!(snapshot::get(&world.store, gone).is_err());
}
