//! The table of leases: one holder for each resource, and when its lease ends. It is pure: times come in as arguments.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Number of a grant. A later grant of the same resource has a greater one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(pub(crate) u64);

impl Token {
    /// The token of the next grant.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// When the leases of a table end. Times are of the server's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// When their holder releases them.
    UntilReleased,
    /// `ttl` after the grant or the last renewal, and `life` after the grant at the latest.
    Renewed { ttl: Duration, life: Duration },
}

/// A lease as it was granted.
#[derive(Debug)]
pub(crate) struct Grant<H> {
    pub(crate) holder: H,
    pub(crate) token: Token,
    /// Time of the grant.
    pub(crate) since: Duration,
    /// From then on it is over; `None`: it does not expire.
    ends: Option<Duration>,
}

impl<H> Grant<H> {
    /// True once its time is over. A lease that expired stays in the table until it is released or granted again.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// Leases by resource.
#[derive(Debug)]
pub(crate) struct Table<R, H> {
    term: Term,
    grants: HashMap<R, Grant<H>>,
}

impl<R: Eq + Hash, H> Table<R, H> {
    /// An empty table.
    pub(crate) fn new(term: Term) -> Self {
        Self { term, grants: HashMap::new() }
    }

    /// Grants `resource` to `holder` with `token`, which the caller has given to no other grant.
    ///
    /// # Errors
    /// The lease of another holder that is not over. Nothing changed.
    pub(crate) fn grant(
        &mut self,
        resource: R,
        holder: H,
        token: Token,
        now: Duration,
    ) -> Result<(), &Grant<H>> {
        let is_held = self.grants.get(&resource).is_some_and(|grant| !grant.is_over(now));
        if is_held {
            return self.grants.get(&resource).map_or(Ok(()), Err);
        }
        let ends = self.term.ends(now, now);
        self.grants.insert(resource, Grant { holder, token, since: now, ends });
        Ok(())
    }

    /// The last lease of `resource` that was not released. It may be over.
    pub(crate) fn get(&self, resource: &R) -> Option<&Grant<H>> {
        self.grants.get(resource)
    }

    /// The holder of [`get`](Self::get).
    pub(crate) fn holder_mut(&mut self, resource: &R) -> Option<&mut H> {
        self.grants.get_mut(resource).map(|grant| &mut grant.holder)
    }

    /// All leases that were not released, in no order. Some may be over.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&R, &Grant<H>)> {
        self.grants.iter()
    }

    /// How many leases were not released.
    pub(crate) fn len(&self) -> usize {
        self.grants.len()
    }

    /// Starts the time of a lease again, within its life. `None` if there is no lease, or if it is over: a lease
    /// that expired is never renewed (L3).
    pub(crate) fn renew(&mut self, resource: &R, now: Duration) -> Option<&Grant<H>> {
        let grant = self.grants.get_mut(resource).filter(|grant| !grant.is_over(now))?;
        grant.ends = self.term.ends(grant.since, now);
        Some(grant)
    }

    /// Ends the lease of `resource` that was granted with `token`. A later lease of the resource is left alone.
    pub(crate) fn release(&mut self, resource: &R, token: Token) -> Option<H> {
        self.grants.get(resource).filter(|grant| grant.token == token)?;
        self.grants.remove(resource).map(|grant| grant.holder)
    }
}

impl Term {
    /// When a lease ends that was granted at `since` and is granted or renewed `now`.
    fn ends(self, since: Duration, now: Duration) -> Option<Duration> {
        match self {
            Self::UntilReleased => None,
            Self::Renewed { ttl, life } => Some((now + ttl).min(since + life)),
        }
    }
}

#[cfg(test)]
mod tests;
