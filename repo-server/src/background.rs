//! Work that a server does beside its requests, as long as it runs.

use std::sync::Arc;
use std::time::Duration;

use format_spec::key::BlobKind;

use crate::checkpoint;
use crate::defects::{self, census};
use crate::error::Chain;
use crate::forget;
use crate::freshness;
use crate::gc;
use crate::health::space;
use crate::notify;
use crate::pack;
use crate::pack::Domain;
use crate::session;
use crate::start::compare;
use crate::store::Repository;

/// Ends sessions whose time is over, and looks at the clock and at the room on the disk, every `period`,
/// for ever.
pub async fn expire_sessions(repository: Arc<Repository>, period: Duration) {
    loop {
        look_around(&repository).await;
        if let Err(error) = census::look_again(&repository).await {
            tracing::error!(error = %Chain(&error), "the site could not be counted again");
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
pub(crate) async fn end_sessions(repository: &Arc<Repository>) {
    if !compare::settle_once(repository).await {
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
pub(crate) async fn store_left_packs(repository: &Arc<Repository>) {
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
        tracing::error!(error = %Chain(&error), "clock, disk and series could not be looked at");
    }
}

/// Looks after the repository as its settings say, for ever: forgets by policy, and collects.
pub async fn look_after(repository: Arc<Repository>) {
    let Some(every) = repository.parts.upkeep.gc.every else { return };
    loop {
        tokio::time::sleep(every).await;
        match forget::by_policy(&repository).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "snapshots were forgotten by policy"),
            Err(error) => tracing::error!(error = %Chain(&error), "no policy could be applied"),
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
            Err(error) => tracing::error!(error = %Chain(&error), "the collector could not go on"),
        }
        if let Err(error) = checkpoint::run(&repository, checkpoint::When::Due).await {
            tracing::error!(error = %Chain(&error), "no checkpoint could be written");
        }
    }
}

/// Gives the lock on the site back: the last thing before the process ends.
pub async fn release(repository: &Arc<Repository>) {
    if let Err(error) = repository.parts.lock.release(repository.parts.site.as_ref()).await {
        tracing::warn!(error = %Chain(&error), "the lock on the site could not be given back");
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
