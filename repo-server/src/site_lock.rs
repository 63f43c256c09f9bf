//! One server at a time over a site: a lock on the site itself, which its holder renews.
//!
//! A site stores objects and never replaces one, so the lock is a chain: objects `locks/<number>`, each with
//! its owner. The server that puts the next number, which only one can, holds the lock from then on. The
//! holder puts a new one every `RENEW_EVERY`, and deletes all but its last two. No clocks of two machines are
//! compared:
//!
//! * A server that starts and finds a foreign lock watches it. If a number comes, its owner is alive, and the
//!   start is refused. If none comes for `PERIOD` of the watcher's own clock, the owner is dead, and the next
//!   number is put.
//! * The holder counts from before each of its own puts. After `VALID_FOR`, which is shorter, it neither commits nor
//!   deletes until it has renewed. A suspended machine sees that the time has passed: its clock counts sleep.
//! * A holder that cannot put its next number, or that finds a higher one than its own, has lost the lock for good, and
//!   its repository halts. Two are always left, so a listing beside a renewal shows one of them.
//!
//! A site in a folder has a lock of the system as well (the file `lock`). It reveals at once another server
//! on this machine; and its holder knows that an owner of the same boot of this machine is dead, and need not
//! wait. ADR 0021 gives the reasons.

use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use format_spec::id::to_hex;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::ServerError;
use crate::site::layout::{lock_named, lock_object};
use crate::site::{Area, Listed, ObjectName, Prefix, Site, SiteError, SiteUrl, SystemLock};
use crate::sync::lock;
use crate::time::rfc3339;

/// A foreign lock that does not change for so long has no owner any more.
const PERIOD: Duration = Duration::from_secs(60);
/// A lock holds for so long from before its put: a quarter of the period is left for what is on its way then.
const VALID_FOR: Duration = Duration::from_secs(45);
/// A lock is renewed this often.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked whether a lock is to be renewed, and a foreign one has changed.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Random: of this start of this server.
    id: String,
    /// The machine's name, for people.
    host: String,
    /// Id of this boot of this machine, which no other boot has.
    boot: String,
    /// The process, for people.
    pid: u32,
    /// When it started by its own clock, for people.
    since_ms: u64,
}

impl Owner {
    /// This process, from now on.
    pub(crate) fn this_process(clock: &dyn Clock, random: fn(&mut [u8])) -> Self {
        let mut id = [0; 16];
        random(&mut id);
        let of_system = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            id: to_hex(&id),
            host: of_system("/proc/sys/kernel/hostname"),
            boot: of_system("/proc/sys/kernel/random/boot_id"),
            pid: std::process::id(),
            since_ms: clock.unix_ms(),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} on `{}`, started {}",
            self.pid,
            self.host.escape_debug(),
            rfc3339(self.since_ms)
        )
    }
}

/// Why the lock of a site could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another server works over the site.
    #[error(
        "the site is in use by another server ({}): stop that server first. If its machine has died, start this one again {} seconds later", owner(.0), PERIOD.as_secs()
    )]
    Held(Option<Box<Owner>>),
    /// The lock was taken over by another server, since this one had not renewed it.
    #[error(
        "another server has taken over the site ({}), because this server had not renewed its lock for {} seconds: this server commits and deletes nothing more; run only one of them", owner(.0), PERIOD.as_secs()
    )]
    Lost(Option<Box<Owner>>),
    /// The site did not do what was asked.
    #[error("lock the site")]
    Site(#[from] SiteError),
    /// The lock of the system could not be used.
    #[error("lock the folder of the site")]
    File(#[source] std::io::Error),
}

fn owner(owner: &Option<Box<Owner>>) -> String {
    owner.as_ref().map_or_else(|| "name not yet known".to_owned(), ToString::to_string)
}

/// The lock on the site of one repository, or none if no other process can reach the site.
#[derive(Debug)]
pub struct SiteLock(Option<Held>);

#[derive(Debug)]
struct Held {
    owner: Owner,
    state: Mutex<State>,
    /// The system's lock ends with this file, however the process ends.
    _file: Option<File>,
}

impl Held {
    fn renewed(&self, number: u64, at: Duration) {
        let mut state = lock(&self.state);
        (state.number, state.renewed) = (number, at);
    }
}

#[derive(Debug)]
struct State {
    /// The newest number of ours.
    number: u64,
    /// When its put began, by [`Clock::with_sleep`].
    renewed: Duration,
    tenure: Tenure,
}

/// Intention of this process about the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tenure {
    Kept,
    /// Work that outlives the wait at the end of the server has no lock any more.
    GivenBack,
}

/// The number and owner of the newest lock on a site. An owner that cannot be read is none.
type Newest = Option<(u64, Option<Owner>)>;

impl SiteLock {
    /// No lock: for sites that no other process can reach, and for readers.
    pub fn none() -> Self {
        Self(None)
    }

    /// Takes the lock of the site at `place` for this process.
    pub(crate) async fn of(
        place: &SiteUrl,
        site: &dyn Site,
        clock: &dyn Clock,
        me: Owner,
    ) -> Result<Self, LockError> {
        let SystemLock::Ours(file) = place.lock_by_system().map_err(LockError::File)? else {
            let holder = newest(site).await?.and_then(|(_, owner)| owner);
            return Err(LockError::Held(holder.map(Box::new)));
        };
        let pause = async || tokio::time::sleep(LOOK_EVERY).await;
        // The lock of the system is ours: no other server of this boot of this machine is alive.
        let boot = me.boot.clone();
        let Self(held) = Self::take(site, clock, me, |owner| owner.boot == boot, pause).await?;
        Ok(Self(held.map(|held| Held { _file: Some(file), ..held })))
    }

    /// Takes the lock of a site: at once if it is free or its owner is known to be dead, else after watching it; `pause`
    /// passes the time between two looks.
    pub(crate) async fn take(
        site: &dyn Site,
        clock: &dyn Clock,
        me: Owner,
        is_dead: impl Fn(&Owner) -> bool,
        pause: impl AsyncFn(),
    ) -> Result<Self, LockError> {
        let found = newest(site).await?;
        if let Some((number, holder)) = &found
            && !holder.as_ref().is_some_and(is_dead)
        {
            tracing::warn!(
                holder = holder.as_ref().map(ToString::to_string),
                "the site is locked by another server: taking over in {} s unless that server renews its lock",
                PERIOD.as_secs()
            );
            watch(site, clock, *number, &pause).await?;
        }
        let number = found.map_or(1, |(number, _)| number + 1);
        let renewed = clock.with_sleep();
        match put(site, number, &me).await {
            Ok(()) => {}
            Err(SiteError::Differs { .. }) => {
                let holder = newest(site).await?.and_then(|(_, owner)| owner);
                return Err(LockError::Held(holder.map(Box::new)));
            }
            Err(error) => return Err(error.into()),
        }
        delete_before(site, number).await?;
        let state = Mutex::new(State { number, renewed, tenure: Tenure::Kept });
        Ok(Self(Some(Held { owner: me, state, _file: None })))
    }

    /// Checks that the lock holds at this moment, by the holder's own clock.
    ///
    /// # Errors
    /// [`ServerError::Rests`] if it could not be renewed in time, or was given back.
    pub(crate) fn check(&self, clock: &dyn Clock) -> Result<(), ServerError> {
        let Self(Some(held)) = self else { return Ok(()) };
        let State { renewed, tenure, .. } = *lock(&held.state);
        if tenure == Tenure::GivenBack {
            let why = "the server is stopping and gave the site lock back, so another server may hold it";
            return Err(ServerError::Rests { code: "site_lock", why: why.to_owned() });
        }
        let age = clock.with_sleep().saturating_sub(renewed);
        if age < VALID_FOR {
            return Ok(());
        }
        let why = format!(
            "the site lock could not be renewed for {} s, so another server may hold it: commits and deletions are paused until it is renewed",
            age.as_secs()
        );
        Err(ServerError::Rests { code: "site_lock", why })
    }

    /// Renews the lock if it is time to, and it was not given back.
    ///
    /// # Errors
    /// [`LockError::Lost`], for good; [`LockError::Site`] may work later.
    pub(crate) async fn renew(&self, site: &dyn Site, clock: &dyn Clock) -> Result<(), LockError> {
        let Self(Some(held)) = self else { return Ok(()) };
        let now = clock.with_sleep();
        let number = {
            let state = lock(&held.state);
            if state.tenure == Tenure::GivenBack || now.saturating_sub(state.renewed) < RENEW_EVERY {
                return Ok(());
            }
            state.number + 1
        };
        let put = put(site, number, &held.owner).await;
        let found = newest(site).await?;
        let is_ours = put.is_ok() && found.as_ref().is_some_and(|(highest, _)| *highest == number);
        match put {
            Err(SiteError::Differs { .. }) | Ok(()) if !is_ours => {
                Err(LockError::Lost(found.and_then(|(_, owner)| owner).map(Box::new)))
            }
            put => {
                put?;
                held.renewed(number, now);
                Ok(delete_before(site, number - 1).await?)
            }
        }
    }

    /// Gives the lock back, so that the next server need not wait. From now on [`check`](Self::check) fails.
    ///
    /// # Errors
    /// [`SiteError`]; then it lasts for its period.
    pub(crate) async fn release(&self, site: &dyn Site) -> Result<(), SiteError> {
        let Self(Some(held)) = self else { return Ok(()) };
        let number = {
            let mut state = lock(&held.state);
            state.tenure = Tenure::GivenBack;
            state.number
        };
        for number in [number.saturating_sub(1), number] {
            site.delete(&lock_object(number)).await?;
        }
        Ok(())
    }
}

/// Returns once a foreign lock has not changed for the whole period, or is given back.
async fn watch(
    site: &dyn Site,
    clock: &dyn Clock,
    number: u64,
    pause: &impl AsyncFn(),
) -> Result<(), LockError> {
    let began = clock.with_sleep();
    loop {
        pause().await;
        match newest(site).await? {
            None => return Ok(()),
            Some((now, owner)) if now != number => return Err(LockError::Held(owner.map(Box::new))),
            Some(_) if clock.with_sleep().saturating_sub(began) >= PERIOD => return Ok(()),
            Some(_) => {}
        }
    }
}

async fn put(site: &dyn Site, number: u64, owner: &Owner) -> Result<(), SiteError> {
    let bytes = serde_json::to_vec(owner).expect("plain JSON");
    site.put_new(&lock_object(number), Bytes::from(bytes)).await.map(drop)
}

async fn delete_before(site: &dyn Site, number: u64) -> Result<(), SiteError> {
    for (old, _) in numbers(site).await?.into_iter().filter(|(old, _)| *old < number) {
        site.delete(&lock_object(old)).await?;
    }
    Ok(())
}

async fn newest(site: &dyn Site) -> Result<Newest, SiteError> {
    let Some((number, name)) = numbers(site).await?.into_iter().max() else { return Ok(None) };
    match site.get(&name).await {
        Ok(bytes) => Ok(Some((number, serde_json::from_slice(&bytes).ok()))),
        // It was renewed or given back since.
        Err(SiteError::NotFound { .. }) => Ok(Some((number, None))),
        Err(error) => Err(error),
    }
}

async fn numbers(site: &dyn Site) -> Result<Vec<(u64, ObjectName)>, SiteError> {
    let listed = site.list(&Prefix::area(Area::Locks)).await?;
    let number = |listed: Listed| Some((lock_named(&listed.name)?, listed.name));
    Ok(listed.into_iter().filter_map(number).collect())
}

#[cfg(test)]
mod tests;
