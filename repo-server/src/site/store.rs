//! Sites over the `object_store` crate.

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path};

use super::folder::FolderWriter;
use super::{Listed, ObjectName, Op, Prefix, Put, Site, SiteError, SiteFuture};
use crate::durable::{Disk, RealDisk};

/// A local store allocates what a range asks for before it looks at the file. From this many bytes on
/// the length is asked for first.
const LOOK_FIRST_BYTES: u64 = 1024 * 1024;

/// A site in a store that `object_store` can reach.
#[derive(Debug)]
pub struct StoreSite {
    store: Arc<dyn ObjectStore>,
    writes: Writes,
}

/// How objects are written and deleted.
#[derive(Debug)]
enum Writes {
    /// The store refuses to replace, and its answer is durable.
    Conditional,
    /// Past the store, into the folder that it reads.
    Folder(Arc<FolderWriter>),
}

impl StoreSite {
    /// The site in the folder `path` of this machine, which must exist.
    ///
    /// Files of a dead process are synced, and removed if they are half written. So only one process, and one
    /// `StoreSite` of it, may have the folder open. Blocks.
    ///
    /// # Errors
    /// [`SiteError::Open`] and [`SiteError::Fatal`].
    pub fn folder(path: &Path) -> Result<Self, SiteError> {
        Self::folder_on(Arc::new(RealDisk), path)
    }

    /// Like [`StoreSite::folder`], with another disk for writes; reads use this machine's.
    ///
    /// # Errors
    /// [`SiteError::Open`] and [`SiteError::Fatal`].
    pub fn folder_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, SiteError> {
        let (site, writer) = Self::over_folder(disk, path)?;
        writer.settle()?;
        writer.sweep()?;
        Ok(site)
    }

    fn over_folder(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, Arc<FolderWriter>), SiteError> {
        let open = |source| SiteError::Open { path: path.to_owned(), source };
        let root = std::fs::canonicalize(path).map_err(|e| open(e.into()))?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| open(e.into()))?;
        let writer = Arc::new(FolderWriter::new(disk, root));
        Ok((Self { store: Arc::new(store), writes: Writes::Folder(Arc::clone(&writer)) }, writer))
    }

    /// The site in a folder as it is, for a look into it: nothing is synced or removed, so objects that it shows may
    /// be gone after a power cut.
    ///
    /// # Errors
    /// [`SiteError::Open`].
    pub(super) fn folder_as_it_is(path: &Path) -> Result<Self, SiteError> {
        Self::over_folder(Arc::new(RealDisk), path).map(|(site, _)| site)
    }

    /// Like [`StoreSite::folder`], without removing files: for readers.
    ///
    /// # Errors
    /// [`SiteError::Open`] and [`SiteError::Fatal`].
    pub fn folder_in_use(path: &Path) -> Result<Self, SiteError> {
        let (site, writer) = Self::over_folder(Arc::new(RealDisk), path)?;
        writer.settle()?;
        Ok(site)
    }

    /// An empty site in memory, for tests; dropped with this value.
    pub fn memory() -> Self {
        Self { store: Arc::new(InMemory::new()), writes: Writes::Conditional }
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<Put, SiteError> {
        let Writes::Folder(writer) = &self.writes else { return self.put_if_absent(name, bytes).await };
        let (writer, owned) = (Arc::clone(writer), name.clone());
        blocking(Op::Put, name, move || writer.put_new(&owned, &bytes)).await
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<Put, SiteError> {
        let put = self.store.put_opts(&location(name), bytes.clone().into(), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(Put::Stored),
            // Also the answer when an earlier attempt of this very put went through unheard.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                self.compare(name, &bytes).await
            }
            Err(error) => Err(read_error(Op::Put, name, error)),
        }
    }

    async fn compare(&self, name: &ObjectName, bytes: &Bytes) -> Result<Put, SiteError> {
        let len = self.read_len(Op::Put, name).await?;
        let same = u64::try_from(bytes.len()) == Ok(len) && self.read(Op::Put, name).await? == bytes;
        if same { Ok(Put::AlreadyThere) } else { Err(SiteError::Differs { name: name.clone() }) }
    }

    async fn read(&self, op: Op, name: &ObjectName) -> Result<Bytes, SiteError> {
        let found = self.store.get(&location(name)).await.map_err(|e| read_error(op, name, e))?;
        found.bytes().await.map_err(|e| read_error(op, name, e))
    }

    async fn read_len(&self, op: Op, name: &ObjectName) -> Result<u64, SiteError> {
        let found = self.store.head(&location(name)).await;
        found.map(|found| found.size).map_err(|e| read_error(op, name, e))
    }

    async fn read_ranges(&self, name: &ObjectName, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, SiteError> {
        let wanted = ranges.iter().map(|range| range.end.saturating_sub(range.start));
        let odd = wanted.clone().any(|len| len == 0);
        if odd || wanted.fold(0, u64::saturating_add) >= LOOK_FIRST_BYTES && self.is_folder() {
            self.check_ranges(name, ranges).await?;
        }
        match self.store.get_ranges(&location(name), ranges).await {
            Ok(found) if is_whole(&found, ranges) => Ok(found),
            // A store answers a range that reaches too far with less, or with an error of its own.
            outcome => {
                self.check_ranges(name, ranges).await?;
                let error = outcome.err().unwrap_or_else(short_answer);
                Err(read_error(Op::GetRanges, name, error))
            }
        }
    }

    fn is_folder(&self) -> bool {
        matches!(self.writes, Writes::Folder(_))
    }

    async fn check_ranges(&self, name: &ObjectName, ranges: &[Range<u64>]) -> Result<(), SiteError> {
        let len = self.read_len(Op::GetRanges, name).await?;
        match ranges.iter().find(|range| range.is_empty() || range.end > len) {
            Some(&Range { start, end }) => Err(SiteError::OutOfRange { name: name.clone(), start, end, len }),
            None => Ok(()),
        }
    }

    async fn read_list(&self, prefix: &Prefix) -> Result<Vec<Listed>, SiteError> {
        let mut objects = Vec::new();
        for root in prefix.roots() {
            let mut found = self.store.list(Some(&path::Path::from(root)));
            let next_failed = |e| SiteError::unavailable(Op::List, prefix, e);
            while let Some(meta) = found.try_next().await.map_err(next_failed)? {
                // A file without a valid name, such as a temporary one, is no object.
                if let Ok(name) = ObjectName::new(meta.location.as_ref()) {
                    objects.push(Listed { name, len: meta.size });
                }
            }
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), SiteError> {
        let Writes::Folder(writer) = &self.writes else {
            return match self.store.delete(&location(name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(read_error(Op::Delete, name, error)),
            };
        };
        let (writer, owned) = (Arc::clone(writer), name.clone());
        blocking(Op::Delete, name, move || writer.delete(&owned)).await
    }
}

impl Site for StoreSite {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        Box::pin(self.put(name, bytes))
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        Box::pin(self.read(Op::Get, name))
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        Box::pin(async move {
            if ranges.is_empty() { Ok(Vec::new()) } else { self.read_ranges(name, ranges).await }
        })
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        Box::pin(self.read_len(Op::Len, name))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        Box::pin(self.read_list(prefix))
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        Box::pin(self.remove(name))
    }
}

fn location(name: &ObjectName) -> path::Path {
    path::Path::from(name.as_str())
}

fn is_whole(found: &[Bytes], ranges: &[Range<u64>]) -> bool {
    let fits = |(bytes, range): (&Bytes, &Range<u64>)| {
        u64::try_from(bytes.len()).ok() == range.end.checked_sub(range.start)
    };
    found.len() == ranges.len() && found.iter().zip(ranges).all(fits)
}

fn short_answer() -> object_store::Error {
    let source: Box<dyn Error + Send + Sync> = "the answer is shorter than the object".into();
    object_store::Error::Generic { store: "site", source }
}

fn read_error(op: Op, name: &ObjectName, error: object_store::Error) -> SiteError {
    match error {
        object_store::Error::NotFound { .. } => SiteError::NotFound { name: name.clone() },
        other => SiteError::unread(op, name, other),
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    op: Op,
    name: &ObjectName,
    work: impl FnOnce() -> Result<T, SiteError> + Send + 'static,
) -> Result<T, SiteError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(cancelled) => Err(SiteError::unavailable(op, name, cancelled)),
        },
    }
}
