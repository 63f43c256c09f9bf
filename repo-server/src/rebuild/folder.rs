//! The data folder of a rebuild: what may become one, and what is in it until the rebuild is done.

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
use crate::site::SiteUrl;
use crate::site::layout::descriptor_object;
use crate::start::CreateError;
use crate::start::folder::{self, MARKER};
use crate::store::{OnHalt, Store};

/// Input of a rebuild.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The new data folder: empty, missing, or one without an index.
    pub data_dir: PathBuf,
    /// The site.
    pub site: SiteUrl,
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
    #[error("{site} contains another site: choose another data folder")]
    OtherSite { site: SiteUrl },
    /// The site holds no repository.
    #[error("{site} is not a site of a repository: `{}` is missing", descriptor_object())]
    NoRepository { site: SiteUrl },
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
    let site = plan.site.canonical();
    let descriptor = read_descriptor(&site).await?;
    let master = read_key(&plan.key_file, &descriptor)?;
    let dir = plan.data_dir.as_path();
    check_folder(dir, &site, &descriptor).await?;

    let dir = &durable::settled_folder(&RealDisk, dir).map_err(CreateError::from)?;
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
        passphrase_file: None,
    };
    let site = site.open_to_read().map_err(CreateError::from)?;
    let parts = folder::parts(dir, wrap(index), site, settings, on_halt);
    let store = Store::open(parts, master, descriptor);
    let report = store.waiting(fill_from_site).await.map_err(RebuildError::Fill)?;
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

async fn read_descriptor(site: &SiteUrl) -> Result<Descriptor, RebuildError> {
    let found = site.find_descriptor().await.map_err(CreateError::from)?;
    let bytes = found.ok_or_else(|| RebuildError::NoRepository { site: site.clone() })?;
    Ok(Descriptor::decode(&bytes).map_err(CreateError::Descriptor)?)
}

/// The key in a file, which must be there and fit.
fn read_key(path: &Path, descriptor: &Descriptor) -> Result<MasterKey, CreateError> {
    let text = folder::read_secret(path)?.ok_or_else(|| CreateError::Missing { path: path.to_owned() })?;
    let master = folder::parse_key(path, &text)?;
    if descriptor.fits(&master) { Ok(master) } else { Err(CreateError::WrongKey { path: path.to_owned() }) }
}

/// Checks that a folder may become the data folder.
async fn check_folder(dir: &Path, site: &SiteUrl, descriptor: &Descriptor) -> Result<(), RebuildError> {
    if !dir.exists() {
        return Ok(());
    }
    folder::check_ours(dir)?;
    if !dir.join(MARKER).exists() && dir.join("index/db").exists() {
        return Err(RebuildError::HasIndex { dir: dir.to_owned() });
    }
    check_own_site(dir, site).await?;
    let key = dir.join("master.key");
    if key.exists() {
        read_key(&key, descriptor)?;
    }
    Ok(())
}

/// Checks that the default site in the folder, if there is one, is the one that was named.
async fn check_own_site(dir: &Path, site: &SiteUrl) -> Result<(), RebuildError> {
    let own = SiteUrl::default_in(dir);
    let is_other = own.canonical() != *site;
    if is_other && own.find_descriptor().await.map_err(CreateError::from)?.is_some() {
        return Err(RebuildError::OtherSite { site: own });
    }
    Ok(())
}
