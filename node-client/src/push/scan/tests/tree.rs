//! A folder that is pushed, and what its owner does to it.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use format_spec::key::DomainKey;
use format_spec::{ChunkId, EntryPath, Timestamp};

use super::outcome::Outcome;
use super::push::{Push, Remember};
use super::{LATER, Server};
use crate::cancel::Cancel;
use crate::identity::Identity;
use crate::push::freeze::FreezeMode;
use crate::push::second_names::BASE_NAME;
use crate::push::select::roots;
use crate::push::select::roots::Root;
use crate::push::stat::Stat;
use crate::push::verdict::draw::pick;
use crate::push::{Alike, Rehash, Strict};
use crate::state::Place;

/// The key of all trees.
pub(super) fn domain() -> DomainKey {
    DomainKey::parse(&"c3".repeat(32)).unwrap()
}

/// A folder to push, what is remembered of its pushes, and the chunks that the server has.
pub(super) struct Tree {
    temp: tempfile::TempDir,
    root: PathBuf,
    server: Arc<Server>,
    sessions: AtomicU8,
}

impl Tree {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap().join("root");
        fs::create_dir(&root).unwrap();
        Self { temp, root, server: Arc::default(), sessions: AtomicU8::new(0) }
    }

    /// A push that remembers those before and knows of no classes.
    pub(super) fn push(&self) -> Push<'_> {
        Push {
            tree: self,
            server: Arc::clone(&self.server),
            remember: Remember::Pushes,
            mode: FreezeMode::default(),
            classes: Vec::new(),
            class_sets: Vec::new(),
            rehash: Rehash::Never,
            clock: LATER,
            strict: Strict::No,
            alike: Alike::Exact,
            purse: None,
            cancel: Cancel::new(),
            between: Box::new(|| ()),
            on_read: Box::new(|_| ()),
        }
    }

    /// Result of a push of the tree without saved state, which changes nothing.
    pub(super) fn afresh(&self) -> Outcome {
        self.push().afresh().freeze(FreezeMode::Off).run()
    }

    /// Lets a file grow twice with a push after each: then it is taken for a log.
    pub(super) fn earn_trust(&self, name: &str, mode: FreezeMode) {
        for _ in 0..2 {
            self.append(name, b"one more");
            assert_eq!(self.push().freeze(mode).run().stats.appended, 1);
        }
    }

    /// The id of the next session.
    pub(super) fn session(&self) -> [u8; 16] {
        [self.sessions.fetch_add(1, Ordering::Relaxed) + 1; 16]
    }

    pub(super) fn roots(&self) -> Vec<Root> {
        roots::check(std::slice::from_ref(&self.root)).unwrap()
    }

    pub(super) fn place(&self) -> Place {
        let (cluster, node) = ("c".parse().unwrap(), "n".parse().unwrap());
        let roots: Vec<_> = self.roots().into_iter().map(|root| root.path).collect();
        Place::new(&self.temp.path().join("state"), &cluster, &node, &roots)
    }

    /// The files in which pushes are remembered that have this extension.
    pub(super) fn states(&self, extension: &str) -> Vec<PathBuf> {
        let folder = self.temp.path().join("state/push/c/n");
        let paths = fs::read_dir(folder).unwrap().map(|found| found.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }

    /// Where `name` lies on disk.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// `path` without the root.
    pub(super) fn below(&self, path: &EntryPath) -> String {
        let root = EntryPath::new(self.root.to_str().unwrap().as_bytes()[1..].to_vec()).unwrap();
        String::from_utf8_lossy(path.below(&root).unwrap()).into_owned()
    }

    /// Writes a file that was not there.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn open(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.path(name)).unwrap()
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(super) fn append(&self, name: &str, bytes: &[u8]) {
        let file = self.open(name);
        file.write_all_at(bytes, file.metadata().unwrap().len()).unwrap();
    }

    /// Writes in place; the file gets another mtime.
    pub(super) fn overwrite(&self, name: &str, at: u64, bytes: &[u8]) {
        let file = self.open(name);
        self.until_changed(name, || file.write_all_at(bytes, at).unwrap());
    }

    /// Writes in place and sets the mtime back.
    pub(super) fn overwrite_in_secret(&self, name: &str, at: u64, bytes: &[u8]) {
        let file = self.open(name);
        let before = file.metadata().unwrap().modified().unwrap();
        self.until_changed(name, || {
            file.write_all_at(bytes, at).unwrap();
            file.set_times(FileTimes::new().set_modified(before)).unwrap();
        });
    }

    /// Sets the length; the file gets another mtime.
    pub(super) fn cut(&self, name: &str, len: u64) {
        self.until_changed(name, || self.set_len(name, len));
    }

    pub(super) fn set_len(&self, name: &str, len: u64) {
        self.open(name).set_len(len).unwrap();
    }

    pub(super) fn set_mtime(&self, name: &str, time: SystemTime) {
        self.open(name).set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    pub(super) fn mtime(&self, name: &str) -> SystemTime {
        fs::metadata(self.path(name)).unwrap().modified().unwrap()
    }

    pub(super) fn chmod(&self, name: &str, mode: u32) {
        self.until_changed(name, || {
            fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap()
        });
    }

    /// Gives the file one more name outside the tree.
    pub(super) fn link(&self, name: &str) {
        self.until_changed(name, || {
            let other = self.temp.path().join(format!("{name} {}", self.links(name)));
            fs::hard_link(self.path(name), other).unwrap();
        });
    }

    /// Gives the file another name outside the tree, and takes that away.
    pub(super) fn link_and_unlink(&self, name: &str) {
        let other = self.temp.path().join("snapshot of the owner");
        self.until_changed(name, || {
            fs::hard_link(self.path(name), &other).unwrap();
            fs::remove_file(&other).unwrap();
        });
    }

    /// Puts another file in its place, as those do who write safely.
    pub(super) fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = self.temp.path().join("new");
        fs::write(&new, content).unwrap();
        rename(&new, &self.path(name));
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        rename(&self.path(from), &self.path(to));
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub(super) fn identity(&self, name: &str) -> Identity {
        Stat::of_file(File::open(self.path(name)).unwrap()).unwrap().identity
    }

    pub(super) fn links(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).unwrap().nlink()
    }

    /// The server has lost some chunks.
    pub(super) fn lose(&self, ids: &[ChunkId]) {
        let mut server = self.server.lock().unwrap();
        ids.iter().for_each(|id| assert!(server.remove(id).is_some(), "it was there"));
    }

    /// True if the server lacks the chunk.
    pub(super) fn lacks(&self, id: &ChunkId) -> bool {
        !self.server.lock().unwrap().contains_key(id)
    }

    /// How many second names there are.
    pub(super) fn second_names(&self) -> usize {
        let below = |folder: PathBuf| {
            let found = fs::read_dir(folder).into_iter().flatten().map(|found| found.unwrap().path());
            found.filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        let fans = below(self.temp.path().join(BASE_NAME)).into_iter().flat_map(below);
        fans.map(|fan| fs::read_dir(fan).unwrap().count()).sum()
    }

    /// True if a push has left files in the root.
    pub(super) fn is_clean(&self) -> bool {
        !self.temp.path().join(BASE_NAME).exists()
    }

    /// Lets the file system's clock, which may be coarse, tick once, and returns its time.
    pub(super) fn tick(&self) -> Timestamp {
        let other = self.temp.path().join("clock");
        let time = || {
            fs::write(&other, "").unwrap();
            Stat::of_file(File::open(&other).unwrap()).unwrap().identity.mtime
        };
        let before = time();
        std::iter::repeat_with(time).find(|time| *time != before).unwrap()
    }

    /// Repeats `change` until the file system's clock, which may be coarse, has ticked.
    fn until_changed(&self, name: &str, change: impl Fn()) {
        let before = self.identity(name).ctime;
        while self.identity(name).ctime == before {
            change();
        }
    }
}

/// Nothing needs to be durable here.
pub(super) fn rename(from: &Path, to: &Path) {
    rustix::fs::renameat(rustix::fs::CWD, from, rustix::fs::CWD, to).unwrap();
}

/// Bytes without repetitions; a shorter run is the start of a longer one.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    for n in (0..).take(len.div_ceil(8)) {
        bytes.extend_from_slice(&pick(seed, n, u64::MAX).to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}
