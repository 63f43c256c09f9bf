//! The durable operations with an error at every step.

use std::path::PathBuf;

use super::super::sim::{SimDisk, SimFault, Survivors};
use super::super::{Disk, DurableError, FileName, Published, Step, make_folder, publish, remove};

const CONTENT: &[u8] = b"the content of a manifest, in several pieces";

fn dir() -> PathBuf {
    PathBuf::from("/repo")
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn disk() -> SimDisk {
    let disk = SimDisk::with_folder(&dir());
    disk.limit_writes(16);
    disk
}

/// Calls `test` with a disk and a fault armed at each step that `run` takes in turn.
fn at_every_step(
    prepare: impl Fn(&SimDisk),
    run: impl Fn(&SimDisk) -> Result<(), DurableError>,
    fault: SimFault,
    test: impl Fn(&SimDisk, Step, Result<(), DurableError>),
) {
    let fresh = || {
        let disk = disk();
        prepare(&disk);
        disk
    };
    let whole = fresh();
    let before = whole.steps().len();
    run(&whole).unwrap();
    let steps = whole.steps().split_off(before);
    for (number, step) in steps.into_iter().enumerate() {
        let disk = fresh();
        disk.arm(number, fault);
        let outcome = run(&disk);
        test(&disk, step, outcome);
    }
}

fn publish_p1(disk: &SimDisk) -> Result<(), DurableError> {
    publish(disk, &dir(), &name("p1"), CONTENT).map(drop)
}

/// P8: after an I/O error nothing is acknowledged and the process must end.
#[test]
fn an_io_error_at_any_step_of_a_publish_is_fatal() {
    at_every_step(
        |_| (),
        publish_p1,
        SimFault::InputOutput,
        |disk, step, outcome| {
            let error = outcome.expect_err("an operation that failed was acknowledged");
            assert!(error.is_fatal(), "{step:?}: {error:?}");

            disk.cut_power(Survivors::Everything);
            assert!(disk.peek(&dir().join("p1")).is_none_or(|found| found == CONTENT), "{step:?}");
            publish_p1(disk).expect("works again once the disk is well");
        },
    );
}

#[test]
fn an_io_error_while_confirming_a_file_in_place_is_fatal() {
    let prepare = |disk: &SimDisk| publish_p1(disk).unwrap();
    at_every_step(prepare, publish_p1, SimFault::InputOutput, |disk, step, outcome| {
        assert!(outcome.expect_err("acknowledged").is_fatal(), "{step:?}");
        disk.cut_power(Survivors::Synced);
        assert_eq!(disk.peek(&dir().join("p1")).as_deref(), Some(CONTENT), "{step:?}");
    });
}

#[test]
fn an_io_error_while_making_a_folder_or_removing_a_file_is_fatal() {
    let prepare = |disk: &SimDisk| publish_p1(disk).unwrap();
    let make = |disk: &SimDisk| make_folder(disk, &dir(), &name("packs"));
    let take = |disk: &SimDisk| remove(disk, &dir(), &name("p1")).map(drop);
    at_every_step(prepare, make, SimFault::InputOutput, |_, step, outcome| {
        assert!(outcome.expect_err("acknowledged").is_fatal(), "{step:?}");
    });
    at_every_step(prepare, take, SimFault::InputOutput, |_, step, outcome| {
        assert!(outcome.expect_err("acknowledged").is_fatal(), "{step:?}");
    });
}

/// P8: a full disk refuses the request and loses nothing.
#[test]
fn a_full_disk_refuses_and_leaves_a_clean_folder() {
    at_every_step(
        |_| (),
        publish_p1,
        SimFault::NoSpace,
        |disk, step, outcome| {
            let error = outcome.expect_err("an operation that failed was acknowledged");
            if step == Step::SyncFolder {
                // The new name is already visible: nobody can promise that nothing changed.
                assert!(error.is_fatal(), "{error:?}");
                return;
            }
            assert!(matches!(error, DurableError::Full { .. }), "{step:?}: {error:?}");
            assert_eq!(disk.peek_names(&dir()), Vec::<String>::new(), "{step:?}");
            publish_p1(disk).expect("works again once there is space");
        },
    );
}

#[test]
fn a_short_write_is_carried_on() {
    at_every_step(
        |_| (),
        publish_p1,
        SimFault::ShortWrite,
        |disk, step, outcome| {
            outcome.unwrap_or_else(|e| panic!("{step:?}: {e:?}"));
            disk.cut_power(Survivors::Synced);
            assert_eq!(disk.peek(&dir().join("p1")).as_deref(), Some(CONTENT), "{step:?}");
        },
    );
}

/// Why a failed sync may not be tried again: on this disk, as on Linux, the second one "succeeds".
#[test]
fn the_model_lets_a_second_sync_succeed_and_still_loses_the_data() {
    let disk = disk();
    let folder = disk.open_folder(&dir()).unwrap();
    let (temporary, mut file) = folder.create_temporary().unwrap();
    assert_eq!(file.write(b"lost").unwrap(), 4);

    disk.arm(0, SimFault::InputOutput);
    file.sync().unwrap_err();
    file.sync().expect("the second sync succeeds");
    folder.rename_new(&temporary, &name("p1")).unwrap();
    folder.sync().unwrap();
    disk.cut_power(Survivors::Everything);

    assert_eq!(disk.peek(&dir().join("p1")).as_deref(), Some(&b""[..]));
}

#[test]
fn the_model_closes_handles_at_a_restart_and_turns_read_only_after_a_failed_folder_sync() {
    let disk = disk();
    let folder = disk.open_folder(&dir()).unwrap();
    disk.arm(0, SimFault::InputOutput);
    folder.sync().unwrap_err();

    assert!(matches!(publish_p1(&disk), Err(e) if e.is_fatal()));
    disk.cut_power(Survivors::Synced);
    folder.sync().expect_err("the handle belongs to an earlier process");
    assert_eq!(publish(&disk, &dir(), &name("p1"), CONTENT).unwrap(), Published::New);
}
