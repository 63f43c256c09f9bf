//! Place of the states of one cluster, node and set of roots, and their headers.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use format_spec::manifest::MAX_ROOTS;
use format_spec::{ClusterName, EntryPath, ManifestId, NodeName, RepositoryId, SessionId};
use rustix::fs::FlockOperation;

use super::{DEVICE_LEN, FIXED_LEN, Fields, MAGIC, Preamble, VERSION};
use crate::identity::Device;

/// Extension of the state of a finished push.
const STATE: &str = "state";
/// Extension of the file that a push is writing.
const NEW: &str = "new";
/// Extension of what an unfinished push has left.
const JOURNAL: &str = "journal";
/// Longest list of roots that is believed.
const MAX_ROOTS_LEN: u32 = 16 << 20;

/// Default folder of states: for root the machine's folder, else that of the systemd unit
/// (`StateDirectory=`), else the user's.
pub(crate) fn default_folder(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(folder) = env("ASTACUS_STATE_DIR").filter(|folder| !folder.is_empty()) {
        return Some(PathBuf::from(folder));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/astacus"));
    }
    folder_of_user(env)
}

/// The folder of a user; none if no absolute path leads there.
pub(super) fn folder_of_user(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = |name| env(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    // A unit may have several, joined by colons.
    let of_unit = env("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from));
    if let Some(of_unit) = of_unit.filter(|folder| folder.is_absolute()) {
        return Some(of_unit);
    }
    let home = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(home.join("astacus"))
}

/// The folder of one cluster's node, and the roots that are looked for in it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
    roots: Vec<u8>,
}

/// The start of a state or a journal, not checked yet: the key for that comes with the session.
#[derive(Debug)]
pub(crate) struct Header {
    pub(super) preamble: Preamble,
    /// The file, behind what was read of it.
    pub(super) file: File,
}

impl Header {
    /// The repository that it belongs to.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.preamble.repository
    }

    /// The manifest of a finished push.
    pub(crate) fn manifest(&self) -> ManifestId {
        self.preamble.manifest
    }

    /// The session of the push that wrote it.
    pub(crate) fn session(&self) -> SessionId {
        self.preamble.session
    }

    /// Device of each root at that push.
    pub(crate) fn devices(&self) -> &[Device] {
        &self.preamble.devices
    }

    /// How many pushes were remembered before it.
    pub(crate) fn number(&self) -> u64 {
        self.preamble.number
    }
}

impl Place {
    /// The place below the state folder `base`.
    pub(crate) fn new(base: &Path, cluster: &ClusterName, node: &NodeName, roots: &[EntryPath]) -> Self {
        let folder = base.join("push").join(cluster.as_str()).join(node.as_str());
        let mut bytes = Vec::new();
        for root in roots {
            bytes.extend_from_slice(root.as_bytes());
            bytes.push(0);
        }
        Self { folder, roots: bytes }
    }

    /// The state that was written last, whatever its repository.
    pub(crate) fn newest(&self) -> Option<Header> {
        self.newest_of(STATE)
    }

    /// The state of `repository`.
    pub(crate) fn of(&self, repository: &RepositoryId) -> Option<Header> {
        self.read(&self.folder.join(self.name(repository)))
    }

    /// The journal of a push that is over and was not remembered, whatever its repository.
    pub(crate) fn journal(&self) -> Option<Header> {
        for found in self.files(NEW) {
            let (from, to) = (found.path(), found.path().with_extension(JOURNAL));
            // A journal that cannot be moved is overwritten.
            if let Err(error) = keep_longer(&from, &to) {
                tracing::debug!(%error, path = %from.display(), "a journal could not be removed");
            }
        }
        self.newest_of(JOURNAL)
    }

    /// Forgets the journal of `repository`: a later push is remembered.
    pub(super) fn forget_journal(&self, repository: &RepositoryId) {
        let path = self.folder.join(self.name(repository)).with_extension(JOURNAL);
        // A file that stays is asked about again, which only costs time.
        let _ = fs::remove_file(path);
    }

    fn newest_of(&self, extension: &str) -> Option<Header> {
        let modified = |found: &fs::DirEntry| found.metadata().and_then(|about| about.modified()).ok();
        self.read(&self.files(extension).max_by_key(modified)?.path())
    }

    /// The files of these roots with this extension.
    fn files(&self, extension: &str) -> impl Iterator<Item = fs::DirEntry> {
        let (prefix, extension) = (self.prefix(), OsString::from(extension));
        let found = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        found.filter(move |found| {
            let name = found.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.starts_with(&prefix));
            is_ours && found.path().extension() == Some(&extension)
        })
    }

    fn read(&self, path: &Path) -> Option<Header> {
        read_header(File::open(path).ok()?).filter(|header| header.preamble.roots == self.roots)
    }

    /// A file without a name, for as long as it is open.
    pub(crate) fn scratch(&self) -> io::Result<File> {
        make_folder(&self.folder).and_then(|()| tempfile::tempfile_in(&self.folder))
    }

    /// Tells the pushes of these roots from others.
    pub(crate) fn key(&self) -> String {
        let mut text = self.folder.as_os_str().as_encoded_bytes().to_vec();
        text.extend_from_slice(&self.roots);
        format!("{:016x}", fnv1a(&text))
    }

    /// The same place with other roots.
    #[cfg(test)]
    pub(super) fn set_roots(&mut self, roots: Vec<u8>) {
        self.roots = roots;
    }

    fn prefix(&self) -> String {
        format!("{:016x}-", fnv1a(&self.roots))
    }

    /// File name of the state of `repository`.
    pub(super) fn name(&self, repository: &RepositoryId) -> String {
        format!("{}{repository}.{STATE}", self.prefix())
    }

    /// Device of each root now.
    pub(crate) fn devices(&self) -> Vec<Device> {
        roots_of(&self.roots).map(|root| Device::of(&root)).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn roots(&self) -> &[u8] {
        &self.roots
    }

    /// Creates the next state of `repository` under its temporary name. `None` if another push is
    /// writing it. What [`journal`](Self::journal) did not take is written over.
    pub(super) fn create(&self, repository: &RepositoryId) -> io::Result<Option<(File, OsString)>> {
        make_folder(&self.folder)?;
        let path = self.folder.join(self.name(repository)).with_extension(NEW);
        let name = path.file_name().unwrap_or_default().to_owned();
        loop {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            if rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(None);
            }
            // The name may have moved on between opening and locking.
            let same = match fs::metadata(&path) {
                Ok(named) => named.ino() == file.metadata()?.ino(),
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if same {
                file.set_len(0)?;
                return Ok(Some((file, name)));
            }
        }
    }
}

/// The folders that were pushed from this machine, as far as the states below `base` say.
pub(crate) fn remembered_roots(base: &Path) -> Vec<PathBuf> {
    let names =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|found| found.path());
    let nodes = names(base.join("push")).flat_map(names);
    let headers = nodes.flat_map(names).filter_map(|file| read_header(File::open(file).ok()?));
    let roots = headers.flat_map(|header| roots_of(&header.preamble.roots).collect::<Vec<_>>());
    roots.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The folders in a list of roots.
fn roots_of(roots: &[u8]) -> impl Iterator<Item = PathBuf> {
    // Each ends with a NUL, and that of `/` is nothing else.
    let roots = roots.strip_suffix(&[0]).map(|roots| roots.split(|byte| *byte == 0));
    roots.into_iter().flatten().map(|root| Path::new("/").join(OsStr::from_bytes(root)))
}

/// Tells sets of roots apart in file names. A collision costs a full push: the header has the roots.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Makes a folder for the user alone.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Moves an abandoned journal to its place, unless a longer one is there. Of two that are equally long the
/// newer one has the present times.
fn keep_longer(from: &Path, to: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(from)?;
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)?;
    let there = fs::metadata(to).map(|about| about.len()).unwrap_or_default();
    if file.metadata()?.len() < there {
        return fs::remove_file(from);
    }
    // A power cut may lose the rename, because a journal only saves work.
    Ok(rustix::fs::renameat(rustix::fs::CWD, from, rustix::fs::CWD, to)?)
}

/// The header at the start of `file`. Takes no more memory than the file is long, whatever it claims.
pub(super) fn read_header(mut file: File) -> Option<Header> {
    let mut fixed = [0; FIXED_LEN];
    file.read_exact(&mut fixed).ok()?;
    let mut fields = Fields(&fixed);
    if fields.array()? != *MAGIC || fields.array()? != VERSION.to_le_bytes() {
        return None;
    }
    let repository = RepositoryId::from_bytes(fields.array()?);
    let session = SessionId::from_bytes(fields.array()?);
    let manifest = ManifestId::from_bytes(fields.array()?);
    let (end, number) = (fields.u64()?, fields.u64()?);
    let len = fields.u32().filter(|len| *len <= MAX_ROOTS_LEN)?;
    let count = usize::try_from(fields.u32()?).ok().filter(|count| *count <= MAX_ROOTS)?;
    let mut roots = Vec::new();
    (&file).take(len.into()).read_to_end(&mut roots).ok()?;
    if u32::try_from(roots.len()) != Ok(len) {
        return None;
    }
    let mut bytes = vec![0; count * DEVICE_LEN];
    file.read_exact(&mut bytes).ok()?;
    let mut fields = Fields(&bytes);
    let device = |fields: &mut Fields<'_>| Some(Device { dev: fields.u64()?, file_system: fields.u64()? });
    let devices = (0..count).map(|_| device(&mut fields)).collect::<Option<_>>()?;
    let preamble = Preamble { repository, session, manifest, end, number, roots, devices };
    Some(Header { preamble, file })
}
