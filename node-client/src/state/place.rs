//! Where the states of one cluster, node and set of roots lie, and what their headers say.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use format_spec::{ClusterName, ManifestId, NodeName, RepositoryId};
use rustix::fs::FlockOperation;

use super::{FIXED_LEN, Fields, MAGIC, VERSION};
use crate::push::Root;

/// Longest list of roots that is believed.
const MAX_ROOTS_LEN: usize = 16 << 20;

/// Where states lie unless someone says otherwise: for root the machine's folder, else the user's.
pub(crate) fn default_folder(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(folder) = env("ASTACUS_STATE_DIR").filter(|folder| !folder.is_empty()) {
        return Some(PathBuf::from(folder));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/astacus"));
    }
    let home = env("XDG_STATE_HOME").map(PathBuf::from);
    let home = home.or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".local/state")))?;
    Some(home.join("astacus"))
}

/// The folder of one cluster's node, and the roots that are looked for in it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
    roots: Vec<u8>,
}

/// The start of a state, not checked yet: the key for that comes with the session.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) repository: RepositoryId,
    pub(crate) manifest: ManifestId,
    pub(super) nonce: [u8; 16],
    pub(super) trailer: u64,
    pub(super) roots: Vec<u8>,
    /// The file, behind its header.
    pub(super) file: File,
}

impl Place {
    /// The place below the state folder `base`.
    pub(crate) fn new(base: &Path, cluster: &ClusterName, node: &NodeName, roots: &[Root]) -> Self {
        let folder = base.join("push").join(cluster.as_str()).join(node.as_str());
        let mut bytes = Vec::new();
        for root in roots {
            bytes.extend_from_slice(root.path.as_bytes());
            bytes.push(0);
        }
        Self { folder, roots: bytes }
    }

    /// The state that was written last, whatever its repository.
    pub(crate) fn newest(&self) -> Option<Header> {
        let prefix = self.prefix();
        let states = fs::read_dir(&self.folder).ok()?.flatten().filter(|found| {
            let name = found.file_name();
            name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".state"))
        });
        let newest = states.max_by_key(|found| found.metadata().and_then(|about| about.modified()).ok())?;
        self.read(&newest.path())
    }

    /// The state of `repository`.
    pub(crate) fn of(&self, repository: &RepositoryId) -> Option<Header> {
        self.read(&self.folder.join(self.name(repository)))
    }

    fn read(&self, path: &Path) -> Option<Header> {
        read_header(path).filter(|header| header.roots == self.roots)
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
        format!("{}{repository}.state", self.prefix())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn roots(&self) -> &[u8] {
        &self.roots
    }

    /// Creates the next state of `repository` under its temporary name. `None` if another push is
    /// writing it. A leftover of a push that was killed is written over.
    pub(super) fn create(&self, repository: &RepositoryId) -> io::Result<Option<(File, String)>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let name = format!("{}.new", self.name(repository));
        let path = self.folder.join(&name);
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

/// Tells sets of roots apart in file names. A collision costs a full push: the header has the roots.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn read_header(path: &Path) -> Option<Header> {
    let mut file = File::open(path).ok()?;
    let mut fixed = [0; FIXED_LEN];
    file.read_exact(&mut fixed).ok()?;
    let mut fields = Fields(&fixed);
    if fields.array()? != *MAGIC || fields.array()? != VERSION.to_le_bytes() {
        return None;
    }
    let repository = RepositoryId::from_bytes(fields.array()?);
    let nonce = fields.array()?;
    let manifest = ManifestId::from_bytes(fields.array()?);
    let trailer = fields.u64()?;
    let len = usize::try_from(fields.u32()?).ok().filter(|len| *len <= MAX_ROOTS_LEN)?;
    let mut roots = vec![0; len];
    file.read_exact(&mut roots).ok()?;
    Some(Header { repository, manifest, nonce, trailer, roots, file })
}
