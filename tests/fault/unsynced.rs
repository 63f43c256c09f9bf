//! The twins of the power cuts: each sync that is left out loses what it was there for, and is seen.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use repo_server::durable::{Disk, DiskFile, Entry, FileName, Folder as DiskFolder, RealDisk, TemporaryName};
use repo_server::index::MemoryIndex;
use repo_server::site::{Prefix, StoreSite};
use rustix::process::Pid;
use tests::client::Running;
use tests::gear;
use tests::loop_image::{FileSystem, LoopImage};
use tests::seed::Random;
use tests::wait;
use tests::world::Folder;

use crate::judge;
use crate::power_cut::Machine;
use crate::process::{Process, Push, Stores};

const KINDS: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

/// Which syncs are acknowledged and not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Nothing,
    FileSync,
    FolderSync,
}

/// Files that a writer publishes.
const FILES: usize = 50;

fn content(number: usize) -> Vec<u8> {
    Random::new(u64::try_from(number).unwrap()).bytes(100_000)
}

/// Publishes a file as many programs do: a temporary file, and a rename.
fn publish(dir: &Path, number: usize, skip: Skip) {
    let temporary = dir.join("temporary");
    let mut file = File::create(&temporary).unwrap();
    file.write_all(&content(number)).unwrap();
    if skip != Skip::FileSync {
        file.sync_all().unwrap();
    }
    rustix::fs::rename(&temporary, dir.join(number.to_string())).unwrap();
    if skip != Skip::FolderSync {
        File::open(dir).unwrap().sync_all().unwrap();
    }
}

/// How many of the files are whole after a power cut at the last acknowledgement. `None` where no image can
/// be mounted.
fn kept_files(kind: FileSystem, skip: Skip) -> Option<usize> {
    let folder = Folder::new();
    let disk = LoopImage::make(kind, &folder, "disk")?;
    (0..FILES).for_each(|number| publish(disk.path(), number, skip));
    let left = disk.after_a_power_cut(&folder, "left");
    let is_whole = |number: &usize| {
        std::fs::read(left.path().join(number.to_string())).is_ok_and(|found| found == content(*number))
    };
    Some((0..FILES).filter(is_whole).count())
}

/// P5: the order that `repo_server::durable` keeps is the one that keeps every file; without the folder's
/// sync the last name is lost, and without the file's sync the content is.
#[test]
fn a_power_cut_takes_what_a_writer_did_not_sync_and_nothing_else() {
    for kind in KINDS {
        for (skip, expected) in [(Skip::Nothing, FILES), (Skip::FolderSync, FILES - 1), (Skip::FileSync, 0)] {
            let Some(kept) = kept_files(kind, skip) else { return };
            assert_eq!(kept, expected, "{kind:?}, {skip:?}");
        }
    }
}

/// The disk of this machine, which acknowledges some syncs without doing them.
#[derive(Debug)]
struct Forgetful(Skip);

impl Disk for Forgetful {
    fn open_folder(&self, path: &Path) -> io::Result<Box<dyn DiskFolder>> {
        Ok(Box::new(ForgetfulFolder { inner: RealDisk.open_folder(path)?, skip: self.0 }))
    }
}

struct ForgetfulFolder {
    inner: Box<dyn DiskFolder>,
    skip: Skip,
}

impl ForgetfulFolder {
    fn file(&self, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(ForgetfulFile { inner, skip: self.skip })
    }
}

impl DiskFolder for ForgetfulFolder {
    fn create_temporary(&self) -> io::Result<(TemporaryName, Box<dyn DiskFile>)> {
        let (name, file) = self.inner.create_temporary()?;
        Ok((name, self.file(file)))
    }

    fn rename_new(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.inner.rename_new(from, to)
    }

    fn rename_over(&self, from: &TemporaryName, to: &FileName) -> io::Result<()> {
        self.inner.rename_over(from, to)
    }

    fn open_file(&self, name: &FileName) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.inner.open_file(name)?))
    }

    fn make_folder(&self, name: &FileName) -> io::Result<()> {
        self.inner.make_folder(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        self.inner.entries()
    }

    fn sync(&self) -> io::Result<()> {
        if self.skip == Skip::FolderSync { Ok(()) } else { self.inner.sync() }
    }
}

struct ForgetfulFile {
    inner: Box<dyn DiskFile>,
    skip: Skip,
}

impl DiskFile for ForgetfulFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }

    fn sync(&self) -> io::Result<()> {
        if self.skip == Skip::FileSync { Ok(()) } else { self.inner.sync() }
    }
}

/// State of the site of an acknowledged push after a power cut.
struct Left {
    /// The areas of objects that are listed no more.
    missing: Vec<String>,
    /// Findings of the judge.
    found: Vec<String>,
}

/// Pushes to a site of its own file system, whose disk forgets syncs, and cuts the power of that at the
/// acknowledgement. The index lies elsewhere: on one file system its syncs would save the names of the site.
fn site_after_a_push(kind: FileSystem, skip: Skip) -> Option<Left> {
    let folder = Folder::new();
    let disk = LoopImage::make(kind, &folder, "disk")?;
    let stores = |disk: &LoopImage, skip, index: &MemoryIndex| {
        let site = StoreSite::folder_on(Arc::new(Forgetful(skip)), disk.path()).unwrap();
        Stores { index: Arc::new(index.clone()), site: Arc::new(site) }
    };
    let (index, push) = (MemoryIndex::new(), Push::of(&["alpha", "beta", "gamma"]));
    let before = stores(&disk, skip, &index);
    let process = before.serve();
    let (session, domain) = Push::open(&process).unwrap();
    let snapshot = push.run(&process, session, &domain).unwrap();
    let left = disk.after_a_power_cut(&folder, "left");
    let stored = objects(&process, &before);
    drop((process, before));

    let after = stores(&left, Skip::Nothing, &index);
    let process = after.serve();
    let listed = objects(&process, &after);
    let missing = stored.iter().filter(|name| !listed.contains(name));
    let missing = missing.map(|name| name.split('/').next().unwrap_or_default().to_owned()).collect();
    let found = judge::findings(&after, &process, &[(snapshot, &push)], &[]);
    drop((process, after));
    Some(Left { missing, found })
}

fn objects(process: &Process, stores: &Stores) -> Vec<String> {
    let listed = process.wait(stores.site.list(&Prefix::everything())).unwrap();
    listed.into_iter().map(|object| object.name.to_string()).collect()
}

/// P5, S1: a site loses nothing of an acknowledged push. Without the sync of its files it loses their
/// content, and without that of its folders the last object: the others' names go with the next file's sync.
#[test]
fn a_power_cut_takes_what_a_site_did_not_sync_and_nothing_else() {
    for kind in KINDS {
        let Some(left) = site_after_a_push(kind, Skip::Nothing) else { return };
        assert_eq!((left.missing, left.found), (vec![], vec![]), "{kind:?}");

        let left = site_after_a_push(kind, Skip::FolderSync).unwrap();
        assert_eq!(left.missing, ["snapshots"], "{kind:?}: {:#?}", left.found);

        let left = site_after_a_push(kind, Skip::FileSync).unwrap();
        assert!(left.found.iter().any(|found| found.starts_with("verify")), "{kind:?}: {:#?}", left.found);
    }
}

/// Syncs of a server, from now on acknowledged and not done. It ends with the server.
fn forget_syncs(server: Pid, calls: &str, of: Option<&Path>) -> Running {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-p", &server.as_raw_nonzero().to_string()]);
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:retval=0")]);
    if let Some(of) = of {
        command.arg("-P").arg(of);
    }
    let strace = Running::start(command);
    let threads = format!("/proc/{}/task", server.as_raw_nonzero());
    let is_traced = |thread: io::Result<std::fs::DirEntry>| {
        let status = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("status")));
        status.is_ok_and(|status| !status.contains("TracerPid:\t0"))
    };
    wait::for_state("strace to see every thread", || {
        let mut threads = std::fs::read_dir(&threads).expect("the server runs");
        threads.all(is_traced).then_some(())
    });
    strace
}

/// Problems after a power cut at the acknowledgement of a push to a server that forgets the syncs `calls` of
/// one file, or of all. `None`, said aloud, where that cannot be had.
fn findings_without(kind: FileSystem, calls: &str, of: Option<&str>) -> Option<Vec<String>> {
    if !gear::has("strace") {
        return None;
    }
    let mut random = Random::printed();
    let mut machine = Machine::new(kind, &mut random)?;
    machine.expect_damage();
    let of = of.map(|name| machine.server().data().join(name));
    let strace = forget_syncs(machine.server().pid(), calls, of.as_deref());
    let mut found = machine.cut_at_the_acknowledgement(&mut random);
    found.extend(machine.findings(1));
    strace.wait();
    Some(found)
}

fn tells_of(found: &[String], what: &str) -> bool {
    found.iter().any(|found| found.contains(what))
}

/// The journal of the index, into which every batch goes.
const INDEX_JOURNAL: &str = "index/db/data/0.jnl";

/// X1, S1: a commit of the index is lost without the sync of its journal, though all else is synced.
#[test]
fn a_power_cut_takes_the_rows_of_an_index_that_does_not_sync_its_journal() {
    for kind in KINDS {
        let Some(found) = findings_without(kind, "fsync", Some(INDEX_JOURNAL)) else { return };

        assert!(tells_of(&found, "listed are [] instead of"), "{kind:?}: {found:#?}");
        assert!(!tells_of(&found, "is lost"), "the site was synced: {kind:?}: {found:#?}");
    }
}

/// P5, S1: without the sync of new files, which alone is an fdatasync, packs and manifests are damaged.
#[test]
fn a_power_cut_takes_the_content_of_a_server_that_does_not_sync_new_files() {
    for kind in KINDS {
        let Some(found) = findings_without(kind, "fdatasync", None) else { return };

        for what in ["site/packs", "site/manifests", "site/snapshots", "verify", "restore"] {
            assert!(tells_of(&found, what), "{what}: {kind:?}: {found:#?}");
        }
        assert!(!tells_of(&found, "listed"), "the index was synced: {kind:?}: {found:#?}");
    }
}

/// S1: without any sync of folders and of the index, a push leaves no trace that is listed.
#[test]
fn a_power_cut_takes_the_push_to_a_server_that_syncs_no_names_and_no_rows() {
    for kind in KINDS {
        let Some(found) = findings_without(kind, "fsync", None) else { return };

        assert!(tells_of(&found, "listed are [] instead of"), "{kind:?}: {found:#?}");
        assert!(tells_of(&found, "is lost"), "{kind:?}: {found:#?}");
    }
}

/// The twin of the twins: strace that takes no sync away takes nothing away.
#[test]
fn a_power_cut_takes_nothing_from_a_server_that_is_only_watched() {
    for kind in KINDS {
        let Some(found) = findings_without(kind, "sync_file_range", None) else { return };

        assert_eq!(found, Vec::<String>::new(), "{kind:?}");
    }
}
