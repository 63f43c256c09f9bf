use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::index::{Batch, Index, IndexError, KeyRange, MemoryIndex, Rows, Table};
use crate::settings::{Amount, SpaceSettings};
use crate::space::*;
use crate::store::Parts;

/// A disk that has what it is told to have.
#[derive(Clone, Default)]
struct FakeVolume {
    free_bytes: Arc<AtomicU64>,
    total_bytes: u64,
    free_files: Arc<AtomicU64>,
    total_files: u64,
    is_gone: Arc<AtomicBool>,
}

impl FakeVolume {
    fn new(total_bytes: u64, free_bytes: u64) -> Self {
        Self { total_bytes, free_bytes: Arc::new(AtomicU64::new(free_bytes)), ..Self::default() }
    }

    fn set_free(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Volume for FakeVolume {
    fn room(&self) -> io::Result<Room> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Room {
            free_files: self.free_files.load(Ordering::Relaxed),
            total_files: self.total_files,
            ..Room::of_bytes(self.free_bytes.load(Ordering::Relaxed), self.total_bytes)
        })
    }
}

const NOTHING: SpaceSettings = SpaceSettings { ballast: Amount::Bytes(0), refuse_below: Amount::Bytes(0) };

/// A repository in memory, whose data folder is on a fake disk.
struct World {
    folder: tempfile::TempDir,
    volume: FakeVolume,
    store: Arc<Store>,
}

impl World {
    fn new(volume: FakeVolume, settings: SpaceSettings) -> Self {
        Self::over(MemoryIndex::new(), volume, settings)
    }

    fn over(index: impl Index + 'static, volume: FakeVolume, settings: SpaceSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::on(Box::new(volume.clone()), folder.path(), settings);
        let store = Parts::default().over(index).with_space(space).start();
        Self { folder, volume, store }
    }

    fn admit(&self, expected_bytes: Option<u64>) -> Result<(), String> {
        match admit(&self.store, expected_bytes) {
            Ok(()) => Ok(()),
            Err(error @ ServerError::Full { .. }) => Err(error.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn is_up(&self) -> bool {
        alarm::is_up(&self.store, AlarmCode::LowSpace).unwrap()
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join(BALLAST)
    }

    /// How much of the real disk the ballast takes.
    fn allocated(&self) -> u64 {
        std::fs::metadata(self.ballast()).map_or(0, |found| found.blocks() * 512)
    }
}

fn refusing(refuse_below: u64) -> SpaceSettings {
    SpaceSettings { refuse_below: Amount::Bytes(refuse_below), ..NOTHING }
}

fn holding(ballast: u64) -> SpaceSettings {
    SpaceSettings { ballast: Amount::Bytes(ballast), ..NOTHING }
}

#[test]
fn without_a_word_the_marks_go_by_the_size_of_the_disk() {
    let space = Space::of(Path::new("/"), SpaceSettings::default());
    let space = &space.disks[0];
    let marks = |total_bytes: u64| {
        let room = Room::of_bytes(total_bytes, total_bytes);
        (space.refuse_below(room) / MIB, space.ballast_len(room, 0) / MIB)
    };

    for (total, refuse_mib, ballast_mib) in [
        (0, 192, 0),
        (200 * MIB, 192, 8),
        (GIB, 192, 102),
        (4 * GIB, 204, 192),
        (50 * GIB, 2560, 512),
        (10_000 * GIB, 8192, 1024),
    ] {
        assert_eq!(marks(total), (refuse_mib, ballast_mib), "{total}");
    }
}

#[test]
fn a_push_is_refused_below_the_mark_with_the_folder_the_figures_and_the_way_out() {
    let world = World::new(FakeVolume::new(GIB, 100 * MIB), refusing(100 * MIB));
    assert_eq!(world.admit(None), Ok(()));
    assert!(!world.is_up());

    world.volume.set_free(100 * MIB - 1);
    let refused = world.admit(None).unwrap_err();

    let folder = world.folder.path().display().to_string();
    for part in [folder.as_str(), "99 MiB free", "100 MiB", "astacus-admin forget", "astacus-admin gc --now"]
    {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(world.is_up());
    world.volume.set_free(100 * MIB);
    assert_eq!(world.admit(None), Ok(()));
    assert!(!world.is_up(), "the alarm goes with its cause");
}

#[test]
fn a_push_that_tells_its_size_is_refused_if_it_does_not_fit_above_the_mark() {
    let world = World::new(FakeVolume::new(GIB, 300 * MIB), refusing(100 * MIB));

    assert_eq!(world.admit(Some(200 * MIB)), Ok(()));
    let refused = world.admit(Some(200 * MIB + 1)).unwrap_err();

    assert!(refused.contains("expects to send 200 MiB"), "{refused}");
    assert!(!world.is_up(), "smaller pushes have room");
}

#[test]
fn a_disk_that_does_not_tell_refuses_nobody_and_keeps_the_ballast() {
    let settings = SpaceSettings { refuse_below: Amount::Bytes(GIB), ballast: Amount::Bytes(MIB) };
    let world = World::new(FakeVolume::new(GIB, 0), settings);
    std::fs::write(world.ballast(), [1]).unwrap();
    world.volume.is_gone.store(true, Ordering::Relaxed);

    assert_eq!(world.admit(Some(GIB)), Ok(()));
    assert_eq!(look(&world.store).unwrap(), Level::Enough);
    assert_eq!(release_ballast(&world.store).unwrap(), 0);
    assert_eq!(restore_ballast(&world.store), 1);
}

/// An index that takes no batch.
#[derive(Debug)]
struct FullIndex;

impl Index for FullIndex {
    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(None)
    }

    fn multi_get(&self, _: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        Ok(vec![None; keys.len()])
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        limit: std::num::NonZeroUsize,
    ) -> Result<Rows, IndexError> {
        MemoryIndex::new().scan(table, range, limit)
    }

    fn commit(&self, _: Batch) -> Result<(), IndexError> {
        Err(IndexError::Full { free_bytes: 0, reserve_bytes: 1 })
    }
}

#[test]
fn where_not_even_the_alarm_can_be_written_pushes_are_refused_with_the_reason_all_the_same() {
    let world = World::over(FullIndex, FakeVolume::new(GIB, 0), refusing(MIB));

    assert_eq!(look(&world.store).unwrap(), Level::Low);
    let refused = world.admit(None).unwrap_err();

    assert!(refused.contains("0 MiB free"), "{refused}");
    let told = low_now(&world.store).unwrap();
    assert!(told.contains("less than 1 MiB free"), "{told}");
    world.volume.set_free(GIB);
    assert_eq!(low_now(&world.store), None);
}

#[test]
fn the_ballast_is_really_allocated_and_is_given_up_and_made_again() {
    let world = World::new(FakeVolume::new(GIB, GIB), holding(3 * MIB));
    assert_eq!(restore_ballast(&world.store), 3 * MIB);
    assert!(world.allocated() >= 3 * MIB, "{}", world.allocated());
    assert_eq!(release_ballast(&world.store).unwrap(), 0, "there is room");

    world.volume.set_free(COLLECTOR_ROOM - 1);
    assert_eq!(release_ballast(&world.store).unwrap(), 3 * MIB);
    assert!(!world.ballast().exists());
    assert_eq!(release_ballast(&world.store).unwrap(), 0, "it is gone already");

    world.volume.set_free(GIB);
    assert_eq!(restore_ballast(&world.store), 3 * MIB);
    assert!(world.allocated() >= 3 * MIB);
}

#[test]
fn the_ballast_takes_a_tenth_of_what_is_free_and_no_room_that_pushes_need() {
    let len = |free_mib: u64, settings: SpaceSettings| {
        let world = World::new(FakeVolume::new(GIB, free_mib * MIB), settings);
        restore_ballast(&world.store) / MIB
    };

    assert_eq!(len(50, holding(8 * MIB)), 5);
    assert_eq!(len(100, holding(8 * MIB)), 8);
    let pushes_need = |mib: u64| SpaceSettings { refuse_below: Amount::Bytes(mib * MIB), ..holding(8 * MIB) };
    assert_eq!(len(100, pushes_need(90)), 8);
    assert_eq!(len(100, pushes_need(98)), 2);
    assert_eq!(len(100, pushes_need(101)), 0);
    assert_eq!(len(100, NOTHING), 0);
}

#[test]
fn a_ballast_grows_with_the_room_and_shrinks_only_when_less_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let held = |free_mib: u64, ballast_mib: u64| {
        let volume = FakeVolume::new(GIB, free_mib * MIB);
        let space = Space::on(Box::new(volume), folder.path(), holding(ballast_mib * MIB));
        restore_ballast(&Parts::default().with_space(space).start()) / MIB
    };

    assert_eq!(held(20, 4), 2);
    assert_eq!(held(38, 4), 4, "what it holds is room that it may have");
    assert_eq!(held(0, 4), 4, "little room is what it is held for");
    assert_eq!(held(0, 1), 1);
    assert_eq!(held(500, 0), 0);
    assert!(!folder.path().join(BALLAST).exists());
}

/// A site on another disk has marks and a ballast of its own, and what is refused names it.
#[test]
fn a_full_disk_of_the_site_refuses_pushes_and_gives_its_ballast_to_the_collector() {
    let (folder, site) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (own, far) = (FakeVolume::new(GIB, GIB), FakeVolume::new(GIB, GIB));
    let settings = SpaceSettings { refuse_below: Amount::Bytes(100 * MIB), ballast: Amount::Bytes(3 * MIB) };
    let space = Space::on(Box::new(own.clone()), folder.path(), settings);
    let space = space.and(Box::new(far.clone()), site.path());
    let store = Parts::default().with_space(space).start();
    assert_eq!(restore_ballast(&store), 6 * MIB);
    admit(&store, None).unwrap();

    far.set_free(99 * MIB);
    let refused = admit(&store, None).unwrap_err().to_string();

    for part in [&*site.path().display().to_string(), "99 MiB free", "astacus-admin gc --now"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(alarm::message(&store, AlarmCode::LowSpace).unwrap().is_some());
    assert_eq!(release_ballast(&store).unwrap(), 3 * MIB);
    assert!(!site.path().join(BALLAST).exists() && folder.path().join(BALLAST).exists());
    far.set_free(GIB);
    admit(&store, None).unwrap();
    assert!(alarm::message(&store, AlarmCode::LowSpace).unwrap().is_none());
    let refused = admit(&store, Some(GIB)).unwrap_err().to_string();
    assert!(refused.contains("expects to send 1024 MiB"), "{refused}");
}

/// A disk that can take hardly any more files is as full as one without bytes.
#[test]
fn a_disk_without_room_for_files_refuses_pushes() {
    let volume = FakeVolume { total_files: 100_000, ..FakeVolume::new(GIB, GIB) };
    let world = World::new(volume, NOTHING);
    world.volume.free_files.store(1000, Ordering::Relaxed);
    assert_eq!(world.admit(None), Ok(()));

    world.volume.free_files.store(999, Ordering::Relaxed);

    let refused = world.admit(None).unwrap_err();
    assert!(refused.contains("room for 999 more files, and 1000 are reserved"), "{refused}");
    assert!(world.is_up());
    world.volume.free_files.store(1000, Ordering::Relaxed);
    assert_eq!(world.admit(None), Ok(()));
    assert!(!world.is_up());
}

#[test]
fn a_name_that_is_taken_by_something_else_is_left_alone() {
    let world = World::new(FakeVolume::new(GIB, GIB), holding(MIB));
    std::fs::create_dir(world.ballast()).unwrap();

    assert_eq!(restore_ballast(&world.store), 0);
    world.volume.set_free(0);
    assert_eq!(release_ballast(&world.store).unwrap(), 0);

    assert!(world.ballast().is_dir());
    std::fs::remove_dir(world.ballast()).unwrap();
    std::os::unix::fs::symlink("elsewhere", world.ballast()).unwrap();
    world.volume.set_free(GIB);
    assert_eq!(restore_ballast(&world.store), 0);
    assert!(!world.folder.path().join("elsewhere").exists());
}

#[test]
fn where_room_cannot_be_taken_in_one_step_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.set_len(MIB).unwrap();

    allocate(&mut file, MIB, 3 * MIB + 7, Allocate::ByWriting).unwrap();

    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(found.len(), 3 * MIB + 7);
    assert!((2 * MIB..3 * MIB).contains(&(found.blocks() * 512)), "{}", found.blocks());
}
