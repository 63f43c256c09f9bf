//! A site on a disk that wears out: some places of objects cannot be read, or the whole of it is away.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Listed, ObjectName, Op, Prefix, Put, Site, SiteError, SiteFuture, StoreSite};
use crate::sync::lock;

/// A site in memory whose reads fail where a test says so.
pub(crate) struct WornSite {
    inner: StoreSite,
    bad: Mutex<Vec<(String, Range<u64>)>>,
    is_bare: AtomicBool,
}

impl WornSite {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: StoreSite::memory(), bad: Mutex::default(), is_bare: AtomicBool::new(false) })
    }

    /// From now on, `places` of the objects whose names start so cannot be read.
    pub(crate) fn wear_out(&self, prefix: &str, places: Range<u64>) {
        lock(&self.bad).push((prefix.to_owned(), places));
    }

    /// Every place can be read again.
    pub(crate) fn mend(&self) {
        lock(&self.bad).clear();
    }

    /// The disk is not mounted: the site answers, and has nothing. Or it is back.
    pub(crate) fn set_bare(&self, is_bare: bool) {
        self.is_bare.store(is_bare, Ordering::SeqCst);
    }

    fn check(&self, name: &ObjectName, read: &Range<u64>) -> Result<(), SiteError> {
        if self.is_bare.load(Ordering::SeqCst) {
            return Err(SiteError::NotFound { name: name.clone() });
        }
        let hits = |(prefix, bad): &(String, Range<u64>)| {
            name.as_str().starts_with(prefix) && bad.start < read.end && read.start < bad.end
        };
        if !lock(&self.bad).iter().any(hits) {
            return Ok(());
        }
        Err(SiteError::unread(Op::Get, name, std::io::Error::from(rustix::io::Errno::IO)))
    }
}

impl fmt::Debug for WornSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WornSite")
    }
}

impl Site for WornSite {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        self.inner.put_new(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        Box::pin(async move {
            self.check(name, &(0..u64::MAX))?;
            self.inner.get(name).await
        })
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        Box::pin(async move {
            ranges.iter().try_for_each(|range| self.check(name, range))?;
            self.inner.get_ranges(name, ranges).await
        })
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        Box::pin(async move {
            self.check(name, &(0..0))?;
            self.inner.len(name).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        Box::pin(async move {
            if self.is_bare.load(Ordering::SeqCst) {
                return Ok(Vec::new());
            }
            self.inner.list(prefix).await
        })
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        self.inner.delete(name)
    }
}
