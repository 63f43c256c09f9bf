//! A disk with no room left while the collector runs, and while an index is rebuilt.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use format_spec::SnapshotId;
use format_spec::wire::{Delays, ForgetRequest, GcReport, GcRequest, LargeDelete, RunMode};
use node_client::error::ClientError;
use repo_server::error::Chain;
use repo_server::site::StoreSite;
use repo_server::space::BALLAST;
use repo_server::start::Opened;
use tests::mount::Tmpfs;
use tests::seed::Random;
use tests::world::Folder;

use crate::full_disk::{MIB, fill, open};
use crate::judge;
use crate::process::{Process, Push, Stores};
use crate::rebuild::{Pushed, run, start};
use crate::switch::Switch;

fn free(disk: &Path) -> u64 {
    let stat = rustix::fs::statvfs(disk).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// A push of so many chunks of so many bytes that no other push has.
fn heavy(random: &mut Random, chunks: usize, len: usize) -> Push {
    Push { contents: (0..chunks).map(|_| random.bytes(len)).collect() }
}

fn push(process: &Process, push: &Push) -> Result<SnapshotId, ClientError> {
    let (session, domain) = Push::open(process)?;
    push.run(process, session, &domain)
}

fn forget(process: &Process, snapshots: Vec<SnapshotId>) {
    let request = ForgetRequest { mode: RunMode::Apply, snapshots, ..ForgetRequest::default() };
    process.wait(process.api.forget(&request)).unwrap();
}

fn collect(process: &Process) -> GcReport {
    let (delays, large) = (Delays::Skip, LargeDelete::Allow);
    let request = GcRequest { mode: RunMode::Apply, delays, large, ..GcRequest::default() };
    process.wait(process.api.collect_garbage(&request, |_| {})).unwrap()
}

/// P8: where the index takes nothing any more, a run of the collector has the ballast to work with, frees
/// room, and gets the ballast back; then pushes are taken again.
#[test]
fn a_run_on_a_full_disk_frees_room_with_the_ballast() {
    let folder = Folder::new();
    let Some(disk) = Tmpfs::mount(folder.dir("disk"), "size=500m") else { return };
    let mut random = Random::printed();
    let data = disk.path().join("data");
    let Opened { server, token, .. } = open(&data, 30);
    let process = Process::serving(&server, &token, Arc::new(AtomicUsize::new(0)));
    let gone = push(&process, &heavy(&mut random, 60, 1_000_000)).unwrap();
    let kept = heavy(&mut random, 2, 100_000);
    let second = push(&process, &kept).unwrap();
    forget(&process, vec![gone]);
    fill(disk.path(), 110 * MIB);
    let refused = Push::open(&process).map(drop);
    assert!(refused.is_err_and(|error| error.code() == Some("full")), "the index must take nothing any more");

    let report = collect(&process);

    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.deleted.bytes > 55_000_000, "{report:?}");
    let held = std::fs::metadata(data.join(BALLAST)).unwrap().len();
    assert!(held > 10 * MIB && free(disk.path()) > 128 * MIB, "{held} held, {} free", free(disk.path()));
    let third = heavy(&mut random, 2, 100_000);
    push(&process, &third).unwrap();
    let listed = process.wait(process.api.snapshots(None)).unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|info| info.id == second));
}

/// P8, G4: a site of its own disk has no ballast. Where there is no room for a new pack, what is to be
/// deleted goes all the same, and makes room for the next run.
#[test]
fn a_run_on_a_full_site_deletes_although_it_cannot_repack() {
    let folder = Folder::new();
    let Some(disk) = Tmpfs::mount(folder.dir("disk"), "size=16m") else { return };
    let mut random = Random::printed();
    let stores = Stores { site: Arc::new(StoreSite::folder(disk.path()).unwrap()), ..Stores::new() };
    let process = stores.serve();
    let mut thin = heavy(&mut random, 8, 300_000);
    let first = push(&process, &thin).unwrap();
    let kept = Push { contents: vec![thin.contents.remove(0), random.bytes(100_000)] };
    let second = push(&process, &kept).unwrap();
    let dead = push(&process, &heavy(&mut random, 2, 400_000)).unwrap();
    forget(&process, vec![first, dead]);
    fill(disk.path(), 0);
    assert_eq!(free(disk.path()), 0);

    let report = collect(&process);

    assert!(report.problems.iter().any(|problem| problem.contains("no space left")), "{report:?}");
    assert!(free(disk.path()) >= 800_000, "{} bytes are free: {report:?}", free(disk.path()));
    assert_eq!(process.halts(), 0);
    assert_eq!(judge::findings(&stores, &process, &[(second, &kept)], &[]), Vec::<String>::new());
    let report = collect(&process);
    assert_eq!((report.problems, report.repacked.count), (vec![], 1));
    assert!(free(disk.path()) >= 2_700_000, "{} bytes are free", free(disk.path()));
    assert_eq!(judge::findings(&stores, &process, &[(second, &kept)], &[]), Vec::<String>::new());
}

/// P8: a rebuild that finds no room, wherever that is, says so; no server starts on what is there, and with
/// room the rebuild is started again and whole.
#[test]
fn a_rebuild_on_a_full_disk_says_so_and_is_started_again() {
    const KIB: u64 = 1 << 10;
    let pushed = Pushed::new();
    for left in [0, 4 * KIB, 12 * KIB, 40 * KIB, 200 * KIB, MIB, 110 * MIB] {
        let name = format!("disk-{left}");
        let Some(disk) = Tmpfs::mount(pushed.folder.dir(&name), "size=300m") else { return };
        let plan = pushed.plan(&format!("{name}/data"));
        let filling = fill(disk.path(), left);

        let refused = run(&plan, &Switch::at(None)).expect_err("there is no room");

        let said = Chain(&refused).to_string();
        assert!(said.to_lowercase().contains("space") || said.contains("bytes are free"), "{left}: {said}");
        assert_eq!(refused.class(), format_spec::ErrorClass::Unavailable, "{left}: {said}");
        assert!(start(&plan).is_err(), "{left} bytes: a server starts on half an index");
        std::fs::remove_file(filling).unwrap();
        let report =
            run(&plan, &Switch::at(None)).unwrap_or_else(|error| panic!("{left}: {}", Chain(&error)));
        assert!(report.is_sound() && report.snapshots == 2, "{left}: {report:?}");
        start(&plan).unwrap();
        println!("{left} bytes free: {said}");
    }
}
