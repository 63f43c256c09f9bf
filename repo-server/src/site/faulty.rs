//! A site that fails when told to, for tests of whatever uses sites.
//!
//! The suite `fault` compiles this file as its own. Faults are data: a test arms some and lets the work run. A fault fires once.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::site::{Cause, Listed, ObjectName, Op, Prefix, Put, Site, SiteError, SiteFuture};

/// One fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The operation that it hits; none: any operation.
    pub(crate) op: Option<Op>,
    /// How many such operations come first, counted from when the fault was armed.
    pub(crate) after: usize,
    /// Kind of the fault.
    pub(crate) kind: FaultKind,
}

/// Effect of a fault on an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// It has no effect and fails so.
    Refuse(Refusal),
    /// It takes effect, and its answer is lost: it fails as unavailable.
    LoseAnswer,
    /// It has no effect, and from here on the site is unreachable until [`FaultySite::heal`].
    StopBefore,
    /// It takes effect, its answer is lost, and from here on the site is unreachable.
    StopAfter,
}

/// The error of a refused operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// [`SiteError::Unavailable`].
    Unavailable,
    /// [`SiteError::Unreadable`]; a listing is unavailable.
    Unreadable,
    /// [`SiteError::Full`], for puts; other operations are unavailable.
    Full,
    /// [`SiteError::Fatal`].
    Fatal,
}

/// A site in front of another one.
pub(crate) struct FaultySite {
    inner: Arc<dyn Site>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    armed: Vec<Fault>,
    fired: Vec<Fault>,
    calls: Vec<Op>,
    stopped: bool,
}

impl FaultySite {
    /// Passes everything on to `inner` until a fault is armed.
    pub(crate) fn new(inner: Arc<dyn Site>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Arms `fault`. Several may be armed; of those due at once the one armed first fires.
    pub(crate) fn arm(&self, fault: Fault) {
        self.lock().armed.push(fault);
    }

    /// Disarms what has not fired, and makes the site reachable.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.armed.clear();
        state.stopped = false;
    }

    /// The faults that fired, in order. A test that arms one should see it here.
    pub(crate) fn fired(&self) -> Vec<Fault> {
        self.lock().fired.clone()
    }

    /// The operations that were asked for, in order, also those that failed.
    pub(crate) fn calls(&self) -> Vec<Op> {
        self.lock().calls.clone()
    }

    /// Does `work`, which must do nothing before it is polled, the way the faults want it.
    fn run<'a, T>(&'a self, op: Op, target: Target<'a>, work: SiteFuture<'a, T>) -> SiteFuture<'a, T>
    where
        T: Send + 'a,
    {
        Box::pin(async move {
            let fault = self.lock().next(op);
            match fault {
                None => work.await,
                Some(FaultKind::Refuse(refusal)) => Err(target.refused(op, refusal)),
                Some(FaultKind::StopBefore) => Err(target.refused(op, Refusal::Unavailable)),
                Some(FaultKind::LoseAnswer | FaultKind::StopAfter) => {
                    work.await?;
                    Err(target.refused(op, Refusal::Unavailable))
                }
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere must not hide its message behind a poisoned lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts one operation, and returns its fault.
    fn next(&mut self, op: Op) -> Option<FaultKind> {
        self.calls.push(op);
        if self.stopped {
            return Some(FaultKind::StopBefore);
        }
        let hits = |fault: &Fault| fault.op.is_none_or(|only| only == op);
        let due = self.armed.iter().position(|fault| hits(fault) && fault.after == 0);
        let due = due.map(|place| self.armed.remove(place));
        for waiting in self.armed.iter_mut().filter(|fault| hits(fault)) {
            waiting.after = waiting.after.saturating_sub(1);
        }
        let fault = due?;
        self.fired.push(fault);
        self.stopped = matches!(fault.kind, FaultKind::StopBefore | FaultKind::StopAfter);
        Some(fault.kind)
    }
}

/// Target of an operation.
#[derive(Clone, Copy)]
enum Target<'a> {
    Object(&'a ObjectName),
    Below(&'a Prefix),
}

impl Target<'_> {
    fn refused(self, op: Op, refusal: Refusal) -> SiteError {
        let source: Cause = "a fault was injected".into();
        match (refusal, self) {
            (Refusal::Fatal, _) => SiteError::Fatal { source },
            (Refusal::Full, Self::Object(name)) if op == Op::Put => {
                SiteError::Full { name: name.clone(), source }
            }
            (Refusal::Unreadable, Self::Object(name)) => SiteError::Unreadable { name: name.clone(), source },
            (_, Self::Object(name)) => SiteError::unavailable(op, name, source),
            (_, Self::Below(prefix)) => SiteError::unavailable(op, prefix, source),
        }
    }
}

impl fmt::Debug for FaultySite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultySite").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Site for FaultySite {
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put> {
        self.run(Op::Put, Target::Object(name), self.inner.put_new(name, bytes))
    }

    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes> {
        self.run(Op::Get, Target::Object(name), self.inner.get(name))
    }

    fn get_ranges<'a>(
        &'a self,
        name: &'a ObjectName,
        ranges: &'a [Range<u64>],
    ) -> SiteFuture<'a, Vec<Bytes>> {
        self.run(Op::GetRanges, Target::Object(name), self.inner.get_ranges(name, ranges))
    }

    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64> {
        self.run(Op::Len, Target::Object(name), self.inner.len(name))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>> {
        self.run(Op::List, Target::Below(prefix), self.inner.list(prefix))
    }

    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()> {
        self.run(Op::Delete, Target::Object(name), self.inner.delete(name))
    }
}
