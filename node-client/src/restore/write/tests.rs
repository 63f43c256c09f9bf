use super::*;
use crate::leftover::TEMPORARY;
use crate::restore::attributes::{NotSet, Note, Owners, Setuid};
use crate::restore::folder::{Choice, Existing};
use format_spec::{EntryKind, EntryPath, Timestamp, Xattr};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

struct Scene {
    folder: tempfile::TempDir,
    writer: Writer,
    top: Arc<FolderJob>,
    cache: FolderCache,
}

fn scene(existing: Existing, prepare: impl FnOnce(&Path)) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let mut target = Target::open(folder.path(), existing).unwrap();
    let top = Arc::new(target.top().unwrap());
    let writer = Writer::new(target, Attributes::new(Setuid::Drop, Owners::AsPushed)).unwrap();
    Scene { folder, writer, top, cache: FolderCache::default() }
}

fn entry(name: &str, kind: EntryKind) -> Entry {
    Entry {
        path: EntryPath::new(name.as_bytes().to_vec()).unwrap(),
        kind,
        mode: 0o440,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Timestamp { seconds: -5, nanos: 123_456_789 },
        size: 0,
        xattrs: Vec::new(),
        target: (kind == EntryKind::Symlink).then(|| b"to/there".to_vec()),
        link_group: None,
    }
}

fn at(name: &str) -> TargetPath {
    TargetPath::from(&EntryPath::new(name.as_bytes().to_vec()).unwrap())
}

impl Scene {
    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn restore(&mut self, job: FileJob, bytes: &[u8]) -> Finished {
        let len = u64::try_from(bytes.len()).unwrap();
        job.data_len.set(len).unwrap();
        self.writer.write(&job, &mut self.cache, &mut Gather::new(), 0, bytes).unwrap();
        self.writer.finish(job, &mut self.cache).unwrap().finished
    }

    fn job(&self, name: &str, size: u64) -> FileJob {
        FileJob::new(at(name), Entry { size, ..entry(name, EntryKind::File) }, Arc::clone(&self.top))
    }

    /// Simulates a file system that cannot make files without a name.
    fn with_names(self) -> Self {
        self.writer.nameless.store(false, Ordering::Relaxed);
        self
    }

    fn inode(&self, name: &str) -> Inode {
        Inode::of_name(rustix::fs::CWD, self.path(name).to_str().unwrap().as_bytes()).unwrap()
    }

    fn symlink(&mut self, name: &str) -> Result<(), Obstacle> {
        self.writer.symlink(&at(name), &entry(name, EntryKind::Symlink), &self.top, &mut self.cache)
    }

    fn hard_link(&mut self, name: &str, leader: (&str, Inode)) -> Result<(), Obstacle> {
        self.writer.hard_link(&at(name), (&at(leader.0), leader.1), &self.top, &mut self.cache)
    }

    fn notes(&self) -> (Vec<Note>, NotSet) {
        self.writer.attributes.notes.take()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn a_file_has_another_name_until_it_is_whole() {
    let mut scene = scene(Existing::Refuse, |_| ()).with_names();
    let job = scene.job("f", 5);

    scene.writer.write(&job, &mut scene.cache, &mut Gather::new(), 0, b"hello").unwrap();
    let before = scene.names();
    job.data_len.set(5).unwrap();
    let done = scene.writer.finish(job, &mut scene.cache).unwrap().finished;

    assert!(before.len() == 1 && before[0].starts_with(TEMPORARY), "{before:?}");
    assert_eq!((done, scene.names()), (Finished::Restored(scene.inode("f")), vec!["f".to_owned()]));
    let meta = std::fs::metadata(scene.path("f")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o440, -5, 123_456_789));
}

/// A failure between the creation of a file and its first byte leaves no name either.
#[test]
fn a_file_that_cannot_be_prepared_leaves_no_name() {
    let mut scene = scene(Existing::Refuse, |_| ()).with_names();
    // No file system has files of this length.
    let job = scene.job("f", u64::MAX);

    let refused = scene.writer.write(&job, &mut scene.cache, &mut Gather::new(), 0, b"hello");

    // Where nothing can be written directly, its length is set at the end.
    assert!(refused.is_ok() || scene.names().is_empty(), "{:?}", scene.names());
    job.data_len.set(5).unwrap();
    let done = scene.writer.finish(job, &mut scene.cache).unwrap().finished;
    assert!(matches!(done, Finished::Abandoned | Finished::Failed(_)), "{done:?}");
    assert_eq!(scene.names(), Vec::<String>::new());
}

#[test]
fn a_file_that_is_given_up_leaves_no_name() {
    let mut scene = scene(Existing::Refuse, |_| ()).with_names();
    let (unplanned, short, dropped) = (scene.job("a", 5), scene.job("b", 5), scene.job("c", 5));
    for job in [&unplanned, &short, &dropped] {
        scene.writer.write(job, &mut scene.cache, &mut Gather::new(), 0, b"hel").unwrap();
    }
    short.data_len.set(5).unwrap();
    assert_eq!(scene.names().len(), 3);

    assert_eq!(scene.writer.finish(unplanned, &mut scene.cache).unwrap().finished, Finished::Abandoned);
    assert_eq!(scene.writer.finish(short, &mut scene.cache).unwrap().finished, Finished::Abandoned);
    drop(dropped);

    assert_eq!(scene.names(), Vec::<String>::new());
}

#[test]
fn holes_are_not_written() {
    let mut scene = scene(Existing::Refuse, |_| ());

    scene.restore(scene.job("f", 64 << 20), b"start");

    let meta = std::fs::metadata(scene.path("f")).unwrap();
    assert_eq!(meta.size(), 64 << 20);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}

#[test]
fn what_has_the_name_already_is_replaced_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let mut scene = scene(Existing::Replace, |folder| {
        std::fs::write(folder.join("file"), "old and longer").unwrap();
        for name in ["link", "again", "hard"] {
            symlink(&precious, folder.join(name)).unwrap();
        }
    });

    scene.restore(scene.job("file", 3), b"new");
    scene.restore(scene.job("link", 3), b"new");
    scene.symlink("again").unwrap();
    let file = scene.inode("file");
    scene.hard_link("hard", ("file", file)).unwrap();
    scene.hard_link("hard", ("file", file)).unwrap();

    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    assert_eq!(scene.names(), ["again", "file", "hard", "link"]);
    assert!(std::fs::symlink_metadata(scene.path("link")).unwrap().is_file());
    assert_eq!(std::fs::read(scene.path("file")).unwrap(), b"new");
    assert_eq!(std::fs::read_link(scene.path("again")).unwrap(), Path::new("to/there"));
    assert_eq!(std::fs::metadata(scene.path("file")).unwrap().nlink(), 2);
}

#[test]
fn a_symbolic_link_keeps_its_own_time() {
    let mut scene = scene(Existing::Refuse, |_| ());

    scene.symlink("s").unwrap();

    let meta = std::fs::symlink_metadata(scene.path("s")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 123_456_789));
}

#[test]
fn setuid_is_dropped_from_files_and_noted() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let mut program = scene.job("f", 1);
    program.entry.mode = 0o6755;

    scene.restore(program, b"x");

    assert_eq!(std::fs::metadata(scene.path("f")).unwrap().mode() & 0o7777, 0o755);
    let (notes, not_set) = scene.notes();
    assert!(notes.len() == 1 && notes[0].note.contains("setuid"), "{notes:?}");
    assert_eq!(not_set, NotSet { powers: 1, ..NotSet::default() });
}

#[test]
fn setuid_stays_when_asked() {
    let mut scene = scene(Existing::Refuse, |_| ());
    scene.writer.attributes = Attributes::new(Setuid::Keep, Owners::AsPushed);
    let mut program = scene.job("f", 1);
    program.entry.mode = 0o4755;

    scene.restore(program, b"x");

    assert_eq!(std::fs::metadata(scene.path("f")).unwrap().mode() & 0o7777, 0o4755);
}

#[test]
fn an_attribute_that_cannot_be_set_is_a_note_and_no_failure() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let mut file = scene.job("f", 1);
    file.entry.xattrs = vec![Xattr { name: b"nonsense.x".to_vec(), value: b"v".to_vec() }];

    assert!(matches!(scene.restore(file, b"x"), Finished::Restored(_)));

    let (notes, not_set) = scene.notes();
    assert_eq!(not_set, NotSet { attributes: 1, ..NotSet::default() });
    assert!(notes.len() == 1 && notes[0].note.contains("nonsense.x"), "{notes:?}");
}

#[test]
fn a_folder_gets_its_attributes_after_the_last_file_in_it() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let read_only = Entry { mode: 0o555, ..entry("d", EntryKind::Folder) };
    let wanted = Some((read_only, Choice::Wanted));
    let folder = scene.writer.target.make_folder(at("d"), wanted, &scene.top, &mut scene.cache).unwrap();
    let folder = Arc::new(folder);
    let file =
        FileJob::new(at("d/f"), Entry { size: 1, ..entry("d/f", EntryKind::File) }, Arc::clone(&folder));
    let mode = |scene: &Scene| std::fs::metadata(scene.path("d")).unwrap().mode() & 0o777;

    scene.writer.release(folder).unwrap();
    let before = mode(&scene);
    scene.restore(file, b"x");

    assert_eq!((before, mode(&scene)), (0o700, 0o555));
    assert_eq!(std::fs::metadata(scene.path("d")).unwrap().mtime(), -5);
}

/// C2: where the file system can, a file has no name at all until it is whole: a kill leaves nothing.
#[test]
fn a_file_without_a_name_leaves_nothing_behind() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let job = scene.job("f", 5);

    scene.writer.write(&job, &mut scene.cache, &mut Gather::new(), 0, b"hello").unwrap();

    if scene.writer.nameless.load(Ordering::Relaxed) {
        assert_eq!(scene.names(), Vec::<String>::new());
    }
    assert!(matches!(scene.restore_rest(job, 5), Finished::Restored(_)));
    assert_eq!(std::fs::read(scene.path("f")).unwrap(), b"hello");
}

impl Scene {
    fn restore_rest(&mut self, job: FileJob, data_len: u64) -> Finished {
        job.data_len.set(data_len).unwrap();
        self.writer.finish(job, &mut self.cache).unwrap().finished
    }
}

/// C16: whatever names the target takes for one, what this restore made is never replaced; what was there before is.
#[test]
fn what_this_restore_made_is_never_replaced() {
    for existing in [Existing::Refuse, Existing::Replace] {
        for with_names in [false, true] {
            let mut scene = scene(existing, |folder| {
                if existing == Existing::Replace {
                    std::fs::write(folder.join("f"), "old").unwrap();
                }
            });
            if with_names {
                scene = scene.with_names();
            }

            let first = scene.restore(scene.job("f", 3), b"one");
            let second = scene.restore(scene.job("f", 3), b"two");
            let link = scene.symlink("f");
            let other = scene.restore(scene.job("g", 1), b"g");
            let hard = scene.hard_link("f", ("g", scene.inode("g")));

            assert!(matches!(first, Finished::Restored(_)) && matches!(other, Finished::Restored(_)));
            assert!(
                matches!(&second, Finished::Failed(why) if why.to_string().contains("treats its name as equal"))
            );
            assert!(matches!(link, Err(Obstacle::Name(_))) && matches!(hard, Err(Obstacle::Name(_))));
            assert_eq!(std::fs::read(scene.path("f")).unwrap(), b"one", "{existing:?} {with_names}");
            assert_eq!(scene.names(), ["f", "g"]);
        }
    }
}

/// C3: whoever owns the target cannot make a name stand for another file than the one that was written.
#[test]
fn a_temporary_name_that_stands_for_another_file_is_not_published() {
    let mut scene = scene(Existing::Refuse, |_| ()).with_names();
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let large = usize::try_from(direct::FROM_LEN).unwrap();
    for (name, bytes) in [("small", vec![1; 9]), ("large", vec![2; large])] {
        let job = scene.job(name, u64::try_from(bytes.len()).unwrap());
        let (start, rest) = bytes.split_at(5);
        let mut gather = Gather::new();
        scene.writer.write(&job, &mut scene.cache, &mut gather, 0, start).unwrap();
        let temporary = scene.path(&scene.names()[0]);
        std::fs::remove_file(&temporary).unwrap();
        std::fs::hard_link(&precious, &temporary).unwrap();

        scene.writer.write(&job, &mut scene.cache, &mut gather, 5, rest).unwrap();
        scene.writer.flush(&job, &mut scene.cache, &mut gather).unwrap();
        let finished = scene.restore_rest(job, u64::try_from(bytes.len()).unwrap());

        assert!(matches!(&finished, Finished::Failed(why) if why.to_string().contains("another process")));
        assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
        assert_eq!(scene.names(), Vec::<String>::new());
    }
}

/// C3: the same for a link's first name.
#[test]
fn a_hard_link_is_made_only_of_the_file_that_was_restored() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let Finished::Restored(inode) = scene.restore(scene.job("f", 3), b"one") else { panic!("not restored") };
    move_away(&scene, "f");
    std::fs::write(scene.path("f"), "another").unwrap();

    let linked = scene.hard_link("g", ("f", inode));

    assert!(matches!(linked, Err(Obstacle::Name(_))), "{linked:?}");
    assert_eq!(scene.names(), ["away", "f"]);
}

/// C16: a folder is not given away if it is not the one that was made.
#[test]
fn a_folder_that_was_swapped_gets_no_attributes() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let open = Entry { mode: 0o777, ..entry("d", EntryKind::Folder) };
    let wanted = Some((open, Choice::Wanted));
    let folder = scene.writer.target.make_folder(at("d"), wanted, &scene.top, &mut scene.cache).unwrap();
    move_away(&scene, "d");
    std::fs::create_dir(scene.path("d")).unwrap();
    let before = std::fs::metadata(scene.path("d")).unwrap().mode();

    scene.writer.release(Arc::new(folder)).unwrap();

    assert_eq!(std::fs::metadata(scene.path("d")).unwrap().mode(), before);
    assert_eq!(scene.notes().0.len(), 1);
}

fn move_away(scene: &Scene, name: &str) {
    let folder = scene.writer.target.handle();
    rustix::fs::renameat(folder, name, folder, "away").unwrap();
}
