//! The workspace as the checks see it: packages, what they depend on, and text files.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A workspace. Tests write one by hand.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) packages: Vec<Package>,
    pub(crate) files: Vec<File>,
}

/// One package.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its folder from the top, such as `tools/admin`.
    pub(crate) folder: String,
    /// Names of the crates it depends on, of every kind, with `_` for `-`.
    pub(crate) dependencies: Vec<String>,
}

/// One text file.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path from the top.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// True if `path` is `place` or is inside it. Nothing is inside the empty path.
pub(crate) fn is_below(path: &str, place: &str) -> bool {
    !place.is_empty() && path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: String,
}

#[derive(Deserialize)]
struct MetadataPackage {
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

impl Tree {
    /// The workspace that this program was built from.
    pub(crate) fn read() -> Result<Self> {
        let metadata = metadata()?;
        let top = Path::new(&metadata.workspace_root);
        let mut tree = Self::default();
        for package in metadata.packages {
            let folder = Path::new(&package.manifest_path).parent().and_then(|at| at.strip_prefix(top).ok());
            let folder = folder.context("a package lies outside of the workspace")?.display().to_string();
            let dependencies = package.dependencies.iter().map(|found| found.name.replace('-', "_"));
            tree.files.extend(read_files(top, &top.join(&folder))?);
            tree.packages.push(Package { dependencies: dependencies.collect(), folder });
        }
        tree.files.extend(read_files(top, &top.join("docs"))?);
        Ok(tree)
    }

    /// Rust files below `place`.
    pub(crate) fn sources<'a>(&'a self, place: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(".rs") && is_below(&file.path, place))
    }
}

fn metadata() -> Result<Metadata> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).output().context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("read what cargo metadata says")
}

fn read_files(top: &Path, folder: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(read_files(top, &path)?);
        } else if path.extension().is_some_and(|kind| ["rs", "toml", "md"].iter().any(|known| kind == *known))
        {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let path = path.strip_prefix(top).context("a file lies outside of the workspace")?;
            files.push(File { path: path.display().to_string(), text });
        }
    }
    Ok(files)
}
