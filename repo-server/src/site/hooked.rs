//! A site beside which something happens at a moment that a test chooses.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::{Listed, ObjectName, Op, Prefix, Put, Site, SiteFuture, StoreSite};
use crate::store::testing::describe;
use crate::sync::lock;

/// A site in memory that does something once, just before an operation.
///
/// As on a disk, a put that has begun is completed, also if its caller is gone.
pub(crate) struct HookedSite {
    inner: Arc<dyn Site>,
    hook: Mutex<Option<Hook>>,
    puts_under_way: Arc<AtomicUsize>,
    bytes_read: AtomicU64,
}

struct Hook {
    op: Op,
    prefix: String,
    work: BoxFuture<'static, ()>,
}

impl HookedSite {
    pub(crate) fn new() -> Arc<Self> {
        let inner = StoreSite::memory();
        describe(&inner);
        Arc::new(Self {
            inner: Arc::new(inner),
            hook: Mutex::default(),
            puts_under_way: Arc::default(),
            bytes_read: AtomicU64::default(),
        })
    }

    /// Does `work` just before the next put or read, whole or in ranges, as `op` says, of a name that starts so.
    pub(crate) fn before(&self, op: Op, prefix: &str, work: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.hook) = Some(Hook { op, prefix: prefix.to_owned(), work: Box::pin(work) });
    }

    /// True if that moment is in the future.
    pub(crate) fn is_waiting(&self) -> bool {
        lock(&self.hook).is_some()
    }

    /// True if a put that began has not ended, whoever waits for it.
    pub(crate) fn is_putting(&self) -> bool {
        self.puts_under_way.load(Ordering::SeqCst) > 0
    }

    /// Bytes that reads in ranges asked for so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::SeqCst)
    }

    /// Work to do before an operation.
    fn due(&self, op: Op, name: &ObjectName) -> BoxFuture<'static, ()> {
        let is_due = |hook: &mut Hook| hook.op == op && name.as_str().starts_with(&hook.prefix);
        let hook = lock(&self.hook).take_if(is_due);
        hook.map_or_else(|| ready(()).boxed(), |hook| hook.work)
    }
}

impl fmt::Debug for HookedSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedSite")
    }
}

impl Site for HookedSite {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        Box::pin(async move {
            let (before, inner, name) = (self.due(Op::Put, name), Arc::clone(&self.inner), name.clone());
            let under_way = Arc::clone(&self.puts_under_way);
            under_way.fetch_add(1, Ordering::SeqCst);
            let puts = tokio::spawn(async move {
                before.await;
                let put = inner.put_new(&name, bytes).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                put
            });
            puts.await.unwrap()
        })
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        Box::pin(async move {
            self.due(Op::Get, name).await;
            self.inner.get(name).await
        })
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        Box::pin(async move {
            self.due(Op::GetRanges, name).await;
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            self.bytes_read.fetch_add(bytes, Ordering::SeqCst);
            self.inner.get_ranges(name, ranges).await
        })
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        self.inner.len(name)
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        self.inner.list(prefix)
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        self.inner.delete(name)
    }
}
