//! A first start, ended at each sync outside the index, and with each of those left out in turn.

use std::path::PathBuf;

use format_spec::ErrorClass;

use super::*;
use crate::config::{Config, SpaceConfig};
use crate::durable::shadow::{Names, ShadowDisk};
use crate::index::copy_tree;

/// A server that finds another descriptor than before does not start, and what it says leads out of that.
#[tokio::test]
async fn a_descriptor_that_is_gone_or_changed_comes_back_from_its_copy() {
    let machine = tempfile::tempdir().unwrap();
    let made = start(Arc::new(RealDisk), machine.path()).await.unwrap();
    let descriptor = machine.path().join("mnt/sites/one").join(descriptor_object().as_str());
    let copy = machine.path().join("var/lib/astacus/data").join(COPY);
    let text = std::fs::read_to_string(&descriptor).unwrap();

    let changed = text.replace("262144", "131072");
    assert_ne!(changed, text);
    for (found, class) in [
        (Some(changed.as_str()), ErrorClass::Integrity),
        (Some("{"), ErrorClass::Integrity),
        (None, ErrorClass::NotFound),
    ] {
        match found {
            Some(found) => std::fs::write(&descriptor, found).unwrap(),
            None => std::fs::remove_file(&descriptor).unwrap(),
        }
        let refused = start(Arc::new(RealDisk), machine.path()).await.unwrap_err();
        assert_eq!(refused.class(), class, "{found:?}: {refused}");
        assert!(refused.to_string().contains(COPY), "{refused}");
        assert!(found.is_none() || std::fs::read_to_string(&descriptor).unwrap() == found.unwrap());
        std::fs::copy(&copy, &descriptor).unwrap();
        assert_eq!(start(Arc::new(RealDisk), machine.path()).await.unwrap(), made);
    }
}

/// Values that identify a repository.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    repository: RepositoryId,
    token: String,
}

/// Starts a server on the folders of `machine`, and ends it.
async fn start(disk: Arc<dyn Disk>, machine: &Path) -> Result<Identity, CreateError> {
    let site = SiteUrl::from(machine.join("mnt/sites/one"));
    let on_halt: OnHalt = Arc::new(|error| panic!("the repository halts: {error}"));
    let space = SpaceConfig { ballast_mib: Some(0), refuse_below_mib: Some(0) };
    let settings = Config { space, ..Config::default() }.settings().unwrap();
    let opened =
        open_or_create_on(disk, &machine.join("var/lib/astacus/data"), Some(&site), settings, on_halt)
            .await?;
    Ok(Identity { repository: opened.server.id(), token: opened.token })
}

/// True if the repository is another one, or is missing, or has no copy of its descriptor, after a power cut
/// at the end of its first start. An earlier process stopped before the sync number `stop`; the sync number
/// `left_out` was acknowledged and not done. Answers what was synced too.
async fn is_lost(left_out: Option<usize>, stop: Option<usize>) -> (bool, Vec<PathBuf>) {
    let world = tempfile::tempdir().unwrap();
    let world = world.path().canonicalize().unwrap();
    let (machine, after) = (world.join("machine"), world.join("after"));
    let disk = ShadowDisk::new(left_out, stop);
    for root in ["var", "mnt"] {
        std::fs::create_dir_all(machine.join(root)).unwrap();
    }
    disk.settle(&machine).unwrap();
    // Somebody made these a moment ago, and synced nothing.
    for folder in ["var/lib/astacus", "mnt/sites"] {
        std::fs::create_dir_all(machine.join(folder)).unwrap();
    }
    if stop.is_some() {
        assert!(start(Arc::new(disk.clone()), &machine).await.is_err(), "the process did not stop");
        disk.restart_process();
    }
    let made = start(Arc::new(disk.clone()), &machine).await.unwrap();

    disk.cut_power(&machine, &after, Names::Synced).unwrap();
    // The engine syncs what it writes by itself, unseen by this disk. So the index is as it was.
    let index = after.join("var/lib/astacus/data/index");
    if index.exists() {
        std::fs::remove_dir_all(&index).unwrap();
        copy_tree(&machine.join("var/lib/astacus/data/index"), &index);
    }

    let has_copy = after.join("var/lib/astacus/data").join(COPY).exists();
    let found = start(Arc::new(RealDisk), &after).await.ok();
    let below = |path: &PathBuf| path.strip_prefix(&machine).unwrap().to_owned();
    let syncs = disk.syncs().iter().map(below).collect();
    (found != Some(made) || !has_copy, syncs)
}

/// Numbers of the syncs of what was not durable before, outside the index, which has tests of its own.
fn own(syncs: &[PathBuf]) -> Vec<usize> {
    let is_own = |path: &PathBuf| {
        let is_below = path.starts_with("var") || path.starts_with("mnt");
        is_below && !path.starts_with("var/lib/astacus/data/index")
    };
    (0..syncs.len()).filter(|&number| is_own(&syncs[number])).collect()
}

/// True if a sync is of the site's lock, which is not needed after a power cut, or of the folder of the site,
/// which is synced once more for the lock: each of the two makes up for the other.
fn is_of_lock(path: &Path) -> bool {
    path.starts_with("mnt/sites/one/locks") || path == Path::new("mnt/sites/one")
}

/// P5, S1: a repository that has started once is the same after a power cut, also when an earlier process was ended
/// in its first start; and there is nothing that needs no sync of all that it gets one.
#[tokio::test]
async fn a_first_start_syncs_what_it_makes_and_what_it_finds_and_nothing_else() {
    let (lost, syncs) = is_lost(None, None).await;
    assert!(!lost);
    let of_repository = |number: &usize| !is_of_lock(&syncs[*number]);
    let stops: Vec<usize> = own(&syncs).into_iter().filter(of_repository).collect();
    let mut after_stops = Vec::new();
    for &stop in &stops {
        let (lost, syncs) = is_lost(None, Some(stop)).await;
        assert!(!lost, "after an earlier process stopped before the sync number {stop} of {syncs:#?}");
        after_stops.push((stop, syncs));
    }

    let mut not_needed = Vec::new();
    for left_out in own(&syncs).into_iter().filter(of_repository) {
        let mut breaks = vec![(left_out, None)];
        // A sync that makes up for an earlier process has another number after that.
        for (stop, after_stop) in &after_stops {
            let again = (*stop..after_stop.len()).filter(|&number| after_stop[number] == syncs[left_out]);
            breaks.extend(again.map(|number| (number, Some(*stop))));
        }
        let mut is_needed = false;
        for (number, stop) in breaks {
            is_needed = is_needed || is_lost(Some(number), stop).await.0;
        }
        if !is_needed {
            not_needed.push((left_out, &syncs[left_out]));
        }
    }

    assert_eq!(not_needed, [], "of {syncs:#?}");
}

#[test]
fn chunk_lengths_that_a_repository_was_not_made_with_are_told() {
    let spec = |text: &str| toml::from_str::<Config>(text).unwrap().settings().unwrap().chunker;
    let other = spec("[chunker]\navg_kib = 512").unwrap();

    assert_eq!(spec("[chunker]"), Some(DEFAULT_CHUNKER), "the defaults are stated twice");
    assert_eq!((spec(""), not_heeded(None, &other)), (None, None), "nothing was configured");
    assert_eq!(not_heeded(Some(&other), &other), None);
    let told = not_heeded(Some(&DEFAULT_CHUNKER), &other).unwrap();
    for part in ["[chunker]", "avg_kib = 256", "avg_kib = 512"] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn the_folders_of_a_repository_can_be_symlinks() {
    let world = tempfile::tempdir().unwrap();
    for (link, there) in [("var/lib/astacus/data", "data"), ("mnt/sites/one", "site")] {
        let (link, there) = (world.path().join(link), world.path().join(there));
        std::fs::create_dir(&there).unwrap();
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&there, &link).unwrap();
    }

    let made = start(Arc::new(RealDisk), world.path()).await.unwrap();

    assert_eq!(start(Arc::new(RealDisk), world.path()).await.unwrap(), made);
    assert!(world.path().join("data/master.key").exists() && world.path().join("site/keyring").exists());
}

/// R6: a rebuild into a folder that still holds the tokens takes them as its own.
#[test]
fn a_folder_with_tokens_and_no_index_can_be_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(access::FILE), "{}").unwrap();

    check_ours(folder.path()).unwrap();
}

/// R6: tokens that others may read stop a start, and so does a file that is none.
#[tokio::test]
async fn a_file_of_tokens_that_cannot_be_used_stops_the_start() {
    use std::os::unix::fs::PermissionsExt;
    for (text, mode) in [("{}", 0o600), (r#"{"version":1,"tokens":{}}"#, 0o644)] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let path = data.join(access::FILE);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let settings = crate::config::Config::default().settings().unwrap();

        let refused = open_or_create(&data, None, settings, Arc::new(|_| {})).await.err().unwrap();

        assert!(
            matches!(refused, CreateError::Access { .. } | CreateError::OpenToOthers { .. }),
            "{refused}"
        );
    }
}
