//! The publish path cut at every step.

use std::path::{Path, PathBuf};

use super::super::sim::{Lie, SimDisk, SimFault, Survivors};
use super::super::{Disk, DurableError, FileName, Published, Removed, Step, TEMPORARY_PREFIX};
use super::super::{make_folder, publish, remove, replace, sweep_temporaries};

/// Long enough for several writes and several sectors of the model.
const CONTENT: &[u8] = b"the content of a pack, in several pieces";

/// Loss that a checker found after a cut.
#[derive(Debug, PartialEq, Eq)]
enum Loss {
    /// An acknowledged file is not there.
    Missing,
    /// A final name holds something else than the whole content.
    Torn,
    /// An operation that must work after the cut did not.
    Stuck,
    /// A temporary file is left after the sweep.
    Leftover,
}

/// One way to break one run.
#[derive(Debug, Clone, Copy)]
struct Break {
    /// The process stops before this step.
    at: usize,
    /// State after the power cut; `None`: the machine stays up.
    power: Option<Survivors>,
}

fn root() -> PathBuf {
    PathBuf::from("/repo")
}

fn dir() -> PathBuf {
    root().join("packs")
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

/// The operation under test: a new folder, and a file in it.
fn publish_in_new_folder(disk: &SimDisk) -> Result<Published, DurableError> {
    make_folder(disk, &root(), &name("packs"))?;
    publish(disk, &dir(), &name("p1"), CONTENT)
}

/// A disk, perhaps a lying one, that takes little with each write.
fn disk(lie: Option<Lie>) -> SimDisk {
    let disk = SimDisk::with_folder(&root());
    disk.limit_writes(16);
    if let Some(lie) = lie {
        disk.tell_lies(lie);
    }
    disk
}

fn steps_of<T>(run: impl FnOnce(&SimDisk) -> Result<T, DurableError>) -> usize {
    let disk = disk(None);
    run(&disk).unwrap();
    disk.steps().len()
}

fn every_break(steps: usize) -> impl Iterator<Item = Break> {
    let powers = [Survivors::Synced, Survivors::Names, Survivors::Everything]
        .into_iter()
        .chain((0..200).map(Survivors::Seeded))
        .map(Some)
        .chain([None])
        .collect::<Vec<_>>();
    // At `steps` itself nothing is left to stop: the power goes after the acknowledgement.
    (0..=steps).flat_map(move |at| powers.clone().into_iter().map(move |power| Break { at, power }))
}

fn apply(disk: &SimDisk, broken: Break) {
    match broken.power {
        Some(survivors) => disk.cut_power(survivors),
        None => disk.restart_process(),
    }
}

/// After a break: the name is absent or whole, what was acknowledged is there, leftovers go, and a
/// retry succeeds and holds through one more power cut.
fn check(disk: &SimDisk, broken: Break, acknowledged: bool) -> Result<(), Loss> {
    apply(disk, broken);
    let path = dir().join("p1");
    expect_whole_or_absent(disk, &path)?;
    if acknowledged && disk.peek(&path).is_none() {
        return Err(Loss::Missing);
    }
    if !disk.peek_names(&root()).is_empty() {
        sweep_temporaries(disk, &dir()).map_err(|_| Loss::Stuck)?;
    }
    if disk.peek_names(&dir()).iter().any(|name| name.starts_with(TEMPORARY_PREFIX)) {
        return Err(Loss::Leftover);
    }
    publish_in_new_folder(disk).map_err(|_| Loss::Stuck)?;
    disk.cut_power(Survivors::Synced);
    expect_whole_or_absent(disk, &path)?;
    disk.peek(&path).map(drop).ok_or(Loss::Missing)
}

fn expect_whole_or_absent(disk: &SimDisk, path: &Path) -> Result<(), Loss> {
    match disk.peek(path) {
        Some(found) if found != CONTENT => Err(Loss::Torn),
        _ => Ok(()),
    }
}

/// Runs the operation once for every break; returns the first loss.
fn first_loss(lie: Option<Lie>) -> Option<(Break, Loss)> {
    let steps = steps_of(publish_in_new_folder);
    assert!(steps >= 11, "the operation no longer reaches mkdir, writes, rename and all syncs: {steps}");
    every_break(steps).find_map(|broken| {
        let disk = disk(lie);
        disk.arm(broken.at, SimFault::Stop);
        let acknowledged = publish_in_new_folder(&disk).is_ok();
        check(&disk, broken, acknowledged).err().map(|loss| (broken, loss))
    })
}

/// P5: an acknowledged file survives, an unacknowledged one is absent or whole.
#[test]
fn publishing_loses_and_tears_nothing_wherever_it_is_cut() {
    assert_eq!(first_loss(None).map(|(broken, loss)| format!("{loss:?} after {broken:?}")), None);
}

#[test]
fn the_checker_sees_a_disk_that_does_not_sync_files() {
    let (_, loss) = first_loss(Some(Lie::FileSync)).expect("the checker bites");

    assert_eq!(loss, Loss::Torn);
}

#[test]
fn the_checker_sees_a_disk_that_does_not_sync_folders() {
    let (_, loss) = first_loss(Some(Lie::FolderSync)).expect("the checker bites");

    assert_eq!(loss, Loss::Missing);
}

/// The numbers and kinds of the steps of `run` that are syncs.
fn syncs_of(prepare: impl Fn(&SimDisk), run: impl Fn(&SimDisk)) -> Vec<(usize, Step)> {
    let disk = disk(None);
    prepare(&disk);
    let before = disk.steps().len();
    run(&disk);
    let is_sync = |step: &Step| matches!(step, Step::SyncTemporary | Step::SyncFile | Step::SyncFolder);
    disk.steps().into_iter().enumerate().skip(before).filter(|(_, step)| is_sync(step)).collect()
}

/// Each sync of a new folder and a file in it, left out alone, is noticed.
#[test]
fn the_checker_sees_each_sync_of_a_publish_that_is_left_out() {
    let syncs = syncs_of(|_| (), |disk| _ = publish_in_new_folder(disk).unwrap());
    let kinds: Vec<Step> = syncs.iter().map(|(_, step)| *step).collect();
    assert_eq!(kinds, [Step::SyncFolder, Step::SyncTemporary, Step::SyncFolder]);

    let losses = syncs.iter().map(|(at, _)| first_loss(Some(Lie::SyncAt(*at))).map(|(_, loss)| loss));

    let expected = [Some(Loss::Missing), Some(Loss::Torn), Some(Loss::Missing)];
    assert_eq!(losses.collect::<Vec<_>>(), expected);
}

/// Publishes a file as a tool that syncs nothing does.
fn copy_unsynced(disk: &SimDisk) {
    let folder = disk.open_folder(&root()).unwrap();
    let (temporary, mut file) = folder.create_temporary().unwrap();
    for piece in CONTENT.chunks(16) {
        assert_eq!(file.write(piece).unwrap(), piece.len());
    }
    folder.rename_new(&temporary, &name("p1")).unwrap();
}

/// Each sync of a publish that finds its file in place, left out alone, is noticed.
#[test]
fn the_checker_sees_each_sync_of_a_file_in_place_that_is_left_out() {
    let publish_again = |disk: &SimDisk| _ = publish(disk, &root(), &name("p1"), CONTENT).unwrap();
    let left = |lie: Option<Lie>| {
        let disk = disk(lie);
        copy_unsynced(&disk);
        publish_again(&disk);
        disk.cut_power(Survivors::Synced);
        disk.peek(&root().join("p1"))
    };
    let in_place = |(at, step): (usize, Step)| (step != Step::SyncTemporary).then_some(at);
    let syncs: Vec<usize> = syncs_of(copy_unsynced, publish_again).into_iter().filter_map(in_place).collect();

    let found: Vec<_> = syncs.into_iter().map(|at| left(Some(Lie::SyncAt(at)))).collect();

    assert_eq!(found, [Some(Vec::new()), None], "the file's sync, and the folder's");
    assert_eq!(left(None).as_deref(), Some(CONTENT));
}

/// The sync of a removal, left out, is noticed.
#[test]
fn the_checker_sees_the_sync_of_a_removal_that_is_left_out() {
    let prepare = |disk: &SimDisk| _ = publish_in_new_folder(disk).unwrap();
    let take = |disk: &SimDisk| assert_eq!(remove(disk, &dir(), &name("p1")).unwrap(), Removed::Now);
    let syncs = syncs_of(prepare, take);
    let &[(at, Step::SyncFolder)] = &syncs[..] else { panic!("not one sync: {syncs:?}") };

    for (lie, expected) in [(None, None), (Some(Lie::SyncAt(at)), Some(CONTENT))] {
        let disk = disk(lie);
        prepare(&disk);
        take(&disk);
        disk.cut_power(Survivors::Synced);
        assert_eq!(disk.peek(&dir().join("p1")).as_deref(), expected, "{lie:?}");
    }
}

/// P5: a file that is replaced holds its old or its new content, whole, wherever the replacement is cut.
#[test]
fn a_replacement_leaves_the_old_content_or_the_new_wherever_it_is_cut() {
    let setup = |lie: Option<Lie>| {
        let disk = disk(lie);
        publish(&disk, &root(), &name("p1"), b"old").unwrap();
        let before = disk.steps().len();
        (disk, before)
    };
    let (whole, before) = setup(None);
    replace(&whole, &root(), &name("p1"), CONTENT).unwrap();
    let steps = whole.steps().len() - before;
    for broken in every_break(steps) {
        let (disk, _) = setup(None);
        disk.arm(broken.at, SimFault::Stop);
        let is_acknowledged = replace(&disk, &root(), &name("p1"), CONTENT).is_ok();
        apply(&disk, broken);

        let found = disk.peek(&root().join("p1")).expect("a name that was there stays");

        assert!(found == CONTENT || (found == b"old" && !is_acknowledged), "{broken:?}: {found:?}");
    }
    for sync in [Step::SyncTemporary, Step::SyncFolder] {
        let at = before + whole.steps().iter().skip(before).position(|step| *step == sync).unwrap();
        let (disk, _) = setup(Some(Lie::SyncAt(at)));
        replace(&disk, &root(), &name("p1"), CONTENT).unwrap();
        disk.cut_power(Survivors::Synced);
        assert_ne!(disk.peek(&root().join("p1")).unwrap(), CONTENT, "{sync:?} left out is noticed");
    }
}

/// The first publisher dies after its rename; the second one finds the file and must not say that it
/// is durable before it is.
#[test]
fn a_file_found_in_place_is_durable_before_it_is_acknowledged() {
    let disk = disk(None);
    make_folder(&disk, &root(), &name("packs")).unwrap();
    let before_folder_sync =
        steps_of(publish_in_new_folder) - steps_of(|disk| make_folder(disk, &root(), &name("packs"))) - 1;
    disk.arm(before_folder_sync, SimFault::Stop);
    publish(&disk, &dir(), &name("p1"), CONTENT).unwrap_err();
    disk.restart_process();

    let second = publish(&disk, &dir(), &name("p1"), CONTENT).unwrap();
    disk.cut_power(Survivors::Synced);

    assert_eq!(second, Published::AlreadyThere);
    assert_eq!(disk.peek(&dir().join("p1")).as_deref(), Some(CONTENT));
}

/// A copy of the repository may have been made by a tool that syncs nothing.
#[test]
fn a_file_that_nobody_synced_is_synced_before_it_is_acknowledged() {
    let disk = disk(None);
    copy_unsynced(&disk);

    assert_eq!(publish(&disk, &root(), &name("p1"), CONTENT).unwrap(), Published::AlreadyThere);
    disk.cut_power(Survivors::Synced);

    assert_eq!(disk.peek(&root().join("p1")).as_deref(), Some(CONTENT));
}

/// The first process dies after it made the folder.
#[test]
fn a_folder_found_in_place_is_durable_before_it_is_acknowledged() {
    let disk = disk(None);
    disk.arm(2, SimFault::Stop);
    make_folder(&disk, &root(), &name("packs")).unwrap_err();
    disk.restart_process();
    assert_eq!(disk.peek_names(&root()), ["packs"]);

    make_folder(&disk, &root(), &name("packs")).unwrap();
    disk.cut_power(Survivors::Synced);

    assert_eq!(disk.peek_names(&root()), ["packs"]);
}

#[test]
fn other_content_under_the_same_name_is_refused_and_leaves_no_trace() {
    let disk = disk(None);
    publish_in_new_folder(&disk).unwrap();

    for other in [&b""[..], &CONTENT[1..], &CONTENT[..CONTENT.len() - 1], &[CONTENT, b"!"].concat()] {
        let refused = publish(&disk, &dir(), &name("p1"), other).unwrap_err();
        assert!(matches!(refused, DurableError::Differs { .. }), "{refused:?}");
    }
    disk.cut_power(Survivors::Synced);

    assert_eq!(disk.peek_names(&dir()), ["p1"]);
    assert_eq!(disk.peek(&dir().join("p1")).as_deref(), Some(CONTENT));
}

#[test]
fn a_removed_file_stays_removed_wherever_the_removal_is_cut() {
    let setup = || {
        let disk = disk(None);
        publish_in_new_folder(&disk).unwrap();
        disk
    };
    for broken in every_break(3) {
        let disk = setup();
        disk.arm(broken.at, SimFault::Stop);
        let first = remove(&disk, &dir(), &name("p1"));
        apply(&disk, broken);
        if first.is_ok() {
            assert_eq!(disk.peek(&dir().join("p1")), None, "{broken:?}");
        }

        remove(&disk, &dir(), &name("p1")).unwrap();
        disk.cut_power(Survivors::Synced);

        assert_eq!(disk.peek(&dir().join("p1")), None, "{broken:?}");
    }
    assert_eq!(remove(&setup(), &dir(), &name("p2")).unwrap(), Removed::Before);
    assert_eq!(remove(&setup(), Path::new("/repo/none"), &name("p2")).unwrap(), Removed::Before);
}

#[test]
fn the_sweep_takes_temporaries_and_nothing_else() {
    let disk = disk(None);
    publish_in_new_folder(&disk).unwrap();
    disk.arm(4, SimFault::Stop);
    publish(&disk, &dir(), &name("p2"), CONTENT).unwrap_err();
    disk.restart_process();
    assert_eq!(disk.peek_names(&dir()).len(), 2, "the test leaves no temporary to sweep");

    assert_eq!(sweep_temporaries(&disk, &dir()).unwrap(), 1);

    assert_eq!(disk.peek_names(&dir()), ["p1"]);
}
