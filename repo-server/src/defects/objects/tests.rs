use format_spec::wire::Delays;

use format_spec::ManifestId;

use super::*;
use crate::rows::PackNumber;
use crate::testing::{World, tree};

fn is_up(world: &World) -> bool {
    alarm::is_up(&world.store, AlarmCode::DamagedObjects).unwrap()
}

fn message(world: &World) -> String {
    crate::health::alarms(&world.store).unwrap().remove(0).message
}

fn manifest_of(world: &World, snapshot: SnapshotId) -> Object {
    Object::Manifest(crate::snapshot::get(&world.store, snapshot).unwrap().manifests[0].id)
}

#[test]
fn a_key_stands_for_its_object_and_no_other_key_does() {
    let objects = [
        Object::Snapshot(SnapshotId::from_bytes([1; 16])),
        Object::Manifest(ManifestId::from_bytes([2; 32])),
        Object::Pack(PackNumber(3)),
    ];
    for object in objects {
        let key = object.key();
        assert_eq!(Object::from_key(&key), Some(object));
        assert_eq!(Object::from_key(&key[..key.len() - 1]), None, "{object:?}");
    }
    assert_eq!(Object::from_key(b"damaged/x1234"), None);
    assert_eq!(Object::from_key(b"damaged_blobs"), None);
}

#[test]
fn the_alarm_is_up_until_the_last_one_is_sound() {
    let world = World::new();
    let snapshot = world.push("n", &tree(&["a"]));
    let (own, manifest) = (Object::Snapshot(snapshot), manifest_of(&world, snapshot));

    for object in [own, manifest, manifest] {
        note(&world.store, object, "is rotten").unwrap();
    }
    let found = crate::snapshot::get(&world.store, snapshot).unwrap();
    let known = all(&world.store).unwrap().against(&found);
    assert_eq!(known.unwrap(), "the manifest of node `n`: is rotten; its object: is rotten");
    assert!(message(&world).contains("1 manifests, 1 snapshot objects"), "{}", message(&world));

    clear(&world.store, manifest).unwrap();
    assert!(message(&world).contains("0 manifests, 1 snapshot objects"), "{}", message(&world));
    clear(&world.store, manifest).unwrap();
    assert!(is_up(&world));
    clear(&world.store, own).unwrap();

    assert!(!is_up(&world));
    assert!(all(&world.store).unwrap().against(&found).is_none());
}

#[test]
fn what_nothing_needs_is_not_remembered() {
    let world = World::new();
    let snapshot = world.push("n", &tree(&["a"]));
    let other = world.push("n", &tree(&["b"]));
    let gone = [Object::Snapshot(other), manifest_of(&world, other), Object::Pack(PackNumber(99))];
    world.forget(other);
    world.gc(Delays::Skip);

    for object in gone {
        note(&world.store, object, "is rotten").unwrap();
        assert!(!is_up(&world), "{object:?}");
    }
    note(&world.store, Object::Snapshot(snapshot), "is rotten").unwrap();
    assert!(is_up(&world));
}

/// Rows about a snapshot are deleted in the batch that purges it, and the alarm with them.
#[test]
fn what_is_said_of_a_snapshot_goes_with_it() {
    let world = World::new();
    let snapshot = world.push("n", &tree(&["a"]));
    let other = world.push("n", &tree(&["b"]));
    for object in [Object::Snapshot(snapshot), manifest_of(&world, snapshot), Object::Snapshot(other)] {
        note(&world.store, object, "is rotten").unwrap();
    }

    world.forget(snapshot);
    world.gc(Delays::Skip);
    let known = objects(&world.store).unwrap();
    assert_eq!(known.into_keys().collect::<Vec<_>>(), [Object::Snapshot(other)]);
    assert!(is_up(&world));
    world.forget(other);
    world.gc(Delays::Skip);

    assert!(!is_up(&world));
}

/// A server that knows nothing of these rows may have purged snapshots meanwhile.
#[test]
fn what_is_left_of_what_has_gone_is_tidied_away() {
    let world = World::new();
    let snapshot = world.push("n", &tree(&["a"]));
    let other = world.push("n", &tree(&["b"]));
    for object in [Object::Snapshot(snapshot), Object::Snapshot(other)] {
        note(&world.store, object, "is rotten").unwrap();
    }
    let take_out = |id: SnapshotId| {
        let mut batch = Batch::new();
        batch.delete(Table::Snapshot, *id.as_bytes());
        world.store.commit(batch).unwrap();
    };

    take_out(snapshot);
    let left = tidy(&world.store).unwrap();
    assert!(left.contains(Object::Snapshot(other)) && !left.contains(Object::Snapshot(snapshot)));
    assert!(is_up(&world));
    take_out(other);
    tidy(&world.store).unwrap();

    assert!(!is_up(&world) && objects(&world.store).unwrap().is_empty());
}

/// A snapshot is known to be hurt only while anything is in quarantine.
#[test]
fn files_that_cannot_be_restored_count_while_blobs_are_in_quarantine() {
    let world = World::new();
    let [hurt, whole] = ["a", "b"].map(|text| world.push("n", &tree(&[text])));
    let against = |id| {
        let found = crate::snapshot::get(&world.store, id).unwrap();
        all(&world.store).unwrap().against(&found)
    };
    note_hurt(&world.store, hurt, Some("files are lost".to_owned())).unwrap();
    assert_eq!(against(hurt), None);
    alarm::raise(&world.store, AlarmCode::DamagedBlobs, "a blob").unwrap();

    assert_eq!((against(hurt), against(whole)), (Some("files are lost".to_owned()), None));
    assert!(!is_up(&world), "that alarm is about objects");
    note_hurt(&world.store, hurt, None).unwrap();

    assert_eq!(against(hurt), None);
    note_hurt(&world.store, hurt, Some("files are lost".to_owned())).unwrap();
    world.forget(hurt);
    world.gc(Delays::Skip);
    assert!(all(&world.store).unwrap().hurt.is_empty(), "it goes with the snapshot");
    note_hurt(&world.store, hurt, Some("files are lost".to_owned())).unwrap();
    assert!(all(&world.store).unwrap().hurt.is_empty(), "nor does it come back");
}
