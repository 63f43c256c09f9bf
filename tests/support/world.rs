//! One temporary folder with a server, its nodes, and what they push and restore.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::client::Client;
use crate::http::Wire;
use crate::server::{CONFIG, Server};

/// A repository with its server, and room for trees. Everything goes when it is dropped.
pub struct World {
    /// The server.
    pub server: Server,
    folder: Folder,
}

impl World {
    /// A new repository and its running server.
    pub fn new() -> Self {
        let folder = Folder::new();
        Self { server: Server::start(&folder.path("data")), folder }
    }

    /// The same with more lines in the server's configuration, which is otherwise that of all tests.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    pub fn with_config(more: &str) -> Self {
        let folder = Folder::new();
        let config = folder.path("server.toml");
        let all = std::fs::read_to_string(CONFIG).expect("the configuration of tests is there");
        std::fs::write(&config, all + more).expect("a temporary folder can be written");
        Self { server: Server::start_with(&folder.path("data"), &config), folder }
    }

    /// A path in the temporary folder. Nothing is made.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// A folder in the temporary folder, made if it is missing.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.folder.dir(name)
    }

    /// The node `node` of the cluster `c`.
    pub fn node(&self, node: &str) -> Client {
        self.node_of("c", node)
    }

    /// The node `node` of `cluster`.
    pub fn node_of(&self, cluster: &str, node: &str) -> Client {
        Client::new(&self.server, cluster, node, &self.path(&format!("home-{cluster}-{node}")))
    }

    /// Speaks HTTP to the server, with its token.
    pub fn wire(&self) -> Wire {
        Wire::to(&self.server)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A temporary folder that goes when it is dropped, whatever the modes of what is in it.
pub struct Folder(TempDir);

impl Folder {
    /// A new folder, which every user may enter.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("astacus-test-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("it is ours");
        Self(folder)
    }

    /// A path in it. Nothing is made.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A folder in it, made if it is missing.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a temporary folder can be written");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        open_up(self.0.path());
    }
}

/// Makes every folder below `path` writable, so that all of it can be removed.
fn open_up(path: &Path) {
    // Folders that cannot be opened stay in the temporary folder of the machine; no test depends on it.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Where a pushed root lies in a folder that it was restored to.
///
/// # Panics
/// If `root` is not absolute.
pub fn restored(to: &Path, root: &Path) -> PathBuf {
    to.join(root.strip_prefix("/").expect("roots are absolute"))
}

/// The files below `folder` that hold stored bytes of one kind, such as `packs`, sorted.
///
/// # Panics
/// If the folder of a site cannot be read.
pub fn objects(data: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data.join("site").join(kind)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.expect("a site can be read");
            if entry.file_type().expect("a site can be read").is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Bytes of all files below `folder`, without those of locks, which change by themselves.
///
/// # Panics
/// If it cannot be read.
pub fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder can be read");
    let len = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("a folder can be read");
        match entry.metadata().expect("an entry can be read") {
            meta if meta.is_dir() && entry.file_name() == "locks" => 0,
            meta if meta.is_dir() => bytes_below(&entry.path()),
            meta => meta.len(),
        }
    };
    entries.map(len).sum()
}
