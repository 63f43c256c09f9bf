//! Power cuts while an index is made, found and removed, with each sync left out in turn.

use super::*;
use crate::durable::shadow::{Names, ShadowDisk};

/// Files of the engine of these tests.
const FILES: [(&str, &str); 2] = [("data/journal", "rows"), ("data/tables/1", "more rows")];

fn fill(data: &Path) -> Result<(), OpenError> {
    let db = data.parent().unwrap();
    for (file, content) in FILES {
        let path = db.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    Ok(())
}

fn open(disk: &ShadowDisk, dir: &Path) -> Result<PathBuf, OpenError> {
    let folder = Folder::claim(Arc::new(disk.clone()), dir, Missing::Create)?;
    folder.database(Engine::Fjall, Missing::Create, fill)
}

/// Remains of the index in `dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Whole,
    Nothing,
    Part,
}

fn left(dir: &Path) -> Left {
    let db = dir.join(DATABASE);
    if !db.exists() {
        return Left::Nothing;
    }
    let marker = marker();
    let mut expected = FILES.to_vec();
    expected.push((MARKER, &marker));
    let is_whole =
        |(file, content): &(&str, &str)| fs::read_to_string(db.join(file)).is_ok_and(|c| c == *content);
    if expected.iter().all(is_whole) { Left::Whole } else { Left::Part }
}

/// Something that is done with an index below the folder, on the disk.
type Step = fn(&ShadowDisk, &Path) -> Result<(), OpenError>;

/// The first loss: what `done` left that it may not leave, wherever the power is cut. `prepare` is done before,
/// as by an earlier process.
fn first_loss(left_out: Option<usize>, prepare: Step, done: Step, acknowledged: Left) -> Option<String> {
    for stop in 0.. {
        let world = tempfile::tempdir().unwrap();
        let disk = ShadowDisk::new(left_out, Some(stop));
        let dir = world.path().join("machine");
        fs::create_dir(&dir).unwrap();
        disk.settle(&dir).unwrap();
        prepare(&disk, &dir).unwrap();
        let cut = |moment: &str, names| {
            let after = world.path().join(format!("{moment}-{names:?}"));
            disk.cut_power(&dir, &after, names).unwrap();
            left(&index_dir(&after))
        };
        let before = [Names::Synced, Names::All].map(|names| (names, cut("before", names)));
        let ended = done(&disk, &dir).is_ok();
        for (names, before) in before {
            let found = cut("after", names);
            if (found == Left::Part && before != Left::Part) || (ended && found != acknowledged) {
                return Some(format!("{found:?} after {:?}, {names:?}, ended: {ended}", disk.syncs()));
            }
        }
        if ended {
            return None;
        }
    }
    None
}

fn index_dir(dir: &Path) -> PathBuf {
    dir.join("data/index")
}

fn make(disk: &ShadowDisk, dir: &Path) -> Result<(), OpenError> {
    open(disk, &index_dir(dir)).map(drop)
}

/// Makes the folder above the index, durably.
fn settle_above(disk: &ShadowDisk, dir: &Path) {
    fs::create_dir(dir.join("data")).unwrap();
    disk.settle(dir).unwrap();
}

/// Makes a whole index, as a process does whose syncs all fail.
fn make_unsynced(dir: &Path) -> Result<(), OpenError> {
    let db = index_dir(dir).join(DATABASE);
    fill(&db.join(DATA))?;
    fs::write(db.join(MARKER), marker()).at(&db)
}

fn marker() -> String {
    format!("{MARKER_PREFIX}fjall\n")
}

/// Asserts that `done` leaves nothing half done, and that this is seen if any one of its syncs is left out.
fn each_sync_is_needed(prepare: Step, done: Step, acknowledged: Left) {
    assert_eq!(first_loss(None, prepare, done, acknowledged), None);
    let disk = ShadowDisk::default();
    let world = tempfile::tempdir().unwrap();
    prepare(&disk, world.path()).unwrap();
    done(&disk, world.path()).unwrap();

    let syncs = disk.syncs();

    assert!(!syncs.is_empty());
    for (number, path) in syncs.iter().enumerate() {
        let loss = first_loss(Some(number), prepare, done, acknowledged);
        assert!(
            loss.is_some(),
            "nothing is lost without the sync of {}, number {number} of {syncs:#?}",
            path.display()
        );
    }
}

/// X1, P5
#[test]
fn a_new_index_is_there_or_not_wherever_the_power_is_cut_and_needs_each_of_its_syncs() {
    let prepare: Step = |disk, dir| {
        settle_above(disk, dir);
        Ok(())
    };
    each_sync_is_needed(prepare, make, Left::Whole);
}

/// X1, P5: an earlier process may have ended before it synced the folder that it made.
#[test]
fn a_creation_that_goes_on_syncs_what_an_earlier_one_did_not() {
    let prepare: Step = |disk, dir| {
        settle_above(disk, dir);
        fs::create_dir_all(index_dir(dir).join(UNFINISHED)).at(dir)
    };
    each_sync_is_needed(prepare, make, Left::Whole);
}

/// X1, P5: an earlier process may have failed to sync anything of it, and have ended after its rename.
#[test]
fn an_index_that_is_found_is_synced_before_it_is_used() {
    let prepare: Step = |disk, dir| {
        settle_above(disk, dir);
        make_unsynced(dir)
    };
    each_sync_is_needed(prepare, make, Left::Whole);
}

const REMOVABLE: Step = |disk, dir| {
    make_unsynced(dir)?;
    disk.settle(dir).unwrap();
    Ok(())
};

fn remove(disk: &ShadowDisk, dir: &Path) -> Result<(), OpenError> {
    discard(Arc::new(disk.clone()), &index_dir(dir))
}

/// G11: a rebuild starts from nothing, not from some of the old index.
#[test]
fn an_index_that_was_removed_does_not_come_back() {
    each_sync_is_needed(REMOVABLE, remove, Left::Nothing);
}

/// G11: as long as a power cut may bring the old name back, all that is under it is there.
#[test]
fn nothing_of_an_index_is_removed_before_its_name_is_gone_for_good() {
    let world = tempfile::tempdir().unwrap();
    let disk = ShadowDisk::new(None, Some(0));
    REMOVABLE(&disk, world.path()).unwrap();

    remove(&disk, world.path()).unwrap_err();

    let dir = index_dir(world.path());
    assert_eq!(left(&dir), Left::Nothing);
    rename(&dir.join(UNFINISHED), &dir.join(DATABASE)).unwrap();
    assert_eq!(left(&dir), Left::Whole);
}
