//! Errors that only a site in a folder can make.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::super::{Area, Prefix, Put, Site, SiteError, StoreSite};
use super::name;
use crate::durable::Step;
use crate::durable::sim::{SimDisk, SimFault, Survivors};

const CONTENT: Bytes = Bytes::from_static(b"content");

#[tokio::test]
async fn objects_are_private_files_under_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let site = StoreSite::folder(dir.path()).unwrap();

    assert_eq!(site.put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap(), Put::Stored);

    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read(dir.path().join("packs/ab/abcd")).unwrap(), CONTENT);
    assert_eq!([mode("packs"), mode("packs/ab"), mode("packs/ab/abcd")], [0o700, 0o700, 0o600]);
}

#[tokio::test]
async fn objects_are_there_when_the_folder_is_opened_again_and_leftovers_are_not() {
    let dir = tempfile::tempdir().unwrap();
    StoreSite::folder(dir.path()).unwrap().put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap();
    let leftovers = ["packs/.tmp-1", "packs/ab/.tmp-0123456789abcdef"];
    for leftover in leftovers {
        fs::write(dir.path().join(leftover), b"half").unwrap();
    }
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("lost+found/.tmp-1"), b"not ours").unwrap();

    let site = StoreSite::folder(dir.path()).unwrap();

    assert_eq!(site.get(&name("packs/ab/abcd")).await.unwrap(), CONTENT);
    assert!(leftovers.iter().all(|leftover| !dir.path().join(leftover).exists()));
    assert!(dir.path().join("lost+found/.tmp-1").exists());
}

#[tokio::test]
async fn a_listing_shows_objects_and_neither_temporaries_nor_foreign_files() {
    let dir = tempfile::tempdir().unwrap();
    let site = StoreSite::folder(dir.path()).unwrap();
    site.put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap();
    for foreign in ["packs/ab/.tmp-1", "packs/ab/.hidden", "packs/ab/a b", "packs/README#1", "note"] {
        fs::write(dir.path().join(foreign), b"x").unwrap();
    }
    fs::create_dir(dir.path().join("packs/empty")).unwrap();

    for prefix in [Prefix::everything(), Prefix::area(Area::Packs), Prefix::new("packs/ab").unwrap()] {
        let names: Vec<_> = site.list(&prefix).await.unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, [name("packs/ab/abcd")], "{prefix:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_a_folder_is_refused_and_not_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let site = StoreSite::folder(dir.path()).unwrap();
    site.put_new(&name("heads/a/b"), CONTENT).await.unwrap();

    for wrong in ["heads/a", "heads/a/b/c"] {
        let error = site.put_new(&name(wrong), CONTENT).await.unwrap_err();
        assert!(matches!(error, SiteError::Unavailable { .. }), "{wrong}: {error:?}");
    }
    assert!(matches!(site.get(&name("heads/a")).await, Err(SiteError::NotFound { .. })));
    assert_eq!(site.get(&name("heads/a/b")).await.unwrap(), CONTENT);
}

/// P4: what a range claims is looked up before memory is taken for it.
#[tokio::test]
async fn a_range_that_claims_a_gigabyte_of_a_small_object_takes_no_memory() {
    const CLAIMED: u64 = 1 << 30;
    let peak_kib = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak of memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let site = StoreSite::folder(dir.path()).unwrap();
    site.put_new(&name("heads/small"), CONTENT).await.unwrap();
    let before = peak_kib();

    let refused = site.get_ranges(&name("heads/small"), &[0..1, 1..CLAIMED]).await.unwrap_err();

    assert!(matches!(refused, SiteError::OutOfRange { len: 7, .. }), "{refused:?}");
    let grown = peak_kib() - before;
    assert!(grown * 1024 < CLAIMED / 2, "the peak grew by {grown} KiB");
}

#[test]
fn a_folder_that_does_not_exist_is_not_a_site() {
    let dir = tempfile::tempdir().unwrap();

    let error = StoreSite::folder(&dir.path().join("none")).unwrap_err();

    assert!(matches!(error, SiteError::Open { .. }), "{error:?}");
}

/// A site that writes to the model of a disk, and an existing folder to read from.
fn on_model(dir: &Path) -> (SimDisk, StoreSite) {
    let root = dir.canonicalize().unwrap();
    let disk = SimDisk::with_folder(&root);
    let site = StoreSite::folder_on(Arc::new(disk.clone()), &root).unwrap();
    (disk, site)
}

/// How many steps the first put of a site takes, folders included.
async fn steps_of_a_put(dir: &Path) -> usize {
    let (disk, site) = on_model(dir);
    let before = disk.steps().len();
    site.put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap();
    disk.steps().len() - before
}

/// P5: what a site lists may be counted on, also if the process that put it died before it synced the name.
#[tokio::test]
async fn what_a_dead_process_put_is_durable_when_the_site_is_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let steps = steps_of_a_put(dir.path()).await;
    for (opened_again, expected) in [(true, Some(CONTENT)), (false, None)] {
        let (disk, site) = on_model(dir.path());
        disk.arm(steps - 1, SimFault::Stop);
        site.put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap_err();
        disk.restart_process();
        if opened_again {
            StoreSite::folder_on(Arc::new(disk.clone()), &root).unwrap();
        }

        disk.cut_power(Survivors::Synced);

        assert_eq!(disk.peek(&root.join("packs/ab/abcd")).as_deref(), expected.as_deref());
    }
}

/// P5: a put that was acknowledged survives a power cut, folders and all.
#[tokio::test]
async fn a_put_is_durable_with_its_folders_when_it_returns_and_absent_or_whole_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().canonicalize().unwrap().join("packs/ab/abcd");
    let steps = steps_of_a_put(dir.path()).await;
    assert!(steps > 11, "the scenario no longer makes two folders and a file: {steps}");
    for cut in 0..=steps {
        for survivors in [Survivors::Synced, Survivors::Names, Survivors::Seeded(u64::try_from(cut).unwrap())]
        {
            let (disk, site) = on_model(dir.path());
            disk.arm(cut, SimFault::Stop);
            let acknowledged = site.put_new(&name("packs/ab/abcd"), CONTENT).await.is_ok();
            disk.cut_power(survivors);

            let found = disk.peek(&file);
            assert!(found.as_ref().is_none_or(|found| *found == CONTENT), "{cut} {survivors:?}");
            assert!(found.is_some() || !acknowledged, "{cut} {survivors:?}");
        }
    }
}

/// P8: an I/O error at any step of a put ends the process; a full disk only refuses.
#[tokio::test]
async fn the_errors_of_the_disk_keep_their_meaning() {
    let dir = tempfile::tempdir().unwrap();
    let steps = steps_of_a_put(dir.path()).await;
    for at in 0..steps {
        let (disk, site) = on_model(dir.path());
        disk.arm(at, SimFault::InputOutput);
        let error = site.put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap_err();
        assert!(error.is_fatal(), "{at}: {error:?}");

        let (disk, site) = on_model(dir.path());
        disk.arm(at, SimFault::NoSpace);
        let error = site.put_new(&name("packs/ab/abcd"), CONTENT).await.unwrap_err();
        let synced_folder = disk.steps().last() == Some(&Step::SyncFolder);
        assert_eq!((error.is_full(), error.is_fatal()), (!synced_folder, synced_folder), "{at}: {error:?}");
    }
}
