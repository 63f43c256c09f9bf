//! The data folder of a rebuild: what may become one, and what is in it until the rebuild is done.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use format_spec::ErrorClass;
use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;

use super::RebuildReport;
use super::fill::fill_from_site;
use crate::durable::{self, RealDisk};
use crate::error::ServerError;
use crate::index::{self, Engine, Index, OpenError};
use crate::settings::{Choices, Settings, SpaceSettings, Upkeep};
use crate::site::StoreSite;
use crate::start::folder::{self, MARKER};
use crate::start::{CreateError, read_error};
use crate::store::{OnHalt, Store};

/// Input of a rebuild.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The new data folder: empty, missing, or one without an index.
    pub data_dir: PathBuf,
    /// The folder of the site.
    pub site: PathBuf,
    /// The file with the master key.
    pub key_file: PathBuf,
    /// The engine of the new index.
    pub engine: Engine,
}

/// Why there was no rebuild. Unless it says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum RebuildError {
    /// The folder has an index.
    #[error("{} already has an index: move it away, or choose another data folder", dir.display())]
    HasIndex { dir: PathBuf },
    /// The folder has a site, and that is not the one that was named.
    #[error("{} contains another site: choose another data folder", dir.display())]
    OtherSite { dir: PathBuf },
    /// The site holds no repository.
    #[error("{} is not a site of a repository: `keyring/repository` is missing", site.display())]
    NoRepository { site: PathBuf },
    /// A file, a folder or the index.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The site could not be read, or the index not be filled. The rebuild can be started again.
    #[error("rebuild the index")]
    Fill(#[source] ServerError),
}

impl RebuildError {
    /// Action that the operator can take.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::HasIndex { .. } | Self::OtherSite { .. } => ErrorClass::Usage,
            Self::NoRepository { .. } => ErrorClass::NotFound,
            Self::Create(error) => error.class(),
            Self::Fill(error) => error.class(),
        }
    }
}

/// Rebuilds a data folder from its site and its key. When this returns, a server can be started over it. An
/// existing token is kept; if there is none, a new one is made. `wrap` may wrap the new index, as tests do
/// that end the process at its writes. No server may run over the site.
///
/// # Errors
/// [`RebuildError`]. What was begun is finished by the next rebuild; until then no server starts.
pub async fn run(
    plan: &Plan,
    on_halt: OnHalt,
    wrap: impl FnOnce(Arc<dyn Index>) -> Arc<dyn Index>,
) -> Result<RebuildReport, RebuildError> {
    let site = std::fs::canonicalize(&plan.site)
        .map_err(|_| RebuildError::NoRepository { site: plan.site.clone() })?;
    let descriptor = read_descriptor(&site)?;
    let master = read_key(&plan.key_file, &descriptor)?;
    let dir = plan.data_dir.as_path();
    check_folder(dir, &site, &descriptor)?;

    let dir = &folder::settled_folder(&RealDisk, dir)?;
    durable::sweep_temporaries(&RealDisk, dir).map_err(CreateError::from)?;
    durable::publish(&RealDisk, dir, &folder::name(MARKER), MARKER_TEXT).map_err(CreateError::from)?;
    folder::read_or_publish(&RealDisk, dir, "master.key", || master.to_file_text())?;
    folder::new_token(&RealDisk, dir)?;
    let index = new_index(dir, plan.engine).map_err(CreateError::from)?;
    folder::sweep_scratch(dir)?;
    let settings = Settings {
        engine: plan.engine,
        chunker: Some(descriptor.chunker),
        space: SpaceSettings::default(),
        upkeep: Upkeep::default(),
        choices: Choices::default(),
        memory_bytes: REBUILD_MEMORY,
    };
    let site = StoreSite::folder_in_use(&site).map_err(CreateError::from)?;
    let parts = folder::parts(dir, wrap(index), Arc::new(site), settings, on_halt);
    let store = Store::open(parts, master, descriptor);
    let report = store.blocking(fill_from_site).await.map_err(RebuildError::Fill)?;
    drop(store);
    durable::remove(&RealDisk, dir, &folder::name(MARKER)).map_err(CreateError::from)?;
    Ok(report)
}

/// A rebuild serves no requests.
const REBUILD_MEMORY: u64 = 0;

const MARKER_TEXT: &[u8] = b"The index here is not finished: run `astacus-server rebuild` again.\n";

fn new_index(dir: &Path, engine: Engine) -> Result<Arc<dyn Index>, OpenError> {
    let dir = dir.join("index");
    index::discard(&dir)?;
    index::open(engine, &dir)
}

fn read_descriptor(site: &Path) -> Result<Descriptor, RebuildError> {
    let path = site.join("keyring/repository");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Descriptor::decode(&bytes).map_err(CreateError::Descriptor)?),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(RebuildError::NoRepository { site: site.to_owned() })
        }
        Err(source) => Err(read_error(&path, source).into()),
    }
}

/// The key in a file, which must be there and fit.
fn read_key(path: &Path, descriptor: &Descriptor) -> Result<MasterKey, CreateError> {
    let text = folder::read_secret(path)?.ok_or_else(|| CreateError::Missing { path: path.to_owned() })?;
    let master = folder::parse_key(path, &text)?;
    if descriptor.fits(&master) { Ok(master) } else { Err(CreateError::WrongKey { path: path.to_owned() }) }
}

/// Checks that a folder may become the data folder.
fn check_folder(dir: &Path, site: &Path, descriptor: &Descriptor) -> Result<(), RebuildError> {
    if !dir.exists() {
        return Ok(());
    }
    folder::check_ours(dir)?;
    if !dir.join(MARKER).exists() && dir.join("index/db").exists() {
        return Err(RebuildError::HasIndex { dir: dir.to_owned() });
    }
    let own = dir.join("site");
    let is_other = std::fs::canonicalize(&own).is_ok_and(|own| own != site);
    if is_other && own.join("keyring/repository").exists() {
        return Err(RebuildError::OtherSite { dir: own });
    }
    let key = dir.join("master.key");
    if key.exists() {
        read_key(&key, descriptor)?;
    }
    Ok(())
}
