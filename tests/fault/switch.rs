//! A switch that ends everything at the n-th write to site or index, as a kill of the process would:
//! just before the write, or just after it and before anyone hears of it.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use repo_server::index::{Batch, Index, IndexError, KeyRange, Rows, Table};
use repo_server::site::{Listed, ObjectName, Op, Prefix, Put, Site, SiteError, SiteFuture};

/// On which side of a write the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

/// Where the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The write, counted from 0.
    pub(crate) at: usize,
    pub(crate) side: Side,
}

#[derive(Default)]
struct State {
    writes: Vec<String>,
    cut: Option<Cut>,
    is_cut: bool,
}

/// Counts writes, and ends them.
#[derive(Default)]
pub(crate) struct Switch(Mutex<State>);

impl Switch {
    pub(crate) fn at(cut: Option<Cut>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { cut, ..State::default() })))
    }

    /// The writes so far, by what they wrote.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.lock().writes.clone()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Counts a write. `Ok` says on which side of it the process ends, if it does.
    fn write(&self, what: impl FnOnce() -> String) -> Result<Option<Side>, Gone> {
        let mut state = self.lock();
        if state.is_cut {
            return Err(Gone);
        }
        let at = state.writes.len();
        state.writes.push(what());
        let side = state.cut.filter(|cut| cut.at == at).map(|cut| cut.side);
        state.is_cut = side.is_some();
        Ok(side)
    }

    fn read(&self) -> Result<(), Gone> {
        if self.lock().is_cut { Err(Gone) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process has ended: nothing has an effect any more.
#[derive(Debug)]
struct Gone;

impl Gone {
    fn of_site(&self, op: Op, target: String) -> SiteError {
        SiteError::Unavailable { op, target, source: "the process has ended".into() }
    }

    fn of_index(&self, table: Table) -> IndexError {
        IndexError::Read { table, source: "the process has ended".into() }
    }
}

/// How far a site can be trusted to store what it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Honesty {
    /// It stores, then acknowledges.
    Honest,
    /// It acknowledges and never stores.
    Forgets,
    /// It acknowledges, and stores when the next object comes.
    Late,
}

/// A site behind the switch.
pub(crate) struct CutSite {
    inner: Arc<dyn Site>,
    switch: Arc<Switch>,
    honesty: Honesty,
    late: Mutex<Option<(ObjectName, Bytes)>>,
}

impl CutSite {
    pub(crate) fn new(inner: Arc<dyn Site>, switch: Arc<Switch>, honesty: Honesty) -> Self {
        Self { inner, switch, honesty, late: Mutex::default() }
    }

    async fn store(&self, name: &ObjectName, bytes: Bytes) -> Result<Put, SiteError> {
        match self.honesty {
            Honesty::Honest => self.inner.put_new(name, bytes).await,
            Honesty::Forgets => Ok(Put::Stored),
            Honesty::Late => {
                let waiting = self.waiting().replace((name.clone(), bytes));
                if let Some((name, bytes)) = waiting {
                    self.inner.put_new(&name, bytes).await?;
                }
                Ok(Put::Stored)
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<(ObjectName, Bytes)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CutSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CutSite").finish_non_exhaustive()
    }
}

impl Site for CutSite {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        Box::pin(async move {
            let gone = |gone: Gone| gone.of_site(Op::Put, name.to_string());
            let what = || {
                let text = name.to_string();
                format!("put {}", text.split('/').next().unwrap_or_default())
            };
            match self.switch.write(what).map_err(gone)? {
                Some(Side::Before) => Err(gone(Gone)),
                Some(Side::After) => {
                    self.store(name, bytes).await?;
                    Err(gone(Gone))
                }
                None => self.store(name, bytes).await,
            }
        })
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        Box::pin(async move {
            self.switch.read().map_err(|gone| gone.of_site(Op::Get, name.to_string()))?;
            self.inner.get(name).await
        })
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        Box::pin(async move {
            self.switch.read().map_err(|gone| gone.of_site(Op::GetRanges, name.to_string()))?;
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

/// An index behind the switch.
pub(crate) struct CutIndex {
    inner: Arc<dyn Index>,
    switch: Arc<Switch>,
}

impl CutIndex {
    pub(crate) fn new(inner: Arc<dyn Index>, switch: Arc<Switch>) -> Self {
        Self { inner, switch }
    }

    fn read<T>(&self, table: Table, read: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
        self.switch.read().map_err(|gone| gone.of_index(table))?;
        read()
    }
}

impl Index for CutIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.read(table, || self.inner.get(table, key))
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.read(table, || self.inner.multi_get(table, keys))
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: NonZeroUsize) -> Result<Rows, IndexError> {
        self.read(table, || self.inner.scan(table, range, limit))
    }

    fn commit(&self, batch: Batch) -> Result<(), IndexError> {
        let gone = |_: Gone| IndexError::Commit("the process has ended".into());
        let what = || format!("commit of {} rows", batch.len());
        match self.switch.write(what).map_err(gone)? {
            Some(Side::Before) => Err(gone(Gone)),
            Some(Side::After) => {
                self.inner.commit(batch)?;
                Err(gone(Gone))
            }
            None => self.inner.commit(batch),
        }
    }
}
