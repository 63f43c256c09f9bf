//! A data folder: opened if it holds a repository, made into one if it is empty.
//!
//! ```text
//! DIR/master.key    the master key, hex, mode 0600; may be missing if another slot opens it, see `keys`
//! DIR/keyring.json  other slots that open the master key, mode 0600
//! DIR/admin.token   the first token, with all rights, mode 0600
//! DIR/access.json   tokens, nodes and invitations, mode 0600
//! DIR/tls/          CA and certificate of the server, see `tls`
//! DIR/repository.json   a copy of the descriptor on the site
//! DIR/index/        the index
//! DIR/ballast       room for a collector on a full disk, see `space`
//! DIR/site/         the default site
//! DIR/rebuilding    while a rebuild of the index is not finished
//! DIR/tmp/          temporary files; emptied at each start
//! ```
//! The descriptor on the site is written last: a folder without it was cut short while it was made,
//! and the next start goes on with what is there.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::descriptor::Descriptor;
use format_spec::key::MasterKey;
use format_spec::wire::ChunkerSpec;
use format_spec::{FormatError, RepositoryId, id};

use super::error::{COPY, CreateError, read_error};
use super::{guard, lock};
use crate::access::{self, Registry};
use crate::clock::{Clock, SystemClock};
use crate::defects::census;
use crate::durable::{self, Disk, FileName, RealDisk};
use crate::error::{Chain, ServerError};
use crate::health::space::restore_ballast;
use crate::index::{self, Index, KeyRange, Missing, Table};
use crate::keys::{self, KEYRING, MASTER};
use crate::server::Server;
use crate::settings::{DEFAULT_CHUNKER, Settings};
use crate::site::layout::descriptor_object;
use crate::site::{Site, SiteUrl};
use crate::site_lock::{Owner, SiteLock};
use crate::space::{self, Space};
use crate::start::compare;
use crate::store::{OnHalt, Parts};

const OURS: [&str; 11] =
    [access::FILE, TOKEN, space::BALLAST, "index", MASTER, KEYRING, "site", COPY, MARKER, SCRATCH, "tls"];

/// The file with the token of requests.
const TOKEN: &str = "admin.token";

/// The file that says that the index is not finished.
pub(crate) const MARKER: &str = "rebuilding";

const SCRATCH: &str = "tmp";

/// An open data folder.
pub struct Opened {
    /// The repository in it.
    pub server: Arc<Server>,
    /// The first token: requests that carry it have all rights.
    pub token: String,
    /// The credentials that requests may carry.
    pub access: Arc<Registry>,
}

/// Refuses a folder without a repository, and does not change it.
///
/// # Errors
/// [`CreateError::NoRepository`].
pub fn check_exists(dir: &Path) -> Result<(), CreateError> {
    if dir.join(COPY).exists() { Ok(()) } else { Err(CreateError::NoRepository { dir: dir.to_owned() }) }
}

/// Opens the repository in `dir`, or makes one as `settings` say if the folder is empty or missing. Its site is
/// `site`, or else a folder in `dir`.
///
/// # Errors
/// [`CreateError`]. A folder that holds anything else is left as it is.
pub async fn open_or_create(
    dir: &Path,
    site: Option<&SiteUrl>,
    settings: Settings,
    on_halt: OnHalt,
) -> Result<Opened, CreateError> {
    open_or_create_on(Arc::new(RealDisk), dir, site, settings, on_halt).await
}

/// Like [`open_or_create`], with another disk for folders and files; the engine of the index, and files that
/// need not be durable, use this machine's.
async fn open_or_create_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    site: Option<&SiteUrl>,
    settings: Settings,
    on_halt: OnHalt,
) -> Result<Opened, CreateError> {
    let (engine, chunker, passphrase_file) =
        (settings.engine, settings.chunker, settings.passphrase_file.clone());
    guard::own_folder(dir)?;
    let dir = &durable::settled_folder(disk.as_ref(), dir)?;
    if dir.join(MARKER).exists() {
        return Err(CreateError::HalfBuilt { dir: dir.to_owned() });
    }
    let place = site.cloned().unwrap_or_else(|| SiteUrl::default_in(dir));
    let exists = place.find_descriptor().await?.is_some();
    if !exists {
        check_ours(dir)?;
    }
    guard::close_folder(dir)?;
    durable::probe(dir)?;
    let (master_path, token_path) = (dir.join(MASTER), dir.join(TOKEN));
    guard::check_secret(&master_path)?;
    guard::check_secret(&dir.join(KEYRING))?;
    guard::check_secret(&token_path)?;
    guard::check_secret(&dir.join(access::FILE))?;
    let missing = if exists { Missing::Refuse } else { Missing::Create };
    let index = index::open_on(Arc::clone(&disk), engine, &dir.join("index"), missing)?;
    if !exists {
        check_empty(index.as_ref(), dir, &place)?;
    }
    durable::sweep_temporaries(disk.as_ref(), dir)?;
    sweep_scratch(dir)?;
    let place = place.make(disk.as_ref())?;
    let site = place.open(Arc::clone(&disk))?;
    let (master, descriptor, token) = if exists {
        let descriptor = read_descriptor(site.as_ref()).await?;
        let master = keys::open_unattended(dir, &descriptor, passphrase_file.as_deref()).await?;
        if let Some(warning) = not_heeded(chunker.as_ref(), &descriptor.chunker) {
            tracing::warn!("{warning}");
        }
        (master, descriptor, token_or_new(disk.as_ref(), dir)?)
    } else {
        let created = create(disk.as_ref(), dir, site.as_ref(), chunker.unwrap_or(DEFAULT_CHUNKER)).await?;
        tracing::warn!(
            data_dir = %dir.display(),
            "created a new repository: keep copies of its `master.key` and `repository.json` elsewhere, for example on paper with `astacus-admin key export --paper`; without them nobody can read the repository"
        );
        created
    };
    guard::check_token(&token_path, &token)?;
    if !descriptor.fits(&master) {
        return Err(CreateError::WrongKey { path: master_path });
    }
    check_copy(disk.as_ref(), dir, &place, &descriptor)?;
    let clock = SystemClock::new();
    let lock = SiteLock::of(&place, site.as_ref(), &clock, Owner::this_process(&clock, fill_random)).await?;
    let access = Arc::new(read_access(&disk, dir, &token, &on_halt)?);
    let choices = settings.choices.clone();
    let parts = parts(dir, index, site, settings, on_halt);
    let parts = Parts { lock, space: parts.space.with_site(&place), ..parts };
    let server = Server::open(parts, choices, master, descriptor)?;
    tokio::spawn(lock::keep(Arc::downgrade(&server.store)));
    restore_ballast(&server.store);
    compare::settle_once(&server).await;
    if let Err(error) = census::take(&server.store).await {
        tracing::error!(error = %Chain(&error), "the packs on the site could not be counted");
    }
    Ok(Opened { server, token: token.trim_end().to_owned(), access })
}

/// The credentials in the folder `dir`, and the first `token`.
fn read_access(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    token: &str,
    on_halt: &OnHalt,
) -> Result<Registry, CreateError> {
    let path = dir.join(access::FILE);
    let text = read_secret(&path)?;
    Registry::new(Arc::clone(disk), dir, token, text.as_deref(), Arc::clone(on_halt))
        .map_err(|source| CreateError::Access { path, source })
}

/// Parts of a repository over the folder `dir`.
pub(crate) fn parts(
    dir: &Path,
    index: Arc<dyn Index>,
    site: Arc<dyn Site>,
    settings: Settings,
    on_halt: OnHalt,
) -> Parts {
    let Settings { engine, space, upkeep, memory_bytes, .. } = settings;
    Parts {
        index,
        site,
        lock: SiteLock::none(),
        clock: Arc::new(SystemClock::new()),
        scratch: dir.join(SCRATCH),
        random: fill_random,
        on_halt,
        space: Space::of(dir, space),
        upkeep,
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        engine: engine.name(),
        memory_bytes,
    }
}

/// Refuses the index of a repository that is still to be made if it holds anything, or if there was a descriptor
/// before: it belongs to another site.
fn check_empty(index: &dyn Index, dir: &Path, site: &SiteUrl) -> Result<(), CreateError> {
    let no_site = || CreateError::NoSite { dir: dir.to_owned(), site: site.clone() };
    if dir.join(COPY).exists() || dir.join(KEYRING).exists() {
        return Err(no_site());
    }
    let one = NonZeroUsize::MIN;
    for table in [Table::Pack, Table::Snapshot, Table::Meta] {
        let found = index.scan(table, &KeyRange::all(), one).map_err(ServerError::from)?;
        if !found.rows.is_empty() {
            return Err(no_site());
        }
    }
    Ok(())
}

/// Tells of chunk lengths in the configuration that are not those of the repository, which keeps its own for its life.
fn not_heeded(configured: Option<&ChunkerSpec>, kept: &ChunkerSpec) -> Option<String> {
    let other = configured.filter(|configured| *configured != kept)?;
    let lengths = |spec: &ChunkerSpec| match *spec {
        ChunkerSpec::FastCdc { min_len, avg_len, max_len } => {
            format!("min_kib = {}, avg_kib = {}, max_kib = {}", min_len >> 10, avg_len >> 10, max_len >> 10)
        }
        ChunkerSpec::Fixed { len } => format!("pieces of {len} bytes"),
    };
    let (other, kept) = (lengths(other), lengths(kept));
    Some(format!(
        "section [chunker] of the configuration ({other}) is ignored: the repository keeps the lengths from its creation ({kept})"
    ))
}

/// Compares the descriptor with its copy beside the key, which is made if there is none: without a descriptor
/// nothing of a repository can be read, and with a changed one chunks are cut otherwise.
fn check_copy(
    disk: &dyn Disk,
    dir: &Path,
    site: &SiteUrl,
    descriptor: &Descriptor,
) -> Result<(), CreateError> {
    let is = String::from_utf8_lossy(&descriptor.encode()).into_owned();
    let was = read_or_publish(disk, dir, COPY, || is.clone())?;
    if is == was {
        return Ok(());
    }
    Err(CreateError::DescriptorChanged { site: site.clone(), copy: dir.join(COPY) })
}

/// The token of a repository that is there; one that was lost is made again.
fn token_or_new(disk: &dyn Disk, dir: &Path) -> Result<String, CreateError> {
    if let Some(token) = read_secret(&dir.join(TOKEN))? {
        return Ok(token);
    }
    let token = new_token(disk, dir)?;
    tracing::warn!(
        file = %dir.join(TOKEN).display(),
        "the token file was missing, so a new token was made: give it to all clients, as the old one is refused"
    );
    Ok(token)
}

/// The token in `dir`, made if there is none.
pub(crate) fn new_token(disk: &dyn Disk, dir: &Path) -> Result<String, CreateError> {
    read_or_publish(disk, dir, TOKEN, || id::to_hex(&random::<32>()) + "\n")
}

/// Makes what is not there yet, the descriptor last.
async fn create(
    disk: &dyn Disk,
    dir: &Path,
    site: &dyn Site,
    chunker: ChunkerSpec,
) -> Result<(MasterKey, Descriptor, String), CreateError> {
    let master_path = dir.join(MASTER);
    let new_key = || MasterKey::from_bytes(random()).to_file_text();
    let master = parse_key(&master_path, &read_or_publish(disk, dir, MASTER, new_key)?)?;
    let token = new_token(disk, dir)?;
    let server = RepositoryId::new(SystemClock::new().unix_ms(), random());
    let descriptor = Descriptor::new(server, &master, chunker);
    site.put_new(&descriptor_object(), Bytes::from(descriptor.encode())).await?;
    Ok((master, descriptor, token))
}

pub(crate) fn check_ours(dir: &Path) -> Result<(), CreateError> {
    for entry in std::fs::read_dir(dir).map_err(|source| read_error(dir, source))? {
        let found = entry.map_err(|source| read_error(dir, source))?.file_name();
        let found = found.to_string_lossy();
        if !OURS.contains(&found.as_ref()) && !found.starts_with(durable::TEMPORARY_PREFIX) {
            return Err(CreateError::NotEmpty { dir: dir.to_owned(), found: found.into_owned() });
        }
    }
    Ok(())
}

/// Removes what a dead process left of its temporary files.
pub(crate) fn sweep_scratch(dir: &Path) -> Result<(), CreateError> {
    let scratch = dir.join(SCRATCH);
    match std::fs::remove_dir_all(&scratch) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(read_error(&scratch, source)),
        _ => Ok(()),
    }
}

async fn read_descriptor(site: &dyn Site) -> Result<Descriptor, CreateError> {
    let bytes = site.get(&descriptor_object()).await?;
    Descriptor::decode(&bytes).map_err(|error| match error {
        FormatError::Version { found, expected, .. } if found > expected => {
            CreateError::Newer { found, reads: expected }
        }
        error => CreateError::Descriptor(error),
    })
}

pub(crate) fn name(text: &str) -> FileName {
    text.parse().expect("a plain name")
}

pub(crate) fn read_or_publish(
    disk: &dyn Disk,
    dir: &Path,
    file: &str,
    content: impl FnOnce() -> String,
) -> Result<String, CreateError> {
    if let Some(text) = read_secret(&dir.join(file))? {
        return Ok(text);
    }
    let text = content();
    durable::publish(disk, dir, &name(file), text.as_bytes())?;
    Ok(text)
}

pub(crate) fn read_secret(path: &Path) -> Result<Option<String>, CreateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(read_error(path, source)),
    }
}

pub(crate) fn parse_key(path: &Path, text: &str) -> Result<MasterKey, CreateError> {
    MasterKey::parse(text).ok_or_else(|| CreateError::Malformed { path: path.to_owned(), what: "master key" })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// Random bytes from the operating system. Without them no key is safe, so the process must end.
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests;
