use std::sync::Arc;

use format_spec::wire::Delays;

use super::*;
use crate::rows::Health;
use crate::site::worn::WornSite;
use crate::testing::{World, tree};

/// A repository with some packs, on a disk that can be unmounted.
fn pushed(pushes: usize) -> (Arc<WornSite>, World, Vec<format_spec::SnapshotId>) {
    let site = WornSite::new();
    let world = World::on(Arc::<WornSite>::clone(&site));
    let snapshots = (0..pushes).map(|n| world.push("n", &tree(&[&format!("file {n}")]))).collect();
    (site, world, snapshots)
}

fn is_up(world: &World, code: AlarmCode) -> bool {
    alarm::is_up(&world.store, code).unwrap()
}

fn damaged(world: &World) -> usize {
    let rows = world.store.rows_of(&Named::read_all(&world.store)).unwrap();
    rows.values().filter(|row| row.health == Health::Damaged).count()
}

impl Named {
    fn read_all(store: &Store) -> HashSet<PackNumber> {
        let mut all = HashSet::new();
        store
            .for_each_pack(|number, _| {
                all.insert(number);
            })
            .unwrap();
        all
    }
}

fn lose(world: &World, packs: usize) {
    for name in world.objects("packs").into_iter().take(packs) {
        world.wait(world.site.delete(&ObjectName::new(&name).unwrap())).unwrap();
    }
}

/// G13: a site without its disk takes no push, and loses nothing by that; when the disk is back, all is as before.
#[test]
fn a_site_that_is_not_mounted_takes_no_push_and_loses_nothing() {
    let (site, mut world, snapshots) = pushed(2);
    site.set_bare(true);
    world.crash();

    world.wait(take(&world.store)).unwrap();

    assert!(is_up(&world, AlarmCode::SiteIncomplete) && !is_up(&world, AlarmCode::DamagedBlobs));
    let refused = world.begin_after("n", None).unwrap_err();
    assert!(matches!(refused, ServerError::Rests { code: "site_incomplete", .. }), "{refused}");
    let refused = world.gc_as(format_spec::wire::GcRequest::default()).unwrap_err();
    assert!(matches!(refused, ServerError::Refused { code: "site_incomplete", .. }), "{refused}");
    let refused = world.wait(accept(&world.store)).unwrap_err();
    assert!(
        matches!(refused, ServerError::Refused { code: "site_incomplete", .. }),
        "there is no site to accept: {refused}"
    );
    site.set_bare(false);
    world.wait(look_again(&world.store)).unwrap();
    assert!(!is_up(&world, AlarmCode::SiteIncomplete));
    assert_eq!(damaged(&world), 0);
    world.begin_after("n", None).unwrap();
    for snapshot in snapshots {
        world.read(snapshot).unwrap();
    }
}

/// G13: the same holds for a site of which most packs are gone, until an operator says that they are lost; then
/// pushes send all of it again.
#[test]
fn most_packs_are_lost_only_on_an_operators_word() {
    let (_, mut world, snapshots) = pushed(3);
    lose(&world, 4);

    world.wait(take(&world.store)).unwrap();

    assert!(is_up(&world, AlarmCode::SiteIncomplete));
    assert_eq!(damaged(&world), 0);
    world.begin_after("n", None).unwrap_err();
    assert_eq!(world.wait(accept(&world.store)).unwrap(), 4);
    assert!(!is_up(&world, AlarmCode::SiteIncomplete) && is_up(&world, AlarmCode::DamagedBlobs));
    world.crash();
    world.wait(take(&world.store)).unwrap();
    assert!(!is_up(&world, AlarmCode::SiteIncomplete), "what is known to be lost is not counted again");
    for n in 0..3 {
        world.push("n", &tree(&[&format!("file {n}")]));
    }
    for snapshot in snapshots {
        world.read(snapshot).unwrap();
    }
    assert!(!is_up(&world, AlarmCode::DamagedBlobs));
}

/// G10: a few missing packs are damage, which the start finds without reading any.
#[test]
fn a_few_missing_packs_are_damage() {
    let (_, world, _) = pushed(3);
    lose(&world, 2);

    assert_eq!(world.wait(take(&world.store)).unwrap(), 2);

    assert!(is_up(&world, AlarmCode::DamagedBlobs) && !is_up(&world, AlarmCode::SiteIncomplete));
    world.begin_after("n", None).unwrap();
}

/// The twin: a whole site, also beside the collector's work, counts as whole.
#[test]
fn a_whole_site_raises_nothing() {
    let (_, world, snapshots) = pushed(3);
    world.forget(snapshots[0]);
    world.gc(Delays::Skip);

    assert_eq!(world.wait(take(&world.store)).unwrap(), 0);

    assert!(crate::health::alarms(&world.store).unwrap().is_empty());
}

/// P2: a missing manifest is remembered at the start, and so is the missing object of a snapshot, without which no
/// rebuild would find it.
#[test]
fn a_missing_manifest_or_snapshot_is_damage() {
    for area in ["manifests", "snapshots"] {
        let (_, world, snapshots) = pushed(2);
        let name = world.objects(area).remove(0);
        world.wait(world.site.delete(&ObjectName::new(&name).unwrap())).unwrap();

        world.wait(take(&world.store)).unwrap();

        assert!(is_up(&world, AlarmCode::DamagedObjects), "{area}");
        let known = objects::all(&world.store).unwrap();
        let hurt = snapshots.iter().filter(|id| {
            let snapshot = crate::snapshot::get(&world.store, **id).unwrap();
            known.against(&snapshot).is_some()
        });
        assert_eq!(hurt.count(), 1, "{area}");
    }
}

/// X2: wherever a crash cuts the count, the next one finds the same.
#[test]
fn a_count_that_is_cut_is_made_again() {
    for cut in 0.. {
        let (_, mut world, _) = pushed(3);
        lose(&world, 2);
        let name = world.objects("manifests").remove(0);
        world.wait(world.site.delete(&ObjectName::new(&name).unwrap())).unwrap();
        let before = world.index.commits();
        world.index.fail_after(cut);
        world.wait(take(&world.store)).unwrap();
        let is_through = world.index.commits() - before <= cut;
        world.index.heal();
        world.crash();

        world.wait(take(&world.store)).unwrap();

        assert_eq!(damaged(&world), 2, "cut after {cut}");
        assert!(is_up(&world, AlarmCode::DamagedBlobs) && is_up(&world, AlarmCode::DamagedObjects));
        if is_through {
            assert!(cut >= 2, "the count no longer writes blobs and objects");
            return;
        }
    }
}
