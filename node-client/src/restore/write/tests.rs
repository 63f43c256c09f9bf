use super::*;
use crate::restore::attributes::Setuid;
use format_spec::{EntryKind, EntryPath, Timestamp, Xattr};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

struct Scene {
    folder: tempfile::TempDir,
    writer: Writer,
    cache: FolderCache,
}

fn scene(existing: Existing, prepare: impl FnOnce(&Path)) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let writer = Writer {
        target: Target::open(folder.path(), existing).unwrap(),
        attributes: Attributes::new(Setuid::Drop),
        names: TemporaryNames::new().unwrap(),
    };
    Scene { folder, writer, cache: FolderCache::default() }
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

fn top() -> Arc<FolderJob> {
    Arc::new(FolderJob { at: TargetPath::default(), entry: None, parent: None })
}

fn job(name: &str, size: u64) -> FileJob {
    FileJob::new(at(name), Entry { size, ..entry(name, EntryKind::File) }, top())
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
        self.writer.finish(job, &mut self.cache).unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn a_file_has_another_name_until_it_is_whole() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let job = job("f", 5);

    scene.writer.write(&job, &mut scene.cache, &mut Gather::new(), 0, b"hello").unwrap();
    let before = scene.names();
    job.data_len.set(5).unwrap();
    let done = scene.writer.finish(job, &mut scene.cache).unwrap();

    assert!(before.len() == 1 && before[0].starts_with(TEMPORARY), "{before:?}");
    assert_eq!((done, scene.names()), (Finished::Restored, vec!["f".to_owned()]));
    let meta = std::fs::metadata(scene.path("f")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o440, -5, 123_456_789));
}

#[test]
fn a_file_that_is_given_up_leaves_no_name() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let (unplanned, short, dropped) = (job("a", 5), job("b", 5), job("c", 5));
    for job in [&unplanned, &short, &dropped] {
        scene.writer.write(job, &mut scene.cache, &mut Gather::new(), 0, b"hel").unwrap();
    }
    short.data_len.set(5).unwrap();
    assert_eq!(scene.names().len(), 3);

    assert_eq!(scene.writer.finish(unplanned, &mut scene.cache).unwrap(), Finished::Abandoned);
    assert_eq!(scene.writer.finish(short, &mut scene.cache).unwrap(), Finished::Abandoned);
    drop(dropped);

    assert_eq!(scene.names(), Vec::<String>::new());
}

#[test]
fn holes_are_not_written() {
    let mut scene = scene(Existing::Refuse, |_| ());

    scene.restore(job("f", 64 << 20), b"start");

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

    scene.restore(job("file", 3), b"new");
    scene.restore(job("link", 3), b"new");
    scene.writer.symlink(&at("again"), &entry("again", EntryKind::Symlink), &mut scene.cache).unwrap();
    scene.writer.hard_link(&at("hard"), &at("file"), &mut scene.cache).unwrap();
    scene.writer.hard_link(&at("hard"), &at("file"), &mut scene.cache).unwrap();

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

    scene.writer.symlink(&at("s"), &entry("s", EntryKind::Symlink), &mut scene.cache).unwrap();

    let meta = std::fs::symlink_metadata(scene.path("s")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 123_456_789));
}

#[test]
fn setuid_is_dropped_from_files_and_noted() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let mut program = job("f", 1);
    program.entry.mode = 0o6755;

    scene.restore(program, b"x");

    assert_eq!(std::fs::metadata(scene.path("f")).unwrap().mode() & 0o7777, 0o755);
    let notes = scene.writer.attributes.notes.take();
    assert!(notes.len() == 1 && notes[0].note.contains("setuid"), "{notes:?}");
}

#[test]
fn setuid_stays_when_asked() {
    let mut scene = scene(Existing::Refuse, |_| ());
    scene.writer.attributes = Attributes::new(Setuid::Keep);
    let mut program = job("f", 1);
    program.entry.mode = 0o4755;

    scene.restore(program, b"x");

    assert_eq!(std::fs::metadata(scene.path("f")).unwrap().mode() & 0o7777, 0o4755);
}

#[test]
fn an_attribute_that_cannot_be_set_is_a_note_and_no_failure() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let mut file = job("f", 1);
    file.entry.xattrs = vec![Xattr { name: b"nonsense.x".to_vec(), value: b"v".to_vec() }];

    assert_eq!(scene.restore(file, b"x"), Finished::Restored);

    let notes = scene.writer.attributes.notes.take();
    assert!(notes.len() == 1 && notes[0].note.contains("nonsense.x"), "{notes:?}");
}

#[test]
fn a_folder_gets_its_attributes_after_the_last_file_in_it() {
    let mut scene = scene(Existing::Refuse, |_| ());
    let read_only = Entry { mode: 0o555, ..entry("d", EntryKind::Folder) };
    scene.writer.target.make_folder(&at("d"), false, &mut scene.cache).unwrap();
    let folder = Arc::new(FolderJob { at: at("d"), entry: Some(read_only), parent: Some(top()) });
    let file =
        FileJob::new(at("d/f"), Entry { size: 1, ..entry("d/f", EntryKind::File) }, Arc::clone(&folder));
    let mode = |scene: &Scene| std::fs::metadata(scene.path("d")).unwrap().mode() & 0o777;

    scene.writer.release(folder).unwrap();
    let before = mode(&scene);
    scene.restore(file, b"x");

    assert_eq!((before, mode(&scene)), (0o700, 0o555));
    assert_eq!(std::fs::metadata(scene.path("d")).unwrap().mtime(), -5);
}
