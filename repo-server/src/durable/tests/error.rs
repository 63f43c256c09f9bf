//! Which failure ends the process.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::super::{BadFileName, DurableError, FileName, Step};

fn class(step: Step, errno: Errno) -> &'static str {
    match DurableError::at(step, Path::new("/repo/x"), io::Error::from(errno)) {
        DurableError::Full { .. } => "full",
        DurableError::Fatal { .. } => "fatal",
        DurableError::Failed { .. } => "failed",
        DurableError::Differs { .. } => "differs",
    }
}

#[test]
fn a_failed_sync_is_fatal_whatever_the_errno() {
    for step in [Step::SyncTemporary, Step::SyncFile, Step::SyncFolder] {
        for errno in [Errno::IO, Errno::ROFS, Errno::INTR, Errno::INVAL, Errno::STALE] {
            assert_eq!(class(step, errno), "fatal", "{step:?} {errno:?}");
        }
    }
}

#[test]
fn a_full_disk_is_a_refusal_as_long_as_only_the_temporary_file_is_concerned() {
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        for step in [Step::CreateTemporary, Step::Write, Step::SyncTemporary, Step::Rename, Step::MakeFolder]
        {
            assert_eq!(class(step, errno), "full", "{step:?} {errno:?}");
        }
        for step in [Step::SyncFile, Step::SyncFolder] {
            assert_eq!(class(step, errno), "fatal", "{step:?} {errno:?}");
        }
    }
}

#[test]
fn a_broken_device_is_fatal_at_any_step_and_a_caller_s_mistake_at_none() {
    for errno in [Errno::IO, Errno::ROFS, Errno::UCLEAN, Errno::NODEV] {
        assert_eq!(class(Step::Write, errno), "fatal", "{errno:?}");
    }
    for errno in [Errno::NOENT, Errno::ACCESS, Errno::MFILE, Errno::NOTDIR] {
        assert_eq!(class(Step::CreateTemporary, errno), "failed", "{errno:?}");
    }
}

#[test]
fn a_message_names_the_step_and_the_file() {
    let error = DurableError::at(Step::SyncFolder, Path::new("/repo/packs"), Errno::IO.into());

    assert_eq!(error.to_string(), "cannot make durable: sync folder `/repo/packs`");
    assert!(error.is_fatal());
}

#[test]
fn a_file_name_stays_inside_its_folder_and_is_no_temporary() {
    for bad in ["", ".", "..", "a/b", "/", "a\0b", ".tmp-1", &"x".repeat(256)] {
        assert_eq!(bad.parse::<FileName>().unwrap_err().to_string(), message(bad));
    }
    for good in ["a", ".hidden", "a b", "a..b", &"x".repeat(255)] {
        assert_eq!(good.parse::<FileName>().unwrap().as_str(), good);
    }
}

fn message(bad: &str) -> String {
    let _: BadFileName = bad.parse::<FileName>().unwrap_err();
    format!("`{}` cannot name a published file", bad.escape_debug())
}
