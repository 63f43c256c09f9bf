//! The repository server: one deduplicated store, its index, and the HTTP interface to both.
//!
//! | module | what it owns |
//! |---|---|
//! | [`http`] | routes, limits, authentication; the only user of axum and the hyper server |
//! | `session` | who pushes: leases with fencing tokens |
//! | `snapshot` | the commit, and finding what was committed |
//! | `pack` | blobs into packs, packs to the site, blobs back |
//! | `audit` | are the counts what manifests and pages name? |
//! | [`checkpoint`] | what packs hold, collected, for who makes the index anew |
//! | `owed` | references to pages that are lost |
//! | [`rebuild`] | the index anew, from site and key |
//! | `ledger` | the one place where rows of chunks and packs, and their counts, change |
//! | `forget`, `gc` | which snapshots go; what nothing needs goes after them |
//! | `freshness` | how old the last good snapshot of each series is, and may be |
//! | `notify` | alarms on their way to people |
//! | [`log`] | lines on standard error that hold nobody up |
//! | [`service`] | words to the service manager |
//! | `stats` | what clusters, nodes and snapshots take |
//! | `verify` | is everything there, and as it was written? |
//! | [`space`] | room on the disk: who is refused, and the ballast |
//! | `clock_watch`, `alarm` | a clock that jumped; what an operator must look at |
//! | [`config`], [`settings`] | what an operator has decided, as written and as it is used |
//! | `witness` | an index that is older than the site |
//! | `census` | are the packs that the index names on the site at all? |
//! | `defects` | what any read proves wrong, written down at that moment |
//! | `quarantine`, `damaged` | blobs, and all other objects, that are known to be damaged |
//! | [`repository`] | keys, domains, open packs; opening and making a data folder |
//! | [`index`] | rows behind the engine trait; the only user of fjall and sled |
//! | [`site`] | objects behind the site trait; the only user of `object_store` |
//! | [`site_lock`] | one server at a time over a site |
//! | [`durable`] | the one way a durable file comes to be |
//!
//! # What runs beside what
//!
//! Rows of chunks and packs change in batches that run one after the other ([`repository::Repository`]'s
//! `account`). Nothing holds up anything else for longer than one of them.
//!
//! | | push | commit | forget | collector | verify, audit | restore |
//! |---|---|---|---|---|---|---|
//! | **push** | open packs are shared under `Domain::open`; the same chunk from two nodes is appended once, and sent once if both wait for what others have promised (L5); a session that is adopted is over, its row deleted in the batch that grants the new one (L4) | a commit waits for the packs of its domain; what comes later goes into new ones | nothing: a tombstone changes no count | what a session was told is here stays by the epoch of its start (G2, G3); packs on their way are let be (G6) | an audit exempts rows that change meanwhile | nothing: packs never change |
//! | **commit** | | the session's row is the fence (L2), also against its adoption: whichever batch comes first wins | a policy sees it or not | finds its pages in the batch that announces its objects and in the one that counts them; packs go after the commits under way (G5) | a snapshot appears whole, in one batch | a snapshot appears whole, in one batch |
//! | **forget** | | | one after the other (`Repository::forgetting`) | a purge requires the tombstone that it read | nothing | reads on until the purge |
//! | **collector** | | | | one run, audit or checkpoint at a time (`Repository::turn`) | a pack or row that goes meanwhile is looked at again before it is reported | a blob that moved is looked for again |
//! | **verify, audit** | | | | | what is found of a blob or a pack is written to the row as it is then, if that still names the place that was read | a restore writes only what it finds damaged, as a check does |

mod alarm;
mod altered;
mod audit;
mod census;
pub mod checkpoint;
pub mod clock;
mod clock_watch;
pub mod config;
mod damaged;
mod defects;
pub mod durable;
pub mod error;
mod forget;
mod freshness;
mod gc;
pub mod http;
pub mod index;
mod ledger;
pub mod log;
mod notify;
mod owed;
mod pack;
mod quarantine;
pub mod rebuild;
pub mod repository;
mod rules;
pub mod service;
mod session;
pub mod settings;
pub mod site;
pub mod site_lock;
mod snapshot;
pub mod space;
mod stats;
#[cfg(test)]
mod testing;
mod time;
mod verify;
mod witness;
#[cfg(test)]
mod world;

use std::sync::Arc;
use std::time::Duration;

use format_spec::key::BlobKind;

use crate::error::Chain;
use crate::repository::{Domain, Repository};

/// Name and version of this program.
const SERVER: &str = concat!("astacus-server ", env!("CARGO_PKG_VERSION"));

/// Ends sessions whose time is over, and looks at the clock and at the room on the disk, every `period`,
/// for ever.
pub async fn expire_sessions(repository: Arc<Repository>, period: Duration) {
    loop {
        look_around(&repository).await;
        if let Err(error) = census::look_again(&repository).await {
            tracing::error!(error = %Chain(&error), "the packs on the site could not be counted again");
        }
        tokio::time::sleep(period).await;
        end_sessions(&repository).await;
        store_left_packs(&repository).await;
    }
}

/// Names the snapshots that need what is found damaged, each time that is, for ever.
pub async fn name_damage(repository: Arc<Repository>) {
    defects::name_as_met(repository).await;
}

/// Tells people of alarms by the configured channels, for ever.
pub async fn tell_people(repository: Arc<Repository>) {
    notify::tell(repository).await;
}

/// Ends sessions whose time is over, once what the last process left is settled.
async fn end_sessions(repository: &Arc<Repository>) {
    if !witness::settle_once(repository).await {
        return;
    }
    match repository.blocking(|repository| session::expire(repository)).await {
        Ok(0) => {}
        Ok(ended) => tracing::info!(ended, "sessions expired"),
        Err(error) => tracing::error!(error = %Chain(&error), "sessions could not be expired"),
    }
}

/// Stores what clusters without an open session have left in open packs, and drops what is kept of these clusters:
/// nobody may push there again. A push that was cut short need not send it again.
async fn store_left_packs(repository: &Arc<Repository>) {
    let busy = repository.sessions.clusters();
    let left = repository.domains().into_iter().filter(|domain| !busy.contains(&domain.name));
    for domain in left.filter(|domain| domain.has_open_packs()) {
        store_open_packs(repository, &domain).await;
    }
    repository.drop_idle_domains();
}

/// Raises the alarms that need nobody's request.
async fn look_around(repository: &Arc<Repository>) {
    let looked = repository.blocking(|repository| {
        repository.clock_watch.look(repository)?;
        space::look(repository)?;
        freshness::look(repository)
    });
    if let Err(error) = looked.await {
        tracing::error!(error = %Chain(&error), "clock, disk and series could not be checked");
    }
}

/// Looks after the repository as its settings say, for ever: forgets by policy, and collects.
pub async fn look_after(repository: Arc<Repository>) {
    let Some(every) = repository.parts.upkeep.gc.every else { return };
    loop {
        tokio::time::sleep(every).await;
        match forget::by_policy(&repository).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "snapshots deleted by policy"),
            Err(error) => tracing::error!(error = %Chain(&error), "retention policies could not be applied"),
        }
        match gc::run_unwatched(&repository).await {
            Ok(report) => tracing::info!(
                purged = report.purged.len(),
                chunks = report.chunks.count,
                deleted = report.deleted.count,
                deleted_bytes = report.deleted.bytes,
                stopped = report.stopped,
                "collected"
            ),
            Err(error) => tracing::error!(error = %Chain(&error), "garbage collection failed"),
        }
        if let Err(error) = checkpoint::run(&repository, checkpoint::When::Due).await {
            tracing::error!(error = %Chain(&error), "the checkpoint could not be written");
        }
    }
}

/// Gives the lock on the site back: the last thing before the process ends.
pub async fn release(repository: &Arc<Repository>) {
    if let Err(error) = repository.parts.lock.release(repository.parts.site.as_ref()).await {
        tracing::warn!(error = %Chain(&error), "the site lock could not be released");
    }
}

/// Stores what open packs hold, so that a push that goes on after a restart need not send it again.
pub async fn settle(repository: &Arc<Repository>) {
    for domain in repository.domains() {
        store_open_packs(repository, &domain).await;
    }
}

async fn store_open_packs(repository: &Arc<Repository>, domain: &Arc<Domain>) {
    for kind in [BlobKind::Chunk, BlobKind::Page] {
        if let Err(error) = pack::flush(repository, domain, kind).await {
            tracing::warn!(error = %Chain(&error), "open packs could not be stored");
        }
    }
}
